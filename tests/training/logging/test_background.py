"""A sink in a thread of its own: in order, with its errors told, and never waited for longer than allowed."""

import queue
import threading

import pytest

from m2io_jax.training.logging import background
from m2io_jax.training.logging.background import Background
from m2io_jax.training.logging.sink import Sink


class Slow(Sink):
    """Notes what it is told once it may; fails at the steps named."""

    def __init__(self, *wrong: int):
        self.told, self.may, self.wrong = [], threading.Event(), wrong

    def write(self, step, metrics):
        assert self.may.wait(10)
        if step in self.wrong:
            raise ConnectionError(f"step {step}")
        self.told.append(step)

    def show(self, samples):
        self.told.append(samples)

    def truncate_after(self, step):
        self.told.append(-step)

    def close(self, finished):
        self.told.append(finished)


def test_nothing_waits_and_everything_arrives_in_order():
    sink = Slow()
    behind = Background(sink)
    behind.truncate_after(3)
    for step in range(1, 50):
        behind.write(step, {})
    behind.show("samples")
    assert [told for told in sink.told if told > 0] == []  # no write has been let through
    sink.may.set()
    behind.close(True)
    assert sink.told == [-3, *range(1, 50), "samples", True]


def test_what_the_sink_raises_is_raised_by_a_later_call_and_only_once():
    sink = Slow(2)
    behind = Background(sink)
    sink.may.set()
    behind.write(1, {})
    behind.write(2, {})
    with pytest.raises(ConnectionError, match="step 2"):
        behind.close(False)
    assert sink.told == [1, False]


def test_more_than_may_wait_is_lost_and_told(monkeypatch):
    monkeypatch.setattr(background, "WAITING", 2)
    sink = Slow()
    behind = Background(sink)
    with pytest.raises(queue.Full):
        for step in range(1, 5):  # one is being worked on, at most
            behind.write(step, {})
    sink.may.set()
    behind.close(True)
    assert sink.told[:2] == [1, 2] and sink.told[-1] is True


def test_closing_waits_no_longer_than_allowed():
    sink = Slow()
    behind = Background(sink, patience=0.05)
    behind.write(1, {})
    with pytest.raises(TimeoutError, match="0.05 s"):
        behind.close(True)
    sink.may.set()
