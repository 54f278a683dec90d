"""What a model is asked, before it is tokens: tasks write it, `PromptEncoder` encodes it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Picture:
    """The place of a candidate picture in a prompt."""

    candidate: int


@dataclass(frozen=True)
class Shortened:
    """Text that may be cut to the run's `batch.max_sentence_tokens`; everything else in a prompt is kept whole."""

    text: str


@dataclass(frozen=True)
class Prompt:
    """A chat of one turn: the instruction, then text and pictures in reading order.

    `manual` says at length what a completion must look like; the instruction goes on with it where `batch.explain` is
    set, for models that were not taught the task.
    """

    system: str
    user: tuple[str | Shortened | Picture, ...]
    manual: str = ""
