"""A reproduction from start to end with training and judging played: what is made, in which order, and what is said."""

import json
from collections import Counter
from types import SimpleNamespace

import pytest
from rich.console import Console

from m2io_jax.errors import UserError
from m2io_jax.evaluation.policy import Judged, Judgement
from m2io_jax.reproduce import making
from m2io_jax.reproduce.report import inserted
from m2io_jax.tasks.verifiable import write
from m2io_jax.training.run import Finished

PLAN = """\
title: Counting in miniature
about: Played.
run: runs/two
seeds: [0, 1]
metrics: {counting: [accuracy, format]}
data:
  counting: {count: 80, settings: {most: 2, side: 56}}
common:
  batch: {pictures: 1}
  rewards: {accuracy: 1, format: 1}
  evaluate: {episodes: 10}
arms:
  first:
    once: true
    settings: {objective: supervised, tasks: {counting: 1}, steps: 5}
  begun:
    label: begun
    begins_with: first
    once: true
    paper: {counting: "42.50"}
  rl:
    label: RL
    begins_with: first
    settings: {objective: grpo, tasks: {counting: 1}, steps: 7}
    paper: {counting: "64.50"}
  deep:
    label: deep
    begins_with: first
    grow: true
    settings: {objective: grpo, model: deep, tasks: {counting: 1}, steps: 7}
claims:
  - {better: rl, than: begun, task: counting, paper: 64.50 and 42.50}
  - {better: deep, than: begun, task: counting}
"""
# How many of ten test episodes each run gets right; greedily, and one less when sampled.
RIGHT = {"once/first": 4, "seed0/rl": 9, "seed1/rl": 10, "seed0/deep": 4, "seed1/deep": 6}


@pytest.fixture
def played(tmp_path, monkeypatch):
    """Lets `reproduce` run in an empty folder without training; returns what was done, in order."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two.yaml").write_text(PLAN)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "results.md").write_text("# Results\n")
    done: list[str] = []

    def name(config) -> str:
        return "/".join(config.run.parts[-2:])

    def train(config):
        done.append(f"train {name(config)} from {config.init}")
        return Finished(SimpleNamespace(plays=name(config)), config.run, config.steps, 60.0)

    def load(init, size=None):
        return SimpleNamespace(plays="/".join(init.split("/")[-2:]), save=lambda folder: done.append(f"save {folder}"))

    class Judge:
        def __init__(self, config, policy):
            done.append("judge made")

        def ready(self, policy):
            return policy

        def judge(self, policy, task, episodes, title):
            done.append(f"judge {policy.plays}")
            rows = {}
            for less, decoding in enumerate(("greedy", "sampled")):
                right = RIGHT[policy.plays] - less
                rows[decoding] = [
                    Judged(each, write("", each.answer), 9, {"accuracy": float(index < right), "format": 1.0})
                    for index, each in enumerate(episodes)
                ]
            return Judgement(rows, Counter({"too many pictures": 3}))

    for what, by in (("train", train), ("load_policy", load), ("Judge", Judge)):
        monkeypatch.setattr(making, what, by)
    monkeypatch.setattr(making, "grown", lambda policy, size: done.append(f"grow {policy.plays} to {size}") or policy)
    return done


def reproduce(tmp_path, overrides=()):
    making.reproduce("two", list(overrides), tmp_path, Console(quiet=True))
    return json.loads((tmp_path / "runs" / "two" / "results.json").read_text())


def test_arms_are_made_in_order_and_compared(played, tmp_path):
    results = reproduce(tmp_path)
    root = "runs/two"
    assert played[:3] == ["train once/first from base", "judge made", "judge once/first"]
    assert [row for row in played if row.startswith("train seed")] == [
        f"train seed{seed}/{arm} from {root}/{start}"
        for seed in (0, 1)
        for arm, start in (("rl", "once/first"), ("deep", f"seed{seed}/deep-grown"))
    ]
    assert [row for row in played if row.startswith("grow")] == ["grow once/first to deep"] * 2
    assert results["arms"]["rl"]["seeds"]["1"]["counting"]["sampled"]["accuracy"]["mean"] == 90
    first, second = results["claims"]
    assert first["greedy"]["by_seed"] == [50, 60] and first["greedy"]["mean"] == 55
    assert (first["greedy"]["verdict"], second["greedy"]["verdict"]) == ("holds", "not decided")
    assert second["sampled"]["by_seed"] == [0, 20]
    text = (tmp_path / root / "results.md").read_text()
    assert "| begun | 5 | 40.0 | 30.0 | 100.0 | 100.0 | counting 42.50 |" in text
    assert "| RL | 12 | 95.0 (90.0 to 100.0) | 85.0 (80.0 to 90.0) | 100.0 (100.0 to 100.0) |" in text
    assert "Of the paper's 1 claims, by greedy answers 1 holds in miniature (RL above begun), 0 are" in text
    assert "by sampled answers 0 hold in miniature, 0 are the other way round, 1 is not decided (deep above" in text
    assert "- counting: 3 episodes of a run left out: too many pictures\n" in text
    assert "first" not in text and "5 minutes" in text  # five runs of 60 s
    document = (tmp_path / "docs" / "results.md").read_text()
    assert document.startswith("# Results\n\n## Reproductions\n") and text in document


def test_started_again_it_makes_only_what_is_missing(played, tmp_path):
    results = reproduce(tmp_path)
    played.clear()
    assert reproduce(tmp_path) == results and played == []
    (tmp_path / "runs/two/seed1/rl/scores.json").unlink()  # as if killed in it
    reproduce(tmp_path)
    assert played == ["train seed1/rl from runs/two/once/first", "judge made", "judge seed1/rl"]
    document = (tmp_path / "docs" / "results.md").read_text()
    assert document.count("## Reproductions") == document.count("### Counting in miniature") == 1


def test_seeds_may_be_added_but_nothing_else_may_change(played, tmp_path):
    before = (tmp_path / "docs" / "results.md").read_text()
    reproduce(tmp_path, ["seeds=[0]"])
    assert (tmp_path / "docs" / "results.md").read_text() == before  # it is not the plan as it stands
    played.clear()
    reproduce(tmp_path)
    assert [row.split()[1] for row in played if row.startswith("train")] == ["seed1/rl", "seed1/deep"]
    for change, told in (
        ("arms.rl.steps=8", "seed0/rl.steps: was 7, is now 8"),
        ("data.counting.seed=1", "data.counting.seed: was 0, is now 1"),
        ("evaluate.episodes=5", "evaluate.episodes: was 10, is now 5"),
    ):
        with pytest.raises(UserError, match=f"(?s)begun with other settings.*{told}"):
            reproduce(tmp_path, [change])


def test_a_wrong_setting_of_data_is_told_before_anything_is_trained(played, tmp_path):
    with pytest.raises(UserError, match="`moost`.*\n.*did you mean `most`"):
        reproduce(tmp_path, ["data.counting.settings={moost: 3}"])
    assert played == []


def test_a_section_stands_between_its_markers():
    once = inserted("# R\n", "a", "one\n")
    both = inserted(once, "b", "two\n")
    assert both.count("## Reproductions") == 1 and both.index("one") < both.index("two")
    changed = inserted(both, "a", "three\n")
    assert changed == both.replace("one", "three")
