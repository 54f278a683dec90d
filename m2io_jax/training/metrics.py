"""A run's metrics as JSON Lines, one line a step: what reports are drawn from and what a resumed run goes on with."""

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from m2io_jax.errors import UserError
from m2io_jax.training.logging.sink import Sink

METRICS_FILE = "metrics.jsonl"


class MetricsLog(Sink):
    """Appends metrics to `metrics.jsonl` in a run directory.

    A line is on its way to the disk when `write` returns, so a killed run keeps all but the line it died in; with its
    machine, a run may lose those since the last `flush`. One that the disk has no room for is taken back whole, so
    that later ones can be read.

    Raises:
        UserError: the file cannot be written.
    """

    def __init__(self, run_dir: Path | str):
        self.path = Path(run_dir) / METRICS_FILE
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _end_cut_line(self.path)
            self._file = self.path.open("ab", buffering=0)
        except OSError as error:
            mend = "give another directory with run=..."
            raise UserError(f"Metrics cannot be written: {error.strerror}.", where=str(self.path), mend=mend) from None

    def write(self, step: int, metrics: Mapping[str, float | None]) -> None:
        line = _line({"step": int(step), **metrics})
        end = self._file.seek(0, os.SEEK_END)
        try:
            if self._file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        except OSError:
            self._file.truncate(end)
            raise

    def flush(self) -> None:
        os.fsync(self._file.fileno())  # a mounted bucket has nothing of an open file before

    def truncate_after(self, step: int) -> None:
        kept = [row for row in read_metrics(self.path.parent) if row["step"] <= step]
        self._file.close()
        partial = self.path.with_suffix(".partial")
        with partial.open("wb") as file:
            file.writelines(_line(row) for row in kept)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.path)
        self._file = self.path.open("ab", buffering=0)

    def close(self, finished: bool = True) -> None:
        self._file.close()


def read_metrics(run_dir: Path | str) -> list[dict[str, Any]]:
    """Reads a run's metrics in the order they were written; none where there is no file yet.

    A line that a killed process left half written is left out. A broken line elsewhere was not left by us and raises
    UserError, naming it.
    """
    path = Path(run_dir) / METRICS_FILE
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            row = json.loads(line)
            rows.append({"step": int(row["step"])} | row)
        except (ValueError, KeyError, TypeError):
            if number == len(lines):
                break
            mend = "restore the line or delete it"
            raise UserError("A line of metrics is broken.", where=f"{path}, line {number}", mend=mend) from None
    return rows


def _line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row).encode() + b"\n"


def _end_cut_line(path: Path) -> None:
    """Drops the half line a killed process left, so that the next one does not run on from it."""
    if not path.exists():
        return
    data = path.read_bytes()
    if data and not data.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(data.rfind(b"\n") + 1)
