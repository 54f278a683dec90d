"""Find the picture of each sentence: what a vision-language model learns between describing and placing."""

from m2io_jax.episodes.episode import Episode
from m2io_jax.episodes.prompt import Prompt
from m2io_jax.tasks.task import MeasuredByRewards, label, number_sentences, show_pictures


class FindTask(MeasuredByRewards):
    """One line a sentence: its number and the pictures that belong to it, or `none`."""

    name = "find"
    rewards = ("found",)

    def prompt(self, episode: Episode) -> Prompt:
        return Prompt("Find the pictures.", (*number_sentences(episode.sentences), *show_pictures(episode)))

    def target(self, episode: Episode) -> str:
        return "\n".join(self._lines(episode, episode.labels))

    def score(self, completion: str, episode: Episode) -> dict[str, float]:
        """Share of the lines that are right."""
        truth, said = self._lines(episode, episode.gold), completion.split("\n")
        right = sum(row < len(said) and said[row] == line for row, line in enumerate(truth))
        return {"found": right / max(len(truth), len(said))}

    @staticmethod
    def _lines(episode: Episode, placements) -> list[str]:
        def found(slot: int) -> str:
            return "".join(label(p.picture) for p in sorted(placements) if p.slot == slot) or "none"

        return [f"{number}:{found(number)}" for number in range(1, len(episode.sentences) + 1)]
