"""A policy judged: greedy and sampled completions of held-out episodes, read and scored as in training."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import jax
import numpy as np
from jax.sharding import Mesh

from m2io_jax.config import RunConfig
from m2io_jax.episodes.batching import PromptEncoder, stack_prompts
from m2io_jax.episodes.episode import Episode
from m2io_jax.episodes.labels import seeded
from m2io_jax.episodes.pipeline import RowError
from m2io_jax.errors import UserError
from m2io_jax.evaluation.results import score_episode, summarise
from m2io_jax.models.int8 import quantized
from m2io_jax.models.policy import Policy
from m2io_jax.models.sizes import Computation, ModelConfig
from m2io_jax.parallel.mesh import make_mesh
from m2io_jax.parallel.sharding import param_shardings, place, place_batch
from m2io_jax.progress import Progress
from m2io_jax.sampling.constraints import Constraints
from m2io_jax.sampling.rollouts import Sampler, completion_ids
from m2io_jax.sampling.sampler import SamplingConfig
from m2io_jax.tasks import find_task
from m2io_jax.tasks.inserter import parse

T = TypeVar("T")

DECODING = {"greedy": 0.0, "sampled": 1.0}  # both in one group: the prompt is run once for them


@dataclass(frozen=True)
class Judged:
    """One completion of one episode: what it says, what was read from it (None: not valid) and its reward parts."""

    episode: Episode
    completion: str
    placements: tuple | None
    reasoning: str
    rewards: Mapping[str, float]


class Judge:
    """Completes and scores episodes, for any weights of one model size; one compiled program for each kind of model.

    Args:
        mesh: where; None is the configuration's.
    """

    def __init__(self, config: RunConfig, policy: Policy, mesh: Mesh | None = None):
        self.config, self.codec, self.task = config, policy.codec, find_task("inserter")
        self.encoder = PromptEncoder(policy.config, policy.codec, config.batch)
        self.mesh = make_mesh(config.mesh) if mesh is None else mesh
        self.sampling = SamplingConfig(tuple(DECODING.values()), config.batch.completion_length)
        self.computation = Computation(**config.computation.model_dump())
        self.constraints = None
        if config.evaluate.constrained:
            tokens, length = policy.codec.token_bytes(), config.batch.completion_length
            self.constraints = Constraints(self.task.grammar, tokens, policy.config, self.mesh, max_length=length)
        self._samplers: dict[ModelConfig, Sampler] = {}  # with adapters and without: two programs
        self.dropped: Counter[str] = Counter()

    def judge(self, policy: Policy, episodes: Sequence[Episode], title: str) -> dict[str, list[Judged]]:
        """Judged completions by decoding. Episodes that do not fit the shapes are counted in `dropped`.

        Raises:
            UserError: not one fits.
        """
        judged: dict[str, list[Judged]] = {name: [] for name in DECODING}
        policy = policy.computed(self.computation)
        if policy.config not in self._samplers:
            self._samplers[policy.config] = Sampler(
                policy.structure, self.sampling, self.mesh, constrained=self.constraints is not None
            )
        params = place(policy.params, param_shardings(policy.params, self.mesh))
        params = jax.jit(quantized)(params) if self.config.evaluate.int8 else params
        key = jax.random.key(self.config.seed)
        with Progress(title, steps=len(episodes)) as progress:
            done = 0
            for batch, prompts in self._batches(episodes):
                constraint = self.constraints and self.constraints.batch(
                    [self.task.names(episode) for episode in filled_up(batch, prompts.rows)]
                )
                rollouts = self._samplers[policy.config](params, place_batch(prompts, self.mesh), key, constraint)
                for episode, group in zip(batch, completion_ids(rollouts.completions), strict=False):
                    for name, ids in zip(DECODING, group, strict=True):
                        judged[name].append(self._read(episode, self.codec.decode(ids)))
                done += len(batch)
                progress.update(done)
        if not done:
            reasons = "; ".join(f"{count} times: {reason}" for reason, count in self.dropped.items())
            raise UserError(f"No episode can be evaluated: {reasons}.", mend="raise the capacities under `batch`")
        return judged

    def _batches(self, episodes: Sequence[Episode]) -> Iterator[tuple[list[Episode], object]]:
        """Episodes with their prompts; the last batch is filled up with its first row, which is not scored twice."""
        size, pending = self.config.evaluate.batch_prompts, []
        for index, episode in enumerate(episodes):
            try:
                if self.constraints and (reason := self.constraints.refuses(self.task.names(episode))):
                    raise RowError(reason)
                pending.append((episode, self.encoder.row(self.task.prompt(episode), episode.candidates, seed=index)))
            except RowError as error:
                self.dropped[error.reason] += 1
            if len(pending) == size or (pending and index == len(episodes) - 1):
                yield [episode for episode, _ in pending], stack_prompts(filled_up([row for _, row in pending], size))
                pending = []

    def _read(self, episode: Episode, completion: str) -> Judged:
        parsed = parse(completion, episode)
        placements, reasoning = (parsed.placements, parsed.thinking) if parsed else (None, "")
        return Judged(episode, completion, placements, reasoning, self.task.score(completion, episode))


def filled_up(rows: list[T], size: int) -> list[T]:
    """`size` rows: those there are, and the first again."""
    return rows + rows[:1] * (size - len(rows))


def summaries(judged: Mapping[str, Sequence[Judged]], config: RunConfig) -> dict[str, dict]:
    """Every metric's mean and interval, by decoding."""

    def scores(row: Judged):
        return score_episode(row.episode, row.placements, row.rewards, config.rewards)

    return {name: summarise([scores(row) for row in rows], seed=config.seed) for name, rows in judged.items()}


def take(source: Sequence[Episode], count: int) -> list[Episode]:
    """The first `count` episodes: stored in hash order, so a fair sample."""
    return [source[index] for index in range(min(count, len(source)))]


def shuffle_pixels(episode: Episode, seed: int = 0) -> Episode:
    """The same episode with its candidates' pictures exchanged among themselves: none keeps its own."""
    count = len(episode.candidates)
    if count < 2:
        return episode
    order = seeded(seed, "pixels", episode.id).permutation(count)
    moved = np.empty(count, int)
    moved[order] = np.roll(order, 1)  # one cycle through all of them
    pairs = zip(episode.candidates, moved, strict=True)
    return replace(
        episode,
        candidates=tuple(replace(candidate, data=episode.candidates[other].data) for candidate, other in pairs),
    )
