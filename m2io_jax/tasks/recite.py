"""Recite the answer's sentences out of order: text alone, learnt before pictures are placed.

It teaches the one thing that placing needs and that pictures teach slowly: to read on where the same words stand.
"""

from m2io_jax.episodes.episode import Episode
from m2io_jax.episodes.labels import seeded
from m2io_jax.tasks.task import Prompt, number_sentences, plain

LEAST_WORDS = 4


class ReciteTask:
    """One line a sentence, in any order, from some word on, with its number."""

    name = "recite"
    rewards = ("recited",)

    def prompt(self, episode: Episode) -> Prompt:
        return Prompt("Recite the sentences.", number_sentences(episode))

    def target(self, episode: Episode) -> str | None:
        random = seeded(0, self.name, episode.id)
        lines = []
        for index in random.permutation(len(episode.sentences)):
            words = plain(episode.sentences[index]).split()
            start = int(random.integers(max(1, len(words) - LEAST_WORDS + 1)))
            lines.append(f" {' '.join(words[start:])}={index + 1}")
        return "\n".join(lines) or None

    def score(self, completion: str, episode: Episode) -> dict[str, float]:
        """Share of the sentences whose end is said with the right slot."""
        said = [line.strip().rpartition("=")[::2] for line in completion.split("\n")]

        def told(number: int, sentence: str) -> bool:
            return any(slot == str(number) and words and plain(sentence).endswith(words) for words, slot in said)

        right = sum(told(number, sentence) for number, sentence in enumerate(episode.sentences, start=1))
        return {"recited": right / max(1, len(episode.sentences))}
