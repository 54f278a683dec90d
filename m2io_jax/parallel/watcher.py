"""Says which process of several was lost: WATCHER 0 LISTENING-SOCKET | WATCHER INDEX HOST PORT

When one dies, JAX ends the others from C++, before Python has a word; and process 0, whose service names the dead, it
does not name. So each process has a watcher: a program beside it, without JAX, that ends nobody. It says "watching"
when it is connected. Its process writes to it

    "parted", then the end    it ends by its own will, and says why itself
    the end alone             it was ended

and the watcher of process 0 tells the others who was ended first.
"""

import queue
import socket
import sys
import threading
from concurrent.futures import Future, wait
from typing import TextIO

PARTED = "parted"
WATCHING = "watching"
NOBODY = "nobody"  # was lost, as far as process 0 knew when it parted
TOGETHER_S = 1.0  # of deaths so close to each other, another may be heard of first
HEAR_S = 10.0  # how long a watcher waits to hear who was lost

# A machine that is gone closes no connection. It is missed after 5 s, before JAX's heartbeats end process 0 too.
SILENCE = {"TCP_KEEPIDLE": 1, "TCP_KEEPINTVL": 1, "TCP_KEEPCNT": 4}


def has_parted(stream: TextIO) -> bool:
    """Waits for a process to end; whether that was by its own will."""
    try:
        return PARTED in stream.read().splitlines()
    except OSError:
        return False


def lead(listener: socket.socket) -> None:
    """Watches process 0, and tells the other watchers who was lost."""
    own: Future[bool] = Future()
    ended: queue.SimpleQueue[int] = queue.SimpleQueue()
    others: list[socket.socket] = []

    def hear_own() -> None:
        own.set_result(has_parted(sys.stdin))
        ended.put(0)

    def hear(stream: TextIO) -> None:
        index = stream.readline().strip()
        if index.isdecimal() and not has_parted(stream):
            ended.put(int(index))

    def meet() -> None:
        while True:
            other, _ = listener.accept()
            miss_when_silent(other)
            others.append(other)
            _tell(other, WATCHING)
            threading.Thread(target=hear, args=(other.makefile(errors="replace"),), daemon=True).start()

    threading.Thread(target=hear_own, daemon=True).start()
    threading.Thread(target=meet, daemon=True).start()
    print(WATCHING, flush=True)
    lost = ended.get()
    if lost and own in wait([own], TOGETHER_S).done and not own.result():
        lost = 0  # JAX ends process 0 only seconds after another: this was the other way round
    word = NOBODY if lost == 0 and own.result() else str(lost)
    for other in others:
        _tell(other, word)
    if not own.result():
        say(lost, 0)


def follow(index: int, host: str, port: int) -> None:
    """Watches another process than 0."""
    try:
        first = socket.create_connection((host, port), timeout=HEAR_S)
    except OSError as error:
        print(f"Should process 0 be lost, process {index} will not say so: {host}:{port}: {error}", file=sys.stderr)
        return
    first.settimeout(None)  # as long as the run takes
    words = first.makefile()
    _tell(first, str(index))
    print(words.readline(), end="", flush=True)
    if has_parted(sys.stdin):
        _tell(first, PARTED)
        return
    try:
        first.shutdown(socket.SHUT_WR)
        first.settimeout(HEAR_S)
        word = words.readline().strip()
    except OSError:
        word = ""
    if word != NOBODY:
        say(int(word or 0), index)  # not a word: its watcher is gone with it


def say(lost: int, index: int) -> None:
    """Tells the user of process `index` that it ended because `lost` did."""
    told = "it ended without a word, as when it is killed" if lost == index else f"so process {index} ended too"
    print(f"error: process {lost} was lost{':' if lost == index else ','} {told}", file=sys.stderr, flush=True)


def miss_when_silent(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":
        for name, value in SILENCE.items():
            connection.setsockopt(socket.IPPROTO_TCP, vars(socket)[name], value)


def _tell(connection: socket.socket, word: str) -> None:
    try:
        connection.sendall(f"{word}\n".encode())
    except OSError:
        pass  # it is gone: there is nobody to tell


if __name__ == "__main__":
    if sys.argv[1] == "0":
        lead(socket.socket(fileno=int(sys.argv[2])))
    else:
        follow(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
