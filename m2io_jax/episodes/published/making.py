"""The command `m2io read`: from a published set to a data set of episodes."""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from m2io_jax.episodes.building import SPLITS
from m2io_jax.episodes.dataset import write_episodes
from m2io_jax.episodes.episode import Episode
from m2io_jax.episodes.published.clevr import ClevrReader
from m2io_jax.episodes.published.draft import ReadConfig, ReadReport
from m2io_jax.episodes.published.rows import RowsReader
from m2io_jax.errors import UserError
from m2io_jax.files import write_at_once
from m2io_jax.progress import Progress

READERS = {"clevr": ClevrReader, "rows": RowsReader}
SHOWN_PROBLEMS = 20  # rows that an error lists; the report beside the output lists more
REPORT_SUFFIX = ".report.json"


def make_read(kind: Literal["clevr", "rows"], source: Path, folder: Path, config: ReadConfig) -> ReadReport:
    """Read a published set and write its episodes as a data set, whose `episodes.json` holds the report.

    Raises:
        UserError: there is nothing to read, no row makes an episode (the report is then written beside the output, as
            `OUTPUT.report.json`), or the output cannot be written. Bad rows are reported instead.
    """
    report = ReadReport(source=source.name)
    ended: set[str] = set()  # splits that were read to their end
    reader = READERS[kind](source, config, report)
    with Progress(f"reading {source.name}") as progress:

        def rows(split: str) -> Iterator[Episode]:
            for episode in reader.episodes(split):
                progress.update(report.kept)
                yield episode
            ended.add(split)

        def provenance() -> dict:
            return {"read": {"kind": kind, "source": source.name} | asdict(config), "report": report.to_json()}

        try:
            write_episodes({split: rows(split) for split in SPLITS}, folder, provenance)
        except UserError as error:
            if len(ended) == len(SPLITS) and not report.kept:
                raise _nothing_kept(source, folder, report) from error
            raise
    with suppress(OSError):
        _beside(folder).unlink()
    return report


def _nothing_kept(source: Path, folder: Path, report: ReadReport) -> UserError:
    """Write the report of a set of which every row was left out, and return the error that tells the reasons."""
    mend = f"see {_beside(folder)}"
    try:
        write_at_once(_beside(folder), json.dumps(report.to_json(), indent=2, ensure_ascii=False) + "\n", what="report")
    except UserError as error:  # the reasons are told all the same
        mend = f"write to another folder for the whole list: {error.what}"
    listed = [
        f"  {each.file}:{each.row}: {each.reason}{each.detail and ' (' + each.detail + ')'}"
        for each in report.problems[:SHOWN_PROBLEMS]
    ]
    what = "\n".join(["There is no episode to write: no row can be used.", report.summary(), *listed])
    if report.columns:
        mend += "; columns of other names are given as prompt_key=, answer_key= and image_key="
    return UserError(what, where=str(source), mend=mend)


def _beside(folder: Path) -> Path:
    return folder.with_name(folder.name + REPORT_SUFFIX)
