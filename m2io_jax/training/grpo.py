"""GRPO (arXiv 2402.03300), read from top to bottom in `GRPO.step`:

    prompts ──sample──▶ G completions each ──score──▶ rewards ──▶ group-relative advantages ──update──▶ policy
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Key

from m2io_jax.config import RunConfig
from m2io_jax.episodes.batching import PromptEncoder, PromptRow, stack_prompts
from m2io_jax.episodes.episode import Episode
from m2io_jax.episodes.pipeline import RowError
from m2io_jax.errors import UserError
from m2io_jax.grammar import Grammar
from m2io_jax.models.flops import group_flops, picture_flops
from m2io_jax.models.inputs import Completions, PromptBatch
from m2io_jax.models.int8 import quantizer
from m2io_jax.models.policy import Policy
from m2io_jax.models.sizes import ModelConfig
from m2io_jax.parallel.mesh import on_mesh
from m2io_jax.parallel.peak import peak_flops
from m2io_jax.parallel.sharding import batch_sharding, local_shards, param_shardings, place, place_batch, placed_batch
from m2io_jax.rl.overlong import soft_overlong_penalty
from m2io_jax.rl.selection import most_signal
from m2io_jax.sampling.constraints import Constraints
from m2io_jax.sampling.rollouts import Sampler, completion_ids
from m2io_jax.sampling.sampler import Rollouts, SamplingConfig
from m2io_jax.tasks import find_task
from m2io_jax.tasks.task import Task, choose
from m2io_jax.training.compiling import Ahead, returned, side_by_side
from m2io_jax.training.objective import (
    LEAST_RATIO,
    configured_advantages,
    configured_kl_weight,
    configured_objective,
    remembered,
)
from m2io_jax.training.optimizer import make_optimizer
from m2io_jax.training.scoring import score_completions, without_unscored
from m2io_jax.training.state import TrainState, gradient_step, state_shardings
from m2io_jax.training.trained import join, split, stored


@dataclass(frozen=True)
class GRPORow:
    """A prompt, and what its completions are scored against."""

    prompt: PromptRow
    episode: Episode
    task: Task


class GRPO:
    """Trains by reinforcement with verifiable rewards. Pictures are encoded and prompts run once per group.

    Attributes:
        memory: what a step leaves to the next beside the state, as JSON values; it is in the checkpoint.
    """

    def __init__(self, config: RunConfig, policy: Policy, mesh: Mesh):
        self.config, self.mesh, self.codec = config, mesh, policy.codec
        self.encoder = PromptEncoder(policy.config, policy.codec, config.batch)
        self.optimizer = make_optimizer(config.optimizer)
        self.begin, self.frozen = split(place(policy.params, param_shardings(policy.params, mesh)), config)
        reference = join(stored(self.begin, config), self.frozen)
        self._quantized = quantizer(mesh)
        reference = self._quantized(reference) if "reference" in config.int8 else reference
        self.reference = reference if config.grpo.kl_beta else None
        self.memory = remembered(config.grpo)
        # Corrected rollouts are compared with the weights before the updates; a single update computes those itself.
        self.looks_back = config.grpo.rollout_correction != "none" and config.grpo.updates_per_rollout > 1
        draw = config.rollout
        self.sampling = SamplingConfig(
            temperatures=(draw.temperature,) * draw.group_size,
            max_length=config.batch.completion_length,
            top_k=draw.top_k,
            top_p=draw.top_p,
            min_p=draw.min_p,
        )
        structure = policy.structure
        gather = config.computation.dtype if draw.gather else None
        self.sampler = Sampler(structure, self.sampling, mesh, constrained=draw.constrained, gather=gather)
        self.constraints = None
        if draw.constrained:
            self.constraints = Constraints(
                the_grammar(config),
                policy.codec.token_bytes(),
                policy.config,
                mesh,
                max_length=config.batch.completion_length,
            )
        # Pictures that every model here encodes alike are encoded once a step.
        trains_vision = any(path[0] == "vision" for path, _ in nnx.to_flat_state(self.begin))
        self.same_pictures = not trains_vision and not config.int8
        lengths = config.batch.completion_lengths  # an update is compiled for each
        shardings = state_shardings(self.begin, self.optimizer, mesh)
        self._take = _rows_taken(mesh)
        self._score, self._own, self._update, self.update_flops = {}, {}, {}, {}
        for length in lengths:
            score = partial(shortened_log_probs, structure, config, length)
            update = partial(shortened_update, length, partial(grpo_update, structure, self.optimizer, config))
            self._score[length] = jax.jit(on_mesh(mesh, score), out_shardings=batch_sharding(mesh))
            self._own[length] = self._score[length]
            self._update[length] = jax.jit(on_mesh(mesh, update), donate_argnums=0, out_shardings=(shardings, None))
            self.update_flops[length] = self._update_flops(policy.config, length)

    def row(self, episode: Episode, random: np.random.Generator, tasks: Mapping[str, float]) -> GRPORow:
        """Prepares one prompt of one of the `tasks`, drawn by weight, in the data pipeline.

        Raises:
            RowError: it does not fit the static shapes, or the task has no use for it.
        """
        task = find_task(choose(tasks, random))
        if self.constraints and (reason := self.constraints.refuses(task.names(episode))):
            raise RowError(reason)
        prompt = self.encoder.row(task.prompt(episode), episode.candidates, seed=int(random.integers(2**31)))
        return GRPORow(prompt, episode, task)

    def compile(self, state: TrainState, ahead: Ahead) -> dict[str, float]:
        """Compiles every program of a step, before the first; returns the seconds of each."""
        mesh, rows = self.mesh, self.config.prompts_a_step
        prompts = placed_batch(stack_prompts([self.encoder.blank()] * rows), mesh)
        policy, key = self._sampling_weights(state), jax.eval_shape(jax.random.key, 0)

        def array(kind, *shape: int) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((prompts.rows, *shape), kind, sharding=batch_sharding(mesh))

        shape = (self.sampling.group, self.sampling.max_length)
        rollouts = Rollouts(Completions(array(jnp.int32, *shape), array(bool, *shape)), array(jnp.float32, *shape))
        rewards = array(jnp.float32, self.sampling.group)
        seen = jax.eval_shape(self.sampler.encode, policy, prompts)
        pictures = array(seen.dtype, *seen.shape[1:])
        sampled = (prompts, pictures if self.same_pictures else None, rollouts, rewards)
        kept = placed_batch(np.arange(self.config.batch.prompts, dtype=np.int32), mesh)
        self._take = ahead("select", self._take, sampled, kept)
        prompts_kept, pictures_kept, rollouts_kept, rewards_kept = returned(self._take)[0]

        def sampling():
            constraint = self.constraints and self.constraints.batch([(0, 0)] * rows)
            self.sampler.encode = ahead("encode", self.sampler.encode, policy, prompts)
            self.sampler.prefill = ahead("prefill", self.sampler.prefill, policy, prompts, pictures)
            prefilled = returned(self.sampler.prefill)
            self.sampler.decode = ahead("decode", self.sampler.decode, policy, prompts, prefilled, key, constraint)

        def training(length: int):
            name = "" if length == self.sampling.max_length else f" of {length}"
            kept, theirs, own = (prompts_kept, pictures_kept, rollouts_kept), None, None
            if self.reference is not None:
                self._score[length] = ahead(f"reference{name}", self._score[length], self.reference, *kept)
                theirs = returned(self._score[length])
            if self.looks_back:
                self._own[length] = ahead(f"own{name}", self._own[length], join(state.params, self.frozen), *kept)
                own = returned(self._own[length])
            given = (state, self.frozen, *kept, rewards_kept, theirs, own, 0.0, 0.0, self.memory.get("entropy_coef"))
            self._update[length] = ahead(f"update{name}", self._update[length], *given)

        side_by_side(sampling, *(partial(training, length) for length in self._update))
        peak_flops()  # measured on CPU, once
        return ahead.seconds

    def step(
        self, state: TrainState, rows: Sequence[GRPORow], *, learning_rate: float, progress: float, key: Key[Array, ""]
    ) -> tuple[TrainState, dict[str, float]]:
        """One step: sample, score, choose the groups to learn from, compare with the frozen reference, update.

        `progress`, 0 to 1, is the run's.
        """
        timing = Stopwatch()
        prompts = place_batch(stack_prompts([row.prompt for row in rows]), self.mesh)
        policy = self._sampling_weights(state)
        pictures = timing.measure("encode", self.sampler.encode, policy, prompts)
        prefilled = timing.measure("prefill", self.sampler.prefill, policy, prompts, pictures)
        constraint = self.constraints and self.constraints.batch([row.task.names(row.episode) for row in rows])
        rollouts = timing.measure("decode", self.sampler.decode, policy, prompts, prefilled, key, constraint)
        del policy, prefilled  # the cache is not kept while the policy is updated

        texts = [[self.codec.decode(ids) for ids in group] for group in completion_ids(rollouts.completions)]
        scores = score_completions(rows, texts, self.config.rewards)
        metrics = scores.metrics() | length_metrics(rollouts.completions, self.codec)

        kept = place_batch(most_signal(scores.rewards, self.config.batch.prompts, local_shards(self.mesh)), self.mesh)
        sampled = (prompts, pictures if self.same_pictures else None, rollouts, place_batch(scores.rewards, self.mesh))
        (*learned, rewards), longest = self._take(sampled, kept)
        length = next(length for length in self._update if length >= int(longest))
        timing.lap("reward")

        reference = None
        if self.reference is not None:
            reference = timing.measure("reference", self._score[length], self.reference, *learned)
        own = None
        if self.looks_back:
            own = timing.measure("own", self._own[length], join(state.params, self.frozen), *learned)
        settings, updated = self.config.grpo, dict[str, float]()
        rates = (learning_rate, configured_kl_weight(settings, progress), self.memory.get("entropy_coef"))
        for update in range(settings.updates_per_rollout):
            given = (state, self.frozen, *learned, rewards, reference, own, *rates)
            state, measured = timing.measure("update", self._update[length], *given)
            # the first update is on policy: only there do the sampler and the trainer speak of the same weights
            updated |= {k: v for k, v in measured.items() if update == 0 or not k.startswith("sampling/")}
        metrics |= {name: float(value) for name, value in updated.items()} | self.memory
        self.memory = remembered(settings, self.memory, metrics["entropy"])
        metrics["mfu"] = self.update_flops[length] / timing.seconds["timing_s/update"] / peak_flops()
        metrics["decode_tokens_per_s"] = metrics["num_tokens"] / timing.seconds["timing_s/decode"]
        return state, metrics | timing.seconds

    def _sampling_weights(self, state: TrainState) -> nnx.State:
        weights = join(state.params, self.frozen)
        return self._quantized(weights) if "rollouts" in self.config.int8 else weights

    def _update_flops(self, model: ModelConfig, length: int) -> float:
        """Of a step's updates at this length: forward, backward for activations, as much again for trained kernels."""
        batch, rows = self.config.batch, self.config.batch.prompts * jax.process_count()
        trained = {path[0] for path, _ in nnx.to_flat_state(self.begin) if path[-1] == "kernel"}
        shapes = dict(prompt=batch.prompt_length, completion=length)
        kernels, attention = group_flops(model, rows=rows, group=self.config.rollout.group_size, **shapes)
        total = (3 if "language" in trained else 2) * kernels + 3 * attention
        if not self.same_pictures:
            kernels, attention = picture_flops(model, pictures=rows * batch.pictures, patches=batch.patches)
            total += (3 if "vision" in trained else 2) * kernels + 3 * attention
        return total * self.config.grpo.updates_per_rollout


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
    params: nnx.State,
    prompts: PromptBatch,
    pictures: Float[Array, "rows media size"] | None,
    rollouts: Rollouts,
) -> Float[Array, "rows group {length}"]:
    """Log-probabilities of the first `length` tokens of the completions under some weights."""
    completions = _shortened(rollouts, length).completions
    model = nnx.merge(structure, params)
    return model.completion_log_probs(prompts, completions, config.rollout.temperature, pictures)[0]


