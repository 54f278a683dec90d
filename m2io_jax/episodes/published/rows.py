"""Rows of JSON Lines or Parquet, as the sets of R1-V and LMM-R1 are published.

    R1-V, OThink-MR1      image or images, problem, solution: "<answer> 3 </answer>"
    DeepScaleR            problem, answer
    LMM-R1 (VerMulti)     message: a chat as JSON in a string, with addresses of pictures; answer

A picture is a file below the folder of the data, or lies in the row as bytes (Parquet).
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from m2io_jax.corpus.pictures import PictureLimits
from m2io_jax.corpus.references import Unresolved, resolve
from m2io_jax.episodes.building import SPLITS
from m2io_jax.episodes.episode import Episode
from m2io_jax.episodes.published.draft import (
    BadRow,
    ReadConfig,
    ReadReport,
    checked_answer,
    checked_question,
    episode,
    plain,
)
from m2io_jax.errors import UserError

SUFFIXES = (".jsonl", ".parquet")
QUESTIONS, ANSWERS, PICTURES = ("problem", "question", "prompt"), ("answer", "solution"), ("images", "image")
UNREADABLE = "a file that cannot be read from here on"
ROWS_AT_ONCE = 64  # of a Parquet file: rows may hold large pictures
MOST_BYTES = PictureLimits().max_bytes


@dataclass(frozen=True)
class Row:
    """A row as it was found: its file, its number in it from 1, and its values; or what is wrong with it."""

    file: Path
    number: int
    values: Mapping[str, Any] | BadRow


class RowsReader:
    """Reads every JSON Lines and Parquet file of a folder, or one of them.

    Args:
        source: the folder or the file. Pictures are looked for below it, or below the file's folder. Hidden files, and
            links that lead elsewhere, are passed over.
        report: is filled.

    Raises:
        UserError: there is nothing to read.
    """

    def __init__(self, source: Path, config: ReadConfig, report: ReadReport):
        self.config, self.report = config, report
        if not source.exists():
            raise UserError("There is nothing to read: no such file or folder.", where=str(source))
        self.root = (source if source.is_dir() else source.parent).resolve()
        found = sorted(self.root.rglob("*")) if source.is_dir() else [self.root / source.name]
        self.files = [path for path in found if path.suffix.lower() in SUFFIXES and self._inside(path)]
        if not self.files:
            mend = f"name a file, or a folder of files, ending in {' or '.join(SUFFIXES)}"
            raise UserError("There is nothing to read.", where=str(source), mend=mend)

    def episodes(self, split: str) -> Iterator[Episode]:
        """The episodes of a split. A row too broken to belong to one is told with the first."""
        for row in self._rows():
            name, belongs = plain(row.file.relative_to(self.root).as_posix()), split == SPLITS[0]
            try:
                question, addresses = _asked(_good(row.values))
                group = _group(question, addresses)
                belongs = self.config.split(group) == split
                made = self._episode(f"{name}:{row.number}", row, question, addresses, group) if belongs else None
            except BadRow as error:
                made = None
                if belongs:
                    self.report.add(name, row.number, error)
            self.report.rows += belongs
            if made is not None:
                self.report.kept += 1
                yield made

    def _episode(self, id: str, row: Row, question: str, addresses: list[str | bytes], group: str) -> Episode:
        answer = checked_answer(next((row.values[key] for key in ANSWERS if row.values.get(key) is not None), None))
        data = [self._picture(address, row.file) for address in addresses]
        return episode(id, question, answer, data, group=group, max_pixels=self.config.max_pixels)

    def _rows(self) -> Iterator[Row]:
        for file in self.files:
            rows = _json_lines(file) if file.suffix.lower() == ".jsonl" else _parquet(file)
            yield from islice(rows, self.config.most or None)

    def _inside(self, path: Path) -> bool:
        hidden = any(part.startswith(".") for part in path.relative_to(self.root).parts)
        return not hidden and path.is_file() and path.resolve().is_relative_to(self.root)

    def _picture(self, address: str | bytes, file: Path) -> bytes:
        if isinstance(address, bytes):
            return address
        address = address.removeprefix("file://")
        if Path(address).is_relative_to(self.root):
            address = Path(address).relative_to(self.root).as_posix()
        try:
            found = resolve(address, file, self.root)
            if found.stat().st_size > MOST_BYTES:
                raise BadRow("a picture that is broken", f"{address}: more than {MOST_BYTES:,} bytes")
            return found.read_bytes()
        except Unresolved as error:
            raise BadRow(f"a picture that is {error.kind}", f"{address}: {error.reason}") from error
        except OSError as error:
            raise BadRow("a picture that is broken", f"{address}: {error.strerror}") from error


def _json_lines(file: Path) -> Iterator[Row]:
    number = 0
    try:
        with open(file, "rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield Row(file, number, _json(line))
    except OSError as error:
        yield Row(file, number + 1, BadRow(UNREADABLE, str(error)))


def _json(line: bytes) -> Any:
    try:
        return json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        return BadRow("a line that is not JSON", str(error))


def _parquet(file: Path) -> Iterator[Row]:
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            for batch in table.iter_batches(ROWS_AT_ONCE):
                for index in range(batch.num_rows):
                    number += 1
                    yield Row(file, number, _values(batch.slice(index, 1)))
    except (pyarrow.ArrowException, OSError) as error:
        yield Row(file, number + 1, BadRow(UNREADABLE, str(error)))


def _values(batch: Any) -> Mapping[str, Any] | BadRow:
    """The row of a batch of one: text that is not UTF-8, or a date beyond Python's, would fail a whole batch."""
    try:
        return batch.to_pylist()[0]
    except (ValueError, OverflowError) as error:
        return BadRow("a row that cannot be read", str(error))


