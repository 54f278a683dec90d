"""Files of an index that do not belong together are refused by name, whatever the method."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from m2io_jax.corpus.documents import Document, PictureBlock, TextBlock
from m2io_jax.corpus.store import Corpus, CorpusWriter
from m2io_jax.errors import UserError
from m2io_jax.retrieval import index as module
from m2io_jax.retrieval.index import VectorIndex
from m2io_jax.retrieval.search import Retriever, build_index

HAS_SCANN = module._scann() is not None
METHODS = ["exact", pytest.param("tree", marks=pytest.mark.skipif(not HAS_SCANN, reason="ScaNN is not here"))]
TREE_FILES = ["ah_codebook.pb", "datapoint_to_token.npy", "dataset.npy", "hashed_dataset.npy", "scann_assets.pbtxt",
              "scann_config.pb", "serialized_partitioner.pb"]  # fmt: skip
DAMAGES = {
    "missing": lambda file, other: file.unlink(),
    "empty": lambda file, other: file.write_bytes(b""),
    "cut": lambda file, other: file.write_bytes(file.read_bytes()[:-1]),
    "longer": lambda file, other: file.write_bytes(file.read_bytes() + b"\0"),
    "swapped": lambda file, other: shutil.copy(other / file.name, file),
    "flipped": lambda file, other: file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:]),
}


def vectors_of(seed, n=600, dim=8):
    vectors = np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def saved(folder, seed=0, method="exact", **shape):
    VectorIndex.build(vectors_of(seed, **shape), method=method).save(folder)
    return folder


def said_of(folder) -> str:
    with pytest.raises(UserError, match="^The vector index cannot be read: ") as caught:
        VectorIndex.load(folder)
    assert str(folder) in str(caught.value) and "Build the index again" in str(caught.value)
    return caught.value.what


@pytest.mark.skipif(not HAS_SCANN, reason="ScaNN is not here")
def test_the_files_of_a_tree_are_those_that_are_tried_here(tmp_path):
    names = {path.name for path in saved(tmp_path / "tree", method="tree").iterdir()}
    assert names == {*TREE_FILES, "index.json"}


@pytest.mark.skipif(not HAS_SCANN, reason="ScaNN is not here")
@pytest.mark.parametrize("engine", ["scann", "numpy"])
@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", TREE_FILES)
def test_each_file_of_a_tree(tmp_path, name, how, engine, monkeypatch):
    folder, other = (saved(tmp_path / str(seed), seed, "tree") for seed in (0, 1))
    VectorIndex.load(folder)
    if how == "swapped" and (folder / name).read_bytes() == (other / name).read_bytes():
        pytest.skip("every build of this size has the same one")
    DAMAGES[how](folder / name, other)
    if engine == "numpy":
        monkeypatch.setattr(module, "_scann", lambda: None)
    assert name in said_of(folder)


@pytest.mark.parametrize("how", DAMAGES)
def test_the_vectors_of_an_exact_index(tmp_path, how):
    folder, other = (saved(tmp_path / str(seed), seed) for seed in (0, 1))
    DAMAGES[how](folder / "dataset.npy", other)
    assert "dataset.npy" in said_of(folder)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(100, 8), (601, 8), (600, 9), (4800,), (600, 8, 1)])
def test_vectors_of_another_shape_are_named_with_both_shapes(tmp_path, method, shape):
    folder = saved(tmp_path / "index", method=method)
    np.save(folder / "dataset.npy", np.zeros(shape, np.float32))
    assert said_of(folder).endswith(f"dataset.npy holds {shape}, index.json says (600, 8)")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "change",
    [{"n": 700}, {"n": 599}, {"dim": 9}, {"n": "600"}, {"n": 600.0}, {"n": -1}, {"n": True}, {"method": "treee"},
     {"method": None}, {"files": []}, {"files": {"dataset.npy": 3}}, {"files": {"dataset.npy": {}}}],
    ids=str,
)  # fmt: skip
def test_an_index_json_of_another_build_is_refused(tmp_path, method, change):
    folder = saved(tmp_path / "index", method=method)
    manifest = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps(manifest | change))
    said_of(folder)


@pytest.mark.parametrize("text", ["", "[]", "3", "{", '{"n": 600}', "\0", "null"])
def test_an_index_json_that_is_none_is_refused(tmp_path, text):
    folder = saved(tmp_path / "index")
    (folder / "index.json").write_text(text)
    said_of(folder)


@pytest.mark.parametrize("method", METHODS)
def test_of_an_older_version_what_can_be_checked_is_read(tmp_path, method):
    folder = saved(tmp_path / "index", method=method)
    manifest = json.loads((folder / "index.json").read_text())
    del manifest["files"]
    (folder / "index.json").write_text(json.dumps(manifest))
    if method == "tree":
        assert "older version" in said_of(folder)
    else:
        assert VectorIndex.load(folder).search(vectors_of(0)[:3], 1)[0].tolist() == [[0], [1], [2]]
    np.save(folder / "dataset.npy", vectors_of(0)[:100])
    assert "dataset.npy holds (100, 8)" in said_of(folder)


def corpus_of(folder: Path, words: str) -> Corpus:
    with CorpusWriter(folder, name="topics") as writer:
        for topic in words.split():
            picture = writer.add_picture(topic.encode(), extension="png")
            blocks = (TextBlock(topic, 1, "heading", 1), TextBlock(f"all about {topic}", 2), PictureBlock(picture, 3))
            writer.add_document(Document(topic, topic, f"{topic}.md", topic, blocks))
    return Corpus.open(folder)


PARTS = ["encoder/words.json", "encoder/arrays.npz", "passages.jsonl", "pictures.jsonl", "passages/index.json",
         "pictures/index.json", "passages/dataset.npy", "pictures/dataset.npy"]  # fmt: skip


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two corpora with as many documents, words and pictures, and their indexes."""
    folder = tmp_path_factory.mktemp("two")
    topics = ["soil bread light", "milk stone wood"]
    corpora = [corpus_of(folder / f"corpus{i}", words) for i, words in enumerate(topics)]
    for i, corpus in enumerate(corpora):
        build_index(corpus, folder / str(i))
    return corpora[0], folder


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", PARTS)
def test_each_file_of_a_search_index(two, tmp_path, name, how):
    corpus, built = two
    shutil.copytree(built / "0", tmp_path / "index")
    assert Retriever.open(tmp_path / "index", corpus).pictures("soil", 1)[0].place.document == "soil"
    file, other = tmp_path / "index" / name, built / "1" / Path(name).parent
    if how == "swapped" and file.read_bytes() == (other / file.name).read_bytes():
        pytest.skip("both builds have the same one")
    DAMAGES[how](file, other)
    with pytest.raises(UserError, match="(?s)(is damaged|cannot be read).*Build the index again") as caught:
        Retriever.open(tmp_path / "index", corpus)
    assert file.name in str(caught.value)


