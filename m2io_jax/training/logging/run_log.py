"""Everything that a run is logged to, behind one face. A new sink is a file and a line of `KINDS`."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Self

from m2io_jax.config import LoggingConfig, RunConfig
from m2io_jax.errors import UserError
from m2io_jax.parallel.exchange import is_first
from m2io_jax.training.logging.samples import SampledGroup, Samples
from m2io_jax.training.logging.sink import Guarded
from m2io_jax.training.metrics import METRICS_FILE, MetricsLog

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kind:
    """A sink that a configuration may ask for.

    Attributes:
        name: what it is called in messages.
        module: beside this one; its `opened(config)` opens the sink. It is imported only where it is asked for.
        setting: of `logging`, which asks for it.
        library: what it needs that the project does not, and the extra that installs it.
    """

    name: str
    module: str
    setting: Callable[[LoggingConfig], Any]
    library: str = ""


KINDS = (
    Kind("samples", "sample_pages", lambda logging: logging.samples_every_steps),
    Kind("TensorBoard", "tensorboard", lambda logging: logging.tensorboard),
    Kind("Weights & Biases", "weights_and_biases", lambda logging: logging.wandb, "wandb"),
    Kind("MLflow", "mlflow_server", lambda logging: logging.mlflow, "mlflow"),
)


def require_libraries(settings: LoggingConfig) -> None:
    """Raises UserError where a sink is asked for whose library is not installed."""
    for kind in KINDS:
        if kind.library and kind.setting(settings) and find_spec(kind.library) is None:
            mend = f"pip install -e '.[{kind.library}]' in the source tree, or leave it empty"
            raise UserError(f"{kind.name} is not installed.", where=f"logging.{kind.library}", mend=mend)


class RunLog:
    """Logs a run's metrics and samples wherever its configuration says; of several processes the first alone does.

    Raises:
        UserError: a sink that is asked for cannot be opened.
    """

    def __init__(self, config: RunConfig):
        self._settings, self._sinks = config.logging, list[Guarded]()
        if is_first():
            require_libraries(config.logging)
            self._sinks.append(Guarded(METRICS_FILE, MetricsLog(config.run)))
            for kind in KINDS:
                if kind.setting(config.logging):
                    module = import_module(f"{__package__}.{kind.module}")
                    self._sinks.append(Guarded(kind.name, module.opened(config)))

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Logs one step. Arrays of no dimension are taken as numbers; NaN and infinity are logged as null, loudly."""
        values = {name: float(value) for name, value in metrics.items()}
        wrong = [name for name, value in values.items() if not math.isfinite(value)]
        if wrong:
            _log.warning("step %d: not finite: %s", step, ", ".join(wrong))
        row = {name: None if name in wrong else value for name, value in values.items()}
        for sink in self._sinks:
            sink.write(int(step), row)

    def wants_samples(self, step: int) -> bool:
        """Whether samples of this step are to be shown: the first, and every so many; the same in every process."""
        every = self._settings.samples_every_steps
        return every is not None and (step == 1 or step % every == 0)

    def show(self, step: int, groups: Sequence[SampledGroup]) -> None:
        """Logs what was sampled in a step; nothing, where nothing was."""
        if groups:
            samples = Samples(int(step), groups)
            for sink in self._sinks:
                sink.show(samples)

    def flush(self) -> None:
        """What was logged so far outlives this machine."""
        for sink in self._sinks:
            sink.flush()

    def truncate_after(self, step: int) -> None:
        """A run was restored at `step`: what was logged of later ones is about to be made again."""
        for sink in self._sinks:
            sink.truncate_after(step)

    def close(self, finished: bool = True) -> None:
        """Writes out what is buffered; the log cannot be used afterwards. `finished`: the run came to its end."""
        for sink in self._sinks:
            sink.close(finished)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self.close(finished=error is None)
