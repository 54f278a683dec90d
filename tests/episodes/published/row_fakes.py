"""Small published sets: images that are told apart by their shade of red, rows as lines, and what is read of them."""

import io
import json
from pathlib import Path

from PIL import Image

from m2io_jax.corpus.pictures import decode
from m2io_jax.episodes.episode import Episode
from m2io_jax.episodes.prompt import Picture, question_parts
from m2io_jax.episodes.published.draft import ReadConfig, ReadReport
from m2io_jax.episodes.published.rows import RowsReader

SPLITS = ("train", "validation", "test")
SHADES = {"a.png": 10, "b.png": 20, "c.png": 30}


def image(shade: int, kind: str = "PNG", size: tuple[int, int] = (16, 12)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (shade, 0, 0)).save(file, kind)
    return file.getvalue()


def write_images(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, shade in SHADES.items():
        (folder / name).write_bytes(image(shade))
    return folder


def write_lines(path: Path, *rows) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def read(source: Path, **settings) -> tuple[ReadReport, dict[str, dict[str, Episode]]]:
    """The report, and the episodes of each split by their ids."""
    report = ReadReport(source.name)
    reader = RowsReader(source, ReadConfig(**settings), report)
    found = {split: {row.id: row for row in reader.episodes(split)} for split in SPLITS}
    assert report.kept == sum(map(len, found.values())) == report.rows - sum(report.bad.values())
    return report, found


def read_all(source: Path, **settings) -> tuple[ReadReport, dict[int, Episode]]:
    """The report, and the episodes of a set of one file by the number of their row."""
    report, found = read(source, train=1.0, validation=0.0, **settings)
    return report, {int(id.rpartition(":")[2]): row for split in found.values() for id, row in split.items()}


def read_row(folder: Path, row) -> Episode:
    """The one episode of a set of one row beside the images a.png, b.png and c.png."""
    write_lines(write_images(folder) / "rows.jsonl", row)
    report, found = read_all(folder)
    assert not report.bad, report.problems
    return found[1]


def bad_row(folder: Path, row) -> str:
    """The reason for which a set's one row is left out."""
    write_lines(write_images(folder) / "rows.jsonl", row)
    report, found = read_all(folder)
    assert not found and report.rows == 1
    return report.problems[0].reason


def shades(episode: Episode) -> list[int]:
    """The shade of every candidate, in their order."""
    return [int(decode(candidate.data)[0, 0, 0]) for candidate in episode.candidates]


def shown(episode: Episode) -> list[str | int]:
    """The question as the model reads it: text, and each image as its shade."""
    of = shades(episode)
    return [of[part.candidate] if isinstance(part, Picture) else part for part in question_parts(episode)]
