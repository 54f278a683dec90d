"""MRAMG-Bench's gold pictures, and what the simplest rules reach on them with perfect retrieval.

The file has one JSON object a line: `subset`, `qid`, `gold` (picture ids in gold order) and `cands` (the gold
documents' pictures in document order, each with its `id` and `score`, a cross-encoder's for the question). Ids are text
or whole numbers, and repeat among candidates.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from m2io_jax.errors import UserError
from m2io_jax.files import read_json_lines
from m2io_jax.picture_metrics import PictureScores, picture_scores

# Domains of several subsets; their figures are means over questions, so that a subset counts by its size.
DOMAINS = {"lifestyle": ("recipe", "manual"), "web_domain": ("wit", "wiki", "web")}


@dataclass(frozen=True)
class GoldQuestion:
    """A question's gold pictures in gold order and its candidates in document order, repeats included.

    `scores[i]` says how well candidate i fits the question; greater is better.
    """

    subset: str
    id: str
    gold: tuple[str, ...]
    candidates: tuple[str, ...]
    scores: tuple[float, ...]


def insert_all(question: GoldQuestion) -> list[str]:
    """All candidates in document order, repeats dropped."""
    return list(dict.fromkeys(question.candidates))


def insert_none(question: GoldQuestion) -> list[str]:
    """Nothing."""
    return []


def insert_best(question: GoldQuestion) -> list[str]:
    """The candidate with the highest score, the first of equals; nothing where there is no candidate."""
    if not question.candidates:
        return []
    return [question.candidates[question.scores.index(max(question.scores))]]


RULES: dict[str, Callable[[GoldQuestion], list[str]]] = {"all": insert_all, "none": insert_none, "best": insert_best}


def evaluate_rules(path: str | Path) -> dict[str, dict[str, dict[str, float]]]:
    """Means of every rule on every subset and domain of the gold file at `path`, in points from 0 to 100.

    Returns:
        {rule: {subset or domain: {precision, recall, f1, order}}}; a domain is there if one of its subsets is.

    Raises:
        UserError: as `read_gold` does.
    """
    questions = list(read_gold(path))
    results = {}
    for name, rule in RULES.items():
        scores = defaultdict(list)
        for question in questions:
            scores[question.subset].append(picture_scores(rule(question), question.gold))
        for domain, subsets in DOMAINS.items():
            if members := [score for subset in subsets for score in scores.get(subset, ())]:
                scores[domain] = members
        results[name] = {subset: _points(each) for subset, each in scores.items()}
    return results


def read_gold(path: str | Path) -> Iterator[GoldQuestion]:
    """Reads the gold file at `path`.

    Raises:
        UserError: the file cannot be read, is empty, or a line is damaged (named by its number): a mean over the rest
            would not be the benchmark's.
    """
    question, mend = None, "Take an undamaged copy of the file."
    try:
        for question in read_json_lines(path, _question, what="a gold question", mend=mend):
            yield question
    except OSError as error:
        what = f"The gold file cannot be read: {error.strerror}."
        raise UserError(what, where=str(path), mend="Check the path.") from error
    if question is None:
        raise UserError("The gold file is empty.", where=str(path), mend=mend)


def _question(row: Any) -> GoldQuestion:
    if not isinstance(row, dict):
        raise TypeError("it is not a JSON object")
    for key in ("gold", "cands"):
        if not isinstance(row[key], list):
            raise TypeError(f"{key} must be a list")
    subset = _id("subset", row["subset"])
    if subset in DOMAINS:
        raise ValueError(f"subset {subset!r} is the name of a domain")
    return GoldQuestion(
        subset=subset,
        id=_id("qid", row["qid"]),
        gold=tuple(_id("gold", id) for id in row["gold"]),
        candidates=tuple(_id("cands[].id", candidate["id"]) for candidate in row["cands"]),
        scores=tuple(_score(candidate["score"]) for candidate in row["cands"]),
    )


def _id(key: str, value: Any) -> str:
    """Ids as text, so that 7 and "7" name the same picture."""
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise TypeError(f"{key} must be text or a whole number, got {value!r}")
    return str(value)


def _score(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(f"cands[].score must be a finite number, got {value!r}")
    return float(value)


def _points(scores: Iterable[PictureScores]) -> dict[str, float]:
    columns = zip(*map(astuple, scores), strict=True)
    means = (100 * math.fsum(column) / len(column) for column in columns)
    return dict(zip(("precision", "recall", "f1", "order"), means, strict=True))