def shortened_update(length: int, update: Callable, state, frozen, prompts, pictures, rollouts: Rollouts, *rest):
    """`update` of the first `length` tokens of the completions, none of which is longer."""
    return update(state, frozen, prompts, pictures, _shortened(rollouts, length), *rest)


def _shortened(rollouts: Rollouts, length: int) -> Rollouts:
    return jax.tree.map(lambda tokens: tokens[:, :, :length], rollouts)


def _rows_taken(mesh: Mesh) -> Callable:
    """A program that takes rows of each device's share of `sampled`, and says how long the longest completion is."""

    def take(sampled, rows):
        prompts, pictures, rollouts, rewards = jax.tree.map(lambda of: of[rows], sampled)
        longest = rollouts.completions.mask.sum(-1).max()
        return (prompts, pictures, rollouts, rewards), jax.lax.pmax(longest, mesh.axis_names)

    spread = batch_sharding(mesh).spec
    takes, gives = (spread, spread), (spread, PartitionSpec())
    return jax.jit(jax.shard_map(take, mesh=mesh, in_specs=takes, out_specs=gives, check_vma=False))


def grpo_update(
    structure: nnx.GraphDef,
    optimizer,
    config: RunConfig,
    state: TrainState,
    frozen: nnx.State,
    prompts: PromptBatch,
    pictures: Float[Array, "rows media size"] | None,
    rollouts: Rollouts,
    rewards: Float[Array, "rows group"],
    reference_log_probs: Float[Array, "rows group time"] | None,
    own_log_probs: Float[Array, "rows group time"] | None,
    learning_rate: Float[Array, ""],
    kl_beta: Float[Array, ""],
    entropy_coef: Float[Array, ""] | None = None,
) -> tuple[TrainState, dict[str, Float[Array, ""]]]:
    """Advantages, loss, gradient and update in one program.

    `pictures` are encoded ones that no gradient reaches; `rewards` are NaN where a completion could not be scored.
    """
    settings, temperature = config.grpo, config.rollout.temperature
    max_length, lengths = config.batch.completion_length, rollouts.completions.mask.sum(-1)
    overlong = soft_overlong_penalty(lengths, max_length=max_length, buffer=settings.overlong_buffer)
    rollouts = without_unscored(rollouts, rewards)
    advantages = configured_advantages(settings, rewards + settings.overlong_penalty * overlong)

    def loss(trained, batch):
        prompts, pictures, rollouts, advantages, reference_log_probs, own_log_probs = batch
        model = nnx.merge(structure, trained, frozen)
        log_probs, entropy = model.completion_log_probs(prompts, rollouts.completions, temperature, pictures)
        return configured_objective(
            settings,
            log_probs,
            entropy,
            rollouts,
            advantages,
            own_log_probs=own_log_probs,
            reference_log_probs=reference_log_probs,
            kl_beta=kl_beta,
            entropy_coef=entropy_coef,
            max_length=max_length,
            stop=model.config.special.eos,
        )

    batch = (prompts, pictures, rollouts, advantages, reference_log_probs, own_log_probs)
    parts = config.optimizer.micro_batches
    state, value, metrics = gradient_step(state, loss, batch, optimizer, learning_rate, parts)
    metrics |= {"loss": value, "kl_coef": jnp.asarray(kl_beta)}
    if settings.overlong_penalty:
        metrics["rewards/overlong/mean"] = overlong.mean()
    return state, metrics | {LEAST_RATIO: -metrics[LEAST_RATIO]}


def length_metrics(completions: Completions, codec) -> dict[str, float]:
    """Lengths in tokens; a completion without a stop token was clipped."""
    lengths = np.asarray(completions.mask).sum(-1)
    stopped = (np.asarray(completions.tokens) == codec.tokenizer.eos_token_id).any(-1)
    return {
        "completions/mean_length": float(lengths.mean()),
        "completions/min_length": float(lengths.min()),
        "completions/max_length": float(lengths.max()),
        "completions/clipped_ratio": float(1 - stopped.mean()),
        "num_tokens": float(lengths.sum()),
    }


class Stopwatch:
    """Seconds of each part of a step; a measured part is waited for."""

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def measure(self, name: str, function, *arguments):
        result = jax.block_until_ready(function(*arguments))
        self.lap(name)
        return result

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        key = f"timing_s/{name}"
        self.seconds[key] = self.seconds.get(key, 0.0) + now - self._last
        self._last = now
