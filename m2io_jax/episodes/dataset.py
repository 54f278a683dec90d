"""Episodes on disk: a versioned TFDS data set in ArrayRecord, read by random access, with no TensorFlow in sight.

episodes.json                                   provenance, counts, dropped rows; written last
1.2.0/dataset_info.json, features.json          TFDS's own description
1.2.0/m2io_episodes-train.array_record-00000-of-00001    shards, see shards.py
"""

import contextlib
import io
import itertools
import json
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from m2io_jax.episodes.episode import Candidate, Episode, Placement, QuestionImage
from m2io_jax.episodes.shards import write_splits
from m2io_jax.errors import UserError
from m2io_jax.files import sampled_digest

RELEASES = {  # all can be read
    "1.0.0": "First version.",
    "1.1.0": "Verified answers and how one comes to them.",
    "1.2.0": "Where images stand in a question.",
}
VERSION = "1.2.0"  # what is written
FORMAT = "m2io-episodes"
NAME = "m2io_episodes"
OURS = {"episodes.json", "building", *RELEASES}

# Bytes without a length or a closing zero cut off, which is what numpy's own byte strings would do to a PNG.
_BYTES = np.object_


class _Info(tfds.core.DatasetInfo):
    def initialize_from_bucket(self) -> None:
        """Nothing of ours is in TFDS's bucket; to look there would leave a temporary folder behind."""


class M2ioEpisodes(tfds.core.GeneratorBasedBuilder):
    """The TFDS builder: it describes the data set. Its rows are written by `shards.py`."""

    VERSION = tfds.core.Version(VERSION)
    RELEASE_NOTES = RELEASES
    name = NAME
    # Nothing is downloaded, so TFDS need not look for checksums beside this file (for which it wants one more package).
    url_infos: ClassVar[dict[str, Any]] = {}

    def __init__(self, **options: Any):
        super().__init__(file_format="array_record", **options)

    def _info(self) -> tfds.core.DatasetInfo:
        return _Info(
            builder=self,
            description="Questions, answers' sentences and candidate pictures, and where the pictures belong.",
            features=episode_features(),
        )

    def _split_generators(self, dl_manager: Any) -> None:
        raise NotImplementedError("rows are written by m2io_jax.episodes.shards")

    def _generate_examples(self) -> None:
        raise NotImplementedError("rows are written by m2io_jax.episodes.shards")


def episode_features() -> tfds.features.FeaturesDict:
    """The features of `Episode`; gold and labels are int32 [placements, 2], each row (slot, picture).

    `question_images` is int32 [images, 2], each row (offset, picture).
    """
    features = tfds.features
    placements = features.Tensor(shape=(None, 2), dtype=np.int32)
    return features.FeaturesDict(
        {
            "id": features.Text(),
            "question": features.Text(),
            "sentences": features.Sequence(features.Text()),
            "candidates": features.Sequence(
                {
                    "picture": features.Text(),
                    "data": features.Tensor(shape=(), dtype=_BYTES),
                    "caption": features.Text(),
                    "context": features.Text(),
                    "document": features.Text(),
                    "position": features.Scalar(np.int32),
                    "content": features.Text(),
                }
            ),
            "gold": placements,
            "labels": placements,
            "document": features.Text(),
            "group": features.Text(),
            "answer": features.Text(),
            "reasoning": features.Text(),
            "question_images": placements,
        }
    )


def to_example(episode: Episode) -> dict[str, Any]:
    """An episode as TFDS takes it."""
    return {
        **{name: getattr(episode, name) for name in ("id", "question", "document", "group", "answer", "reasoning")},
        "sentences": list(episode.sentences),
        "candidates": [dict(vars(candidate)) for candidate in episode.candidates],
        "gold": _pairs(episode.gold),
        "labels": _pairs(episode.labels),
        "question_images": np.array([(i.offset, i.picture) for i in episode.question_images], np.int32).reshape(-1, 2),
    }


