"""Prompts become groups of completions: pictures encoded, prompts read, completions decoded and brought to the host."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Key

from m2io_jax.config import RunConfig
from m2io_jax.episodes.batching import PromptEncoder, PromptRow, stack_prompts
from m2io_jax.episodes.pipeline import RowError
from m2io_jax.errors import UserError
from m2io_jax.grammar import Grammar
from m2io_jax.models.inputs import Completions, PromptBatch
from m2io_jax.models.policy import Policy
from m2io_jax.models.preprocessing import with_pixels
from m2io_jax.models.sizes import VisionConfig
from m2io_jax.parallel.exchange import gathered
from m2io_jax.parallel.mesh import on_mesh
from m2io_jax.parallel.sharding import batch_sharding, local_count, own_rows, place_batch, placed_batch
from m2io_jax.rl.data.noise import diffused, noise_step
from m2io_jax.sampling.constraints import Constraints
from m2io_jax.sampling.rollouts import Sampler
from m2io_jax.sampling.sampler import Rollouts, SamplingConfig
from m2io_jax.tasks import find_task
from m2io_jax.training.compiling import Ahead, returned
from m2io_jax.training.groups import Group, as_groups
from m2io_jax.training.state import in_parts
from m2io_jax.training.stopwatch import Stopwatch


class GroupSampler:
    """Samples groups, of which half may see noise in place of their pictures (`data.noise`).

    Args:
        keeps_pictures: groups have their encoded pictures with them.
    """

    def __init__(self, config: RunConfig, policy: Policy, mesh: Mesh, *, keeps_pictures: bool):
        self.config, self.mesh, self.vision = config, mesh, policy.config.vision
        self.keeps_pictures = keeps_pictures
        draw, length = config.rollout, config.batch.completion_length
        self.sampling = SamplingConfig(
            temperatures=(draw.temperature,) * config.completions_at_once,
            max_length=length,
            top_k=draw.top_k,
            top_p=draw.top_p,
            min_p=draw.min_p,
        )
        gather = config.computation.dtype if draw.gather else None
        self.sampler = Sampler(policy.structure, self.sampling, mesh, constrained=draw.constrained, gather=gather)
        self.constraints = None
        if draw.constrained:
            tokens = policy.codec.token_bytes()
            self.constraints = Constraints(the_grammar(config), tokens, policy.config, mesh, max_length=length)
        # What noise was the cause of is learnt from as if the pictures had been clean: so are its log-probabilities.
        clean = partial(shortened_log_probs, policy.structure, config, length, 1)
        self.given_clean = jax.jit(on_mesh(mesh, clean), out_shardings=batch_sharding(mesh))

    def check(self, names: tuple[int, int]) -> None:
        """Raises RowError: a completion that uses these names cannot be constrained."""
        if reason := self.constraints.refuses(names):
            raise RowError(reason)

    def encoded(self, params: nnx.State, blank: PromptRow) -> jax.ShapeDtypeStruct:
        """Shape and dtype of a prompt's encoded pictures."""
        prompts = placed_batch(stack_prompts([blank] * local_count(self.config.prompts_at_once)), self.mesh)
        seen = jax.eval_shape(self.sampler.encode, params, prompts)
        return jax.ShapeDtypeStruct(seen.shape[1:], seen.dtype)

    def compile(self, ahead: Ahead, weights: nnx.State, own: nnx.State, encoder: PromptEncoder) -> None:
        """Compiles what `__call__` runs, for these weights."""
        rows, key = local_count(self.config.prompts_at_once), jax.eval_shape(jax.random.key, 0)
        sampler = self.sampler
        prompts = placed_batch(stack_prompts([encoder.blank()] * rows), self.mesh)
        constraint = self.constraints and self.constraints.batch([(0, 0)] * rows)
        sampler.encode = ahead("encode", sampler.encode, weights, prompts)
        pictures = returned(sampler.encode)
        sampler.prefill = ahead("prefill", sampler.prefill, weights, prompts, pictures)
        prefilled = returned(sampler.prefill)
        sampler.decode = ahead("decode", sampler.decode, weights, prompts, prefilled, key, constraint)
        if self.config.data.noise:
            kept = pictures if self.keeps_pictures else None
            shape = (rows, len(self.sampling.temperatures), self.sampling.max_length)
            completions = Completions(np.zeros(shape, np.int32), np.zeros(shape, bool))
            self.given_clean = ahead(
                "clean", self.given_clean, own, prompts, kept, placed_batch(completions, self.mesh)
            )

    def __call__(
        self,
        rows: Sequence,
        weights: nnx.State,
        own: nnx.State,
        key: Key[Array, ""],
        *,
        step: int,
        progress: float,
        timing: Stopwatch,
    ) -> list[Group]:
        """A group for each row, not scored yet.

        Args:
            rows: each with a `prompt`; where completions are constrained, with its `task` and `episode`.
            weights, own: those that sample, and the trainer's; the same but for `int8`.
            step: steps of the run before this one.
            progress: 0 to 1, the run's.
        """
        at_once, given = local_count(self.config.prompts_at_once), (weights, own, key, step, progress, timing)
        parts = (rows[start : start + at_once] for start in range(0, len(rows), at_once))
        return [group for part in parts for group in self._groups(part, *given)]

    def _groups(self, rows: Sequence, weights, own, key, step: int, progress: float, timing: Stopwatch) -> list[Group]:
        prompts = [row.prompt for row in rows]
        constraint = self.constraints and self.constraints.batch([row.task.names(row.episode) for row in rows])
        placed = place_batch(stack_prompts(prompts), self.mesh)
        pictures, rollouts = self._drawn(placed, weights, key, constraint, timing)
        kept = pictures if self.keeps_pictures else None
        if self.config.data.noise:
            noisy = place_batch(stack_prompts([self._noisy(prompt, step, progress) for prompt in prompts]), self.mesh)
            others = self._drawn(noisy, weights, jax.random.fold_in(key, 1), constraint, timing)[1]
            completions = place_batch(others.completions, self.mesh)
            log_probs = timing.measure("clean", self.given_clean, own, placed, kept, completions)
            others = replace(others, log_probs=own_rows(log_probs))
            rollouts = jax.tree.map(lambda *halves: np.concatenate(halves, axis=1), rollouts, others)
        return as_groups(prompts, None if kept is None else own_rows(kept), rollouts, step)

    def noise_level(self, progress: float) -> int:
        """The diffusion step of the noise at `progress` (0 to 1) of the run."""
        noise = self.config.data.noise
        return noise_step(progress, steps=noise.steps, steepness=noise.steepness, middle=noise.middle)

    def _drawn(self, prompts, weights, key, constraint, timing: Stopwatch) -> tuple[jax.Array, Rollouts]:
        """Encoded pictures, and rollouts in NumPy; the cache is gone."""
        pictures = timing.measure("encode", self.sampler.encode, weights, prompts)
        prefilled = timing.measure("prefill", self.sampler.prefill, weights, prompts, pictures)
        rollouts = timing.measure("decode", self.sampler.decode, weights, prompts, prefilled, key, constraint)
        return pictures, own_rows(rollouts)

    def _noisy(self, prompt: PromptRow, step: int, progress: float) -> PromptRow:
        """The prompt with noise on its pictures, which the seeds of run and prompt and the step decide."""
        level = self.noise_level(progress)
        random = np.random.default_rng((self.config.seed, step, int(prompt.seeds)))
        return noisy_prompt(prompt, self.vision, level, random)


