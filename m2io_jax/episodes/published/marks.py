"""The places of images in a question: marks such as `<image>` in its text, or the parts of a chat's turn.

Each trainer has its own marks: `<image>` (LLaVA, TRL, verl, LLaMA-Factory, ms-swift), `<image 1>` and
`<|image_1|>` (MMMU, Phi: numbered, and an image may come again), `<|vision_start|><|image_pad|><|vision_end|>` (Qwen),
`<img><IMG_CONTEXT></img>` (InternVL), `<start_of_image>` (Gemma). Marks leave the text, so a question never needs
escaping; an episode keeps the offset of each image instead.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from m2io_jax.episodes.episode import QuestionImage
from m2io_jax.episodes.published.draft import BadRow, plain

MOST_IMAGES = 64  # of a row, and places of images in its question
MOST_MARKS = 1000  # that are looked at
MARK = re.compile(
    r"<image>(?:\./)?(?:</image>)?"
    r"|<\|vision_start\|>(?:<\|image_pad\|>)+<\|vision_end\|>"
    r"|<\|image_pad\|>|<\|image\|>"
    r"|<img>(?:<IMG_CONTEXT>)+</img>|<IMG_CONTEXT>"
    r"|<start_of_image>|<image_placeholder>|<ImageHere>"
    r"|<\|?image[ _]?(?P<number>[0-9]{1,3})\|?>"
    r"|<img>(?P<address>[^<>]{1,2000})</img>",
    re.IGNORECASE,
)
UNFILLED = re.compile(r"<(?:ref-object|bbox)>")  # ms-swift fills these from the column `objects`
OTHER_MEDIA = re.compile(r"<\|vision_start\|>(?:<\|video_pad\|>)+<\|vision_end\|>|\A\s*(?P<kind><(?:video|audio)>)")
# What a sentence that speaks of the tag `<image>` says besides: a word for tags beside the mark, another tag, or a
# language of markup with a word for tags or with the mark as its subject.
TAG_WORDS = r"(?:tag|element|token|placeholder|keyword)s?\b"
BESIDE = re.compile(rf"\b{TAG_WORDS}:?[^\w,;]*\Z", re.IGNORECASE)
BEHIND = re.compile(rf"\A[^\w\s]*\s*{TAG_WORDS}", re.IGNORECASE)
# Another tag of a list, as in "<image> or <img>". A tag around words, as in "<b>this</b>", is none.
OTHER_TAG = r"<(?!/|\|?image|answer|think)[a-zA-Z][\w-]*(?:\s[^<>]{0,100})?>(?![^<]{0,200}</)"
LIST = r"\W{0,5}(?:(?:or|and|vs|versus|as|like|not|nor|into|with|[A-J]|[a-j])\b\W{0,5}){0,2}"
TAG_BEFORE = re.compile(rf"{OTHER_TAG}{LIST}\Z", re.IGNORECASE)
TAG_BEHIND = re.compile(rf"\A{LIST}{OTHER_TAG}", re.IGNORECASE)
LANGUAGE = re.compile(r"\b(?:html5?|xhtml|xml|svg|jsx|xaml)\b", re.IGNORECASE)
SUBJECT = re.compile(r"\b(?:does|do|is|was|can|use|in (?:html5?|xhtml|xml|svg|jsx|xaml))\W*\Z", re.IGNORECASE)
# What a mark that is an image follows: "shown in <image>", "using <image>".
SHOWN = re.compile(r"\b(?:in|at|from|on|see|using|given|here is|screenshot|page|site)\W*\Z", re.IGNORECASE)
# An image in Markdown or HTML, which is not read: its row may not become a question without it.
DOCUMENT_IMAGE = re.compile(
    r"!\[[^\[\]]{0,300}\]\([^()\s]{1,300}|<(?:img|image)\s[^<>]{0,300}?(?:src|href)\s{0,9}=", re.IGNORECASE
)


@dataclass(frozen=True)
class ImagePart:
    """An image among the parts of a chat's turn. `source` is None where a column of the row holds it."""

    source: Any = None