def from_example(example: Mapping[str, Any]) -> Episode:
    """The inverse of `to_example`, of an example as TFDS's data source returns it, in any of `RELEASES`."""
    columns = example["candidates"]
    rows = ({name: column[i] for name, column in columns.items()} for i in range(len(columns["picture"])))
    return Episode(
        id=_text(example["id"]),
        question=_text(example["question"]),
        sentences=tuple(map(_text, example["sentences"])),
        candidates=tuple(_candidate(row) for row in rows),
        gold=_placements(example["gold"]),
        labels=_placements(example["labels"]),
        document=_text(example["document"]),
        group=_text(example["group"]),
        answer=_text(example.get("answer", "")),
        reasoning=_text(example.get("reasoning", "")),
        question_images=tuple(
            QuestionImage(int(offset), int(picture)) for offset, picture in example.get("question_images", ())
        ),
    )


def write_episodes(
    episodes_by_split: Mapping[str, Iterable[Episode]], out_dir: str | Path, metadata: Callable[[], Mapping[str, Any]]
) -> dict[str, int]:
    """Writes the data set into folder `out_dir`; a data set that was there is replaced when this one is whole.

    Args:
        episodes_by_split: rows of each split, read once and one after the other. Splits without rows are left out,
            since TFDS has no empty ones.
        out_dir: a new or empty folder, or one that this function wrote.
        metadata: called when all rows are written; what it returns goes into `episodes.json` (plain JSON values).

    Returns:
        The number of episodes in each split, 0 included.

    Raises:
        UserError: the folder holds something else or cannot be written, or there is no episode at all.
    """
    out = Path(out_dir)
    _check_replaceable(out)
    counts = dict.fromkeys(episodes_by_split, 0)
    rows = {split: itertools.chain(head, rest) for split, (head, rest) in _begun(episodes_by_split, counts).items()}
    if not rows:
        raise UserError("There is no episode to write.", where=str(out), mend="See the reasons for dropped rows.")
    building = out / "building"
    try:
        out.mkdir(parents=True, exist_ok=True)
        _remove(building)
        with _quiet():
            builder = M2ioEpisodes(data_dir=str(building))
            drafted = Path(builder.data_dir)
            drafted.mkdir(parents=True)
            examples = {split: ((row.id, to_example(row)) for row in rows[split]) for split in rows}
            write_splits(builder.info, drafted, examples)
        # The manifest goes first and comes last: what is left by a kill in between is known to be unfinished.
        (out / "episodes.json").unlink(missing_ok=True)
        for release in RELEASES:
            _remove(out / release)
        # TFDS nests folders by name; a data set of ours has a folder to itself.
        drafted.rename(out / VERSION)
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "episodes": counts,
            **metadata(),
        }
        (out / "episodes.json").write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise _unwritable(out, error) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return counts


class EpisodeSource:
    """One split, read by random access. Safe to read from several threads.

    Attributes:
        split: its name.
    """

    def __init__(self, records: Any, split: str, folder: Path):
        self._records, self.split, self._folder = records, split, folder

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Episode:
        """Negative indices count from the end, as in a list.

        Raises:
            IndexError: past either end.
            UserError: the file is damaged there; it is opened, and found to be cut short, no earlier.
        """
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(f"episode {index} of {len(self)} in {self.split}")
        try:
            return from_example(self._records[int(position)])
        except Exception as error:  # ArrayRecord and TFDS raise many types on damaged files
            raise _unreadable(self._folder, error) from error

    def __iter__(self) -> Iterator[Episode]:
        return (self[index] for index in range(len(self)))

    def fingerprint(self) -> str:
        """Of its records, as `sampled_digest`."""
        return sampled_digest(self._folder, f"*-{self.split}.array_record*")

    def __repr__(self) -> str:
        return f"EpisodeSource({self.split!r}, {len(self)} episodes)"


