"""GRPO (arXiv 2402.03300), read from top to bottom in `GRPO.step`:

    prompts ──sample──▶ G completions each ──score──▶ rewards ──▶ group-relative advantages ──update──▶ policy
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Key

from m2io_jax.config import RunConfig
from m2io_jax.episodes.batching import PromptEncoder, PromptRow, stack_prompts
from m2io_jax.episodes.episode import Episode
from m2io_jax.episodes.pipeline import RowError
from m2io_jax.errors import UserError
from m2io_jax.grammar import Grammar
from m2io_jax.models.flops import group_flops, picture_flops
from m2io_jax.models.inputs import Completions, PromptBatch
from m2io_jax.models.policy import Policy
from m2io_jax.models.sizes import ModelConfig
from m2io_jax.parallel.peak import peak_flops
from m2io_jax.parallel.sharding import batch_sharding, param_shardings, place, place_batch
from m2io_jax.rl.advantages import zero_variance
from m2io_jax.rl.overlong import soft_overlong_penalty
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
        structure, temperature = policy.structure, config.rollout.temperature
        self.sampler = Sampler(structure, self.sampling, mesh, constrained=draw.constrained)
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
        self.same_pictures = not any(path[0] == "vision" for path, _ in nnx.to_flat_state(self.begin))
        self._log_probs = jax.jit(
            lambda params, prompts, completions, pictures: nnx.merge(structure, params).completion_log_probs(
                prompts, completions, temperature, pictures
            )[0],
            out_shardings=batch_sharding(mesh),
        )
        self._own_log_probs = self._log_probs
        self.update_flops = self._update_flops(policy.config)
        shardings = state_shardings(self.begin, self.optimizer, mesh)
        self._update = jax.jit(
            partial(grpo_update, structure, self.optimizer, config), donate_argnums=0, out_shardings=(shardings, None)
        )

    def row(self, episode: Episode, random: np.random.Generator) -> GRPORow:
        """Prepares one prompt, in the data pipeline.

        Raises:
            RowError: it does not fit the static shapes.
        """
        task = find_task(choose(self.config.tasks, random))
        if self.constraints and (reason := self.constraints.refuses(task.names(episode))):
            raise RowError(reason)
        prompt = self.encoder.row(task.prompt(episode), episode.candidates, seed=int(random.integers(2**31)))
        return GRPORow(prompt, episode, task)

    def compile(self, state: TrainState) -> dict[str, float]:
        """Compiles every program of a step, before the first; returns the seconds of each."""
        ahead, batch, mesh = Ahead(), self.config.batch, self.mesh
        prompts = place_batch(stack_prompts([self.encoder.blank()] * batch.prompts), mesh)
        policy, key = join(state.params, self.frozen), jax.random.key(0)
        shape = (prompts.rows, self.sampling.group, self.sampling.max_length)
        tokens, mask, numbers = (
            jax.ShapeDtypeStruct(shape, kind, sharding=batch_sharding(mesh)) for kind in (jnp.int32, bool, jnp.float32)
        )
        completions = Completions(tokens, mask)
        rewards = jax.ShapeDtypeStruct(shape[:2], jnp.float32, sharding=batch_sharding(mesh))
        seen = jax.eval_shape(self.sampler.encode, policy, prompts)
        pictures = jax.ShapeDtypeStruct(seen.shape, seen.dtype, sharding=batch_sharding(mesh))
        shared = pictures if self.same_pictures else None

        def sampling():
            constraint = self.constraints and self.constraints.batch([(0, 0)] * batch.prompts)
            self.sampler.encode = ahead("encode", self.sampler.encode, policy, prompts)
            self.sampler.prefill = ahead("prefill", self.sampler.prefill, policy, prompts, pictures)
            prefilled = returned(self.sampler.prefill)
            self.sampler.decode = ahead("decode", self.sampler.decode, policy, prompts, prefilled, key, constraint)

        def reference():
            if self.reference is not None:
                given = (self.reference, prompts, completions, shared)
                self._log_probs = ahead("reference", self._log_probs, *given)

        def own():
            if self.looks_back:
                self._own_log_probs = ahead("own", self._own_log_probs, policy, prompts, completions, shared)

        def update():
            theirs = numbers if self.reference is not None else None
            ours = numbers if self.looks_back else None
            given = (prompts, shared, Rollouts(completions, numbers), rewards, theirs, ours)
            rates = (0.0, 0.0, self.memory.get("entropy_coef"))
            self._update = ahead("update", self._update, state, self.frozen, *given, *rates)

        side_by_side(sampling, reference, own, update)
        peak_flops()  # measured on CPU, once
        return ahead.seconds

    def step(
        self, state: TrainState, rows: Sequence[GRPORow], *, learning_rate: float, progress: float, key: Key[Array, ""]
    ) -> tuple[TrainState, dict[str, float]]:
        """One step: sample, score, compare with the frozen reference, update. `progress`, 0 to 1, is the run's."""
        timing = Stopwatch()
        prompts = place_batch(stack_prompts([row.prompt for row in rows]), self.mesh)
        policy = join(state.params, self.frozen)
        pictures = timing.measure("encode", self.sampler.encode, policy, prompts)
        prefilled = timing.measure("prefill", self.sampler.prefill, policy, prompts, pictures)
        constraint = self.constraints and self.constraints.batch([row.task.names(row.episode) for row in rows])
        rollouts = timing.measure("decode", self.sampler.decode, policy, prompts, prefilled, key, constraint)
        del policy, prefilled  # the cache is not kept while the policy is updated
        pictures = pictures if self.same_pictures else None

        completions = rollouts.completions
        texts = [[self.codec.decode(ids) for ids in group] for group in completion_ids(completions)]
        parts = [[row.task.score(text, row.episode) for text in group] for row, group in zip(rows, texts, strict=True)]
        rewards = np.array([[self.reward(scores) for scores in group] for group in parts], np.float32)
        timing.lap("reward")

        reference = None
        if self.reference is not None:
            reference = timing.measure("reference", self._log_probs, self.reference, prompts, completions, pictures)
        own = None
        if self.looks_back:
            policy = join(state.params, self.frozen)
            own = timing.measure("own", self._own_log_probs, policy, prompts, completions, pictures)
            del policy
        settings, metrics = self.config.grpo, {}
        rates = (learning_rate, configured_kl_weight(settings, progress), self.memory.get("entropy_coef"))
        for update in range(settings.updates_per_rollout):
            given = (prompts, pictures, rollouts, place_batch(rewards, self.mesh), reference, own)
            state, measured = timing.measure("update", self._update, state, self.frozen, *given, *rates)
            # the first update is on policy: only there do the sampler and the trainer speak of the same weights
            metrics |= {k: v for k, v in measured.items() if update == 0 or not k.startswith("sampling/")}
        metrics = {name: float(value) for name, value in metrics.items()} | self.memory
        self.memory = remembered(settings, self.memory, metrics["entropy"])
        metrics |= reward_metrics(parts, rewards) | length_metrics(completions, self.codec)
        metrics["mfu"] = self.update_flops / timing.seconds["timing_s/update"] / peak_flops()
        metrics["decode_tokens_per_s"] = metrics["num_tokens"] / timing.seconds["timing_s/decode"]
        return state, metrics | timing.seconds

    def reward(self, scores: Mapping[str, float]) -> float:
        """The weighted sum of a completion's reward parts (weights from the configuration, 0 where it names none)."""
        return sum(self.config.rewards.get(name, 0.0) * score for name, score in scores.items())

    def _update_flops(self, model: ModelConfig) -> float:
        """Of all updates of a step: forward, backward for the activations, and as much again for trained kernels."""
        batch, rows = self.config.batch, self.config.batch.prompts * jax.process_count()
        trained = {path[0] for path, _ in nnx.to_flat_state(self.begin) if path[-1] == "kernel"}
        shapes = dict(prompt=batch.prompt_length, completion=batch.completion_length)
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
    """Advantages, loss, gradient and update in one program. `pictures` are encoded ones that no gradient reaches."""
    settings, temperature = config.grpo, config.rollout.temperature
    max_length, lengths = config.batch.completion_length, rollouts.completions.mask.sum(-1)
    overlong = soft_overlong_penalty(lengths, max_length=max_length, buffer=settings.overlong_buffer)
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
    dead = jnp.mean(zero_variance(rewards).astype(jnp.float32))
    metrics |= {"loss": value, "frac_reward_zero_std": dead, "kl_coef": jnp.asarray(kl_beta)}
    if settings.overlong_penalty:
        metrics["rewards/overlong/mean"] = overlong.mean()
    return state, metrics | {LEAST_RATIO: -metrics[LEAST_RATIO]}


def reward_metrics(parts: Sequence[Sequence[Mapping[str, float]]], rewards: np.ndarray) -> dict[str, float]:
    """TRL's names: the reward, its spread inside groups, and each part."""
    metrics = {"reward": float(rewards.mean()), "reward_std": float(rewards.std(axis=1).mean())}
    flat = [scores for group in parts for scores in group]
    for name in sorted({name for scores in flat for name in scores}):
        values = [scores[name] for scores in flat if name in scores]
        metrics[f"rewards/{name}/mean"], metrics[f"rewards/{name}/std"] = float(np.mean(values)), float(np.std(values))
    return metrics


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
