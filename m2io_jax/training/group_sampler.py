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
from m2io_jax.episodes.batching import PromptRow, stack_prompts
from m2io_jax.errors import RowError, UserError
from m2io_jax.grammar import Grammar
from m2io_jax.models.inputs import Completions, PromptBatch
from m2io_jax.models.policy import Policy
from m2io_jax.models.preprocessing import with_pixels
from m2io_jax.models.sizes import CLIP, ImageConfig, VisionConfig
from m2io_jax.parallel.exchange import gathered
from m2io_jax.parallel.mesh import on_mesh
from m2io_jax.parallel.sharding import batch_sharding, local_count, own_rows, place_batch, placed_batch
from m2io_jax.rl.data.noise import diffused, noise_step
from m2io_jax.sampling.constraints import Constraints
from m2io_jax.sampling.rollouts import Sampler
from m2io_jax.sampling.sampler import Rollouts, SamplingConfig
from m2io_jax.tasks import find_task
from m2io_jax.training.groups import Group, as_groups
from m2io_jax.training.programs import Ahead, Program, Runner, Stopwatch
from m2io_jax.training.state import in_parts


class GroupSampler:
    """Samples groups, of which half may see noise in place of their pictures (`data.noise`).

    Args:
        keeps_pictures: groups have their encoded pictures with them.
    """

    def __init__(self, config: RunConfig, policy: Policy, mesh: Mesh, *, keeps_pictures: bool):
        self.config, self.mesh = config, mesh
        self.vision, self.image = policy.config.vision, policy.config.image
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
        self.encode, self.prefill, self.decode = (
            Program(name, getattr(self.sampler, name)) for name in ("encode", "prefill", "decode")
        )
        self.constraints = None
        if draw.constrained:
            tokens = policy.codec.token_bytes()
            self.constraints = Constraints(the_grammar(config), tokens, policy.config, mesh, max_length=length)
        # What noise was the cause of is learnt from as if the pictures had been clean: so are its log-probabilities.
        clean = partial(shortened_log_probs, policy.structure, config, length, 1)
        self.clean = Program("clean", jax.jit(on_mesh(mesh, clean), out_shardings=batch_sharding(mesh)))

    def check(self, names: tuple[int, int]) -> None:
        """Raises RowError: a completion that uses these names cannot be constrained."""
        if reason := self.constraints.refuses(names):
            raise RowError(reason)

    def encoded(self, params: nnx.State, blank: PromptRow) -> jax.ShapeDtypeStruct:
        """Shape and dtype of a prompt's encoded pictures."""
        prompts = placed_batch(stack_prompts([blank] * local_count(self.config.prompts_at_once)), self.mesh)
        seen = jax.eval_shape(self.sampler.encode, params, prompts)
        return jax.ShapeDtypeStruct(seen.shape[1:], seen.dtype)

    def compile(self, ahead: Ahead, weights: nnx.State, own: nnx.State, blank: PromptRow) -> None:
        """Compiles what `__call__` runs, for these weights."""
        rows, key = local_count(self.config.prompts_at_once), jax.eval_shape(jax.random.key, 0)
        prompts = placed_batch(stack_prompts([blank] * rows), self.mesh)
        noisy = (prompts, key) if self.config.data.noise else None
        constraint = self.constraints and self.constraints.batch([(0, 0)] * rows)
        self._drawn(ahead, weights, own, (prompts, key), noisy, constraint)

    def __call__(
        self,
        run: Stopwatch,
        rows: Sequence,
        weights: nnx.State,
        own: nnx.State,
        key: Key[Array, ""],
        *,
        step: int,
        progress: float,
    ) -> list[Group]:
        """A group for each row, not scored yet.

        Args:
            rows: each with a `prompt`; where completions are constrained, with its `task` and `episode`.
            weights, own: those that sample, and the trainer's; the same but for `int8`.
            step: steps of the run before this one.
            progress: 0 to 1, the run's.
        """
        at_once, given = local_count(self.config.prompts_at_once), (weights, own, key, step, progress)
        parts = (rows[start : start + at_once] for start in range(0, len(rows), at_once))
        return [group for part in parts for group in self._groups(run, part, *given)]

    def _groups(self, run: Stopwatch, rows: Sequence, weights, own, key, step: int, progress: float) -> list[Group]:
        prompts, noisy = [row.prompt for row in rows], None
        constraint = self.constraints and self.constraints.batch([row.task.names(row.episode) for row in rows])
        clean = (place_batch(stack_prompts(prompts), self.mesh), key)
        if self.config.data.noise:
            noisy = place_batch(stack_prompts([self._noisy(prompt, step, progress) for prompt in prompts]), self.mesh)
            noisy = (noisy, jax.random.fold_in(key, 1))
        pictures, drawn = self._drawn(run, weights, own, clean, noisy, constraint)
        rollouts = jax.tree.map(lambda *parts: np.concatenate(parts, axis=1), *map(own_rows, drawn))
        return as_groups(prompts, None if pictures is None else own_rows(pictures), rollouts, step)

    def noise_level(self, progress: float) -> int:
        """The diffusion step of the noise at `progress` (0 to 1) of the run."""
        noise = self.config.data.noise
        return noise_step(progress, steps=noise.steps, steepness=noise.steepness, middle=noise.middle)

    def _drawn(
        self, run: Runner, weights: nnx.State, own: nnx.State, clean: tuple, noisy: tuple | None, constraint
    ) -> tuple[jax.Array | None, list[Rollouts]]:
        """Encoded pictures where they are kept, and rollouts: of the clean prompts, and of those with noise.

        Args:
            clean, noisy: prompts, and the key by which their completions are drawn.
        """
        pictures, rollouts = self._completed(run, weights, *clean, constraint)
        pictures = pictures if self.keeps_pictures else None
        if noisy is None:
            return pictures, [rollouts]
        others = self._completed(run, weights, *noisy, constraint)[1]  # the noise's pictures are gone
        log_probs = run(self.clean, own, clean[0], pictures, others.completions)
        return pictures, [rollouts, replace(others, log_probs=log_probs)]

    def _completed(self, run: Runner, weights: nnx.State, prompts: PromptBatch, key, constraint):
        """Encoded pictures, and rollouts; the cache is gone."""
        pictures = run(self.encode, weights, prompts)
        prefilled = run(self.prefill, weights, prompts, pictures)
        return pictures, run(self.decode, weights, prompts, prefilled, key, constraint)

    def _noisy(self, prompt: PromptRow, step: int, progress: float) -> PromptRow:
        """The prompt with noise on its pictures, which the seeds of run and prompt and the step decide."""
        level = self.noise_level(progress)
        random = np.random.default_rng((self.config.seed, step, int(prompt.seeds)))
        return noisy_prompt(prompt, self.vision, level, random, self.image)


def noisy_prompt(
    prompt: PromptRow,
    vision: VisionConfig,
    level: int,
    random: np.random.Generator,
    image: ImageConfig = CLIP,
) -> PromptRow:
    """The prompt with its pictures as after `level` steps of diffusion; padding stays as it is."""
    patches, real = prompt.patches.copy(), prompt.windows >= 0
    patches[real] = with_pixels(patches[real], vision, lambda pixels: diffused(pixels, level, random), image)
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
