"""One unit of work: a question with pictures, and where they belong in an answer's sentences, or what the answer is."""

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Placement:
    """`picture` is an index into the episode's candidates, from 0.

    Slot 0 is before the first sentence, slot i after sentence i.
    """

    slot: int
    picture: int


@dataclass(frozen=True, order=True)
class QuestionImage:
    """The place of an image inside a question.

    Attributes:
        offset: the image stands before this character of the question; the question's length is its end.
        picture: index into the episode's candidates, from 0.
    """

    offset: int
    picture: int


@dataclass(frozen=True)
class Candidate:
    """A picture that may be placed.

    Attributes:
        picture: content hash.
        data: the encoded picture file (PNG, JPEG, GIF or WebP bytes).
        caption: the author's words for it, often empty.
        context: text that stands around it in its own document.
        document: id of the document it comes from.
        position: index of its block in that document (document order).
        content: exact description where the picture was generated; else empty.
    """

    picture: str
    data: bytes
    caption: str = ""
    context: str = ""
    document: str = ""
    position: int = 0
    content: str = ""


@dataclass(frozen=True)
class Episode:
    """A question with its answer and candidates.

    An episode of the inserter has sentences and no `answer`; one of a verified task has an `answer`, pictures or none
    as its candidates, and no sentences.

    Attributes:
        sentences: the answer, never changed by the inserter.
        gold: exact placements, ordered by slot: what rewards and evaluation look at.
        labels: placements that supervision learns from; equal to gold unless made imperfect on purpose.
        document: id of the gold document; group: its split unit.
        answer: what a verified task asks for: a number, an expression, a word.
        reasoning: how one comes to it, in short lines that supervision teaches; empty where nobody wrote it.
        question_images: where the images of a verified task stand in its question, in reading order. An image may
            stand there more than once. Empty: all of them stand in front of it.
    """

    id: str
    question: str
    sentences: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    gold: tuple[Placement, ...]
    labels: tuple[Placement, ...]
    document: str = ""
    group: str = ""
    answer: str = ""
    reasoning: str = ""
    question_images: tuple[QuestionImage, ...] = ()
