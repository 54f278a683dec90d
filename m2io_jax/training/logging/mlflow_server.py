"""MLflow, on the server or in the folder that its own MLFLOW_TRACKING_URI names."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException

from m2io_jax.config import RunConfig
from m2io_jax.errors import UserError
from m2io_jax.training.logging.background import Background
from m2io_jax.training.logging.identity import remembered_id
from m2io_jax.training.logging.samples import Samples
from m2io_jax.training.logging.sink import Sink, finite

MOST_PARAMS = 100  # that a request may hold
LONGEST_PARAM = 6000  # signs


class MLflow(Sink):
    """A run of an experiment: settings as parameters, metrics, samples as pages among the artifacts.

    What it was once told it keeps. Steps that a resumed run makes again are not told again: they are the same.

    Args:
        folder: the run's, where the id is kept.
        settings: of the run, by dotted names.

    Raises:
        UserError: the server or the folder does not take the run.
    """

    def __init__(self, folder: Path, experiment: str, name: str, settings: Mapping[str, Any]):
        try:
            self._client = mlflow.MlflowClient()
            self._id = remembered_id(folder, "mlflow", lambda: self._begun(experiment, name, settings))
            self._client.update_run(self._id, status="RUNNING")
            self._told = int(self._client.get_run(self._id).data.metrics.get("step", 0))
        except MlflowException as error:
            mend = "name a server with MLFLOW_TRACKING_URI, or leave logging.mlflow empty"
            raise UserError(f"MLflow does not begin: {error}", where="logging.mlflow", mend=mend) from None

    def write(self, step: int, metrics: Mapping[str, float | None]) -> None:
        if step > self._told:
            now = time.time_ns() // 1_000_000
            row = {**finite(metrics), "step": step}  # the newest of which says, later, what was told
            self._client.log_batch(self._id, metrics=[Metric(key, value, now, step) for key, value in row.items()])

    def show(self, samples: Samples) -> None:
        self._client.log_text(self._id, samples.page, f"samples/{samples.step}.html")

    def close(self, finished: bool = True) -> None:
        self._client.set_terminated(self._id, "FINISHED" if finished else "FAILED")

    def _begun(self, experiment: str, name: str, settings: Mapping[str, Any]) -> str:
        found = self._client.get_experiment_by_name(experiment)
        group = found.experiment_id if found else self._client.create_experiment(experiment)
        begun = self._client.create_run(group, run_name=name).info.run_id
        params = [Param(key, str(value)[:LONGEST_PARAM]) for key, value in settings.items()]
        for first in range(0, len(params), MOST_PARAMS):
            self._client.log_batch(begun, params=params[first : first + MOST_PARAMS])
        return begun


def opened(config: RunConfig) -> Background:
    """What a run is there, told in a thread of its own: a server that is away lets a request wait for minutes."""
    return Background(MLflow(config.run, config.logging.mlflow, config.name, config.flat()))
