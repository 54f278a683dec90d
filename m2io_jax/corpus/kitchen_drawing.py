"""Draws kitchen pictures: glyphs in a colour, counted, beside a tool, on backgrounds that vary.

Every shape is a polygon in a unit square (x to the right, y down, both from -1 to 1), so that one transformation
turns, scales and places them all. What tells ingredients apart is their outline, which has to survive a resize to
56 × 56 pixels; colour says nothing about the ingredient.
"""

import io
import random
from math import cos, pi, sin

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw

from m2io_jax.corpus.kitchen_words import Content

Points = Float[np.ndarray, "point 2"]
Colour = tuple[int, int, int]
Glyph = tuple[tuple[str, Points], ...]

SUPERSAMPLING = 2  # Pillow's polygons have no soft edges of their own
SMALLEST_SIDE, LARGEST_SIDE = 48, 84  # pixels
STRIP = 0.27  # share of the height that a tool takes, above or below the ingredients

INK: dict[str, Colour] = {
    "red": (214, 36, 36),
    "yellow": (247, 208, 42),
    "green": (56, 160, 62),
    "blue": (44, 98, 222),
    "purple": (148, 58, 186),
    "brown": (134, 84, 44),
    "pale": (252, 250, 244),
    "dark": (52, 54, 48),
    "steel": (186, 196, 208),
    "iron": (70, 72, 78),
    "china": (240, 240, 244),
    "stripe": (128, 138, 150),
}


def _points(*points: tuple[float, float]) -> Points:
    return np.array(points, np.float64)


def _arc(x: float, y: float, width: float, height: float, start: float = 0, stop: float = 2 * pi) -> Points:
    """Part of an ellipse with half axes `width` and `height`, clockwise from `start` to `stop` (radians, 0: right)."""
    return _points(*[(x + width * cos(t), y + height * sin(t)) for t in np.linspace(start, stop, 25)])


def _star(arms: int, inner: float) -> Points:
    turns = [(pi * i / arms - pi / 2, 1 if i % 2 == 0 else inner) for i in range(2 * arms)]
    return _points(*[(r * cos(t), r * sin(t)) for t, r in turns])


def _mirrored(*profile: tuple[float, float]) -> Points:
    """A shape that is symmetric about the vertical axis, from its right half, top to bottom."""
    return _points(*profile, *[(-x, y) for x, y in reversed(profile)])


def _lens(width: float, height: float, turn: float) -> Points:
    """Two bows that meet in points, turned by `turn` radians."""
    xs = np.linspace(-1, 1, 13)
    bow = np.stack([xs * width, height * (1 - xs**2)], 1)
    turned = np.array([[cos(turn), sin(turn)], [-sin(turn), cos(turn)]])
    return np.concatenate([bow, bow[::-1] * (1, -1)]) @ turned


