"""What everything that a run is logged to can do, and how one that fails is borne."""

import logging
from collections.abc import Callable, Mapping
from typing import Protocol

from m2io_jax.training.logging.samples import Samples

_log = logging.getLogger(__name__)


class Sink(Protocol):
    """Somewhere that a run is logged to. One that has no use for a kind of news leaves that method as it is here."""

    def write(self, step: int, metrics: Mapping[str, float | None]) -> None:
        """Logs the metrics of a step; None stands for one that is not finite."""

    def show(self, samples: Samples) -> None:
        """Logs what was sampled in a step."""

    def flush(self) -> None:
        """Sees to it that what was logged outlives this machine; at each checkpoint, which goes on from there."""

    def truncate_after(self, step: int) -> None:
        """Takes back, or leaves as it is, what was logged of steps after `step`: they are about to be made again."""

    def close(self, finished: bool) -> None:
        """Writes out what is buffered; nothing is logged afterwards. `finished`: the run came to its end."""


class Guarded:
    """A sink that may fail as it likes (a full disk, no network) without stopping the run; it is told of once.

    Every later step tries again: what fails for an hour of a run of days loses that hour. How it begins is not guarded:
    a sink that cannot be opened or taken back should be mended before hours are spent.
    """

    def __init__(self, name: str, sink: Sink):
        self.name, self._sink, self._failures = name, sink, 0

    def write(self, step: int, metrics: Mapping[str, float | None]) -> None:
        self._try(self._sink.write, step, metrics)

    def show(self, samples: Samples) -> None:
        self._try(self._sink.show, samples)

    def flush(self) -> None:
        self._try(self._sink.flush)

    def truncate_after(self, step: int) -> None:
        self._sink.truncate_after(step)

    def close(self, finished: bool) -> None:
        self._try(self._sink.close, finished)
        if self._failures:
            _log.warning("%s failed %d times in this run", self.name, self._failures)

    def _try(self, act: Callable, *arguments) -> None:
        try:
            act(*arguments)
        except Exception as error:  # whatever a disk or a service may raise
            self._failures += 1
            if self._failures == 1:
                _log.warning("%s failed, and the run goes on: %s: %s", self.name, type(error).__name__, error)


def finite(metrics: Mapping[str, float | None]) -> dict[str, float]:
    """The metrics that are numbers."""
    return {name: value for name, value in metrics.items() if value is not None}
