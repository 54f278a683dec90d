"""A policy judged: greedy and sampled completions of held-out episodes, read and scored as in training."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import jax
import numpy as np
from jax.sharding import Mesh

from m2io_jax.config import RunConfig
from m2io_jax.episodes.batching import PromptEncoder, PromptRow, stack_prompts
from m2io_jax.episodes.episode import Episode
from m2io_jax.episodes.labels import seeded
from m2io_jax.errors import RowError, UserError
from m2io_jax.evaluation.results import score_completion, summarise
from m2io_jax.models.inputs import PromptBatch
from m2io_jax.models.int8 import is_quantized, quantizer
from m2io_jax.models.policy import Policy
from m2io_jax.models.sizes import Computation, ModelConfig
from m2io_jax.parallel.exchange import gathered, is_first
from m2io_jax.parallel.mesh import make_mesh
from m2io_jax.parallel.sharding import param_shardings, place, place_batch, row_ways
from m2io_jax.progress import Progress
from m2io_jax.rl.rewards import score_completions
from m2io_jax.sampling.constraints import Constraint, Constraints
from m2io_jax.sampling.sampler import Sampler, SamplingConfig, completion_ids
from m2io_jax.tasks.task import Task

T = TypeVar("T")

NO_NAMES = (0, 0)  # what a row that asks nothing may place
DECODING = {"greedy": 0.0, "sampled": 1.0}  # both in one group: the prompt is run once for them


@dataclass(frozen=True)
class Judged:
    """One completion of one episode.

    Attributes:
        length: in tokens, the stop token among them.
        rewards: parts by name; None where nobody could say what it is worth.
    """

    episode: Episode
    completion: str
    length: int
    rewards: Mapping[str, float] | None


@dataclass(frozen=True)
class Judgement:
    """What was judged, by decoding; and how many episodes did not fit the shapes, by reason."""

    rows: Mapping[str, list[Judged]] = field(default_factory=lambda: {name: [] for name in DECODING})
    dropped: Counter[str] = field(default_factory=Counter)

    @property
    def episodes(self) -> list[Episode]:
        """Those that were judged: what stands beside the policy is measured on no others."""
        return [row.episode for row in self.rows["greedy"]]


@dataclass(frozen=True)
class _Asked:
    index: int
    episode: Episode
    task: Task
    prompt: PromptRow


# An episode's index, and of each decoding: text, length in tokens, rewards.
_Said = tuple[int, list[tuple[str, int, Mapping[str, float] | None]]]


class Judge:
    """Completes and scores episodes of any task, for any weights of one model size; one compiled program for each kind
    of model.

    Attributes:
        rows: of a batch that are this process's; together as many more than `evaluate.batch_prompts` as it takes to
            share them out evenly to the devices.

    Args:
        mesh: where; None is the configuration's.
    """

    def __init__(self, config: RunConfig, policy: Policy, mesh: Mesh | None = None):
        self.config, self.codec, self.model = config, policy.codec, policy.config
        self.encoder = PromptEncoder(policy.config, policy.codec, config.batch)
        self.mesh = make_mesh(config.mesh) if mesh is None else mesh
        shares = math.lcm(row_ways(self.mesh), jax.process_count())
        self.rows = math.ceil(config.evaluate.batch_prompts / shares) * shares // jax.process_count()
        self.sampling = SamplingConfig(tuple(DECODING.values()), config.batch.completion_length)
        self.computation = Computation(**config.computation.model_dump())
        self._quantized = quantizer(self.mesh)
        self._samplers: dict[ModelConfig, Sampler] = {}  # with adapters and without: two programs
        self._constraints: dict[str, Constraints] = {}

    def ready(self, policy: Policy) -> Policy:
        """The policy with its weights on the mesh and, with `evaluate.int8`, in eight bits.

        `judge` makes it so by itself. Who goes on with this one alone has it done once, and lets go of the weights that
        were given.
        """
        params = place(policy.params, param_shardings(policy.params, self.mesh))
        if self.config.evaluate.int8 and not is_quantized(params):
            params = self._quantized(params)
        return policy.with_params(params)

    def judge(self, policy: Policy, task: Task, episodes: Sequence[Episode], title: str) -> Judgement:
        """Judged completions of the episodes, in their order. Several processes share them, and each returns all.

        Raises:
            NothingJudged: not one fits.
            UserError: completions are to keep to a grammar that the task does not have.
        """
        constraints = self._constraints_of(task)
        policy = self.ready(policy).computed(self.computation)
        sampler = self._sampler(policy)
        key = jax.random.key(self.config.seed)
        said: list[_Said] = []
        dropped: Counter[str] = Counter()
        batches = self._batches(task, episodes, constraints, dropped)
        with Progress(title, steps=len(episodes), quiet=not is_first()) as progress:
            for batch, done in _in_step(batches):
                prompts, constraint = self._placed(batch, constraints)
                rollouts = sampler(policy.params, prompts, key, constraint)
                said += self._read(batch, completion_ids(rollouts.completions)[: len(batch)])
                progress.update(done)
        return _judgement(episodes, said, dropped)

    def _batches(
        self, task: Task, episodes: Sequence[Episode], constraints: Constraints | None, dropped: Counter[str]
    ) -> Iterator[list[_Asked]]:
        """This process's episodes with their prompts, so many at a time; those that do not fit are counted."""
        batch: list[_Asked] = []
        for index in range(jax.process_index(), len(episodes), jax.process_count()):
            episode = episodes[index]
            try:
                if constraints and (reason := constraints.refuses(task.names(episode))):
                    raise RowError(reason)
                prompt = self.encoder.row(task.prompt(episode), episode.candidates, seed=index)
                batch.append(_Asked(index, episode, task, prompt))
            except RowError as error:
                dropped[error.reason] += 1
            if len(batch) == self.rows:
                yield batch
                batch = []
        if batch:
            yield batch

    def _placed(
        self, batch: Sequence[_Asked], constraints: Constraints | None
    ) -> tuple[PromptBatch, Constraint | None]:
        """What the sampler takes of a batch, filled up to the rows that it has room for."""
        asked = [row.prompt for row in batch] or [self.encoder.blank()]
        prompts = place_batch(stack_prompts(filled_up(asked, self.rows)), self.mesh)
        if constraints is None:
            return prompts, None
        names = [row.task.names(row.episode) for row in batch] or [NO_NAMES]
        return prompts, constraints.batch(filled_up(names, self.rows))

    def _sampler(self, policy: Policy) -> Sampler:
        if policy.config not in self._samplers:
            gather = self.config.computation.dtype if self.config.rollout.gather else None
            how = dict(constrained=self.config.evaluate.constrained, gather=gather)
            self._samplers[policy.config] = Sampler(policy.structure, self.sampling, self.mesh, **how)
        return self._samplers[policy.config]

    def _constraints_of(self, task: Task) -> Constraints | None:
        if not self.config.evaluate.constrained:
            return None
        if task.name not in self._constraints:
            grammar = getattr(task, "grammar", None)
            if grammar is None:
                what = f"Completions of the task `{task.name}` have no grammar to keep to."
                raise UserError(what, where="evaluate.constrained", mend="leave it false")
            tokens, length = self.codec.token_bytes(), self.config.batch.completion_length
            made = Constraints(grammar, tokens, self.model, self.mesh, max_length=length)
            self._constraints[task.name] = made
        return self._constraints[task.name]

    def _read(self, batch: Sequence[_Asked], completions: Sequence[Sequence[list[int]]]) -> list[_Said]:
        texts = [[self.codec.decode(ids) for ids in group] for group in completions]
        parts = score_completions(batch, texts, self.config.rewards).parts
        lengths = [[len(ids) for ids in group] for group in completions]
        return [
            (row.index, list(zip(*each, strict=True)))
            for row, *each in zip(batch, texts, lengths, parts, strict=True)
        ]


