"""MRAMG-Bench's picture metrics (arXiv 2502.04176) and two of our own, for one question at a time.

All are pure functions of sequences of picture ids (any hashable), with values in [0, 1]; a benchmark's figure is their
mean over questions, never a ratio of pooled counts. The paper leaves the costs of the ordering score and the empty
cases open; they are those of the public re-implementation.
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

INSERT_COST = 3  # p1: a gold picture is missing
DELETE_COST = 2  # p2: an inserted picture is one too many
SUBSTITUTE_COST = 1  # p3: one stands where another should
DISTANCE_SCALE = 3  # p


class Placed(Protocol):
    """A picture in a slot, such as `m2io_jax.episodes.episode.Placement`."""

    slot: int
    picture: Hashable


@dataclass(frozen=True)
class PictureScores:
    """Scores of one question, or their means over several. In [0, 1], except where the maker says points (0 to 100)."""

    precision: float
    recall: float
    f1: float
    order: float


def picture_scores(inserted: Sequence[Hashable], gold: Sequence[Hashable]) -> PictureScores:
    """All four scores of the pictures `inserted`, in the order in which they stand, against `gold` in its order."""
    return PictureScores(*precision_recall_f1(inserted, gold), order_score(inserted, gold))


def precision_recall_f1(inserted: Iterable[Hashable], gold: Iterable[Hashable]) -> tuple[float, float, float]:
    """Precision, recall and F1 of the set of inserted pictures against the set of gold pictures.

    Both empty: 1, 1, 1. Nothing inserted: 0, 0, 0. Nothing gold but something inserted: 0, 1, 0.
    """
    placed, wanted = set(inserted), set(gold)
    if not placed:
        return (0.0, 0.0, 0.0) if wanted else (1.0, 1.0, 1.0)
    if not wanted:
        return 0.0, 1.0, 0.0
    both = len(placed & wanted)
    return both / len(placed), both / len(wanted), 2 * both / (len(placed) + len(wanted))


def order_score(inserted: Sequence[Hashable], gold: Sequence[Hashable]) -> float:
    """The image ordering score: (|A & B| / n) (1 - min(dist(A, B) / max(n, m), p) / p).

    A is `gold` of length n, B is `inserted` of length m, repeats included; A & B is the set of pictures in both; dist
    is `edit_distance`. Both empty: 1. Only one of them empty: 0.
    """
    if not inserted or not gold:
        return float(not inserted and not gold)
    share = len(set(inserted) & set(gold)) / len(gold)
    distance = edit_distance(inserted, gold) / max(len(inserted), len(gold))
    return share * (1 - min(distance, DISTANCE_SCALE) / DISTANCE_SCALE)


def edit_distance(inserted: Sequence[Hashable], gold: Sequence[Hashable]) -> int:
    """Least cost of turning `inserted` into `gold` by `INSERT_COST`, `DELETE_COST` and `SUBSTITUTE_COST`."""
    row = [DELETE_COST * length for length in range(len(inserted) + 1)]
    for wanted in gold:
        # `diagonal` is the former row's value to the left: the cost before both pictures.
        diagonal, row[0] = row[0], row[0] + INSERT_COST
        left = row[0]
        for column, placed in enumerate(inserted, 1):
            above = row[column]
            best = diagonal if placed == wanted else diagonal + SUBSTITUTE_COST
            if left + DELETE_COST < best:
                best = left + DELETE_COST
            if above + INSERT_COST < best:
                best = above + INSERT_COST
            row[column] = left = best
            diagonal = above
    return row[-1]


def reading_order(placements: Iterable[Placed]) -> list[Hashable]:
    """The pictures in the order in which a reader meets them: by slot, and as listed within one slot."""
    return [placement.picture for placement in sorted(placements, key=lambda placement: placement.slot)]


def placement_accuracy(inserted: Iterable[Placed], gold: Iterable[Placed]) -> float:
    """F1 of exact (picture, slot) pairs; 1 where there are none and none should be. Ours, not the benchmark's."""
    return precision_recall_f1(
        ((each.picture, each.slot) for each in inserted), ((each.picture, each.slot) for each in gold)
    )[2]


def abstention(inserted: Sequence[object], gold: Sequence[object]) -> float | None:
    """1 where rightly nothing was inserted, 0 where something was; None for a question that has gold pictures.

    Its mean is over questions whose gold is empty. Ours, not the benchmark's.
    """
    return None if gold else float(not inserted)
