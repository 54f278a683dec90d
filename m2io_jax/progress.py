"""Progress of a long piece of work: a bar on a terminal, a plain line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Mapping
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as RichProgress


class Progress:
    """Shows how far work is that ends after `steps` steps or `seconds` seconds, whichever comes first.

    It writes to standard error, so that standard output stays free for results.

    Args:
        title: what is being done.
        steps, seconds: the end of the work, as the run's configuration gives it; without either no end is shown.
        shown: metrics to show, by name, each with the label it is shown under.
        done_steps, done_seconds: what a resumed run had behind it.
        plain_seconds: seconds between two lines where there is no terminal.
        quiet: show nothing, as all but the first of several processes do.
        console: where to write; standard error by default.
        clock: seconds from any fixed moment.
    """

    def __init__(
        self,
        title: str,
        *,
        steps: int | None = None,
        seconds: float | None = None,
        shown: Mapping[str, str] | None = None,
        done_steps: int = 0,
        done_seconds: float = 0.0,
        plain_seconds: float = 10.0,
        quiet: bool = False,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.title, self.steps, self.seconds, self.shown = title, steps, seconds, dict(shown or {})
        self._done_steps, self._done_seconds, self._plain_seconds = done_steps, done_seconds, plain_seconds
        # In a notebook, too, progress is no part of a cell's result; and FORCE_COLOR, which notebooks and CI set,
        # makes no terminal of a log.
        is_terminal = sys.stderr.isatty()
        self._console = console or Console(stderr=True, quiet=quiet, force_jupyter=False, force_terminal=is_terminal)
        self._clock = clock
        self._begun = clock()
        self._printed: float | None = None
        self._unprinted: str | None = None
        self._bar: RichProgress | None = None

    def __enter__(self) -> Self:
        self._begun = self._clock()
        if self._console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[line]}"))
            self._bar = RichProgress(*columns, console=self._console)
            total = 1.0 if self.steps or self.seconds else None
            self._task = self._bar.add_task(escape(self.title), total=total, line="")
            self._bar.start()
        return self

    def update(self, step: int, metrics: Mapping[str, float] | None = None) -> None:
        """Tells that `step` steps are done, with what was measured in the last one."""
        now = self._clock()
        elapsed = now - self._begun
        line = self._line(step, elapsed, metrics or {})
        if self._bar is not None:
            share = fraction_done(step, self.steps, elapsed + self._done_seconds, self.seconds)
            self._bar.update(self._task, completed=share, line=escape(line))
        elif self._printed is None or now - self._printed >= self._plain_seconds:
            self._print(line)
            self._printed = now
        else:
            self._unprinted = line

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self._unprinted is not None:
            self._print(self._unprinted)

    def _print(self, line: str) -> None:
        self._console.print(f"{self.title}: {line}", markup=False, highlight=False, soft_wrap=True)
        self._unprinted = None

    def _line(self, step: int, elapsed: float, metrics: Mapping[str, float]) -> str:
        parts = [f"step {step}" if self.steps is None else f"step {step}/{self.steps}"]
        rate = (step - self._done_steps) / elapsed if elapsed > 0 else 0.0
        left = seconds_left(step, self.steps, elapsed + self._done_seconds, self.seconds, rate)
        if left is not None:
            parts.append(f"{_clock_time(left)} left")
        parts += [f"{label} {metrics[name]:.4g}" for name, label in self.shown.items() if name in metrics]
        return ", ".join(parts)


def fraction_done(step: int, steps: int | None, elapsed: float, seconds: float | None) -> float:
    """The share of the work that is done, from 0 to 1, by the end that is nearer."""
    by_steps = step / steps if steps else 0.0
    by_time = elapsed / seconds if seconds else 0.0
    return min(1.0, max(by_steps, by_time))


def seconds_left(
    step: int, steps: int | None, elapsed: float, seconds: float | None, steps_per_second: float
) -> float | None:
    """Seconds to the nearer end, at the present rate; None where that cannot be told."""
    ends = []
    if steps is not None and steps_per_second > 0:
        ends.append((steps - step) / steps_per_second)
    if seconds is not None:
        ends.append(seconds - elapsed)
    return max(0.0, min(ends)) if ends else None


def _clock_time(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
