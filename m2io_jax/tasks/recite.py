"""Recite the answer's sentences out of order: text alone, learnt before pictures are placed.

It teaches the one thing that placing needs and that pictures teach slowly: to read on where the same words stand.
"""

from m2io_jax.episodes.episode import Episode
from m2io_jax.episodes.labels import seeded
from m2io_jax.episodes.prompt import Prompt
from m2io_jax.tasks.task import MeasuredByRewards, number_sentences, plain, unstopped

MOST_SKIPPED = 4  # words at a sentence's start; at least as many are said


class ReciteTask(MeasuredByRewards):
    """One line a sentence, in any order, from some word on, with its number.

    Args:
        name: of the task.
        scrambled: all the answer's words in random order, each once, stand for its sentences. What comes next can
            then only be read, not guessed; a model that can guess learns to read far later.
    """

    rewards = ("recited",)

    def __init__(self, name: str, scrambled: bool = False):
        self.name, self.scrambled = name, scrambled

    def prompt(self, episode: Episode) -> Prompt:
        return Prompt("Recite the sentences.", number_sentences(self._sentences(episode)))

    def target(self, episode: Episode) -> str | None:
        random, sentences, lines = seeded(0, self.name, episode.id), self._sentences(episode), []
        for index in random.permutation(len(sentences)):
            words = sentences[index].split()
            start = int(random.integers(max(0, min(MOST_SKIPPED, len(words) - MOST_SKIPPED)) + 1))
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
        sentences = [unstopped(plain(sentence)) for sentence in episode.sentences]
        if not self.scrambled:
            return sentences
        words = sorted(set(" ".join(sentences).split()))
        seeded(0, self.name, episode.id, "words").shuffle(words)
        return [" ".join(words)]
