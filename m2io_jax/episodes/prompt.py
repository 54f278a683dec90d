"""What a model is asked, before it is tokens: tasks write it, `PromptEncoder` encodes it."""

from dataclasses import dataclass

from m2io_jax.episodes.episode import Episode


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


def question_parts(episode: Episode) -> tuple[str | Picture, ...]:
    """Split an episode's question into its text and its images, in reading order.

    Where the episode does not say where images stand, each stands on a line of its own before the question.
    """
    if not episode.question_images:
        front = [part for index in range(len(episode.candidates)) for part in (Picture(index), "\n")]
        return (*front, episode.question)
    parts: list[str | Picture] = []
    start = 0
    for image in episode.question_images:
        parts += [episode.question[start : image.offset], Picture(image.picture)]
        start = image.offset
    return tuple(part for part in (*parts, episode.question[start:]) if part != "")
