"""Rollouts: prompts become groups of completions. Images are encoded once, prompts prefilled once, G completions
decoded, and all of it brought to the host, where groups can be filtered, kept for later steps, replayed and saved."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, Key

from m2io_jax.config import RunConfig
from m2io_jax.episodes.batching import PromptRow, stack_prompts
from m2io_jax.errors import RowError, UserError
from m2io_jax.grammar import Grammar
from m2io_jax.models.inputs import Completions, PromptBatch
from m2io_jax.models.policy import Policy
from m2io_jax.models.preprocessing import with_pixels
from m2io_jax.models.sizes import CLIP, ImageConfig, VisionConfig
from m2io_jax.parallel.mesh import on_mesh
from m2io_jax.parallel.sharding import batch_sharding, local_count, own_rows, place_batch, placed_batch
from m2io_jax.rl.data.noise import diffused, noise_step
from m2io_jax.sampling.constraints import Constraints
from m2io_jax.sampling.sampler import Rollouts, Sampler, SamplingConfig
from m2io_jax.tasks import find_task
from m2io_jax.training.programs import AOTCompiler, Program, Runner, TimedRunner
from m2io_jax.training.state import in_parts


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Group:
    """One prompt and its G completions, as NumPy arrays on the host.

    Attributes:
        pictures: encoded images, where every policy of the run encodes them alike; else None.
        log_probs: of the tokens under the policy that sampled them, given the images without noise.
        rewards: NaN where a completion could not be scored; nothing is learnt from it.
        weight: factor of the advantages.
        signal: how much there is to learn (`rl/data/buffer.py`).
        step: steps of the run before the one that sampled the group.
    """

    prompt: PromptRow
    pictures: Float[np.ndarray, "media size"] | None
    tokens: Int[np.ndarray, "group time"]
    mask: Bool[np.ndarray, "group time"]
    log_probs: Float[np.ndarray, "group time"]
    rewards: Float[np.ndarray, " group"]
    weight: Float[np.ndarray, ""]
    signal: Float[np.ndarray, ""]
    step: Int[np.ndarray, ""]

    def completions(self) -> list[list[int]]:
        """Return the tokens of each completion without padding."""
        return [ids[real].tolist() for ids, real in zip(self.tokens, self.mask, strict=True)]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class GroupBatch:
    """A batch of groups as an update takes it, one row a group.

    Attributes:
        pictures: encoded images, which no gradient reaches; None: an update encodes them itself.
        rewards: NaN where a completion could not be scored.
        weights: factors of the groups' advantages; None: all 1.
        ref_log_probs: under the reference policy; None where there is no KL penalty.
        old_log_probs: under the trainer's policy before the first update on these rollouts, where updates need it.
    """

    prompts: PromptBatch
    pictures: Float[Array, "rows media size"] | None
    rollouts: Rollouts
    rewards: Float[Array, "rows group"]
    weights: Float[Array, " rows"] | None = None
    ref_log_probs: Float[Array, "rows group length"] | None = None
    old_log_probs: Float[Array, "rows group length"] | None = None


class GroupSampler:
    """Samples a group of completions for each prompt; half of a group may see noisy images (`data.noise`).

    Args:
        keeps_pictures: groups keep their encoded images for the update.
    """

    def __init__(self, config: RunConfig, policy: Policy, mesh: Mesh, *, keeps_pictures: bool):
        self.config, self.mesh = config, mesh
        self.vision, self.image = policy.config.vision, policy.config.image
        self.keeps_pictures = keeps_pictures
        self.rows_at_once = local_count(config.prompts_at_once)
        settings, length = config.rollout, config.batch.completion_length
        self.sampling = SamplingConfig(
            temperatures=(settings.temperature,) * config.completions_at_once,
            max_length=length,
            top_k=settings.top_k,
            top_p=settings.top_p,
            min_p=settings.min_p,
        )
        gather = config.computation.dtype if settings.gather else None
        self.sampler = Sampler(policy.structure, self.sampling, mesh, constrained=settings.constrained, gather=gather)
        self.encode, self.prefill, self.decode = (
            Program(name, getattr(self.sampler, name)) for name in ("encode", "prefill", "decode")
        )
        self.constraints = None
        if settings.constrained:
            tokens = policy.codec.token_bytes()
            self.constraints = Constraints(shared_grammar(config), tokens, policy.config, mesh, max_length=length)
        # Completions sampled from noisy images are learnt from as if the images had been clean.
        clean = partial(completion_log_probs, policy.structure, config, length, 1)
        self.clean = Program("clean", jax.jit(on_mesh(mesh, clean), out_shardings=batch_sharding(mesh)))

    def check(self, names: tuple[int, int]) -> None:
        """Raise RowError if a completion that uses these names cannot be constrained."""
        if reason := self.constraints.refuses(names):
            raise RowError(reason)

    def encoded_shape(self, params: nnx.State, padding: PromptRow) -> jax.ShapeDtypeStruct:
        """Return shape and dtype of a prompt's encoded images."""
        prompts = placed_batch(stack_prompts([padding] * self.rows_at_once), self.mesh)
        encoded = jax.eval_shape(self.sampler.encode, params, prompts)
        return jax.ShapeDtypeStruct(encoded.shape[1:], encoded.dtype)

    def compile(self, compiler: AOTCompiler, weights: nnx.State, own: nnx.State, padding: PromptRow) -> None:
        """Compile what `__call__` runs, for these weights."""
        key = jax.eval_shape(jax.random.key, 0)
        prompts = placed_batch(stack_prompts([padding] * self.rows_at_once), self.mesh)
        noisy = (prompts, key) if self.config.data.noise else None
        constraint = self.constraints and self.constraints.batch([(0, 0)] * self.rows_at_once)
        self._run_programs(compiler, weights, own, (prompts, key), noisy, constraint)

    def __call__(
        self,
        run: TimedRunner,
        rows: Sequence,
        weights: nnx.State,
        own: nnx.State,
        key: Key[Array, ""],
        *,
        step: int,
        progress: float,
    ) -> list[Group]:
        """Sample a group for each row; rewards are not filled in yet.

        Args:
            rows: each with a `prompt`; where completions are constrained, with its `task` and `episode`.
            weights, own: those that sample, and the trainer's; the same but for `int8`.
            step: steps of the run before this one.
            progress: fraction of the run that is done.
        """
        parts = (rows[start : start + self.rows_at_once] for start in range(0, len(rows), self.rows_at_once))
        return [group for part in parts for group in self._groups(run, part, weights, own, key, step, progress)]

    def _groups(self, run: TimedRunner, rows: Sequence, weights, own, key, step: int, progress: float) -> list[Group]:
        prompts, noisy = [row.prompt for row in rows], None
        constraint = self.constraints and self.constraints.batch([row.task.names(row.episode) for row in rows])
        clean = (place_batch(stack_prompts(prompts), self.mesh), key)
        if self.config.data.noise:
            noisy = place_batch(stack_prompts([self._noisy(prompt, step, progress) for prompt in prompts]), self.mesh)
            noisy = (noisy, jax.random.fold_in(key, 1))
        pictures, parts = self._run_programs(run, weights, own, clean, noisy, constraint)
        rollouts = jax.tree.map(lambda *arrays: np.concatenate(arrays, axis=1), *map(own_rows, parts))
        return to_groups(prompts, None if pictures is None else own_rows(pictures), rollouts, step)

    def noise_level(self, progress: float) -> int:
        """Return the diffusion step of the noise at `progress` (0 to 1) of the run."""
        noise = self.config.data.noise
        return noise_step(progress, steps=noise.steps, steepness=noise.steepness, middle=noise.middle)

    def _run_programs(
        self, run: Runner, weights: nnx.State, own: nnx.State, clean: tuple, noisy: tuple | None, constraint
    ) -> tuple[jax.Array | None, list[Rollouts]]:
        """Return encoded images, where they are kept, and the rollouts of the clean and of the noisy prompts.

        Args:
            clean, noisy: prompts, and the key by which their completions are sampled.
        """
        pictures, rollouts = self._complete(run, weights, *clean, constraint)
        pictures = pictures if self.keeps_pictures else None
        if noisy is None:
            return pictures, [rollouts]
        others = self._complete(run, weights, *noisy, constraint)[1]  # frees the encoded noisy images
        log_probs = run(self.clean, own, clean[0], pictures, others.completions)
        return pictures, [rollouts, replace(others, log_probs=log_probs)]

    def _complete(self, run: Runner, weights: nnx.State, prompts: PromptBatch, key, constraint):
        """Return encoded images and rollouts; the KV cache is freed."""
        pictures = run(self.encode, weights, prompts)
        prefilled = run(self.prefill, weights, prompts, pictures)
        return pictures, run(self.decode, weights, prompts, prefilled, key, constraint)

    def _noisy(self, prompt: PromptRow, step: int, progress: float) -> PromptRow:
        """Add noise to the prompt's images; the seeds of run and prompt and the step decide it."""
        random = np.random.default_rng((self.config.seed, step, int(prompt.seeds)))
        return noisy_prompt(prompt, self.vision, self.noise_level(progress), random, self.image)


