"""Searching a corpus: passages and pictures for a question.

    retrieval.json                    format, version, encoder, and which corpus the index was built from: written last
    encoder/                          what the encoder needs
    passages/, pictures/              one vector index each
    passages.jsonl, pictures.jsonl    what row i of each index is

An index belongs to one state of one corpus and is refused with any other. Its files belong to one build: retrieval.json
holds the size and a digest of each, or of the file in which a folder describes its own.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float

from m2io_jax.corpus.store import Corpus
from m2io_jax.errors import UserError
from m2io_jax.files import describe_files, replaced_whole, require_described
from m2io_jax.retrieval.encoder import ENCODERS, Encoder, TfidfEncoder, unit
from m2io_jax.retrieval.index import VectorIndex
from m2io_jax.retrieval.passages import PART_WEIGHTS, Passage, PicturePlace, cut_passages, picture_places
from m2io_jax.retrieval.words import content_words

FORMAT = "m2io-retrieval"
VERSION = 1
FILES = ("passages/index.json", "pictures/index.json", "passages.jsonl", "pictures.jsonl")

# How much a passage's headings and its page's title count beside its text, in which they also stand.
HEADING_WEIGHT = 0.8

Row = TypeVar("Row")


@dataclass(frozen=True)
class PassageHit:
    """A passage found for a question; `score` is the cosine of their vectors, in [-1, 1]."""

    score: float
    passage: Passage


@dataclass(frozen=True)
class PictureHit:
    """A picture found for a question, at its best-scoring place; `score` as in `PassageHit`."""

    score: float
    place: PicturePlace


def index_folder(corpus: Path) -> Path:
    """Where a corpus keeps its index."""
    return corpus / "index"


def build_index(corpus: Corpus, out: str | Path, *, encoder: Encoder | None = None) -> dict[str, Any]:
    """Indexes the passages and pictures of `corpus` in folder `out` and returns the index's manifest.

    A former index at `out` is replaced when the new one is complete. Without `encoder` the embedded one is fitted on
    the corpus.

    Raises:
        UserError: `out` holds something that is not an index, or cannot be written.
    """
    out = Path(os.path.abspath(out))
    _check_replaceable(out)
    passages = [passage for document in corpus.documents for passage in cut_passages(document)]
    places = [place for document in corpus.documents for place in picture_places(document)]
    titles = {document.id: document.title for document in corpus.documents}
    texts = [_passage_text(passage, titles[passage.document]) for passage in passages]
    if encoder is None:
        encoder = TfidfEncoder.fit(texts + [place.caption for place in places if place.caption])
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "encoder": encoder.kind,
        "passages": len(passages),
        "pictures": len(places),
        "corpus": {"name": corpus.name, "documents": len(corpus.documents), "fingerprint": fingerprint(corpus)},
    }
    try:
        with replaced_whole(out, alone=False) as draft:  # two first answers may each make the kitchen's
            encoder.save(draft / "encoder")
            VectorIndex.build(passage_vectors(encoder, passages, titles)).save(draft / "passages")
            VectorIndex.build(picture_vectors(encoder, places)).save(draft / "pictures")
            _write_rows(draft / "passages.jsonl", passages)
            _write_rows(draft / "pictures.jsonl", places)
            encoders = [path.relative_to(draft).as_posix() for path in draft.glob("encoder/**/*") if path.is_file()]
            manifest["files"] = describe_files(draft, [*encoders, *FILES])
            (draft / "retrieval.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise _unwritable(out, error) from error
    return manifest


class Retriever:
    """Searches an index that `build_index` wrote; `Retriever.open(folder, corpus)`.

    Attributes:
        encoder: what texts are compared with.
        manifest: contents of `retrieval.json`.
    """

    def __init__(
        self,
        manifest: dict[str, Any],
        encoder: Encoder,
        passages: tuple[VectorIndex, Sequence[Passage]],
        pictures: tuple[VectorIndex, Sequence[PicturePlace]],
    ):
        self.manifest, self.encoder = manifest, encoder
        self._passage_index, self._passages = passages
        self._picture_index, self._pictures = pictures
        self._different_pictures = len({place.picture for place in self._pictures})

    @classmethod
    def open(cls, folder: str | Path, corpus: Corpus) -> "Retriever":
        """Opens the index in `folder`, which must have been built from `corpus` as it is now.

        Raises:
            UserError: no index there, a damaged one, one of an unknown version, or one of another corpus.
        """
        folder = Path(folder)
        manifest = _read_manifest(folder)
        if manifest["corpus"]["fingerprint"] != fingerprint(corpus):
            raise UserError(
                f"The index was built from another corpus or another state of it: {manifest['corpus']['name']!r} with "
                f"{manifest['corpus']['documents']} documents. The corpus given is {corpus.name!r}.",
                where=str(folder),
                mend=f"Build the index again for {corpus.path}.",
            )
        if manifest["encoder"] not in ENCODERS:
            what = f"The index was built with the encoder {manifest['encoder']!r}; known are {', '.join(ENCODERS)}."
            raise UserError(what, where=str(folder / "retrieval.json"), mend="Build the index again.")
        _require_one_build(folder, manifest)
        encoder = ENCODERS[manifest["encoder"]](folder / "encoder")
        indexes = [VectorIndex.load(folder / name) for name in ("passages", "pictures")]
        for index, name in zip(indexes, ("passages", "pictures"), strict=True):
            if index.dim != encoder.dim:
                what = f"The index is damaged: vectors of {index.dim} dimensions, but the encoder gives {encoder.dim}."
                raise UserError(what, where=str(folder / name), mend="Build the index again.")
        return cls(
            manifest,
            encoder,
            _with_rows(indexes[0], folder / "passages.jsonl", Passage),
            _with_rows(indexes[1], folder / "pictures.jsonl", PicturePlace),
        )

    def passages(self, question: str, k: int) -> list[PassageHit]:
        """At most `k` passages for `question`, best first."""
        return self.passages_batch([question], k)[0]

    def pictures(self, question: str, k: int) -> list[PictureHit]:
        """At most `k` different pictures for `question`, best first."""
        return self.pictures_batch([question], k)[0]

    def passages_batch(self, questions: Sequence[str], k: int) -> list[list[PassageHit]]:
        """`passages` for many questions at once."""
        vectors = _encode_content(self.encoder, questions)
        found = zip(*self._passage_index.search(vectors, k), strict=True)
        return [
            [PassageHit(float(score), self._passages[row]) for row, score in zip(rows, scores, strict=True) if row >= 0]
            for rows, scores in found
        ]

    def pictures_batch(self, questions: Sequence[str], k: int) -> list[list[PictureHit]]:
        """`pictures` for many questions at once."""
        vectors = self.encoder.encode(questions)
        taken, total, k = k, self._picture_index.n, min(k, self._different_pictures)
        while True:
            # A picture can stand in many places, and counts once: look further until there are k different ones.
            taken = min(total, 2 * taken)
            found = zip(*self._picture_index.search(vectors, taken), strict=True)
            hits = [self._different(rows, scores, k) for rows, scores in found]
            if taken == total or all(len(each) == k for each in hits):
                return hits

    def _different(self, rows: np.ndarray, scores: np.ndarray, k: int) -> list[PictureHit]:
        best: dict[str, PictureHit] = {}
        for row, score in zip(rows, scores, strict=True):
            if row >= 0 and len(best) < k:
                place = self._pictures[row]
                best.setdefault(place.picture, PictureHit(float(score), place))
        return list(best.values())


def passage_vectors(
    encoder: Encoder, passages: Sequence[Passage], titles: Mapping[str, str]
) -> Float[np.ndarray, "passages dim"]:
    """Return unit vectors of passages: their text, and once more their headings, by `HEADING_WEIGHT`.

    Stop words are left out, as they are of questions.

    Args:
        titles: title of each document by its id.
    """
    texts = [_passage_text(passage, titles[passage.document]) for passage in passages]
    headings = [" ".join(_headings(passage, titles[passage.document])) for passage in passages]
    return unit(_encode_content(encoder, texts) + HEADING_WEIGHT * _encode_content(encoder, headings))


def picture_vectors(encoder: Encoder, places: Sequence[PicturePlace]) -> Float[np.ndarray, "places dim"]:
    """Unit vectors of pictures: the parts of their description, weighted by `PART_WEIGHTS`."""
    total = np.zeros((len(places), encoder.dim), np.float32)
    for part, weight in PART_WEIGHTS.items():
        texts = [getattr(place, part) for place in places]
        said = np.array([bool(text.strip()) for text in texts], bool)
        if said.any():
            total[said] += weight * encoder.encode([text for text in texts if text.strip()])
    return unit(total)


def fingerprint(corpus: Corpus) -> str:
    """SHA-256 of the corpus's documents as they lie on disk. Raises UserError where they cannot be read."""
    path = corpus.path / "documents.jsonl"
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        what = f"The corpus's documents cannot be read: {error.strerror or error}."
        raise UserError(what, where=str(path), mend="Import the documents again.") from error


