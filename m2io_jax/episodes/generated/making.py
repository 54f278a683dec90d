"""From a generator to a data set of episodes: what the command `m2io generate` does."""

import hashlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from m2io_jax.episodes.building import SPLITS, EpisodeConfig, split_of
from m2io_jax.episodes.dataset import read_manifest, write_episodes
from m2io_jax.episodes.episode import Candidate, Episode
from m2io_jax.episodes.generated.problem import Generator, Problem
from m2io_jax.episodes.labels import seeded
from m2io_jax.errors import UserError

TRIES = 2000  # a split of 5% that is not met in so many has no problem at all


def generate(task: str, generator: Generator, *, count: int, seed: int) -> dict[str, Iterator[Episode]]:
    """Episodes by split: 80% train, 5% validation, 15% test. No problem stands in two splits.

    An episode depends on the seed and its place in its split alone. A problem may come again in its split, drawn or
    told otherwise.

    Raises:
        UserError: `count` is below 1; on iteration, where the generator's settings leave a split without problems.
    """
    if count < 1:
        raise UserError(f"count is {count}.", where="--count", mend="allowed: 1 or more")
    shares = EpisodeConfig(seed=seed)
    return {split: _episodes(task, generator, split, round(count * shares.share(split)), shares) for split in SPLITS}


def make_generated(task: str, generator: Generator, folder: str | Path, *, count: int, seed: int) -> dict[str, Any]:
    """Writes `generate`'s episodes as a data set; returns what its `episodes.json` holds.

    Raises:
        UserError: as `generate` and `write_episodes`.
    """
    rows = generate(task, generator, count=count, seed=seed)
    write_episodes(rows, folder, lambda: {"generated": {"task": task, "seed": seed} | asdict(generator)})
    return read_manifest(folder)


def _episodes(task: str, generator: Generator, split: str, count: int, shares: EpisodeConfig) -> Iterator[Episode]:
    for index in range(count):
        random = seeded(shares.seed, task, split, str(index))
        problem = _problem(task, generator, split, random, shares)
        yield _episode(f"{task}-{split}-{index}", problem, problem.picture and problem.picture(random))


def _problem(
    task: str, generator: Generator, split: str, random: np.random.Generator, shares: EpisodeConfig
) -> Problem:
    for _ in range(TRIES):
        problem = generator.problem(random, split, shares.seed)
        if split_of(problem.key, shares) == split:
            return problem
    mend = "allow more different ones, such as larger numbers or more things"
    raise UserError(f"There are too few problems for the split {split}.", where=f"generate {task}", mend=mend)


def _episode(id: str, problem: Problem, picture: bytes | None) -> Episode:
    candidates = ()
    if picture is not None:
        candidates = (Candidate(hashlib.sha256(picture).hexdigest(), picture, document=id, content=problem.content),)
    return Episode(
        id=id,
        question=problem.question,
        sentences=(),
        candidates=candidates,
        gold=(),
        labels=(),
        document=id,
        group=problem.key,
        answer=str(problem.answer),
        reasoning=problem.reasoning,
    )