def open_episodes(folder: str | Path, split: str) -> EpisodeSource:
    """Opens one split of a data set written by `write_episodes`.

    Raises:
        UserError: no such folder, not a data set, an unfinished one, another version, no such split, a damaged file.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    counts, data = manifest["episodes"], folder / manifest["version"]
    if not counts.get(split):
        known = ", ".join(f"{name} ({count})" for name, count in counts.items() if count)
        what = f"The data set has no split {split!r}." if split not in counts else f"Split {split!r} has no episode."
        raise UserError(what, where=str(folder), mend=f"Splits with episodes: {known}.")
    try:
        with _quiet():
            builder = tfds.builder_from_directory(str(data))
            return EpisodeSource(builder.as_data_source(split), split, data)
    except Exception as error:  # TFDS raises many types on missing and damaged files
        raise _unreadable(data, error) from error


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """What `episodes.json` says. Raises UserError as `open_episodes` does."""
    folder = Path(folder)
    mend = "Build them with: m2io episodes CORPUS " + str(folder)
    if not folder.is_dir():
        raise UserError("There are no episodes here: no such folder.", where=str(folder), mend=mend)
    file = folder / "episodes.json"
    if not file.is_file():
        unfinished = any((folder / name).exists() for name in ("building", *RELEASES))
        what = "The episodes are unfinished." if unfinished else "This folder holds no episodes.json."
        raise UserError(what, where=str(folder), mend=mend)
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        known = manifest["format"] == FORMAT and isinstance(manifest["episodes"], dict)
        version = manifest["version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError("The data set's episodes.json cannot be read.", where=str(file), mend=mend) from error
    if not known or version not in RELEASES:
        readable = " and ".join(RELEASES)
        what = f"The data set is {manifest['format']} version {version}; this program reads {FORMAT} {readable}."
        raise UserError(what, where=str(file), mend=mend)
    return manifest


def _begun(
    episodes_by_split: Mapping[str, Iterable[Episode]], counts: dict[str, int]
) -> dict[str, tuple[list[Episode], Iterator[Episode]]]:
    """Each split that has a first row, as that row and the rest; counts rows in `counts` as they are read."""

    def counted(split: str, rows: Iterable[Episode]) -> Iterator[Episode]:
        for row in rows:
            counts[split] += 1
            yield row

    begun = {}
    for split, rows in episodes_by_split.items():
        rest = counted(split, rows)
        head = list(itertools.islice(rest, 1))
        if head:
            begun[split] = (head, rest)
    return begun


def _check_replaceable(out: Path) -> None:
    """Raises UserError where `out` holds anything but what `write_episodes` wrote."""
    mend = "Name a new folder, or remove this one yourself."
    if out.exists() and not out.is_dir():
        raise UserError("The output is a file; a data set is a folder.", where=str(out), mend=mend)
    try:
        foreign = sorted(path.name for path in out.iterdir() if path.name not in OURS) if out.exists() else []
    except OSError as error:
        raise _unwritable(out, error) from error
    if foreign:
        what = f"The output folder holds something that is not a data set of episodes: {foreign[0]}."
        raise UserError(what, where=str(out), mend=mend)


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def _unreadable(data: Path, error: Exception) -> UserError:
    first_line = (str(error).splitlines() or [type(error).__name__])[0]
    mend = "Copy it again, whole, or build the episodes again."
    return UserError(f"The data set cannot be read: {first_line}", where=str(data), mend=mend)


def _unwritable(out: Path, error: OSError) -> UserError:
    return UserError(
        f"The episodes cannot be written: {error.strerror or error}.",
        where=str(error.filename or out),
        mend="Name a folder that you may write to, on a disk with room.",
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """TFDS without its progress bars and announcements, which know nothing of ours."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def _pairs(placements: Iterable[Placement]) -> np.ndarray:
    return np.array([(p.slot, p.picture) for p in placements], np.int32).reshape(-1, 2)


def _placements(pairs: np.ndarray) -> tuple[Placement, ...]:
    return tuple(Placement(slot=int(slot), picture=int(picture)) for slot, picture in np.asarray(pairs).reshape(-1, 2))


def _candidate(row: Mapping[str, Any]) -> Candidate:
    texts = ("picture", "caption", "context", "document", "content")
    words = {name: _text(row[name]) for name in texts}
    return Candidate(data=bytes(row["data"]), position=int(row["position"]), **words)


def _text(value: bytes | str) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)
