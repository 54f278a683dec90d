"""What the processes of a run tell each other; alone, a process tells itself. All call each of these together."""

import json
import os
import time
from pathlib import Path
from typing import TypeVar

import jax
import numpy as np

# JAX has no public name for the barriers of the coordination service.
from jax._src import distributed
from jax.experimental import multihost_utils

T = TypeVar("T")

SEEN_S = 10  # until what one process wrote must be there for the others
WAIT_S = 3600  # how long processes wait for one of them, which may be writing a large model


def is_first() -> bool:
    """Whether this process is the one that writes what only one may write."""
    return jax.process_index() == 0


def wait_for_all(name: str) -> None:
    """Returns when every process has come here; `name` is this meeting's alone."""
    if jax.process_count() > 1:
        distributed.global_state.client.wait_at_barrier(f"m2io/{name}", WAIT_S * 1000)


def seen_by_all(folder: Path) -> bool:
    """Whether every process finds there what the first one writes; the folder is made. Raises OSError: it cannot be."""
    mark = folder / gathered(f".seen-{os.getpid()}-{time.time_ns()}")[0]
    if is_first():
        folder.mkdir(parents=True, exist_ok=True)
        mark.touch()
    wait_for_all(mark.name)
    waited = 0.0
    while not mark.exists() and waited < SEEN_S:  # a network's disk may take a moment
        time.sleep(0.5)
        waited += 0.5
    seen = all(gathered(mark.exists()))
    if is_first():
        mark.unlink(missing_ok=True)
    return seen


def gathered(value: T) -> list[T]:
    """What each process gives, of JSON values, in the order of the processes."""
    if jax.process_count() == 1:
        return [value]
    written = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.int32(written.size))
    # Sizes in powers of two: each new one is a program to compile.
    room = 1 << (int(sizes.max()) - 1).bit_length()
    padded = np.pad(written, (0, room - written.size))
    every = np.asarray(multihost_utils.process_allgather(padded))
    return [json.loads(row[:size].tobytes()) for row, size in zip(every, sizes, strict=True)]


def local_rows(array: jax.Array | np.ndarray) -> np.ndarray:
    """This process's rows of an array whose rows are spread over the mesh, in their order; all of one on the host."""
    if isinstance(array, np.ndarray):
        return array
    parts = {shard.index[0].start or 0: shard for shard in array.addressable_shards}
    return np.concatenate([np.asarray(parts[start].data) for start in sorted(parts)])


def whole(array: jax.Array | np.ndarray) -> np.ndarray:
    """The whole array on the host, although some of it may lie with another process."""
    if isinstance(array, np.ndarray) or array.is_fully_addressable or array.is_fully_replicated:
        return np.asarray(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))
