"""Published splits stay whole: nothing that is published as a test is trained on."""

from collections import Counter
from pathlib import PurePath

import pyarrow
import pyarrow.parquet
import pytest
from row_fakes import read, write_images, write_lines

from m2io_jax.episodes.published.draft import ReadConfig
from m2io_jax.episodes.published.splits import file_split


def rows(name: str, count: int, **more) -> list[dict]:
    return [{"problem": f"{name} {number}?", "answer": "3"} | more for number in range(count)]


def counts(found) -> dict[str, dict[str, int]]:
    """Of each split here, how many rows have each first word."""
    return {
        split: dict(Counter(row.question.split()[0] for row in each.values()))
        for split, each in found.items() if each
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("data/train-00000-of-00001.parquet", "train"),
        ("data/test-00000-of-00001.parquet", "test"),
        ("data/validation-00003-of-00017.parquet", "validation"),
        ("val.jsonl", "validation"),
        ("dev/part-0.jsonl", "validation"),
        ("Test/a/b.json", "test"),
        ("testmini.parquet", "test"),
        ("geometry_valid.jsonl", "validation"),
        ("clevr_val2017.json", "validation"),
        ("refcoco_testA.json", "test"),
        ("data.eval.jsonl", "test"),
        ("train/test_of_letters.jsonl", "test"),
        ("train_val.jsonl", "train"),
        ("development.jsonl", "validation"),
        ("devtest.jsonl", "test"),
        ("holdout/rows.jsonl", "test"),
        ("trainable_devices.jsonl", None),
        ("latest.jsonl", None),
        ("contest/rows.jsonl", None),
        ("rows.jsonl", None),
    ],
)
def test_the_split_of_a_file(name, split):
    assert file_split(PurePath(name), "my_test_folder") == split


def test_files_and_folders_named_after_splits(tmp_path):
    write_lines(tmp_path / "set" / "train-1.jsonl", *rows("train", 40))
    write_lines(tmp_path / "set" / "val" / "part.jsonl", *rows("val", 5))
    write_lines(tmp_path / "set" / "test" / "part.jsonl", *rows("test", 7), '{"problem": ')
    report, found = read(tmp_path / "set")
    assert counts(found) == {"train": {"train": 40}, "validation": {"val": 5}, "test": {"test": 7}}
    assert report.published == {"train": {"train": 40}, "validation": {"validation": 5}, "test": {"test": 7}}
    assert "published as test: 7 in test" in report.summary() and report.bad == {"a line that is not JSON": 1}


def test_where_validation_is_not_published_it_is_dealt_from_train(tmp_path):
    write_lines(tmp_path / "set" / "train.jsonl", *rows("train", 200))
    write_lines(tmp_path / "set" / "test.jsonl", *rows("test", 20))
    _, found = read(tmp_path / "set", train=0.6, validation=0.3)
    assert set(counts(found)["test"]) == {"test"} and len(found["test"]) == 20
    assert counts(found)["train"].keys() == counts(found)["validation"].keys() == {"train"}
    assert 45 <= len(found["validation"]) <= 90  # a third of 200
    _, found = read(tmp_path / "set", train=1.0, validation=0.0)
    assert counts(found) == {"train": {"train": 200}, "test": {"test": 20}}


def test_train_alone_is_dealt_as_ever(tmp_path):
    write_lines(tmp_path / "one" / "train.jsonl", *rows("train", 100))
    write_lines(tmp_path / "two" / "rows.jsonl", *rows("train", 100))
    deals = [
        {split: {row.question for row in each.values()} for split, each in read(tmp_path / name)[1].items()}
        for name in ("one", "two")
    ]
    assert deals[0] == deals[1] and all(deals[0].values())


