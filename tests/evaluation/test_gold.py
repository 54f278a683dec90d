"""Rules on the benchmark's gold pictures: published reference lines on the real file, and damaged files."""

import json
import os
from pathlib import Path

import pytest

from m2io_jax.errors import UserError
from m2io_jax.evaluation.gold import evaluate_rules, read_gold
from m2io_jax.picture_metrics import picture_scores

SHARED = Path(os.environ.get("M2IO_SHARED", Path(__file__).resolve().parents[3] / "shared"))
GOLD = SHARED / "data" / "mramg_gold.jsonl"
needs_gold = pytest.mark.skipif(not GOLD.is_file(), reason="the shared file mramg_gold.jsonl is not here")

METRICS = ("precision", "recall", "f1", "order")
REFERENCE = {
    ("all", "arxiv"): (44.8, 100, 61.1, 63.2),
    ("all", "recipe"): (57.4, 100, 63.4, 70.8),
    ("all", "manual"): (4.2, 100, 7.8, 32.7),
    ("all", "lifestyle"): (49.8, 100, 55.4, 65.3),
    ("all", "web_domain"): (100, 100, 100, 99.5),
    ("best", "arxiv"): (67.5, 64.5, 65.5, 63.2),
    ("best", "recipe"): (58.1, 34.9, 37.2, 26.5),
    ("best", "manual"): (57.2, 41.5, 38.0, 21.9),
    ("best", "lifestyle"): (58.0, 35.8, 37.3, 25.9),
    ("none", "recipe"): (2.4, 2.4, 2.4, 2.4),
    ("none", "manual"): (10.3, 10.3, 10.3, 10.3),
}


@needs_gold
def test_the_reference_lines_are_reproduced():
    results = evaluate_rules(GOLD)
    for (rule, subset), expected in REFERENCE.items():
        found = tuple(results[rule][subset][metric] for metric in METRICS)
        assert found == pytest.approx(expected, abs=0.0501), (rule, subset)
    assert set(results["all"]) == {"wit", "wiki", "web", "arxiv", "recipe", "manual", "lifestyle", "web_domain"}


@needs_gold
def test_a_rule_with_a_relative_threshold_reproduces_its_reference_lines():
    expected = {
        "arxiv": (64.0, 78.0, 68.0, 66.9),
        "recipe": (58.3, 54.4, 47.7, 36.8),
        "manual": (48.4, 59.1, 45.1, 35.8),
    }
    scores = {subset: [] for subset in expected}
    for question in read_gold(GOLD):
        if question.subset in scores:
            best = dict(zip(question.candidates, question.scores, strict=True))
            good = [each for each in best if best[each] >= 0.2 * max(best.values())]
            chosen = sorted(good, key=best.__getitem__, reverse=True)[:3]
            found = picture_scores([each for each in good if each in chosen], question.gold)
            scores[question.subset].append([getattr(found, metric) for metric in METRICS])
    for subset, rows in scores.items():
        means = [100 * sum(column) / len(rows) for column in zip(*rows, strict=True)]
        assert means == pytest.approx(expected[subset], abs=0.0501), subset


@needs_gold
def test_the_real_file_has_its_known_shape():
    questions = list(read_gold(GOLD))
    assert len(questions) == 4764
    assert sum(not question.gold for question in questions) == 96
    assert all(set(question.gold) <= set(question.candidates) for question in questions)


def line(**changes):
    candidates = [{"id": "a", "score": 0.5}, {"id": "b", "score": 0.9}]
    return json.dumps({"subset": "recipe", "qid": "R0", "gold": ["a"], "cands": candidates} | changes)


def test_rules_and_domains_by_hand(tmp_path):
    file = tmp_path / "gold.jsonl"
    manual = line(subset="manual", gold=[])
    file.write_text("\n".join([line(), line(gold=["b"]), line(gold=["a", "b"]), manual]) + "\n")
    results = evaluate_rules(file)
    assert results["all"]["recipe"]["recall"] == 100
    assert results["all"]["recipe"]["f1"] == pytest.approx(100 * (2 / 3 + 2 / 3 + 1) / 3)
    assert results["best"]["recipe"]["precision"] == pytest.approx(100 * 2 / 3)
    assert results["none"]["manual"]["order"] == 100
    assert results["none"]["lifestyle"]["order"] == 25
    assert "web_domain" not in results["all"]


def test_whole_numbers_and_text_name_the_same_picture(tmp_path):
    file = tmp_path / "gold.jsonl"
    file.write_text(line(gold=[7], cands=[{"id": "7", "score": 1}, {"id": 7, "score": 1}]))
    assert evaluate_rules(file)["all"]["recipe"] == dict.fromkeys(METRICS, 100.0)


def test_questions_without_candidates(tmp_path):
    file = tmp_path / "gold.jsonl"
    file.write_text(line(gold=[], cands=[]))
    assert all(rule["recipe"]["f1"] == 100 for rule in evaluate_rules(file).values())


@pytest.mark.parametrize(
    "bad",
    [
        line()[:-20],
        "",
        "[]",
        '{"subset": "recipe"}',
        line(gold="a"),
        line(gold=[None]),
        line(cands=[{"id": "a"}]),
        line(cands=[{"id": "a", "score": "high"}]),
        line(cands=[{"id": "a", "score": float("nan")}]),
        line(cands=["a"]),
        line(subset="lifestyle"),
        line(qid=""),
        "\udcff",
        "[" * 200_000,
    ],
)
def test_a_damaged_line_is_named(tmp_path, bad):
    file = tmp_path / "gold.jsonl"
    file.write_bytes((line() + "\n" + bad + "\n").encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError) as caught:
        evaluate_rules(file)
    assert caught.value.where == f"{file}:2" and "Line 2" in caught.value.what


def test_missing_and_empty_files_are_named(tmp_path):
    for file in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(UserError, match=str(file)):
            evaluate_rules(file)
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(UserError, match="empty"):
        evaluate_rules(tmp_path / "empty.jsonl")