# "body" takes the picture's colour; later shapes are drawn over earlier ones.
INGREDIENTS: dict[str, Glyph] = {
    "tomato": (
        ("body", _arc(0, 0.12, 0.92, 0.84)),
        ("dark", _mirrored((0, -1), (0.2, -0.66), (0.66, -0.58), (0.3, -0.34), (0, -0.1))),
    ),
    "carrot": (
        ("dark", _mirrored((0, -1), (0.1, -0.75), (0.5, -1), (0.2, -0.5))),
        ("body", _mirrored((0.54, -0.62), (0.52, -0.3), (0.1, 1.05))),
    ),
    "egg": (("body", _arc(0, 0, 1, 0.88)), ("pale", _arc(0, 0, 0.5, 0.46))),
    "lemon": (
        ("body", _arc(0, -0.5, 1, 1.25, 0, pi)),
        ("pale", _points((-0.14, -0.34), (-0.74, -0.34), (-0.42, 0.2))),
        ("pale", _points((0.0, -0.24), (-0.3, 0.42), (0.3, 0.42))),
        ("pale", _points((0.14, -0.34), (0.74, -0.34), (0.42, 0.2))),
    ),
    "fish": (
        ("body", _points((0.3, 0), (1, -0.62), (0.82, 0), (1, 0.62))),
        ("body", _arc(-0.26, 0, 0.74, 0.5)),
        ("dark", _arc(-0.6, -0.12, 0.13, 0.13)),
    ),
    "mushroom": (
        ("pale", _mirrored((0.26, 0), (0.34, 0.95))),
        ("body", _arc(0, 0.14, 0.98, 1.06, pi, 2 * pi)),
    ),
    "leaf": (
        ("body", _lens(1.25, 0.6, pi / 4)),
        ("pale", _lens(1.0, 0.13, pi / 4)),
    ),
    "pear": (
        ("dark", _mirrored((0.1, -1.05), (0.1, -0.7))),
        ("body", _mirrored((0.2, -0.78), (0.3, -0.4), (0.42, -0.1), (0.7, 0.2), (0.76, 0.5), (0.6, 0.84), (0.2, 1))),
    ),
    "cheese": (
        ("body", _points((-1, 0.1), (0.95, -0.8), (0.95, 0.78), (-1, 0.78))),
        ("pale", _arc(0.52, -0.12, 0.24, 0.22)),
        ("pale", _arc(-0.3, 0.36, 0.22, 0.2)),
    ),
    "banana": (
        (
            "body",
            np.concatenate([_arc(0, -0.55, 1, 1.4, 0, pi), _arc(0, -0.55, 1, 0.6, pi, 0)]),
        ),
    ),
    "cracker": (
        ("body", _points((-0.84, -0.84), (0.84, -0.84), (0.84, 0.84), (-0.84, 0.84))),
        *(("dark", _arc(x, y, 0.16, 0.16)) for x in (-0.4, 0.4) for y in (-0.4, 0.4)),
    ),
    "starfruit": (("body", _star(5, 0.42)),),
}

TOOLS: dict[str, Glyph] = {
    "knife": (
        ("steel", _points((0.3, -0.6), (0.3, 0.7), (-0.5, 0.7), (-1, -0.6))),
        ("dark", _points((0.3, -0.6), (1, -0.5), (1, 0.1), (0.3, 0.1))),
    ),
    "pan": (
        ("iron", _points((0.1, -0.55), (1, -0.75), (1, -0.3), (0.1, 0.1))),
        ("iron", _points((-1, -0.7), (0.3, -0.7), (0.15, 0.8), (-0.85, 0.8))),
    ),
    "bowl": (
        ("china", _arc(0, -0.85, 0.78, 1.8, 0, pi)),
        ("stripe", _mirrored((0.76, -0.5), (0.7, -0.05))),
    ),
}


def draw(content: Content, rng: random.Random) -> bytes:
    """A PNG file that shows `content`, 48 to 84 pixels a side.

    `rng` decides everything that `content` leaves open: the same state gives the same bytes.
    """
    width = rng.randint(SMALLEST_SIDE, LARGEST_SIDE)
    height = min(LARGEST_SIDE, max(SMALLEST_SIDE, round(width * rng.uniform(0.86, 1.16))))
    canvas = _background(width * SUPERSAMPLING, height * SUPERSAMPLING, rng)
    pen = ImageDraw.Draw(canvas)
    _clutter(pen, canvas.size, rng)
    top, bottom = 0.0, 1.0
    if content.tool:
        above = rng.random() < 0.3
        top, bottom = (STRIP, 1.0) if above else (0.0, 1 - STRIP)
        _tool(pen, content.tool, canvas.size, STRIP / 2 if above else 1 - STRIP / 2, rng)
    _ingredients(pen, content, canvas.size, (top, bottom), rng)
    return _encode(canvas.reduce(SUPERSAMPLING), rng)


