"""The text of an answer: a section of a document or a written answer, with the images that belong to it."""

import itertools
import logging
from bisect import bisect_right
from dataclasses import dataclass, replace

from m2io_jax.corpus.documents import Document, PictureBlock, Question, TextBlock, is_illustration
from m2io_jax.episodes.sentences import block_sentences
from m2io_jax.retrieval.words import words

FEW_SENTENCES = 3
SENTENCE_ENDS = (".", "!", "?", "…", "。", "！", "？")

# A written sentence of fewer words may stand in a document by chance ("Yes.", "Stir well.").
TELLING_WORDS = 3

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Text:
    """The text of an answer and where it is from.

    Attributes:
        sentences: the text.
        document: the document it is from.
        start, stop: the document's blocks [start, stop) that hold it; all of them for a written answer.
        images: (index of the image's block in `document`, slot) of the images that stand in this text, in reading
            order. An image that stands twice is listed twice.
        sourced: whether the images of each sentence are known, so that `images` is complete for it.
    """

    sentences: tuple[str, ...]
    document: Document
    start: int
    stop: int
    images: tuple[tuple[int, int], ...] = ()
    sourced: tuple[bool, ...] = ()

    @property
    def is_sourced(self) -> bool:
        """Whether the images of every sentence are known."""
        return bool(self.sourced) and all(self.sourced)


def section_text(document: Document, position: int, max_sentences: int) -> Text | None:
    """Return the section at block `position` as an answer; None where it has no text.

    A section of few sentences goes on into its subsections. A long one is cut to the sentences from `position` on; an
    image stays if the sentence before it stays.
    """
    start, stop = _telling_section(document, position)
    said, images = _read_blocks(document, start, stop)
    while len(said) < FEW_SENTENCES and _level(document, stop) > _level(document, start):
        first, stop = _telling_section(document, stop)
        more, shown = _read_blocks(document, first, stop)
        images += [(block, slot + len(said)) for block, slot in shown]
        said += more
    if not said:
        return None
    if len(said) > max_sentences:
        before = sum(block < position for block, _ in said)
        first = min(before, len(said) - max_sentences)
        said = said[first : first + max_sentences]
        images = [(b, slot - first) for b, slot in images if (first < slot or not first) and slot <= first + len(said)]
        start = said[0][0] if first else start
        stop = max([said[-1][0], *(block for block, _ in images)]) + 1
    sentences = tuple(sentence for _, sentence in said)
    return Text(sentences, document, start, stop, tuple(images), (True,) * len(sentences))


def written_text(question: Question, document: Document, *, has_placements: bool) -> Text:
    """Return a written answer with the images that its author placed, else with those of sentences of the document.

    A sentence that stands in the document word for word has the images that follow it there, up to the next sentence,
    and those between a heading and it.

    Args:
        question: with its written answer.
        document: that the question is about.
        has_placements: whether the authors of the corpus's answers placed images. If not, an answer without images says
            nothing about them.
    """
    text = Text(question.sentences, document, 0, len(document.blocks))
    if has_placements:
        return replace(text, images=_placed_by_author(question, document), sourced=(True,) * len(text.sentences))
    said, shown = _read_blocks(document, 0, len(document.blocks))
    at = _align(text.sentences, [sentence for _, sentence in said])
    found = {index: number for number, index in enumerate(at) if index is not None}
    are_headings = (_is_heading(document, position) for position in range(len(document.blocks)))
    section = list(itertools.accumulate(are_headings))  # of each block: the number of headings up to it
    images = []
    for block, after in shown:
        is_first = not after or section[said[after - 1][0]] < section[block]
        if after - 1 in found and not is_first:
            images.append((block, found[after - 1] + 1))
        elif after in found and is_first and section[block] == section[said[after][0]]:
            images.append((block, found[after]))
    images.sort(key=lambda pair: (pair[1], pair[0]))
    return replace(text, images=tuple(images), sourced=tuple(index is not None for index in at))


def section_bounds(document: Document, position: int) -> tuple[int, int]:
    """Return the blocks [start, stop) from the heading at or before `position` to the next one."""
    start, stop = position, position + 1
    while start > 0 and not _is_heading(document, start):
        start -= 1
    while stop < len(document.blocks) and not _is_heading(document, stop):
        stop += 1
    return start, stop


def _placed_by_author(question: Question, document: Document) -> tuple[tuple[int, int], ...]:
    places: dict[str, int] = {}
    for position, block in enumerate(document.blocks):
        if isinstance(block, PictureBlock):
            places.setdefault(block.picture, position)
    images = []
    for placed in question.pictures:
        if placed.picture in places and 0 <= placed.slot <= len(question.sentences):
            images.append((places[placed.picture], placed.slot))
        else:
            what = "picture %s of question %s is not shown: it does not stand in %s, or slot %d not in the answer"
            _log.warning(what, placed.picture[:12], question.id, document.id, placed.slot)
    return tuple(sorted(images, key=lambda pair: pair[1]))


def _align(sentences: tuple[str, ...], said: list[str]) -> list[int | None]:
    """Find the equal sentence in `said` for each sentence: the next after the last one found, else the first."""
    places: dict[str, list[int]] = {}
    for index, sentence in enumerate(said):
        places.setdefault(_plain(sentence), []).append(index)
    found: list[int | None] = []
    last = -1
    for sentence in sentences:
        equal = places.get(_plain(sentence), []) if len(words(sentence)) >= TELLING_WORDS else []
        after = bisect_right(equal, last)
        index = equal[after if after < len(equal) else 0] if equal else None
        found.append(index)
        last = last if index is None else index
    return found


def _read_blocks(document: Document, start: int, stop: int) -> tuple[list[tuple[int, str]], list[tuple[int, int]]]:
    """Return the sentences of blocks [start, stop), and their illustrations with slots, each with its block's index."""
    said: list[tuple[int, str]] = []
    images: list[tuple[int, int]] = []
    for position in range(start, stop):
        block = document.blocks[position]
        if isinstance(block, TextBlock):
            said += [(position, sentence) for sentence in block_sentences(block)]
        elif is_illustration(block):
            images.append((position, len(said)))
    return said, images


def _telling_section(document: Document, position: int) -> tuple[int, int]:
    """Return the section at `position`; of a list of bare words (ingredients) the illustrated section that needs it."""
    start, stop = section_bounds(document, position)
    if _is_bare_list(document, start, stop) and _level(document, stop) >= _level(document, start) > 0:
        after = section_bounds(document, stop)
        said, images = _read_blocks(document, *after)
        if said and images:
            return after
    return start, stop


def _is_bare_list(document: Document, start: int, stop: int) -> bool:
    """Return whether blocks [start, stop) are a list of words, with no end of a sentence and no image."""
    said, images = _read_blocks(document, start, stop)
    ends = any(sentence.rstrip("\"')»”’*_").endswith(SENTENCE_ENDS) for _, sentence in said)
    return bool(said) and not ends and not images


def _level(document: Document, position: int) -> int:
    """Return the depth of the heading at `position`; 0 where there is none."""
    return document.blocks[position].level if position < len(document.blocks) and _is_heading(document, position) else 0


def _is_heading(document: Document, position: int) -> bool:
    block = document.blocks[position]
    return isinstance(block, TextBlock) and block.kind == "heading"


def _plain(sentence: str) -> str:
    return " ".join(sentence.casefold().split())
