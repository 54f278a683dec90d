"""An answer with its pictures: what a reader gets, before it is written as Markdown, HTML or JSON."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from m2io_jax.episodes.episode import Candidate, Episode, Placement


@dataclass(frozen=True)
class Source:
    """A document that an answer draws on.

    Attributes:
        document: its id.
        title: its title.
        path: source file relative to the imported tree.
        line: first line of what was taken from it, counted from 1; 0 where that is not known.
    """

    document: str
    title: str = ""
    path: str = ""
    line: int = 0


@dataclass(frozen=True)
class Answer:
    """Text, which is never changed, and the pictures that stand in it.

    Attributes:
        sentences: the text.
        candidates: every picture that was offered.
        placements: which of them stand where; slot 0 is before the first sentence, slot i after sentence i.
        reasoning: the model's own words; empty for a rule.
        sources: documents of the text, then those of the pictures.
    """

    question: str
    sentences: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    placements: tuple[Placement, ...]
    reasoning: str = ""
    sources: tuple[Source, ...] = ()

    def __post_init__(self) -> None:
        """Raises ValueError for a placement of a picture or in a slot that does not exist."""
        by_slot(self.placements, len(self.sentences))
        for placement in self.placements:
            if not 0 <= placement.picture < len(self.candidates):
                raise ValueError(f"{placement} names none of {len(self.candidates)} candidates")

    @classmethod
    def of(
        cls,
        episode: Episode,
        placements: Iterable[Placement],
        *,
        reasoning: str = "",
        sources: Iterable[Source] = (),
    ) -> "Answer":
        """The answer that `placements` make of an episode. Raises ValueError as the constructor does."""
        return cls(
            episode.question, episode.sentences, episode.candidates, tuple(placements), reasoning, tuple(sources)
        )


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
