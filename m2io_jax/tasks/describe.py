"""Describe the pictures: what a vision-language model learns first."""

import zlib

from m2io_jax.episodes.episode import Episode
from m2io_jax.episodes.prompt import Prompt
from m2io_jax.tasks.task import MeasuredByRewards, description, label, show_pictures


class DescribeTask(MeasuredByRewards):
    """One line a picture: its label and what it shows.

    Args:
        name: of the task.
        most: show no more than this many of the candidates, which keep their labels; None shows all.
    """

    rewards = ("described",)

    def __init__(self, name: str, most: int | None = None):
        self.name, self.most = name, most

    def prompt(self, episode: Episode) -> Prompt:
        return Prompt("Describe the pictures.", show_pictures(episode, self._shown(episode)))

    def target(self, episode: Episode) -> str | None:
        shown = self._shown(episode)
        lines = [f"{label(index)} {description(episode.candidates[index])}" for index in shown]
        return "\n".join(lines) if any(description(episode.candidates[index]) for index in shown) else None

    def score(self, completion: str, episode: Episode) -> dict[str, float]:
        """Share of the words of all lines that are right."""
        said, right = completion.split("\n"), (self.target(episode) or "").split("\n")
        words = [(said[row].split() if row < len(said) else [], truth.split()) for row, truth in enumerate(right)]
        hits = sum(sum(a == b for a, b in zip(guess, truth, strict=False)) for guess, truth in words)
        return {"described": hits / max(1, sum(max(len(guess), len(truth)) for guess, truth in words))}

    def _shown(self, episode: Episode) -> list[int]:
        count = len(episode.candidates)
        if self.most is None or count <= self.most:
            return list(range(count))
        # any of them, but always the same ones for an episode: a task is a pure function
        start = zlib.crc32(episode.id.encode()) % count
        return sorted((start + step) % count for step in range(self.most))
