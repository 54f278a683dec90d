"""A corpus on disk: documents and questions as JSON Lines, each picture once under the hash of its content.

corpus.json          format, version, name, counts: written last, so that a killed import is noticed
documents.jsonl      one document a line
questions.jsonl      one question a line
pictures/ab/ab12.png
"""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from m2io_jax.corpus.documents import AnswerPicture, Block, Document, PictureBlock, Question, TextBlock
from m2io_jax.errors import UserError
from m2io_jax.files import put_in_place, read_json_lines

FORMAT = "m2io-corpus"
VERSION = 1

HASH = re.compile(r"[0-9a-f]{64}")
EXTENSION = re.compile(r"[a-z0-9]{1,8}")

Row = TypeVar("Row")


class Corpus:
    """A corpus that was written by `CorpusWriter`. Documents and questions are read once, when first asked for.

    Attributes:
        path: its folder.
        name, version: as `corpus.json` has them.
    """

    def __init__(self, path: Path, manifest: dict[str, Any]):
        self.path = path
        self.name: str = manifest["name"]
        self.version: int = manifest["version"]

    @classmethod
    def open(cls, path: str | Path) -> "Corpus":
        """Opens the corpus in folder `path`.

        Raises:
            UserError: no such folder, not a corpus, an unfinished one, or one of a version that is not known here.
        """
        return cls(Path(path), _read_manifest(Path(path)))

    @cached_property
    def documents(self) -> tuple[Document, ...]:
        """All documents, in the order of the file. Raises UserError for a damaged line."""
        return tuple(_read_rows(self.path / "documents.jsonl", document_from_json, "a document"))

    @cached_property
    def questions(self) -> tuple[Question, ...]:
        """All questions; empty where the corpus has none. Raises UserError for a damaged line."""
        return tuple(_read_rows(self.path / "questions.jsonl", question_from_json, "a question"))

    @cached_property
    def _by_id(self) -> dict[str, Document]:
        return {document.id: document for document in self.documents}

    def document(self, id: str) -> Document:
        """The document named `id`. Raises UserError where there is none."""
        try:
            return self._by_id[id]
        except KeyError:
            raise UserError(f"The corpus has no document {id!r}.", where=str(self.path / "documents.jsonl")) from None

    def picture(self, hash: str) -> bytes:
        """The encoded file of the picture whose SHA-256 is `hash` (64 lower-case hexadecimal digits).

        Raises:
            UserError: not a hash, or no such picture.
        """
        return self.picture_path(hash).read_bytes()

    def picture_path(self, hash: str) -> Path:
        """Where the picture's file lies. Raises as `picture` does."""
        # A hash may come from a request or a foreign file: nothing but hexadecimal digits becomes part of a path.
        if not HASH.fullmatch(hash):
            raise UserError(f"{hash!r} is not a picture's content hash.", where=str(self.path))
        found = sorted((self.path / "pictures" / hash[:2]).glob(f"{hash}.*"))
        if not found:
            raise UserError(
                f"The corpus lacks the picture {hash}.",
                where=str(self.path / "pictures" / hash[:2]),
                mend="Import the documents again.",
            )
        return found[0]


