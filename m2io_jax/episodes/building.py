"""Building episodes from a corpus: answers with their pictures taken out, and candidates to put back in."""

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np

from m2io_jax.corpus.documents import Document, PictureBlock, Question, is_illustration
from m2io_jax.corpus.pictures import PictureError
from m2io_jax.episodes.candidates import Place, Pool, Retriever, choose_distractors, context_around, search
from m2io_jax.episodes.episode import Candidate, Episode, Placement
from m2io_jax.episodes.groups import Groups, join_groups
from m2io_jax.episodes.labels import imperfect, seeded
from m2io_jax.episodes.pictures import stored_picture
from m2io_jax.episodes.sections import Draft, Rejected, first_places, question_draft, section_drafts
from m2io_jax.errors import UserError

SPLITS = ("train", "validation", "test")
LISTED_ROWS = 1000

SEARCHED_TOGETHER = 64
HELD_BYTES = 256 * 2**20  # pictures kept in memory, since most are offered several times


class Corpus(Protocol):
    """What building asks of a corpus."""

    documents: Sequence[Document]
    questions: Sequence[Question]

    def picture(self, hash: str) -> bytes:
        """The encoded file. Raises UserError where it is not there."""


@dataclass(frozen=True)
class EpisodeConfig:
    """How episodes are built.

    Attributes:
        seed: of every draw; a row's draws depend on this and on its own id alone.
        source: "questions" are written with the corpus; "sections" takes the pictures out of documents; "auto" takes
            the questions where there are any.
        min_candidates, max_candidates: bounds of the drawn number of candidates. An answer with more gold pictures than
            the greater is dropped; fewer than the smaller happens only where the corpus has no more to offer.
        max_sentences: of an answer that is a section.
        empty: share of section episodes without any gold picture.
        drop_labels, move_labels: see `labels.imperfect`; 0 keeps labels equal to gold.
        train, validation: shares of the groups; test has the rest.
        hits: pictures that retrieval is asked for with each sentence, before those of other splits are left out.
        max_pixels: larger pictures are stored scaled down to this many pixels.
    """

    seed: int = 0
    source: Literal["auto", "questions", "sections"] = "auto"
    min_candidates: int = 4
    max_candidates: int = 8
    max_sentences: int = 12
    empty: float = 0.12
    drop_labels: float = 0.0
    move_labels: float = 0.0
    train: float = 0.8
    validation: float = 0.05
    hits: int = 24
    max_pixels: int = 512 * 512

    def __post_init__(self) -> None:
        """Raises UserError for the first value that is out of its bounds."""
        fits = 1 <= self.min_candidates <= self.max_candidates
        _check(fits, "max_candidates", self, "at least min_candidates, which is at least 1")
        _check(self.max_sentences >= 1, "max_sentences", self, "at least 1")
        _check(0 <= self.empty < 1, "empty", self, "from 0, below 1")
        _check(0 <= self.move_labels <= 1, "move_labels", self, "0 to 1")
        fits = 0 <= self.drop_labels <= 1 - self.move_labels
        _check(fits, "drop_labels", self, "0 to 1, and with move_labels at most 1")
        _check(0 <= self.train <= 1, "train", self, "0 to 1")
        _check(0 <= self.validation and self.train + self.validation <= 1, "validation", self, "0 to 1, with train")
        _check(self.hits >= 1, "hits", self, "at least 1")
        _check(self.max_pixels >= 28 * 28, "max_pixels", self, "at least 784")
        _check(self.source in ("auto", "questions", "sections"), "source", self, "auto, questions or sections")

    def share(self, split: str) -> float:
        """The split's share of the groups."""
        return {"train": self.train, "validation": self.validation, "test": 1 - self.train - self.validation}[split]


@dataclass
class BuildReport:
    """What happened to every row; filled while episodes are built.

    Attributes:
        episodes: built, by split. without_gold: of these, by split.
        candidates: offered in all. short: episodes with fewer candidates than were drawn.
        dropped: rows by reason. rows: the first `LISTED_ROWS` dropped, as (id, reason).
        unreadable: pictures that could not be read and were therefore not offered, by hash, with the reason.
        groups: which documents were kept in one split and why, as `Groups.to_json` says it.
    """

    episodes: Counter[str] = field(default_factory=Counter)
    without_gold: Counter[str] = field(default_factory=Counter)
    candidates: int = 0
    short: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    rows: list[tuple[str, str]] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    groups: dict[str, Any] = field(default_factory=dict)

    def drop(self, id: str, reason: str) -> None:
        """Counts a row that makes no episode."""
        self.dropped[reason] += 1
        if len(self.rows) < LISTED_ROWS:
            self.rows.append((id, reason))

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self) | {name: dict(getattr(self, name)) for name in ("episodes", "without_gold", "dropped")}


def split_of(group: str, config: EpisodeConfig) -> str:
    """The split of a group: the same for the same seed and shares, whatever else the corpus holds."""
    point = _point(group, config.seed)
    if point < config.train:
        return "train"
    # Floating-point sums of shares that make 1 must leave nothing over for an empty test split.
    return "validation" if point < config.train + config.validation or config.share("test") < 1e-9 else "test"


