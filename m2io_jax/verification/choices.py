"""Read the choices that a question lists, so that a letter and its text are one answer."""

import re

from m2io_jax.verification.canonical import canonical
from m2io_jax.verification.words import Choice, read_choice

LONGEST_QUESTION = 20_000  # characters in which choices are looked for

# Each way to mark a choice: (A), A., A), A:
_MARKS = tuple(
    re.compile(rf"(?:^|(?<=[\s;,?.:，；。？]))\**{mark}\** *", re.MULTILINE)
    for mark in (
        r"[(（](?P<letter>[A-H])[)）]",
        r"(?P<letter>[A-H])[.、．]",
        r"(?P<letter>[A-H])\)",
        r"(?P<letter>[A-H])[:：]",
    )
)


def read_choices(question: str) -> dict[str, str]:
    """Return the text of each choice by its letter; empty where a question lists none.

    Letters count from A on, each once, in order and all with the same mark; the last text ends with its line.
    """
    for pattern in _MARKS:
        marks = list(pattern.finditer(question[:LONGEST_QUESTION]))
        letters = [match["letter"] for match in marks]
        if len(marks) < 2 or letters != list("ABCDEFGH")[: len(marks)]:
            continue
        ends = [match.start() for match in marks[1:]] + [len(question)]
        texts = [question[match.end() : end].strip() for match, end in zip(marks, ends, strict=True)]
        texts[-1] = texts[-1].split("\n")[0]
        texts = [text.strip().rstrip(";,；，").strip() for text in texts]
        if all(texts):
            return dict(zip(letters, texts, strict=True))
    return {}


def with_choices(question: str, gold: str, said: str) -> tuple[str, str]:
    """Return the gold answer and the said one, comparable where one is the letter of a choice and one its text."""
    truth, answer = _bare_choice(gold), _bare_choice(said)
    if not (truth or answer) or truth and answer:
        return gold, said
    texts = read_choices(question)
    if truth:
        return (f"{truth.letter}. {texts[truth.letter]}" if truth.letter in texts else gold), said
    if read_choice(canonical(gold)):
        return gold, said
    return gold, texts.get(answer.letter, said)


def _bare_choice(answer: str) -> Choice | None:
    choice = read_choice(canonical(answer))
    return choice if choice and not choice.text else None
