import itertools
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core.example_serializer import ExampleSerializer
from tensorflow_datasets.core.file_adapters import FileFormat
from tensorflow_datasets.core.utils.shard_utils import ShardConfig
from tensorflow_datasets.core.writer import ExampleWriter, Writer

from m2io_jax.episodes.dataset import M2ioEpisodes, from_example, open_episodes, to_example, write_episodes
from m2io_jax.episodes.episode import Candidate, Episode
from m2io_jax.episodes.shards import write_splits
from m2io_jax.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
LARGE_PROGRAM = Path(__file__).with_name("large_data_set.py")


def rows_of(count, size=1000, seed=0):
    random = np.random.default_rng(seed)
    for number in range(count):
        yield Episode(f"row {number}\\é", "q" * number, ("a",), (Candidate("p", random.bytes(size)),), (), ())


def described(folder):
    folder.mkdir(parents=True)
    return M2ioEpisodes(data_dir=str(folder / "unused")).info


def examples_of(rows):
    return ((row.id, to_example(row)) for row in rows)


def written_by_tfds(folder, split, rows, shards):
    """The shards that TFDS itself writes of what it can hold in memory."""
    info = described(folder)
    names = tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name=info.name, split=split, filetype_suffix="array_record"
    )
    writer = Writer(
        ExampleSerializer(info.features.get_serialized_info()),
        names,
        split,
        disable_shuffling=False,
        example_writer=ExampleWriter(FileFormat.ARRAY_RECORD),
        shard_config=ShardConfig(shards),
    )
    for key, example in examples_of(rows):
        writer.write(key, info.features.encode_example(example))
    writer.finalize()
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize(("count", "shards"), [(1, None), (3, 3), (40, 7), (199, 32)])
def test_shards_are_those_of_tfds_byte_for_byte(tmp_path, count, shards):
    expected = written_by_tfds(tmp_path / "tfds", "train", rows_of(count), shards)
    info = described(tmp_path / "ours")
    write_splits(info, tmp_path / "ours", {"train": examples_of(rows_of(count))}, shards)
    found = {path.name: path.read_bytes() for path in (tmp_path / "ours").glob("*.array_record*")}
    assert found == expected and len(found) == (shards or 1)


def test_several_shards_are_read_as_one_split_in_the_order_of_the_hashes(tmp_path):
    splits = {"train": list(rows_of(50)), "test": list(rows_of(7, seed=1))}
    info = described(tmp_path / "data")
    write_splits(info, tmp_path / "data", {name: examples_of(rows) for name, rows in splits.items()}, shards=5)
    names = {path.name for path in (tmp_path / "data").iterdir()}
    assert "spool" not in names and {"dataset_info.json", "features.json"} <= names
    builder = tfds.builder_from_directory(str(tmp_path / "data"))
    for split, rows in splits.items():
        read = [from_example(example) for example in builder.as_data_source(split)]
        assert sorted(row.id for row in read) == sorted(row.id for row in rows)
        assert {row.id: row for row in read} == {row.id: row for row in rows}
        assert [row.id for row in read] != [row.id for row in rows]  # a fair sample at any length
        info = builder.info.splits[split]
        assert info.num_examples == len(rows) and sum(info.shard_lengths) == len(rows) and info.num_shards == 5


def test_rows_are_taken_one_by_one_and_never_held(tmp_path):
    """Each row is on disk before the next is asked for."""
    folder = tmp_path / "data"
    info, asked = described(folder), []

    def rows():
        for number, row in enumerate(rows_of(20, size=100_000)):
            asked.append((folder / "spool").stat().st_size if number else 0)
            yield row

    write_splits(info, folder, {"train": examples_of(rows())})
    assert all(after - before > 50_000 for before, after in itertools.pairwise(asked))


@pytest.mark.parametrize(
    "name", ["lr[1e-4]", "a*b?", "{split}", "$FILE", "a@5", "x[0:3]", "a\\b", "new\nline", "é 数", "%20#", "~", "a:b"]
)
def test_a_data_set_may_lie_in_a_folder_of_any_name(tmp_path, name):
    rows = list(rows_of(9))
    write_episodes({"train": rows, "test": rows[:1]}, tmp_path / name / "e", dict)
    source = open_episodes(tmp_path / name / "e", "train")
    assert {row.id: row for row in source} == {row.id: row for row in rows}
    write_episodes({"train": rows[1:]}, tmp_path / name / "e", dict)
    again = open_episodes(tmp_path / name / "e", "train")
    assert len(again) == 8
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_two_rows_with_one_id_are_named(tmp_path):
    twice = [*rows_of(5), *rows_of(1, seed=2)]
    with pytest.raises(UserError, match=r"same id: row 0\\é"):
        write_episodes({"train": twice}, tmp_path / "e", dict)
    assert not any((tmp_path / "e").iterdir())
    write_episodes({"train": twice[:5], "test": twice[5:]}, tmp_path / "e", dict)  # splits have ids of their own
    assert len(open_episodes(tmp_path / "e", "train")) == 5


@pytest.mark.parametrize("most", [100_000, 600_000])
def test_a_full_disk_is_told_and_the_former_data_set_stays(tmp_path, most):
    """A limit on the size of a file stands for the disk: the spool meets it (600 kB), or already the first row."""
    former = list(rows_of(2))
    write_episodes({"train": former}, tmp_path / "e", dict)
    program = (
        "import resource, signal\n"
        "from m2io_jax.episodes.dataset import *\n"
        "from m2io_jax.errors import UserError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({most}, {most}))\n"
        "rows = (Episode(str(i), 'q', ('s',), (Candidate('p', bytes([i]) * 200_000),), (), ()) for i in range(9))\n"
        "try:\n"
        f"    write_episodes({{'train': rows}}, {str(tmp_path / 'e')!r}, dict)\n"
        "except UserError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "The episodes cannot be written: File too large." in done.stdout, done.stderr
    assert sorted(row.id for row in open_episodes(tmp_path / "e", "train")) == sorted(row.id for row in former)
    assert not (tmp_path / "e" / "building").exists()


def test_a_shard_that_cannot_be_written_is_told_with_the_reason(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    info, ignored = described(tmp_path / "data"), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def rows():
        yield from examples_of(rows_of(30, size=4000))
        os.truncate(tmp_path / "data" / "spool", (tmp_path / "data" / "spool").stat().st_size)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))  # the spool stands; the shards do not fit

    try:
        with pytest.raises(OSError, match="File too large") as caught:
            write_splits(info, tmp_path / "data", {"train": rows()})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert "array_record" in caught.value.filename


@pytest.mark.slow
def test_five_thousand_episodes_of_400_kb_take_less_than_2_gb_and_no_tensorflow(tmp_path):
    command, paths = [sys.executable, LARGE_PROGRAM, tmp_path / "e", "5000"], os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=paths)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) < 2 << 30
    assert len(list((tmp_path / "e").glob("*/*.array_record*"))) == 16
