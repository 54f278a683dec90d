"""From a corpus to answers with their pictures taken out: written questions, or the sections of any document."""

import itertools
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from m2io_jax.corpus.documents import Block, Document, PictureBlock, Question, TextBlock, is_illustration
from m2io_jax.episodes.questions import ask
from m2io_jax.episodes.sentences import block_sentences
from m2io_jax.retrieval.words import UNSPACED, words

# A section of fewer words has nothing that an image could stand after. In scripts without spaces a character counts as
# half a word; numbers and signs alone say nothing.
FEWEST_WORDS = 2
_LETTER = re.compile(r"[^\W\d_]")


@dataclass(frozen=True)
class Draft:
    """An answer before it has candidates.

    Attributes:
        gold: (index of the picture's block in the document, slot), each picture once, by slot then document order.
        contents: what the sentences describe, where that is known exactly.
        hidden: blocks of the document whose pictures must not be offered: they belong at the edge of a cut answer.
    """

    id: str
    question: str
    sentences: tuple[str, ...]
    gold: tuple[tuple[int, int], ...]
    document: Document
    contents: tuple[str, ...] = ()
    hidden: frozenset[int] = field(default=frozenset())


@dataclass(frozen=True)
class Rejected:
    """A row that makes no episode, and why."""

    id: str
    reason: str


def question_draft(question: Question, document: Document) -> Draft | Rejected:
    """A written question; its pictures are looked up in its document, the first place where they stand there."""
    if not question.sentences:
        return Rejected(question.id, "the answer has no sentence")
    places: dict[str, int] = {}
    for position, block in enumerate(document.blocks):
        if isinstance(block, PictureBlock):
            places.setdefault(block.picture, position)
    slots: dict[str, int] = {}
    for answer_picture in question.pictures:
        if answer_picture.picture not in places:
            return Rejected(question.id, "a gold picture does not stand in the document")
        if not 0 <= answer_picture.slot <= len(question.sentences):
            return Rejected(question.id, "a gold slot is outside the answer")
        slots.setdefault(answer_picture.picture, answer_picture.slot)
    gold = sorted(((places[picture], slot) for picture, slot in slots.items()), key=lambda pair: (pair[1], pair[0]))
    return Draft(question.id, question.question, question.sentences, tuple(gold), document, question.contents)


def section_drafts(document: Document, max_sentences: int) -> Iterator[Draft | Rejected]:
    """One draft for each section (a heading and what follows it), with its pictures taken out.

    A section longer than `max_sentences` is cut to the window that holds most pictures. Sections with neither text nor
    pictures are passed over; one with pictures and no text is rejected, and so are a section of a single word and one
    that no heading or title names.
    """
    start = 0
    headings: list[TextBlock] = []
    for number, stop in enumerate(_section_ends(document.blocks)):
        blocks = list(enumerate(document.blocks[start:stop], start))
        start = stop
        headings = _path(headings, blocks)
        id = f"{document.id}#{number}"
        sentences, pictures = _take_out(blocks)
        if not sentences:
            if pictures:
                yield Rejected(id, "the section has pictures and no text")
            continue
        question = ask(document.title, _heading(blocks), headings[-2].text if len(headings) > 1 else "")
        if not question:
            yield Rejected(id, "neither a title nor a heading names the section")
            continue
        if _count_words(sentences) < FEWEST_WORDS:
            yield Rejected(id, "the section's text is a single word, or none")
            continue
        first = window(len(sentences), [slot for _, slot in pictures], max_sentences)
        last = min(first + max_sentences, len(sentences))
        # A picture just before the window's first sentence illustrates a sentence that was cut off.
        gold = tuple((p, slot - first) for p, slot in pictures if (first < slot or first == 0) and slot <= last)
        kept = {position for position, _ in gold}
        yield Draft(
            id=id,
            question=question,
            sentences=tuple(sentences[first:last]),
            gold=gold,
            document=document,
            hidden=frozenset(position for position, _ in pictures if position not in kept),
        )


def window(sentences: int, slots: Sequence[int], length: int) -> int:
    """First sentence of the window of `length` that holds most of `slots`, where they are most central."""
    if sentences <= length or not slots:
        return 0
    ordered = sorted(slots)
    sums = list(itertools.accumulate(ordered, initial=0))

    def merit(first: int) -> tuple[int, float, int]:
        begin, end = bisect_right(ordered, first) if first else 0, bisect_right(ordered, first + length)
        if begin == end:
            return 0, float("-inf"), -first
        mean = (sums[end] - sums[begin]) / (end - begin)
        return end - begin, -abs(mean - (first + length / 2)), -first

    return max(range(sentences - length + 1), key=merit)


def _section_ends(blocks: Sequence[Block]) -> Iterator[int]:
    for position, block in enumerate(blocks):
        if position and isinstance(block, TextBlock) and block.kind == "heading":
            yield position
    yield len(blocks)


def _heading(blocks: Sequence[tuple[int, Block]]) -> str:
    block = blocks[0][1] if blocks else None
    return block.text if isinstance(block, TextBlock) and block.kind == "heading" else ""


def _path(headings: Sequence[TextBlock], blocks: Sequence[tuple[int, Block]]) -> list[TextBlock]:
    """Return the headings that a section stands under, outermost first; `headings` are those of the section before."""
    block = blocks[0][1] if blocks else None
    if not isinstance(block, TextBlock) or block.kind != "heading":
        return list(headings)
    return [*(each for each in headings if each.level < block.level), block]


def _count_words(sentences: Sequence[str]) -> float:
    found = [word for sentence in sentences for word in words(sentence)]
    return sum(0.5 if UNSPACED.match(word) else 1 for word in found) if any(map(_LETTER.search, found)) else 0


def _take_out(blocks: Sequence[tuple[int, Block]]) -> tuple[list[str], list[tuple[int, int]]]:
    """Return a section's sentences, and for each illustration (the first time it stands there) its block and slot."""
    sentences: list[str] = []
    pictures: dict[str, tuple[int, int]] = {}
    for position, block in blocks:
        if is_illustration(block):
            pictures.setdefault(block.picture, (position, len(sentences)))
        elif isinstance(block, TextBlock):
            sentences.extend(block_sentences(block))
    return sentences, list(pictures.values())
