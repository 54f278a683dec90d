"""Episodes from the rows of published sets: settings, the report of what was read, and rows that make no episode."""

import hashlib
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from typing import Any

from m2io_jax.corpus.pictures import PictureError, decode
from m2io_jax.episodes.building import LISTED_ROWS, SPLITS, EpisodeConfig, split_of
from m2io_jax.episodes.episode import Candidate, Episode, QuestionImage
from m2io_jax.episodes.pictures import stored_picture
from m2io_jax.episodes.settings import require
from m2io_jax.verification.answers import readable
from m2io_jax.verification.pool import Unverified

LISTED_FILES = 100
LISTED_COLUMNS = 200


@dataclass(frozen=True)
class ReadConfig:
    """How published rows become episodes.

    Attributes:
        seed: of the split.
        train, validation: shares of the rows, by what they show and ask; test has the rest. CLEVR's own validation
            split is the test split here, whatever the shares.
        published_splits: keep rows that are published as validation or test (by the name of their file or folder, or
            their column `split`) in that split, whatever the shares; the shares then deal the other rows among the
            splits that are not published. False deals all rows anew.
        prompt_key, answer_key, image_key: the columns of question, answer and images, where they have other names than
            those that are read by themselves; dots lead into a column, as in `reward_model.ground_truth`.
        image_folder: where the files of images are looked for too, where they do not lie below the data.
        max_pixels: larger pictures are stored scaled down to this many pixels.
        per_picture: questions that are taken of one picture of CLEVR.
        most: rows that are read of each file or split; 0 reads all.
    """

    seed: int = 0
    train: float = 0.9
    validation: float = 0.05
    max_pixels: int = 512 * 512
    per_picture: int = 1
    most: int = 0
    published_splits: bool = True
    prompt_key: str = ""
    answer_key: str = ""
    image_key: str = ""
    image_folder: str = ""

    def __post_init__(self) -> None:
        """Raise UserError for the first value that is out of its bounds."""
        self.shares()
        require(self.per_picture >= 1, "per_picture", self.per_picture, "1 or more")
        require(self.most >= 0, "most", self.most, "0 or more")

    def shares(self) -> EpisodeConfig:
        """Return the shares as a configuration for building episodes."""
        return EpisodeConfig(seed=self.seed, train=self.train, validation=self.validation, max_pixels=self.max_pixels)

    def split(self, group: str) -> str:
        """Return the split of a group of rows: the same for the same seed and shares."""
        return split_of(group, self.shares())

    def deal(self, group: str, splits: Sequence[str]) -> str:
        """Return the split of a group among some splits, by their shares of the whole.

        Where these splits have no share at all, the first of them takes every group.
        """
        shares = _shares_among(self.shares(), tuple(splits))
        return splits[0] if shares is None else split_of(group, shares)


@lru_cache
def _shares_among(shares: EpisodeConfig, splits: tuple[str, ...]) -> EpisodeConfig | None:
    """Return the shares of some splits, made to sum to 1; None where they have no share at all."""
    if set(splits) == set(SPLITS):
        return shares
    whole = sum(shares.share(split) for split in splits)
    if whole <= 0:
        return None
    parts = {split: shares.share(split) / whole if split in splits else 0.0 for split in SPLITS}
    train = min(1.0, parts["train"])
    return replace(shares, train=train, validation=min(1.0 - train, parts["validation"]))


class BadRow(Exception):
    """A row that makes no episode.

    Attributes:
        reason: the words that it is counted under. detail: an excerpt of this row.
    """

    def __init__(self, reason: str, detail: str = ""):
        self.reason, self.detail = reason, " ".join(plain(detail[:3000]).split())[:300]
        super().__init__(reason)


@dataclass(frozen=True)
class Problem:
    """A row that was left out: its number (from 1) in its file or split, and why."""

    file: str
    row: int
    reason: str
    detail: str


