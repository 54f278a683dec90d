import os
import signal
import threading

import pytest

from m2io_jax.training.stopping import StopSignals


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_the_first_signal_is_noted_and_the_second_acts_as_ever(number, status, capfd):
    caught = []
    before = signal.signal(number, lambda *_: caught.append(number))
    try:
        with StopSignals() as stop:
            assert stop.status == 0
            os.kill(os.getpid(), number)
            assert stop.status == status and not caught
            assert "after this step" in capfd.readouterr().err
            os.kill(os.getpid(), number)
            assert caught == [number]
        os.kill(os.getpid(), number)
        assert len(caught) == 2
    finally:
        signal.signal(number, before)


def test_without_a_signal_everything_is_as_before():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with StopSignals() as stop:
        pass
    assert stop.status == 0 and [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == before


def test_a_thread_that_gets_no_signals_can_train_too():
    found = []

    def inside():
        with StopSignals() as stop:
            found.append(stop.status)

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert found == [0]
