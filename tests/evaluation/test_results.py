"""Scores of one episode by hand, their means, the results file and the table."""

import json

import pytest

from m2io_jax.episodes.episode import Candidate, Episode, Placement
from m2io_jax.errors import UserError
from m2io_jax.evaluation.results import (
    METRICS,
    Results,
    merge_into,
    plain_table,
    rows,
    score_completion,
    summarise,
    weighted_reward,
)
from m2io_jax.tasks import find_task
from m2io_jax.tasks.inserter import measure, write


def episode(*gold, sentences=3, candidates=4):
    return Episode(
        id="e",
        question="?",
        sentences=tuple(f"{i}." for i in range(sentences)),
        candidates=tuple(Candidate(str(i), b"") for i in range(candidates)),
        gold=gold,
        labels=gold,
    )


def test_scores_of_a_hand_worked_episode():
    # Gold in reading order 2, 0. Placed in reading order 0, 3, 2, two of which are gold; only (1, 0) has its slot.
    case = episode(Placement(1, 2), Placement(2, 0))
    placed = [Placement(3, 2), Placement(2, 0), Placement(2, 3)]
    parts, weights = {"format": 1.0, "selection": 0.5}, {"format": 1, "selection": 3, "order": 2}
    scores = score_completion(find_task("inserter"), write([], tuple(placed)), case, parts, weights)
    assert scores["precision"] == pytest.approx(2 / 3)
    assert scores["recall"] == 1
    assert scores["f1"] == scores["f1_with_gold"] == pytest.approx(4 / 5)
    assert scores["placement"] == pytest.approx(2 / 5)
    # [0, 3, 2] to [2, 0]: delete one (2), substitute two (2) = 4; or insert 2, keep 0, delete two = 7. 4 / 3 of 3.
    assert scores["order"] == pytest.approx(1 - 4 / 3 / 3)
    assert scores["abstention"] is None and scores["validity"] == 1
    assert scores["reward"] == pytest.approx((1 * 1 + 3 * 0.5) / 4)


def test_pictures_of_one_slot_count_in_the_order_of_mention():
    case = episode(Placement(1, 2), Placement(1, 0))
    assert measure([Placement(1, 2), Placement(1, 0)], case)["order"] == 1
    assert measure([Placement(1, 0), Placement(1, 2)], case)["order"] < 1


def test_an_invalid_completion_counts_as_nothing_inserted():
    without, with_gold = measure(None, episode()), measure(None, episode(Placement(1, 0)))
    assert (without["f1"], without["abstention"], without["f1_with_gold"], without["validity"]) == (1, 1, None, 0)
    assert (with_gold["f1"], with_gold["abstention"], with_gold["f1_with_gold"], with_gold["validity"]) == (
        0,
        None,
        0,
        0,
    )
    assert find_task("inserter").measure("<think>", episode(), {}) == without


def test_rewards_without_weights_count_alike():
    assert weighted_reward({"a": 1.0, "b": 0.5}) == 0.75


def test_of_a_completion_that_nobody_can_score_only_that_is_told():
    task, weights = find_task("counting"), {"accuracy": 3.0, "format": 1.0}
    told = [
        score_completion(task, said, episode(), parts, weights) | {"length": 5}
        for said, parts in (("<answer>3</answer>", {"accuracy": 1.0, "format": 0.0}), ("<answer>x</answer>", None))
    ]
    summary = summarise(told, metrics=task.metrics)
    means = {name: value["mean"] for name, value in summary.items()}
    assert means == {"accuracy": 100, "format": 0, "validity": 100, "reward": 75, "length": 5, "unscored": 50}


def test_means_in_points_over_the_episodes_that_count():
    hits = [measure([Placement(1, 0)] if hit else [], episode(Placement(1, 0))) for hit in (1, 1, 1, 0)]
    empty = [measure([] if right else [Placement(1, 0)], episode()) for right in (1, 0)]
    summary = summarise(hits + empty, seed=3)
    assert summary["f1"]["mean"] == pytest.approx(100 * 4 / 6)
    assert summary["f1_with_gold"]["mean"] == 75
    assert summary["abstention"]["mean"] == 50
    assert summary["validity"] == {"mean": 100, "low": 100, "high": 100}
    assert "reward" not in summary
    assert all(0 <= each["low"] <= each["mean"] <= each["high"] <= 100 for each in summary.values())
    assert summarise(hits + empty, seed=3) == summary
    with pytest.raises(ValueError):
        summarise([])


def metric(mean):
    return {"mean": mean, "low": mean - 1.0, "high": mean + 2.0}


