"""FOLDER COUNT: write so many episodes of 0.4 MB, read them without TensorFlow, print the peak memory in bytes."""

import random
import resource
import sys

from m2io_jax.episodes.dataset import open_episodes, write_episodes
from m2io_jax.episodes.episode import Candidate, Episode


def picture(number: int) -> bytes:
    return random.Random(number).randbytes(50_000)


def row(number: int) -> Episode:
    candidates = tuple(Candidate(str(i), picture(8 * number + i)) for i in range(8))
    return Episode(str(number), "q", ("s",), candidates, (), ())


folder, count = sys.argv[1], int(sys.argv[2])
assert write_episodes({"train": map(row, range(count))}, folder, dict) == {"train": count}
read = set()
for each in open_episodes(folder, "train"):
    assert each == row(int(each.id))
    read.add(each.id)
assert len(read) == count and "tensorflow" not in sys.modules
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10)
