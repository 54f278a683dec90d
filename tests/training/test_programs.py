"""Every program is compiled before the first step, and none after it."""

import jax
import pytest
from killed_run import small_run

from m2io_jax.training import run
from m2io_jax.training.metrics import MetricsLog, read_metrics

COMPILED = "/jax/core/compile/backend_compile_duration"


@pytest.fixture
def compiled(monkeypatch):
    """How many programs had been compiled: when compiling ahead was done, and after each step."""
    counts, total = [], [0]

    def count(event: str, seconds: float, **_) -> None:
        total[0] += event == COMPILED

    def note(function):
        def noted(*arguments):
            returned = function(*arguments)
            counts.append(total[0])
            return returned

        return noted

    jax.monitoring.register_event_duration_secs_listener(count)
    monkeypatch.setattr(run, "announce", note(run.announce))
    monkeypatch.setattr(MetricsLog, "write", note(MetricsLog.write))
    yield counts
    jax.monitoring.unregister_event_duration_listener(count)


GRPO = ["encode", "prefill", "decode", "reference", "update"]
CORRECTED = dict(rollout_correction="truncate", updates_per_rollout=2)


@pytest.mark.parametrize(
    "objective, settings, names",
    [("supervised", {}, ["update"]), ("grpo", {}, GRPO), ("grpo", CORRECTED, [*GRPO, "old"]),
     pytest.param("ppo", {}, [*GRPO, "values", "advantages", "critic"], marks=pytest.mark.slow)],
    ids=["supervised", "grpo", "corrected", "ppo"],
)
def test_steps_compile_nothing(objective, settings, names, tmp_path, episodes, compiled, capsys):
    config = small_run(str(episodes), str(tmp_path / "run"), objective, 4)
    config = config.model_copy(update={"grpo": config.grpo.model_copy(update=settings)})
    batch = config.batch.model_copy(update={"prompts": jax.device_count()})
    late = config.checkpoint.model_copy(update={"every_steps": 100})  # Orbax copies what it saves by small programs
    config = config.model_copy(update={"batch": batch, "checkpoint": late})
    run.train(config)
    ahead, first, *later = compiled
    assert len(later) == 3 and set(later) == {first}, "a step after the first compiled something"
    assert first - ahead <= 4, "more than keys, metrics and the like was compiled in the first step"
    said = capsys.readouterr().err
    assert all(f"{name} in" in said for name in names)
    if objective != "supervised":
        for row in read_metrics(tmp_path / "run"):  # sampler and trainer are one model
            ratios = [row[f"sampling/importance_sampling_ratio/{which}"] for which in ("min", "mean", "max")]
            assert ratios == sorted(ratios) and ratios == pytest.approx([1, 1, 1], abs=1e-4)
