"""Learning curves as PNG: what a run's metrics did, step by step, raw and smoothed."""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from m2io_jax.errors import UserError
from m2io_jax.training.metrics import read_metrics

# Title of a panel, and the names under which runs log it (TRL's first); the first that is there is drawn.
PANELS = (
    ("Reward", ("reward",)),
    ("Reward, deviation within a group", ("reward_std",)),
    ("Validity (format reward)", ("rewards/format/mean", "rewards/format", "validity", "format")),
    ("Completion length (tokens)", ("completions/mean_length", "completion_length")),
    ("KL to the reference", ("kl",)),
    ("Entropy", ("entropy",)),
    ("Loss", ("loss",)),
)
COLUMNS = 3
SMOOTHED_SHARE = 0.06  # of the course: the window of the running mean


@dataclass(frozen=True)
class Theme:
    """Colours of a drawing."""

    ground: str
    ink: str
    grid: str
    raw: str
    smooth: str


LIGHT = Theme(ground="#ffffff", ink="#1f2328", grid="#e4e1db", raw="#a9c9e6", smooth="#0b66b0")
DARK = Theme(ground="#1c2024", ink="#c9d1d9", grid="#343a41", raw="#34526e", smooth="#6cb6ff")


@dataclass(frozen=True)
class Curve:
    """One metric's course: its title, and its value at each step where it was logged."""

    title: str
    steps: Float[np.ndarray, " points"]
    values: Float[np.ndarray, " points"]


def read_curves(rows: Sequence[Mapping[str, Any]]) -> list[Curve]:
    """The curves of `PANELS` that `rows` (of `read_metrics`) have. Rows may lack a series or hold null for it."""
    return [Curve(title, *found) for title, names in PANELS if (found := _series(rows, names))]


def draw_curves(curves: Sequence[Curve], theme: Theme = LIGHT) -> bytes:
    """A PNG with a panel for each curve.

    Raises:
        ValueError: there are no curves.
    """
    if not curves:
        raise ValueError("there are no curves to draw")
    columns = min(COLUMNS, len(curves))
    lines = math.ceil(len(curves) / columns)
    figure = Figure(figsize=(3.6 * columns, 2.3 * lines), dpi=110, facecolor=theme.ground, layout="constrained")
    FigureCanvasAgg(figure)
    for place, curve in enumerate(curves, 1):
        _draw(figure.add_subplot(lines, columns, place), curve, theme)
    written = io.BytesIO()
    figure.savefig(written, format="png", metadata={"Software": None})
    return written.getvalue()


def write_curves(path: str | Path, run_dir: str | Path) -> Path | None:
    """Draws the metrics of the run in `run_dir` to `path`; None, and no file, where it has logged none.

    Raises:
        UserError: `path` cannot be written, or the metrics are damaged.
    """
    curves, path = read_curves(read_metrics(run_dir)), Path(path)
    if not curves:
        return None
    drawn = draw_curves(curves)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(drawn)
    except OSError as error:
        mend = "Name a file that you may write."
        raise UserError(f"The curves cannot be written: {error.strerror}.", where=str(path), mend=mend) from error
    return path


def smoothed(values: Float[np.ndarray, " points"], window: int) -> Float[np.ndarray, " points"]:
    """Mean over `window` neighbours (an odd number), at the ends over those that there are."""
    place, total = np.arange(len(values)), np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    first = np.maximum(place - window // 2, 0)
    last = np.minimum(place + window // 2 + 1, len(values))
    return (total[last] - total[first]) / (last - first)


def _series(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> tuple[np.ndarray, np.ndarray] | None:
    for name in names:
        points = [(row["step"], row[name]) for row in rows if isinstance(row.get(name), int | float)]
        points = [(step, value) for step, value in points if math.isfinite(value)]
        if points:
            steps, values = np.array(points, np.float64).T
            return steps, values
    return None


def _draw(axes: Axes, curve: Curve, theme: Theme) -> None:
    mark = "o" if len(curve.values) == 1 else None
    axes.plot(curve.steps, curve.values, color=theme.raw, linewidth=0.9, marker=mark)
    window = max(int(SMOOTHED_SHARE * len(curve.values)) | 1, 3)
    axes.plot(curve.steps, smoothed(curve.values, window), color=theme.smooth, linewidth=1.8)
    axes.set_title(curve.title, fontsize=9, color=theme.ink, loc="left")
    axes.set_facecolor(theme.ground)
    axes.grid(True, color=theme.grid, linewidth=0.6)
    axes.tick_params(colors=theme.ink, labelsize=7, length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