def split_groups(
    groups: Iterable[str], config: EpisodeConfig, illustrated: frozenset[str] = frozenset()
) -> dict[str, str]:
    """The split of each group: `split_of`, except that a corpus of few groups always has one to train on.

    Args:
        groups: names of all groups.
        config: seed and shares.
        illustrated: groups that have images. Where there are any, one of these is trained on.
    """
    splits = {group: split_of(group, config) for group in groups}
    telling = illustrated or splits.keys()
    if telling and config.train > 0 and not any(splits[group] == "train" for group in telling):
        splits[min(telling, key=lambda group: _point(group, config.seed))] = "train"
    return splits


def build_episodes(
    corpus: Corpus,
    retriever: Retriever | None,
    config: EpisodeConfig,
    *,
    report: BuildReport | None = None,
    splits: Sequence[str] = SPLITS,
    groups: Groups | None = None,
) -> Iterator[Episode]:
    """Episodes of the named splits, split by split, in the corpus's order.

    No image is gold in two splits: one that stands in documents of several is gold in the first of them, and is not
    offered in the others.

    Args:
        corpus: documents, perhaps with questions.
        retriever: brings plausible wrong pictures; without one they come from the same document, then by chance.
        report: filled on the way.
        splits: of "train", "validation", "test".
        groups: of the documents; joined here where they are not given.

    Raises:
        UserError: the corpus has no documents, or no questions where these were asked for.
    """
    if not corpus.documents:
        raise UserError("The corpus has no documents.", mend="Import documents first.")
    if config.source == "questions" and not corpus.questions:
        raise UserError("The corpus has no questions.", where="source: questions", mend="Build with source=sections.")
    report = BuildReport() if report is None else report
    groups = groups or join_groups(corpus.documents)
    report.groups = groups.to_json()
    by_split: dict[str, list[Document]] = {split: [] for split in SPLITS}
    illustrated = (document.id for document in corpus.documents if any(map(is_illustration, document.blocks)))
    split_by_group = split_groups(groups.of.values(), config, frozenset(groups.of[id] for id in illustrated))
    for document in groups.regrouped(corpus.documents):
        by_split[split_by_group[document.group]].append(document)
    for split in splits:
        maker = _Maker(corpus, config, report, split, by_split)
        drafts = _drafts(corpus, config, split, by_split, report)
        while some := list(itertools.islice(drafts, SEARCHED_TOGETHER)):
            for draft, found in zip(some, search(some, retriever, maker.pool, maker.hits), strict=True):
                episode = maker.make(draft, found)
                if isinstance(episode, Rejected):
                    report.drop(episode.id, episode.reason)
                else:
                    yield episode


def _point(group: str, seed: int) -> float:
    """Where a group stands in [0, 1)."""
    return int.from_bytes(hashlib.sha256(f"split\0{seed}\0{group}".encode()).digest()[:8], "big") / 2**64


def _drafts(
    corpus: Corpus, config: EpisodeConfig, split: str, by_split: dict[str, list[Document]], report: BuildReport
) -> Iterator[Draft]:
    use_questions = bool(corpus.questions) if config.source == "auto" else config.source == "questions"
    documents = by_split[split]
    rows: Iterator[Draft | Rejected]
    if use_questions:
        by_id = {document.id: document for document in documents}
        asked = [question for question in corpus.questions if question.document in by_id]
        places = {id: first_places(by_id[id]) for id in {question.document for question in asked}}
        rows = (question_draft(q, by_id[q.document], places[q.document]) for q in asked)
        known = {document.id for document in corpus.documents}
        if split == SPLITS[0]:
            for question in corpus.questions:
                if question.document not in known:
                    report.drop(question.id, "the question's document is not in the corpus")
    else:
        rows = iter(_with_few_empty([r for d in documents for r in section_drafts(d, config.max_sentences)], config))
    earlier = _pictures_of(by_split, SPLITS[: SPLITS.index(split)])
    for row in rows:
        row = row if isinstance(row, Rejected) else _without_gold_of(earlier, row)
        if isinstance(row, Rejected):
            report.drop(row.id, row.reason)
        else:
            yield row


def _pictures_of(by_split: Mapping[str, Sequence[Document]], splits: Iterable[str]) -> frozenset[str]:
    """Return the hashes of all images in the documents of the splits."""
    blocks = (block for split in splits for document in by_split[split] for block in document.blocks)
    return frozenset(block.picture for block in blocks if isinstance(block, PictureBlock))


def _without_gold_of(earlier: frozenset[str], draft: Draft) -> Draft | Rejected:
    """Hide the gold images that stand in an earlier split; reject a draft that has no others."""
    known = {position for position, _ in draft.gold if draft.document.blocks[position].picture in earlier}
    if known and len(known) == len(draft.gold):
        return Rejected(draft.id, "its gold pictures stand in documents of another split too")
    gold = tuple((position, slot) for position, slot in draft.gold if position not in known)
    return replace(draft, gold=gold, hidden=draft.hidden | known)


