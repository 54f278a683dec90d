"""Choosing the wrong pictures of an episode: plausible ones, never one that would be right."""

import heapq
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import zip_longest
from operator import itemgetter
from typing import Protocol

import numpy as np

from m2io_jax.corpus.documents import Document, PictureBlock, TextBlock, is_illustration
from m2io_jax.episodes.sections import Draft
from m2io_jax.retrieval.search import PictureHit

CONTEXT_CHARACTERS = 200

# This share of the wrong pictures is taken by likeness to what the answer describes, where that is known; the rest as
# retrieval ranks them, since real wrong pictures are not all near misses.
NEAR_MISSES = 2 / 3

Rank = tuple[int, int]  # of a place among those taken in turn: a row, then a column


class Retriever(Protocol):
    """What building asks of retrieval: `m2io_jax.retrieval.search.Retriever`, or anything that ranks pictures."""

    def pictures_batch(self, questions: Sequence[str], k: int) -> Sequence[Sequence[PictureHit]]:
        """For each question at most k pictures, best first."""


@dataclass(frozen=True)
class Place:
    """One place of one picture."""

    document: str
    position: int
    block: PictureBlock


class DocumentPlaces:
    """The places of one document whose pictures may be offered, so kept that a draft looks at few of them.

    Attributes:
        distinct: (rank in reading order, place) of the first place of each picture and content; once one is chosen or
            refused for a draft, so are the later ones.
    """

    def __init__(self, places: Sequence[Place]):
        first = {(place.block.picture, place.block.content): rank for rank, place in reversed(list(enumerate(places)))}
        self.distinct = [(rank, places[rank]) for rank in sorted(first.values())]
        self._by_word: dict[str, list[int]] | None = None

    def with_words(self, words: Iterable[str]) -> Iterator[tuple[int, Place]]:
        """Yield those of `distinct` whose content has one of the words."""
        if self._by_word is None:
            self._by_word = {}
            for index, (_, place) in enumerate(self.distinct):
                for word in _words(place.block.content):
                    self._by_word.setdefault(word, []).append(index)
        found = {index for word in words for index in self._by_word.get(word, ())}
        return (self.distinct[index] for index in found)


class Pool:
    """The pictures that the episodes of one split may offer: none that stands in a document of another split too."""

    def __init__(self, documents: Sequence[Document], foreign: frozenset[str]):
        self.places: dict[tuple[str, int], Place] = {}
        self._documents: dict[str, DocumentPlaces] = {}
        for document in documents:
            places = [place for place in picture_places(document) if place.block.picture not in foreign]
            self.places |= {(document.id, place.position): place for place in places}
            self._documents[document.id] = DocumentPlaces(places)
        self._all = list(self.places.values())

    def at(self, document: str, position: int) -> Place | None:
        """The place of that block, None where this split may not show it."""
        return self.places.get((document, position))

    def of_document(self, document: Document) -> DocumentPlaces:
        """The pictures of a document that may be offered."""
        return self._documents.get(document.id) or DocumentPlaces([])

    def any(self, random: np.random.Generator, tries: int) -> Iterator[Place]:
        """Pictures drawn blindly, at most `tries`; they fill up where retrieval finds too few."""
        for _ in range(tries if self._all else 0):
            yield self._all[int(random.integers(len(self._all)))]


def picture_places(document: Document) -> list[Place]:
    """Return every place of every illustration of a document, in reading order."""
    return [Place(document.id, i, block) for i, block in enumerate(document.blocks) if is_illustration(block)]


def search(drafts: Sequence[Draft], retriever: Retriever | None, pool: Pool, hits: int) -> list[list[list[Place]]]:
    """For each draft, for its question and each sentence: the best of the `hits` best pictures that the pool has.

    Many drafts at once, since searching costs more a call than a question.
    """
    if retriever is None:
        return [[] for _ in drafts]
    queries = [list(dict.fromkeys((draft.question, *draft.sentences))) for draft in drafts]
    different = list(dict.fromkeys(query for each in queries for query in each))
    found = {}
    for query, ranked in zip(different, retriever.pictures_batch(different, hits), strict=True):
        places = (pool.at(hit.place.document, hit.place.position) for hit in ranked)
        found[query] = [place for place in places if place]
    return [[found[query] for query in each] for each in queries]


