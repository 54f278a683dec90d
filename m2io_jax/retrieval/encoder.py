"""Text to vectors. The embedded encoder needs no download; another one is a new file and a line in `ENCODERS`.

`TfidfEncoder` is latent semantic analysis (Deerwester et al. 1990): TF-IDF of words, projected on the leading singular
vectors of the corpus it was fitted on.
"""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Float
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from threadpoolctl import threadpool_limits

from m2io_jax.errors import UserError
from m2io_jax.retrieval.words import WORD

DIMENSIONS = 256
VOCABULARY = 50_000
SEED = 0

ENCODE_ROWS = 4096


@runtime_checkable
class Encoder(Protocol):
    """Maps texts to vectors whose inner product says how near they are in meaning.

    Attributes:
        kind: the name under which `ENCODERS` finds the class again.
        dim: size of the vectors.
    """

    kind: str
    dim: int

    def encode(self, texts: Sequence[str]) -> Float[np.ndarray, "texts dim"]:
        """Unit vectors (float32); a zero vector for a text that says nothing this encoder knows."""
        ...

    def save(self, folder: str | Path) -> None:
        """Writes all that `load` needs into `folder`."""
        ...


class TfidfEncoder:
    """TF-IDF of words (sub-linear term frequency) projected to at most `DIMENSIONS` dimensions; see the module's text.

    Attributes:
        words: the vocabulary, in the order of the columns.
        idf: inverse document frequency of each word.
        projection: right singular vectors, one a row.
    """

    kind = "tfidf-svd"

    def __init__(
        self, words: Sequence[str], idf: Float[np.ndarray, " words"], projection: Float[np.ndarray, "dim words"]
    ):
        self.words = list(words)
        self.projection = np.asarray(projection, np.float32)
        # Sparse times dense copies a transposed operand at every call, which is most of the time of a single question.
        self._by_word = np.ascontiguousarray(self.projection.T)
        self.dim = self.projection.shape[0]
        self._vectoriser = _vectoriser(vocabulary={word: column for column, word in enumerate(self.words)})
        self._vectoriser.idf_ = np.asarray(idf, np.float32)

    @property
    def idf(self) -> Float[np.ndarray, " words"]:
        return self._vectoriser.idf_

    @classmethod
    def fit(cls, texts: Sequence[str], *, dimensions: int = DIMENSIONS) -> "TfidfEncoder":
        """Learns words, weights and projection from `texts`; the same texts give the same encoder.

        The vectors are smaller than `dimensions` where there are fewer texts or words. Texts without a single word are
        allowed: the encoder then maps everything to zero.
        """
        vectoriser = _vectoriser(max_features=VOCABULARY)
        try:
            weights = vectoriser.fit_transform(texts)
        except ValueError:  # scikit-learn's "empty vocabulary"
            return cls(["\0"], np.ones(1, np.float32), np.zeros((1, 1), np.float32))
        dim = max(1, min(dimensions, *weights.shape))
        if weights.shape[1] == 1:
            projection = np.ones((1, 1), np.float32)  # TruncatedSVD wants two words
        else:
            # One thread: the result must not depend on the number of cores, and threads that wait for each other on a
            # busy machine take longer. Equal texts have no variance; TruncatedSVD divides by it, in vain.
            with threadpool_limits(1), np.errstate(invalid="ignore", divide="ignore"):
                projection = TruncatedSVD(dim, n_iter=7, random_state=SEED).fit(weights).components_
        return cls(vectoriser.get_feature_names_out().tolist(), vectoriser.idf_, projection)

    def encode(self, texts: Sequence[str]) -> Float[np.ndarray, "texts dim"]:
        """Unit vectors (float32); a zero vector for a text without a known word."""
        vectors = np.zeros((len(texts), self.dim), np.float32)
        for start in range(0, len(texts), ENCODE_ROWS):
            rows = texts[start : start + ENCODE_ROWS]
            vectors[start : start + len(rows)] = self._vectoriser.transform(rows) @ self._by_word
        return unit(vectors)

    def save(self, folder: str | Path) -> None:
        """Writes `words.json` and `arrays.npz`. Raises OSError where the folder cannot be written."""
        os.makedirs(folder, exist_ok=True)
        (Path(folder) / "words.json").write_text(json.dumps(self.words, ensure_ascii=False), encoding="utf-8")
        np.savez(Path(folder) / "arrays.npz", idf=self.idf, projection=self.projection)

    @classmethod
    def load(cls, folder: str | Path) -> "TfidfEncoder":
        """Reads what `save` wrote. Raises UserError where it is missing or damaged."""
        try:
            words = json.loads((Path(folder) / "words.json").read_text(encoding="utf-8"))
            with np.load(Path(folder) / "arrays.npz", allow_pickle=False) as arrays:
                idf, projection = arrays["idf"], arrays["projection"]
            if not len(words) == len(idf) == projection.shape[1]:
                raise ValueError(f"{len(words)} words, {len(idf)} weights, projection of {projection.shape}")
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise UserError(
                f"The text encoder cannot be read: {error}", where=str(folder), mend="Build the index again."
            ) from error
        return cls(words, idf, projection)


def unit(vectors: Float[np.ndarray, "rows dim"]) -> Float[np.ndarray, "rows dim"]:
    """Rows scaled to length 1; rows that are (nearly) zero become exactly zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.where(lengths > 1e-6, vectors / np.maximum(lengths, 1e-6), 0.0).astype(np.float32)


def _vectoriser(**choices) -> TfidfVectorizer:
    return TfidfVectorizer(sublinear_tf=True, token_pattern=WORD, dtype=np.float32, **choices)


# Where an index finds the encoder it was built with.
ENCODERS: dict[str, Callable[[str | Path], Encoder]] = {TfidfEncoder.kind: TfidfEncoder.load}
