"""From a published set to a data set of episodes: what the command `m2io read` does."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from m2io_jax.episodes.building import SPLITS
from m2io_jax.episodes.dataset import write_episodes
from m2io_jax.episodes.episode import Episode
from m2io_jax.episodes.published.clevr import ClevrReader
from m2io_jax.episodes.published.draft import ReadConfig, ReadReport
from m2io_jax.episodes.published.rows import RowsReader
from m2io_jax.progress import Progress

READERS = {"clevr": ClevrReader, "rows": RowsReader}


def make_read(kind: Literal["clevr", "rows"], source: Path, folder: Path, config: ReadConfig) -> ReadReport:
    """Writes what can be read as a data set; its `episodes.json` holds the report, which is returned.

    Raises:
        UserError: there is nothing to read, or the output cannot be written. Bad rows are reported instead.
    """
    report = ReadReport(source=source.name)
    reader = READERS[kind](source, config, report)
    with Progress(f"reading {source.name}") as progress:

        def rows(split: str) -> Iterator[Episode]:
            for episode in reader.episodes(split):
                progress.update(report.kept)
                yield episode

        def provenance() -> dict:
            return {"read": {"kind": kind, "source": source.name} | asdict(config), "report": report.to_json()}

        write_episodes({split: rows(split) for split in SPLITS}, folder, provenance)
    return report
