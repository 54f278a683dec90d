"""Choices of a question in columns of their own, which are not read: an answer by letter or number needs them."""

import ast
import re
import warnings
from collections.abc import Mapping
from contextlib import suppress
from string import ascii_uppercase
from typing import Any

from m2io_jax.episodes.published.draft import BadRow

NAMES = ("options", "choices", "candidates", "answer_choices", "multiple_choices")
LETTERS = ascii_uppercase
PREFIXES = ("", "option_", "choice_", "option", "choice")
MOST_CHARACTERS = 20_000  # of choices in a string
MOST_SAID = 100  # choices that the question is searched for
LETTERED = re.compile(r"^[ \t]*\(?[A-Z][.):][ \t]*(\S.*)$", re.MULTILINE)  # choices as lines of text
ANSWER_WORDS = re.compile(r"\A(?:option|choice|answer)\b", re.IGNORECASE)


def refuse_unread_choices(values: Mapping[str, Any], question: str, answer: str, value: Any = None) -> None:
    """Raise BadRow where the answer is the letter or the number of a choice that the question does not say.

    Args:
        question: text of the question.
        answer: text of the answer. value: as the row holds it. An integer beside choices in text is a number of one.
    """
    for name, known in _choices(values).items():
        bare = ANSWER_WORDS.sub("", answer).strip("() .:").upper()
        is_number = type(value) is int and not any(isinstance(each, int | float) for each in known)
        texts = [str(each).strip() for each in known]
        if answer in texts and not is_number:
            continue
        if len(bare) == 1 and bare in LETTERS[: len(texts)]:
            last = LETTERS[: len(texts)][-1]
            if not all(text in question for text in texts[:MOST_SAID]) or not re.search(rf"\b{last}\b", question):
                raise BadRow(f"choices in a column that is not read: {name}", ", ".join(texts[:MOST_SAID]))
        elif len(bare) <= 2 and bare.isdecimal() and int(bare) <= len(texts):
            raise BadRow(f"choices in a column that is not read: {name}", f"{answer} of {', '.join(texts[:MOST_SAID])}")


def _choices(values: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return the choices of a row by column: in one column, or in columns A, B, ... (MMBench), option_a, ..."""
    found = {name: _listed(values.get(name)) for name in NAMES}
    folded = {str(name).lower(): name for name in values}
    for prefix in PREFIXES:
        names = [folded.get(prefix + letter.lower()) for letter in LETTERS]
        if names[0] is not None and names[1] is not None:
            found[f"{names[0]}, {names[1]}, ..."] = [values[name] for name in names if name is not None]
    texts = {name: [each for each in known if _is_choice(each)] for name, known in found.items()}
    return {name: known for name, known in texts.items() if known}


def _listed(value: Any) -> list[Any]:
    """Return the choices of a column: a list, a list in a string (MMMU), lettered lines, or a dictionary (ARC)."""
    if isinstance(value, str) and len(value) < MOST_CHARACTERS:
        if not value.lstrip().startswith(("[", "{")):
            return LETTERED.findall(value)
        with warnings.catch_warnings(), suppress(ValueError, SyntaxError, MemoryError, RecursionError):
            warnings.simplefilter("ignore")  # of Python, about backslashes in LaTeX
            value = ast.literal_eval(value.strip())
    if isinstance(value, Mapping):
        texts = value.get("text")
        value = texts if isinstance(texts, list) else list(value.values())
    return value if isinstance(value, list) else []


def _is_choice(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number or isinstance(value, str) and bool(value.strip())
