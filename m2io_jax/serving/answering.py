"""From a question to an answer with pictures: find the text, offer pictures, let an inserter place them."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from m2io_jax.corpus.documents import Document, PictureBlock, Question, TextBlock
from m2io_jax.corpus.pictures import PictureError, decode
from m2io_jax.corpus.store import Corpus
from m2io_jax.episodes.building import EpisodeConfig
from m2io_jax.episodes.candidates import Place, Pool, choose_distractors, context_around, picture_places, search
from m2io_jax.episodes.episode import Candidate, Episode, Placement
from m2io_jax.episodes.labels import seeded
from m2io_jax.episodes.pictures import stored_picture
from m2io_jax.episodes.sections import Draft
from m2io_jax.episodes.sentences import block_sentences
from m2io_jax.errors import UserError
from m2io_jax.retrieval.search import PassageHit, Retriever
from m2io_jax.serving.answer import Answer, Source

MAX_CANDIDATES = 8
MAX_SENTENCES = 12
MAX_PIXELS = EpisodeConfig().max_pixels
FEW_SENTENCES = 3
PASSAGES = 8
PICTURE_HITS = 24
SENTENCE_ENDS = (".", "!", "?", "…", "。", "！", "？")

# Cosine from which a written question is taken for the one that was asked.
NEARLY = 0.95

_log = logging.getLogger(__name__)

Placer = Callable[[Episode], tuple[Sequence[Placement], str]]


@dataclass(frozen=True)
class Text:
    """The text of an answer and where it is from: sentences, the document, and its blocks [start, stop)."""

    sentences: tuple[str, ...]
    document: Document
    start: int
    stop: int


class Answerer:
    """Answers questions from one corpus; what is shared by questions is made once.

    Args:
        corpus: documents, perhaps with questions whose answers are written.
        retriever: opened for this corpus.
        max_candidates: pictures offered to the inserter.
        max_sentences: of a text that is taken out of a document.
        max_pixels: larger pictures are scaled down as those of the policy's episodes were (`EpisodeConfig`).
    """

    def __init__(
        self,
        corpus: Corpus,
        retriever: Retriever,
        *,
        max_candidates: int = MAX_CANDIDATES,
        max_sentences: int = MAX_SENTENCES,
        max_pixels: int = MAX_PIXELS,
    ):
        self.corpus, self.retriever = corpus, retriever
        self.max_candidates, self.max_sentences, self.max_pixels = max_candidates, max_sentences, max_pixels
        self._pool = Pool(corpus.documents, frozenset())

    def answer(self, question: str, place: Placer) -> Answer:
        """Answers `question`; `place` returns placements and the words that led to them.

        Raises:
            UserError: an empty question, or one that no passage answers.
        """
        episode, text = self.episode(question)
        placements, reasoning = place(episode) if episode.candidates else ((), "")
        return Answer.of(
            episode, placements, reasoning=reasoning, sources=self._sources(text, episode.candidates, placements)
        )

    def episode(self, question: str) -> tuple[Episode, Text]:
        """What the inserter is given: the question with its text and candidates, and where the text is from.

        The candidates are the pictures that stand in the text's part of the document, then others of the document and
        what retrieval brings, in chance order as in training. Raises UserError as `answer` does.
        """
        question = " ".join(question.split())
        if not question:
            raise UserError("The question is empty.", mend="Ask something.")
        written = self._written(question)
        text = self._written_text(written) if written else self._extract(question)
        candidates = self._candidates(question, text)
        episode = Episode(
            id="answer",
            question=question,
            sentences=text.sentences,
            candidates=candidates,
            gold=(),
            labels=(),
            document=text.document.id,
            group=text.document.group,
        )
        return episode, text

    @cached_property
    def _questions(self) -> tuple[tuple[Question, ...], dict[str, Question], np.ndarray]:
        """Written questions with an answer: all, by their words, and as vectors."""
        known = tuple(question for question in self.corpus.questions if question.sentences)
        by_words: dict[str, Question] = {}
        for question in known:
            by_words.setdefault(_plain(question.question), question)
        vectors = self.retriever.encoder.encode([question.question for question in known]) if known else np.zeros(0)
        return known, by_words, vectors

    def _written(self, question: str) -> Question | None:
        known, by_words, vectors = self._questions
        if not known:
            return None
        if _plain(question) in by_words:
            return by_words[_plain(question)]
        likeness = vectors @ self.retriever.encoder.encode([question])[0]
        near = [known[int(i)] for i in np.flatnonzero(likeness >= NEARLY)]
        # The encoder knows the documents' words, not those of asking: "begin" and "finish" may be the same to it.
        return max(near, key=lambda other: _shared_words(question, other.question), default=None)

    def _written_text(self, question: Question) -> Text:
        document = self.corpus.document(question.document)
        return Text(question.sentences, document, 0, len(document.blocks))

    def _extract(self, question: str) -> Text:
        for hit in self.retriever.passages(question, PASSAGES):
            text = self._section(hit) if hit.score > 0 else None
            if text:
                return text
        raise UserError(
            "No passage of the corpus answers this question.",
            where=str(self.corpus.path),
            mend="Ask in words that the documents use.",
        )

    def _section(self, hit: PassageHit) -> Text | None:
        """The section around a passage; None where it has no text.

        A section of few sentences goes on into its subsections; of a long one the sentences from the passage on.
        """
        document = self.corpus.document(hit.passage.document)
        start, stop = _telling_section(document, hit.passage.start)
        said = _said(document, start, stop)
        while len(said) < FEW_SENTENCES and _level(document, stop) > _level(document, start):
            first, stop = _telling_section(document, stop)
            said += _said(document, first, stop)
        if not said:
            return None
        if len(said) > self.max_sentences:
            before = sum(position < hit.passage.start for position, _ in said)
            first = min(before, len(said) - self.max_sentences)
            said = said[first : first + self.max_sentences]
            start, stop = said[0][0], _past_pictures(document, said[-1][0] + 1, stop)
        return Text(tuple(sentence for _, sentence in said), document, start, stop)

    def _candidates(self, question: str, text: Text) -> tuple[Candidate, ...]:
        own: dict[str, Place] = {}
        for place in picture_places(text.document):
            if text.start <= place.position < text.stop:
                own.setdefault(place.block.picture, place)
        near = list(own.values())[: self.max_candidates]
        # A draft is what choosing looks at; its "gold" are the pictures that are offered already.
        draft = Draft("answer", question, text.sentences, tuple((p.position, 0) for p in near), text.document)
        random = seeded(0, "answer", question)
        (found,) = search([draft], self.retriever, self._pool, PICTURE_HITS)
        wanted = self.max_candidates - len(near)
        places = [*near, *choose_distractors(draft, wanted, pool=self._pool, found=found, random=random)]
        offered = [self._candidate(places[int(i)]) for i in random.permutation(len(places))]
        return tuple(candidate for candidate in offered if candidate)

    def _candidate(self, place: Place) -> Candidate | None:
        """The place's picture; None, with a warning, where it cannot be decoded."""
        try:
            data = self.corpus.picture(place.block.picture)
            decode(data)  # all of it: a picture may be cut short behind a good header
            data = stored_picture(data, self.max_pixels)
        except (UserError, OSError, PictureError) as error:
            _log.warning("picture %s of %s is not offered: %s", place.block.picture[:12], place.document, error)
            return None
        return Candidate(
            picture=place.block.picture,
            data=data,
            caption=place.block.caption,
            context=context_around(self.corpus.document(place.document), place.position),
            document=place.document,
            position=place.position,
            content=place.block.content,
        )

    def _sources(
        self, text: Text, candidates: Sequence[Candidate], placements: Sequence[Placement]
    ) -> tuple[Source, ...]:
        first = text.document
        sources = {first.id: Source(first.id, first.title, first.source, first.blocks[text.start].line)}
        for placement in placements:
            candidate = candidates[placement.picture]
            document = self.corpus.document(candidate.document)
            line = document.blocks[candidate.position].line
            sources.setdefault(document.id, Source(document.id, document.title, document.source, line))
        return tuple(sources.values())


