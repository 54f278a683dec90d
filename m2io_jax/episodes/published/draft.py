"""What every reader of published sets makes of a row, and what it says of a row that it cannot use."""

import hashlib
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import Any

from m2io_jax.corpus.pictures import PictureError, decode
from m2io_jax.episodes.building import LISTED_ROWS, EpisodeConfig, split_of
from m2io_jax.episodes.episode import Candidate, Episode
from m2io_jax.episodes.pictures import stored_picture
from m2io_jax.episodes.settings import require
from m2io_jax.verification.answers import readable
from m2io_jax.verification.pool import Unverified

_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


@dataclass(frozen=True)
class ReadConfig:
    """How published rows become episodes.

    Attributes:
        seed: of the split.
        train, validation: shares of the rows, by what they show and ask; test has the rest. CLEVR's own validation
            split is the test split here, whatever the shares.
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

    def __post_init__(self) -> None:
        """Raises UserError for the first value that is out of its bounds."""
        self.shares()
        require(self.per_picture >= 1, "per_picture", self.per_picture, "1 or more")
        require(self.most >= 0, "most", self.most, "0 or more")

    def shares(self) -> EpisodeConfig:
        """The shares as building episodes knows them."""
        return EpisodeConfig(seed=self.seed, train=self.train, validation=self.validation, max_pixels=self.max_pixels)

    def split(self, group: str) -> str:
        """The split of a group of rows: the same for the same seed and shares."""
        return split_of(group, self.shares())


class BadRow(Exception):
    """A row that makes no episode.

    Attributes:
        reason: what it is counted under; detail: what is to be seen in this row.
    """

    def __init__(self, reason: str, detail: str = ""):
        self.reason, self.detail = reason, " ".join(detail.split())[:300]
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
    """What happened to every row; filled while a set is read.

    Attributes:
        source: what is read. rows: that were met; kept: that are episodes.
        passed_over: good rows that were not asked for, by reason.
        bad: rows that cannot be used, by reason; problems: the first `LISTED_ROWS` of them.
    """

    source: str
    rows: int = 0
    kept: int = 0
    passed_over: Counter[str] = field(default_factory=Counter)
    bad: Counter[str] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)

    def add(self, file: str, row: int, error: BadRow) -> None:
        """Counts a row that cannot be used."""
        self.bad[error.reason] += 1
        if len(self.problems) < LISTED_ROWS:
            self.problems.append(Problem(file, row, error.reason, error.detail))

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self) | {"passed_over": dict(self.passed_over), "bad": dict(self.bad)}

    def summary(self) -> str:
        """A few lines for people: what came in, what did not, and where the list is."""
        lines = [f"{self.rows:,} rows read, {self.kept:,} kept"]
        lines += [f"  {count:,} passed over: {reason}" for reason, count in self.passed_over.most_common()]
        lines += [f"  {count:,} left out: {reason}" for reason, count in self.bad.most_common()]
        return "\n".join(lines + ["Each one is listed by file and row in episodes.json."] * bool(self.bad))


def plain(text: str) -> str:
    """Text that UTF-8 can write: half a surrogate pair becomes a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")


def checked_question(text: Any) -> str:
    """A question without the places of its pictures, which stand before it here.

    Raises:
        BadRow: it is none.
    """
    question = plain(text).replace("<image>", " ").strip() if isinstance(text, str) else ""
    if not question:
        raise BadRow("no question")
    return question


def checked_answer(value: Any) -> str:
    """The answer of a row: a number or text, in `<answer>` tags (R1-V's solutions) or without.

    Raises:
        BadRow: there is none, or it cannot be verified.
    """
    whole = isinstance(value, int) and not isinstance(value, bool)  # of any length: no float holds them all
    is_number = whole or isinstance(value, float) and isfinite(value)
    text = plain(value) if isinstance(value, str) else f"{value}" if is_number else ""
    tagged = _TAGGED.findall(text)
    if len(tagged) > 1:
        raise BadRow("several answers", text)
    answer = (tagged[0] if tagged else text).strip()
    if not answer:
        raise BadRow("no answer")
    try:
        if readable(answer):
            return answer
    except Unverified as error:
        raise BadRow(f"an answer whose verification ends in an {error.kind}", answer) from error
    raise BadRow("an answer that cannot be verified", answer)


def episode(id: str, question: str, answer: str, pictures: Sequence[bytes], *, group: str, max_pixels: int) -> Episode:
    """An episode of a row.

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
    empty = dict(sentences=(), gold=(), labels=())
    return Episode(id, question, candidates=tuple(candidates), document=id, group=group, answer=answer, **empty)
