"""The embedded encoder: geometry, determinism, odd inputs, saving."""

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from m2io_jax.errors import UserError
from m2io_jax.retrieval.encoder import ENCODERS, Encoder, TfidfEncoder

TEXTS = [
    "Boil the water with salt",
    "Chop 2 onions and fry them",
    "Connect the soil moisture sensor to the board",
    "The sensor measures moisture in soil",
    "Bake the bread for an hour",
]


def test_vectors_are_unit_float32_and_near_texts_are_near():
    encoder = TfidfEncoder.fit(TEXTS)
    vectors = encoder.encode(TEXTS)
    assert vectors.dtype == np.float32 and vectors.shape == (len(TEXTS), encoder.dim)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    question = encoder.encode(["How do I connect a moisture sensor?"])[0]
    assert set(np.argsort(-(vectors @ question))[:2]) == {2, 3}


def test_full_rank_projection_keeps_the_cosines_of_tfidf():
    vectors = TfidfEncoder.fit(TEXTS).encode(TEXTS)
    plain = TfidfVectorizer(sublinear_tf=True, token_pattern=r"\w+").fit_transform(TEXTS).toarray()
    np.testing.assert_allclose(vectors @ vectors.T, plain @ plain.T, atol=1e-5)


def test_fitting_is_deterministic_and_bounded():
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{i}" for i in rng.integers(0, 300, 30)) for _ in range(200)]
    first, second = TfidfEncoder.fit(texts, dimensions=32), TfidfEncoder.fit(texts, dimensions=32)
    assert first.dim == 32
    np.testing.assert_array_equal(first.projection, second.projection)


@pytest.mark.parametrize("texts", [[], [""], ["", "  ", "!?"], ["one"], ["one", "one"], ["one two"], ["same text"] * 3])
def test_tiny_and_empty_corpora(texts):
    vectors = TfidfEncoder.fit(texts).encode(["one", "same", "", "unknown"])
    assert np.isfinite(vectors).all()
    assert not vectors[2:].any()
    lengths = np.linalg.norm(vectors, axis=1)
    assert all(abs(length) < 1e-6 or abs(length - 1) < 1e-5 for length in lengths)


def test_encoding_nothing():
    encoder = TfidfEncoder.fit(TEXTS)
    assert encoder.encode([]).shape == (0, encoder.dim)


def test_scripts_without_spaces():
    encoder = TfidfEncoder.fit(["切洋葱", "煮开水", "boil water"])
    assert (encoder.encode(["切洋葱", "煮开水"]) @ encoder.encode(["怎么切洋葱"])[0]).argmax() == 0


def test_saved_and_loaded(tmp_path):
    encoder = TfidfEncoder.fit(TEXTS)
    assert isinstance(encoder, Encoder)
    encoder.save(tmp_path)
    loaded = ENCODERS[encoder.kind](tmp_path)
    np.testing.assert_array_equal(encoder.encode(TEXTS), loaded.encode(TEXTS))
    assert not list(tmp_path.glob("*.pkl"))


def test_a_damaged_encoder_is_named(tmp_path):
    TfidfEncoder.fit(TEXTS).save(tmp_path)
    data = (tmp_path / "arrays.npz").read_bytes()
    (tmp_path / "arrays.npz").write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=str(tmp_path)):
        TfidfEncoder.load(tmp_path)
