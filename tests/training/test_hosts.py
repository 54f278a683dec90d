"""Two and four processes on this machine train together: what one leaves, what remains when one dies."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from evaluated_run import __file__ as EVALUATION
from killed_run import __file__ as PROGRAM
from processes import Ended, run_together
from safetensors.numpy import load_file

STEPS = 6


def train(episodes: Path, run: Path, deeds: list[str], objective: str = "grpo", devices: int = 1) -> list[Ended]:
    """One start of a run in as many processes as there are deeds; see killed_run.py."""
    extra = {"JAX_COMPILATION_CACHE_DIR": str(run.parent / "compiled"), "JAX_NUM_CPU_DEVICES": str(devices)}
    words = [[str(episodes), str(run), f"{objective}+four", str(STEPS), deed] for deed in deeds]
    return run_together(Path(PROGRAM), words, extra)


def finish(*given, **named) -> None:
    for each in train(*given, **named):
        assert each.code == 0, each.err[-3000:]


def weights(run: Path) -> dict[str, np.ndarray]:
    return load_file(run / "model" / "model.safetensors")


def metrics(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def largest_difference(one: Path, other: Path) -> float:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    return max(np.abs(first[name] - second[name]).max() for name in first)


def same(one: Path, other: Path) -> bool:
    first, second = weights(one), weights(other)
    return all(first[name].tobytes() == second[name].tobytes() for name in first)


@pytest.mark.slow
@pytest.mark.parametrize(("objective", "count", "dies"), [("grpo", 2, 1), ("supervised", 2, 0), ("supervised", 4, 2)])
def test_one_dies_in_mid_step_all_end_and_the_run_goes_on(tmp_path, episodes, objective, count, dies):
    whole, killed, fewer = (tmp_path / name for name in ("whole", "killed", "fewer"))
    finish(episodes, whole, ["never"] * count, objective)
    ended = train(episodes, killed, ["in 4" if index == dies else "never" for index in range(count)], objective)
    assert ended[dies].code == -9, ended[dies].err[-3000:]
    for index, each in enumerate(ended):
        assert each.code != 0 and each.at - ended[dies].at < 30
        named = f"error: process {dies} was lost, so process {index} ended too\n"
        assert index == dies or named in each.err, each.err[-3000:]
    assert len(metrics(killed)) == 3 and not (killed / "model").exists()
    shutil.copytree(killed, fewer)
    finish(episodes, killed, ["never"] * count, objective)
    finish(episodes, fewer, ["never"] * (count // 2), objective)
    assert same(whole, killed) and largest_difference(whole, fewer) < 1e-5
    for run in (whole, killed, fewer):
        assert [row["step"] for row in metrics(run)] == list(range(1, STEPS + 1))
    for name in {"reward", "completions/mean_length", "num_tokens", "dropped_rows"} & metrics(whole)[0].keys():
        values = [[row[name] for row in metrics(run)] for run in (whole, killed, fewer)]
        assert values[0] == values[1] == values[2], name


@pytest.mark.slow
def test_the_number_of_processes_changes_nothing_that_is_computed(tmp_path, episodes):
    runs = {(1, 4): tmp_path / "one", (2, 2): tmp_path / "two", (4, 1): tmp_path / "four"}
    for (count, devices), run in runs.items():
        finish(episodes, run, ["never"] * count, devices=devices)
    for run in runs.values():
        assert largest_difference(tmp_path / "one", run) < 1e-5
        rewards = [[row["reward"] for row in metrics(folder)] for folder in (tmp_path / "one", run)]
        assert rewards[0] == rewards[1]


@pytest.mark.slow
def test_one_asked_to_stop_stops_all_at_the_same_step(tmp_path, episodes):
    run, whole = tmp_path / "stopped", tmp_path / "whole"
    for each in train(episodes, run, ["never", "SIGTERM 3"], "supervised"):
        assert each.code == os.EX_TEMPFAIL, each.err[-3000:]
    assert len(metrics(run)) == 3 and (run / "checkpoints" / "3").is_dir()
    for folder in (run, whole):
        finish(episodes, folder, ["never"] * 2, "supervised")
    assert same(whole, run)


@pytest.mark.slow
def test_one_that_fails_tells_the_others_why(tmp_path, episodes):
    ended = train(episodes, tmp_path / "run", ["never", "raise 3"], "supervised")
    assert [each.code for each in ended] == [1, 1]
    assert all("process 1 failed" in each.err and "The dog ate the data." in each.err for each in ended)


@pytest.mark.slow
def test_processes_that_do_not_see_the_same_folder_are_told_before_they_train(tmp_path, episodes):
    words = [[str(episodes), str(tmp_path / name / "run"), "supervised", "1", "never"] for name in ("here", "there")]
    for index, each in enumerate(run_together(Path(PROGRAM), words, {})):
        assert each.code == 1 and "others do not find" in each.err, (index, each.err[-3000:])
    assert not list(tmp_path.rglob(".seen-*"))


@pytest.mark.slow
def test_several_evaluate_together_what_one_does_and_the_first_alone_writes(tmp_path, episodes):
    run, results = tmp_path / "run", {}
    finish(episodes, run, ["never"], "supervised")
    for count in (1, 2, 4):  # 4 processes do not divide the episodes
        ended = run_together(Path(EVALUATION), [[str(episodes), str(run)]] * count, {})
        assert [each.code for each in ended] == [0] * count, ended[-1].err[-3000:]
        assert ["results" in each.out for each in ended] == [True] + [False] * (count - 1)
        results[count] = json.loads((run / "results.json").read_text())
    assert results[1]["episodes"] and results[1]["tasks"]["look"]["episodes"]
    assert results[1] == results[2] == results[4]
