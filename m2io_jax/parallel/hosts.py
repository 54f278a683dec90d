"""The processes that run a program together, one a host: how they meet, and how they end.

`together` lets them meet (meeting.py) and connects them before JAX is first used, and ends all of them soon after one
has failed:

    an exception     its process says so to the others, which name it and its reason, and exit
    a sudden death   the connection or the heartbeats stop; JAX ends the others, and their watchers (watcher.py) name it
"""

import os
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import jax

# JAX has no public names for the key-value store of the coordination service and for what it knows of clusters.
from jax._src import distributed
from jax._src.clusters import ClusterEnv

from m2io_jax.errors import Stopped, UserError
from m2io_jax.parallel.exchange import is_first, wait_for_all
from m2io_jax.parallel.meeting import attend, receive
from m2io_jax.parallel.watcher import PARTED

ADDRESS, COUNT, INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
CONNECT_S = 120  # how long processes wait for each other at the start, where somebody started them all
SCHEDULED_S = 600  # and where a cluster does: slices are made, and images pulled, minutes apart
HEARTBEAT_S = 12  # silence after which a process is taken for dead
LISTEN_S = 0.5  # between two looks for a failure of another
LINGER_S = 3 * LISTEN_S  # how long a failed process stays, so that the others can read its reason
FAILED = "m2io/failed/"
WATCHER = "m2io/watcher"  # the port of the first one


@dataclass(frozen=True)
class Place:
    """Where to meet and as whom: the coordinator's HOST:PORT, how many processes, and which of them this is. What is
    None is asked of the cluster."""

    coordinator: str | None = None
    count: int | None = None
    index: int | None = None


def find_place(environment: Mapping[str, str] = os.environ, devices: Path = Path("/dev")) -> Place | None:
    """Whether there are other processes to join. None: this one is alone.

    Three variables say so outright: JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID. On TPU VMs, on GKE
    and under Slurm or Open MPI, JAX asks the cluster.

    Raises:
        UserError: some of the three are given and others not, or they are no numbers that fit together.
    """
    given = {name: environment[name] for name in (ADDRESS, COUNT, INDEX) if environment.get(name)}
    if given:
        return _stated(given)
    hosts = environment.get("TPU_WORKER_HOSTNAMES")
    tasks = [environment.get(name, "1") for name in ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "MEGASCALE_NUM_SLICES")]
    many = hosts is not None and "," in hosts or any(number not in ("", "1") for number in tasks)
    # A TPU VM outside of GKE has no variables, but its chips, and a metadata server that JAX asks.
    tpu_vm = hosts is None and "TPU_SKIP_MDS_QUERY" not in environment and _has_chips(devices)
    return Place() if many or tpu_vm else None


def _has_chips(devices: Path) -> bool:
    found = [*devices.glob("accel[0-9]*"), *devices.glob("vfio/[0-9]*")]
    return bool(found) and find_spec("libtpu") is not None


def _stated(given: Mapping[str, str]) -> Place | None:
    missing = [name for name in (ADDRESS, COUNT, INDEX) if name not in given]
    if missing:
        what = f"{' and '.join(given)} given without {' and '.join(missing)}."
        raise UserError(what, where="the environment", mend=f"set all three: {ADDRESS}=HOST:PORT {COUNT}=N {INDEX}=I")
    host, _, port = given[ADDRESS].rpartition(":")
    if not host or not port.isdecimal():
        mend = "give the host of process 0 and a free port of it, as 10.0.0.2:8476"
        raise UserError(f"{ADDRESS} is {given[ADDRESS]!r} but must be HOST:PORT.", where="the environment", mend=mend)
    count, index = given[COUNT], given[INDEX]
    if not count.isdecimal() or not index.isdecimal() or not int(index) < int(count):
        what = f"{INDEX} is {index!r} and {COUNT} {count!r}; they must be numbers, the first from 0 below the second."
        raise UserError(what, where="the environment")
    return Place(given[ADDRESS], int(count), int(index)) if int(count) > 1 else None


@contextmanager
def together(place: Place | None, connect_s: int | None = None) -> Iterator[None]:
    """Runs its block as one of several processes; with None, as any other program. To be entered before JAX is used.

    They wait `connect_s` seconds for each other; None: minutes, more of them where a cluster starts them.

    An exception in the block ends this process at once, and the others with it.

    Raises:
        UserError: the others cannot be reached, or some of them do not come.
    """
    if place is None:
        yield
        return
    if connect_s is None:
        connect_s = SCHEDULED_S if place.coordinator is None else CONNECT_S
    _connect(place, connect_s)
    if distributed.global_state.num_processes == 1:
        yield
        jax.distributed.shutdown()
        return
    watcher = _Watcher(connect_s)
    threading.Thread(target=_listen, args=(watcher,), daemon=True).start()
    try:
        yield
    except Stopped:  # all of them
        _part(watcher)
        raise
    except BaseException as error:
        _leave(error, watcher)
    _part(watcher)