def _in_step(batches: Iterator[list[_Asked]]) -> Iterator[tuple[list[_Asked], int]]:
    """Batch after batch while any process has one, empty where this one has none left; and how many rows all processes
    have had with it."""
    done = 0
    while True:
        batch = next(batches, [])
        rows = sum(gathered(len(batch)))
        if not rows:
            return
        done += rows
        yield batch, done


def _judgement(episodes: Sequence[Episode], said: list[_Said], dropped: Counter[str]) -> Judgement:
    """What all processes read, in the order of the episodes. Raises UserError where that is nothing."""
    judged, every = Judgement(), gathered((said, dropped))
    for _, left_out in every:
        judged.dropped.update(left_out)
    for index, group in sorted((row for read, _ in every for row in read), key=lambda row: row[0]):
        for name, (text, length, rewards) in zip(DECODING, group, strict=True):
            judged.rows[name].append(Judged(episodes[index], text, length, rewards))
    if not judged.rows["greedy"]:
        raise NothingJudged(judged.dropped)
    return judged


class NothingJudged(UserError):
    """Not one episode fits: `dropped` says why not, by reason."""

    def __init__(self, dropped: Counter[str]):
        self.dropped = dropped
        reasons = "; ".join(f"{count} times: {reason}" for reason, count in dropped.items())
        super().__init__(f"No episode can be evaluated: {reasons}.", mend="raise the capacities under `batch`")


def filled_up(rows: list[T], size: int) -> list[T]:
    """`size` rows: those there are, and the first again, which is not scored twice."""
    return rows + rows[:1] * (size - len(rows))


def scores(judged: Sequence[Judged], task: Task, config: RunConfig) -> list[dict[str, float | None]]:
    """Every metric of each completion; a share in [0, 1], or the length in tokens."""
    return [
        {**score_completion(task, row.completion, row.episode, row.rewards, config.rewards), "length": row.length}
        for row in judged
    ]


def summaries(judged: Judgement, task: Task, config: RunConfig) -> dict[str, dict]:
    """Every metric's mean and interval, by decoding."""
    return {
        name: summarise(scores(rows, task, config), seed=config.seed, metrics=task.metrics)
        for name, rows in judged.rows.items()
    }


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
