"""What a policy is trained on. One file a task: its prompt, the completion it teaches, how a completion is scored."""

from collections.abc import Iterable, Mapping
from typing import Protocol

import numpy as np

from m2io_jax.episodes.episode import Episode
from m2io_jax.episodes.prompt import Picture, Prompt, Shortened, question_parts


class Task(Protocol):
    """A task over episodes. Pure: what it returns depends on its arguments alone.

    A task whose completions can be constrained also has a `grammar`, and `names(episode)`: how many labels an
    episode's completions may use, and their last slot.

    Attributes:
        rewards: the names of what `score` gives.
        metrics: what evaluation reports, in order: names of what `measure` gives, and of what is known of a completion
            of any task: `reward`, `length` (tokens), `unscored` (whether nobody could say what it is worth).
    """

    name: str
    rewards: tuple[str, ...]
    metrics: tuple[str, ...]

    def prompt(self, episode: Episode) -> Prompt:
        """What the model reads. Raises RowError where the episode is none for this task."""
        ...

    def target(self, episode: Episode) -> str | None:
        """The completion that supervision teaches, from the episode's labels; None where it has nothing to teach."""
        ...

    def score(self, completion: str, episode: Episode) -> Mapping[str, float]:
        """Reward parts by name, each in [0, 1], against the episode's exact gold.

        Raises:
            Unverified: nobody can say what the completion is worth; it then counts for nothing, not for 0.
        """
        ...

    def measure(self, completion: str, episode: Episode, parts: Mapping[str, float]) -> Mapping[str, float | None]:
        """What evaluation tells of a completion with these reward parts, in [0, 1]; None where it does not apply."""
        ...


class MeasuredByRewards:
    """A task of whose completions evaluation tells the reward parts."""

    rewards: tuple[str, ...]

    @property
    def metrics(self) -> tuple[str, ...]:
        return (*self.rewards, "reward", "length")

    def measure(self, completion: str, episode: Episode, parts: Mapping[str, float]) -> Mapping[str, float | None]:
        return parts


def label(index: int) -> str:
    """The name of a candidate in prompts and completions: A, B, ... Z, AA, AB, ..."""
    letters = ""
    while index >= 0:
        index, letter = index // 26 - 1, index % 26
        letters = chr(ord("A") + letter) + letters
    return letters


def labelled_question(episode: Episode) -> str:
    """Return the question as one text, with the label of each image where the image stands inside it: `[A]`.

    Images that stand in front of the question are left out: pages show them beside it.
    """
    if not episode.question_images:
        return episode.question
    parts = question_parts(episode)
    return "".join(part if isinstance(part, str) else f"[{label(part.candidate)}]" for part in parts)


def unlabel(letters: str) -> int:
    """The inverse of `label`."""
    index = 0
    for letter in letters:
        index = index * 26 + ord(letter) - ord("A") + 1
    return index - 1


def description(candidate) -> str:
    """What a candidate shows, in words: its exact content where that is known, else the start of its caption."""
    return " ".join(plain(candidate.content or candidate.caption).split()[:8])


def plain(text: str) -> str:
    """One line without the marks of the completion grammar, which foreign text may well hold."""
    return " ".join(text.split()).replace("=", "-").replace("<", "(").replace(">", ")")


def show_pictures(episode: Episode, shown: Iterable[int] | None = None) -> tuple[str | Shortened | Picture, ...]:
    """Every candidate (or those `shown`) on a line of its own: picture, label, caption.

    The label stands after its picture, so that the label's token can gather what the picture shows and a completion
    finds both by the label alone. With the label in front, the tiny model did not learn which picture is which.
    """
    parts: list[str | Shortened | Picture] = []
    for index in range(len(episode.candidates)) if shown is None else shown:
        caption = " ".join(episode.candidates[index].caption.split())
        parts += [Picture(index), label(index)] + ([" ", Shortened(caption)] if caption else []) + ["\n"]
    return tuple(parts)


def tell_pictures(episode: Episode) -> tuple[str | Shortened | Picture, ...]:
    """As `show_pictures`, with the words of a description where the picture would stand."""
    parts: list[str | Shortened | Picture] = []
    for index, candidate in enumerate(episode.candidates):
        parts += [Shortened(description(candidate)), f" {label(index)}\n"]
    return tuple(parts)


def number_sentences(sentences: Iterable[str]) -> tuple[str | Shortened | Picture, ...]:
    """Every sentence on a line of its own with the slot that comes after it, written as completions write it: `=2`.

    Whoever reads on in a sentence to its end reads its slot there: straight after the last word, without the full stop
    that all sentences share.
    """
    parts: list[str | Shortened | Picture] = []
    for number, sentence in enumerate(sentences, start=1):
        parts += [Shortened(unstopped(" ".join(sentence.split()))), f"={number}\n"]
    return tuple(parts)


def unstopped(sentence: str) -> str:
    """A sentence without the marks that end it."""
    return sentence.rstrip(".!?…。！？") or sentence


def choose(mixture: Mapping[str, float], random: np.random.Generator) -> str:
    """Draws a task's name by weight."""
    names = list(mixture)
    weights = np.array([mixture[name] for name in names])
    return names[int(random.choice(len(names), p=weights / weights.sum()))]