@dataclass
class ReadReport:
    """The report of a set: counts of its rows and files, filled while the set is read.

    Attributes:
        source: what is read. rows: that were met; kept: that are episodes.
        passed_over: good rows that were not asked for, by reason.
        bad: rows that cannot be used, by reason; problems: the first `LISTED_ROWS` of them.
        noted: rows that are kept without one of their parts, by the name of the part.
        published: episodes of each published split, by the split that they are in here. shared: those in a published
            validation or test split that show the images of an episode in train.
        unread: files that are not read, by reason; unread_files: the first `LISTED_FILES` of them, with the reason.
        columns: rows that have each column; columns_unread: those that no name leads to.
        columns_read: the names that are read, in words.
    """

    source: str
    rows: int = 0
    kept: int = 0
    passed_over: Counter[str] = field(default_factory=Counter)
    bad: Counter[str] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)
    noted: Counter[str] = field(default_factory=Counter)
    published: dict[str, Counter[str]] = field(default_factory=dict)
    shared: int = 0
    unread: Counter[str] = field(default_factory=Counter)
    unread_files: list[tuple[str, str]] = field(default_factory=list)
    columns: Counter[str] = field(default_factory=Counter)
    columns_unread: list[str] = field(default_factory=list)
    columns_read: str = ""

    def add(self, file: str, row: int, error: BadRow) -> None:
        """Count a row that cannot be used."""
        self.bad[error.reason] += 1
        if len(self.problems) < LISTED_ROWS:
            self.problems.append(Problem(file, row, error.reason, error.detail))

    def add_file(self, file: str, reason: str) -> None:
        """Count a file that is not read."""
        self.unread[reason] += 1
        if len(self.unread_files) < LISTED_FILES:
            self.unread_files.append((plain(file), reason))

    def add_columns(self, values: Mapping[str, Any], is_read: Callable[[str], bool]) -> None:
        """Count the columns of a row."""
        for name in values:
            name = plain(str(name))[:100]
            if name not in self.columns and len(self.columns) < LISTED_COLUMNS and not is_read(name):
                self.columns_unread.append(name)
            if name in self.columns or len(self.columns) < LISTED_COLUMNS:
                self.columns[name] += 1

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        counters = ("passed_over", "bad", "noted", "unread", "columns", "published")
        return asdict(self) | {name: dict(getattr(self, name)) for name in counters}

    def summary(self) -> str:
        """Return a few lines for people: the counts, the reasons, and where the list of rows is."""
        lines = [f"{self.rows:,} rows read, {self.kept:,} kept"]
        lines += [f"  {count:,} passed over: {reason}" for reason, count in self.passed_over.most_common()]
        lines += [f"  {count:,} left out: {reason}" for reason, count in self.bad.most_common()]
        lines += [f"  {count:,} kept without {part}" for part, count in self.noted.most_common()]
        for split, counts in self.published.items():
            kept = ", ".join(f"{counts[each]:,} in {each}" for each in SPLITS if counts[each])
            lines.append(f"  published as {split}: {kept}")
        if self.shared:
            lines.append(f"  {self.shared:,} in published splits show the images of training rows, or ask the same")
        lines += [f"  {_files(count)} not read: {reason}" for reason, count in self.unread.most_common()]
        if self.columns and (self.bad or not self.kept):
            lines.append(f"  columns found: {', '.join(sorted(self.columns))}")
            lines.append(f"  columns read: {self.columns_read}")
        if self.columns_unread:
            lines.append(f"  columns not read: {', '.join(self.columns_unread)}")
        if self.bad and self.kept:
            lines.append("Each one is listed by file and row in episodes.json.")
        return "\n".join(lines)


def plain(text: str) -> str:
    """Return text that UTF-8 can write: half a surrogate pair becomes a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")


def checked_question(text: Any) -> str:
    """Return a question without white space around it.

    Raises:
        BadRow: it is none.
    """
    question = plain(text).strip() if isinstance(text, str) else ""
    if not question:
        raise BadRow("no question")
    return question


def checked_answer(answer: str) -> str:
    """Return an answer that others can be compared with.

    Raises:
        BadRow: there is none, or it cannot be verified.
    """
    answer = plain(answer).strip()
    if not answer:
        raise BadRow("no answer")
    try:
        if readable(answer):
            return answer
    except Unverified as error:
        raise BadRow(f"an answer whose verification ends in an {error.kind}", answer) from error
    raise BadRow("an answer that cannot be verified", answer)


def episode(
    id: str,
    question: str,
    answer: str,
    pictures: Sequence[bytes],
    *,
    group: str,
    max_pixels: int,
    reasoning: str = "",
    question_images: tuple[QuestionImage, ...] = (),
) -> Episode:
    """Make an episode of a row.

    Raises:
        BadRow: a picture cannot be read.
    """
    candidates = []
    for data in pictures:
        try:
            with warnings.catch_warnings():
                # Pillow warns on the terminal about oddities that do no harm; what does harm raises.
                warnings.simplefilter("ignore")
                decode(data)  # all of it: a picture may be cut short behind a good header
                stored = stored_picture(data, max_pixels)
        except PictureError as error:
            raise BadRow(f"a picture that is {error.kind}", error.reason) from error
        candidates.append(Candidate(hashlib.sha256(stored).hexdigest(), stored, document=id))
    return Episode(
        id=id,
        question=question,
        sentences=(),
        candidates=tuple(candidates),
        gold=(),
        labels=(),
        document=id,
        group=group,
        answer=answer,
        reasoning=reasoning,
        question_images=question_images,
    )


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count:,} files"
