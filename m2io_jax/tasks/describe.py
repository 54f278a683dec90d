"""Describe the pictures: what a vision-language model learns first."""

from m2io_jax.episodes.episode import Episode
from m2io_jax.tasks.task import Prompt, description, label, show_pictures


class DescribeTask:
    """One line a candidate: its label and what it shows."""

    name = "describe"
    rewards = ("described",)

    def prompt(self, episode: Episode) -> Prompt:
        return Prompt("Describe the pictures.", show_pictures(episode))

    def target(self, episode: Episode) -> str | None:
        lines = [f"{label(index)} {description(candidate)}" for index, candidate in enumerate(episode.candidates)]
        return "\n".join(lines) if any(description(candidate) for candidate in episode.candidates) else None

    def score(self, completion: str, episode: Episode) -> dict[str, float]:
        """Share of the words of all lines that are right."""
        said, right = completion.split("\n"), (self.target(episode) or "").split("\n")
        words = [
            (said[row].split() if row < len(said) else [], truth.split()) for row, truth in enumerate(right)
        ]
        hits = sum(sum(a == b for a, b in zip(guess, truth, strict=False)) for guess, truth in words)
        return {"described": hits / max(1, sum(max(len(guess), len(truth)) for guess, truth in words))}
