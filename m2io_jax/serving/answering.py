"""From a question to an answer with images: find the text, keep its own images, let an inserter place others."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from m2io_jax.corpus.documents import Question
from m2io_jax.corpus.pictures import PictureError, decode
from m2io_jax.corpus.store import Corpus
from m2io_jax.episodes.building import EpisodeConfig
from m2io_jax.episodes.candidates import Place, Pool, choose_distractors, context_around, picture_places, search
from m2io_jax.episodes.episode import Candidate, Episode, Placement
from m2io_jax.episodes.labels import seeded
from m2io_jax.episodes.pictures import stored_picture
from m2io_jax.episodes.sections import Draft
from m2io_jax.errors import UserError
from m2io_jax.retrieval.search import Retriever
from m2io_jax.serving.answer import Answer, Source
from m2io_jax.serving.text import Text, section_text, written_text

MAX_CANDIDATES = 8
MAX_SENTENCES = 12
MAX_PIXELS = EpisodeConfig().max_pixels
MAX_OWN = 100  # images of one text that are shown where they stand; a page of thumbnails may hold thousands
PASSAGES = 8
PICTURE_HITS = 24

# Cosine from which a written question is taken for the one that was asked.
NEARLY = 0.95

_log = logging.getLogger(__name__)

Placer = Callable[[Episode], tuple[Sequence[Placement], str]]


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

    def answer(self, question: str, place: Placer, *, keep_own: bool = False) -> Answer:
        """Answer `question`.

        Args:
            question: what the reader asks.
            place: returns placements and the words that led to them.
            keep_own: show the text's own images where they stand in their document, and ask `place` only for sentences
                whose images are not known. Otherwise `place` is asked for all of them.

        Raises:
            UserError: an empty question, or one that no passage answers.
        """
        episode, text = self.episode(question, keep_own=keep_own)
        placements, reasoning = _own_placements(episode, text) if keep_own else [], ""
        if episode.candidates and not (keep_own and text.is_sourced):
            others, reasoning = place(_without(episode, text.sourced) if keep_own else episode)
            kept = {placement.picture for placement in placements}
            placements += [each for each in others if each.picture not in kept]
        placements.sort(key=lambda placement: placement.slot)
        return Answer.of(
            episode, placements, reasoning=reasoning, sources=self._sources(text, episode.candidates, placements)
        )

    def episode(self, question: str, *, keep_own: bool = False) -> tuple[Episode, Text]:
        """Return what the inserter is given: the question with its text and candidates, and where the text is from.

        The candidates are the images that stand in the text's part of the document, then others of the document and
        what retrieval brings, in chance order as in training. With `keep_own` these are all images of the text, and
        others only where the text has sentences whose images are not known. Raises UserError as `answer` does.
        """
        question = " ".join(question.split())
        if not question:
            raise UserError("The question is empty.", mend="Ask something.")
        written = self._written(question)
        text = self._written_text(written) if written else self._extract(question)
        episode = Episode(
            id="answer",
            question=question,
            sentences=text.sentences,
            candidates=self._candidates(question, text, keep_own),
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
        has_placements = any(other.pictures for other in self._questions[0])
        return written_text(question, self.corpus.document(question.document), has_placements=has_placements)

    def _extract(self, question: str) -> Text:
        for hit in self.retriever.passages(question, PASSAGES):
            if hit.score <= 0:
                continue
            document = self.corpus.document(hit.passage.document)
            if text := section_text(document, hit.passage.start, self.max_sentences):
                return text
        raise UserError(
            "No passage of the corpus answers this question.",
            where=str(self.corpus.path),
            mend="Ask in words that the documents use.",
        )

    def _candidates(self, question: str, text: Text, keep_own: bool) -> tuple[Candidate, ...]:
        shown = {position for position, _ in text.images} if keep_own else set()
        own: dict[str, Place] = {}  # those that are shown first: which place a candidate names decides its source line
        for place in sorted(picture_places(text.document), key=lambda place: place.position not in shown):
            if place.position in shown or text.start <= place.position < text.stop:
                own.setdefault(place.block.picture, place)
        kept = [place for place in own.values() if place.position in shown]
        if len(kept) > MAX_OWN:
            _log.warning("%d of the %d images of the text are shown", MAX_OWN, len(kept))
        places = kept[:MAX_OWN]
        if not (keep_own and text.is_sourced):
            near = [*places, *list(own.values())[len(kept) :]][: max(self.max_candidates, len(places))]
            places = self._with_others(question, text, near)
        offered = [self._candidate(place) for place in places]
        return tuple(candidate for candidate in offered if candidate)

    def _with_others(self, question: str, text: Text, near: list[Place]) -> list[Place]:
        """Return the images `near` and others that may be wrong, in chance order."""
        # A draft is what choosing looks at; its "gold" are the images that are offered already.
        draft = Draft("answer", question, text.sentences, tuple((p.position, 0) for p in near), text.document)
        random = seeded(0, "answer", question)
        (found,) = search([draft], self.retriever, self._pool, PICTURE_HITS)
        wanted = self.max_candidates - len(near)
        places = [*near, *choose_distractors(draft, wanted, pool=self._pool, found=found, random=random)]
        return [places[int(i)] for i in random.permutation(len(places))]

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


def _own_placements(episode: Episode, text: Text) -> list[Placement]:
    """Place the text's own images, so far as they are offered, where they stand."""
    candidates = {candidate.picture: index for index, candidate in enumerate(episode.candidates)}
    pictures = [(slot, text.document.blocks[position].picture) for position, slot in text.images]
    return [Placement(slot, candidates[picture]) for slot, picture in pictures if picture in candidates]


def _without(episode: Episode, sourced: Sequence[bool]) -> Episode:
    """Blank the sentences that have a source, so that no rule spends an image on them."""
    kept = ("" if known else sentence for sentence, known in zip(episode.sentences, sourced, strict=True))
    return replace(episode, sentences=tuple(kept))


def _shared_words(one: str, other: str) -> float:
    """Share of the words of both questions that both have."""
    first, second = set(_plain(one).split()), set(_plain(other).split())
    return len(first & second) / max(1, len(first | second))


def _plain(question: str) -> str:
    """The question's words, without case and without marks at its end."""
    return " ".join(question.casefold().split()).rstrip("?!. ")
