"""A run on a machine with GPUs that is pretended: real scripts, and an ssh and a docker that are scripts too."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

# There is one container: `running` holds the label that it was made with, `exited` its status.
DOCKER = """#!/usr/bin/env bash
tree=$PWD
cd "$PRETENDED"
echo "$1" >> calls
echo "$*" >> words
case $1 in
inspect) if [ -e running ]; then echo "running $(cat running)"; else cat exited; fi ;;
rm) rm -f exited ;;
run)
    for word in "$@"; do
        [[ $word != --label=words=* ]] || printf %s "${word#--label=words=}" > running
        [[ $word != --env-file=* ]] || cp -p "$tree/${word#--env-file=}" variables
    done
    ;;
logs)
    trap 'exit 0' INT
    touch followed
    [ "$(cat fates)" != waits ] || while true; do sleep 0.05; done
    rm running
    head -n 1 fates > exited
    sed -i 1d fates
    ;;
esac
"""
# The first connections break, as many as `broken` has lines.
SSH = """#!/usr/bin/env bash
cd "$PRETENDED"
echo ssh >> calls
[ ! -s broken ] || { sed -i 1d broken; exit 255; }
exec bash -c "${!#}"
"""
TRAIN = ["train", "configs/a.yaml", "name=it's a run"]
LABEL = "train configs/a.yaml 'name=it'\\''s a run'"


class Host:
    """A machine, and a way to launch there."""

    def __init__(self, folder: Path, tree: Path):
        self.folder, self.tree = folder, tree
        for name, text in {"docker": DOCKER, "ssh": SSH}.items():
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        path = os.pathsep.join([str(folder), os.environ["PATH"]])
        self.environment = os.environ | {"PATH": path, "PRETENDED": str(folder)}

    def run(self, *options: str, status: int = 0) -> str:
        command = ["launch/gpu_host.sh", "run", "--docker", "--poll", "0", *options, *TRAIN]
        ran = subprocess.run(command, cwd=self.tree, env=self.environment, capture_output=True, text=True, timeout=600)
        assert ran.returncode == status, ran.stderr
        return ran.stderr

    def follow(self) -> subprocess.Popen:
        """A launcher that follows a container, which does not end."""
        self.write(running=LABEL, fates="waits")
        # Where the tests run in a shell's background, SIGINT would be ignored.
        command = ["env", "--default-signal=INT", "launch/gpu_host.sh", "run", "--docker", *TRAIN]
        launcher = subprocess.Popen(command, cwd=self.tree, env=self.environment, start_new_session=True)
        deadline = time.monotonic() + 300
        while not (self.folder / "followed").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return launcher

    def write(self, **files: str) -> None:
        for name, text in files.items():
            (self.folder / name).write_text(text)

    def calls(self) -> list[str]:
        """What docker was called for, without looks at how things are."""
        called = (self.folder / "calls").read_text().split()
        return [name for name in called if name not in ("inspect", "ssh")]


@pytest.fixture
def host(tmp_path, tree) -> Host:
    return Host(tmp_path, tree)


def test_a_container_is_started_followed_and_started_again_where_it_saved(host):
    host.write(fates="75\n0\n")
    host.run()
    assert host.calls() == ["build", "rm", "run", "logs", "rm", "run", "logs"]


def test_variables_reach_a_container_by_a_file_of_the_users_own(host):
    host.write(fates="0\n")
    host.environment["WANDB_API_KEY"] = "it's $HOME"
    host.run("--extra", "wandb", "--env", "WANDB_API_KEY")
    given = host.folder / "variables"
    assert given.read_text() == "WANDB_API_KEY=it's $HOME\n" and given.stat().st_mode & 0o777 == 0o600
    words = (host.folder / "words").read_text()
    assert "--build-arg=EXTRA=cuda,wandb" in words and "it's $HOME" not in words


def test_a_container_that_was_stopped_is_not_started_again(host):
    host.write(fates="130\n")
    assert "was asked to stop, and the same command goes on" in host.run(status=130)
    assert host.calls() == ["build", "rm", "run", "logs"]


def test_a_container_that_is_running_is_followed_over_connections_that_break(host):
    (host.folder / "m2io").mkdir()
    host.write(running=LABEL, fates="0\n", broken="\n\n")
    said = host.run("--host", "me@box")
    assert said.count("me@box does not say how m2io is") == 2 and host.calls() == ["logs"]


def test_a_container_that_runs_something_else_is_left_alone(host):
    host.write(running="evaluate runs/a", fates="0\n")
    assert "busy there with another run" in host.run(status=1)
    assert host.calls() == []


def test_ctrl_c_ends_a_launcher_and_leaves_the_container_alone(host):
    launcher = host.follow()
    os.killpg(launcher.pid, signal.SIGINT)
    try:
        assert launcher.wait(timeout=300) == 130
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(launcher.pid, signal.SIGKILL)
    assert host.calls() == ["logs"] and (host.folder / "running").exists()
