import errno
import json
import shutil
import socket
import subprocess
import sys
import tempfile
from dataclasses import replace

import numpy as np
import pytest
import tensorflow_datasets as tfds
from episode_fakes import WordRetriever, kitchen

from m2io_jax.episodes import dataset
from m2io_jax.episodes.building import EpisodeConfig, build_episodes
from m2io_jax.episodes.dataset import open_episodes, read_manifest, write_episodes
from m2io_jax.episodes.episode import Candidate, Episode, Placement, QuestionImage
from m2io_jax.episodes.pipeline import Portion, episode_pipeline
from m2io_jax.errors import UserError

ODD = Episode("odd/é", "", ("One ü.",), (Candidate("p", b"\x00a\x00\x00"),), (), (Placement(1, 0),))
BARE = Episode("bare", "Why?", ("", "b", "ccc"), (), (), ())
TWO = Episode(
    "two", "Q", ("a", "b"), (Candidate("p", b"x", "c", "t", "d", 3, "z"), Candidate("q", b"")), (Placement(0, 1),), ()
)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    corpus = kitchen(20)
    config = EpisodeConfig(train=0.5, validation=0.2)
    retriever = WordRetriever(corpus)
    rows = {split: list(build_episodes(corpus, retriever, config, splits=(split,))) for split in ("train", "test")}
    rows["train"] += [ODD, BARE, TWO]
    folder = tmp_path_factory.mktemp("data") / "episodes"
    counts = write_episodes({**rows, "validation": []}, folder, lambda: {"note": "é"})
    return folder, rows, counts


def test_what_is_read_equals_what_was_written(written):
    folder, rows, counts = written
    assert counts == {"train": len(rows["train"]), "test": len(rows["test"]), "validation": 0}
    for split in ("train", "test"):
        source = open_episodes(folder, split)
        assert len(source) == len(rows[split])
        assert {episode.id: episode for episode in source} == {episode.id: episode for episode in rows[split]}
        assert source[-1] == source[len(source) - 1]
        with pytest.raises(IndexError):
            source[len(source)]


def test_manifest_holds_provenance_and_counts(written):
    manifest = read_manifest(written[0])
    assert manifest["note"] == "é" and manifest["version"] == "1.2.0" and manifest["episodes"]["validation"] == 0


def test_built_twice_the_files_are_equal(written, tmp_path):
    folder, rows, _ = written
    write_episodes(rows, tmp_path / "again", dict)
    name = "1.2.0/m2io_episodes-train.array_record-00000-of-00001"
    assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


ADDED = {"1.0.0": ("answer", "reasoning", "question_images"), "1.1.0": ("question_images",)}


@pytest.mark.parametrize("version", sorted(ADDED))
def test_folders_of_older_versions_are_read_without_what_came_later(tmp_path, monkeypatch, version):
    places = (QuestionImage(4, 1), QuestionImage(0, 0), QuestionImage(4, 1))
    asked = replace(BARE, answer=r"\frac{1}{2} é", reasoning="1/2\n\nyes", question_images=places)
    write_episodes({"train": [asked, ODD]}, tmp_path / "new", dict)
    assert {row.id: row for row in open_episodes(tmp_path / "new", "train")} == {"bare": asked, "odd/é": ODD}

    features, example, added = dataset.episode_features(), dataset.to_example, ADDED[version]
    old = {name: feature for name, feature in features.items() if name not in added}
    monkeypatch.setattr(dataset, "VERSION", version)
    monkeypatch.setattr(dataset.M2ioEpisodes, "VERSION", tfds.core.Version(version))
    monkeypatch.setattr(dataset, "episode_features", lambda: tfds.features.FeaturesDict(old))
    monkeypatch.setattr(dataset, "to_example", lambda row: {k: v for k, v in example(row).items() if k not in added})
    write_episodes({"train": [asked, ODD]}, tmp_path / "old", dict)
    monkeypatch.undo()
    assert (tmp_path / "old" / version).is_dir() and read_manifest(tmp_path / "old")["version"] == version
    without = replace(asked, **{name: getattr(BARE, name) for name in added})
    assert {row.id: row for row in open_episodes(tmp_path / "old", "train")} == {"bare": without, "odd/é": ODD}
    write_episodes({"train": [asked]}, tmp_path / "old", dict)  # and is replaced as a whole
    assert sorted(path.name for path in (tmp_path / "old").iterdir()) == ["1.2.0", "episodes.json"]
    assert list(open_episodes(tmp_path / "old", "train")) == [asked]


def test_an_older_data_set_is_replaced_and_another_folder_is_not_touched(tmp_path):
    write_episodes({"train": [ODD]}, tmp_path / "e", dict)
    write_episodes({"test": [BARE]}, tmp_path / "e", dict)
    assert list(open_episodes(tmp_path / "e", "test")) == [BARE]
    with pytest.raises(UserError, match="no split 'train'"):
        open_episodes(tmp_path / "e", "train")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="thesis.txt"):
        write_episodes({"train": [ODD]}, tmp_path / "other", dict)
    assert (tmp_path / "other" / "thesis.txt").read_text() == "precious"


def test_nothing_to_write_leaves_the_former_data_set(tmp_path):
    write_episodes({"train": [ODD]}, tmp_path / "e", dict)
    with pytest.raises(UserError, match="no episode"):
        write_episodes({"train": []}, tmp_path / "e", dict)
    assert list(open_episodes(tmp_path / "e", "train")) == [ODD]


