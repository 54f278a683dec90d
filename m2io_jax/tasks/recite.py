"""Recite the answer's sentences out of order: text alone, learnt before pictures are placed.

It teaches the one thing that placing needs and that pictures teach slowly: to read on where the same words stand.
"""

from m2io_jax.episodes.episode import Episode
from m2io_jax.episodes.labels import seeded
from m2io_jax.tasks.task import Prompt, number_lines, plain

LEAST_WORDS = 4


class ReciteTask:
    """One line a sentence, in any order, from some word on, with its number.

    Args:
        name: of the task.
        scrambled: the episode's words in random order stand for its sentences, each word once. What comes next can
            then only be read, not guessed; a model that can guess learns to read far later.
    """

    rewards = ("recited",)

    def __init__(self, name: str, scrambled: bool = False):
        self.name, self.scrambled = name, scrambled

    def prompt(self, episode: Episode) -> Prompt:
        return Prompt("Recite the sentences.", number_lines(self._sentences(episode)))

    def target(self, episode: Episode) -> str | None:
        random, sentences, lines = seeded(0, self.name, episode.id), self._sentences(episode), []
        for index in random.permutation(len(sentences)):
            words = sentences[index].split()
            start = int(random.integers(max(1, len(words) - LEAST_WORDS + 1)))
            lines.append(f" {' '.join(words[start:])}={index + 1}")
        return "\n".join(lines) or None

    def score(self, completion: str, episode: Episode) -> dict[str, float]:
        """Share of the sentences whose end is said with the right slot."""
        said = [line.strip().rpartition("=")[::2] for line in completion.split("\n")]

        def told(number: int, sentence: str) -> bool:
            return any(slot == str(number) and words and sentence.endswith(words) for words, slot in said)

        sentences = self._sentences(episode)
        right = sum(told(number, sentence) for number, sentence in enumerate(sentences, start=1))
        return {"recited": right / max(1, len(sentences))}

    def _sentences(self, episode: Episode) -> list[str]:
        sentences = [plain(sentence) for sentence in episode.sentences]
        if not self.scrambled:
            return sentences
        words = sorted(set(" ".join(sentences).split()))
        seeded(0, self.name, episode.id, "words").shuffle(words)
        length = 3 * LEAST_WORDS
        return [" ".join(words[start : start + length]) for start in range(0, len(words), length)]