def test_a_whole_folder_of_another_build_is_refused(two, tmp_path):
    corpus, built = two
    shutil.copytree(built / "0", tmp_path / "index")
    shutil.rmtree(tmp_path / "index" / "pictures")
    shutil.copytree(built / "1" / "pictures", tmp_path / "index" / "pictures")
    with pytest.raises(UserError, match="pictures/index.json is not the file that retrieval.json describes"):
        Retriever.open(tmp_path / "index", corpus)


def test_vectors_of_another_encoder_are_refused_also_where_no_files_are_described(two, tmp_path):
    corpus, built = two
    shutil.copytree(built / "0", tmp_path / "index")
    manifest = json.loads((tmp_path / "index" / "retrieval.json").read_text())
    del manifest["files"]
    (tmp_path / "index" / "retrieval.json").write_text(json.dumps(manifest))
    assert Retriever.open(tmp_path / "index", corpus).pictures("soil", 1)
    saved(tmp_path / "index" / "pictures", n=3, dim=2)
    with pytest.raises(UserError, match="vectors of 2 dimensions, but the encoder gives"):
        Retriever.open(tmp_path / "index", corpus)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("files", [{}, [], "x", {"dataset.npy": {}}, {"dataset.npy": None}, {"../x": {"bytes": 1}}])
def test_a_description_that_leaves_files_out_is_none(tmp_path, method, files):
    folder = saved(tmp_path / "index", method=method)
    manifest = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps(manifest | {"files": files}))
    assert "index.json" in said_of(folder)


@pytest.mark.parametrize("text", ["null", "[]", "1", "{}", '{"n": 1}', '{"n": 1e400, "dim": 8, "method": "exact"}'])
def test_what_describes_no_index_is_told(tmp_path, text):
    folder = saved(tmp_path / "index")
    (folder / "index.json").write_text(text)
    assert "index.json holds no method, n and dim" in said_of(folder)


@pytest.mark.parametrize("method", METHODS)
def test_a_file_of_another_build_beside_those_described_is_refused(tmp_path, method):
    folder = saved(tmp_path / "index", method=method)
    shutil.copy(folder / "dataset.npy", folder / "int8_dataset.npy")
    assert "int8_dataset.npy is not in index.json" in said_of(folder)
    (folder / "int8_dataset.npy").unlink()
    (folder / ".DS_Store").write_text("no file of an index")
    VectorIndex.load(folder)
