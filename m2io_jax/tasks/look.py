"""Say what one picture shows: the first thing that a vision-language model learns."""

from m2io_jax.episodes.episode import Episode
from m2io_jax.episodes.prompt import Picture, Prompt
from m2io_jax.tasks.task import MeasuredByRewards, description


class LookTask(MeasuredByRewards):
    """Describes the first candidate; candidates lie in random order, so this is any of them."""

    name = "look"
    rewards = ("seen",)

    def prompt(self, episode: Episode) -> Prompt:
        return Prompt("Describe the picture.", (Picture(0), "\n"))

    def target(self, episode: Episode) -> str | None:
        return " " + description(episode.candidates[0]) if description(episode.candidates[0]) else None

    def score(self, completion: str, episode: Episode) -> dict[str, float]:
        """Share of the words that are right, in their places."""
        said, truth = completion.split(), description(episode.candidates[0]).split()
        hits = sum(guess == word for guess, word in zip(said, truth, strict=False))
        return {"seen": hits / max(1, len(said), len(truth))}
