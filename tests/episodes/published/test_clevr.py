"""CLEVR in the layout of TFDS, three pictures a split, made here."""

import io
import json

import pytest
import tensorflow_datasets as tfds
from PIL import Image

from m2io_jax.corpus.pictures import decode
from m2io_jax.episodes.dataset import open_episodes, read_manifest
from m2io_jax.episodes.published.draft import ReadConfig
from m2io_jax.episodes.published.making import make_read
from m2io_jax.errors import UserError


def png(shade: int):
    file = io.BytesIO()
    Image.new("RGB", (30, 20), (shade, 0, 0)).save(file, "PNG")
    file.seek(0)
    return file


class Clevr(tfds.core.GeneratorBasedBuilder):
    """The features that TFDS's own builder declares, as far as they are read."""

    VERSION = tfds.core.Version("3.1.0")
    name = "clevr"
    url_infos = {}  # noqa: RUF012

    def _info(self):
        features = tfds.features
        return tfds.core.DatasetInfo(
            builder=self,
            description="Small.",
            features=features.FeaturesDict(
                {
                    "file_name": features.Text(),
                    "image": features.Image(),
                    "objects": features.Sequence({"color": features.ClassLabel(names=["gray", "blue"])}),
                    "question_answer": features.Sequence({"question": features.Text(), "answer": features.Text()}),
                }
            ),
        )

    def _split_generators(self, dl_manager):
        return {split: self._rows(split, count) for split, count in (("train", 12), ("validation", 3), ("test", 2))}

    def _rows(self, split, count):
        for index in range(count):
            asked = [
                {"question": "Is there a cube?", "answer": "yes"},
                {"question": "How many cubes are there?", "answer": str(index % 3)},
                {"question": "What number of things are there?", "answer": "10"},
            ]
            if split == "train" and index == 4:
                asked = asked[:1]
            if split == "test":
                asked = [{"question": "How many?", "answer": ""}]
            broken = split == "train" and index == 5
            picture = io.BytesIO(png(index).read()[:50]) if broken else png(index)
            name = f"CLEVR_{split}_{index:06}.png"
            yield name, {"file_name": name, "image": picture, "objects": [], "question_answer": asked}

    def _generate_examples(self):
        raise NotImplementedError


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    builder = Clevr(data_dir=str(tmp_path_factory.mktemp("tfds")), file_format="array_record")
    builder.download_and_prepare()
    return tmp_path_factory.getbasetemp() / builder.data_dir


def test_counting_questions_and_no_others(prepared, tmp_path):
    report = make_read("clevr", prepared, tmp_path / "out", ReadConfig(validation=0.3, train=0.6))
    counts = read_manifest(tmp_path / "out")["episodes"]
    assert counts["test"] == 3 and counts["train"] + counts["validation"] == 10 and counts["validation"] >= 1
    assert (report.rows, report.kept) == (15, 13)
    assert report.passed_over == {"a picture with no question that counts": 1}
    assert report.bad == {"a picture that is broken": 1} and report.problems[0].file == "train"
    for split in ("train", "test"):
        for row in open_episodes(tmp_path / "out", split):
            shade = int(decode(row.candidates[0].data)[0, 0, 0])
            assert row.question == "How many cubes are there?" and row.answer == str(shade % 3)
    groups = [{row.group for row in open_episodes(tmp_path / "out", split)} for split in ("train", "validation")]
    assert not groups[0] & groups[1]


def test_more_questions_of_a_picture(prepared, tmp_path):
    report = make_read("clevr", prepared, tmp_path / "out", ReadConfig(per_picture=5, most=3))
    assert report.rows == 6 and report.kept + sum(report.bad.values()) == 2 * 3 * 2
    assert {row.answer for row in open_episodes(tmp_path / "out", "test")} == {"0", "1", "2", "10"}


def test_what_cannot_be_read_is_told_with_what_to_do(prepared, tmp_path):
    with pytest.raises(UserError, match="clevr/3.1.0"):
        make_read("clevr", tmp_path, tmp_path / "out", ReadConfig())
    info = json.loads((prepared / "dataset_info.json").read_text())
    other = tmp_path / "clevr" / "3.1.0"
    other.mkdir(parents=True)
    (other / "features.json").write_bytes((prepared / "features.json").read_bytes())
    (other / "dataset_info.json").write_text(json.dumps(info | {"fileFormat": "tfrecord"}))
    with pytest.raises(UserError, match="array_record"):
        make_read("clevr", other, tmp_path / "out", ReadConfig())
