"""What a corpus is made of: documents of text and picture blocks, in reading order, and questions about them."""

from dataclasses import dataclass, field
from typing import Literal, TypeGuard

TextKind = Literal["heading", "paragraph", "item", "code", "table"]


@dataclass(frozen=True)
class TextBlock:
    """One block of text. `line` is its first line in the source file, counted from 1; `level` is a heading's depth."""

    text: str
    line: int
    kind: TextKind = "paragraph"
    level: int = 0


@dataclass(frozen=True)
class PictureBlock:
    """One place where a picture stands.

    Attributes:
        picture: content hash of the picture's file, its key in the picture store.
        line: line of the reference in the source file, counted from 1.
        caption: alternative text or title; empty where the author gave none.
        content: what the picture shows, where it was generated and that is known exactly; else empty.
        decoration: why it illustrates nothing (an icon, a badge, an image on many pages); empty where it may.
    """

    picture: str
    line: int
    caption: str = ""
    content: str = ""
    decoration: str = ""


Block = TextBlock | PictureBlock


def is_illustration(block: Block) -> TypeGuard[PictureBlock]:
    """Whether a block is a picture that may illustrate its text: one that is no decoration."""
    return isinstance(block, PictureBlock) and not block.decoration


@dataclass(frozen=True)
class Document:
    """An ordered sequence of blocks.

    Attributes:
        id: unique in its corpus.
        title: the front matter's, else the main heading, else the name of the file or, for a README, of its folder.
        source: path of the source file relative to the imported tree.
        group: documents of one group never fall into different splits (a dish, a lesson).
    """

    id: str
    title: str
    source: str
    group: str
    blocks: tuple[Block, ...] = field(default=())


@dataclass(frozen=True)
class AnswerPicture:
    """A gold placement: `picture` (content hash) stands in `slot`.

    Slot 0 is before the first sentence, slot i after sentence i.
    """

    picture: str
    slot: int


@dataclass(frozen=True)
class Question:
    """A question about one document with its written answer and the exact places of its pictures.

    `contents` names what each sentence describes (same vocabulary as `PictureBlock.content`; empty where nothing
    drawable), so that a wrong picture that happens to show the same thing is never offered as a distractor.
    """

    id: str
    document: str
    question: str
    sentences: tuple[str, ...]
    pictures: tuple[AnswerPicture, ...]
    contents: tuple[str, ...] = ()
