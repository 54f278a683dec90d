"""What is said where rows are left out: each reason, the columns found and those read, also where none is left."""

import json
import subprocess
import sys

import pytest
from row_fakes import write_images, write_lines

from m2io_jax.episodes.dataset import open_episodes
from m2io_jax.episodes.published.draft import ReadConfig
from m2io_jax.episodes.published.making import make_read
from m2io_jax.errors import UserError

GOOD = {"problem": "How many?", "answer": "3"}


def test_no_row_left_shows_the_reasons_and_writes_the_report(tmp_path):
    rows = [{"text": "x", "label": 1}] * 3 + [{"problem": "<image>Q", "answer": "3"}, "{"]
    write_lines(tmp_path / "set" / "rows.jsonl", *rows)
    with pytest.raises(UserError) as caught:
        make_read("rows", tmp_path / "set", tmp_path / "out", ReadConfig())
    said = str(caught.value)
    for expected in (
        "5 rows read, 0 kept", "3 left out: no question", "1 left out: a line that is not JSON",
        "columns found: answer, label, problem, text", "columns read: question message, problem",
        "rows.jsonl:4: as many images", "prompt_key=",
    ):  # fmt: skip
        assert expected in said
    written = json.loads((tmp_path / "out.report.json").read_text())
    assert written["bad"]["no question"] == 3 and len(written["problems"]) == 5 and written["columns"]["text"] == 3
    assert not (tmp_path / "out").exists()


def test_columns_that_are_not_read_are_named_though_every_row_is_kept(tmp_path):
    row = GOOD | {"context": "Three balls.", "hint": "Count.", "source": "web", "reward_model": {"style": "rule"}}
    write_lines(write_images(tmp_path / "set") / "rows.jsonl", row, GOOD | {"problem": "Now?", "image_1": "a.png"})
    report = make_read("rows", tmp_path / "set", tmp_path / "out", ReadConfig())
    assert report.kept == 2 and report.columns_unread == ["context", "hint", "source"]
    assert "columns not read: context, hint, source" in report.summary()
    settings = ReadConfig(prompt_key="context", answer_key="answer")
    assert make_read("rows", tmp_path / "set", tmp_path / "out2", settings).columns_unread == ["hint", "source"]


def test_a_set_that_is_read_after_all_leaves_no_such_report(tmp_path):
    write_lines(tmp_path / "set" / "rows.jsonl", {"a": 1})
    with pytest.raises(UserError):
        make_read("rows", tmp_path / "set", tmp_path / "out", ReadConfig())
    write_lines(tmp_path / "set" / "rows.jsonl", GOOD)
    make_read("rows", tmp_path / "set", tmp_path / "out", ReadConfig(train=1.0, validation=0.0))
    assert not (tmp_path / "out.report.json").exists() and len(open_episodes(tmp_path / "out", "train")) == 1


def test_a_report_that_cannot_be_written_hides_no_reason(tmp_path):
    write_lines(tmp_path / "set" / "rows.jsonl", {"text": "x"})
    (tmp_path / "out.report.json").mkdir()
    with pytest.raises(UserError, match=r"(?s)1 left out: no question.*report cannot be written"):
        make_read("rows", tmp_path / "set", tmp_path / "out", ReadConfig())
    write_lines(tmp_path / "set" / "rows.jsonl", GOOD)
    assert make_read("rows", tmp_path / "set", tmp_path / "out", ReadConfig(train=1.0, validation=0.0)).kept == 1


def test_a_set_without_a_row_says_so(tmp_path):
    (tmp_path / "rows.jsonl").write_text("\n\n")
    with pytest.raises(UserError, match="0 rows read, 0 kept"):
        make_read("rows", tmp_path / "rows.jsonl", tmp_path / "out", ReadConfig())


def test_an_output_that_cannot_be_written_is_told_as_that(tmp_path):
    write_lines(tmp_path / "set" / "rows.jsonl", {"a": 1})
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match=r"thesis\.txt"):
        make_read("rows", tmp_path / "set", tmp_path / "out", ReadConfig())


def test_files_that_are_not_read_are_named(tmp_path):
    folder = write_images(tmp_path / "set")
    for name in ("train.csv", "b.tar", "c.jsonl.gz"):
        (folder / name).write_bytes(b"x")
    with pytest.raises(UserError, match=r"(?s)train\.csv.*\.json, \.jsonl or \.parquet"):
        make_read("rows", folder, tmp_path / "out", ReadConfig())
    secret = write_lines(tmp_path / "secret.jsonl", GOOD)
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "a.jsonl").symlink_to(secret)
    with pytest.raises(UserError, match=r"(?s)link that leads out of the folder: a\.jsonl.*named itself"):
        make_read("rows", tmp_path / "links", tmp_path / "out", ReadConfig())
    report = make_read("rows", tmp_path / "links" / "a.jsonl", tmp_path / "out", ReadConfig(train=1.0, validation=0.0))
    assert report.kept == 1
    (tmp_path / "one.json").write_text(json.dumps({"rows": [GOOD]}))
    with pytest.raises(UserError, match="neither an array of rows"):
        make_read("rows", tmp_path / "one.json", tmp_path / "out2", ReadConfig())


def test_a_link_to_a_file_that_is_read_does_not_double_its_rows(tmp_path):
    file = write_lines(tmp_path / "set" / "a.jsonl", GOOD)
    (tmp_path / "set" / "latest.jsonl").symlink_to(file)
    report = make_read("rows", tmp_path / "set", tmp_path / "out", ReadConfig(train=1.0, validation=0.0))
    assert report.kept == 1 and report.unread_files == [("latest.jsonl", "a link to a file that is read itself")]


def test_two_snapshots_of_a_cache_are_not_read_as_one_set(tmp_path):
    for revision in ("abc", "def"):
        write_lines(tmp_path / "hub" / "snapshots" / revision / "train.jsonl", GOOD)
    with pytest.raises(UserError, match="2 snapshots"):
        make_read("rows", tmp_path / "hub", tmp_path / "out", ReadConfig())


def test_the_command_fails_with_the_summary(tmp_path):
    write_lines(tmp_path / "rows.jsonl", {"text": "x"})
    command = [sys.executable, "-m", "m2io_jax", "read", "rows", str(tmp_path), str(tmp_path / "out" / "set")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "1 left out: no question" in done.stderr and "Traceback" not in done.stderr
