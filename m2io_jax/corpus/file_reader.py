"""Read the files of an import: from the cache, in worker processes where there is much to read, else here."""

import hashlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from m2io_jax.corpus.import_cache import ImportCache
from m2io_jax.corpus.import_worker import reply
from m2io_jax.corpus.pictures import PictureLimits
from m2io_jax.corpus.reading import MAX_TEXT_BYTES, Unreadable, is_page, is_picture, load
from m2io_jax.verification.pool import Pool, Unverified

WORKER = (sys.executable, "-m", "m2io_jax.corpus.import_worker")
# Results held at a time: images that were made still are among them.
BATCH = 512
# A worker takes about a quarter of a second to start, in which this much is read.
WORTH_BYTES, WORTH_FILES = 2 * 2**20, 100
# A hostile text of this size may take long to parse, so that it is read where time is limited.
LARGE_TEXT_BYTES = 128 * 2**10
CPU_SECONDS = 60.0  # for one file, in a worker
CLOCK_SECONDS = 600.0


@dataclass(frozen=True)
class _Job:
    """One file to read, and the key of its result; "" where its bytes could not be read."""

    path: str
    request: dict[str, Any]
    key: str
    size: int


class FileReader:
    """Reads pages and images of a tree; close it, or use it in a `with` block, to end its workers.

    Args:
        root: the tree, resolved.
        encoding: of pages; see `text_encoding.decode_text`.
        limits: bounds on each image.
        workers: processes at most; 0: as many as there are cores.
        cache: of results.
    """

    def __init__(self, root: Path, *, encoding: str, limits: PictureLimits, workers: int, cache: ImportCache):
        self.root, self.encoding, self.limits, self.cache = root, encoding, limits, cache
        self.workers = workers or _cores()
        self._pool: Pool | None = None

    def __enter__(self) -> "FileReader":
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool:
            self._pool.close()

    def pages(self, paths: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Yield what `reading.read_page` says of each page, in the order of `paths`, which are relative to the tree."""
        return self._results(paths, {"encoding": self.encoding}, MAX_TEXT_BYTES)

    def pictures(self, paths: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Yield what `reading.read_picture` says of each image, in the order of `paths`."""
        return self._results(paths, {"limits": asdict(self.limits)}, self.limits.max_bytes)

    def _results(self, paths: Sequence[str], settings: dict[str, Any], max_bytes: int) -> Iterator[dict[str, Any]]:
        for start in range(0, len(paths), BATCH):
            jobs = [self._job(path, settings, max_bytes) for path in paths[start : start + BATCH]]
            found = self.cache.load(dict.fromkeys(job.key for job in jobs if job.key))
            # A cache may be shared, so that what it holds is no more trusted than the tree.
            has_shape = is_page if "encoding" in settings else is_picture
            known = {key: value for key, value in found.items() if has_shape(value)}
            missing = list({job.key or job.path: job for job in jobs if job.key not in known}.values())
            new: dict[str, Any] = {}
            failed: dict[str, Any] = {}
            for job, answer in zip(missing, self._answers(missing), strict=True):
                # Bytes that changed since they were looked at are another file's result.
                kept = new if job.key and job.key == ImportCache.key(answer["digest"], settings) else failed
                kept[job.key or job.path] = answer["read"]
            self.cache.save(new)
            found = known | failed | new
            yield from (found[job.key or job.path] for job in jobs)

    def _job(self, path: str, settings: dict[str, Any], max_bytes: int) -> _Job:
        request = {"root": str(self.root), "path": path} | settings
        try:
            data = load(self.root, path, max_bytes)
        except Unreadable:
            return _Job(path, request, "", 0)
        return _Job(path, request, ImportCache.key(hashlib.sha256(data).hexdigest(), settings), len(data))

    def _answers(self, jobs: Sequence[_Job]) -> Iterable[dict[str, Any]]:
        is_much = sum(job.size for job in jobs) > WORTH_BYTES or len(jobs) > WORTH_FILES
        is_large = any("encoding" in job.request and job.size > LARGE_TEXT_BYTES for job in jobs)
        if not is_large and (self.workers == 1 or not is_much):
            return (reply(job.request) for job in jobs)
        if self._pool is None:
            self._pool = Pool(WORKER, workers=self.workers, cpu_seconds=CPU_SECONDS, seconds=CLOCK_SECONDS)
        return self._asked(self._pool, jobs)

    def _asked(self, pool: Pool, jobs: Sequence[_Job]) -> Iterator[dict[str, Any]]:
        threads = ThreadPoolExecutor(self.workers)
        try:
            yield from threads.map(lambda job: _ask(pool, job), jobs)
        finally:
            # An import that is interrupted does not wait for the rest.
            threads.shutdown(wait=False, cancel_futures=True)


def _ask(pool: Pool, job: _Job) -> dict[str, Any]:
    """Return a worker's answer; a file that a worker does not survive is read by no other."""
    try:
        return pool.ask(job.request)
    except Unverified as error:
        reason = "reading it takes too long" if error.kind == "timeout" else "the program that reads it ends"
        fault = {"kind": "broken", "reason": reason} if "limits" in job.request else {"skipped": reason}
        return {"digest": "", "read": fault}


def _cores() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
