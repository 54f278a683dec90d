"""Sentences with pictures placed among them, as a reader meets them: paragraphs, and pictures between them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from m2io_jax.episodes.episode import Placement


def by_slot(placements: Iterable[Placement], sentences: int) -> list[list[int]]:
    """The pictures of each slot from 0 to `sentences`, in the order of mention.

    Raises:
        ValueError: a slot that does not exist.
    """
    slots: list[list[int]] = [[] for _ in range(sentences + 1)]
    for placement in placements:
        if not 0 <= placement.slot <= sentences:
            raise ValueError(f"{placement} is outside an answer of {sentences} sentences")
        slots[placement.slot].append(placement.picture)
    return slots


@dataclass(frozen=True)
class TextPart:
    """Sentences that are set as one paragraph; `verbatim` for code and tables, whose line breaks stay."""

    sentences: tuple[str, ...]
    verbatim: bool = False

    @property
    def text(self) -> str:
        """The paragraph."""
        return " ".join(self.sentences)


@dataclass(frozen=True)
class PicturePart:
    """Pictures that stand in one slot, as indices into the candidates."""

    slot: int
    pictures: tuple[int, ...]


def parts(sentences: Iterable[str], slots: list[list[int]]) -> Iterator[TextPart | PicturePart]:
    """An answer in reading order. Paragraphs end at pictures, verbatim text, and sentences without a full stop."""
    paragraph: list[str] = []
    for slot, sentence in enumerate(["", *sentences]):
        if "\n" in sentence:
            if paragraph:
                yield TextPart(tuple(paragraph))
            yield TextPart((sentence,), verbatim=True)
            paragraph = []
        elif slot:
            paragraph.append(sentence)
        # List items and headings would run into each other.
        ends = paragraph and not paragraph[-1].rstrip("\"'”’)]*_`").endswith((".", "!", "?", "…", "。", "！", "？"))
        if paragraph and (ends or slots[slot]):
            yield TextPart(tuple(paragraph))
            paragraph = []
        if slots[slot]:
            yield PicturePart(slot, tuple(slots[slot]))
    if paragraph:
        yield TextPart(tuple(paragraph))