@dataclass(frozen=True)
class Question:
    """A question without marks, and its images.

    Attributes:
        images: values that image sources are read from, in the order of the candidates.
        places: as `Episode.question_images`; empty where all stand in front.
    """

    text: str
    images: tuple[Any, ...]
    places: tuple[QuestionImage, ...]


@dataclass(frozen=True)
class _Mark:
    """A mark inside a text part. `number` is that of a numbered mark; `address` is a file it names.

    `is_word` says whether the sentence around it speaks of the tag, so that it may be no mark at all.
    """

    text: str
    number: int | None
    address: str | None
    quoted: bool
    is_word: bool


def place_images(parts: Sequence[str | ImagePart], images: Sequence[Any]) -> Question:
    """Take the marks out of a question and pair them with the images.

    Args:
        parts: text and images of the question, in reading order.
        images: values of the row's image column.

    Raises:
        BadRow: no text is left, or marks and images do not match.
    """
    pieces = list(_pieces(parts))
    if sum(isinstance(piece, _Mark) for piece in pieces) > MOST_MARKS:
        raise BadRow(f"a question with more than {MOST_MARKS} <image> marks")
    text = "".join(piece for piece in pieces if isinstance(piece, str))
    if not text.strip():
        raise BadRow("no question")
    if medium := OTHER_MEDIA.search("".join(part for part in parts if isinstance(part, str))):
        raise BadRow("a video or audio, which is not read", medium[0])
    own = [found for piece in pieces if (found := _source(piece)) is not None]
    sources = list(images) or own
    if not sources:
        _refuse_document_images(text)
    if images and own and len(images) != len(own):
        raise BadRow(f"{_images(len(own))} in the question and {len(images)} in a column", text)
    if len(sources) > MOST_IMAGES:
        raise BadRow(f"more than {MOST_IMAGES} images", f"{len(sources)}")
    return _normal(_as_text(_chosen(pieces, len(sources))), sources)


def _pieces(parts: Sequence[str | ImagePart]) -> Iterator[str | ImagePart | _Mark]:
    """Cut text parts at their marks. Two parts of text that follow each other are two lines."""
    former: str | ImagePart | None = None
    for part in parts:
        if isinstance(part, ImagePart):
            yield part
        else:
            if isinstance(former, str):
                yield "\n"
            yield from _cut(plain(part))
        former = part


def _source(piece: str | ImagePart | _Mark) -> Any:
    if isinstance(piece, ImagePart):
        return piece.source
    return piece.address if isinstance(piece, _Mark) else None


def _cut(text: str) -> Iterator[str | _Mark]:
    start = 0
    for found in islice(MARK.finditer(text), MOST_MARKS + 1):
        before, after = text[max(0, found.start() - 400) : found.start()], text[found.end() : found.end() + 400]
        yield text[start : found.start()]
        number = int(found["number"]) if found["number"] else None
        quoted = before[-1:] == after[:1] == "`"  # code, which no trainer writes marks in
        yield _Mark(found[0], number, found["address"], quoted, _is_word(before, after))
        start = found.end()
    yield text[start:]


def _refuse_document_images(text: str) -> None:
    """Raise BadRow for an image in Markdown or HTML, unless the text speaks of its code."""
    for found in islice(DOCUMENT_IMAGE.finditer(text), MOST_MARKS):
        before, after = text[max(0, found.start() - 400) : found.start()], text[found.end() : found.end() + 400]
        if before[-1:] != "`" and not _is_word(before, after):
            raise BadRow("an image in Markdown or HTML, which is not read", found[0])


def _is_word(before: str, after: str) -> bool:
    """Return whether the sentence around a mark speaks of the tag. In doubt it does not: an image is missing."""
    line = before.rpartition("\n")[2]
    if (not line.strip() and not re.match(r"\s+[a-z]", after)) or (not after.strip() and line.strip()[-1:] in ".?!:"):
        return False
    start, end = re.split(r"[.?!\n]\s", before)[-1], re.split(r"[.?!](?:\s|\Z)|\n", after)[0]
    if BESIDE.search(start) or BEHIND.search(end) or TAG_BEFORE.search(start) or TAG_BEHIND.search(end):
        return True
    if SHOWN.search(start) or not LANGUAGE.search(start + end):
        return False
    return bool(re.search(TAG_WORDS, start + end, re.IGNORECASE) or SUBJECT.search(start))


