"""Meet the other processes before JAX connects them.

JAX aborts a process from C++ (SIGABRT), without a word that helps, where the others do not come in time. So all meet
first, at the coordinator's address: process 0 listens there, and each of the others tells it who it is. When all have
come, process 0 frees the port, which JAX's service then takes, and lets them go; else it says who is missing.

    another to process 0    m2io-meeting INDEX COUNT HOST
    process 0 to another    go
                            no REASON

A process that ends while it waits is missing again, and may come once more.
"""

import os
import selectors
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise

from m2io_jax.errors import UserError
from m2io_jax.parallel.watcher import miss_when_silent

GREETING, GO, NO = "m2io-meeting", "go", "no "
LONGEST = 2000  # bytes of a line; what says more is no process of ours
STRANGERS = 100  # connections that have not said who they are, such as those of a port scan
PORT_S = 15  # how long a port may be held by what ran there before
RETRY_S = 0.2
SETTLE_S = 0.3  # how long all must have been there: the last to come may have been killed just then
PATIENCE_S = 10  # how much longer than process 0 the others wait for its word


@dataclass(eq=False)
class _Guest:
    """A connection to process 0; `index` is None until it has said who it is."""

    connection: socket.socket
    said: bytes = b""
    index: int | None = None
    host: str = ""


def receive(address: str, count: int, seconds: float) -> None:
    """Wait, as process 0 of `count`, until all others have come; then let them go. The port is free when they do.

    Args:
        address: HOST:PORT that the others connect to.

    Raises:
        UserError: some have not come within `seconds`, or the port cannot be listened on.
    """
    end = time.monotonic() + seconds
    with ExitStack() as guests:
        with _listening(address) as listener, selectors.DefaultSelector() as ready:
            meeting = _Meeting(count, listener, ready, guests)
            while not meeting.is_whole():
                if meeting.missing() and time.monotonic() > end:
                    what = meeting.complaint(seconds)
                    meeting.tell_all(NO + what)
                    raise UserError(what, where=address, mend=_mend(seconds))
                meeting.hear(SETTLE_S)
        meeting.tell_all(GO)


def attend(address: str, count: int, index: int, seconds: float) -> None:
    """Wait, as another process than 0, until process 0 says that all have come.

    Raises:
        UserError: process 0 is not reached within `seconds`; or some do not come; or this process is not expected.
    """
    end = time.monotonic() + seconds
    greeting = f"{GREETING} {index} {count} {socket.gethostname()}\n".encode()
    while time.monotonic() < end:
        word = _ask(address, greeting, seconds + PATIENCE_S)
        if word == GO:
            return
        if word.startswith(NO):
            raise UserError(word.removeprefix(NO), where=address, mend=_mend(seconds))
        time.sleep(RETRY_S)  # nobody is there yet, or it ended
    what = f"The coordinator does not answer: process {index} of {count} waited {seconds:g} s."
    mend = "start process 0 there, and let the port be reached; or set JAX_COORDINATOR_ADDRESS to where it runs"
    raise UserError(what, where=address, mend=mend)


