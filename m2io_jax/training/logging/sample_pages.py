"""Samples as pages in the run's folder, `samples/STEP.html`: they need no service and no server."""

from pathlib import Path

from m2io_jax.config import RunConfig
from m2io_jax.files import replace_text
from m2io_jax.training.logging.samples import Samples
from m2io_jax.training.logging.sink import Sink


class SamplePages(Sink):
    """One page for each step that samples are shown of."""

    def __init__(self, folder: Path):
        self._folder = folder

    def show(self, samples: Samples) -> None:
        self._folder.mkdir(exist_ok=True)
        replace_text(self._folder / f"{samples.step}.html", samples.page)

    def truncate_after(self, step: int) -> None:
        for path in self._folder.glob("*.html"):
            if path.stem.isdigit() and int(path.stem) > step:
                path.unlink()


def opened(config: RunConfig) -> SamplePages:
    """The pages of a run."""
    return SamplePages(config.run / "samples")
