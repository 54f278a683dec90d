"""Nearest vectors by inner product, served by ScaNN (Guo et al. 2020, anisotropic quantization, arXiv 1908.10396).

Below `EXACT_BELOW` vectors every vector is compared. Above it ScaNN's tree picks the leaves to look at, asymmetric
hashing (two dimensions a block) scores what lies in them, and the best are scored again exactly. Where ScaNN cannot be
imported (it has no wheel for macOS) NumPy compares every vector at any size: exact, but slower.

    index.json     method, n, dim; the size and a digest of each other file, for files of two builds do not go together
    dataset.npy    the vectors; with the method "exact" nothing else is needed
    scann_*, ...   ScaNN's own files of the method "tree", naming each other by relative paths: the folder can move
"""

import functools
import json
import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float, Int

from m2io_jax.errors import UserError
from m2io_jax.files import describe_files, require_described

logger = logging.getLogger(__name__)

EXACT_BELOW = 20_000

# Measured on 200,000 clustered vectors of 384 dimensions: recall@10 of 0.97 to 0.98 (see `tree_settings`).
AH_DIMENSIONS = 2
AH_THRESHOLD = 0.2
TRAINING_SAMPLE = 100_000

# Fewer queries than this are not worth waking other threads for.
PARALLEL_FROM = 64
NUMPY_ROWS = 256

SCANN_SUFFIXES = (".npy", ".pb", ".pbtxt")  # of files that an index is read from

Method = Literal["exact", "tree"]


