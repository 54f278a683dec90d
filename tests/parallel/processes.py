"""Several connected processes on this machine."""

import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@dataclass(frozen=True)
class Ended:
    """What became of a process: its exit status (negative: by a signal), what it wrote, and when (seconds of the
    system's clock)."""

    code: int
    out: str
    err: str
    at: float


def run_together(program: Path, words: list[list[str]], extra: dict[str, str], timeout: float = 1200) -> list[Ended]:
    """A process for each list of words, connected over loopback; waits for all."""
    address = f"127.0.0.1:{free_port()}"
    shared = os.environ | {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(len(words))} | extra
    shared["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    started = [
        subprocess.Popen(
            [sys.executable, str(program), *each],
            env=shared | {"JAX_PROCESS_ID": str(index)},
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for index, each in enumerate(words)
    ]

    def ended(process: subprocess.Popen) -> Ended:
        out, err = process.communicate(timeout=timeout)
        return Ended(process.returncode, out, err, time.monotonic())

    try:
        with ThreadPoolExecutor(len(started)) as threads:
            return list(threads.map(ended, started))
    finally:
        for process in started:
            process.kill()
