"""GRPO (arXiv 2402.03300), read from top to bottom in `GRPO.step`:

    prompts ──sample──▶ G completions each ──score──▶ rewards ──data side──▶ groups to learn from ──update──▶ policy
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Key

from m2io_jax.config import RunConfig
from m2io_jax.episodes.batching import PromptEncoder, PromptRow
from m2io_jax.episodes.episode import Episode
from m2io_jax.episodes.pipeline import RowIterator
from m2io_jax.models.int8 import quantizer
from m2io_jax.models.policy import Policy
from m2io_jax.parallel.exchange import gathered
from m2io_jax.parallel.sharding import param_shardings, place
from m2io_jax.tasks import find_task
from m2io_jax.tasks.task import Task, choose
from m2io_jax.training.data_side import Carried, DataSide
from m2io_jax.training.group_sampler import GroupSampler
from m2io_jax.training.groups import Group, blank_group
from m2io_jax.training.learner import Learner, Rates, Start
from m2io_jax.training.logging.samples import SampledGroup
from m2io_jax.training.objective import configured_kl_weight, remembered
from m2io_jax.training.optimizer import make_optimizer
from m2io_jax.training.programs import Ahead, Stopwatch
from m2io_jax.training.sampled import Sampled, means
from m2io_jax.training.scoring import score_completions
from m2io_jax.training.state import TrainState
from m2io_jax.training.trained import join, split, stored


@dataclass(frozen=True)
class GRPORow:
    """A prompt, and what its completions are scored against."""

    prompt: PromptRow
    episode: Episode
    task: Task


class GRPO:
    """Trains by reinforcement with verifiable rewards. Pictures are encoded and prompts run once per group."""

    learns = Learner

    def __init__(self, config: RunConfig, policy: Policy, mesh: Mesh):
        self.config, self.mesh, self.codec, self.stops = config, mesh, policy.codec, policy.config.special.stops
        self.encoder = PromptEncoder(policy.config, policy.codec, config.batch)
        self.optimizer = make_optimizer(config.optimizer)
        self.begin, self.frozen = split(place(policy.params, param_shardings(policy.params, mesh)), config)
        reference = join(stored(self.begin, config), self.frozen)
        self._quantized = quantizer(mesh)
        reference = self._quantized(reference) if "reference" in config.int8 else reference
        self.reference = reference if config.grpo.kl_beta else None
        # Pictures that every model here encodes alike are encoded once.
        trains_vision = any(path[0] == "vision" for path, _ in nnx.to_flat_state(self.begin))
        same = not trains_vision and not config.int8
        self.sampler = GroupSampler(config, policy, mesh, keeps_pictures=same)
        start = Start(config, policy, mesh, self.optimizer, self.begin, self.frozen, self.reference)
        self.learner = self.learns(start, takes_pictures=same)
        blank = self.encoder.blank()
        pictures = self.sampler.encoded(join(self.begin, self.frozen), blank) if same else None
        blank = blank_group(blank, pictures, config.rollout.group_size, config.batch.completion_length)
        self.data = DataSide(config, blank)
        self._remembered = remembered(config.grpo)
        self._learnt: list[Group] = []
        self._sampled: list[Sampled] = []  # of the steps whose groups an update may learn from

    def state(self, make: Callable) -> TrainState:
        """What a step takes and returns; `make` is `state.begin`, or `state.abstract_state` for shapes alone."""
        return make(self.begin, self.optimizer, self.mesh)

    @property
    def memory(self) -> dict[str, Any]:
        """What a step leaves to the next beside the state, as JSON values; it is in the checkpoint."""
        return self._remembered | ({"data": self.data.memory} if self.data.methods else {})

    @memory.setter
    def memory(self, saved: Mapping[str, Any]) -> None:
        self._remembered = {name: saved[name] for name in self._remembered}
        self.data.memory = saved.get("data", {})

    def rollouts(self) -> Carried | None:
        """Groups that later steps learn from, for the checkpoint: fixed shapes; None where there never are any."""
        return self.data.carried()

    def restore_rollouts(self, saved: Carried) -> None:
        """Goes on with what `rollouts` returned."""
        self.data.carry(saved)

    def row(self, episode: Episode, random: np.random.Generator, tasks: Mapping[str, float]) -> GRPORow:
        """Prepares one prompt of one of the `tasks`, drawn by weight, in the data pipeline.

        Raises:
            RowError: it does not fit the static shapes, or the task has no use for it.
        """
        task = find_task(choose(tasks, random))
        if self.sampler.constraints:
            self.sampler.check(task.names(episode))
        prompt = self.encoder.row(task.prompt(episode), episode.candidates, seed=int(random.integers(2**31)))
        return GRPORow(prompt, episode, task)

    def compile(self, state: TrainState, ahead: Ahead) -> dict[str, float]:
        """Compiles every program of a step, before the first; returns the seconds of each."""
        own = join(state.params, self.frozen)
        sampling = partial(self.sampler.compile, ahead, self._sampling_weights(own), own, self.encoder.blank())
        training = self.learner.compile(ahead, state, self.data.blank, self._remembered.get("entropy_coef"))
        ahead.together(sampling, *training)
        return ahead.seconds

    def step(
        self,
        state: TrainState,
        rows: RowIterator[GRPORow],
        *,
        learning_rate: float,
        progress: float,
        key: Key[Array, ""],
    ) -> tuple[TrainState, dict[str, float]]:
        """One step: sample, score, choose the groups to learn from, update.

        Args:
            rows: the data; as many as the step needs are taken.
            progress: 0 to 1, the run's.
        """
        run, step, sampled = Stopwatch(), int(state.step), Sampled()
        while len(self.data.waiting) <= self.config.rollout.ahead:
            self.data.wait(self._sample(run, state, rows, step, progress, key, sampled))
        groups, chosen = self.data.next_batch(step)
        kl_beta = configured_kl_weight(self.config.grpo, progress)
        rates = Rates(learning_rate, kl_beta, self._remembered.get("entropy_coef"))
        state, learned = self.learner(run, state, groups, rates)
        self._learnt, self._sampled = groups, [*self._sampled, sampled][-1 - self.config.rollout.ahead :]
        metrics = sampled.metrics(self.stops) | means([chosen]) | learned | self._remembered
        if self.config.data.noise:
            metrics["data/noise/step"] = float(self.sampler.noise_level(progress))
        if learned["entropy"]:  # else there was not a token to learn from, which says nothing of the policy
            self.data.learned(learned)
            self._remembered = remembered(self.config.grpo, self._remembered, learned["entropy"])
        metrics["decode_tokens_per_s"] = metrics["num_tokens"] / run.seconds["timing_s/decode"]
        return state, metrics | run.seconds

    def samples(self, count: int) -> list[SampledGroup]:
        """The first groups that the last step learnt from, of this process, to be shown; none that are replayed."""
        advantages = self.learner.advantages()
        return [shown for each in self._sampled for shown in each.shown(count, self._learnt, advantages)][:count]

    def _sample(
        self,
        run: Stopwatch,
        state: TrainState,
        rows: RowIterator[GRPORow],
        step: int,
        progress: float,
        key: Key[Array, ""],
        sampled: Sampled,
    ) -> list[Group]:
        """Groups for one update; while some are missing that other prompts may bring, those are sampled too."""
        kept: list[Group] = []
        own = join(state.params, self.frozen)
        weights = self._sampling_weights(own)
        for _ in range(self.data.rounds):
            prompts = self.data.admitted(rows, self.config.prompts_a_step)
            run.lap("data")
            given = (prompts, weights, own, key)  # one key: each prompt has a seed of its own
            groups = self.sampler(run, *given, step=step, progress=progress)
            texts = [[self.codec.decode(ids) for ids in group.completions()] for group in groups]
            scores = score_completions(prompts, texts, self.config.rewards)
            judged, done = self.data.judged(prompts, groups, scores)
            kept += judged
            sampled.add(prompts, texts, groups, scores, done)
            run.lap("reward")
            if not max(gathered(self.data.missing(kept))):
                break
        return kept

    def _sampling_weights(self, own: nnx.State) -> nnx.State:
        return self._quantized(own) if "rollouts" in self.config.int8 else own
