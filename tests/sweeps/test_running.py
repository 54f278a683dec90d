"""A sweep is made run by run: what is finished is skipped, what fails does not stop the rest; mistakes come first."""

import io
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from m2io_jax.errors import UserError
from m2io_jax.evaluation.results import Results
from m2io_jax.sweeps.plan import load_sweep
from m2io_jax.sweeps.running import commands, in_a_process, require_valid, run_sweep, show

ROOT = Path(__file__).resolve().parents[2]
SWEEPS = sorted((ROOT / "configs" / "sweeps").glob("*.yaml"))


class Recorder:
    """Stands in for processes: evaluation leaves results, and a run whose words hold `fails` ends with a status."""

    def __init__(self, statuses=()):
        self.called, self.statuses = [], dict(statuses)

    def __call__(self, command):
        self.called.append(command)
        for part, status in self.statuses.items():
            if any(part in word for word in command):
                return status
        if "evaluate" in command:
            Results(scores={"p": {}}).write(Path(command[-1]) / "results.json")
        return 0

    def verbs(self) -> list[str]:
        verbs = ("train", "evaluate", "fetch", "stop", "delete")
        return [next(verb for verb in verbs if verb in command) for command in self.called]


@pytest.fixture
def plan(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def plan(**more):
        (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({"name": "s", "config": "c.yaml"} | more, sort_keys=False))
        return load_sweep(tmp_path / "sweep.yaml")

    return plan


def run(sweep, runs, **statuses) -> tuple[int, Recorder, str]:
    """The sweep's status, what was called and what was said."""
    said, recorder = io.StringIO(), Recorder(statuses)
    try:
        status = run_sweep(sweep, runs, Console(file=said, width=200), recorder)
    except SystemExit as ended:
        status = ended.code
    return status, recorder, said.getvalue()


def test_each_run_is_trained_then_evaluated_in_a_folder_of_its_own(plan):
    sweep, runs = plan(seeds=[0, 1])
    failed, recorder, _ = run(sweep, runs)
    assert failed == 0 and recorder.verbs() == ["train", "evaluate"] * 2
    for made, train, evaluate in zip(runs, recorder.called[::2], recorder.called[1::2], strict=True):
        folder = f"runs/sweeps/s/{made.name}"
        assert train[:5] == [sys.executable, "-m", "m2io_jax", "train", "c.yaml"]
        assert train[5:] == [f"seed={made.settings['seed']}", f'name="{made.name}"', f'run="{folder}"']
        assert evaluate == [sys.executable, "-m", "m2io_jax", "evaluate", folder]


def test_what_failed_does_not_stop_the_rest_and_is_made_again_alone(plan):
    sweep, runs = plan(seeds=[0, 1, 2])
    failed, recorder, said = run(sweep, runs, **{"seed=1": 3})
    assert failed == 1 and recorder.verbs() == ["train", "evaluate", "train", "train", "evaluate"]
    assert "2 made, 0 finished before, 1 failed" in said and f"{runs[1].name} failed with status 3" in said
    failed, recorder, said = run(sweep, runs)
    assert failed == 0 and recorder.verbs() == ["train", "evaluate"]
    assert "seed=1" in recorder.called[0] and "1 made, 2 finished before, 0 failed" in said


@pytest.mark.parametrize("status", [75, 130])
def test_a_run_that_was_asked_to_stop_ends_the_sweep(plan, status):
    sweep, runs = plan(seeds=[0, 1])
    ended, recorder, said = run(sweep, runs, **{"seed=0": status})
    assert ended == status and recorder.verbs() == ["train"] and "the same command goes on" in said


TPU = {
    "sizes": {"3b": {"topology": "v5e-16"}},
    "launcher": {"runs": "/shared/runs", "options": {"spot": True, "project": "p q", "poll": 5, "dry-run": False,
                                                   "mounted": "/shared", "extra": ["wandb", "mlflow"]}},
}


@pytest.mark.parametrize(
    ("statuses", "verbs"),
    [
        ({}, ["train", "evaluate", "fetch", "delete"]),
        ({"train": 1}, ["train", "delete"]),
        ({"evaluate": 1}, ["train", "evaluate", "delete"]),
        ({"train": 75}, ["train", "stop", "delete"]),
        ({"evaluate": 130}, ["train", "evaluate", "stop", "delete"]),
    ],
)
def test_machines_are_given_back_however_a_run_ended_and_one_that_may_run_is_asked_to_save_first(plan, statuses, verbs):
    status, recorder, said = run(*plan(**TPU), **statuses)
    assert recorder.verbs() == verbs and status == sum(statuses.values())
    assert "could not be" not in said


def test_machines_that_could_not_be_given_back_are_told_and_the_sweep_has_not_gone_well(plan):
    sweep, runs = plan(**TPU, seeds=[0, 1])
    status, recorder, said = run(sweep, runs, delete=1)
    assert status == 2 and "2 made, 0 finished before, 0 failed" in said
    for made in runs:  # at once, and at the end
        command = shlex.join(commands(sweep, made)[1])
        assert said.count(f"Machines may still run, and cost: they could not be given back. Do so by: {command}") == 2


def test_asked_to_stop_while_machines_are_given_back_a_sweep_makes_no_others(plan):
    sweep, runs = plan(**TPU, seeds=[0, 1])
    status, recorder, said = run(sweep, runs, delete=130)
    assert status == 130 and recorder.verbs() == ["train", "evaluate", "fetch", "delete"]
    assert shlex.join(commands(sweep, runs[0])[1]) in said, "what may not have been given back is told"


def test_a_run_that_could_not_be_asked_to_save_is_told(plan):
    sweep, (made,) = plan(**TPU)
    status, recorder, said = run(sweep, [made], train=75, stop=255, delete=1)
    assert status == 75 and recorder.verbs() == ["train", "stop", "delete"]
    assert f"{made.name} could not be asked to save" in said and "Machines may still run, and cost" in said


def test_a_run_for_a_slice_is_handed_to_the_launcher(plan):
    sweep, (made,) = plan(**TPU)
    machines = ["--name", "m2io-" + made.name[-6:], "--spot", "--project", "p q", "--poll", "5",
                "--mounted", "/shared", "--extra", "wandb", "--extra", "mlflow"]  # fmt: skip
    (train, evaluate, fetch), delete = commands(sweep, made)
    assert train[:-3] == ["launch/tpu_vm.sh", "run", *machines, "--topology", "v5e:4x4", "train"]
    assert train[-1] == f'run="/shared/runs/{made.name}"'  # where its policy outlives the machines
    assert evaluate[-2:] == ["evaluate", f"/shared/runs/{made.name}"] and evaluate[:-2] == train[:-4]
    assert fetch == ["launch/tpu_vm.sh", "fetch", *machines, f"/shared/runs/{made.name}", "runs/sweeps/s"]
    assert delete == ["launch/tpu_vm.sh", "delete", *machines]


def test_all_mistakes_of_all_runs_are_told_at_once(plan, tmp_path):
    (tmp_path / "c.yaml").write_text("name: c\nobjective: supervised\nsteps: 1\nepisodes: e\n")
    sweep, runs = plan(runs=[{"steps": 0}, {"batch.promts": 3}, {"tasks": {"insrter": 1}}, {}, {"episodes": None}])
    with pytest.raises(UserError) as error:
        require_valid(sweep, runs, data=False)
    for number, told in {0: "`steps` is 0", 1: "batch.promts", 2: "insrter", 4: "no episodes"}.items():
        assert runs[number].name in str(error.value) and told in str(error.value)
    assert runs[3].name not in str(error.value)
    require_valid(sweep, runs[3:4], data=False)
    with pytest.raises(UserError, match="m2io episodes"):  # there is no folder `e`
        require_valid(sweep, runs[3:4], data=True)


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_the_sweeps_that_come_with_the_project_are_in_order(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    sweep, runs = load_sweep(path, ["episodes=any"])
    assert sweep.name == path.stem
    require_valid(sweep, runs, data=False)


def test_the_sizes_are_planned_from_tiny_to_72b(monkeypatch):
    monkeypatch.chdir(ROOT)
    sweep, runs = load_sweep(ROOT / "configs/sweeps/inserter_sizes.yaml")
    said = io.StringIO()
    show(sweep, runs, Console(file=said))
    asked = [line for line in said.getvalue().splitlines() if " train " in line]
    assert [run.size for run in runs] == ["tiny", "3b", "7b", "32b", "72b"]
    assert [line.split("--topology ")[1].split()[0] for line in asked[1:]] == [
        "v5e:4x4", "v6e:4x8", "v5p:2x4x4", "v5p:4x4x4",
    ]  # fmt: skip
    for run, line in zip(runs, asked, strict=True):
        # rows are shared out evenly to the devices
        rows = run.settings.get("batch.prompts", 8)
        assert run.topology is None or rows % run.topology.all_devices == 0
        assert f"configs/inserter_r1_{run.size}.yaml" in line
        assert ('run="/shared/runs/' in line) == ("--mounted /shared" in line) == (run.topology is not None)


def test_a_process_gives_its_status_and_is_told_to_stop():
    assert in_a_process([sys.executable, "-c", "raise SystemExit(7)"]) == 7
    saves = "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\ntime.sleep(60)"
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM))
    before, began = signal.getsignal(signal.SIGTERM), time.monotonic()
    timer.start()
    assert in_a_process([sys.executable, "-c", saves]) == 75
    assert time.monotonic() - began < 30 and signal.getsignal(signal.SIGTERM) is before


