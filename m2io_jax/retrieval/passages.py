"""What retrieval looks for: passages of text, and pictures as the words that stand around them.

A passage is the text of consecutive blocks under one heading. A picture is described by its caption and by the text
just around its place, as in IKAT (about 400 characters before it and 130 after it find a picture well, even without a
caption). `PictureBlock.content`, what a generated picture shows, is never used: it is the answer to the task.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from m2io_jax.corpus.documents import Document, TextBlock, is_illustration

PASSAGE_WORDS = 120
BEFORE_CHARACTERS = 400
AFTER_CHARACTERS = 130

# How much each part of a picture's description counts in its vector. The author's own words for the picture say most,
# then the text that leads up to it; headings and titles are shared by many pictures and only break ties.
PART_WEIGHTS = {"caption": 1.0, "before": 0.8, "after": 0.4, "section": 0.4, "title": 0.3}


@dataclass(frozen=True)
class Passage:
    """Text of `Document.blocks[start:stop]` under the headings `section` (outermost first), which `text` leaves out.

    The range includes the pictures that stand in it. A block of more than `PASSAGE_WORDS` words is cut into several
    passages with the same range.
    """

    document: str
    start: int
    stop: int
    section: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class PicturePlace:
    """One place where a picture stands: block `position` of `document`, and the words that describe it.

    `before` and `after` never reach into another section; any part can be empty.
    """

    picture: str
    document: str
    position: int
    caption: str
    before: str
    after: str
    section: str
    title: str


def cut_passages(document: Document) -> list[Passage]:
    """Passages of a document in reading order. Every block lies in one, except pictures that stand before all text."""
    passages: list[Passage] = []
    for section, start, stop in _sections(document):
        passages.extend(_cut_section(document, section, start, stop))
    return passages


def picture_places(document: Document) -> list[PicturePlace]:
    """Return every place of every illustration of a document, in reading order."""
    places = []
    for section, start, stop in _sections(document):
        for position in range(start, stop):
            block = document.blocks[position]
            if is_illustration(block):
                before = " ".join(_texts(document, start, position))
                after = " ".join(_texts(document, position + 1, stop))
                places.append(
                    PicturePlace(
                        picture=block.picture,
                        document=document.id,
                        position=position,
                        caption=block.caption,
                        before=_last_words(before, BEFORE_CHARACTERS),
                        after=_first_words(after, AFTER_CHARACTERS),
                        section=" ".join(section),
                        title=document.title,
                    )
                )
    return places


def _sections(document: Document) -> Iterator[tuple[tuple[str, ...], int, int]]:
    """Yields (heading path, start, stop): ranges that cover the document, each beginning with its heading if any."""
    path: list[tuple[int, str]] = []
    start = 0
    for index, block in enumerate(document.blocks):
        if isinstance(block, TextBlock) and block.kind == "heading":
            if index > start:
                yield tuple(text for _, text in path), start, index
            path = [(level, text) for level, text in path if level < block.level] + [(block.level, block.text)]
            start = index
    if len(document.blocks) > start:
        yield tuple(text for _, text in path), start, len(document.blocks)


def _cut_section(document: Document, section: tuple[str, ...], start: int, stop: int) -> Iterator[Passage]:
    """Fills passages greedily: a block that would take one past the limit begins the next."""
    begin, words = start, list[str]()
    for index in range(start, stop):
        block = document.blocks[index]
        if not isinstance(block, TextBlock) or block.kind == "heading":
            continue
        more = block.text.split()
        if words and len(words) + len(more) > PASSAGE_WORDS:
            yield from _split(document, section, begin, index, words)
            begin, words = index, []
        words += more
    # A heading without text still says what it is about; pictures before all text have no words to be found by.
    if words or (begin == start and section):
        yield from _split(document, section, begin, stop, words)


def _split(document: Document, section: tuple[str, ...], start: int, stop: int, words: list[str]) -> Iterator[Passage]:
    for offset in range(0, max(1, len(words)), PASSAGE_WORDS):
        yield Passage(document.id, start, stop, section, " ".join(words[offset : offset + PASSAGE_WORDS]))


def _texts(document: Document, start: int, stop: int) -> list[str]:
    # The heading itself is left out: it has its own part and its own weight.
    blocks = document.blocks[start:stop]
    return [block.text for block in blocks if isinstance(block, TextBlock) and block.kind != "heading"]


def _last_words(text: str, characters: int) -> str:
    """At most the last `characters` characters, beginning at a word."""
    if len(text) <= characters:
        return text
    return text[-characters - 1 :].partition(" ")[2] or text[-characters:]


def _first_words(text: str, characters: int) -> str:
    """At most the first `characters` characters, ending at a word."""
    if len(text) <= characters:
        return text
    return text[: characters + 1].rpartition(" ")[0] or text[:characters]
