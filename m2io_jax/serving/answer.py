"""An answer with its pictures: what a reader gets, before it is written as Markdown, HTML or JSON."""

from collections.abc import Iterable
from dataclasses import dataclass

from m2io_jax.episodes.episode import Candidate, Episode, Placement
from m2io_jax.episodes.reading import by_slot


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