def _background(width: int, height: int, rng: random.Random) -> Image.Image:
    """A light tint that runs into another one: four corner colours, interpolated."""
    base = [rng.randint(214, 244) for _ in range(3)]
    corners = bytes(min(255, max(200, channel + rng.randint(-12, 12))) for _ in range(4) for channel in base)
    return Image.frombytes("RGB", (2, 2), corners).resize((width, height), Image.Resampling.BILINEAR)


def _clutter(pen: ImageDraw.ImageDraw, size: tuple[int, int], rng: random.Random) -> None:
    """Grey scratches and crumbs, smaller and paler than anything that counts."""
    for _ in range(rng.randint(0, 5)):
        x, y = rng.uniform(0, size[0]), rng.uniform(0, size[1])
        shade = rng.randint(165, 200)
        reach = 0.06 * min(size)
        if rng.random() < 0.5:
            end = (x + rng.uniform(-reach, reach), y + rng.uniform(-reach, reach))
            pen.line([(x, y), end], fill=(shade,) * 3, width=2)
        else:
            radius = rng.uniform(0.2, 0.4) * reach
            pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=(shade,) * 3)


def _tool(pen: ImageDraw.ImageDraw, tool: str, size: tuple[int, int], middle: float, rng: random.Random) -> None:
    half = rng.uniform(0.36, 0.44) * size[0]
    x = size[0] * 0.5 + rng.uniform(-1, 1) * (0.47 * size[0] - half)
    side = rng.choice((-1, 1))
    scale = np.array([half * side, STRIP * size[1] * rng.uniform(0.38, 0.44)])
    for ink, points in TOOLS[tool]:
        _polygon(pen, points * scale + (x, middle * size[1]), INK[ink])


def _ingredients(
    pen: ImageDraw.ImageDraw, content: Content, size: tuple[int, int], band: tuple[float, float], rng: random.Random
) -> None:
    """Places the pieces in cells of a grid, one a cell, so that they never overlap and can be counted."""
    columns, rows = _grid(content.count, rng)
    cell = np.array([size[0] / columns, size[1] * (band[1] - band[0]) / rows])
    cells = rng.sample([(c, r) for c in range(columns) for r in range(rows)], content.count)
    radius = min(0.5 * min(cell) * rng.uniform(0.87, 0.97), 0.3 * min(size))
    for column, row in cells:
        free = np.maximum(cell / 2 - radius * 1.04, 0)
        middle = cell * (column + 0.5, row + 0.5) + (0, band[0] * size[1])
        middle = middle + free * (rng.uniform(-1, 1), rng.uniform(-1, 1))
        turn = rng.uniform(-0.22, 0.22)
        matrix = radius * 0.98 * np.array([[cos(turn), sin(turn)], [-sin(turn), cos(turn)]])
        for ink, points in INGREDIENTS[content.noun]:
            _polygon(pen, points @ matrix + middle, INK[content.colour if ink == "body" else ink])


def _grid(count: int, rng: random.Random) -> tuple[int, int]:
    """Columns and rows; often more cells than pieces, so that size alone does not give the count away."""
    if count == 1:
        return rng.choice(((1, 1), (2, 1), (2, 2)))
    if count == 2:
        return rng.choice(((2, 1), (2, 2)))
    return 2, 2


def _polygon(pen: ImageDraw.ImageDraw, points: Points, fill: Colour) -> None:
    edge = tuple(channel * 2 // 5 for channel in fill)
    pen.polygon(points.ravel().tolist(), fill=fill, outline=edge, width=2)


def _encode(picture: Image.Image, rng: random.Random) -> bytes:
    """PNG bytes with mild noise; packed lightly, for speed."""
    pixels = np.asarray(picture).astype(np.int16)
    noise = np.random.default_rng(rng.getrandbits(63)).integers(-5, 6, (*pixels.shape[:2], 1), np.int16)
    file = io.BytesIO()
    Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8)).save(file, "PNG", compress_level=1)
    return file.getvalue()
