"""Rows as R1-V, DeepScaleR and LMM-R1 publish them, in small files made here; good ones and bad ones."""

import io
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from m2io_jax.corpus.pictures import decode
from m2io_jax.episodes.dataset import open_episodes, read_manifest
from m2io_jax.episodes.published import draft
from m2io_jax.episodes.published.draft import ReadConfig
from m2io_jax.episodes.published.making import make_read
from m2io_jax.errors import UserError
from m2io_jax.tasks import find_task
from m2io_jax.verification.pool import Unverified

ALL = ReadConfig(train=1.0, validation=0.0)


def png(shade: int, size: tuple[int, int] = (8, 6)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (shade, 0, 0)).save(file, "PNG")
    return file.getvalue()


def lines(path: Path, *rows) -> None:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))


def read(source: Path, out: Path, config: ReadConfig = ALL):
    report = make_read("rows", source, out, config)
    counts = read_manifest(out)["episodes"]
    return report, {row.id: row for split, count in counts.items() if count for row in open_episodes(out, split)}


def chat(text: str, *pictures: str, **other) -> str:
    parts = [{"type": "image", "image": address} for address in pictures] + [{"type": "text", "text": text}]
    return json.dumps(
        [{"role": "system", "content": "Think."}, {"role": "user", "content": parts}] + other.get("more", [])
    )


@pytest.fixture
def data(tmp_path) -> Path:
    folder = tmp_path / "data"
    (folder / "pix").mkdir(parents=True)
    for shade in (10, 20, 30):
        (folder / "pix" / f"{shade}.png").write_bytes(png(shade))
    (tmp_path / "secret.png").write_bytes(png(99))
    return folder


def test_rows_of_all_three_kinds(data, tmp_path):
    lines(
        data / "train.jsonl",
        {"image": "pix/10.png", "problem": "<image>How many?", "solution": "<answer> 3 </answer>"},
        {"images": ["pix/20.png", "pix/10.png"], "problem": "Which angle?", "solution": "<answer> 145° </answer>"},
        {"problem": "What is $1/2 + x$?", "answer": r"\frac{1}{2}+x", "solution": "long " * 500},
        {"message": chat("What is x?", f"file://{data}/pix/30.png"), "answer": r"$2\sqrt{3}$"},
        {"message": json.dumps([{"role": "user", "content": "Only words?"}]), "answer": "yes"},
        {"question": "A number?", "answer": 7},
        "",
    )
    report, found = read(data, tmp_path / "out")
    assert (report.rows, report.kept, report.bad) == (6, 6, {})
    asked = [found[f"train.jsonl:{number}"] for number in range(1, 7)]
    assert [row.question for row in asked] == [
        "How many?", "Which angle?", "What is $1/2 + x$?", "What is x?", "Only words?", "A number?",
    ]  # fmt: skip
    assert [row.answer for row in asked] == ["3", "145°", r"\frac{1}{2}+x", r"$2\sqrt{3}$", "yes", "7"]
    shades = [[int(decode(candidate.data)[0, 0, 0]) for candidate in row.candidates] for row in asked]
    assert shades == [[10], [20, 10], [], [30], [], []]
    assert find_task("geometry").score("<think></think><answer>145</answer>", asked[1])["accuracy"] == 1.0
    assert find_task("counting").prompt(asked[0]).user[-1] == "How many?"


def test_parquet_with_pictures_as_bytes_and_as_paths(data, tmp_path):
    rows = [
        {"images": [{"bytes": png(40), "path": None}], "problem": "How many?", "answer": "3"},
        {"images": [{"bytes": None, "path": "pix/20.png"}], "problem": "How many?", "answer": "4"},
        {"images": None, "problem": "No picture?", "answer": "5"},
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), data / "a.parquet")
    report, found = read(data / "a.parquet", tmp_path / "out")
    assert report.rows == report.kept == 3
    shades = {id: [int(decode(c.data)[0, 0, 0]) for c in row.candidates] for id, row in found.items()}
    assert shades == {"a.parquet:1": [40], "a.parquet:2": [20], "a.parquet:3": []}


