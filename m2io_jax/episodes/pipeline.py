"""Episodes in training order: shuffled anew each epoch, split among processes, resumable to the record.

    source ─ shuffle(seed, epoch) ─ repeat ─ transform(row, its own generator) ─ every n-th row from the i-th ─ iterator

for process i of n. A row's generator depends on the seed and its position in the whole stream, so neither threads nor
the number of processes change what a row becomes. Rows that `transform` refuses are counted where they are consumed,
and the counts are part of the iterator's state: a resumed run counts each once, although threads had read ahead.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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


def episode_pipeline(
    source: Source[Episode],
    *,
    seed: int,
    transform: Callable[[Episode, np.random.Generator], T],
    batch_of: int | None = None,
    shard: tuple[int, int] = (0, 1),
    epochs: int | None = None,
    shuffle: bool = True,
    threads: int = READ_THREADS,
) -> "RowIterator[T]":
    """An iterator over transformed rows.

    Args:
        source: the episodes, such as `open_episodes` returns.
        seed: of the shuffling and the rows' generators, from 0 to 2**32 - 1.
        transform: makes a row; raises `RowError` to drop one.
        batch_of: rows come in lists of this many (the last of a finite stream may be shorter); None: one by one.
        shard: (index, count) of this process. Processes take turns in one stream, so none sees a row of another.
        epochs: None for endless.
        shuffle: False keeps the source's order, for evaluation.
        threads: that read and transform ahead; 0 does everything in the caller's thread.

    Raises:
        UserError: the source is empty; on iteration, when every row of an epoch was dropped.
    """
    if not len(source):
        raise UserError("The data set is empty.", mend="Build episodes with fewer rows dropped; see episodes.json.")
    index, count = shard
    if not 0 <= index < count:
        raise ValueError(f"shard {shard}: an index from 0 below the count")
    rows = grain.MapDataset.source(source)
    if shuffle:
        rows = rows.shuffle(seed=seed)
    rows = rows.repeat(epochs).random_map(_Guarded(transform), seed=seed)[index::count]
    # Grain's read-ahead buffer without threads would only delay; with them it bounds the memory.
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=READ_AHEAD if threads else 0)
    per_epoch = -(-len(source) // count)
    return iter(_KeptRows(rows.to_iter_dataset(options), batch_of, per_epoch))


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
