r"""Solutions: the answer of a row, and the reasoning that leads to it.

    <think> 2 and 3 make 5. </think> <answer> 5 </answer>     R1-V, open-r1, ms-swift
    2 and 3 make 5. <a new line> #### 5                       GSM8K
    2 and 3 make \boxed{5}.                                   MATH, DeepScaleR
    2 and 3 make 5. The answer is 5.
"""

import re
from dataclasses import dataclass, replace
from decimal import Decimal
from math import isfinite
from typing import Any

import numpy as np

from m2io_jax.episodes.published.draft import BadRow, plain
from m2io_jax.verification.answers import equal
from m2io_jax.verification.pool import Unverified

ANSWER_TAG = re.compile(r"<(?P<close>/?)(?:answer|conclusion)>", re.IGNORECASE)
THINK_TAG = re.compile(r"<(?P<close>/?)(?:think|thinking|thought|reasoning)>", re.IGNORECASE)
HASHES = re.compile(r"^[ \t]*####(?P<answer>[^\n]+)$", re.MULTILINE)
CALCULATED = re.compile(r"<<[^<>\n]{0,200}>>")  # GSM8K's notes to a calculator
LAST_LINE = re.compile(
    r"(?:\A|(?<=[\s*]))(?:the )?(?:final |correct )?answer(?:\*\*)?(?: is\b:?|\s*:)(?:\*\*)?"
    r"\s+(?P<answer>\S[^\n]{0,59}?)\.?\s*\Z",
    re.IGNORECASE,
)
BOX = r"\boxed{"
NOT_MATCHED = "its reasoning, whose <think> tags do not match"
UNREAD = "its second solution, whose tags do not match"
SHORT = 4  # words: what is shorter is no reasoning
BEHIND = "the text behind its answer"
# Words of a sentence around numbers: an answer such as "5, not 6" or "between 5 and 6" is none to compare with.
SENTENCE = re.compile(
    r"\b(?:is|are|was|were|has|have|not|because|since|that|we|you|there|if|then|when|so|therefore|thus|between|either)\b",
    re.IGNORECASE,
)
MATHS = re.compile(r"\$[^$]*\$|\\text\{[^{}]*\}|\\[a-zA-Z]+")
MOST_WORDS = 6  # of an answer with numbers: "5 cubic metres per second"
PLAIN = re.compile(r"[-+]?[0-9][0-9,]*(?:\.[0-9]+)?|[A-Za-z]")


@dataclass(frozen=True)
class Solution:
    """An answer and how one comes to it.

    Attributes:
        worked: whether the text around the answer was separated from it.
        notes: names of the parts of the text that are not kept.
    """

    answer: str
    reasoning: str = ""
    worked: bool = False
    notes: tuple[str, ...] = ()


def answer_text(value: Any) -> str:
    """Return the text of a column that holds an answer: text, a finite number, or one of these alone in a list.

    Raises:
        BadRow: it holds several, or a value of another kind.
    """
    if isinstance(value, list | tuple):
        if len(value) > 1:
            raise BadRow("several answers", str(value)[:300])
        value = value[0] if value else None
    if isinstance(value, str):
        return plain(value).strip()
    is_number = isinstance(value, int) and not isinstance(value, bool)
    is_number = is_number or isinstance(value, float | Decimal) and isfinite(value)
    if not is_number and value is not None:
        raise BadRow("no answer", f"{type(value).__name__} is neither text nor a number")
    return _format_number(value) if is_number else ""


def _format_number(number: int | float | Decimal) -> str:
    """Return a number as it was meant: 0.1 in a column of single precision is 0.10000000149011612 in Python."""
    if isinstance(number, float) and abs(number) < 1e30 and float(single := np.float32(number)) == number:
        return str(single)
    return f"{number}"