def _good(values: Any) -> Mapping[str, Any]:
    if isinstance(values, BadRow):
        raise values
    if not isinstance(values, Mapping):
        raise BadRow("a row without columns", str(values))
    return values


def _asked(values: Mapping[str, Any]) -> tuple[str, list[str | bytes]]:
    """The question, and where its pictures are or what they are."""
    if values.get("message") is not None:
        return _from_chat(values["message"])
    question = next((values[key] for key in QUESTIONS if values.get(key) is not None), None)
    found = next((values[key] for key in PICTURES if values.get(key) is not None), [])
    return checked_question(question), [_address(each) for each in (found if isinstance(found, list) else [found])]


def _from_chat(message: Any) -> tuple[str, list[str | bytes]]:
    """What the one user says in a chat; instructions of the system are the reader's own to give."""
    try:
        turns = json.loads(message) if isinstance(message, str) else message
        said = [turn["content"] for turn in turns if turn["role"] == "user"]
        others = [turn["role"] for turn in turns if turn["role"] not in ("user", "system")]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise BadRow("a message that is no chat", f"{message}") from error
    if len(said) != 1 or others:
        raise BadRow("a chat that is not one question", f"{len(said)} of the user, {len(others)} of others")
    parts = said[0] if isinstance(said[0], list) else [{"type": "text", "text": said[0]}]
    words, addresses = [], []
    for part in parts:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text" and isinstance(part.get("text"), str):
            words.append(part["text"])
        elif kind in ("image", "image_url"):
            addresses.append(_address(part.get(kind)))
        else:
            raise BadRow("a message with a part that is neither text nor picture", f"{part}")
    return checked_question("\n".join(words)), addresses


def _address(value: Any) -> str | bytes:
    """Of a picture: its bytes where the row holds them, else its address."""
    if isinstance(value, Mapping):
        value = next((value[key] for key in ("bytes", "path", "url") if value.get(key)), None)
    if not isinstance(value, str | bytes) or not value:
        raise BadRow("a picture without an address", f"{value}")
    return value


def _group(question: str, addresses: list[str | bytes]) -> str:
    """Rows that show the same pictures, or ask the same without one, are of one group and so of one split."""
    shown = addresses or [question]
    parts = [hashlib.sha256(part if isinstance(part, bytes) else part.encode("utf-8", "replace")) for part in shown]
    return hashlib.sha256(b"".join(part.digest() for part in parts)).hexdigest()[:16]