def section_bounds(document: Document, position: int) -> tuple[int, int]:
    """The blocks [start, stop) from the heading at or before `position` to the next one."""
    start, stop = position, position + 1
    while start > 0 and not _is_heading(document, start):
        start -= 1
    while stop < len(document.blocks) and not _is_heading(document, stop):
        stop += 1
    return start, stop


def _said(document: Document, start: int, stop: int) -> list[tuple[int, str]]:
    """The sentences of blocks [start, stop), each with its block's position."""
    return [
        (position, sentence)
        for position in range(start, stop)
        if isinstance(block := document.blocks[position], TextBlock)
        for sentence in block_sentences(block)
    ]


def _telling_section(document: Document, position: int) -> tuple[int, int]:
    """The section at `position`; of a list of bare words (ingredients, tools) the illustrated section that needs it."""
    start, stop = section_bounds(document, position)
    if _is_bare_list(document, start, stop) and _level(document, stop) >= _level(document, start) > 0:
        after = section_bounds(document, stop)
        if _has_pictures(document, *after) and _said(document, *after):
            return after
    return start, stop


def _is_bare_list(document: Document, start: int, stop: int) -> bool:
    """Whether blocks [start, stop) are a list of words in which nothing ends as a sentence does, and no picture."""
    said = _said(document, start, stop)
    ends = any(sentence.rstrip("\"')»”’*_").endswith(SENTENCE_ENDS) for _, sentence in said)
    return bool(said) and not ends and not _has_pictures(document, start, stop)


def _has_pictures(document: Document, start: int, stop: int) -> bool:
    return any(isinstance(block, PictureBlock) for block in document.blocks[start:stop])


def _level(document: Document, position: int) -> int:
    """Depth of the heading at `position`; 0 where there is none."""
    return document.blocks[position].level if position < len(document.blocks) and _is_heading(document, position) else 0


def _is_heading(document: Document, position: int) -> bool:
    block = document.blocks[position]
    return isinstance(block, TextBlock) and block.kind == "heading"


def _past_pictures(document: Document, position: int, stop: int) -> int:
    while position < stop and isinstance(document.blocks[position], PictureBlock):
        position += 1
    return position


def _shared_words(one: str, other: str) -> float:
    """Share of the words of both questions that both have."""
    first, second = set(_plain(one).split()), set(_plain(other).split())
    return len(first & second) / max(1, len(first | second))


def _plain(question: str) -> str:
    """The question's words, without case and without marks at its end."""
    return " ".join(question.casefold().split()).rstrip("?!. ")
