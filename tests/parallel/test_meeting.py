import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from processes import ROOT, free_port

from m2io_jax.errors import UserError
from m2io_jax.parallel import hosts, meeting
from m2io_jax.parallel.hosts import Place, together
from m2io_jax.parallel.meeting import attend, receive

PROGRAM = Path(__file__).with_name("meets.py")


@pytest.fixture
def address():
    return f"127.0.0.1:{free_port()}"


def greeted(address, words, *, wait=True):
    """A connection that has said `words`; `wait`: until somebody listens there."""
    host, port = address.split(":")
    while True:
        try:
            connection = socket.create_connection((host, int(port)), timeout=10)
            connection.sendall(words)
            return connection
        except ConnectionRefusedError:
            if not wait:
                raise
            time.sleep(0.02)


@contextmanager
def coming(*calls):
    """Each call (a function and its arguments) in a thread; yields their futures."""
    with ThreadPoolExecutor(len(calls)) as threads:
        yield [threads.submit(*call) for call in calls]


def what(future) -> str:
    error = future.exception(timeout=30)
    assert isinstance(error, UserError), error
    return error.what


@pytest.mark.parametrize("count", [2, 3, 20])
def test_all_who_come_in_time_are_let_go_and_the_port_is_free(address, count):
    others = [(attend, address, count, index, 20) for index in range(1, count)]
    with coming((receive, address, count, 20), *others) as futures:
        assert [future.result(30) for future in futures] == [None] * count
    with socket.create_server(("127.0.0.1", int(address.split(":")[1]))):
        pass


@pytest.mark.parametrize(
    ("count", "present", "said"),
    [
        (2, [], "Only 1 of 2 processes came within 1 s; missing: 1"),
        (3, [2], "Only 2 of 3 processes came within 1 s; missing: 1"),
        (9, [2, 3, 7], "Only 4 of 9 processes came within 1 s; missing: 1, 4-6, 8"),
        (1000, [], "Only 1 of 1000 processes came within 1 s; missing: 1-999"),
    ],
)
def test_who_is_missing_is_told_to_all_who_came(address, count, present, said):
    others = [(attend, address, count, index, 20) for index in present]
    with coming((receive, address, count, 1), *others) as futures:
        for future in futures:
            assert what(future) == said
            assert address in str(future.exception()) and "JAX_NUM_PROCESSES" in str(future.exception())


def test_one_that_comes_late_is_waited_for(address):
    def late():
        time.sleep(1)
        return attend(address, 3, 2, 10)

    with coming((receive, address, 3, 10), (attend, address, 3, 1, 10), (late,)) as futures:
        assert [future.result(30) for future in futures] == [None] * 3


def test_process_0_may_come_last(address):
    def late():
        time.sleep(1)
        return receive(address, 2, 10)

    with coming((late,), (attend, address, 2, 1, 10)) as futures:
        assert [future.result(30) for future in futures] == [None] * 2


def test_one_that_comes_too_late_is_told_that_nobody_is_there(address):
    with coming((receive, address, 2, 0.5)) as futures:
        assert "missing: 1" in what(futures[0])
    with pytest.raises(UserError, match="process 1 of 2 waited 1 s"):
        attend(address, 2, 1, 1)


def test_another_count_is_told_to_both(address):
    with coming((receive, address, 2, 2), (attend, address, 3, 1, 10)) as (first, other):
        reason = f"rocess 1 on {socket.gethostname()} was started as one of 3, process 0 as one of 2"
        assert what(other) == f"P{reason}."
        assert what(first) == f"Only 1 of 2 processes came within 2 s; missing: 1; p{reason}"


def test_a_number_that_comes_twice_is_told_and_the_first_stays(address):
    first = greeted_later = None

    def second():
        nonlocal greeted_later
        greeted_later = greeted(address, b"m2io-meeting 1 3 spare\n")
        return greeted_later.recv(500)

    with coming((receive, address, 3, 2)) as (waiting,):
        first = greeted(address, b"m2io-meeting 1 3 main\n")
        time.sleep(0.2)
        reason = "wo processes were started as number 1, on main and on spare"
        assert second() == f"no T{reason}.\n".encode()
        assert what(waiting) == f"Only 2 of 3 processes came within 2 s; missing: 2; t{reason}"
        assert b"missing: 2" in first.recv(500)
    first.close(), greeted_later.close()


def test_one_that_ends_while_it_waits_is_missing_and_may_come_again(address):
    with coming((receive, address, 3, 3)) as (waiting,):
        greeted(address, b"m2io-meeting 1 3 a\n").close()
        greeted(address, b"m2io-meeting 2 3 b\n").close()
        with greeted(address, b"m2io-meeting 2 3 b\n") as again:
            assert what(waiting) == "Only 2 of 3 processes came within 3 s; missing: 1"
            assert b"missing: 1" in again.recv(500)


