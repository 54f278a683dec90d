"""GRPO (arXiv 2402.03300). Read `GRPO.step` from the top:

    prompts ──sample──▶ G completions each ──score──▶ rewards ──filter──▶ groups ──update──▶ policy

and `grpo_update` for the update: rewards become advantages, a loss, its gradient and new weights. Rollouts are in
rl/rollout.py, scores in rl/rewards.py, losses in rl/losses.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Key

from m2io_jax.config import GRPOConfig, RunConfig
from m2io_jax.episodes.batching import PromptEncoder, PromptRow
from m2io_jax.episodes.episode import Episode
from m2io_jax.episodes.pipeline import RowIterator
from m2io_jax.errors import UserError, nearest
from m2io_jax.models.int8 import quantizer
from m2io_jax.models.policy import Policy
from m2io_jax.parallel.exchange import gathered
from m2io_jax.parallel.sharding import param_shardings, place, shapes_of
from m2io_jax.rl.advantages import ADVANTAGES, group_advantages
from m2io_jax.rl.data.buffer import RolloutBuffer, require_supported
from m2io_jax.rl.kl import adapt_entropy_coef, entropy_shaping_weights, kl_coefficient
from m2io_jax.rl.learner import Learner, LearnerInputs, Schedules, Updates
from m2io_jax.rl.losses import LossInputs, importance_ratio, importance_weights, policy_objective, sum_over_tokens
from m2io_jax.rl.rewards import (
    StepSamples,
    is_terminated,
    mask_unscored,
    mean_metrics,
    score_completions,
    soft_overlong_penalty,
)
from m2io_jax.rl.rollout import Group, GroupBatch, GroupSampler, padding_group, shared_grammar
from m2io_jax.tasks import find_task
from m2io_jax.tasks.task import Task, choose
from m2io_jax.training.logging.samples import SampledGroup
from m2io_jax.training.optimizer import make_optimizer
from m2io_jax.training.programs import AOTCompiler, TimedRunner
from m2io_jax.training.state import (
    TrainState,
    abstract_state,
    gradient_step,
    init_train_state,
    join,
    split_trained,
    to_compute_dtype,
)
from m2io_jax.training.trainer import TrainerState

MIN_RATIO = "sampling/importance_sampling_ratio/min"


@dataclass(frozen=True)
class GRPORow:
    """A prompt, and what its completions are scored against."""

    prompt: PromptRow
    episode: Episode
    task: Task


class GRPO:
    """The GRPO trainer (a `training.trainer.Trainer`). Images are encoded and prompts prefilled once a group."""

    def __init__(self, config: RunConfig, policy: Policy, mesh: Mesh):
        self.config, self.mesh, self.codec, self.stops = config, mesh, policy.codec, policy.config.special.stops
        self.encoder = PromptEncoder(policy.config, policy.codec, config.batch)
        self.optimizer = make_optimizer(config.optimizer)
        initial, self.frozen = split_trained(place(policy.params, param_shardings(policy.params, mesh)), config)
        self.trained = shapes_of(initial)
        self._quantize = quantizer(mesh)
        reference = join(to_compute_dtype(initial, config), self.frozen)
        reference = self._quantize(reference) if "reference" in config.int8 else reference
        self.reference = reference if config.grpo.kl_beta else None
        # Where every model encodes images alike, they are encoded once and kept for the update.
        trains_vision = any(path[0] == "vision" for path, _ in nnx.to_flat_state(initial))
        keeps_pictures = not trains_vision and not config.int8
        self.sampler = GroupSampler(config, policy, mesh, keeps_pictures=keeps_pictures)
        inputs = LearnerInputs(config, policy, mesh, self.optimizer, self.trained, self.frozen, self.reference)
        self.learner = Learner(inputs, self.make_updates, takes_pictures=keeps_pictures)
        padding = self.encoder.blank()
        pictures = self.sampler.encoded_shape(join(initial, self.frozen), padding) if keeps_pictures else None
        padding = padding_group(padding, pictures, config.rollout.group_size, config.batch.completion_length)
        self.buffer = RolloutBuffer(config, padding)
        self.prompts_a_step = config.prompts_a_step
        self.entropy_coef = config.grpo.entropy_coef if config.grpo.entropy_target is not None else None
        self._learnt: list[Group] = []
        self._samples: list[StepSamples] = []  # of the steps whose groups an update may learn from

    @staticmethod
    def make_updates(length: int, inputs: LearnerInputs) -> Updates:
        """Return the updates on completions of at most `length` tokens."""
        return Updates(length, inputs, grpo_update)

    def step(
        self,
        state: TrainState,
        rows: RowIterator[GRPORow],
        *,
        learning_rate: float,
        progress: float,
        key: Key[Array, ""],
    ) -> tuple[TrainState, dict[str, float]]:
        """Make one step: sample groups, score them, choose those to learn from, update the policy.

        With `rollout.ahead` the groups come from the queue: they were sampled that many steps ago.
        """
        run, step, samples = TimedRunner(), int(state.step), StepSamples()
        while len(self.buffer.waiting) <= self.config.rollout.ahead:
            self.buffer.enqueue(self.sample(run, state, rows, samples, step=step, progress=progress, key=key))
        groups, batch_metrics = self.buffer.next_batch(step)
        schedules = Schedules(learning_rate, kl_coef_at(self.config.grpo, progress), self.entropy_coef)
        state, update_metrics = self.learner(run, state, groups, schedules)
        self._learnt, self._samples = groups, [*self._samples, samples][-1 - self.config.rollout.ahead :]
        metrics = samples.metrics(self.stops) | mean_metrics([batch_metrics]) | update_metrics
        if self.entropy_coef is not None:
            metrics["entropy_coef"] = self.entropy_coef
        if self.config.data.noise:
            metrics["data/noise/step"] = float(self.sampler.noise_level(progress))
        if update_metrics["entropy"]:  # 0: there was not one token to learn from
            self.buffer.learned(update_metrics)
            self.entropy_coef = next_entropy_coef(self.config.grpo, self.entropy_coef, update_metrics["entropy"])
        metrics["decode_tokens_per_s"] = metrics["num_tokens"] / run.seconds["timing_s/decode"]
        return state, metrics | run.seconds

    def sample(
        self,
        run: TimedRunner,
        state: TrainState,
        rows: RowIterator[GRPORow],
        samples: StepSamples,
        *,
        step: int,
        progress: float,
        key: Key[Array, ""],
    ) -> list[Group]:
        """Sample and score groups for one update, in several rounds where the filters leave too few."""
        kept: list[Group] = []
        own = join(state.params, self.frozen)
        weights = self._sampling_weights(own)
        for _ in range(self.buffer.rounds):
            prompts = self.buffer.next_prompts(rows, self.prompts_a_step)
            run.lap("data")
            # The same key in every round: each prompt has a seed of its own.
            groups = self.sampler(run, prompts, weights, own, key, step=step, progress=progress)
            texts = [[self.codec.decode(ids) for ids in group.completions()] for group in groups]
            scores = score_completions(prompts, texts, self.config.rewards)
            filtered, filter_metrics = self.buffer.apply_filters(prompts, groups, scores)
            kept += filtered
            samples.add(prompts, texts, groups, scores, filter_metrics)
            run.lap("reward")
            if not max(gathered(self.buffer.missing(kept))):
                break
        return kept

    def samples(self, count: int) -> list[SampledGroup]:
        """Return up to `count` groups of this process that the last step learnt from, replayed ones left out."""
        advantages = self.learner.advantages()
        return [shown for each in self._samples for shown in each.shown(count, self._learnt, advantages)][:count]

    def row(self, episode: Episode, random: np.random.Generator, tasks: Mapping[str, float]) -> GRPORow:
        """Prepare one prompt for one of the `tasks`, drawn by weight.

        Raises:
            RowError: if it does not fit the static shapes, or the task has no use for it.
        """
        task = find_task(choose(tasks, random))
        if self.sampler.constraints:
            self.sampler.check(task.names(episode))
        prompt = self.encoder.row(task.prompt(episode), episode.candidates, seed=int(random.integers(2**31)))
        return GRPORow(prompt, episode, task)

    def compile(self, state: TrainState, compiler: AOTCompiler) -> dict[str, float]:
        """Compile every program of a step ahead of time; return the seconds of each."""
        own = join(state.params, self.frozen)
        sampling = partial(self.sampler.compile, compiler, self._sampling_weights(own), own, self.encoder.blank())
        updates = self.learner.compile(compiler, state, self.buffer.padding, self.entropy_coef)
        compiler.run_jobs(sampling, *updates)
        return compiler.seconds

    def init_state(self, params: nnx.State) -> TrainState:
        """Return the state of step 0 from the policy's weights."""
        return init_train_state(params, self.config, self.optimizer, self.mesh)

    def abstract_state(self) -> TrainState:
        """Return the shapes and shardings of what `init_state` returns."""
        return abstract_state(self.trained, self.optimizer, self.mesh)

    def state_dict(self) -> TrainerState:
        """Return what a step leaves to the next: the adaptive entropy coefficient, and the buffer's state."""
        values = {} if self.entropy_coef is None else {"entropy_coef": self.entropy_coef}
        values |= {"data": self.buffer.state_dict()} if self.buffer.methods else {}
        return TrainerState(values, self.buffer.arrays())

    def load_state_dict(self, values: Mapping[str, Any], arrays: Any) -> None:
        """Restore what `state_dict` returned."""
        if self.entropy_coef is not None:
            self.entropy_coef = values["entropy_coef"]
        self.buffer.load_state_dict(values.get("data", {}))
        if arrays is not None:
            self.buffer.load_arrays(arrays)

    @staticmethod
    def validate(config: RunConfig) -> None:
        """Check rewards, data methods and the grammar against the tasks; raises UserError."""
        parts = {name for task, weight in config.tasks.items() if weight for name in find_task(task).rewards}
        weighed = {name for name, weight in config.rewards.items() if weight}
        if not parts & weighed:
            mend = f"give one of these a weight: {', '.join(sorted(parts))}"
            raise UserError("No reward part of the chosen tasks has a weight.", where="rewards", mend=mend)
        for name in sorted(weighed - parts):
            what = f"`rewards.{name}` has a weight, but none of the chosen tasks has that part: nothing would read it."
            raise UserError(what, where="rewards", mend=nearest(name, parts, "rewards."))
        require_supported(config)
        if config.rollout.constrained:
            shared_grammar(config)

    def _sampling_weights(self, own: nnx.State) -> nnx.State:
        return self._quantize(own) if "rollouts" in self.config.int8 else own