def read_solution(text: str) -> Solution:
    """Separate the answer of a solution from the reasoning around it.

    Raises:
        BadRow: it has several answers, or a tag of an answer without its other half.
    """
    tags = list(ANSWER_TAG.finditer(text))
    if not tags:
        return _untagged(text)
    closes = [bool(tag["close"]) for tag in tags]
    if closes != [False, True]:
        halves = [tag[0].lower() for tag in tags]
        several = len(tags) > 2 and closes == [False, True] * (len(tags) // 2)
        raise BadRow("several answers" if several else "answer tags that do not match", " ".join(halves[:10]))
    before, answer, after = text[: tags[0].start()], text[tags[0].end() : tags[1].start()], text[tags[1].end() :]
    reasoning, notes = _reasoning(before)
    if THINK_TAG.search(answer):
        raise BadRow("answer tags that do not match", "a <think> tag inside of the answer")
    notes += (BEHIND,) if after.strip() else ()
    return Solution(answer.strip(), reasoning, True, notes)


def with_reasoning(found: Solution, text: str) -> Solution:
    """Add the reasoning of a second text, which holds a solution of the same problem or the reasoning alone.

    Raises:
        BadRow: the two answers surely differ.
    """
    try:
        other = read_solution(text)
    except BadRow:
        return replace(found, notes=(*found.notes, UNREAD))
    if differ(found.answer, other.answer):
        raise BadRow("two answers that differ", f"{found.answer[:100]} and {other.answer[:100]}")
    if found.reasoning:
        return found
    is_answer = len(text.split()) < SHORT
    reasoning = other.reasoning if other.worked else "" if is_answer else other.answer
    reasoning, notes = _reasoning(reasoning)
    return replace(found, reasoning=reasoning, notes=(*found.notes, *other.notes, *notes))


def is_sentence(answer: str) -> bool:
    """Return whether an answer is a sentence around numbers or choices, which no verifier can compare."""
    text = MATHS.sub(" ", answer[:2000])
    words = re.findall(r"[A-Za-z]{2,}", text)
    is_mixed = re.search(r"[0-9$()=]", answer) is not None
    return is_mixed and (len(words) > MOST_WORDS or SENTENCE.search(text) is not None)


def differ(one: str, other: str) -> bool:
    """Return whether two answers are surely not the same: numbers or letters that the verifier tells apart."""
    one, other = one.strip().strip("$().").strip(), other.strip().strip("$().").strip()
    if not (PLAIN.fullmatch(one) and PLAIN.fullmatch(other)) or one.isalpha() != other.isalpha():
        return False
    if one.isalpha():
        return one.casefold() != other.casefold()
    try:
        return not equal(one, other)
    except Unverified:
        return False


def _untagged(text: str) -> Solution:
    thought, notes, rest = "", (), text
    ends = [tag for tag in THINK_TAG.finditer(text) if tag["close"]]
    if ends:
        (thought, notes), rest = _reasoning(text[: ends[-1].end()]), text[ends[-1].end() :]
    for read in (_hashed, _boxed, _last_line):
        found = read(rest)
        if found is not None:
            answer, said = found
            reasoning = "\n".join(filter(None, (thought, said.strip())))
            return Solution(answer.strip(), reasoning, True, notes)
    if THINK_TAG.search(rest):
        raise BadRow("an answer with half a <think> tag", text)
    return Solution(rest.strip(), thought, bool(ends), notes)


def _hashed(text: str) -> tuple[str, str] | None:
    found = list(HASHES.finditer(text))
    # Headings of Markdown are written so too: only a line at the end can be an answer.
    if not found or text[found[-1].end() :].strip():
        return None
    return found[-1]["answer"], CALCULATED.sub("", text[: found[-1].start()])


def _boxed(text: str) -> tuple[str, str] | None:
    """Return the content of the one box in worked text. A box that is all of the text is no worked solution."""
    boxes = _boxes(text)
    if not boxes:
        return None
    if len({"".join(box.split()) for box in boxes}) > 1:
        raise BadRow("several answers", " ".join(BOX + box + "}" for box in boxes[:10]))
    around = text.replace(BOX + boxes[0] + "}", "")
    return (boxes[0], text) if re.search(r"[^\s$.\\\[\]()*]", around) else None


def _boxes(text: str) -> list[str]:
    boxes, start = [], text.find(BOX)
    while start >= 0:
        depth, end = 1, start + len(BOX)
        while end < len(text) and depth:
            depth += (text[end] == "{") - (text[end] == "}")
            end += 1
        if depth:
            break
        boxes.append(text[start + len(BOX) : end - 1])
        start = text.find(BOX, end)
    return boxes


def _last_line(text: str) -> tuple[str, str] | None:
    head, _, line = text.strip().rpartition("\n")
    found = LAST_LINE.search(line[-300:])
    if not found:
        return None
    before = line[: len(line) - len(found[0])] if len(found[0]) < len(line) else ""
    return found["answer"].strip("* "), f"{head}\n{before}".strip().removesuffix("**").strip()


def _reasoning(text: str) -> tuple[str, tuple[str, ...]]:
    """Return the reasoning inside and around one think block; none, with a note, where its tags do not match."""
    closes = [bool(tag["close"]) for tag in THINK_TAG.finditer(text)]
    # A template that opens the block by itself leaves its closing tag alone.
    if closes not in ([], [True], [False, True]):
        return "", (NOT_MATCHED,)
    lines = (line.strip() for line in THINK_TAG.sub("\n", text).splitlines())
    return "\n".join(line for line in lines if line), ()
