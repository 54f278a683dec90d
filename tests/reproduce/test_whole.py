"""A plan that ships, from start to end, with one step an arm."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from m2io_jax.reproduce.making import reproduce

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "reproduce"
SCALE = ("steps=1", "seeds=[0]", "batch.prompts=8", "rollout.group_size=2", "evaluate.episodes=16",
         "evaluate.batch_prompts=8", "data.counting.count=200", "data.geometry.count=200")  # fmt: skip


@pytest.mark.slow
def test_a_plan_that_ships_is_made_once(tmp_path):
    settings = [f"run={tmp_path / 'run'}", *SCALE]
    folder = reproduce("othink-mr1", settings, FOLDER, Console(quiet=True))
    results = json.loads((folder / "results.json").read_text())
    for name, arm in results["arms"].items():
        found = arm["seeds"]["0"]
        assert found["steps"] == 1
        assert name == "look" or 0 <= found["geometry"]["sampled"]["format"]["mean"] <= 100
    assert all(len(claim["greedy"]["by_seed"]) == 1 for claim in results["claims"])
    made = {path: path.stat().st_mtime_ns for path in folder.rglob("scores.json")}
    assert len(made) == 8
    reproduce("othink-mr1", settings, FOLDER, Console(quiet=True))
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("scores.json")} == made
