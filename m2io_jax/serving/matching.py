"""The matching rule of a corpus: images go to the sentences that say what their captions say, and most go nowhere.

The rule is calibrated on the corpus it answers from. Its sections and written answers are episodes whose images are
known, so the similarity that separates right images from wrong ones can be read from them. Where even the most similar
images of the sample are wrong, nothing of that kind is placed.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment

from m2io_jax.corpus.store import Corpus
from m2io_jax.episodes.candidates import Place, Pool, choose_distractors, context_around, search
from m2io_jax.episodes.episode import Candidate, Episode, Placement
from m2io_jax.episodes.labels import seeded
from m2io_jax.episodes.sections import Draft, question_draft, section_drafts
from m2io_jax.episodes.sentences import split_sentences
from m2io_jax.retrieval.encoder import Encoder
from m2io_jax.retrieval.search import Retriever
from m2io_jax.retrieval.words import content_words

# Share of the placed images of the sample that have to be right. One wrong image is added, so that few cannot prove it.
PRECISION = 0.6
SAMPLE = 400  # sections, and as many written answers
SAMPLE_SENTENCES = 12
PICTURE_HITS = 24
LEAST = 1e-3  # below this, a similarity is rounding

# How a candidate is known: whether it is of the answer's own document, and whether it has a caption.
Kind = tuple[bool, bool]


@dataclass(frozen=True)
class Match:
    """One candidate of an assignment with the sentence it fits best, and how well."""

    slot: int
    candidate: int
    kind: Kind
    similarity: float


@dataclass(frozen=True)
class Floors:
    """The least similarity at which candidates of each kind are placed. A kind that is not listed is never placed."""

    by_kind: Mapping[Kind, float] = field(default_factory=dict)

    def keeps(self, match: Match) -> bool:
        """Return whether the candidate is placed."""
        return match.similarity >= self.by_kind.get(match.kind, np.inf)


class CorpusMatcher:
    """The matching rule with floors calibrated on one corpus; callable as a `Placer`.

    Args:
        corpus: the documents that are answered from.
        retriever: opened for this corpus.
        max_candidates: images offered with an answer.
    """

    def __init__(self, corpus: Corpus, retriever: Retriever, *, max_candidates: int):
        self.corpus, self.retriever, self.max_candidates = corpus, retriever, max_candidates

    def __call__(self, episode: Episode) -> tuple[list[Placement], str]:
        """Return the placements of one episode, and no reasoning."""
        (matches,) = match_captions([episode], self.retriever.encoder)
        return [Placement(match.slot, match.candidate) for match in matches if self.floors.keeps(match)], ""

    @cached_property
    def floors(self) -> Floors:
        """Calibrate the floors, once."""
        pool = Pool(self.corpus.documents, frozenset())
        drafts = [*itertools.islice(self._sections(), SAMPLE), *itertools.islice(self._written(), SAMPLE)]
        found = search(drafts, self.retriever, pool, PICTURE_HITS)
        sample = [self._episode(*pair, pool) for pair in zip(drafts, found, strict=True)]
        return fit_floors(sample, match_captions(sample, self.retriever.encoder))

    def _sections(self) -> Iterator[Draft]:
        documents = self.corpus.documents
        for index in seeded(0, "match", "sections").permutation(len(documents)):
            for draft in section_drafts(documents[int(index)], SAMPLE_SENTENCES):
                if isinstance(draft, Draft):
                    yield draft

    def _written(self) -> Iterator[Draft]:
        documents = {document.id: document for document in self.corpus.documents}
        questions = self.corpus.questions
        for index in seeded(0, "match", "written").permutation(len(questions)):
            question = questions[int(index)]
            # A written answer without images may be one whose images nobody has placed.
            if question.pictures and question.document in documents:
                draft = question_draft(question, documents[question.document])
                if isinstance(draft, Draft):
                    yield draft

    def _episode(self, draft: Draft, found: Sequence[Sequence[Place]], pool: Pool) -> Episode:
        gold = [Place(draft.document.id, p, draft.document.blocks[p]) for p, _ in draft.gold]
        random = seeded(0, "match", draft.id)
        wanted = self.max_candidates - len(gold)
        places = [*gold, *choose_distractors(draft, wanted, pool=pool, found=found, random=random)]
        candidates = [
            Candidate(
                picture=place.block.picture,
                data=b"",  # the rule reads words alone
                caption=place.block.caption,
                context=context_around(self.corpus.document(place.document), place.position),
                document=place.document,
                position=place.position,
            )
            for place in places
        ]
        return Episode(
            id=draft.id,
            question=draft.question,
            sentences=draft.sentences,
            candidates=tuple(candidates),
            gold=tuple(Placement(slot, index) for index, (_, slot) in enumerate(draft.gold)),
            labels=(),
            document=draft.document.id,
        )


def fit_floors(episodes: Sequence[Episode], matches: Sequence[Sequence[Match]]) -> Floors:
    """Return for each kind the lowest floor at which `PRECISION` of the images placed in the sample are right.

    Where there is none, the floor is halfway between the most similar wrong image and the greatest similarity, 1.

    Args:
        episodes: with gold placements.
        matches: of each episode, by `match_captions`.
    """
    seen: dict[Kind, list[tuple[float, bool]]] = {}
    for episode, each in zip(episodes, matches, strict=True):
        gold = {episode.candidates[placement.picture].picture for placement in episode.gold}
        for match in each:
            is_right = episode.candidates[match.candidate].picture in gold
            seen.setdefault(match.kind, []).append((match.similarity, is_right))
    return Floors({kind: _floor(sorted(values, reverse=True)) for kind, values in seen.items()})


def match_captions(episodes: Sequence[Episode], encoder: Encoder) -> list[list[Match]]:
    """Return for each episode the assignment of candidates to sentences with the greatest total similarity.

    A sentence gets at most one image and an image at most one sentence. The similarity is that of the sentence's
    content words and of the words that describe the image (`description`); an image without words is never assigned.
    """
    described = [[description(each, episode.sentences) for each in episode.candidates] for episode in episodes]
    said = [[content_words(sentence) for sentence in episode.sentences] for episode in episodes]
    texts = sorted({text for each in (*described, *said) for text in each if text.strip()})
    row = {text: index for index, text in enumerate(texts)}
    # One call for all texts: encoders are far quicker in bulk. The last row is that of a text without words.
    vectors = np.concatenate([encoder.encode(texts), np.zeros((1, encoder.dim), np.float32)])

    def rows(each: Sequence[str]) -> Float[np.ndarray, "texts dim"]:
        return vectors[[row.get(text, len(texts)) for text in each]]

    return [
        _assign(episode, rows(sentences) @ rows(words).T)
        for episode, sentences, words in zip(episodes, said, described, strict=True)
    ]


def description(candidate: Candidate, sentences: Sequence[str]) -> str:
    """Return the content words of a candidate's caption, or of its context where it has none.

    Of the context, what the sentences themselves say is left out: an answer that is taken from a document stands beside
    that document's images, whatever these show.
    """
    if candidate.caption.strip():
        return content_words(candidate.caption)
    context = candidate.context
    for sentence in sentences:
        context = context.replace(" ".join(sentence.split()), "\n") if sentence.strip() else context
    # The context is cut off at some word, so a sentence may be there in part.
    pieces = (piece for line in context.replace("[…]", "\n").split("\n") for piece in split_sentences(line))
    plain = [" ".join(sentence.split()) for sentence in sentences]
    return content_words(" ".join(piece for piece in pieces if not any(piece in sentence for sentence in plain)))


def _assign(episode: Episode, similarity: Float[np.ndarray, "sentences candidates"]) -> list[Match]:
    # Negative similarities would only force bad pairs on others; they are worth as little as no pair.
    chosen = linear_sum_assignment(np.maximum(similarity, 0), maximize=True)
    return [
        Match(int(row) + 1, int(column), _kind(episode, episode.candidates[column]), float(similarity[row, column]))
        for row, column in zip(*chosen, strict=True)
        if similarity[row, column] > LEAST
    ]


def _kind(episode: Episode, candidate: Candidate) -> Kind:
    return candidate.document == episode.document, bool(candidate.caption.strip())


def _floor(values: Sequence[tuple[float, bool]]) -> float:
    """Return the floor of (similarity, is right) pairs, greatest similarity first."""
    right = np.cumsum([is_right for _, is_right in values])
    enough = np.flatnonzero(right >= PRECISION * (np.arange(len(values)) + 2))
    if len(enough):
        return values[enough[-1]][0]
    return max(((1 + similarity) / 2 for similarity, is_right in values if not is_right), default=np.inf)
