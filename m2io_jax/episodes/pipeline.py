"""Episodes in training order: shuffled anew each epoch, split among processes, resumable to the record.

    source ─ shuffle(seed, epoch) ─ repeat ─ transform(row, its own generator) ─ every n-th row from the i-th ─┐
    source ─ ...                                                               a mixture by weight ─ iterator ─┘

for process i of n. A row's generator depends on the seed and its position in its source's stream, so neither threads
nor the number of processes change what a row becomes. Rows that a transform refuses are counted where they are
consumed, and the counts are part of the iterator's state: a resumed run counts each once, although threads had read
ahead.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Generic, Protocol, TypeVar

import grain
import numpy as np

from m2io_jax.episodes.episode import Episode
from m2io_jax.errors import UserError

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

READ_THREADS = 4
READ_AHEAD = 32


class RowError(Exception):
    """Raised by a transform: this row cannot be used. `reason` is what it is counted under, so keep it general."""

    def __init__(self, reason: str):
        self.reason = reason
        super().__init__(reason)


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
    batch_of: int | None = None,
    shard: tuple[int, int] = (0, 1),
    epochs: int | None = None,
    shuffle: bool = True,
    threads: int = READ_THREADS,
) -> "RowIterator[T]":
    """An iterator over transformed rows. Any stretch of it has each portion's share of the rows, to within a row.

    Args:
        portions: what is mixed; the sources are such as `open_episodes` returns. A transform raises `RowError` to drop
            a row, which still counts as one of its portion's.
        seed: of the shuffling and the rows' generators, from 0 to 2**32 - 1.
        batch_of: rows come in lists of this many (the last of a finite stream may be shorter); None: one by one.
        shard: (index, count) of this process. Processes take turns in each stream, so none sees a row of another.
        epochs: None for endless; else the rows end with the first portion that was gone through so many times.
        shuffle: False keeps the sources' order, for evaluation.
        threads: that read and transform ahead; 0 does everything in the caller's thread.

    Raises:
        UserError: a source is empty; on iteration, when as many rows in a row were dropped as an epoch of all has.
    """
    if not all(len(portion.source) for portion in portions):
        raise UserError("The data set is empty.", mend="Build episodes with fewer rows dropped; see episodes.json.")
    index, count = shard
    if not 0 <= index < count:
        raise ValueError(f"shard {shard}: an index from 0 below the count")

    def stream(portion: Portion[T], seed: int) -> grain.MapDataset:
        rows = grain.MapDataset.source(portion.source)
        rows = rows.shuffle(seed=seed) if shuffle else rows
        return rows.repeat(epochs).random_map(_Guarded(portion.transform), seed=seed)[index::count]

    streams = [stream(portion, (seed + number) % 2**32) for number, portion in enumerate(portions)]
    weights = [portion.weight for portion in portions]
    rows = grain.MapDataset.mix(streams, weights) if len(streams) > 1 else streams[0]
    # Grain's read-ahead buffer without threads would only delay; with them it bounds the memory.
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=READ_AHEAD if threads else 0)
    per_epoch = max(len(portion.source) * sum(weights) / portion.weight for portion in portions) / count
    return iter(_KeptRows(rows.to_iter_dataset(options), batch_of, ceil(per_epoch)))


@dataclass(frozen=True)
class _Dropped:
    reason: str


class _Guarded(Generic[T]):
    """A transform that returns `_Dropped` for a `RowError`: raised in a reading thread it would end the iteration."""

    def __init__(self, transform: Callable[[Episode, np.random.Generator], T]):
        self._transform = transform

    def __call__(self, episode: Episode, random: np.random.Generator) -> T | _Dropped:
        try:
            return self._transform(episode, random)
        except RowError as error:
            return _Dropped(error.reason)


class _KeptRows(grain.IterDataset):
    """Leaves dropped rows out, and gathers the others into lists of `batch_of`."""

    def __init__(self, parent: grain.IterDataset, batch_of: int | None, patience: int):
        super().__init__(parent)
        self._batch_of, self._patience = batch_of, patience

    def __iter__(self) -> "RowIterator":
        return RowIterator(iter(self._parent), self._batch_of, self._patience)


class RowIterator(grain.DatasetIterator[T]):
    """What `episode_pipeline` returns: a Grain iterator, so Orbax saves and restores it beside the train state.

    Attributes:
        dropped: rows left out so far, by reason.
    """

    def __init__(self, parent: grain.DatasetIterator, batch_of: int | None, patience: int):
        super().__init__(parent)
        self.dropped: Counter[str] = Counter()
        self._batch_of, self._patience = batch_of, patience

    def __next__(self) -> T | Sequence[T]:
        if self._batch_of is None:
            return self._row()
        batch: list[T] = []
        while len(batch) < self._batch_of:
            try:
                batch.append(self._row())
            except StopIteration:
                if not batch:
                    raise
                break
        return batch

    def get_state(self) -> dict[str, Any]:
        """Where the iterator stands and what it dropped, as JSON values."""
        return {"rows": self._parent.get_state(), "dropped": dict(self.dropped)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues where `get_state` was called, on an iterator made with the same arguments."""
        self._parent.set_state(state["rows"])
        self.dropped = Counter(state["dropped"])

    def _row(self) -> T:
        for _ in range(self._patience):
            row = next(self._parent)
            if not isinstance(row, _Dropped):
                return row
            self.dropped[row.reason] += 1
        reasons = "; ".join(f"{count} times: {reason}" for reason, count in self.dropped.most_common(3))
        mend = "Raise the capacities in the configuration, or build shorter episodes."
        raise UserError(f"No row can be used: {reasons}.", mend=mend)