def test_bad_rows_are_counted_by_reason_and_stop_nothing(data, tmp_path):
    (data / "pix" / "half.png").write_bytes(png(50, (200, 200))[:120])
    (data / "pix" / "drawing.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    bad = [
        ('{"problem": "cut', "a line that is not JSON"),
        ("[1, 2]", "a row without columns"),
        ({"answer": "3"}, "no question"),
        ({"problem": " <image> ", "answer": "3"}, "no question"),
        ({"problem": ["a"], "answer": "3"}, "no question"),
        ({"problem": "Q?"}, "no answer"),
        ({"problem": "Q?", "answer": ""}, "no answer"),
        ({"problem": "Q?", "answer": True}, "no answer"),
        ('{"problem": "Q?", "answer": NaN}', "no answer"),
        ({"problem": "Q?", "solution": "<answer>1</answer><answer>2</answer>"}, "several answers"),
        ({"problem": "Q?", "answer": "&&&"}, "an answer that cannot be verified"),
        ({"problem": "Q?", "answer": "word " * 200}, "an answer that cannot be verified"),
        ({"problem": "Q?", "answer": "3", "image": "https://example.com/a.png"}, "a picture that is remote"),
        ({"problem": "Q?", "answer": "3", "image": "pix/none.png"}, "a picture that is missing"),
        ({"problem": "Q?", "answer": "3", "image": "../secret.png"}, "a picture that is missing"),
        ({"problem": "Q?", "answer": "3", "image": str(tmp_path / "secret.png")}, "a picture that is missing"),
        ({"problem": "Q?", "answer": "3", "image": f"file://{tmp_path}/secret.png"}, "a picture that is missing"),
        ({"problem": "Q?", "answer": "3", "image": "pix/half.png"}, "a picture that is broken"),
        ({"problem": "Q?", "answer": "3", "image": "pix/drawing.svg"}, "a picture that is unsupported"),
        ({"problem": "Q?", "answer": "3", "image": {"bytes": None}}, "a picture without an address"),
        ({"problem": "Q?", "answer": "3", "images": [3]}, "a picture without an address"),
        ({"message": "not a chat", "answer": "3"}, "a message that is no chat"),
        ({"message": "[1]", "answer": "3"}, "a message that is no chat"),
        ({"message": "[" * 100_000, "answer": "3"}, "a message that is no chat"),
        ({"message": chat("Q?", more=[{"role": "assistant", "content": "A"}]), "answer": "3"},
         "a chat that is not one question"),
        ({"message": json.dumps([{"role": "user", "content": [{"type": "audio"}]}]), "answer": "3"},
         "a message with a part that is neither text nor picture"),
    ]  # fmt: skip
    good = {"problem": "Good?", "answer": "1"}
    lines(data / "rows.jsonl", good, *(row for row, _ in bad), good)
    report, found = read(data, tmp_path / "out", ReadConfig(train=0.5, validation=0.2))
    assert sorted(found) == ["rows.jsonl:1", f"rows.jsonl:{len(bad) + 2}"]
    told = {problem.row: problem.reason for problem in report.problems}
    assert told == {number: reason for number, (_, reason) in enumerate(bad, 2)}
    assert report.rows == len(bad) + 2 and report.kept == 2 and sum(report.bad.values()) == len(bad)
    assert {problem.file for problem in report.problems} == {"rows.jsonl"}
    written = read_manifest(tmp_path / "out")["report"]
    assert written["bad"]["a picture that is remote"] == 1 and len(written["problems"]) == len(bad)
    assert "a picture that is missing" in report.summary() and "episodes.json" in report.summary()


def test_a_number_that_no_float_holds_is_an_answer(data, tmp_path):
    lines(data / "rows.jsonl", {"problem": "How many?", "answer": 10**400}, {"problem": "Q?", "answer": "3"})
    report, found = read(data, tmp_path / "out")
    assert not report.bad and found["rows.jsonl:1"].answer == str(10**400)


def test_a_row_of_parquet_that_cannot_be_read_leaves_the_others(data, tmp_path):
    texts = [b"First?", b"caf\xe9?", b"Third?", b"Fourth?"]
    never = pyarrow.array([0, 0, 2**31 - 1, 0], pyarrow.int32()).view("date32")  # in days: no date of Python's
    columns = {"problem": pyarrow.array(texts).view("string"), "answer": ["1", "2", "3", "4"], "made": never}
    pyarrow.parquet.write_table(pyarrow.table(columns), data / "a.parquet")
    report, found = read(data, tmp_path / "out")
    assert sorted(found) == ["a.parquet:1", "a.parquet:4"]
    assert [(each.row, each.reason) for each in report.problems] == [
        (2, "a row that cannot be read"),
        (3, "a row that cannot be read"),
    ]
    assert "utf-8" in report.problems[0].detail and report.rows == 4


