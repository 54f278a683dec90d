"""A run that is killed or stopped and started again ends as one that was never disturbed, bit for bit."""

import json
import os
import random
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from m2io_jax.training.checkpoints import COMPLETE

STEPS = 6
PROGRAM = Path(__file__).parent / "killed_run.py"


def start(episodes: Path, run: Path, objective: str, deed: str = "never", steps: int = STEPS) -> int:
    """One start of the run in a process of its own; its exit status, negative where it was killed."""
    words = [sys.executable, str(PROGRAM), str(episodes), str(run), objective, str(steps), deed]
    kept = {"JAX_COMPILATION_CACHE_DIR": str(run.parent.parent / "compiled"), "JAX_NUM_CPU_DEVICES": "1"}
    ended = subprocess.run(words, env=os.environ | kept, capture_output=True, text=True)
    assert ended.returncode in (0, -9, 75, 130), ended.stderr[-3000:]
    return ended.returncode


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, episodes):
    """The folder of a whole run of an objective and length, made once."""

    @cache
    def whole(objective: str, steps: int = STEPS) -> Path:
        run = tmp_path_factory.mktemp("undisturbed") / "whole"
        assert start(episodes, run, objective, steps=steps) == 0
        return run

    return whole


def same(one: Path, other: Path) -> bool:
    first, second = (tensors_of(run) for run in (one, other))
    return first.keys() == second.keys() and all(first[name].tobytes() == second[name].tobytes() for name in first)


def tensors_of(run: Path) -> dict:
    """Of weights and adapters."""
    files = sorted((run / "model").rglob("*.safetensors"))
    return {f"{file.name}: {name}": tensor for file in files for name, tensor in load_file(file).items()}


def steps_of(run: Path) -> list[int]:
    return [row["step"] for row in metrics_of(run)]


def metrics_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def storm(tmp_path: Path, episodes: Path, objective: str, kills: list[str], whole: Path) -> int:
    killed = sum(start(episodes, tmp_path / "killed", objective, kill) == -9 for kill in kills)
    assert start(episodes, tmp_path / "killed", objective) == 0
    assert same(whole, tmp_path / "killed")
    assert steps_of(tmp_path / "killed") == steps_of(whole) == list(range(1, STEPS + 1))
    return killed


def test_killed_between_checkpoints_and_while_one_is_written(tmp_path, episodes, undisturbed):
    # after step 3, when a checkpoint of step 2 is whole; then 20 ms into the writing of the next
    assert storm(tmp_path, episodes, "supervised", ["step 3", "saving 0.02"], undisturbed("supervised")) == 2
    model = tmp_path / "killed" / "model" / "model.safetensors"
    before = model.read_bytes()
    assert start(episodes, tmp_path / "killed", "supervised") == 0  # finished already
    assert model.read_bytes() == before and len(steps_of(tmp_path / "killed")) == STEPS


def test_asked_to_stop_it_ends_its_step_saves_and_says_by_its_status_whether_to_go_on(tmp_path, episodes, undisturbed):
    run, whole = tmp_path / "stopped", undisturbed("supervised")
    assert start(episodes, run, "supervised", "SIGTERM 3") == os.EX_TEMPFAIL == 75
    assert steps_of(run) == [1, 2, 3] and (run / "checkpoints" / "3" / "state").is_dir()
    assert not (run / "model").exists()
    assert start(episodes, run, "supervised", "SIGINT 2") == 130
    assert steps_of(run) == [1, 2, 3, 4, 5]
    assert start(episodes, run, "supervised") == 0
    assert same(whole, run) and steps_of(run) == steps_of(whole)


def test_a_run_with_adapters_goes_on_too_and_leaves_them_beside_the_weights(tmp_path, episodes, undisturbed):
    assert storm(tmp_path, episodes, "supervised+lora", ["step 3"], undisturbed("supervised+lora")) == 1
    run = tmp_path / "killed"
    adapter = load_file(run / "model" / "adapter" / "adapter_model.safetensors")
    assert len(adapter) == 2 * 7 and all(tensor.any() for tensor in adapter.values())
    assert not any("lora" in name for name in load_file(run / "model" / "model.safetensors"))


@pytest.mark.slow
def test_a_run_with_every_data_side_method_goes_on_as_if_it_had_not_been_killed(tmp_path, episodes, undisturbed):
    # after step 3, when a checkpoint of step 2 is whole; 20 ms into the writing of the next; after step 5
    alone = undisturbed("grpo+data")
    assert storm(tmp_path, episodes, "grpo+data", ["step 3", "saving 0.02", "step 5"], alone) == 3
    killed, whole = metrics_of(tmp_path / "killed"), metrics_of(alone)
    for one, other in zip(killed, whole, strict=True):
        told = {name for name in other if name.startswith(("data/", "rollout/", "reward", "sampling/", "kl", "loss"))}
        assert len(told) > 20 and {name: one[name] for name in told} == {name: other[name] for name in told}
    assert [row["rollout/staleness/max"] >= 1 for row in whole] == [False, *[True] * (STEPS - 1)]
    assert any(row["data/filter/dropped_high"] for row in whole) and whole[-1]["data/history/solved"] > 0
    assert whole[-1]["data/replay/buffer"] == 3 and whole[-1]["data/replay/groups"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["supervised", "grpo", "grpo+lora", "ppo", "ppo+lora"])
def test_a_storm_of_kills(tmp_path, episodes, undisturbed, objective):
    whole = undisturbed(objective)
    draw = random.Random(objective)
    kills = [f"saving {draw.uniform(0, 0.3):.3f}" for _ in range(4)] + ["step 1", "step 2", "step 5"]
    assert storm(tmp_path, episodes, objective, draw.sample(kills, len(kills)), whole) >= 3
    if objective != "supervised":
        # GRPO-D over six steps: down from 0.01 to 0 at 1.8, then up towards 0.02, whenever the run was killed
        expected = [0.01, 0.01 * 0.8 / 1.8, *(0.02 * (step - 1.8) / 4.2 for step in range(2, 6))]
        found = [row["kl_coef"] for row in metrics_of(tmp_path / "killed")]
        assert found == pytest.approx(expected, rel=1e-6)
        assert found == [row["kl_coef"] for row in metrics_of(whole)]
        # no policy over this vocabulary has an entropy of 100: up by 0.005 a step
        coefs = [row["entropy_coef"] for row in metrics_of(tmp_path / "killed")]
        assert coefs == pytest.approx([0.01, 0.015, 0.02, 0.025, 0.03, 0.035])


@pytest.mark.slow
def test_25_kills_at_random_moments_of_60_steps(tmp_path, episodes, undisturbed):
    draw, steps, run = random.Random(25), 60, tmp_path / "killed"
    whole = undisturbed("grpo", steps)
    # a checkpoint every second step, each written beside the steps that follow
    kills = [f"moment {number}" for number in range(19)] + [f"saving {draw.uniform(0, 0.03):.3f}" for _ in range(6)]
    cut = 0
    for kill in draw.sample(kills, len(kills)):
        assert start(episodes, run, "grpo", kill, steps) == -9, f"{kill}: it came to its end"
        cut += any(not (path / COMPLETE).exists() for path in (run / "checkpoints").glob("[0-9]*"))
    assert cut > 0, "none was killed while it wrote"
    reached = steps_of(run)[-1]
    assert start(episodes, run, "grpo", steps=steps) == 0
    assert 0 < reached < steps and steps_of(run) == list(range(1, steps + 1))
    assert same(whole, run)
    assert [row["reward"] for row in metrics_of(whole)] == [row["reward"] for row in metrics_of(run)]
