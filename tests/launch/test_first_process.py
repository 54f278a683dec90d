"""m2io as the first process of a container, as a pod's."""

import os
import signal

import pytest

from m2io_jax import cli
from m2io_jax.training.stopping import StopSignals


def test_the_first_process_of_a_container_ends_on_sigterm(monkeypatch):
    own, before = os.getpid(), signal.getsignal(signal.SIGTERM)

    def work(**_):
        with StopSignals():
            pass  # training handles it itself, and puts back what was there
        os.kill(own, signal.SIGTERM)

    monkeypatch.setattr(os, "getpid", lambda: 1)
    monkeypatch.setattr(cli, "app", work)
    try:
        with pytest.raises(SystemExit) as ended:
            cli.main()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.value.code == 143