def _encode_content(encoder: Encoder, texts: Sequence[str]) -> Float[np.ndarray, "texts dim"]:
    """Encode texts without their stop words, and whole where nothing else is known of them ("What you will make")."""
    vectors = encoder.encode([content_words(text) for text in texts])
    unknown = np.flatnonzero(~vectors.any(axis=1))
    if len(unknown):
        vectors[unknown] = encoder.encode([texts[index] for index in unknown])
    return vectors


def _passage_text(passage: Passage, title: str) -> str:
    return " ".join([*_headings(passage, title), passage.text])


def _headings(passage: Passage, title: str) -> tuple[str, ...]:
    return passage.section if title in passage.section else (title, *passage.section)


def _write_rows(path: Path, rows: Iterable[Passage | PicturePlace]) -> None:
    # Lists, not objects: the field names would be more than half of the file.
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(astuple(row), ensure_ascii=False) + "\n" for row in rows)


def _require_one_build(folder: Path, manifest: dict[str, Any]) -> None:
    """Raise UserError, naming the file, if one is not of the build that `retrieval.json` describes.

    An older version described none: then what lies in the index's own folders is checked alone.
    """
    try:
        require_described(folder, manifest.get("files", {}), by="retrieval.json")
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"The index is damaged: {error}", where=str(folder), mend="Build the index again.") from error