def grpo_update(
    structure: nnx.GraphDef,
    optimizer,
    config: RunConfig,
    state: TrainState,
    frozen: nnx.State,
    batch: GroupBatch,
    schedules: Schedules,
) -> tuple[TrainState, dict[str, Float[Array, ""]], Float[Array, "rows group"]]:
    """Compute advantages, loss and gradient and update the policy, in one program.

    Returns:
        The new state, metrics, and the advantages.
    """
    mask = batch.rollouts.completions.mask
    advantages = compute_advantages(config.grpo, penalized_rewards(config, mask, batch.rewards))
    if batch.weights is not None:
        advantages = advantages * batch.weights[:, None]
    scored = replace(batch, rollouts=mask_unscored(batch.rollouts, batch.rewards))
    state, metrics = policy_update(structure, optimizer, config, state, frozen, scored, advantages, schedules)
    metrics |= {"kl_coef": jnp.asarray(schedules.kl_coef)}
    if config.grpo.overlong_penalty:
        metrics |= overlong_metrics(overlong_penalty(config, mask), batch.rewards)
    return state, metrics, advantages


def compute_advantages(config: GRPOConfig, rewards: Float[Array, "rows group"]) -> Float[Array, "rows group"]:
    """Compute advantages over the full batch, before micro-batching: some estimators use batch statistics."""
    if config.advantage == "group":
        return group_advantages(rewards, scale=config.scale_rewards)
    return ADVANTAGES[config.advantage](rewards)