def test_after_ctrl_c_a_process_is_waited_for(tmp_path):
    """A terminal tells the process too; here nobody does, so that it ends by itself."""
    saves = f"import pathlib, time\ntime.sleep(2)\npathlib.Path({str(tmp_path / 'saved')!r}).touch()"
    before = signal.getsignal(signal.SIGINT)
    threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
    assert in_a_process([sys.executable, "-c", saves]) == 130
    assert (tmp_path / "saved").exists() and signal.getsignal(signal.SIGINT) is before


@pytest.mark.slow
def test_two_runs_of_two_steps_are_made_skipped_and_reported(tmp_path):
    def m2io(*words: str) -> str:
        settings = os.environ | {"PYTHONPATH": str(ROOT), "JAX_NUM_CPU_DEVICES": "1"}
        ran = subprocess.run([sys.executable, "-m", "m2io_jax", *words], cwd=tmp_path, env=settings,
                             capture_output=True, text=True)  # fmt: skip
        assert ran.returncode == 0, ran.stderr[-3000:]
        return ran.stdout

    m2io("corpus", "import", "kitchen", "corpus", "documents=30")
    m2io("index", "corpus")
    m2io("episodes", "corpus", "episodes", "min_candidates=2", "max_candidates=3", "train=0.6")
    small = {"steps": 2, "seconds": None, "batch": {"prompts": 2, "prompt_length": 256, "completion_length": 64,
             "pictures": 3}, "rollout": {"group_size": 2}, "evaluate": {"episodes": 4, "batch_prompts": 4}}  # fmt: skip
    plan = {"name": "two", "config": str(ROOT / "configs/tiny.yaml"), "seeds": [0, 1],
            "settings": small | {"episodes": "episodes"}, "price_per_chip_hour": {"here": 2.0}}  # fmt: skip
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(plan))
    assert "2 made, 0 finished before, 0 failed" in m2io("sweep", "two.yaml")
    results = sorted((tmp_path / "runs/sweeps/two").glob("*/results.json"))
    assert len(results) == 2
    results[1].unlink()  # trained, but not evaluated
    assert "1 made, 1 finished before, 0 failed" in m2io("sweep", "two.yaml")
    m2io("sweep", "report", "two.yaml")
    report = json.loads((tmp_path / "runs/sweeps/two/report.json").read_text())
    assert [row["steps"] for row in report["runs"]] == [2, 2]
    assert all(row["measured"] and row["cost"] == pytest.approx(2 * row["step_seconds"] / 3600) and row["scores"]["f1"]
               for row in report["runs"])  # fmt: skip
    assert (tmp_path / "runs/sweeps/two/report.png").read_bytes().startswith(b"\x89PNG")