def _with_rows(index: VectorIndex, path: Path, kind: type[Row]) -> tuple[VectorIndex, list[Row]]:
    try:
        with open(path, encoding="utf-8", newline="\n") as file:
            values = [json.loads(line) for line in file]
        rows = [kind(*[tuple(value) if isinstance(value, list) else value for value in row]) for row in values]
        if len(rows) != index.n:
            raise ValueError(f"{len(rows)} rows for {index.n} vectors")
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"The index is damaged: {error}", where=str(path), mend="Build the index again.") from error
    return index, rows


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / "retrieval.json"
    again = "Build the index again."
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        known = manifest["format"] == FORMAT and manifest["version"] == VERSION
        complete = "encoder" in manifest and {"name", "documents", "fingerprint"} <= set(manifest["corpus"])
        if not complete:
            raise KeyError("encoder, corpus")
    except FileNotFoundError as error:
        mend = "Build one: m2io index CORPUS"
        raise UserError("There is no search index here.", where=str(folder), mend=mend) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError("The search index cannot be read.", where=str(path), mend=again) from error
    if not known:
        what = f"The index is {manifest['format']} version {manifest['version']}, not {FORMAT} version {VERSION}."
        raise UserError(what, where=str(path), mend=again)
    return manifest


def _check_replaceable(out: Path) -> None:
    mend = "Name a new folder, or remove this one yourself."
    if out.exists() and not out.is_dir():
        raise UserError("The output is a file; an index is a folder.", where=str(out), mend=mend)
    try:
        if out.is_dir() and any(out.iterdir()) and not (out / "retrieval.json").is_file():
            raise UserError("The output folder holds something that is not a search index.", where=str(out), mend=mend)
    except OSError as error:
        raise _unwritable(out, error) from error


def _unwritable(out: Path, error: OSError) -> UserError:
    return UserError(
        f"The index cannot be written: {error.strerror or error}.",
        where=str(out),
        mend="Name a folder that you may write to, on a disk with room.",
    )