class _Meeting:
    """Who has come so far, as process 0 knows it."""

    def __init__(self, count: int, listener: socket.socket, ready: selectors.BaseSelector, guests: ExitStack):
        self.count, self._ready, self._guests, self._strangers = count, ready, guests, 0
        self._came: dict[int, _Guest] = {}
        self._refused: dict[str, None] = {}  # why, each once
        self._changed = time.monotonic()  # when somebody last came or left
        listener.setblocking(False)
        ready.register(listener, selectors.EVENT_READ)

    def missing(self) -> list[int]:
        """Return the numbers of those who are not there."""
        return [index for index in range(1, self.count) if index not in self._came]

    def is_whole(self) -> bool:
        """Say whether all are there, and have been for a moment."""
        return not self.missing() and time.monotonic() - self._changed > SETTLE_S

    def complaint(self, seconds: float) -> str:
        """Say who is missing, and who came but was refused."""
        missing = self.missing()
        some = f"{self.count - len(missing)} of {self.count} processes came within {seconds:g} s"
        return "; ".join([f"Only {some}; missing: {_ranges(missing)}", *self._refused])

    def hear(self, seconds: float) -> None:
        """Wait until somebody comes, says who it is, or leaves; `seconds` at most."""
        for key, _ in self._ready.select(seconds):
            if key.data is None:
                self._welcome(key.fileobj)
            else:
                self._listen(key.data)

    def tell_all(self, word: str) -> None:
        """Tell those who came."""
        for guest in self._came.values():
            _tell(guest, word)

    def _welcome(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except OSError:  # it has gone already
            return
        self._guests.enter_context(connection)
        if self._strangers >= STRANGERS:
            connection.close()
            return
        self._strangers += 1
        connection.setblocking(False)
        miss_when_silent(connection)
        self._ready.register(connection, selectors.EVENT_READ, _Guest(connection))

    def _listen(self, guest: _Guest) -> None:
        try:
            heard = guest.connection.recv(LONGEST)
        except BlockingIOError:
            return
        except OSError:
            heard = b""
        guest.said += heard
        if not heard or len(guest.said) > LONGEST:
            self._part(guest)
        elif guest.index is None and b"\n" in guest.said:
            self._admit(guest)

    def _part(self, guest: _Guest) -> None:
        """Forget a connection: its process ended, or it is none of ours."""
        self._ready.unregister(guest.connection)
        guest.connection.close()
        if guest.index is None:
            self._strangers -= 1
        elif self._came.get(guest.index) is guest:
            del self._came[guest.index]
            self._changed = time.monotonic()

    def _admit(self, guest: _Guest) -> None:
        words = guest.said.decode(errors="replace").split()
        if len(words) != 4 or words[0] != GREETING or not (words[1].isdecimal() and words[2].isdecimal()):
            self._part(guest)
            return
        index, count, guest.host = int(words[1]), int(words[2]), words[3]
        first = self._came.get(index)
        if count != self.count:
            started = f"process {index} on {guest.host} was started as one of {count}"
            self._refuse(guest, f"{started}, process 0 as one of {self.count}")
        elif not 0 < index < count:
            self._refuse(guest, f"process 0 was reached by a process {index} on {guest.host}")
        elif first is not None:
            self._refuse(guest, f"two processes were started as number {index}, on {first.host} and on {guest.host}")
        else:
            self._strangers -= 1
            guest.index = index
            self._came[index], self._changed = guest, time.monotonic()

    def _refuse(self, guest: _Guest, reason: str) -> None:
        if len(self._refused) < 10:
            self._refused[reason] = None
        _tell(guest, NO + reason[0].upper() + reason[1:] + ".")
        self._part(guest)


@contextmanager
def _listening(address: str) -> Iterator[socket.socket]:
    """Listen where JAX's service will. Raises UserError: the port is held by another program."""
    bound = os.environ.get("JAX_COORDINATOR_BIND_ADDRESS") or address
    port, both = int(bound.rpartition(":")[2]), socket.has_dualstack_ipv6()
    family, end = socket.AF_INET6 if both else socket.AF_INET, time.monotonic() + PORT_S
    while True:
        try:
            listener = socket.create_server(("", port), family=family, dualstack_ipv6=both, backlog=1024)
            break
        except (OSError, OverflowError) as error:
            if not isinstance(error, OSError) or time.monotonic() > end:
                reason = getattr(error, "strerror", None) or str(error)
                mend = "end the program that holds it, or give all processes another port in JAX_COORDINATOR_ADDRESS"
                raise UserError(f"Port {port} cannot be listened on: {reason}.", where=address, mend=mend) from error
            time.sleep(RETRY_S)
    with listener:
        yield listener


def _ask(address: str, greeting: bytes, seconds: float) -> str:
    """Greet process 0 and return its word; "" where there is none."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=5) as connection:
            connection.sendall(greeting)
            miss_when_silent(connection)
            connection.settimeout(seconds)
            with connection.makefile(encoding="utf-8", errors="replace") as words:
                return words.readline(LONGEST).strip()
    except (OSError, OverflowError):
        return ""


def _tell(guest: _Guest, word: str) -> None:
    try:
        guest.connection.sendall(f"{' '.join(word.split())}\n".encode()[:LONGEST])
    except OSError:
        pass  # it has gone


def _ranges(numbers: Iterable[int]) -> str:
    """Write [1, 3, 4, 5] as "1, 3-5"."""
    numbers = list(numbers)
    breaks = [i + 1 for i, (one, other) in enumerate(pairwise(numbers)) if other != one + 1]
    runs = [numbers[start:stop] for start, stop in pairwise([0, *breaks, len(numbers)])]
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs if run)


def _mend(seconds: float) -> str:
    return (
        f"start all within {seconds:g} s, with one JAX_COORDINATOR_ADDRESS and JAX_NUM_PROCESSES and each with its own "
        "JAX_PROCESS_ID; where one was started, its own output says why it did not come"
    )