def noisy_prompt(
    prompt: PromptRow,
    vision: VisionConfig,
    level: int,
    random: np.random.Generator,
    image: ImageConfig = CLIP,
) -> PromptRow:
    """Return the prompt with its images after `level` steps of diffusion; padding stays as it is."""
    patches, real = prompt.patches.copy(), prompt.windows >= 0
    patches[real] = with_pixels(patches[real], vision, lambda pixels: diffused(pixels, level, random), image)
    return replace(prompt, patches=patches)


def shared_grammar(config: RunConfig) -> Grammar:
    """Return the grammar that all tasks of the run share.

    Raises:
        UserError: if a task has none, or they differ.
    """
    grammars = {getattr(find_task(name), "grammar", None) for name, weight in config.tasks.items() if weight}
    if len(grammars) != 1 or None in grammars:
        what = "Completions can be constrained where all tasks have the same grammar."
        raise UserError(what, where="rollout.constrained", mend="leave it false, or train one task")
    return grammars.pop()


def completion_log_probs(
    structure: nnx.GraphDef,
    config: RunConfig,
    length: int,
    micro_batches: int,
    params: nnx.State,
    prompts: PromptBatch,
    pictures: Float[Array, "rows media size"] | None,
    completions: Completions,
) -> Float[Array, "rows group {length}"]:
    """Compute the log-probs of the first `length` tokens of the completions, one micro-batch after another."""

    def score(rows):
        prompts, pictures, completions = rows
        model = nnx.merge(structure, params)
        return model.completion_log_probs(prompts, completions, config.rollout.temperature, pictures)[0]

    rows = prompts, pictures, truncate(completions, length)
    return in_parts(score, micro_batches, rows)