def test_rows_of_unnamed_files_are_dealt_among_the_others(tmp_path):
    write_lines(tmp_path / "set" / "more.jsonl", *rows("more", 100))
    write_lines(tmp_path / "set" / "test.jsonl", *rows("test", 10))
    _, found = read(tmp_path / "set", train=0.5, validation=0.3)
    assert counts(found)["test"] == {"test": 10}
    assert len(found["train"]) + len(found["validation"]) == 100 and len(found["validation"]) > 10


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_column_that_says_the_split(tmp_path, kind):
    every = [*rows("train", 30, split="train"), *rows("dev", 4, split="dev"), *rows("test", 6, split="test")]
    (tmp_path / "set").mkdir()
    if kind == "jsonl":
        write_lines(tmp_path / "set" / "all.jsonl", *every)
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(every), tmp_path / "set" / "all.parquet")
    _, found = read(tmp_path / "set")
    assert counts(found) == {"train": {"train": 30}, "validation": {"dev": 4}, "test": {"test": 6}}


def test_verl_says_it_in_extra_info_and_a_files_name_comes_first(tmp_path):
    write_lines(tmp_path / "set" / "all.jsonl", *rows("x", 5, extra_info={"split": "test"}))
    write_lines(tmp_path / "set" / "train.jsonl", *rows("y", 5, extra_info={"split": "test"}))
    _, found = read(tmp_path / "set", train=1.0, validation=0.0)
    assert counts(found) == {"train": {"y": 5}, "test": {"x": 5}}


def test_one_file_or_folder_that_is_named_alone(tmp_path):
    file = write_lines(tmp_path / "set" / "test" / "part.jsonl", *rows("test", 9))
    other = write_lines(tmp_path / "set" / "test-0.jsonl", *rows("test", 9))
    for source in (file.parent, other):
        assert counts(read(source)[1]) == {"test": {"test": 9}}


def test_all_rows_are_dealt_anew_on_request(tmp_path):
    write_lines(tmp_path / "set" / "test.jsonl", *rows("test", 60))
    report, found = read(tmp_path / "set", published_splits=False, train=0.6, validation=0.2)
    assert all(found.values()) and not report.published


def test_images_in_train_and_in_a_published_test_are_counted(tmp_path):
    write_images(tmp_path / "set")
    write_lines(tmp_path / "set" / "train.jsonl", *rows("train", 3, image="a.png"))
    write_lines(tmp_path / "set" / "test.jsonl", *rows("test", 2, image="a.png"), *rows("other", 1, image="b.png"))
    report, found = read(tmp_path / "set", train=1.0, validation=0.0)
    assert report.shared == 2 and len(found["test"]) == 3
    assert "2 in published splits show the images of training rows" in report.summary()
    write_lines(tmp_path / "set" / "unnamed.jsonl", *rows("more", 1, image="b.png"))
    assert read(tmp_path / "set", train=1.0, validation=0.0)[0].shared == 3


def test_shares_that_leave_nothing_give_train_everything():
    assert ReadConfig(train=0.0, validation=0.0).deal("x", ["train", "validation"]) == "train"
    groups = [str(number) for number in range(300)]
    config = ReadConfig(train=0.7, validation=0.1, seed=3)
    assert [config.deal(group, ["train", "validation", "test"]) for group in groups] == list(map(config.split, groups))
    assert {config.deal(group, ["train", "test"]) for group in groups} == {"train", "test"}


@pytest.mark.parametrize(
    "column",
    [
        lambda split: {"split": split},
        lambda split: {"Split": split.title()},
        lambda split: {"data_split": split},
        lambda split: {"metadata": {"split": split, "source": "x"}},
    ],
)
def test_the_split_is_a_column_that_the_first_row_lacks(tmp_path, column):
    published = [row for split in ("train", "val", "testmini") for row in rows(split, 8, **column(split))]
    write_lines(tmp_path / "set" / "rows.jsonl", {"problem": "none ?", "answer": "3"}, *published)
    found = counts(read(tmp_path / "set", train=0.5, validation=0.2)[1])
    assert found == {"train": {"none": 1, "train": 8}, "validation": {"val": 8}, "test": {"testmini": 8}}
