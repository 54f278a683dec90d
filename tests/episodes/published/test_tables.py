"""Files of rows within bounds; damage costs a row, or the rest of a file, and is told."""

import json
import random

import pyarrow
import pyarrow.parquet
import pytest
from row_fakes import SPLITS, image, read, read_all, write_images, write_lines

from m2io_jax.episodes.prompt import question_parts
from m2io_jax.episodes.published import draft, tables
from m2io_jax.episodes.published.tables import read_rows
from m2io_jax.tasks import find_task
from m2io_jax.tasks.verifiable import is_formatted

GOOD = {"problem": "How many?", "answer": "3"}


def test_an_array_is_read_in_pieces(tmp_path, monkeypatch):
    odd = {"é": '}]",[{', "in": [{}, [], [1.5, None]]}
    rows = [{"problem": "Q" * n, "number": n} | odd for n in range(200)]
    for chunk in (7, 64, 1000, 2**20):
        monkeypatch.setattr(tables, "CHUNK", chunk)
        for text in (json.dumps(rows), json.dumps(rows, indent=3, ensure_ascii=False), "\ufeff " + json.dumps(rows)):
            (tmp_path / "a.json").write_text(text, encoding="utf-8")
            assert [row.values for row in read_rows(tmp_path / "a.json")] == rows


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ('[{"problem": "Q", "answer": "3"}, {"problem": "Q2", "ans', 1),
        ('[{"problem": "Q", "answer": "3"}, {"problem": }, {"problem": "Q2", "answer": "3"}]', 1),
        ('[{"problem": "Q", "answer": "3"}', 1),
        ('[{"problem": "Q", "answer": "3"}, "cut', 1),
        ("[", 0),
    ],
)
def test_a_damaged_array_costs_its_rest(tmp_path, text, kept):
    (tmp_path / "a.json").write_text(text)
    write_lines(tmp_path / "b.jsonl", GOOD)
    report, _ = read(tmp_path)
    told = [(each.file, each.row, each.reason) for each in report.problems]
    assert report.kept == kept + 1 and told == [("a.json", kept + 1, tables.UNREADABLE)]


def test_a_row_that_is_too_long_leaves_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "MOST_ROW_BYTES", 5000)
    monkeypatch.setattr(tables, "CHUNK", 1000)
    write_lines(tmp_path / "a.jsonl", GOOD, GOOD | {"x": "y" * 60_000}, GOOD)
    report, found = read_all(tmp_path)
    assert sorted(found) == [1, 3] and report.problems[0].reason == "a row that is too long"
    (tmp_path / "a.json").write_text(json.dumps([GOOD, GOOD | {"x": "y" * 60_000}, GOOD]))
    (tmp_path / "a.jsonl").unlink()
    report, found = read_all(tmp_path)
    assert sorted(found) == [1] and report.bad == {tables.UNREADABLE: 1}


def test_a_row_that_is_too_deep(tmp_path):
    deep: dict = {}
    for _ in range(100):
        deep = {"x": [deep]}
    write_lines(tmp_path / "a.jsonl", GOOD | deep, GOOD, '{"x": ' * 50_000)
    report, found = read_all(tmp_path)
    assert list(found) == [2]
    assert report.bad == {"a row that is too deep": 1, "a line that is not JSON": 1}


def test_a_row_group_that_claims_too_much_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "MOST_GROUP_BYTES", 10)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([GOOD]), tmp_path / "a.parquet")
    report, found = read_all(tmp_path)
    assert not found and "row group" in report.problems[0].detail


def test_parquet_that_is_damaged_in_the_middle_keeps_what_stands_before(tmp_path):
    rows = [{"problem": f"{number} {random.Random(number).random()}?", "answer": "3"} for number in range(3000)]
    table = pyarrow.Table.from_pylist(rows)
    file = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(table, file, row_group_size=500, compression="gzip", use_dictionary=False)
    start = pyarrow.parquet.ParquetFile(file).metadata.row_group(3).column(0).data_page_offset
    data = bytearray(file.read_bytes())
    data[start + 60 : start + 90] = bytes(30)
    file.write_bytes(data)
    report, found = read_all(tmp_path)
    assert 1000 <= len(found) <= 1500 and report.bad == {tables.UNREADABLE: 1}


