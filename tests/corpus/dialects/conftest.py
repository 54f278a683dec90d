"""Reading small texts, and trees with one real picture under each name."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from m2io_jax.corpus.documents import TextBlock
from m2io_jax.corpus.markdown_blocks import parse_markdown

Entry = str | tuple[str, int] | tuple[str, int, str]


@pytest.fixture
def outline() -> Callable[[str], list[Entry]]:
    """Return a reader: a text as its sentences and pictures in order.

    A picture is (address, line, words), without the words where there are none; one that is not supported is
    ("unsupported", line).
    """

    def read(text: str) -> list[Entry]:
        entries: list[Entry] = []
        for piece in parse_markdown(text).pieces:
            if isinstance(piece, TextBlock):
                entries.append(piece.text)
            elif piece.unsupported:
                entries.append(("unsupported", piece.line))
            else:
                entries.append(
                    (piece.address, piece.line, piece.caption) if piece.caption else (piece.address, piece.line)
                )
        return entries

    return read


@pytest.fixture
def tree(tmp_path: Path) -> Callable[[dict[str, str]], Path]:
    """Return a maker of trees: a text for each name, and a picture for each name without one."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), (200, 30, 30)).save(buffer, "PNG")

    def make(files: dict[str, str]) -> Path:
        for name, text in files.items():
            path = tmp_path / "tree" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode() if text else buffer.getvalue())
        return tmp_path / "tree"

    return make