def test_outputs_that_cannot_be_folders(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        write_episodes({"train": [ODD]}, tmp_path / "file", dict)
    with pytest.raises(UserError, match="cannot be written"):
        write_episodes({"train": [ODD]}, tmp_path / "file" / "below", dict)


def test_threads_read_the_same_as_one(written):
    source = open_episodes(written[0], "train")

    def same(episode, random):
        return episode

    def read(threads):
        rows = episode_pipeline([Portion(source, same)], seed=1, batch_of=1, threads=threads)
        return [next(rows) for _ in range(3 * len(source))]

    assert read(8) == read(0)


def test_an_error_among_the_rows_leaves_nothing(tmp_path):
    def rows():
        yield ODD
        raise UserError("broken corpus")

    with pytest.raises(UserError, match="broken corpus"):
        write_episodes({"train": rows()}, tmp_path / "e", dict)
    assert not any((tmp_path / "e").iterdir())
    write_episodes({"train": [ODD]}, tmp_path / "e", dict)
    assert len(open_episodes(tmp_path / "e", "train")) == 1


def test_an_error_among_the_rows_leaves_the_former_data_set(tmp_path):
    def rows():
        yield BARE
        raise OSError(errno.ENOSPC, "No space left on device")

    write_episodes({"train": [ODD]}, tmp_path / "e", dict)
    with pytest.raises(UserError, match="No space left"):
        write_episodes({"train": rows()}, tmp_path / "e", dict)
    assert list(open_episodes(tmp_path / "e", "train")) == [ODD]
    assert sorted(path.name for path in (tmp_path / "e").iterdir()) == ["1.2.0", "episodes.json"]


def test_what_a_killed_build_left_is_known_to_be_unfinished(tmp_path):
    (tmp_path / "e" / "building").mkdir(parents=True)
    with pytest.raises(UserError, match="unfinished"):
        open_episodes(tmp_path / "e", "train")
    write_episodes({"train": [ODD]}, tmp_path / "e", dict)
    assert list(open_episodes(tmp_path / "e", "train")) == [ODD]


def test_what_the_user_can_mend_is_said(written, tmp_path):
    folder = written[0]
    with pytest.raises(UserError, match="no such folder"):
        open_episodes(tmp_path / "nowhere", "train")
    with pytest.raises(UserError, match="holds no episodes.json"):
        open_episodes(tmp_path, "train")
    with pytest.raises(UserError, match=r"(?s)no split 'dev'.*train \(\d+\), test"):
        open_episodes(folder, "dev")
    with pytest.raises(UserError, match="'validation' has no episode"):
        open_episodes(folder, "validation")
    manifest = json.loads((folder / "episodes.json").read_text())
    other = json.dumps(manifest | {"version": "9.0.0"})
    for text, message in [(other, "version 9.0.0"), ('{"format"', "cannot be read")]:
        (tmp_path / "episodes.json").write_text(text)
        with pytest.raises(UserError, match=message):
            open_episodes(tmp_path, "train")
    (tmp_path / "episodes.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="cannot be read"):
        open_episodes(tmp_path, "train")


@pytest.mark.parametrize("kept", [0, 70_000])
def test_a_file_that_was_copied_in_part_is_told_when_it_is_read(written, tmp_path, kept):
    shutil.copytree(written[0], tmp_path / "copy")
    (file,) = (tmp_path / "copy" / "1.2.0").glob("*train.array_record*")
    file.write_bytes(file.read_bytes()[:kept])
    source = open_episodes(tmp_path / "copy", "train")
    with pytest.raises(UserError, match="(?s)cannot be read.*copy.*Copy it again"):
        list(source)
    rows = episode_pipeline([Portion(source, lambda row, random: row)], seed=0, batch_of=1)
    with pytest.raises(UserError, match="cannot be read"):
        next(rows)


def test_no_network_is_touched(monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise AssertionError("network")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    write_episodes({"train": [ODD, TWO]}, tmp_path / "e", dict)
    assert len(open_episodes(tmp_path / "e", "train")) == 2


def test_nothing_is_left_among_temporary_files(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    write_episodes({"train": [ODD, TWO]}, tmp_path / "e", dict)
    assert len(open_episodes(tmp_path / "e", "train")) == 2
    assert list((tmp_path / "temporary").iterdir()) == []


def test_reading_and_writing_need_no_tensorflow_and_say_nothing(tmp_path):
    program = (
        "import sys\n"
        "from m2io_jax.episodes.dataset import *\n"
        "row = Episode('a', 'q', ('s',), (Candidate('p', b'x'),), (Placement(1, 0),), ())\n"
        f"write_episodes({{'train': [row]}}, {str(tmp_path / 'e')!r}, dict)\n"
        f"assert open_episodes({str(tmp_path / 'e')!r}, 'train')[0] == row\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_placements_of_many_shapes_survive(tmp_path):
    random = np.random.default_rng(0)
    rows = []
    for i in range(60):
        gold = tuple(Placement(int(s), int(p)) for s, p in random.integers(0, 9, (int(random.integers(4)), 2)))
        candidates = tuple(Candidate(str(j), random.bytes(int(random.integers(50)))) for j in range(random.integers(4)))
        rows.append(Episode(str(i), "q", tuple("s" * n for n in range(random.integers(4))), candidates, gold, gold[:1]))
    write_episodes({"train": rows}, tmp_path / "e", dict)
    assert {row.id: row for row in open_episodes(tmp_path / "e", "train")} == {row.id: row for row in rows}