def policy_update(
    structure: nnx.GraphDef,
    optimizer,
    config: RunConfig,
    state: TrainState,
    frozen: nnx.State,
    batch: GroupBatch,
    advantages: Float[Array, "rows group"] | Float[Array, "rows group time"],
    schedules: Schedules,
) -> tuple[TrainState, dict[str, Float[Array, ""]]]:
    """Update the policy by advantages of completions or of tokens."""

    def loss(trained, rows):
        batch, advantages = rows
        model = nnx.merge(structure, trained, frozen)
        given = (batch.prompts, batch.rollouts.completions, config.rollout.temperature, batch.pictures)
        log_probs, entropy = model.completion_log_probs(*given)
        return policy_loss(config, log_probs, entropy, batch, advantages, schedules, model.config.special.stops)

    parts = config.optimizer.micro_batches
    given = (state, loss, (batch, advantages), optimizer, schedules.learning_rate, parts)
    state, value, metrics = gradient_step(*given)
    return state, metrics | {"loss": value, MIN_RATIO: -metrics[MIN_RATIO]}


def policy_loss(
    config: RunConfig,
    log_probs: Float[Array, "rows group time"],
    entropy: Float[Array, "rows group time"],
    batch: GroupBatch,
    advantages: Float[Array, "rows group"] | Float[Array, "rows group time"],
    schedules: Schedules,
    stops: tuple[int, ...],
) -> tuple[Float[Array, ""], Float[Array, ""], dict]:
    """Compute the objective of one micro-batch: (sum, denominator, metrics).

    Where off-policy rollouts are corrected, the trust region is around the trainer's own log-probs before the first of
    the updates: `batch.old_log_probs`, or (None, in a single update) the current ones, whose ratio is exactly 1.
    """
    settings, completions = config.grpo, batch.rollouts.completions
    sampling_log_probs = batch.rollouts.log_probs
    own = jax.lax.stop_gradient(log_probs) if batch.old_log_probs is None else batch.old_log_probs
    ratio = importance_ratio(own, sampling_log_probs)
    old_log_probs, weights = sampling_log_probs, None
    if settings.rollout_correction != "none":
        bounds = dict(low=settings.rollout_weight_min, high=settings.rollout_weight_max)
        old_log_probs, weights = own, importance_weights(ratio, settings.rollout_correction, **bounds)
    shaping = config.data.single
    if shaping is not None and shaping.entropy_weight:
        bounds = dict(weight=shaping.entropy_weight, bound=shaping.entropy_bound)
        shaped = entropy_shaping_weights(advantages, entropy, **bounds)
        weights = shaped if weights is None else weights * shaped
    mask = loss_mask(settings, completions, stops)
    reference = batch.ref_log_probs
    inputs = LossInputs(log_probs, old_log_probs, advantages, mask, weights, reference, entropy)
    total, denominator, metrics = policy_objective(
        inputs,
        settings,
        max_length=config.batch.completion_length,
        kl_coef=0.0 if reference is None else schedules.kl_coef,
        entropy_coef=settings.entropy_coef if schedules.entropy_coef is None else schedules.entropy_coef,
    )
    return total, denominator, metrics | sampling_metrics(own - sampling_log_probs, ratio, completions.mask)