def _chosen(pieces: list[str | ImagePart | _Mark], count: int) -> list[str | ImagePart | _Mark]:
    """Choose the pieces that place the images: marks in the text, or parts of the turn. Other marks become text.

    Raises:
        BadRow: the number of marks is not the number of images, and neither is the number of parts.
    """
    marks = [piece for piece in pieces if isinstance(piece, _Mark)]
    turned = [piece for piece in pieces if isinstance(piece, ImagePart)]
    unquoted = [mark for mark in marks if not mark.quoted]
    for wanted in (marks, unquoted):
        if wanted and _fit(wanted, count) and len(turned) in (0, count):
            placed = [piece for piece in pieces if not isinstance(piece, ImagePart)]
            return placed if wanted is marks else [_worded(piece) if _is_quoted(piece) else piece for piece in placed]
        if not wanted and len(turned) in (0, count):
            return [_worded(piece) for piece in pieces]
    text = "".join(piece for piece in pieces if isinstance(piece, str))
    if not count and not turned and all(mark.is_word for mark in unquoted):
        return [_worded(piece) for piece in pieces]
    found = len(marks) or len(turned)
    if unfit := [mark.text for mark in marks if mark.number is not None]:
        said = ", ".join(dict.fromkeys(unfit))[:60]
        raise BadRow(f"marks that do not number the images: {said} and {_images(count)}", text)
    raise BadRow(f"as many images as <image> marks were expected: {_marks(found)} and {_images(count)}", text)


def _fit(marks: Sequence[_Mark], count: int) -> bool:
    """Return whether marks place so many images, each at least once."""
    numbers = [mark.number for mark in marks if mark.number is not None]
    if not numbers:
        return len(marks) == count
    first = min(1, *numbers)  # some count from 0
    return len(numbers) == len(marks) and set(numbers) == set(range(first, first + count))


def _worded(piece: str | ImagePart | _Mark) -> str | ImagePart:
    return piece.text if isinstance(piece, _Mark) else piece


def _is_quoted(piece: str | ImagePart | _Mark) -> bool:
    return isinstance(piece, _Mark) and piece.quoted


def _as_text(pieces: Sequence[str | ImagePart | _Mark]) -> tuple[str, list[QuestionImage]]:
    """Return the text of a question without its marks, and the places of its images."""
    first = min((piece.number for piece in pieces if _is_numbered(piece)), default=1)
    text, places = "", []
    for piece in pieces:
        if isinstance(piece, str):
            text += piece
        else:
            places.append(QuestionImage(len(text), piece.number - first if _is_numbered(piece) else len(places)))
    if len(places) > MOST_IMAGES:
        raise BadRow(f"more than {MOST_IMAGES} images", f"{len(places)}")
    return text, places


def _normal(placed: tuple[str, list[QuestionImage]], sources: Sequence[Any]) -> Question:
    """Strip white space around the question, and drop the places of images that all stand in front of it."""
    text, places = placed
    first, last = len(text) - len(text.lstrip()), len(text.rstrip())
    in_front = [place.picture for place in places if place.offset <= first]
    if len(in_front) == len(places) and in_front in ([], list(range(len(sources)))):
        return Question(text.strip(), tuple(sources), ())
    start, end = min(first, places[0].offset), max(last, places[-1].offset)
    kept = tuple(QuestionImage(place.offset - start, place.picture) for place in places)
    return Question(text[start:end], tuple(sources), kept)


def _is_numbered(piece: str | ImagePart | _Mark) -> bool:
    return isinstance(piece, _Mark) and piece.number is not None


def _marks(count: int) -> str:
    return "1 mark" if count == 1 else f"{count} marks"


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"
