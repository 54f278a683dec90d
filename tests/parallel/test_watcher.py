"""Watchers of three processes, which here are no more than the pipes by which they are held open."""

import signal
import socket
import subprocess
import sys
import time

import pytest

from m2io_jax.parallel import watcher


class Watched:
    """Three watchers as `parallel/hosts.py` starts them."""

    def __init__(self):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = str(listener.getsockname()[1])
            self.all = [self._start("0", str(listener.fileno()), files=[listener.fileno()])]
        self.all += [self._start(index, "127.0.0.1", port) for index in ("1", "2")]

    def _start(self, *words: str, files=()) -> subprocess.Popen:
        command = [sys.executable, "-IS", watcher.__file__, *words]
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        started = subprocess.Popen(command, text=True, pass_fds=files, **pipes)
        assert started.stdout.readline() == "watching\n"
        return started

    def part(self, index: int) -> None:
        self.all[index].stdin.write("parted")
        self.all[index].stdin.close()

    def end(self, index: int) -> None:
        self.all[index].stdin.close()

    def said(self) -> list[str]:
        """What each said, when all have ended."""
        for each in self.all:
            assert each.wait(20) in (0, -signal.SIGKILL)
            assert each.stdout.read() == ""
        return [each.stderr.read() for each in self.all]


@pytest.fixture
def watched():
    watched = Watched()
    yield watched
    for each in watched.all:
        each.kill()


def ended_by(lost: int) -> list[str]:
    told = [f"error: process {lost} was lost, so process {index} ended too\n" for index in range(3)]
    told[lost] = f"error: process {lost} was lost: it ended without a word, as when it is killed\n"
    return told


def test_who_part_say_nothing_of_each_other(watched):
    for index in (1, 0, 2):
        watched.part(index)
        time.sleep(0.1)
    assert watched.said() == ["", "", ""]


# JAX ends the others at once after process 0, and by its heartbeats after another.
@pytest.mark.parametrize(
    ("order", "wait", "lost"), [((0, 1, 2), 0, 0), ((1, 2, 0), 0, 0), ((2, 1, 0), 1.5, 2), ((1, 0, 2), 1.5, 1)]
)
def test_all_say_who_was_lost_first(watched, order, wait, lost):
    for index in order:
        watched.end(index)
        time.sleep(wait)
    assert watched.said() == ended_by(lost)


def test_a_lost_machine_takes_the_first_watcher_along(watched):
    watched.all[0].kill()
    watched.end(1)
    watched.end(2)
    assert watched.said()[1:] == ended_by(0)[1:]


def test_what_parted_or_is_ended_by_another_that_parted_says_nothing_of_a_loss(watched):
    watched.part(0)  # it fails, and has told the others why
    time.sleep(0.2)
    watched.end(1)
    watched.part(2)
    assert watched.said() == ["", "", ""]


def test_one_that_is_lost_is_named_to_those_that_end_later(watched):
    watched.end(2)
    time.sleep(1.5)
    watched.part(0)
    watched.end(1)
    assert watched.said() == ["", ended_by(2)[1], ended_by(2)[2]]


def test_a_first_watcher_that_cannot_be_reached_is_told_at_once():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
    command = [sys.executable, "-IS", watcher.__file__, "1", "127.0.0.1", port]
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20)
    assert ended.returncode == 0 and f"127.0.0.1:{port}" in ended.stderr and "Traceback" not in ended.stderr
