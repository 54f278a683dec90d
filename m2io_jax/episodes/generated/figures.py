"""Drawn figures: an angle, a side, a perimeter or an area that follows from the numbers beside them.

Nothing in the question tells the numbers, so they have to be read from the picture.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from math import cos, isqrt, pi, radians, sin

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from m2io_jax.episodes.generated.problem import Problem, pick, png
from m2io_jax.episodes.settings import chosen, require

KINDS = ("angle", "side", "perimeter", "area")
HELD_OUT = ("figure", "drawing")
LEAST_ANGLE = 20  # degrees; sharper corners have no room for a label
BESIDE = 0.11  # of the picture's side: what labels around the figure need beside the height of their letters
SUPERSAMPLING = 2
INK, PAPER = (24, 28, 40), (244, 244, 246)


@dataclass(frozen=True)
class FigureConfig:
    """How hard the figures are.

    Attributes:
        kinds: what is asked for, with commas.
        step: angles are multiples of so many degrees.
        largest: side of a rectangle, and leg of a right triangle.
        side: of a picture, in pixels.
        letters: height of a label's letters, in hundredths of the picture's side; the figure gets what they leave.
        held_out: what splits do not share: a `figure`, or only a `drawing` of it. Where numbers are small, figures are
            few: a small model learns them by heart and reads others wrong.
    """

    kinds: str = ",".join(KINDS)
    step: int = 10
    largest: int = 12
    side: int = 112
    letters: int = 13
    held_out: str = "figure"

    def __post_init__(self) -> None:
        """Raises UserError for the first value that is out of its bounds."""
        chosen("kinds", self.kinds, KINDS)
        require(self.step in (1, 2, 5, 10, 20), "step", self.step, "1, 2, 5, 10 or 20")
        require(4 <= self.largest <= 99, "largest", self.largest, "4 to 99")
        require(56 <= self.side <= 1024, "side", self.side, "56 to 1024")
        require(8 <= self.letters <= 30, "letters", self.letters, "8 to 30")
        require(self.held_out in HELD_OUT, "held_out", self.held_out, " or ".join(HELD_OUT))

    def problem(self, random: np.random.Generator, split: str, seed: int) -> Problem:
        """A figure and a question. Figures that are the same but for their position are the same problem."""
        kind = pick(random, chosen("kinds", self.kinds, KINDS))
        return {"angle": self._angle, "side": self._side}.get(kind, self._rectangle)(random, kind)

    def _key(self, figure: str, random: np.random.Generator) -> str:
        return figure if self.held_out == "figure" else f"{figure}, drawing {random.integers(2**32)}"

    def _look(self) -> tuple[int, float]:
        return self.side, self.letters / 100

    def _angle(self, random: np.random.Generator, kind: str) -> Problem:
        """The third angle of a triangle."""
        a, b = pick(random, angle_pairs(self.step))
        x = 180 - a - b
        # the law of sines, with a side of 1 between the two given angles
        far = sin(radians(b)) / sin(radians(x))
        corners = np.array([(0, 0), (1, 0), (far * cos(radians(a)), far * sin(radians(a)))])
        return Problem(
            key=self._key(f"angles {min(a, b)} {max(a, b)}", random),
            question="What is the angle x?",
            answer=x,
            reasoning=f"{a}+{b}={a + b}\n180-{a + b}={x}",
            content=f"triangle angles {a} {b}",
            picture=partial(draw, _turned(corners, random), {0: str(a), 1: str(b), 2: "x"}, {}, *self._look()),
        )

    def _side(self, random: np.random.Generator, kind: str) -> Problem:
        """The hypotenuse or a leg of a right triangle whose sides are whole."""
        a, b, c = pick(random, right_triangles(self.largest))
        if random.random() < 0.5:
            a, b = b, a
        # thin triangles are drawn wider than they are: their labels need room
        height = float(np.clip(b / a, 0.6, 1.6))
        corners = _turned(np.array([(0, 0), (1, 0), (0, height)]), random)
        if random.random() < 0.5:
            sides, content, x = {0: str(a), 1: "x", 2: str(b)}, f"right triangle legs {a} {b}", c
            reasoning = f"{a}*{a}+{b}*{b}={c * c}\n{c}*{c}={c * c}"
        else:
            sides, content, x = {0: str(a), 1: str(c), 2: "x"}, f"right triangle leg {a} hypotenuse {c}", b
            reasoning = f"{c}*{c}-{a}*{a}={b * b}\n{b}*{b}={b * b}"
        return Problem(
            key=self._key(f"right triangle {min(a, b)} {max(a, b)} {c}", random),
            question="How long is the side x?",
            answer=x,
            reasoning=reasoning,
            content=content,
            picture=partial(draw, corners, {}, sides, *self._look()),
        )

    def _rectangle(self, random: np.random.Generator, kind: str) -> Problem:
        """The perimeter or the area of a rectangle."""
        a, b = (int(number) for number in random.integers(2, self.largest + 1, 2))
        if kind == "area":
            answer, reasoning = a * b, f"{a}*{b}={a * b}"
        else:
            answer, reasoning = 2 * (a + b), f"{a}+{b}={a + b}\n2*{a + b}={2 * (a + b)}"
        height = float(np.clip(b / a, 0.5, 2.0))
        corners = np.array([(0, 0), (1, 0), (1, height), (0, height)])
        return Problem(
            key=self._key(f"rectangle {min(a, b)} {max(a, b)}", random),
            question=f"What is the {kind} of the rectangle?",
            answer=answer,
            reasoning=reasoning,
            content=f"rectangle sides {a} {b}",
            picture=partial(draw, corners, {}, {0: str(a), 1: str(b)}, *self._look()),
        )


@cache
def angle_pairs(step: int) -> list[tuple[int, int]]:
    """Two angles of a triangle, in degrees, each a multiple of `step`; the third is not sharper than they may be."""
    angles = [angle for angle in range(LEAST_ANGLE, 180, step) if angle % step == 0]
    return [(a, b) for a in angles for b in angles if a + b <= 180 - LEAST_ANGLE]


@cache
def right_triangles(largest: int) -> list[tuple[int, int, int]]:
    """Sides (leg, longer leg, hypotenuse) of all right triangles with whole sides and legs up to `largest`."""
    legs = [(a, b) for b in range(1, largest + 1) for a in range(1, b)]
    return [(a, b, c) for a, b in legs if (c := isqrt(a * a + b * b)) ** 2 == a * a + b * b]


def draw(
    corners: np.ndarray,
    at_corners: Mapping[int, str],
    at_sides: Mapping[int, str],
    side: int,
    letters: float,
    random: np.random.Generator,
) -> bytes:
    """A PNG file of a polygon with labels outside of it.

    Args:
        corners: [corners, 2] in any unit; the figure is scaled to the picture.
        at_corners: labels by corner; at_sides: labels by the corner at which the side begins.
        side: of the picture, in pixels.
        letters: height of the labels' letters, as a share of the picture's side.
        random: moves the figure where it leaves room, and draws the noise.
    """
    whole = side * SUPERSAMPLING
    margin = letters + BESIDE
    room = whole * (1 - 2 * margin)
    low, extent = corners.min(0), np.ptp(corners, axis=0)
    scale = room / extent.max()
    points = (corners - low) * scale + whole * margin + random.uniform(0, 1, 2) * (room - extent * scale)
    canvas = Image.new("RGB", (whole, whole), PAPER)
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(whole * letters)
    pen.polygon([tuple(point) for point in points], outline=INK, width=round(whole / 56))
    middle, away = points.mean(0), whole * letters * 0.8
    for corner, text in at_corners.items():
        _write(pen, font, points[corner], points[corner] - middle, away, text)
    for first, text in at_sides.items():
        start, end = points[first], points[(first + 1) % len(points)]
        across = np.array([end[1] - start[1], start[0] - end[0]])
        outward = across * np.sign(across @ ((start + end) / 2 - middle))
        _write(pen, font, (start + end) / 2, outward, away, text)
    return png(canvas.reduce(SUPERSAMPLING), random)


def _write(pen: ImageDraw.ImageDraw, font, point: np.ndarray, direction: np.ndarray, away: float, text: str) -> None:
    unit = direction / np.linalg.norm(direction)
    # a longer label reaches further to the side
    x, y = point + unit * away * (1 + 0.12 * (len(text) - 1) * abs(unit[0]))
    pen.text((x, y), text, fill=INK, font=font, anchor="mm")


def _turned(corners: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Turned by any of four quarters and a little more, and mirrored or not: labels stay upright."""
    turn = pi / 2 * int(random.integers(4)) + random.uniform(-0.2, 0.2)
    matrix = np.array([[cos(turn), sin(turn)], [-sin(turn), cos(turn)]])
    return corners * (pick(random, (1, -1)), 1) @ matrix
