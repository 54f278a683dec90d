"""Rows of a file, one after another and within bounds: JSON Lines, a JSON array, Parquet.

A damaged row is left out and reported. Damage that hides where the next row begins costs the rest of the file.
"""

import codecs
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from m2io_jax.episodes.published.draft import BadRow

SUFFIXES = (".json", ".jsonl", ".parquet")
UNREADABLE = "a file that cannot be read from here on"
ROWS_AT_ONCE = 64  # of a Parquet file: rows may hold large pictures
MOST_ROW_BYTES = 128 * 2**20  # of a row in JSON
MOST_GROUP_BYTES = 8 * 2**30  # of a row group in Parquet, which is read as a whole
MOST_DEPTH = 32  # columns inside each other
CHUNK = 2**20
DECODER = json.JSONDecoder()
BETWEEN = re.compile(r"[ \t\r\n,]*")


@dataclass(frozen=True)
class Row:
    """A row as it was found: its file, its number in it from 1, and its values; or what is wrong with it."""

    file: Path
    number: int
    values: Mapping[str, Any] | BadRow


def read_rows(file: Path, data: Path | None = None) -> Iterator[Row]:
    """Read the rows of a file whose name ends in one of `SUFFIXES`.

    Args:
        file: as rows are told to come from it.
        data: the file that holds them, where that is another one.
    """
    data = data or file
    if file.suffix.lower() == ".parquet":
        found = _parquet(data)
    elif _is_array(data, file.suffix.lower()):
        found = _json_array(data)
    else:
        found = _json_lines(data)
    for number, values in found:
        yield Row(file, number, values if isinstance(values, BadRow) else _checked(values))


def holds_rows(file: Path) -> bool:
    """Return whether a `.json` file is an array or has an object a line.

    One object over many lines is no list of rows: a description of the set, or settings.
    """
    first = _first_sign(file)
    if first != b"{":
        return first == b"["
    try:
        with open(file, "rb") as lines:
            line = lines.readline(CHUNK)
            return len(line) == CHUNK or (isinstance(_json(line), Mapping) and bool(lines.read(1)))
    except OSError:
        return True


def _is_array(file: Path, suffix: str) -> bool:
    """Return whether a file is one JSON array. A `.jsonl` file may be, if no row is its first line."""
    if _first_sign(file) != b"[":
        return False
    if suffix == ".json":
        return True
    try:
        with open(file, "rb") as lines:
            return isinstance(_json(lines.readline(CHUNK)), BadRow) or not lines.read(1)
    except OSError:
        return False


def _first_sign(file: Path) -> bytes:
    try:
        with open(file, "rb") as opened:
            return opened.read(4096).removeprefix(codecs.BOM_UTF8).lstrip()[:1]
    except OSError:
        return b""


def _json_lines(file: Path) -> Iterator[tuple[int, Any]]:
    number = 0
    try:
        with open(file, "rb") as lines:
            while line := lines.readline(MOST_ROW_BYTES + 1):
                number += 1
                if len(line) > MOST_ROW_BYTES:
                    _skip_line(lines)
                    yield number, BadRow("a row that is too long", f"more than {MOST_ROW_BYTES:,} bytes")
                elif line.strip():
                    yield number, _json(line)
    except OSError as error:
        yield number + 1, BadRow(UNREADABLE, str(error))


def _skip_line(lines: BinaryIO) -> None:
    while (part := lines.readline(CHUNK)) and not part.endswith(b"\n"):
        pass


def _json(line: bytes) -> Any:
    try:
        return json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        return BadRow("a line that is not JSON", str(error))


def _json_array(file: Path) -> Iterator[tuple[int, Any]]:
    """Yield the elements of an array. They are read as they are needed: the file may be larger than the memory."""
    number, pieces = 1, _text(file)
    try:
        text = next(pieces, "")
        at = text.index("[") + 1
        while True:
            at = BETWEEN.match(text, at).end()
            while at == len(text):
                text, at = next(pieces), 0
                at = BETWEEN.match(text).end()
            if text[at] == "]":
                if (text[at + 1 :] + next(pieces, "")).strip():
                    yield number, BadRow(UNREADABLE, "there is more behind the end of the array")
                return
            values, text, at = _element(text, at, pieces)
            yield number, values
            number += 1
    except StopIteration:
        yield number, BadRow(UNREADABLE, "the array has no end")
    except (OSError, ValueError, RecursionError) as error:
        yield number, BadRow(UNREADABLE, str(error))


def _element(text: str, at: int, pieces: Iterator[str]) -> tuple[Any, str, int]:
    """Read the element at `at`, and more of the file where the text ends inside it.

    Returns:
        The element, the text that was read last, and the place behind the element in it.

    Raises:
        ValueError: there is no element, or it is longer than a row may be.
    """
    while True:
        try:
            values, end = DECODER.raw_decode(text, at)
            if end < len(text):  # a number that ends with the text may go on
                return values, text, end
        except json.JSONDecodeError:
            if len(text) - at > MOST_ROW_BYTES:
                raise
        # Twice as much each time: to begin again with every chunk would take quadratic time.
        more = "".join(itertools.islice(pieces, 1 + (len(text) - at) // CHUNK))
        if not more:
            values, end = DECODER.raw_decode(text, at)
            return values, text, end
        text, at = text[at:] + more, 0


def _text(file: Path) -> Iterator[str]:
    decode = codecs.getincrementaldecoder("utf-8-sig")()
    with open(file, "rb") as opened:
        while data := opened.read(CHUNK):
            if text := decode.decode(data):
                yield text
        decode.decode(b"", final=True)


def _parquet(file: Path) -> Iterator[tuple[int, Any]]:
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            sizes = [table.metadata.row_group(each).total_byte_size for each in range(table.num_row_groups)]
            if max(sizes, default=0) > MOST_GROUP_BYTES:
                raise OSError(f"a row group of {max(sizes):,} bytes, more than the {MOST_GROUP_BYTES:,} allowed")
            for batch in table.iter_batches(ROWS_AT_ONCE):
                for index in range(batch.num_rows):
                    number += 1
                    yield number, _values(batch.slice(index, 1))
    except (pyarrow.ArrowException, OSError, ValueError, MemoryError) as error:
        yield number + 1, BadRow(UNREADABLE, str(error))


def _values(batch: Any) -> Mapping[str, Any] | BadRow:
    """Return the row of a batch of one: text that is not UTF-8, or a date beyond Python's, fails a whole batch."""
    import pyarrow

    try:
        return batch.to_pylist()[0]
    except (ValueError, OverflowError, TypeError, KeyError, ImportError, pyarrow.ArrowException) as error:
        return BadRow("a row that cannot be read", str(error))


def _checked(values: Any) -> Mapping[str, Any] | BadRow:
    """Return a row, or a bad one where its columns lie too deep inside each other."""
    if not isinstance(values, Mapping):
        return BadRow("a row without columns", f"{type(values).__name__}")
    level, depth = [values], 0
    while level:
        depth += 1
        if depth > MOST_DEPTH:
            return BadRow("a row that is too deep", f"more than {MOST_DEPTH} columns inside each other")
        inner: list[Any] = []
        for each in level:
            children = each.values() if isinstance(each, Mapping) else each
            inner += [child for child in children if isinstance(child, Mapping | list | tuple)]
        level = inner
    return values
