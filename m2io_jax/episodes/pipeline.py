"""Episodes in training order: shuffled anew each epoch, split among processes, resumable to the record.

    source ─ shuffle(seed, epoch) ─ repeat ─ transform(row, its own generator) ─┐
    source ─ ...                                      a mixture by weight: the stream ─ batches ─ each process's places

Batch b is rows b * n to (b + 1) * n of the stream, and of these every process reads those at its own places. A row's
generator depends on the seed and the row's position in its source's stream. The place of a row that a transform refuses
is taken by the first usable one of an epoch of spares, which are the same mixture in another order. So what a batch
holds follows from its number alone: neither threads nor the number of processes change it, how many rows were taken is
all that a run must keep to go on, in as many processes as it likes, and no row is lost or doubled but for the spares,
which are seen in their own turn too. Refused rows are counted where they are consumed: a resumed run counts each once,
although threads had read ahead.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from math import ceil
from typing import Any, Generic, Protocol, TypeVar

import grain
import numpy as np

from m2io_jax.episodes.episode import Episode
from m2io_jax.errors import RowError, UserError

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

READ_THREADS = 4
READ_AHEAD = 32
SPARE = 2**31  # how far the seed of the spares is from that of the rows


class Source(Protocol[T_co]):
    """Rows by random access; must stand being read from several threads."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> T_co: ...


@dataclass(frozen=True)
class Portion(Generic[T]):
    """One source of a mixture, what makes rows of its episodes, and how large its share of the rows is."""

    source: Source[Episode]
    transform: Callable[[Episode, np.random.Generator], T]
    weight: float = 1.0


def episode_pipeline(
    portions: Sequence[Portion[T]],
    *,
    seed: int,
    batch_of: int,
    shard: tuple[int, int] = (0, 1),
    threads: int = READ_THREADS,
) -> "RowIterator[T]":
    """An endless iterator over transformed rows. Any stretch has each portion's share of the rows, to within a row.

    Args:
        portions: what is mixed; the sources are such as `open_episodes` returns. A transform raises `RowError` to drop
            a row.
        seed: of the shuffling and the rows' generators, from 0 to 2**32 - 1.
        batch_of: rows in a batch, those of all processes together.
        shard: (index, count) of this process: it gets the `index`-th of `count` equal parts of every batch.
        threads: that read and transform ahead; 0 does everything in the caller's thread.

    Raises:
        UserError: a source is empty, or a batch cannot be shared out evenly; on iteration, when no row of an epoch can
            be used.
    """
    if not all(len(portion.source) for portion in portions):
        raise UserError("The data set is empty.", mend="Build episodes with fewer rows dropped; see episodes.json.")
    index, count = shard
    if not 0 <= index < count:
        raise ValueError(f"shard {shard}: an index from 0 below the count")
    if batch_of % count:
        what = f"{batch_of} rows cannot be shared out evenly to {count} processes."
        raise UserError(what, where="batch", mend=f"make batch.prompts and rollout.prompts multiples of {count}")
    weights = [portion.weight for portion in portions]
    per_epoch = ceil(max(len(portion.source) * sum(weights) / portion.weight for portion in portions))
    rows = _Rows(_mixture(portions, seed), _mixture(portions, seed + SPARE), per_epoch)
    return RowIterator(rows, batch_of, shard, threads)


def _mixture(portions: Sequence[Portion[T]], seed: int) -> grain.MapDataset:
    def stream(portion: Portion[T], seed: int) -> grain.MapDataset:
        rows = grain.MapDataset.source(portion.source).shuffle(seed=seed)
        return rows.repeat().random_map(_Guarded(portion.transform), seed=seed)

    streams = [stream(portion, (seed + number) % 2**32) for number, portion in enumerate(portions)]
    return grain.MapDataset.mix(streams, [each.weight for each in portions]) if len(streams) > 1 else streams[0]


@dataclass(frozen=True)
class _Dropped:
    reason: str


class _Guarded(Generic[T]):
    """A transform that returns `_Dropped` for a `RowError`: Grain would take an exception for a broken pipeline."""

    def __init__(self, transform: Callable[[Episode, np.random.Generator], T]):
        self._transform = transform

    def __call__(self, episode: Episode, random: np.random.Generator) -> T | _Dropped:
        try:
            return self._transform(episode, random)
        except RowError as error:
            return _Dropped(error.reason)


@dataclass(frozen=True)
class _Rows(Generic[T]):
    """The usable rows of an endless stream, by position; each comes with the reasons why others had to be dropped."""

    stream: grain.MapDataset
    spares: grain.MapDataset
    per_epoch: int

    def __getitem__(self, position: int) -> tuple[T, Counter[str]]:
        dropped = Counter[str]()
        for row in self._candidates(position):
            if not isinstance(row, _Dropped):
                return row, dropped
            dropped[row.reason] += 1
        reasons = "; ".join(f"{count} times: {reason}" for reason, count in dropped.most_common(3))
        mend = "Raise the capacities in the configuration, or build shorter episodes."
        raise UserError(f"No row can be used: {reasons}.", mend=mend)

    def _candidates(self, position: int) -> Iterator[T | _Dropped]:
        yield self.stream[position]
        for place in range(self.per_epoch):
            yield self.spares[position * self.per_epoch + place]


class RowIterator(Generic[T]):
    """What `episode_pipeline` returns: an endless iterator over this process's rows, batch after batch.

    Attributes:
        dropped: rows of this process left out so far, by reason.
    """

    def __init__(self, rows: _Rows[T], batch_of: int, shard: tuple[int, int], threads: int):
        self.dropped: Counter[str] = Counter()
        self._rows, self._batch_of, self._shard = rows, batch_of, shard
        self._taken = 0
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="rows") if threads else None
        self._ahead: deque[Future] = deque()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        row, dropped = self._read_ahead().result() if self._threads else self._rows[self._position(self._taken)]
        self._taken += 1
        self.dropped += dropped
        return row

    def get_state(self) -> dict[str, Any]:
        """Rows that all processes took together, where each took as many; and what this one dropped. JSON values."""
        return {"rows": self._taken * self._shard[1], "dropped": dict(self.dropped)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues where `get_state` was called, after a whole batch in as many processes as there are now."""
        self._taken, self.dropped = state["rows"] // self._shard[1], Counter(state["dropped"])
        for future in self._ahead:
            future.cancel()
        self._ahead.clear()

    def _position(self, number: int) -> int:
        """Where this process's row of this number stands in the stream."""
        index, count = self._shard
        share = self._batch_of // count
        batch, place = divmod(number, share)
        return batch * self._batch_of + index * share + place

    def _read_ahead(self) -> Future:
        """The next row, with later ones under way."""
        while len(self._ahead) <= READ_AHEAD:
            position = self._position(self._taken + len(self._ahead))
            self._ahead.append(self._threads.submit(self._rows.__getitem__, position))
        return self._ahead.popleft()