def loss_mask(config: GRPOConfig, completions, stops: tuple[int, ...]) -> Bool[Array, "rows group time"]:
    """Return the tokens that an update learns from: all, or those of completions that ended with a stop token."""
    mask = completions.mask
    return mask & is_terminated(completions.tokens, mask, stops)[..., None] if config.overlong_filter else mask


def sampling_metrics(
    gap: Float[Array, "rows group time"], ratio: Float[Array, "rows group time"], mask: Bool[Array, "rows group time"]
) -> dict:
    """Measure how far the sampler is from the trainer, before any correction.

    `MIN_RATIO` is negated, since a step keeps the largest value over micro-batches.
    """
    gap = jnp.where(mask, jnp.abs(gap), 0.0)
    return {
        "sampling/sampling_logp_difference/mean": sum_over_tokens(gap, mask),
        "sampling/sampling_logp_difference/max": gap.max(),
        MIN_RATIO: -jnp.where(mask, ratio, jnp.inf).min(),
        "sampling/importance_sampling_ratio/mean": sum_over_tokens(ratio, mask),
        "sampling/importance_sampling_ratio/max": jnp.where(mask, ratio, 0.0).max(),
    }


def penalized_rewards(
    config: RunConfig, mask: Bool[Array, "rows group time"], rewards: Float[Array, "rows group"]
) -> Float[Array, "rows group"]:
    """Return the rewards less the overlong penalty."""
    return rewards + config.grpo.overlong_penalty * overlong_penalty(config, mask)


def overlong_penalty(config: RunConfig, mask: Bool[Array, "rows group time"]) -> Float[Array, "rows group"]:
    """Compute the penalty of each completion, from 0 down to -1 at full length."""
    lengths, longest = mask.sum(-1), config.batch.completion_length
    return soft_overlong_penalty(lengths, max_length=longest, buffer=config.grpo.overlong_buffer)


def overlong_metrics(penalty: Float[Array, "rows group"], rewards: Float[Array, "rows group"]) -> dict:
    """Average the penalty over the completions that were scored."""
    scored = ~jnp.isnan(rewards)
    return {"rewards/overlong/mean": (penalty * scored).sum() / jnp.maximum(scored.sum(), 1)}


def kl_coef_at(config: GRPOConfig, progress: float) -> float:
    """Return the KL coefficient at `progress` (0 to 1) of the run."""
    bounds = dict(low=config.kl_beta_min, high=config.kl_beta, turn=config.kl_turn)
    return kl_coefficient(config.kl_schedule, progress, **bounds)


def next_entropy_coef(config: GRPOConfig, coef: float | None, entropy: float) -> float | None:
    """Return the next step's entropy coefficient; None where it does not adapt.

    Args:
        entropy: of this step, in nats a token.
    """
    if coef is None:
        return None
    rule = dict(target=config.entropy_target, delta=config.entropy_delta, high=config.entropy_coef_max)
    return adapt_entropy_coef(coef, entropy, **rule)
