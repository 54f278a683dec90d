"""The report: every section, verdicts on pictures, nothing from elsewhere, nothing unescaped."""

import html
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from m2io_jax.episodes.episode import Candidate, Episode, Placement
from m2io_jax.errors import UserError
from m2io_jax.evaluation.curves import draw_curves, read_curves, smoothed, write_curves
from m2io_jax.evaluation.report import Sample, headline, render_report, sample_view, write_report
from m2io_jax.evaluation.results import METRICS, Results

ATTACK = "<script>alert(1)</script><img src='https://evil.example/x'> {{ 7*7 }}"


def png(value):
    stored = io.BytesIO()
    Image.new("RGB", (40, 30), (value, 80, 200)).save(stored, format="PNG")
    return stored.getvalue()


def episode(*gold, text="Stir it."):
    candidates = tuple(Candidate(str(i), png(20 * i), caption=text if i == 0 else "") for i in range(5))
    return Episode("e", f"How? {text}", (text, "Serve.", "Eat."), candidates, gold, gold)


def results():
    def scores(mean):
        return {name: {"mean": mean, "low": mean - 2, "high": mean + 2} for name in METRICS}

    return Results(
        {
            "base": {"greedy": scores(66.0), "sampled": scores(60.0)},
            "grpo": {"greedy": scores(75.0), "sampled": scores(72.0)},
            "grpo_pixels_shuffled": {"greedy": scores(31.0)},
            "rules": {"all": scores(40.0), "match": scores(42.0)},
        },
        seed=7,
        seconds=432.0,
        episodes=768,
        config={"name": ATTACK, "steps": 20},
        commands=("make demo", ATTACK),
    )


STEPS = [{"step": i, "reward": 0.5 + i / 100, "kl": None if i < 3 else 0.1, "loss": 0.0} for i in range(20)]


def test_each_picture_gets_its_verdict():
    case = episode(Placement(1, 0), Placement(2, 1), Placement(3, 2))
    view = sample_view(Sample(case, "c", (Placement(1, 0), Placement(3, 1), Placement(3, 3))))
    seen = [
        p if isinstance(p, str) else (p["label"], p["verdict"])
        for part in view["parts"]
        for p in part.get("pictures", [part.get("text")])
    ]
    assert seen == ["Stir it.", ("A", "right"), "Serve. Eat.", ("B", "moved"), ("D", "wrong"), ("C", "missed")]
    (moved,) = [p for part in view["parts"] for p in part.get("pictures", []) if p["verdict"] == "moved"]
    assert "after sentence 2" in moved["words"]
    assert [each["label"] for each in view["unused"]] == ["E"]
    assert view["f1"] == pytest.approx(2 / 3)


def test_an_unreadable_completion_misses_all_gold():
    view = sample_view(Sample(episode(Placement(0, 4)), "nonsense", None))
    assert not view["valid"] and view["f1"] == 0
    assert view["parts"][0]["pictures"][0]["verdict"] == "missed"


def test_the_page_has_every_section_and_loads_nothing(tmp_path):
    case = episode(Placement(1, 0), Placement(2, 1), text=ATTACK)
    samples = [
        Sample(case, ATTACK, (Placement(1, 0), Placement(0, 1), Placement(2, 3)), {"format": 1.0}, reasoning=ATTACK),
        Sample(episode(), "x", None),
        Sample(episode(), "x", ()),
    ]
    path = write_report(tmp_path / "new" / "report.html", results(), samples, {ATTACK: STEPS})
    page = path.read_text()
    assert list(path.parent.iterdir()) == [path]
    for part in ("Results", "Learning curves", "Answers", "How this was made", "Configuration", "make demo"):
        assert part in page
    for symbol in "✓↕✗":
        assert page.count(f"<b>{symbol}") >= 2  # in the key and on a picture
    assert "could not be read" in page and "none was inserted" in page and "rightly not used" in page
    assert "<script" not in page and "<img src='https" not in page and ATTACK in html.unescape(page)
    # The only addresses are foreign words, escaped; every resource is part of the page.
    loaded = re.findall(r"""(?:src|srcset|href|action|data)=["']?([^"'\s>]*)""", re.sub("&lt;img.*?&gt;", "", page))
    assert len(loaded) > 10 and all(each.startswith("data:image/") for each in loaded)
    assert "@import" not in page and "url(" not in page
    assert "72.0" in page and "±2.0" in page


def test_the_headline_says_what_was_measured():
    assert headline(results()) == (
        "GRPO takes picture F1 from 60.0 to 72.0 points for sampled answers and from 66.0 to 75.0 points for greedy "
        "answers, on 768 held-out episodes. The best rule reaches 42.0; with the candidates' pixels shuffled among "
        "themselves, F1 where pictures belong goes from 75.0 to 31.0."
    )
    assert headline(Results()) == "Nothing was evaluated."


def test_an_empty_report_still_says_so():
    page = render_report(Results(), [])
    assert "no metrics" in page and "No answers" in page and "Nothing was evaluated" in page


def test_what_was_left_out_is_said():
    page = render_report(Results(episodes=3, dropped={"more pictures than batch.pictures": 2}), [])
    assert "left out: 2 of 5 episodes: more pictures than batch.pictures" in page


def test_a_report_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"):
        write_report(tmp_path / "file" / "report.html", Results(), [])


def test_curves_are_those_that_were_logged():
    curves = read_curves([*STEPS, {"step": 20, "reward": float("nan"), "other": 1}])
    assert [curve.title for curve in curves] == ["Reward", "KL to the reference", "Loss"]
    assert curves[1].steps.tolist() == list(range(3, 20))
    picture = Image.open(io.BytesIO(draw_curves(curves)))
    assert picture.format == "PNG" and picture.width > 800
    assert read_curves([]) == []


def test_smoothing_is_the_mean_of_the_neighbours():
    values = np.array([1.0, 2.0, 6.0, 3.0])
    np.testing.assert_allclose(smoothed(values, 3), [1.5, 3.0, 11 / 3, 4.5])
    np.testing.assert_allclose(smoothed(values, 1), values)


def test_curves_of_a_run_are_written(tmp_path):
    assert write_curves(tmp_path / "curves.png", tmp_path) is None
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in STEPS[:1]))
    assert write_curves(tmp_path / "curves.png", tmp_path) == tmp_path / "curves.png"
    assert Image.open(tmp_path / "curves.png").format == "PNG"