def _with_few_empty(rows: list[Draft | Rejected], config: EpisodeConfig) -> list[Draft | Rejected]:
    """Most sections have no picture: keeps as many of these as make the share `config.empty`, chosen by their ids."""
    empty = [row.id for row in rows if isinstance(row, Draft) and not row.gold and not row.hidden]
    full = sum(1 for row in rows if isinstance(row, Draft) and row.gold)
    wanted = round(full * config.empty / (1 - config.empty))
    kept = set(sorted(empty, key=lambda id: hashlib.sha256(f"{config.seed}\0{id}".encode()).digest())[:wanted])
    return [row for row in rows if isinstance(row, Rejected) or row.gold or row.id in kept]


class _Maker:
    """Makes the episodes of one split."""

    def __init__(
        self,
        corpus: Corpus,
        config: EpisodeConfig,
        report: BuildReport,
        split: str,
        by_split: Mapping[str, Sequence[Document]],
    ):
        self.corpus, self.config, self.report, self.split = corpus, config, report, split
        foreign = _pictures_of(by_split, [other for other in by_split if other != split])
        self.documents = {document.id: document for document in by_split[split]}
        self.pool = Pool(by_split[split], foreign)
        # A small split loses most of what retrieval brings, so it asks for more: else its wrong pictures are easier.
        self.hits = min(int(np.ceil(config.hits / max(config.share(split), 0.02))), 1000)
        self.stored: dict[str, bytes] = {}
        self.held = 0

    def make(self, draft: Draft, found: Sequence[Sequence[Place]]) -> Episode | Rejected:
        """The draft with candidates, or why it cannot have them."""
        config, random = self.config, seeded(self.config.seed, "candidates", draft.id)
        if len(draft.gold) > config.max_candidates:
            return Rejected(draft.id, f"more than {config.max_candidates} gold pictures")
        gold = [Place(draft.document.id, p, draft.document.blocks[p]) for p, _ in draft.gold]
        contents = [place.block.content for place in gold if place.block.content]
        if len(set(contents)) < len(contents):
            return Rejected(draft.id, "two gold pictures show the same, so their places are ambiguous")
        target = max(int(random.integers(config.min_candidates, config.max_candidates + 1)), len(gold))
        wrong = choose_distractors(draft, target - len(gold), pool=self.pool, found=found, random=random)
        loaded = {place: self._load(place.block.picture) for place in (*gold, *wrong)}
        if any(loaded[place] is None for place in gold):
            return Rejected(draft.id, "a gold picture cannot be read")
        places = [place for place in (*gold, *wrong) if loaded[place] is not None]
        if not places:
            return Rejected(draft.id, "no picture to offer")
        self.report.short += len(places) < target
        order = [int(i) for i in random.permutation(len(places))]
        candidates = tuple(self._candidate(places[i], loaded[places[i]]) for i in order)
        return self._finished(draft, candidates, order)

    def _finished(self, draft: Draft, candidates: tuple[Candidate, ...], order: list[int]) -> Episode:
        # Gold pictures are the first places, in the order of `draft.gold`: by slot, then as the document has them.
        gold = tuple(Placement(slot=slot, picture=order.index(i)) for i, (_, slot) in enumerate(draft.gold))
        drop, move = self.config.drop_labels, self.config.move_labels
        random = seeded(self.config.seed, "labels", draft.id)
        labels = imperfect(gold, len(draft.sentences), drop=drop, move=move, random=random)
        self.report.episodes[self.split] += 1
        self.report.without_gold[self.split] += not gold
        self.report.candidates += len(candidates)
        return Episode(
            id=draft.id,
            question=draft.question,
            sentences=draft.sentences,
            candidates=candidates,
            gold=gold,
            labels=labels,
            document=draft.document.id,
            group=draft.document.group,
        )

    def _load(self, hash: str) -> bytes | None:
        if hash in self.report.unreadable:
            return None
        if hash not in self.stored:
            if self.held > HELD_BYTES:
                self.stored, self.held = {}, 0
            try:
                self.stored[hash] = stored_picture(self.corpus.picture(hash), self.config.max_pixels)
            except (UserError, OSError, PictureError) as error:
                self.report.unreadable[hash] = getattr(error, "what", None) or str(error)
                return None
            self.held += len(self.stored[hash])
        return self.stored[hash]

    def _candidate(self, place: Place, data: bytes) -> Candidate:
        return Candidate(
            picture=place.block.picture,
            data=data,
            caption=place.block.caption,
            context=context_around(self.documents[place.document], place.position),
            document=place.document,
            position=place.position,
            content=place.block.content,
        )


def _check(holds: bool, key: str, config: EpisodeConfig, allowed: str) -> None:
    if not holds:
        raise UserError(f"{key} is {getattr(config, key)!r}.", where=f"episodes: {key}", mend=f"Allowed: {allowed}.")
