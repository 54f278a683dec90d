"""Vector search against NumPy: exact and tree, saved, moved, read-only, without ScaNN."""

import logging
import shutil

import numpy as np
import pytest

from m2io_jax.errors import UserError
from m2io_jax.retrieval import index as module
from m2io_jax.retrieval.index import VectorIndex, tree_settings

HAS_SCANN = module._scann() is not None
needs_scann = pytest.mark.skipif(not HAS_SCANN, reason="ScaNN cannot be imported here")


def clustered(n, dim, clusters, seed):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(clusters, dim))
    vectors = centres[rng.integers(clusters, size=n)] + 0.6 * rng.normal(size=(n, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def exact(vectors, queries, k):
    return np.argsort(-(queries @ vectors.T), axis=1)[:, :k]


def recall(found, true):
    return np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found.tolist(), true.tolist(), strict=True)])


@pytest.fixture(params=["scann", "numpy"])
def engine(request, monkeypatch):
    if request.param == "numpy":
        monkeypatch.setattr(module, "_scann", lambda: None)
    elif not HAS_SCANN:
        pytest.skip("ScaNN cannot be imported here")
    return request.param


@pytest.mark.parametrize("queries", [1, 7, 100])
def test_exact_search_is_exact(engine, queries):
    vectors, asked = clustered(500, 16, 20, 0), clustered(queries, 16, 20, 1)
    ids, scores = VectorIndex.build(vectors).search(asked, 10)
    np.testing.assert_array_equal(ids, exact(vectors, asked, 10))
    np.testing.assert_allclose(scores, np.take_along_axis(asked @ vectors.T, ids, 1), atol=1e-5)


@pytest.mark.parametrize("n", [0, 1, 3])
@pytest.mark.parametrize("queries", [0, 1, 2])
def test_fewer_vectors_than_asked_for(engine, n, queries, tmp_path):
    vectors = np.eye(3, 4, dtype=np.float32)[:n]
    index = VectorIndex.build(vectors)
    index.save(tmp_path)
    for each in (index, VectorIndex.load(tmp_path)):
        ids, scores = each.search(np.ones((queries, 4), np.float32), 5)
        assert ids.shape == scores.shape == (queries, 5)
        assert all(sorted(row[:n]) == list(range(n)) for row in ids.tolist())
        assert (ids[:, n:] == -1).all() and np.isneginf(scores[:, n:]).all()


def test_duplicates_are_all_found(engine):
    one = np.eye(1, 8, dtype=np.float32)
    ids, scores = VectorIndex.build(np.tile(one, (6, 1))).search(one, 6)
    assert sorted(ids[0]) == list(range(6))
    np.testing.assert_allclose(scores, 1)


def test_a_zero_query_is_allowed_and_a_bad_one_refused(engine):
    index = VectorIndex.build(clustered(50, 8, 5, 0))
    assert (index.search(np.zeros((1, 8)), 3)[1] == 0).all()
    for bad in (np.full((1, 8), np.nan), np.zeros((1, 9)), np.zeros(8)):
        with pytest.raises(ValueError, match="queries must be"):
            index.search(bad, 3)
    with pytest.raises(ValueError, match="vectors must be"):
        VectorIndex.build(np.full((2, 2), np.inf))


@pytest.fixture(scope="module")
def tree():
    vectors = clustered(6000, 24, 100, 2)
    return vectors, VectorIndex.build(vectors, method="tree")


@needs_scann
def test_tree_search_reaches_its_recall(tree):
    vectors, index = tree
    asked = clustered(200, 24, 100, 2)
    assert index.method == "tree"
    ids, _ = index.search(asked, 10)
    assert recall(ids, exact(vectors, asked, 10)) >= 0.95
    for k in (1, 50, 300):
        assert recall(index.search(asked, k)[0], exact(vectors, asked, k)) >= 0.95
    one_by_one = np.concatenate([index.search(query[None], 10)[0] for query in asked])
    # Scored by other code inside ScaNN, so as good but not always the same.
    assert recall(one_by_one, exact(vectors, asked, 10)) >= 0.95


