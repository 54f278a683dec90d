"""The run's log: every sink is told the same, one that fails stops nothing, and processes but the first are silent."""

import json
import logging
import math
import os

import jax
import numpy as np
import pytest

from m2io_jax.config import LoggingConfig, RunConfig
from m2io_jax.errors import UserError
from m2io_jax.training.checks import check
from m2io_jax.training.logging import run_log
from m2io_jax.training.logging.run_log import KINDS, RunLog, require_libraries
from m2io_jax.training.logging.sink import Guarded, Sink
from m2io_jax.training.metrics import METRICS_FILE, read_metrics


def config(folder, **settings) -> RunConfig:
    return RunConfig(name="x", run=folder, objective="grpo", steps=1, logging={"tensorboard": False, **settings})


def test_not_finite_is_null_and_told(tmp_path, caplog):
    with caplog.at_level(logging.WARNING), RunLog(config(tmp_path)) as log:
        log.write(4, {"kl": math.nan, "loss": -math.inf, "reward": np.float32(0.5)})
    assert read_metrics(tmp_path) == [{"step": 4, "kl": None, "loss": None, "reward": 0.5}]
    assert "NaN" not in (tmp_path / METRICS_FILE).read_text()
    assert "step 4: not finite: kl, loss" in caplog.text


def test_the_folder_holds_what_was_asked_for(tmp_path, samples):
    for name, settings in {"all": {"tensorboard": True}, "least": {"samples_every_steps": None}}.items():
        with RunLog(config(tmp_path / name, **settings)) as log:
            log.write(1, {"reward": 1.0})
            log.show(1, samples.groups)
            log.show(2, [])  # as supervised training says
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == [METRICS_FILE, "samples", "tensorboard"]
    assert [path.name for path in (tmp_path / "all" / "samples").iterdir()] == ["1.html"]
    assert [path.name for path in (tmp_path / "least").iterdir()] == [METRICS_FILE]


def test_a_checkpoint_has_the_metrics_on_the_disk(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr("os.fsync", lambda file: synced.append(os.fstat(file).st_size))
    with RunLog(config(tmp_path, tensorboard=True)) as log:
        log.write(1, {"reward": 1.0})
        log.flush()
    assert synced[:1] == [(tmp_path / METRICS_FILE).stat().st_size]


def test_a_resumed_run_takes_back_later_steps_everywhere(tmp_path, samples):
    with RunLog(config(tmp_path)) as log:
        for step in (1, 2, 3):
            log.write(step, {"reward": step / 10})
            log.show(step, samples.groups)
    with RunLog(config(tmp_path)) as log:
        log.truncate_after(2)
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2]
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == ["1.html", "2.html"]


def test_samples_are_wanted_of_the_first_step_and_then_now_and_then(tmp_path):
    def wanted(every):
        with RunLog(config(tmp_path, samples_every_steps=every)) as log:
            return [step for step in range(1, 9) if log.wants_samples(step)]

    assert wanted(3) == [1, 3, 6]
    assert wanted(None) == []


def test_processes_but_the_first_leave_nothing_and_know_when_samples_are_wanted(tmp_path, monkeypatch, samples):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with RunLog(config(tmp_path / "run", tensorboard=True)) as log:
        log.write(1, {"reward": 1.0})
        log.show(1, samples.groups)
        log.truncate_after(0)
        assert log.wants_samples(1)
    assert not (tmp_path / "run").exists()


class Broken(Sink):
    """Fails at odd steps and, when told, at its end."""

    def __init__(self):
        self.told = []

    def write(self, step, metrics):
        if step % 2:
            raise OSError(28, "No space left on device")
        self.told.append(step)

    def close(self, finished):
        raise ConnectionError("gone")


def test_a_sink_that_fails_is_told_of_once_tried_again_and_stops_nothing(caplog):
    broken = Broken()
    sink = Guarded("There", broken)
    with caplog.at_level(logging.WARNING):
        for step in range(1, 6):
            sink.write(step, {})
        told = [record.getMessage() for record in caplog.records]
        sink.close(True)
    assert broken.told == [2, 4]
    assert told == ["There failed, and the run goes on: OSError: [Errno 28] No space left on device"]
    assert caplog.records[-1].getMessage() == "There failed 4 times in this run"


def test_a_sink_that_cannot_be_opened_or_taken_back_is_not_hidden(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"):
        RunLog(config(tmp_path / "file" / "run"))

    class Stuck(Sink):
        def truncate_after(self, step):
            raise OSError("stuck")

    with pytest.raises(OSError, match="stuck"):
        Guarded("There", Stuck()).truncate_after(3)


@pytest.mark.parametrize("library", ["wandb", "mlflow"])
def test_a_library_that_is_asked_for_and_not_there_is_told_before_anything_else(library, tmp_path, monkeypatch):
    monkeypatch.setattr(run_log, "find_spec", lambda name: None)
    require_libraries(LoggingConfig())
    asked = config(tmp_path / "run", **{library: "mine"}).model_copy(update={"episodes": tmp_path})
    for begin in (lambda: check(asked), lambda: RunLog(asked)):
        with pytest.raises(UserError) as caught:
            begin()
        said = str(caught.value)
        assert f"logging.{library}" in said and f"pip install -e '.[{library}]'" in said
    assert not (tmp_path / "run").exists()


def test_every_library_is_an_extra_of_the_project():
    import tomllib
    from pathlib import Path

    project = Path(__file__).parents[3] / "pyproject.toml"
    extras = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert {kind.library for kind in KINDS if kind.library} <= set(extras)


def test_settings_that_would_not_be_read_or_mean_nothing_are_refused():
    for settings, said in (
        ({"samples_every_steps": None, "samples": 2}, "logging.samples"),
        ({"wandb": "a/b/c"}, "PROJECT or ENTITY/PROJECT"),
        ({"mlflow": " "}, "name of an experiment"),
    ):
        with pytest.raises(ValueError, match=said):
            LoggingConfig(**settings)
    assert json.loads(LoggingConfig(wandb="team/project").model_dump_json())["wandb"] == "team/project"