def test_a_link_that_leads_out_is_not_followed(data, tmp_path):
    (data / "pix" / "link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "other.jsonl").write_text('{"problem": "Q?", "answer": "1"}\n')
    (data / "link.jsonl").symlink_to(tmp_path / "other.jsonl")
    (data / ".cache").mkdir()
    lines(data / ".cache" / "hidden.jsonl", {"problem": "Q?", "answer": "3"})
    lines(
        data / "rows.jsonl", {"problem": "Q?", "answer": "3", "image": "pix/link.png"}, {"problem": "Q", "answer": "1"}
    )
    report, found = read(data, tmp_path / "out")
    assert report.bad == {"a picture that is missing": 1} and list(found) == ["rows.jsonl:2"]


def test_a_damaged_parquet_file_is_told_and_the_next_is_read(data, tmp_path):
    (data / "a.parquet").write_bytes(b"PAR1 and then nothing")
    lines(data / "b.jsonl", {"problem": "Q?", "answer": "3"})
    report, found = read(data, tmp_path / "out")
    assert list(found) == ["b.jsonl:1"] and report.bad == {"a file that cannot be read from here on": 1}


def test_splits_never_share_a_picture_and_do_not_change_with_other_rows(data, tmp_path):
    rows = [{"problem": f"Q {n}?", "answer": "3", "image": f"pix/{10 * (n % 3 + 1)}.png"} for n in range(30)]
    rows += [{"problem": f"Q {n}?", "answer": "3"} for n in range(40)]
    lines(data / "rows.jsonl", *rows)
    config = ReadConfig(train=0.4, validation=0.3, seed=2)
    make_read("rows", data, tmp_path / "out", config)
    splits = {split: list(open_episodes(tmp_path / "out", split)) for split in ("train", "validation", "test")}
    shown = [{c.picture for row in each for c in row.candidates} for each in splits.values()]
    assert sum(map(len, shown)) == len(set().union(*shown)) == 3
    assert sum(map(len, splits.values())) == 70 and all(splits.values())
    lines(data / "rows.jsonl", *rows[::2])
    make_read("rows", data, tmp_path / "half", config)
    assert {row.question for row in open_episodes(tmp_path / "half", "train")} <= {
        row.question for row in splits["train"]
    }


def test_large_pictures_are_stored_smaller_and_odd_characters_survive(data, tmp_path):
    (data / "large.png").write_bytes(png(7, (400, 300)))
    lines(data / "rows.jsonl", '{"problem": "\\ud800 é?", "answer": "3", "image": "large.png"}')
    _, found = read(data, tmp_path / "out", ReadConfig(train=1.0, validation=0.0, max_pixels=3000))
    row = found["rows.jsonl:1"]
    height, width, _ = decode(row.candidates[0].data).shape
    assert height * width <= 3000 and row.question == "? é?"


def test_most_bounds_what_is_read(data, tmp_path):
    lines(data / "rows.jsonl", *({"problem": f"Q {n}?", "answer": "3"} for n in range(20)))
    report, found = read(data, tmp_path / "out", ReadConfig(train=1.0, validation=0.0, most=5))
    assert len(found) == report.rows == 5


def test_an_answer_whose_verification_hangs_is_a_bad_row(data, tmp_path, monkeypatch):
    def hang(answer):
        raise Unverified("timeout", "too long")

    lines(data / "rows.jsonl", {"problem": "Q?", "answer": "3"}, {"problem": "Q2?", "answer": "x"})
    monkeypatch.setattr(draft, "readable", lambda answer: answer == "3" or hang(answer))
    report, _ = read(data, tmp_path / "out")
    assert report.bad == {"an answer whose verification ends in an timeout": 1}


def test_nothing_to_read_is_told(tmp_path):
    (tmp_path / "empty").mkdir()
    for source, said in ((tmp_path / "nowhere", "no such"), (tmp_path / "empty", ".jsonl or .parquet")):
        with pytest.raises(UserError, match=said):
            make_read("rows", source, tmp_path / "out", ALL)
    lines(tmp_path / "empty" / "a.jsonl", {"problem": "Q?"})
    with pytest.raises(UserError, match="no episode"):
        make_read("rows", tmp_path / "empty", tmp_path / "out", ALL)