def test_a_later_command_adds_to_the_file(tmp_path):
    path = tmp_path / "run" / "results.json"
    demo = Results(
        {"base": {"greedy": {"f1": metric(60)}}, "rules": {"all": {"f1": metric(40)}}},
        seed=1,
        seconds=400.0,
        episodes=768,
        config={"name": "demo"},
        commands=("make demo",),
    )
    assert merge_into(path, demo) == demo
    controls = Results(
        {"sft_same_time": {"greedy": {"f1": metric(62)}}, "base": {"sampled": {"f1": metric(55)}}},
        seed=1,
        commands=("make demo-controls",),
    )
    merged = merge_into(path, controls)
    row = json.loads(path.read_text())
    assert row["seconds"] == 400 and row["seed"] == 1 and row["episodes"] == 768 and row["config"] == {"name": "demo"}
    assert row["base"] == {"greedy": {"f1": metric(60)}, "sampled": {"f1": metric(55)}}
    assert row["sft_same_time"]["greedy"]["f1"] == metric(62) and row["rules"]["all"]["f1"] == metric(40)
    assert row["commands"] == ["make demo", "make demo-controls"]
    assert Results.read(path) == merged
    assert list(path.parent.iterdir()) == [path]


def test_every_task_but_the_inserter_has_a_section(tmp_path):
    counting = Results({"mine": {"greedy": {"accuracy": metric(40)}}}, episodes=9, dropped={"too long": 2})
    both = Results({"mine": {"greedy": {"f1": metric(60)}}}, seed=1, episodes=7, tasks={"counting": counting})
    both.write(tmp_path / "results.json")
    row = json.loads((tmp_path / "results.json").read_text())
    assert row["mine"] == {"greedy": {"f1": metric(60)}} and row["episodes"] == 7
    section = {"episodes": 9, "dropped": {"too long": 2}, "mine": {"greedy": {"accuracy": metric(40)}}}
    assert row["tasks"] == {"counting": section} and row["dropped"] == {}
    assert Results.read(tmp_path / "results.json") == both
    assert "tasks" not in Results(seed=1).to_json()


def test_dropped_episodes_are_told_with_the_table_and_kept(tmp_path):
    path = tmp_path / "results.json"
    kept = merge_into(path, Results({"mine": {"greedy": {"f1": metric(60)}}}, episodes=8, dropped={"[too] long": 2}))
    assert "left out: 2 of 10 episodes: [too] long" in plain_table(kept)
    assert merge_into(path, Results(commands=("again",))).dropped == {"[too] long": 2}


def test_results_from_before_dropped_episodes_were_told_are_read(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"episodes": 7, "mine": {}, "tasks": {"look": {"episodes": 3}}}))
    read = Results.read(path)
    assert (read.episodes, read.dropped, read.tasks["look"].dropped) == (7, {}, {})
    assert "left out" not in plain_table(read)


def test_results_of_another_seed_are_not_mixed_in(tmp_path):
    path = tmp_path / "results.json"
    merge_into(path, Results(seed=1, episodes=10))
    with pytest.raises(UserError, match="seed 1"):
        merge_into(path, Results(seed=2, episodes=10))
    with pytest.raises(UserError, match="episodes 10"):
        merge_into(path, Results(seed=1, episodes=11))
    assert Results.read(path).seed == 1


@pytest.mark.parametrize(
    "text", ["{", "[]", "3", '{"dropped": 3}', '{"base": 3}', '{"base": {"greedy": {"f1": 3}}}', '{"seed": 1, "x": []}']
)
def test_damaged_results_are_named(tmp_path, text):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(UserError, match="results.json"):
        Results.read(path)


def test_results_that_cannot_be_written_or_found_are_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"):
        Results().write(tmp_path / "file" / "results.json")
    with pytest.raises(UserError, match="nowhere"):
        Results.read(tmp_path / "nowhere")


def results():
    every = {name: metric(50.04 + i) for i, name in enumerate(METRICS)}
    return Results(
        {
            "rules": {"all": every},
            "other": {"greedy": {}},
            "grpo": {"greedy": every, "sampled": every},
            "base": {"greedy": every},
        }
    )


def test_rows_stand_in_the_tables_order():
    assert [(row.policy, row.decoding) for row in rows(results())] == [
        ("Base", "greedy"),
        ("GRPO", "greedy"),
        ("GRPO", "sampled"),
        ("Rule", "all"),
        ("other", "greedy"),
    ]
    assert rows(results())[0].cells[0] == pytest.approx((50.04, 1.5))


def test_the_table_has_every_number_at_any_width():
    wide, narrow = plain_table(results(), width=130), plain_table(results(), width=80)
    assert "50.0 ±1.5" in wide
    assert max(map(len, narrow.splitlines())) <= 80 and "…" not in narrow
    for i in range(len(METRICS)):
        assert narrow.count(f"{50 + i}.0") == wide.count(f"{50 + i}.0") == 4
    assert "–" in wide