@needs_scann
@pytest.mark.parametrize("later", ["scann", "numpy"])
def test_a_tree_moves_and_is_never_written_to(tree, tmp_path, later, monkeypatch):
    vectors, index = tree
    asked = vectors[:30]
    index.save(tmp_path / "here")
    assert str(tmp_path) not in (tmp_path / "here" / "scann_assets.pbtxt").read_text()
    shutil.move(tmp_path / "here", tmp_path / "there")
    for file in (tmp_path / "there").iterdir():
        file.chmod(0o444)
    (tmp_path / "there").chmod(0o555)
    before = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "there").iterdir()}
    if later == "numpy":
        monkeypatch.setattr(module, "_scann", lambda: None)
    ids, _ = VectorIndex.load(tmp_path / "there").search(asked, 10)
    expected = exact(vectors, asked, 10) if later == "numpy" else index.search(asked, 10)[0]
    np.testing.assert_array_equal(ids, expected)
    assert before == {file.name: file.stat().st_mtime_ns for file in (tmp_path / "there").iterdir()}
    (tmp_path / "there").chmod(0o755)


@needs_scann
def test_an_index_made_without_scann_is_read_with_it(tmp_path, monkeypatch):
    vectors = clustered(100, 8, 5, 0)
    with monkeypatch.context() as patch:
        patch.setattr(module, "_scann", lambda: None)
        VectorIndex.build(vectors, method="tree").save(tmp_path)
    ids, _ = VectorIndex.load(tmp_path).search(vectors[:5], 3)
    np.testing.assert_array_equal(ids, exact(vectors, vectors[:5], 3))


def test_the_absence_of_scann_is_said_once(monkeypatch, caplog):
    monkeypatch.setitem(__import__("sys").modules, "scann.scann_ops.py", None)
    module._scann.cache_clear()
    with caplog.at_level(logging.WARNING, logger=module.__name__):
        VectorIndex.build(np.eye(3)), VectorIndex.build(np.eye(3))
    module._scann.cache_clear()
    assert len(caplog.records) == 1 and "NumPy" in caplog.text


@pytest.mark.parametrize("damage", ["index.json", "dataset.npy"])
@pytest.mark.parametrize("how", ["cut", "gone"])
def test_a_damaged_index_is_named(tmp_path, damage, how):
    VectorIndex.build(np.eye(3)).save(tmp_path)
    file = tmp_path / damage
    file.write_bytes(file.read_bytes()[:20]) if how == "cut" else file.unlink()
    with pytest.raises(UserError, match=str(tmp_path)):
        VectorIndex.load(tmp_path)


@needs_scann
@pytest.mark.parametrize("damage", ["scann_assets.pbtxt", "scann_config.pb", "hashed_dataset.npy"])
def test_a_damaged_tree_is_named(tree, tmp_path, damage):
    tree[1].save(tmp_path)
    (tmp_path / damage).unlink()
    with pytest.raises(UserError, match=str(tmp_path)):
        VectorIndex.load(tmp_path)


@needs_scann
def test_a_pickle_is_not_opened(tree, tmp_path):
    tree[1].save(tmp_path)
    (tmp_path / "scann_docids.pkl").write_bytes(b"cos\nsystem\n")
    with pytest.raises(UserError, match="pickle"):
        VectorIndex.load(tmp_path)


def test_settings_grow_with_size_and_neighbours():
    assert tree_settings(200_000, 10) == (894, 17, 80)
    assert tree_settings(1, 10)[0] >= 1
    for n in (100, 20_000, 1_000_000):
        for k in (1, 10, 500):
            leaves, searched, reorder = tree_settings(n, k)
            assert 1 <= searched <= leaves and reorder >= k
