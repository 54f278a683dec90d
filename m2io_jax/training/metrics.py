"""A run's metrics: JSON Lines for programs, TensorBoard scalars for people."""

import json
import logging
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from tensorboardX import SummaryWriter

from m2io_jax.errors import UserError

METRICS_FILE = "metrics.jsonl"
_log = logging.getLogger(__name__)


class MetricsLog:
    """Appends metrics to `metrics.jsonl` in a run directory and, if wanted, to TensorBoard's files in `tensorboard/`.

    A line is on its way to the disk when `write` returns, so a killed run keeps all but the line it died in.
    """

    def __init__(self, run_dir: Path | str, tensorboard: bool = True):
        self.path = Path(run_dir) / METRICS_FILE
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _end_cut_line(self.path)
            self._file = self.path.open("a", encoding="utf-8")
        except OSError as error:
            mend = "give another directory with run=..."
            raise UserError(f"Metrics cannot be written: {error.strerror}.", where=str(self.path), mend=mend) from None
        self._board = self._new_board() if tensorboard else None

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Logs one step. Arrays of no dimension are taken as numbers; NaN and infinity are logged as null, loudly."""
        values = {name: float(value) for name, value in metrics.items()}
        wrong = [name for name, value in values.items() if not math.isfinite(value)]
        if wrong:
            _log.warning("step %d: not finite: %s", step, ", ".join(wrong))
        row = {name: None if name in wrong else value for name, value in values.items()}
        self._file.write(json.dumps({"step": int(step), **row}) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                if name not in wrong:
                    self._board.add_scalar(name, value, int(step))

    def truncate_after(self, step: int) -> None:
        """Drops the lines of steps after `step`, the one a run was restored at: they are about to be made again."""
        kept = [row for row in read_metrics(self.path.parent) if row["step"] <= step]
        self._file.close()
        partial = self.path.with_suffix(".partial")
        with partial.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in kept)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.path)
        self._file = self.path.open("a", encoding="utf-8")
        if self._board is not None:
            # TensorBoard hides what an earlier file holds from `purge_step` on.
            self._board.close()
            self._board = self._new_board(purge_step=step + 1)

    def close(self) -> None:
        """Writes out what is buffered; the log cannot be used afterwards."""
        self._file.close()
        if self._board is not None:
            self._board.close()

    def _new_board(self, purge_step: int | None = None) -> SummaryWriter:
        # Files are named by the second, and a second file of that name would overwrite the first.
        unique = f".{time.time_ns()}"
        folder = self.path.parent / "tensorboard"
        return SummaryWriter(str(folder), purge_step=purge_step, filename_suffix=unique)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


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


def _end_cut_line(path: Path) -> None:
    """Drops the half line a killed process left, so that the next one does not run on from it."""
    if not path.exists():
        return
    data = path.read_bytes()
    if data and not data.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(data.rfind(b"\n") + 1)