def tree_settings(n: int, k: int) -> tuple[int, int, int]:
    """(leaves, leaves to search, candidates to score again) for `n` vectors and `k` neighbours.

    Leaves are 2 sqrt(n), so that a leaf and the list of leaves cost about the same. A fiftieth of them is searched,
    never fewer than 16 nor so few that they hold less than 20 k vectors.
    """
    leaves = max(1, round(2 * math.sqrt(n)))
    needed = math.ceil(20 * k * leaves / max(n, 1))
    return leaves, min(leaves, max(16, leaves // 50, needed)), max(80, 8 * k)


class VectorIndex:
    """An immutable set of vectors, numbered from 0, that can be searched; made by `build` or `load`.

    Attributes:
        n, dim: number of vectors and their size.
        method: "exact" or "tree".
    """

    def __init__(self, n: int, dim: int, method: Method, searcher: Any):
        self.n, self.dim, self.method = n, dim, method
        self._searcher = searcher

    @classmethod
    def build(cls, vectors: Float[np.ndarray, "n dim"], *, method: Method | None = None) -> "VectorIndex":
        """Indexes `vectors` (float32, finite). `method` is chosen by size where it is None; n = 0 is allowed.

        ScaNN trains a tree in threads and not the same way every time: two trees of the same vectors may differ in
        which neighbours they miss. "exact" never differs.

        Raises:
            ValueError: not a matrix, or values that are not finite.
        """
        vectors = np.ascontiguousarray(vectors, np.float32)
        if vectors.ndim != 2 or not np.isfinite(vectors).all():
            raise ValueError(f"vectors must be a finite matrix, got shape {vectors.shape}")
        n, dim = vectors.shape
        scann = _scann()
        if method is None:
            method = "exact" if n < EXACT_BELOW else "tree"
        if scann is None or n == 0:
            return cls(n, dim, "exact", _NumpySearcher(vectors))
        return cls(n, dim, method, _train(scann, vectors, method))

    def search(
        self, queries: Float[np.ndarray, "queries dim"], k: int
    ) -> tuple[Int[np.ndarray, "queries k"], Float[np.ndarray, "queries k"]]:
        """The `k` vectors with the greatest inner product with each query, best first, and those products.

        Where there are fewer than `k`, the rest has id -1 and score -inf. Many queries are searched on all cores.

        Raises:
            ValueError: queries of another size, or not finite.
        """
        queries = np.ascontiguousarray(queries, np.float32)
        if queries.ndim != 2 or queries.shape[1] != self.dim or not np.isfinite(queries).all():
            raise ValueError(f"queries must be finite and of shape (queries, {self.dim}), got {queries.shape}")
        ids = np.full((len(queries), k), -1, np.int64)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        take = min(k, self.n)
        if take and len(queries):
            found, products = self._search(queries, take)
            filled = np.isfinite(products)  # ScaNN pads a batch with NaN, and returns fewer for one query
            ids[:, : found.shape[1]] = np.where(filled, found.astype(np.int64), -1)
            scores[:, : found.shape[1]] = np.where(filled, products, -np.inf)
        return ids, scores

    def _search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        if isinstance(self._searcher, _NumpySearcher):
            return self._searcher.search(queries, k)
        _, leaves, reorder = tree_settings(self.n, k)
        effort = {} if self.method == "exact" else {"leaves_to_search": leaves, "pre_reorder_num_neighbors": reorder}
        if len(queries) == 1:
            ids, scores = self._searcher.search(queries[0], final_num_neighbors=k, **effort)
            return ids[None], scores[None]
        many = len(queries) >= PARALLEL_FROM
        search = self._searcher.search_batched_parallel if many else self._searcher.search_batched
        return search(queries, final_num_neighbors=k, **effort)

    def save(self, folder: str | Path) -> None:
        """Writes the index into `folder`, which may be moved or made read-only afterwards. Raises OSError."""
        folder = Path(folder)
        os.makedirs(folder, exist_ok=True)
        if isinstance(self._searcher, _NumpySearcher):
            np.save(folder / "dataset.npy", self._searcher.vectors)
        else:
            self._searcher.serialize(str(folder), relative_path=True)
        names = [path.name for path in folder.iterdir() if path.is_file() and path.name != "index.json"]
        manifest = {"method": self.method, "n": self.n, "dim": self.dim, "files": describe_files(folder, names)}
        (folder / "index.json").write_text(json.dumps(manifest) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> "VectorIndex":
        """Read what `save` wrote, with or without ScaNN on either side.

        An index of the method "exact" from before files were described is checked by its shape alone.

        Raises:
            UserError: a file is missing, damaged or of another build; or a tree is from before files were described.
        """
        folder = Path(folder)
        try:
            manifest = json.loads((folder / "index.json").read_text(encoding="utf-8"))
            n, dim, method = map(manifest.get, ("n", "dim", "method")) if isinstance(manifest, dict) else (None,) * 3
            if not (type(n) is type(dim) is int and method in get_args(Method)):
                raise ValueError("index.json holds no method, n and dim")
            _require_whole(folder, manifest)
            if method == "tree" and (scann := _scann()) is not None:
                return cls(n, dim, method, _load_tree(scann, folder))
            return cls.build(np.load(folder / "dataset.npy", allow_pickle=False), method="exact")
        except (OSError, LookupError, ValueError, TypeError, AttributeError, EOFError, RuntimeError) as error:
            raise UserError(
                f"The vector index cannot be read: {error}", where=str(folder), mend="Build the index again."
            ) from error


def _require_whole(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Raise ValueError, naming the file, if the files of an index do not belong together. ScaNN does not look: it reads
    beyond the end of an array that is shorter than another."""
    n, dim = manifest["n"], manifest["dim"]
    _require_shape(folder / "dataset.npy", (n, dim))
    if (described := manifest.get("files")) is not None:
        require_described(folder, described, by="index.json")
        for path in sorted(folder.iterdir()):
            if path.suffix in SCANN_SUFFIXES and path.name not in described:
                raise ValueError(f"{path.name} is not in index.json: it is of another build")
    elif manifest["method"] == "tree":
        raise ValueError("it was written by an older version, which did not describe its files")


def _require_shape(path: Path, shape: tuple[int, int]) -> None:
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False).shape
    except FileNotFoundError:
        raise ValueError(f"{path.name} is missing") from None
    except (ValueError, EOFError, AttributeError) as error:
        raise ValueError(f"{path.name} is damaged: {error}") from None
    if found != shape:
        raise ValueError(f"{path.name} holds {found}, index.json says {shape}")


class _NumpySearcher:
    """Exact search without ScaNN; ties go to the lower id."""

    def __init__(self, vectors: Float[np.ndarray, "n dim"]):
        self.vectors = vectors

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        ids = np.empty((len(queries), k), np.int64)
        scores = np.empty((len(queries), k), np.float32)
        for start in range(0, len(queries), NUMPY_ROWS):
            products = queries[start : start + NUMPY_ROWS] @ self.vectors.T
            best = np.argsort(-products, axis=1, kind="stable")[:, :k]
            ids[start : start + len(best)] = best
            scores[start : start + len(best)] = np.take_along_axis(products, best, axis=1)
        return ids, scores


@functools.cache
def _scann() -> ModuleType | None:
    """ScaNN's module without TensorFlow, or None with one notice. Imported late: it takes a moment and logs."""
    try:
        from scann.scann_ops.py import scann_ops_pybind
    except ImportError as error:
        logger.warning("ScaNN is not available (%s); vectors are searched exactly with NumPy.", error)
        return None
    return scann_ops_pybind


def _train(scann: ModuleType, vectors: Float[np.ndarray, "n dim"], method: Method) -> Any:
    n = len(vectors)
    builder = scann.builder(vectors, min(10, n), "dot_product")
    if method == "exact":
        return builder.score_brute_force().build()
    leaves, searched, reorder = tree_settings(n, 10)
    sample = min(n, TRAINING_SAMPLE)
    builder = builder.tree(leaves, searched, training_sample_size=sample, spherical=True)
    builder = builder.score_ah(AH_DIMENSIONS, AH_THRESHOLD, training_sample_size=sample)
    return builder.reorder(reorder).build()


def _load_tree(scann: ModuleType, folder: Path) -> Any:
    # ScaNN unpickles this file if it is there; an index made here never has one, and a pickle can run any code.
    if (folder / "scann_docids.pkl").exists():
        raise ValueError("it holds a pickle, scann_docids.pkl, which is not opened")
    if not (folder / "scann_assets.pbtxt").is_file():
        raise ValueError("scann_assets.pbtxt is missing")
    return scann.load_searcher(str(folder))
