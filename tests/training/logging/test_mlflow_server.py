"""MLflow with the real library and a folder in place of a server: what it kept is asked for through its own client."""

import pytest

from m2io_jax.config import RunConfig
from m2io_jax.errors import UserError

mlflow = pytest.importorskip("mlflow", reason="MLflow is not installed (the extra `mlflow`)")

from m2io_jax.training.logging import mlflow_server  # noqa: E402


@pytest.fixture(autouse=True)
def store(monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path / 'store'}")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")


def opened(folder, **changes):
    folder.mkdir(exist_ok=True)
    config = RunConfig(name="soup", run=folder, objective="grpo", steps=9, logging={"mlflow": "kitchen"}, **changes)
    return mlflow_server.opened(config)


def the_run(client):
    experiment = client.get_experiment_by_name("kitchen")
    (run,) = client.search_runs([experiment.experiment_id])
    return run


def test_settings_metrics_and_the_end_arrive_and_a_resumed_run_is_the_same(tmp_path):
    client = mlflow.MlflowClient()
    sink = opened(tmp_path / "run")
    sink.write(1, {"reward": 0.25, "rewards/order/mean": 0.5, "kl": None})
    sink.write(2, {"reward": 0.5})
    sink.close(finished=False)
    begun = the_run(client)
    assert begun.info.status == "FAILED" and begun.info.run_name == "soup"
    assert begun.data.params["rollout.group_size"] == "8" and begun.data.params["steps"] == "9"
    assert begun.data.metrics == {"reward": 0.5, "rewards/order/mean": 0.5, "step": 2.0}

    sink = opened(tmp_path / "run", seed=3)  # a setting that is said already is not said anew
    assert the_run(client).info.status == "RUNNING"
    sink.truncate_after(1)
    sink.write(2, {"reward": 9.0})  # known already
    sink.write(3, {"reward": 0.75})
    sink.close(finished=True)
    run = the_run(client)
    assert run.info.run_id == begun.info.run_id and run.info.status == "FINISHED"
    history = client.get_metric_history(run.info.run_id, "reward")
    assert sorted((metric.step, metric.value) for metric in history) == [(1, 0.25), (2, 0.5), (3, 0.75)]


def test_samples_are_pages_among_the_artifacts(tmp_path, samples):
    sink = opened(tmp_path / "run")
    sink.show(samples)
    sink.close(finished=True)
    (page,) = (tmp_path / "store").rglob("artifacts/samples/7.html")
    assert page.read_text(encoding="utf-8") == samples.page


def test_not_beginning_is_told_with_what_to_do(tmp_path, monkeypatch):
    opened(tmp_path / "run").close(finished=True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path / 'elsewhere'}")
    with pytest.raises(UserError) as caught:
        opened(tmp_path / "run")
    assert all(part in str(caught.value) for part in ("not found", "logging.mlflow", "MLFLOW_TRACKING_URI"))