def noisy_prompt(prompt: PromptRow, vision: VisionConfig, level: int, random: np.random.Generator) -> PromptRow:
    """The prompt with its pictures as after `level` steps of diffusion; padding stays as it is."""
    patches, real = prompt.patches.copy(), prompt.windows >= 0
    patches[real] = with_pixels(patches[real], vision, lambda pixels: diffused(pixels, level, random))
    return replace(prompt, patches=patches)


def the_grammar(config: RunConfig) -> Grammar:
    """The grammar of the run's task.

    Raises:
        UserError: it has none, or there are several tasks.
    """
    grammars = {getattr(find_task(name), "grammar", None) for name, weight in config.tasks.items() if weight}
    if len(grammars) != 1 or None in grammars:
        what = "Completions can be constrained where all tasks have the same grammar."
        raise UserError(what, where="rollout.constrained", mend="leave it false, or train one task")
    return grammars.pop()


def shortened_log_probs(
    structure: nnx.GraphDef,
    config: RunConfig,
    length: int,
    micro_batches: int,
    params: nnx.State,
    prompts: PromptBatch,
    pictures: Float[Array, "rows media size"] | None,
    completions: Completions,
) -> Float[Array, "rows group {length}"]:
    """Log-probabilities of the first `length` tokens of the completions under some weights, computed for so many
    micro-batches one after another."""

    def of(rows):
        prompts, pictures, completions = rows
        model = nnx.merge(structure, params)
        return model.completion_log_probs(prompts, completions, config.rollout.temperature, pictures)[0]

    rows = prompts, pictures, shortened(completions, length)
    return in_parts(of, micro_batches, rows)


def shortened(tokens, length: int):
    """Completions or rollouts without what comes after `length` tokens."""
    return jax.tree.map(lambda each: jnp.asarray(each)[:, :, :length], tokens)


def length_metrics(groups: Sequence[Group], stops: tuple[int, ...]) -> dict[str, float]:
    """Lengths in tokens, of all processes; a completion without a stop token was clipped."""
    ended = [(np.isin(group.tokens, stops) & group.mask).any(-1) for group in groups]
    own = [(group.mask.sum(-1).tolist(), each.tolist()) for group, each in zip(groups, ended, strict=True)]
    every = [group for process in gathered(own) for group in process]
    lengths, stopped = (np.concatenate(each) for each in zip(*every, strict=True))
    return {
        "completions/mean_length": float(lengths.mean()),
        "completions/min_length": float(lengths.min()),
        "completions/max_length": float(lengths.max()),
        "completions/clipped_ratio": float(1 - stopped.mean()),
        "num_tokens": float(lengths.sum()),
    }
