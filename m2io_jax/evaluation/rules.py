"""Rules that stand beside the model in every report: they see what it sees, but no pixels, and never the gold.

`insert_all` and `insert_none` are the two ends; `insert_matching` is the benchmark's rule-based method, a bipartite
assignment between answer sentences and pictures (edge weights and thresholds are not published: ours are stated here).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment

from m2io_jax.episodes.episode import Candidate, Episode, Placement
from m2io_jax.retrieval.encoder import Encoder, TfidfEncoder

# What `fit_threshold` tries: shares of the best pair, and floors at these quantiles of all best pairs.
SHARES = np.linspace(0, 1, 21)
FLOOR_QUANTILES = np.linspace(0, 0.95, 20)


@dataclass(frozen=True)
class Threshold:
    """Which pairs of an assignment are kept: those whose similarity reaches `share` of the best pair's, and `floor`.

    A share carries over from one collection to another; a floor does not, but only a floor can abstain altogether.
    """

    share: float = 0.5
    floor: float = 0.0


@dataclass(frozen=True)
class _Pairs:
    """An episode's assignment: candidate `pictures[i]` goes to `slots[i]` with `similarity[i]` > 0."""

    slots: Int[np.ndarray, " pairs"]
    pictures: Int[np.ndarray, " pairs"]
    similarity: Float[np.ndarray, " pairs"]


def insert_none(episode: Episode) -> list[Placement]:
    """No picture."""
    return []


def insert_all(episode: Episode) -> list[Placement]:
    """Every candidate once, in document order, spread evenly over the answer.

    Document order is by document id, then position, since the rule does not know which document is the right one. The
    sentences are cut into as many equal shares as there are pictures, and each picture stands at the end of its share.
    """
    order = sorted(_different(episode.candidates), key=lambda i: _document_order(episode.candidates[i]))
    sentences = len(episode.sentences)
    return [Placement((rank + 1) * sentences // len(order), picture) for rank, picture in enumerate(order)]


def insert_matching(episode: Episode, encoder: Encoder, threshold: Threshold | None = None) -> list[Placement]:
    """Pictures after the sentences they fit, by the assignment of greatest total similarity; see `match_episodes`."""
    return match_episodes([episode], encoder, threshold)[0]


def match_episodes(
    episodes: Sequence[Episode], encoder: Encoder, threshold: Threshold | None = None
) -> list[list[Placement]]:
    """`insert_matching` for many episodes at once, ordered by slot.

    Each sentence gets at most one picture and each picture at most one sentence. The similarity is the inner product of
    the encoder's vectors of the sentence and of the picture's caption and context; pairs below `threshold` are dropped.
    """
    threshold = threshold or Threshold()
    placed = []
    for pairs in _assign(episodes, encoder):
        keep = _kept(pairs.similarity, threshold)
        chosen = zip(pairs.slots[keep].tolist(), pairs.pictures[keep].tolist(), strict=True)
        placed.append(sorted(Placement(slot, picture) for slot, picture in chosen))
    return placed


def fit_threshold(episodes: Sequence[Episode], encoder: Encoder) -> Threshold:
    """The threshold with the greatest mean picture F1 on `episodes`, which must come from the training split.

    Of equals the lowest share, then the lowest floor. The default where `episodes` is empty.
    """
    if not episodes:
        return Threshold()
    assigned = _assign(episodes, encoder)
    gold = [{_identity(episode, place.picture) for place in episode.gold} for episode in episodes]
    owner = np.repeat(np.arange(len(episodes)), [len(pairs.slots) for pairs in assigned])
    similarity = np.concatenate([pairs.similarity for pairs in assigned])
    share = np.concatenate([pairs.similarity / pairs.similarity.max(initial=1e-9) for pairs in assigned])
    right = np.concatenate(
        [
            np.array([_identity(episode, picture) in wanted for picture in pairs.pictures], bool)
            for episode, wanted, pairs in zip(episodes, gold, assigned, strict=True)
        ]
    )
    wanted = np.array([len(pictures) for pictures in gold])
    best = [pairs.similarity.max() for pairs in assigned if len(pairs.similarity)]
    floors = np.unique([0.0, *np.quantile(best, FLOOR_QUANTILES)]) if best else [0.0]
    tried = {}
    for least_share in SHARES:
        for floor in floors:
            kept = (share >= least_share) & (similarity >= floor)
            placed = np.bincount(owner[kept], minlength=len(episodes))
            hits = np.bincount(owner[kept & right], minlength=len(episodes))
            # The same F1 as `precision_recall_f1`: 1 where nothing is wanted and nothing placed.
            f1 = np.where(placed + wanted > 0, 2 * hits / np.maximum(placed + wanted, 1), 1.0)
            tried[float(least_share), float(floor)] = f1.mean()
    return Threshold(*max(tried, key=tried.__getitem__))


def fit_encoder(episodes: Iterable[Episode]) -> TfidfEncoder:
    """The embedded encoder, fitted on the words of training episodes: for a run that has no search index at hand."""
    texts: dict[str, None] = {}
    for episode in episodes:
        texts.update(dict.fromkeys(episode.sentences))
        texts.update(dict.fromkeys(_words(candidate) for candidate in episode.candidates))
    return TfidfEncoder.fit([text for text in texts if text])


def _assign(episodes: Sequence[Episode], encoder: Encoder) -> list[_Pairs]:
    # One call for all texts: encoders are far quicker in bulk.
    texts = {text for episode in episodes for text in episode.sentences}
    texts |= {_words(candidate) for episode in episodes for candidate in episode.candidates}
    row = {text: index for index, text in enumerate(sorted(text for text in texts if text.strip()))}
    vectors = np.concatenate([encoder.encode(list(row)), np.zeros((1, encoder.dim), np.float32)])
    nothing = len(row)
    assigned = []
    for episode in episodes:
        pictures = np.array(_different(episode.candidates), np.int64)
        sentences = vectors[[row.get(sentence, nothing) for sentence in episode.sentences]]
        described = vectors[[row.get(_words(episode.candidates[i]), nothing) for i in pictures]]
        similarity = sentences @ described.T
        # Negative similarities would only force bad pairs on others; they are worth as little as no pair.
        rows, columns = linear_sum_assignment(np.maximum(similarity, 0), maximize=True)
        values = similarity[rows, columns].astype(np.float64)
        positive = values > 0
        assigned.append(_Pairs(rows[positive] + 1, pictures[columns[positive]], values[positive]))
    return assigned


def _kept(similarity: Float[np.ndarray, " pairs"], threshold: Threshold) -> np.ndarray:
    best = similarity.max(initial=1e-9)
    return (similarity / best >= threshold.share) & (similarity >= threshold.floor)


def _different(candidates: Sequence[Candidate]) -> list[int]:
    """Indices of the candidates without those that repeat an earlier picture."""
    first: dict[str, int] = {}
    for index, candidate in enumerate(candidates):
        first.setdefault(candidate.picture, index)
    return list(first.values())


def _identity(episode: Episode, picture: int) -> str:
    return episode.candidates[picture].picture


def _document_order(candidate: Candidate) -> tuple[str, int]:
    return candidate.document, candidate.position


def _words(candidate: Candidate) -> str:
    # Not `content`: it says exactly what a generated picture shows.
    return " ".join(filter(None, (candidate.caption, candidate.context)))
