"""What generators make: problems, and what they share in making them."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from PIL import Image

T = TypeVar("T")


@dataclass(frozen=True)
class Problem:
    """A question whose answer is known.

    Attributes:
        key: two problems of one key are the same problem, however they are drawn or told.
        reasoning: how one comes to the answer, in short lines.
        content: what the picture shows, in words.
        picture: draws a PNG file; None where words tell everything. Many problems are refused before they are drawn.
    """

    key: str
    question: str
    answer: int
    reasoning: str
    content: str = ""
    picture: Callable[[np.random.Generator], bytes] | None = None


class Generator(Protocol):
    """Draws problems. The same state of `random` gives the same problem."""

    def problem(self, random: np.random.Generator, split: str, seed: int) -> Problem:
        """A problem for a split; `seed` is the data set's, for what is to be the same for all its problems."""
        ...


def pick(random: np.random.Generator, options: Sequence[T]) -> T:
    """One of the options, each with equal chance."""
    return options[int(random.integers(len(options)))]


def png(picture: Image.Image, random: np.random.Generator) -> bytes:
    """A PNG file with mild noise, so that no two pictures are alike, pixel for pixel."""
    noise = random.integers(-4, 5, (picture.height, picture.width, 1))
    pixels = np.clip(np.asarray(picture, np.int64) + noise, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()
