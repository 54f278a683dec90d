"""Progress: what a reader without a terminal sees, and the arithmetic of the time left."""

import io

from rich.console import Console

from m2io_jax.progress import Progress, fraction_done, seconds_left


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def run(updates, terminal=False, **options):
    out, clock = io.StringIO(), Clock()
    console = Console(file=out, force_terminal=terminal, width=120)
    with Progress("grpo", console=console, clock=clock, **options) as progress:
        for step in updates:
            clock.now += 4
            progress.update(step, {"reward": 0.25, "hidden": 1.0})
    return out.getvalue()


def test_plain_lines_now_and_then_and_the_last_one():
    said = run(range(1, 6), steps=5, shown={"reward": "reward"}, plain_seconds=8)
    assert said.splitlines() == [
        "grpo: step 1/5, 0:16 left, reward 0.25",
        "grpo: step 3/5, 0:08 left, reward 0.25",
        "grpo: step 5/5, 0:00 left, reward 0.25",
    ]


def test_a_resumed_run_counts_its_own_rate():
    said = run([101], steps=200, done_steps=100, done_seconds=4000)
    assert said == "grpo: step 101/200, 6:36 left\n"


def test_bar_on_a_terminal():
    said = run([1, 2], terminal=True, seconds=100, shown={"reward": "reward"})
    assert "step 2, 1:32 left, reward 0.25" in said and "hidden" not in said


def test_colours_that_are_forced_make_no_terminal(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with Progress("grpo", steps=2) as progress:
        progress.update(1)
    assert capsys.readouterr().err.splitlines()[0].startswith("grpo: step 1/2")


def test_the_nearer_end_counts():
    assert seconds_left(10, 30, 50.0, 60.0, steps_per_second=0.5) == 10.0
    assert seconds_left(10, 30, 50.0, 600.0, steps_per_second=0.5) == 40.0
    assert seconds_left(10, None, 50.0, None, steps_per_second=0.5) is None
    assert seconds_left(0, 30, 0.0, None, steps_per_second=0.0) is None
    assert fraction_done(10, 40, 30.0, 60.0) == 0.5
    assert fraction_done(50, 40, 0.0, None) == 1.0


def test_a_quiet_one_shows_nothing(capsys):
    for quiet in (False, True):
        with Progress("work", steps=2, quiet=quiet) as progress:
            progress.update(1)
        assert ("work: step 1/2" in capsys.readouterr().err) is not quiet
