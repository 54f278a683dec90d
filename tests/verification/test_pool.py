"""Workers that hang, die, fail or babble; and that many threads get their own replies."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from m2io_jax.verification.pool import Pool, Unverified

WORKER = (sys.executable, str(Path(__file__).parent / "misbehaving_worker.py"))


@pytest.fixture
def pool():
    pool = Pool(WORKER, workers=2, seconds=1.0)
    yield pool
    pool.close()


def gone(process: int) -> bool:
    """Whether a process has ended, be it that nobody has asked for its status yet."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_nothing_starts_before_the_first_request_and_one_thread_keeps_one_worker(pool):
    assert not pool._started
    first = pool.ask({"do": "a"})
    assert [pool.ask({"do": "b"})["process"] for _ in range(5)] == [first["process"]] * 5
    assert first["echo"] == "a" and first["process"] != os.getpid()


def test_a_worker_that_hangs_is_killed_and_replaced(pool):
    before = pool.ask({"do": "a"})["process"]
    began = time.monotonic()
    with pytest.raises(Unverified) as raised:
        pool.ask({"do": "hang"})
    assert raised.value.kind == "timeout" and 1.0 <= time.monotonic() - began < 10
    assert gone(before)
    assert pool.ask({"do": "a"})["process"] != before


def test_a_worker_that_its_cpu_limit_ended_took_too_long(pool):
    with pytest.raises(Unverified) as raised:
        pool.ask({"do": "end", "signal": signal.SIGPROF})
    assert raised.value.kind == "timeout"
    with pytest.raises(Unverified) as raised:
        pool.ask({"do": "end", "signal": signal.SIGKILL})
    assert raised.value.kind == "error"


@pytest.mark.parametrize("death", ["die", "half"])
def test_a_worker_that_dies_is_replaced(pool, death):
    before = pool.ask({"do": "a"})["process"]
    with pytest.raises(Unverified) as raised:
        pool.ask({"do": death})
    assert raised.value.kind == "error"
    assert pool.ask({"do": "a"})["process"] != before


def test_a_worker_that_died_between_requests_costs_none(pool):
    before = pool.ask({"do": "last words"})["process"]
    for _ in range(100):
        if not any(worker.alive for worker in pool._started):
            break
        time.sleep(0.05)
    assert pool.ask({"do": "a"})["process"] != before


def test_a_failure_is_told_and_costs_no_worker(pool):
    before = pool.ask({"do": "a"})["process"]
    with pytest.raises(Unverified, match="ZeroDivisionError") as raised:
        pool.ask({"do": "fail"})
    assert raised.value.kind == "error"
    assert pool.ask({"do": "a"})["process"] == before


@pytest.mark.parametrize(("how", "kind"), [("stillborn", "error"), ("slow-start", "timeout")])
def test_a_worker_that_cannot_start(how, kind):
    pool = Pool((*WORKER, how), workers=1, start_seconds=0.5)
    for _ in range(2):  # the place is free again
        with pytest.raises(Unverified) as raised:
            pool.ask({"do": "a"})
        assert raised.value.kind == kind
    assert not pool._started


def test_many_threads_get_each_its_own_reply_while_some_workers_hang(pool):
    def ask(number: int) -> str:
        try:
            return pool.ask({"do": "hang" if number % 20 == 0 else str(number)})["echo"]
        except Unverified as error:
            return error.kind

    with ThreadPoolExecutor(8) as threads:
        replies = list(threads.map(ask, range(60)))
    assert replies == ["timeout" if number % 20 == 0 else str(number) for number in range(60)]
    assert len(pool._started) <= 2


def test_requests_run_side_by_side():
    pool = Pool(WORKER, workers=4, seconds=20.0)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: pool.ask({"do": "warm", "seconds": 0.5}), range(4)))
        began = time.monotonic()
        processes = {reply["process"] for reply in threads.map(lambda _: pool.ask({"do": "a", "seconds": 0.5}), "abcd")}
        took = time.monotonic() - began
    pool.close()
    assert len(processes) == 4 and took < 1.5  # one after another: 2 seconds


def test_any_thread_may_ask(pool):
    heard = []
    thread = threading.Thread(target=lambda: heard.append(pool.ask({"do": "a"})["echo"]))
    thread.start()
    thread.join()
    assert heard == ["a"]


def test_closing_kills_and_a_later_request_starts_anew(pool):
    before = pool.ask({"do": "a"})["process"]
    pool.close()
    assert gone(before)
    assert pool.ask({"do": "a"})["process"] != before


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked for in /proc")
def test_a_verifier_outlives_who_asked_by_its_cpu_seconds_at_most():
    program = (
        "import os, signal, threading\n"
        "from m2io_jax.verification.pool import Pool\n"
        "pool = Pool(cpu_seconds=1)\n"
        "pool.ask({'gold': '1', 'said': '1'})\n"
        "print([worker._process.pid for worker in pool._started][0], flush=True)\n"
        "threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()\n"
        "pool.ask({'gold': '2', 'said': '9^{9^{9^{9}}}'})\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == -9, ended.stderr
    for _ in range(600):
        if gone(int(ended.stdout)):
            break
        time.sleep(0.1)
    assert gone(int(ended.stdout))
