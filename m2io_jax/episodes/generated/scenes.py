"""Scenes of shapes in the manner of CLEVR (arXiv 1612.06890): how many of a kind are there?

In train and validation one shape of each colour is never seen; in test all are (CLEVR's CoGenT, which OThink-MR1
trains on, holds out combinations in the same way).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import ceil, cos, pi, sin, sqrt

import numpy as np
from PIL import Image, ImageDraw

from m2io_jax.episodes.generated.problem import Problem, pick, png
from m2io_jax.episodes.settings import require

Colour = tuple[int, int, int]
Combination = tuple[str, str]  # of a colour and a shape

COLOURS: dict[str, Colour] = {
    "red": (212, 40, 40),
    "blue": (44, 92, 220),
    "green": (44, 152, 60),
    "yellow": (236, 196, 36),
    "purple": (150, 60, 186),
    "grey": (128, 128, 132),
}
SHAPES = ("cube", "ball", "cone", "ring")
SIZES = {"large": 0.44, "small": 0.26}  # half of a thing's height, as a share of its cell
SUPERSAMPLING = 2
GROUND = (226, 226, 230)


@dataclass(frozen=True)
class Thing:
    """One thing of a scene; `cell` counts the places of the grid, left to right, then down."""

    size: str
    colour: str
    shape: str
    cell: int = 0


@dataclass(frozen=True)
class Asked:
    """What is counted; an empty part is not asked for."""

    size: str
    colour: str
    shape: str

    def fits(self, thing: Thing) -> bool:
        return all(
            part in ("", own)
            for part, own in ((self.size, thing.size), (self.colour, thing.colour), (self.shape, thing.shape))
        )

    def words(self) -> str:
        return " ".join(filter(None, (self.size, self.colour, f"{self.shape or 'thing'}s")))


@dataclass(frozen=True)
class SceneConfig:
    """How hard counting is.

    Attributes:
        most: things in a scene.
        colours, shapes: how many of those that there are.
        sizes: 2 tells small from large, 1 does not.
        side: of a picture, in pixels.
    """

    most: int = 6
    colours: int = 4
    shapes: int = 3
    sizes: int = 1
    side: int = 84

    def __post_init__(self) -> None:
        """Raises UserError for the first value that is out of its bounds."""
        require(1 <= self.most <= 25, "most", self.most, "1 to 25")
        require(2 <= self.colours <= len(COLOURS), "colours", self.colours, f"2 to {len(COLOURS)}")
        require(2 <= self.shapes <= len(SHAPES), "shapes", self.shapes, f"2 to {len(SHAPES)}")
        require(self.sizes in (1, 2), "sizes", self.sizes, "1 or 2")
        require(28 <= self.side <= 1024, "side", self.side, "28 to 1024")

    def held_out(self, seed: int) -> frozenset[Combination]:
        """The combinations that only test shows: one shape of each colour, and never all colours of a shape."""
        names = list(COLOURS)[: self.colours]
        return frozenset((colour, SHAPES[(index + seed) % self.shapes]) for index, colour in enumerate(names))

    def problem(self, random: np.random.Generator, split: str, seed: int) -> Problem:
        """A scene and a question. How many are asked for is drawn first, so that all answers are as frequent."""
        kinds = self._kinds(split, seed)
        asked = self._asked(random, pick(random, kinds))
        fitting = [kind for kind in kinds if asked.fits(kind)]
        foreign = [kind for kind in kinds if not asked.fits(kind)]  # never none: see `held_out`
        count = int(random.integers(self.most + 1))
        others = int(random.integers(count == 0, self.most - count + 1))
        columns = ceil(sqrt(self.most))
        cells = [int(cell) for cell in random.permutation(columns * columns)[: count + others]]
        chosen = [pick(random, fitting) for _ in range(count)] + [pick(random, foreign) for _ in range(others)]
        things = sorted(
            (replace(kind, cell=cell) for kind, cell in zip(chosen, cells, strict=True)), key=lambda thing: thing.cell
        )
        return Problem(
            key=" ".join(f"{thing.cell}:{self._named(thing)}" for thing in things),
            question=f"How many {asked.words()} are there?",
            answer=count,
            reasoning=self._counted(things, asked),
            content=", ".join(map(self._named, things)),
            picture=partial(draw, things, columns, self.side),
        )

    def _kinds(self, split: str, seed: int) -> list[Thing]:
        """Every thing that a split's scenes may show."""
        left_out = frozenset() if split == "test" else self.held_out(seed)
        return [
            Thing(size, colour, shape)
            for size in list(SIZES)[: self.sizes]
            for colour in list(COLOURS)[: self.colours]
            for shape in SHAPES[: self.shapes]
            if (colour, shape) not in left_out
        ]

    def _asked(self, random: np.random.Generator, kind: Thing) -> Asked:
        part = pick(random, ("both", "both", "colour", "shape"))
        size = pick(random, ("", "", kind.size)) if self.sizes > 1 else ""
        return Asked(size, kind.colour if part != "shape" else "", kind.shape if part != "colour" else "")

    def _named(self, thing: Thing) -> str:
        return f"{thing.size + ' ' if self.sizes > 1 else ''}{thing.colour} {thing.shape}"

    def _counted(self, things: Sequence[Thing], asked: Asked) -> str:
        """Every thing in reading order; those that count with their number."""
        lines, number = [], 0
        for thing in things:
            number += asked.fits(thing)
            lines.append(f"{self._named(thing)} {number}" if asked.fits(thing) else self._named(thing))
        return "\n".join(lines)