SEEDS = [
    {"problem": "<image>Is <image>?", "solution": "<think>a</think><answer>3</answer>", "images": ["a.png", "b.png"]},
    {
        "prompt": [{"role": "user", "content": [{"type": "image", "image": "a.png"}, {"type": "text", "text": "Q"}]}],
        "reward_model": {"ground_truth": "3"},
        "extra_info": {"split": "test"},
    },
    {"conversations": [{"from": "human", "value": "<image 1>Q"}, {"from": "gpt", "value": "5"}], "image": "a.png"},
    {"message": '[{"role": "user", "content": "Q"}]', "answer": 3, "image": list(image(5)), "split": "val"},
    {"instruction": "Q", "input": "i", "output": "x\n#### 5", "image_1": "a.png", "rationale": "because"},
]
JUNK = [
    None, "", [], {}, 0, -1.5, float("nan"), float("inf"), True, "x" * 3000, "<image>" * 70, "\ud800", "\0", "../..",
    [None], [[]], [[["a.png"]]], {"bytes": None}, {"bytes": "%%%"}, "data:", "data:;base64,", "[", "[{}]", [{}],
    [{"role": "user", "content": None}], [{"role": None, "content": 3}], [{"role": "user", "content": [{"type": []}]}],
    [{"role": ["x"], "from": {}, "value": 1}], "<answer>", "</answer><answer>", "<think>", "\\boxed{", "####",
    "<img>x</img>", "/etc/passwd", "a.png\0", "a" * 300, "C:\\x.png", "\\\\x\\y", 10**300, [137, 80, 78, 71] * 20,
    {"role": "user", "content": "x"}, "<|image_pad|>", ["a.png"] * 100,
]  # fmt: skip


def mutated(value, random: random.Random, depth: int = 0):
    """The value with parts dropped, retyped, nested or repeated."""
    if random.random() < 0.15:
        return random.choice(JUNK)
    if isinstance(value, dict):
        kept = {key: mutated(each, random, depth + 1) for key, each in value.items() if random.random() > 0.08}
        return {random.choice(("image", "answer", "text", "split")) if random.random() < 0.05 else key: each
                for key, each in kept.items()}  # fmt: skip
    if isinstance(value, list):
        kept = [mutated(each, random, depth + 1) for each in value[:40] if random.random() > 0.07]
        return [kept] if random.random() < 0.1 and depth < 4 else kept * random.choice((1, 1, 1, 2))
    if isinstance(value, str) and random.random() < 0.2:
        cut = random.randrange(len(value) + 1)
        return value[:cut] + str(random.choice(JUNK))[:50] + value[cut:]
    return value


@pytest.mark.parametrize("seed", range(3))
def test_mutated_rows_are_episodes_or_counted_and_nothing_is_raised(tmp_path, monkeypatch, seed):
    monkeypatch.setattr(draft, "readable", lambda answer: True)  # the verifier has tests of its own
    draw = random.Random(seed)
    rows = [mutated(draw.choice(SEEDS), draw) for _ in range(500)]
    lines = [json.dumps(row) for row in rows]
    lines = [line[: draw.randrange(len(line) + 1)] if draw.random() < 0.05 else line for line in lines]
    write_lines(write_images(tmp_path) / "a.jsonl", *lines)
    (tmp_path / "b.json").write_text(json.dumps(rows))
    report, found = read(tmp_path)
    assert report.rows >= 1000 - lines.count("") and report.kept > 20 and len(report.bad) > 8
    json.dumps(report.to_json(), ensure_ascii=False).encode()
    for split in SPLITS:
        for episode in found[split].values():
            assert "".join(part for part in question_parts(episode) if isinstance(part, str)).strip()
            assert is_formatted(find_task("geometry").target(episode))


def test_an_array_is_read_by_any_name_of_its_file(tmp_path):
    rows = [{"problem": f"{number}?", "answer": "3"} for number in range(3)]
    (tmp_path / "lines.jsonl").write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")
    (tmp_path / "one_line.jsonl").write_text(json.dumps(rows))
    report, _ = read(tmp_path)
    assert (report.rows, report.kept) == (6, 6)


def test_text_behind_an_array_is_reported(tmp_path):
    rows = json.dumps([{"problem": "Q?", "answer": "3"}])
    (tmp_path / "a.json").write_text(rows + rows)
    (tmp_path / "b.json").write_text(rows + "\n\n")
    report, _ = read(tmp_path)
    assert report.kept == 2 and [(each.file, each.row) for each in report.problems] == [("a.json", 2)]


def test_a_first_line_that_is_a_list_costs_no_other_line(tmp_path):
    write_lines(tmp_path / "a.jsonl", [1], {"problem": "Q?", "answer": "3"})
    report, _ = read(tmp_path)
    assert report.bad == {"a row without columns": 1} and report.kept == 1


@pytest.mark.parametrize("kind", [pyarrow.float32(), pyarrow.float64()])
def test_numbers_are_written_as_they_were_meant(tmp_path, kind):
    numbers = pyarrow.array([0.1, 2.5, 1e-7, 3.0, 16777216.0], kind)
    table = pyarrow.table({"problem": [f"{number}?" for number in range(5)], "answer": numbers})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    _, found = read_all(tmp_path)
    assert [float(row.answer) for row in found.values()] == [0.1, 2.5, 1e-7, 3.0, 16777216.0]