def test_when_process_0_ends_the_others_wait_for_another(address):
    host, port = address.split(":")
    with coming((attend, address, 2, 1, 20)) as (other,):
        with socket.create_server((host, int(port))) as listener:
            listener.accept()[0].close()  # killed, or no process of ours
        receive(address, 2, 20)
        assert other.result(30) is None


@pytest.mark.parametrize(
    "words",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x12\x04",
        b"\xff" * 5000,
        b"m2io-meeting 1\n",
        b"m2io-meeting one 2 a\n",
        b"m2io-meeting -1 2 a\n",
        "m2io-meeting ² 2 a\n".encode(),
        b"m2io-meeting " + b"9" * 1500 + b" 2 a\n",
        b"m2io-meeting 0 2 a\n",
        b"m2io-meeting 2 2 a\n",
    ],
)
def test_strangers_do_not_disturb(address, words):
    with coming((receive, address, 2, 10)) as (waiting,):
        strangers = [greeted(address, words) for _ in range(3)]
        assert attend(address, 2, 1, 10) is None and waiting.result(10) is None
    for stranger in strangers:
        stranger.close()


def test_a_crowd_that_says_nothing_is_bounded_and_makes_room_when_it_goes(address, monkeypatch):
    monkeypatch.setattr(meeting, "STRANGERS", 5)
    with coming((receive, address, 2, 10)) as (waiting,):
        crowd = [greeted(address, b"") for _ in range(9)]
        for stranger in crowd:
            stranger.settimeout(5)
        assert [stranger.recv(1) for stranger in crowd[5:]] == [b""] * 4
        for stranger in crowd:
            stranger.close()
        assert attend(address, 2, 1, 10) is None and waiting.result(10) is None


def test_a_port_that_is_taken_is_named(address, monkeypatch):
    monkeypatch.setattr(meeting, "PORT_S", 0.3)
    port = int(address.split(":")[1])
    with socket.create_server(("", port)):
        with pytest.raises(UserError, match=f"Port {port} cannot be listened on: Address already in use") as caught:
            receive(address, 2, 10)
    assert "another port" in str(caught.value)


def test_a_port_that_is_freed_soon_is_waited_for(address):
    held = socket.create_server(("", int(address.split(":")[1])))
    threading.Timer(1, held.close).start()
    with coming((receive, address, 2, 10)) as (waiting,):
        time.sleep(1.2)
        assert attend(address, 2, 1, 10) is None and waiting.result(10) is None


@pytest.mark.parametrize("found", [("127.0.0.1:{port}", 3, 0, [0]), ("127.0.0.1:{port}", 3, 0, None)])
def test_what_a_cluster_says_is_met_by_too(address, found, monkeypatch):
    found = (address, *found[1:])
    monkeypatch.setattr(hosts.ClusterEnv, "auto_detect_unset_distributed_params", lambda *_: found)
    with pytest.raises(UserError, match="Only 1 of 3 processes came within 1 s; missing: 1-2"):
        with together(Place(), connect_s=1):
            pass


def started(address, count, index, seconds):
    place = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(count), "JAX_PROCESS_ID": str(index)}
    env = os.environ | place | {"PYTHONPATH": str(ROOT)}
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return subprocess.Popen([sys.executable, PROGRAM, str(seconds)], env=env, **pipes)


def test_process_0_ends_with_an_error_and_no_abort(address):
    process = started(address, 2, 0, 2)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1 and out == ""
    assert err.startswith("error: Only 1 of 2 processes came within 2 s; missing: 1\n") and "Check failure" not in err


def test_of_three_processes_two_come_and_name_the_third(address):
    processes = [started(address, 3, index, 15) for index in (0, 2)]
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 1 and out == "" and "Check failure" not in err
        assert err.startswith("error: Only 2 of 3 processes came within 15 s; missing: 1\n")


def test_one_that_is_killed_while_it_waits_may_be_started_again(address):
    first, lost = started(address, 2, 0, 90), subprocess.Popen(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
         f"from m2io_jax.parallel.meeting import attend\nattend({address!r}, 3, 1, 90)"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert "was started as one of 3, process 0 as one of 2" in lost.communicate(timeout=120)[1]
    greeted(address, b"m2io-meeting 1 2 x\n").close()  # it came and was killed
    again = started(address, 2, 1, 90)
    for index, process in enumerate((first, again)):
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0 and out == f"met as {index} of 2\n", err
