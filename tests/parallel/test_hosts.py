import socket
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from processes import free_port, run_together

from m2io_jax.config import MeshConfig
from m2io_jax.errors import UserError
from m2io_jax.parallel import hosts, watcher
from m2io_jax.parallel.exchange import gathered, local_rows, whole
from m2io_jax.parallel.hosts import Place, find_place, together
from m2io_jax.parallel.mesh import make_mesh
from m2io_jax.parallel.sharding import place_batch

HERE = Path(__file__).parent
STATED = {"JAX_COORDINATOR_ADDRESS": "10.0.0.2:8476", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "3"}


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({}, None),
        ({"JAX_NUM_PROCESSES": ""}, None),
        (STATED, Place("10.0.0.2:8476", 4, 3)),
        (STATED | {"JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "0"}, None),
        ({"TPU_WORKER_HOSTNAMES": "t0,t1"}, Place()),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, None),
        ({"TPU_WORKER_HOSTNAMES": "localhost", "MEGASCALE_NUM_SLICES": "2"}, Place()),
        ({"SLURM_NTASKS": "2"}, Place()),
        ({"SLURM_NTASKS": "1"}, None),
        ({"OMPI_COMM_WORLD_SIZE": "8"}, Place()),
    ],
)
def test_whether_there_are_others_is_said_by_the_environment(environment, place, tmp_path):
    assert find_place(environment, tmp_path) == place


@pytest.mark.parametrize("chips", ["accel0", "vfio/0"])
def test_on_a_tpu_vm_jax_asks_unless_told_that_there_is_nobody_to_ask(chips, tmp_path, monkeypatch):
    (tmp_path / chips).parent.mkdir(exist_ok=True)
    (tmp_path / chips).touch()
    monkeypatch.setattr(hosts, "find_spec", lambda name: None)
    assert find_place({}, tmp_path) is None  # a machine with other devices there
    monkeypatch.setattr(hosts, "find_spec", lambda name: name)
    assert find_place({}, tmp_path) == Place()
    assert find_place({"TPU_SKIP_MDS_QUERY": "1"}, tmp_path) is None
    assert find_place({"TPU_WORKER_HOSTNAMES": "localhost"}, tmp_path) is None


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"JAX_PROCESS_ID": ""}, "given without JAX_PROCESS_ID"),
        ({"JAX_NUM_PROCESSES": "", "JAX_PROCESS_ID": ""}, "without JAX_NUM_PROCESSES and JAX_PROCESS_ID"),
        ({"JAX_COORDINATOR_ADDRESS": "10.0.0.2"}, "'10.0.0.2' but must be HOST:PORT"),
        ({"JAX_PROCESS_ID": "4"}, "from 0 below the second"),
        ({"JAX_PROCESS_ID": "-1"}, "from 0 below the second"),
        ({"JAX_NUM_PROCESSES": "many"}, "'many'"),
    ],
)
def test_what_does_not_fit_together_is_named(wrong, said, tmp_path):
    with pytest.raises(UserError, match=said):
        find_place(STATED | wrong, tmp_path)


def test_a_coordinator_that_does_not_answer_is_named_in_time():
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(UserError, match="process 1 of 2 waited 1 s") as caught:
        with together(Place(address, 2, 1), connect_s=1):
            pass
    assert address in str(caught.value) and "start process 0" in str(caught.value)


def test_alone_nothing_is_connected_gathered_or_moved():
    with together(None):
        assert gathered({"a": float("inf")}) == [{"a": float("inf")}]
    assert not jax.distributed.is_initialized()


@pytest.mark.skipif(sys.platform != "linux", reason="keepalive has these options on Linux")
def test_a_silent_machine_is_missed_before_jax_misses_it():
    idle, interval, count = watcher.SILENCE.values()
    assert idle + interval * count < hosts.HEARTBEAT_S / 2  # JAX beats twice in that time
    with socket.socket() as connection:
        watcher.miss_when_silent(connection)
        set_to = [connection.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in watcher.SILENCE]
        assert set_to == [idle, interval, count]
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


@pytest.mark.parametrize("sizes", [{}, {"fsdp": 4}, {"data": 2, "fsdp": 2, "tensor": 2}, {"data": 1, "tensor": 8}])
def test_rows_come_back_in_their_order_and_once(sizes):
    rows = np.arange(48).reshape(16, 3)
    placed = place_batch(rows, make_mesh(MeshConfig(**sizes)))
    np.testing.assert_array_equal(local_rows(placed), rows)
    np.testing.assert_array_equal(whole(placed), rows)


def test_two_processes_tell_each_other_what_they_have_and_end_when_one_fails():
    ended = run_together(HERE / "two_hosts.py", [[], []], {"JAX_NUM_CPU_DEVICES": "2"}, timeout=120)
    for each in ended:
        assert each.code == 1, each.err[-2000:]
        assert "all is as it should be" in each.out
    assert "process 1 failed: The dog ate the data." in ended[1].err
    assert "process 1 failed, so process 0 ends too: on " in ended[0].err and "The dog ate" in ended[0].err


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 2])
def test_all_end_soon_after_one_is_killed_and_name_it(lost):
    ended = run_together(HERE / "lost_host.py", [[str(lost)]] * 3, {}, timeout=120)
    assert ended[lost].code == -9 and f"process {lost} was lost: " in ended[lost].err
    for index in {0, 1, 2} - {lost}:
        assert ended[index].code not in (0, -9) and ended[index].at - ended[lost].at < 30
        assert f"error: process {lost} was lost, so process {index} ended too\n" in ended[index].err