def choose_distractors(
    draft: Draft, wanted: int, *, pool: Pool, found: Sequence[Sequence[Place]], random: np.random.Generator
) -> list[Place]:
    """At most `wanted` wrong pictures.

    The document's other pictures and the lists that `search` found are taken in turn. Never offered: a gold or hidden
    picture, one that shows what a sentence describes, and one that shows the same as a candidate already chosen.
    """
    if wanted <= 0:
        return []
    # Sentences take turns in chance order, else the first ones would always get the nearest misses.
    turns = [found[i] for i in random.permutation(len(found))]
    own = pool.of_document(draft.document)

    gold = [draft.document.blocks[position] for position, _ in draft.gold]
    hidden = [draft.document.blocks[position] for position in draft.hidden]
    pictures = {block.picture for block in (*gold, *hidden)}
    shown = {block.content for block in gold} | set(draft.contents) - {""}
    chosen: list[Place] = []
    near = itertools.chain(_alike(draft.contents, own, turns), _in_turn(own.distinct, turns))
    _take(chosen, near, round(wanted * NEAR_MISSES), pictures, shown)
    _take(chosen, _in_turn(own.distinct, turns), wanted, pictures, shown)
    _take(chosen, pool.any(random, tries=8 * wanted), wanted, pictures, shown)
    return chosen


def _ranked(own: Iterable[tuple[int, Place]], turns: Sequence[Sequence[Place]]) -> Iterator[tuple[Rank, Place]]:
    """Yield the document's own places and the rows across `turns`, each with (row, column) and the own in column 0."""
    rows = enumerate(zip_longest(*turns))
    found = (((row, column), place) for row, places in rows for column, place in enumerate(places, 1) if place)
    return heapq.merge((((row, 0), place) for row, place in own), found, key=itemgetter(0))


def _in_turn(own: Iterable[tuple[int, Place]], turns: Sequence[Sequence[Place]]) -> Iterator[Place]:
    """Yield the first of the document and of each turn, then the second, and so on."""
    return (place for _, place in _ranked(own, turns))


def _alike(contents: Sequence[str], own: DocumentPlaces, turns: Sequence[Sequence[Place]]) -> Iterator[Place]:
    """Yield the places that show what shares words with `contents`: the most alike first, then in turn."""
    words = frozenset(word for content in contents for word in _words(content))
    if not words:
        return
    ranked = list(_ranked(sorted(own.with_words(words), key=itemgetter(0)), turns))
    likeness = {content: _likeness(content, contents) for content in {place.block.content for _, place in ranked}}
    alike = [place for _, place in ranked if likeness[place.block.content] > 0]
    yield from sorted(alike, key=lambda place: -likeness[place.block.content])


def context_around(document: Document, position: int) -> str:
    """The text just before and after a block, at most `CONTEXT_CHARACTERS` a side, joined by "[…]"."""
    before = " ".join(_text(document, range(position - 1, -1, -1), from_end=True).split())
    after = " ".join(_text(document, range(position + 1, len(document.blocks)), from_end=False).split())
    return " […] ".join(filter(None, [_last(before), _first(after)]))


def _take(chosen: list[Place], places: Iterable[Place], up_to: int, pictures: set[str], shown: set[str]) -> None:
    """Appends to `chosen` until it has `up_to`, and notes in `pictures` and `shown` what is used up."""
    for place in places:
        if len(chosen) >= up_to:
            return
        block = place.block
        if block.picture in pictures or (block.content and block.content in shown):
            continue
        chosen.append(place)
        pictures.add(block.picture)
        shown.add(block.content)


def _likeness(content: str, contents: Sequence[str]) -> float:
    """Greatest share of words in common (Jaccard) with what any sentence describes."""
    words = _words(content)
    if not words:
        return 0.0
    return max((len(words & _words(other)) / len(words | _words(other)) for other in contents), default=0.0)


@lru_cache(maxsize=65_536)
def _words(content: str) -> frozenset[str]:
    return frozenset(content.split())


def _text(document: Document, positions: range, *, from_end: bool) -> str:
    """Text of the blocks in that order until there is enough of it."""
    parts: list[str] = []
    length = 0
    for position in positions:
        block = document.blocks[position]
        if isinstance(block, TextBlock) and block.kind != "code":
            parts.append(block.text)
            length += len(block.text)
        if length > CONTEXT_CHARACTERS:
            break
    return " ".join(reversed(parts) if from_end else parts)


def _last(text: str) -> str:
    """The last words that fit."""
    return text if len(text) <= CONTEXT_CHARACTERS else text[-CONTEXT_CHARACTERS:].partition(" ")[2]


def _first(text: str) -> str:
    """The first words that fit."""
    return text if len(text) <= CONTEXT_CHARACTERS else text[:CONTEXT_CHARACTERS].rpartition(" ")[0]
