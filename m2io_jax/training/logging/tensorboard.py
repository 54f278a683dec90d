"""TensorBoard's files, in the run's folder `tensorboard/`."""

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from tensorboardX import SummaryWriter

from m2io_jax.config import RunConfig
from m2io_jax.pages import picture_sheet
from m2io_jax.training.logging.samples import Samples
from m2io_jax.training.logging.sink import Sink, finite


class TensorBoard(Sink):
    """Scalars; samples as pictures and, beside them, tables of completions among the texts."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._board = self._opened()

    def write(self, step: int, metrics: Mapping[str, float | None]) -> None:
        for name, value in finite(metrics).items():
            self._board.add_scalar(name, value, step)

    def show(self, samples: Samples) -> None:
        for number, (group, table) in enumerate(zip(samples.groups, samples.tables, strict=True), start=1):
            if group.episode.candidates:
                sheet = np.asarray(picture_sheet(group.episode.candidates))
                self._board.add_image(f"samples/{number}", sheet, samples.step, dataformats="HWC")
            self._board.add_text(f"samples/{number}", table, samples.step)

    def flush(self) -> None:
        self._board.flush()

    def truncate_after(self, step: int) -> None:
        # TensorBoard hides what an earlier file holds from `purge_step` on.
        self._board.close()
        self._board = self._opened(purge_step=step + 1)

    def close(self, finished: bool = True) -> None:
        self._board.close()

    def _opened(self, purge_step: int | None = None) -> SummaryWriter:
        # Files are named by the second, and a second file of that name would overwrite the first.
        return SummaryWriter(str(self._folder), purge_step=purge_step, filename_suffix=f".{time.time_ns()}")


def opened(config: RunConfig) -> TensorBoard:
    """The files of a run."""
    return TensorBoard(config.run / "tensorboard")
