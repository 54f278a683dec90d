"""A sweep's report against figures worked by hand: what was measured, what is only planned, and what it cost."""

import json

import pytest
import yaml

from m2io_jax.errors import UserError
from m2io_jax.evaluation.results import Results
from m2io_jax.sweeps.plan import load_sweep
from m2io_jax.sweeps.report import read_outcomes, write_report

PLAN = {
    "name": "s",
    "settings": {"episodes": "e", "model": "tiny"},
    "sizes": {
        "small": {"config": "one.yaml"},
        "large": {"config": "two.yaml", "topology": "2xtpu7x-8", "planned_step_s": 9.0},
    },
    "seeds": [0, 1],
    "launcher": {"runs": "/gcs/runs"},
    "price_per_chip_hour": {"tpu7x": 10.0},
}
ONE = "name: one\nobjective: supervised\nsteps: 100\n"
TWO = "name: two\nobjective: supervised\nstages: {a: {steps: 30}, b: {steps: 70}}\n"


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """Of four runs: one finished, one begun, two planned."""
    monkeypatch.chdir(tmp_path)
    for name, text in {"one.yaml": ONE, "two.yaml": TWO, "s.yaml": yaml.safe_dump(PLAN, sort_keys=False)}.items():
        (tmp_path / name).write_text(text)
    plan, runs = load_sweep(tmp_path / "s.yaml")
    finished, begun = (plan.folder / runs[number].name for number in (0, 2))
    write_metrics(finished, {10: 2.0, 20: 4.0})  # every tenth step is logged
    write_metrics(begun / "a", {30: 6.0})
    write_metrics(begun / "b", {1: 8.0, 2: 10.0})
    f1 = {"mean": 60.0, "low": 55.0, "high": 64.0}
    Results(scores={runs[0].name: {"greedy": {"f1": f1}}, "rules": {"all": {}}}).write(finished / "results.json")
    return plan, runs


def write_metrics(folder, times: dict[int, float]) -> None:
    folder.mkdir(parents=True)
    rows = [json.dumps({"step": step, "step_time": seconds}) for step, seconds in times.items()]
    (folder / "metrics.jsonl").write_text("\n".join(rows) + "\n")


def test_outcomes_are_what_was_worked_by_hand(sweep):
    finished, planned_here, begun, planned = read_outcomes(*sweep)
    assert (finished.steps, finished.step_seconds, finished.measured, finished.chips) == (20, 60.0, True, 1)
    assert (finished.chip_hours, finished.cost) == (60 / 3600, None)  # this machine has no price
    assert dict(finished.scores) == {"f1": {"mean": 60.0, "low": 55.0, "high": 64.0}}
    assert finished.settings == {"seed": 0} and finished.where == "here" and finished.size == "small"

    assert (planned_here.steps, planned_here.measured, planned_here.chip_hours) == (100, False, None)

    # stages together: 30 steps of 6 s and 2 of 9 s, on two slices of four chips
    assert (begun.steps, begun.step_seconds, begun.chips) == (32, 198.0, 8)
    assert begun.chip_hours == pytest.approx(198 * 8 / 3600) and begun.cost == pytest.approx(10 * 198 * 8 / 3600)
    assert begun.measured and not begun.scores

    # 70 steps of the last stage, whose steps are those that were planned
    assert (planned.steps, planned.step_seconds, planned.measured) == (100, 630.0, False)
    assert planned.cost == pytest.approx(10 * 630 * 8 / 3600)


def test_parameters_are_those_of_the_weights_that_ship(sweep):
    from safetensors import safe_open

    from m2io_jax.models.policy import BASE

    with safe_open(BASE / "model.safetensors", framework="numpy") as file:
        count = sum(file.get_tensor(name).size for name in file.keys())  # noqa: SIM118
    assert read_outcomes(*sweep)[0].parameters == count


def test_the_report_is_a_table_and_a_picture(sweep):
    data, table, picture = write_report(*sweep)
    rows = json.loads(data.read_text())["runs"]
    assert [row["name"] for row in rows] == [run.name for run in sweep[1]]
    lines = [line for line in table.read_text().splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 4 and len({line.count("|") for line in lines}) == 1
    assert "60.0 ±4.5" in lines[2] and "0.0167" in lines[2] and "planned" not in lines[2]
    assert "| 1.4 planned | 14 |" in lines[5] and "2xtpu7x:2x2x1" in lines[5]
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_run_of_other_tasks_is_reported_by_what_they_measure(sweep):
    plan, runs = sweep
    half = {"greedy": {metric: {"mean": 50.0, "low": 47.0, "high": 53.0} for metric in ("accuracy", "length")}}
    tasks = {"counting": Results(scores={runs[0].name: half}), "look": Results(scores={"other": half})}
    Results(tasks=tasks).write(plan.folder / runs[0].name / "results.json")
    assert list(read_outcomes(plan, runs)[0].scores) == ["counting accuracy"]
    written = write_report(plan, runs)
    heads, _, first, *_ = [line for line in written[1].read_text().splitlines() if line.startswith("|")]
    assert "| counting accuracy |" in heads and "F1" not in heads and "50.0 ±3.0" in first
    assert written[2].name == "report.png"


def test_episodes_that_are_in_no_score_are_told(sweep):
    plan, runs = sweep
    counting = Results(episodes=8, dropped={"the prompt is too long": 2})
    Results(episodes=9, dropped={"no picture": 1}, tasks={"counting": counting}).write(
        plan.folder / runs[0].name / "results.json"
    )
    told = ["left out: 1 of 10 episodes: no picture", "counting left out: 2 of 10 episodes: the prompt is too long"]
    assert read_outcomes(plan, runs)[0].left_out == told
    data, text, *_ = write_report(plan, runs)
    assert text.read_text().endswith("\n\n" + "".join(f"- {runs[0].name}: {line}\n" for line in told))
    assert [run["left_out"] for run in json.loads(data.read_text())["runs"]] == [told, [], [], []]


def test_nothing_is_drawn_before_a_run_is_finished(sweep):
    plan, runs = sweep
    assert [path.name for path in write_report(plan, runs[1:])] == ["report.json", "report.md"]


def test_damaged_results_are_told(sweep):
    plan, runs = sweep
    (plan.folder / runs[0].name / "results.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        read_outcomes(plan, runs)