def _connect(place: Place, seconds: int) -> None:
    # A preemption notice is the run's to answer (training/stopping.py): JAX would take the signal.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        place, devices = _detected(place, seconds) if place.coordinator is None else (place, None)
        stated = dict(coordinator_address=place.coordinator, num_processes=place.count, process_id=place.index)
        if place.coordinator is not None:
            stated |= dict(cluster_detection_method="deactivate", local_device_ids=devices)
            _meet(place, seconds)
        waits = dict(initialization_timeout=seconds, heartbeat_timeout_seconds=HEARTBEAT_S, shutdown_timeout_seconds=60)
        jax.distributed.initialize(**stated, **waits)
    except (RuntimeError, ValueError) as error:
        mend = f"start all processes within {seconds} s, with the same address and count and each with its own number"
        what = f"The processes could not be connected: {' '.join(str(error).split())[:300]}"
        raise UserError(what, where=place.coordinator, mend=mend) from error


def _detected(place: Place, seconds: int) -> tuple[Place, list[int] | None]:
    """Ask the cluster as JAX would; also which of its host's devices a process has, where the cluster says so."""
    address, count, index, devices = ClusterEnv.auto_detect_unset_distributed_params(
        None, None, None, None, None, seconds
    )
    return (place if None in (address, count, index) else Place(address, count, index)), devices


def _meet(place: Place, seconds: int) -> None:
    """Return when all processes have come, and JAX's service can be reached. Raises UserError: some are missing."""
    if place.count == 1:
        return
    if place.index == 0:
        receive(place.coordinator, place.count, seconds)
        return
    attend(place.coordinator, place.count, place.index, seconds)
    if not _answers(place.coordinator, seconds):
        what = f"All processes had come, but process 0 has gone: process {place.index} waited {seconds} s for it."
        raise UserError(what, where=place.coordinator, mend="see what process 0 says, then start all again")


def _answers(address: str, seconds: float) -> bool:
    host, _, port = address.rpartition(":")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            return True
        except OSError:
            time.sleep(0.2)
    return False


class _Watcher:
    """The program beside this process that says who was lost, should JAX end this process."""

    def __init__(self, seconds: int):
        state = distributed.global_state
        if state.process_id == 0:
            both = socket.has_dualstack_ipv6()
            family = socket.AF_INET6 if both else socket.AF_INET
            with socket.create_server(("", 0), family=family, dualstack_ipv6=both) as listener:
                state.client.key_value_set(WATCHER, str(listener.getsockname()[1]))
                self._process = self._start(["0", str(listener.fileno())], [listener.fileno()])
        else:
            host = state.coordinator_address.rpartition(":")[0].strip("[]")
            port = state.client.blocking_key_value_get(WATCHER, seconds * 1000)
            self._process = self._start([str(state.process_id), host, port], [])

    def _start(self, words: list[str], files: list[int]) -> subprocess.Popen:
        # Of the standard library alone, and in a session of its own: an interrupt at the terminal is for this process.
        command = [sys.executable, "-IS", str(Path(__file__).with_name("watcher.py")), *words]
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        started = subprocess.Popen(command, pass_fds=files, start_new_session=True, **pipes)
        started.stdout.readline()  # it is connected, or has said why not and ended
        return started

    def part(self) -> None:
        """To be called before this process ends by its own will."""
        try:
            self._process.communicate(PARTED.encode(), timeout=LINGER_S)
        except (OSError, ValueError, subprocess.TimeoutExpired):
            pass  # it is gone, or another thread has told it


def _part(watcher: _Watcher) -> None:
    """Ends together: the coordination service is not to be gone before all have left it."""
    wait_for_all("end")
    watcher.part()
    jax.distributed.shutdown()


def _listen(watcher: _Watcher) -> None:
    """Ends this process when another says that it failed."""
    while distributed.global_state.client is not None:
        time.sleep(LISTEN_S)
        for index, reason in _failures().items():
            if index != jax.process_index():
                _say(f"process {index} failed, so process {jax.process_index()} ends too: {reason}")
                if is_first():  # the coordination service ends with it: whom it leaves behind, JAX aborts
                    time.sleep(2 * LINGER_S)
                watcher.part()
                os._exit(1)


def _failures() -> dict[int, str]:
    client = distributed.global_state.client
    try:
        found = client.key_value_dir_get(FAILED) if client else []
    except (RuntimeError, ValueError):  # nothing is there; or the service went with its process: JAX ends this one
        return {}
    return {int(name.rpartition("/")[2]): reason for name, reason in found}


def _leave(error: BaseException, watcher: _Watcher) -> None:
    """Ends this process, telling the others why. A clean exit would wait for them."""
    me, host = jax.process_index(), socket.gethostname()
    reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    if not isinstance(error, UserError):
        traceback.print_exception(error)
    if isinstance(error, jax.errors.JaxRuntimeError) or "Gloo" in str(error):
        # Perhaps the echo of another's death, which the heartbeats will tell and name: this process ends with that.
        _say(f"process {me} waits {HEARTBEAT_S + 5} s to hear whether another died")
        time.sleep(HEARTBEAT_S + 5)
    _say(f"process {me} failed: {reason}")
    try:
        distributed.global_state.client.key_value_set(f"{FAILED}{me}", f"on {host}: {reason}")
        time.sleep(LINGER_S)
    except (RuntimeError, ValueError):
        pass  # nobody is there to tell
    watcher.part()
    os._exit(1)


def _say(words: str) -> None:
    sys.stdout.flush()
    print(f"error: {words}", file=sys.stderr, flush=True)