def draw(things: Sequence[Thing], columns: int, side: int, random: np.random.Generator) -> bytes:
    """A PNG file of `side` pixels square: each thing in its cell of a grid, somewhat off its middle."""
    canvas = Image.new("RGB", (side * SUPERSAMPLING, side * SUPERSAMPLING), GROUND)
    pen, cell = ImageDraw.Draw(canvas), side * SUPERSAMPLING / columns
    for thing in things:
        reach = SIZES[thing.size] * cell
        free = cell / 2 - reach
        across, down = random.uniform(-1, 1, 2) * free
        x, y = (thing.cell % columns + 0.5) * cell + across, (thing.cell // columns + 0.5) * cell + down
        _draw_shape(pen, thing.shape, COLOURS[thing.colour], x, y, reach)
    return png(canvas.reduce(SUPERSAMPLING), random)


def _draw_shape(pen: ImageDraw.ImageDraw, shape: str, colour: Colour, x: float, y: float, r: float) -> None:
    light, dark = _shaded(colour, 1.35), _shaded(colour, 0.6)
    if shape == "cube":
        corners = [(x + r * cos(pi * i / 3 + pi / 6), y + r * sin(pi * i / 3 + pi / 6)) for i in range(6)]
        for first, shade in ((0, colour), (2, dark), (4, light)):
            pen.polygon([(x, y), *(corners[(first + i) % 6] for i in (-1, 0, 1))], fill=shade)
    elif shape == "ball":
        pen.ellipse([x - r, y - r, x + r, y + r], fill=colour, outline=dark)
        pen.ellipse([x - 0.5 * r, y - 0.6 * r, x - 0.1 * r, y - 0.2 * r], fill=light)
    elif shape == "cone":
        pen.ellipse([x - r, y + 0.4 * r, x + r, y + r], fill=dark)
        pen.polygon([(x, y - r), (x + r, y + 0.7 * r), (x - r, y + 0.7 * r)], fill=colour)
    else:
        pen.ellipse([x - r, y - r, x + r, y + r], fill=colour, outline=dark)
        pen.ellipse([x - 0.5 * r, y - 0.5 * r, x + 0.5 * r, y + 0.5 * r], fill=GROUND, outline=dark)


def _shaded(colour: Colour, by: float) -> Colour:
    red, green, blue = (min(255, int(channel * by)) for channel in colour)
    return red, green, blue