def truncate(tokens, length: int):
    """Return completions or rollouts without what comes after `length` tokens."""
    return jax.tree.map(lambda each: jnp.asarray(each)[:, :, :length], tokens)


def padding_group(prompt: PromptRow, pictures: jax.ShapeDtypeStruct | None, group: int, length: int) -> Group:
    """Return a group in the shapes of every other that nothing is learnt from: an all-zero mask, NaN rewards.

    Args:
        prompt: one of padding alone.
        pictures: shape and dtype of a prompt's encoded images.
    """
    shape = (group, length)
    return Group(
        prompt=prompt,
        pictures=None if pictures is None else np.zeros(pictures.shape, pictures.dtype),
        tokens=np.zeros(shape, np.int32),
        mask=np.zeros(shape, bool),
        log_probs=np.zeros(shape, np.float32),
        rewards=np.full(group, np.nan, np.float32),
        weight=np.float32(1),
        signal=np.float32(0),
        step=np.int32(0),
    )


def to_groups(prompts: Sequence[PromptRow], pictures: np.ndarray | None, rollouts: Rollouts, step: int) -> list[Group]:
    """Split rollouts (NumPy arrays) into groups, whose rewards are not filled in yet."""
    padding = padding_group(prompts[0], None, *rollouts.log_probs.shape[1:])
    tokens, mask, log_probs = rollouts.completions.tokens, rollouts.completions.mask, rollouts.log_probs
    return [
        replace(
            padding,
            prompt=prompt,
            # copies, so that one group that is kept does not keep the whole batch in memory
            pictures=None if pictures is None else pictures[row].copy(),
            tokens=tokens[row].copy(),
            mask=mask[row].copy(),
            log_probs=log_probs[row].copy(),
            step=np.int32(step),
        )
        for row, prompt in enumerate(prompts)
    ]


def to_batch(groups: Sequence[Group]) -> GroupBatch:
    """Stack groups of the same shapes into a batch."""
    stacked = stack_groups([replace(group, prompt=None) for group in groups])
    rollouts = Rollouts(Completions(stacked.tokens, stacked.mask), stacked.log_probs)
    prompts = stack_prompts([group.prompt for group in groups])
    return GroupBatch(prompts, stacked.pictures, rollouts, stacked.rewards, stacked.weight)


def stack_groups(groups: Sequence[Group]) -> Group:
    """Return one group whose arrays have a row for each of these."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *groups)


def unstack_groups(stacked: Group, count: int) -> list[Group]:
    """Return the first `count` groups of those given to `stack_groups`."""
    return [jax.tree.map(lambda leaf, row=row: np.array(leaf[row]), stacked) for row in range(count)]