class CorpusWriter:
    """Writes a corpus; `with CorpusWriter(path, name=...) as writer:`.

    Everything goes to a sibling folder that takes the place of `path` when the block ends without an exception. A
    corpus that was there before is replaced; any other folder with something in it is not touched.

    Raises:
        UserError: `path` holds something that is not a corpus, or cannot be written.
    """

    def __init__(self, path: str | Path, *, name: str):
        self.path = Path(path).resolve()
        self.name = name
        self._draft = self.path.with_name(f".{self.path.name}.unfinished")
        self._extensions: dict[str, str] = {}
        self._folders: set[str] = set()
        self._ids: dict[str, set[str]] = {"documents": set(), "questions": set()}
        self._files: dict[str, Any] = {}

    def __enter__(self) -> "CorpusWriter":
        _check_replaceable(self.path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(self._draft, ignore_errors=True)
            (self._draft / "pictures").mkdir(parents=True)
            for kind in self._ids:
                self._files[kind] = open(self._draft / f"{kind}.jsonl", "w", encoding="utf-8")
        except OSError as error:
            self._discard()
            raise _unwritable(self.path, error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._discard()
            if isinstance(error, OSError):
                raise _unwritable(self.path, error) from error
            return
        try:
            self._finish()
        except OSError as failure:
            self._discard()
            raise _unwritable(self.path, failure) from failure

    def add_document(self, document: Document) -> None:
        """Adds a document. Raises ValueError where its id was used before."""
        self._add("documents", document.id, document_to_json(document))

    def add_question(self, question: Question) -> None:
        """Adds a question. Raises ValueError where its id was used before."""
        self._add("questions", question.id, asdict(question))

    def add_picture(self, data: bytes, *, extension: str) -> str:
        """Stores an encoded picture, once however often it is added, and returns its SHA-256 in hexadecimal digits."""
        if not EXTENSION.fullmatch(extension):
            raise ValueError(f"extension {extension!r}: one to eight lower-case letters or digits, no dot")
        digest = hashlib.sha256(data).hexdigest()
        if digest not in self._extensions:
            folder = self._draft / "pictures" / digest[:2]
            if digest[:2] not in self._folders:
                folder.mkdir(exist_ok=True)
                self._folders.add(digest[:2])
            with open(f"{folder}/{digest}.{extension}", "wb") as file:
                file.write(data)
            self._extensions[digest] = extension
        return digest

    def add_file(self, name: str, text: str) -> None:
        """Adds a text file beside the corpus's own, such as the import report. `name` is a plain file name."""
        if Path(name).name != name or name in ("corpus.json", "documents.jsonl", "questions.jsonl"):
            raise ValueError(f"{name!r} cannot name a further file of a corpus")
        (self._draft / name).write_text(text, encoding="utf-8")

    def _add(self, kind: str, id: str, row: dict[str, Any]) -> None:
        if id in self._ids[kind]:
            raise ValueError(f"two {kind} are named {id!r}")
        self._ids[kind].add(id)
        self._files[kind].write(json.dumps(row, ensure_ascii=False) + "\n")

    def _finish(self) -> None:
        for file in self._files.values():
            file.close()
        counts = {kind: len(ids) for kind, ids in self._ids.items()} | {"pictures": len(self._extensions)}
        manifest = {"format": FORMAT, "version": VERSION, "name": self.name, "counts": counts}
        (self._draft / "corpus.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        _check_replaceable(self.path)
        put_in_place(self._draft, self.path)

    def _discard(self) -> None:
        for file in self._files.values():
            with suppress(OSError):  # on a full disk, what is still to be written fails once more
                file.close()
        shutil.rmtree(self._draft, ignore_errors=True)


def document_to_json(document: Document) -> dict[str, Any]:
    """A document as plain JSON values; a picture block is told from a text block by its key `picture`.

    Only decorations have the key `decoration`.
    """
    # `asdict` copies every value, which takes most of an import's time where nothing is decoded anew.
    blocks = [vars(block) if isinstance(block, TextBlock) else _picture_row(block) for block in document.blocks]
    return vars(document) | {"blocks": blocks}


def _picture_row(block: PictureBlock) -> dict[str, Any]:
    return {key: value for key, value in vars(block).items() if value or key != "decoration"}


def document_from_json(row: dict[str, Any]) -> Document:
    """The inverse of `document_to_json`. Raises KeyError or TypeError for a row of another shape."""
    return Document(**(row | {"blocks": tuple(_block(block) for block in row["blocks"])}))


def question_from_json(row: dict[str, Any]) -> Question:
    """A question from plain JSON values. Raises KeyError or TypeError for a row of another shape."""
    return Question(
        **row
        | {
            "sentences": tuple(row["sentences"]),
            "pictures": tuple(AnswerPicture(**picture) for picture in row["pictures"]),
            "contents": tuple(row.get("contents", ())),
        }
    )


def _block(row: dict[str, Any]) -> Block:
    return PictureBlock(**row) if "picture" in row else TextBlock(**row)


def _read_manifest(path: Path) -> dict[str, Any]:
    again = "Import the documents again."
    if not path.is_dir():
        raise UserError("There is no corpus here: no such folder.", where=str(path), mend="Check the path.")
    file = path / "corpus.json"
    if not file.is_file():
        started = (path / "documents.jsonl").exists()
        what = "The corpus is unfinished." if started else "This folder is not a corpus: it has no corpus.json."
        raise UserError(what, where=str(path), mend=again if started else "Name a folder that an import has written.")
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        found, _ = (manifest["format"], manifest["version"]), manifest["name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError("The corpus's corpus.json cannot be read.", where=str(file), mend=again) from error
    if found != (FORMAT, VERSION):
        what = f"The corpus is {found[0]} version {found[1]}; this program reads {FORMAT} version {VERSION}."
        raise UserError(what, where=str(file), mend=again)
    return manifest


def _read_rows(file: Path, make: Callable[[dict[str, Any]], Row], what: str) -> Iterator[Row]:
    if not file.is_file():
        raise UserError("The corpus lacks a file.", where=str(file), mend="Import the documents again.")
    yield from read_json_lines(file, make, what=what, mend="Import the documents again.")


def _check_replaceable(path: Path) -> None:
    mend = "Name a new folder, or remove this one yourself."
    if path.exists() and not path.is_dir():
        raise UserError("The output is a file; a corpus is a folder.", where=str(path), mend=mend)
    try:
        holds_something = path.is_dir() and any(path.iterdir())
    except OSError as error:
        raise _unwritable(path, error) from error
    if holds_something and not _is_corpus(path):
        raise UserError("The output folder holds something that is not a corpus.", where=str(path), mend=mend)


def _is_corpus(path: Path) -> bool:
    try:
        return json.loads((path / "corpus.json").read_text(encoding="utf-8"))["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _unwritable(path: Path, error: OSError) -> UserError:
    return UserError(
        f"The corpus cannot be written: {error.strerror or error}.",
        where=str(error.filename or path),
        mend="Name a folder that you may write to, on a disk with room.",
    )
