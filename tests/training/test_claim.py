"""Two runs in one folder: the second is told who is at work there, whatever became of those before."""

import errno
import os
import subprocess
import sys

import pytest

from m2io_jax.config import RunConfig, load_config
from m2io_jax.errors import UserError
from m2io_jax.training import claim
from m2io_jax.training.claim import LOCK_FILE, claimed
from m2io_jax.training.run import train

HOLDS = "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.flock(f, fcntl.LOCK_EX); print('held'); sys.stdin.read()"


@pytest.fixture
def config(tmp_path):
    return RunConfig(name="one", objective="supervised", steps=1, run=tmp_path / "run", episodes=tmp_path / "none")


@pytest.fixture
def other(config):
    """A process that holds the run's folder."""
    config.run.mkdir()
    command = [sys.executable, "-u", "-c", HOLDS, str(config.run / LOCK_FILE)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_a_second_run_in_a_folder_is_refused_before_it_touches_anything(config, other):
    with pytest.raises(UserError, match="(?s)Another run is at work here.*run=FOLDER"):
        train(config)
    assert os.listdir(config.run) == [LOCK_FILE]


def test_a_run_that_was_killed_holds_nothing(config, other):
    other.kill()
    other.wait()
    with claimed(config) as folder:
        assert folder == config.run


def test_who_is_at_work_is_told(config):
    with claimed(config), pytest.raises(UserError, match=f"process {os.getpid()} on"), claimed(config):
        pass
    with claimed(config):
        assert load_config(config.run / "config.yaml") == config


def test_where_there_are_no_locks_a_run_begins_all_the_same(config, monkeypatch):
    def none(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(claim.fcntl, "flock", none)
    with claimed(config):
        assert (config.run / "config.yaml").is_file()


def test_a_folder_that_cannot_be_written_is_named(config):
    config.run.write_text("a file")
    with pytest.raises(UserError, match="(?s)cannot be written.*run=FOLDER"), claimed(config):
        pass


def test_a_configuration_that_cannot_be_noted_leaves_the_former(config, monkeypatch):
    with claimed(config):
        pass

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(claim.Path, "write_text", full)
    with pytest.raises(UserError, match="No space left"):
        claim.note(config)
    assert load_config(config.run / "config.yaml") == config
