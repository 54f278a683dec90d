"""A cache of what importers read from files, by the content of the file: a second import decodes nothing again.

One SQLite file, which several imports may use at the same time. It is only ever a help: where it is damaged, locked or
cannot be written, an import goes on without it.
"""

import hashlib
import json
import os
import sqlite3
import sys
import time
import zlib
from collections.abc import Iterable, Mapping
from contextlib import closing, suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

FILE = "imports.sqlite"
MAX_BYTES = 512 * 2**20
MAX_ENTRY_BYTES = 16 * 2**20
MAX_VALUE_BYTES = 128 * 2**20  # of an entry without compression
LOCK_SECONDS = 5.0
USED_SECONDS = 86_400.0  # that an entry was used is written down once a day
CHECKSUM_BYTES = 16
# A result depends on these, and on the source of this package.
LIBRARIES = ("markdown-it-py", "pillow", "pyyaml", "charset-normalizer", "numpy")
SCHEMA = "CREATE TABLE IF NOT EXISTS entries (key TEXT PRIMARY KEY, value BLOB NOT NULL, used INTEGER NOT NULL)"


def default_folder() -> Path:
    """Return the folder of the cache: the user's cache folder, unless the environment names another."""
    home = os.environ.get("XDG_CACHE_HOME")
    return Path(home, "m2io_jax") if home else user_cache_path("m2io_jax")


@cache
def reader_version() -> str:
    """Return a digest of everything that decides how a file is read, apart from its bytes and the settings."""
    found = hashlib.sha256(repr(sys.version_info[:3]).encode())
    for library in LIBRARIES:
        found.update(f"{library} {version(library)}\n".encode())
    for source in sorted(Path(__file__).parent.rglob("*.py")):
        found.update(source.read_bytes())
    return found.hexdigest()


class ImportCache:
    """Results of reading files, by keys that `key` makes.

    Args:
        folder: of the cache; None keeps nothing.
    """

    def __init__(self, folder: Path | None):
        self.file = folder / FILE if folder else None
        self._used: list[str] = []  # entries to mark as used, those that were not for long

    @staticmethod
    def key(digest: str, settings: Mapping[str, Any]) -> str:
        """Return the key of a file's result.

        Args:
            digest: SHA-256 of the file's bytes.
            settings: what the result depends on besides, as JSON values.
        """
        about = json.dumps([reader_version(), digest, settings], sort_keys=True)
        return hashlib.sha256(about.encode()).hexdigest()

    def load(self, keys: Iterable[str]) -> dict[str, Any]:
        """Return the results that are there; damaged ones are left out."""
        found: dict[str, Any] = {}
        long_ago = time.time() - USED_SECONDS
        if self.file is None or not self.file.is_file():
            return found
        with suppress(sqlite3.Error, OSError), closing(self._connect()) as rows:
            for key in keys:
                row = rows.execute("SELECT value, used FROM entries WHERE key = ?", (key,)).fetchone()
                with suppress(ValueError, zlib.error, TypeError, RecursionError):
                    if row:
                        found[key] = _unpack(row[0], key)
                        if row[1] < long_ago:
                            self._used.append(key)
        return found

    def save(self, results: Mapping[str, Any]) -> None:
        """Add results, and drop the ones that were longest not used where there are more than `MAX_BYTES`."""
        used, self._used = self._used, []
        if self.file is None or not (results or used):
            return
        now = int(time.time())
        packed = ((key, _pack(value, key), now) for key, value in results.items())
        fitting = [row for row in packed if len(row[1]) <= MAX_ENTRY_BYTES]
        try:
            self._write(fitting, [(now, key) for key in used])
        except sqlite3.OperationalError:
            return  # locked for long, a full disk, or a folder that cannot be written
        except sqlite3.Error:
            # Damaged: the next import begins a new one.
            with suppress(OSError):
                self.file.unlink()
        except OSError:
            return

    def _write(self, rows: list[tuple[str, bytes, int]], used: list[tuple[int, str]]) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with closing(self._connect()) as entries, entries:
            entries.execute(SCHEMA)
            entries.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?, ?)", rows)
            entries.executemany("UPDATE entries SET used = ? WHERE key = ?", used)
            if rows:
                self._prune(entries)

    def _prune(self, entries: sqlite3.Connection) -> None:
        (total,) = entries.execute("SELECT COALESCE(SUM(LENGTH(value)), 0) FROM entries").fetchone()
        if total <= MAX_BYTES:
            return
        dropped = []
        for key, size in entries.execute("SELECT key, LENGTH(value) FROM entries ORDER BY used, key"):
            dropped.append((key,))
            total -= size
            if total <= 0.8 * MAX_BYTES:
                break
        entries.executemany("DELETE FROM entries WHERE key = ?", dropped)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.file, timeout=LOCK_SECONDS)
        # Entries have checksums, so what a power cut damages is only read again.
        connection.execute("PRAGMA synchronous = OFF")
        return connection


def _pack(value: Any, key: str) -> bytes:
    """Return a value as compressed JSON behind a checksum of it and its key."""
    body = zlib.compress(json.dumps(value).encode(), level=1)
    return _checksum(body, key) + body


def _unpack(data: bytes, key: str) -> Any:
    """Return the value of `_pack`. Raises ValueError or zlib.error where it is damaged."""
    body = data[CHECKSUM_BYTES:]
    if data[:CHECKSUM_BYTES] != _checksum(body, key):
        raise ValueError("a damaged entry")
    unpacking = zlib.decompressobj()
    value = unpacking.decompress(body, MAX_VALUE_BYTES)
    if not unpacking.eof:
        raise ValueError("a damaged entry, or one that is too large")
    return json.loads(value)


def _checksum(body: bytes, key: str) -> bytes:
    return hashlib.blake2b(body, key=key.encode()[:64], digest_size=CHECKSUM_BYTES).digest()
