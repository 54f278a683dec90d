"""Runs on a pretended cloud: real scripts, real processes, and machines that are folders."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

# What the pretended m2io does at each start on a machine: what the machine's fates say, or it ends.
M2IO = """#!/usr/bin/env bash
worker=$(basename "$(dirname "$PWD")")
starts=$PRETENDED/starts-$worker
echo start >> "$starts"
printf '%s\\n' "$@" > "$PRETENDED/words-$worker"
printf '%s' "${WANDB_API_KEY-unset}" > "$PRETENDED/key-$worker"
echo "this is $worker"
trap 'exit 75' TERM
trap 'exit 130' INT
case $(sed -n "$(wc -l < "$starts")p" "$PRETENDED/fates-$worker" 2>/dev/null) in
fails) exit 3 ;;
saves) exit 75 ;;
edits) echo "name: edited" > "$TREE/configs/a.yaml"; exit 75 ;;
suspended) echo SUSPENDED > "$PRETENDED/state"; exit 75 ;;
killed) kill -KILL $PPID; exit ;;
waits) while true; do sleep 0.05; done ;;
esac
"""
UV = """#!/usr/bin/env bash
echo "uv $*" >> "$PRETENDED/installed"
[[ $1 == venv ]] || exit 0
mkdir -p .venv/bin
cp "$PRETENDED/m2io" .venv/bin/m2io
cp "$PRETENDED/m2io" .venv/bin/python
"""


# What is asked for is mounted from the look on that `mounted_at` says, and nobody waits.
MOUNTPOINT = """#!/usr/bin/env bash
echo "$2" >> looks
[[ $(wc -l < looks) -ge $(cat "$PRETENDED/mounted_at") ]]
"""
SLEEP = "#!/usr/bin/env bash\n"
# The first wait has taken too long.
TIMEOUT = """#!/usr/bin/env bash
echo "$1" >> "$PRETENDED/limits"
[[ $(wc -l < "$PRETENDED/limits") != 1 ]] || exit 124
exec "${@:2}"
"""

OPTIONS = "--project p --zone z --name a --topology 2xv5e-4 --poll 0".split()


class Cloud:
    """One queued resource, and a way to run a launcher beside it."""

    def __init__(self, folder: Path, tree: Path):
        self.folder, self.tree = folder, tree
        tools = folder / "tools"
        tools.mkdir()
        for name, text in {"uv": UV, "../m2io": M2IO}.items():
            (tools / name).write_text(text)
            (tools / name).chmod(0o755)
        program = Path(__file__).with_name("pretended_gcloud.py")
        (tools / "gcloud").write_text(f'#!/usr/bin/env bash\nexec "{sys.executable}" "{program}" "$@"\n')
        (tools / "gcloud").chmod(0o755)
        path = os.pathsep.join([str(tools), str(Path(sys.executable).parent), os.environ["PATH"]])
        self.environment = os.environ | {"PATH": path, "PRETENDED": str(folder), "TREE": str(tree)}

    def fates(self, *fates: str) -> None:
        """Of the first machine, from here on; the second always ends well."""
        (self.folder / "fates-worker0").write_text("\n".join(fates) + "\n")
        (self.folder / "starts-worker0").unlink(missing_ok=True)

    def disks(self, mounted_at: int, **tools: str) -> None:
        (self.folder / "mounted_at").write_text(str(mounted_at))
        for name, text in {"mountpoint": MOUNTPOINT, "sleep": SLEEP, **tools}.items():
            (self.folder / "tools" / name).write_text(text)
            (self.folder / "tools" / name).chmod(0o755)

    def launch(self, verb: str, *words: str, status: int = 0) -> str:
        command = ["launch/tpu_vm.sh", verb, *OPTIONS, *words]
        ran = subprocess.run(command, cwd=self.tree, env=self.environment, capture_output=True, text=True, timeout=600)
        assert ran.returncode == status, ran.stderr
        return ran.stdout + ran.stderr

    def begin(self, *words: str) -> subprocess.Popen:
        """A launcher that follows a run, once that has begun on the first machine."""
        command = ["launch/tpu_vm.sh", "run", *OPTIONS, *words]
        launcher = subprocess.Popen(command, cwd=self.tree, env=self.environment, stdout=subprocess.DEVNULL,
                                    stderr=subprocess.PIPE, text=True, start_new_session=True)  # fmt: skip
        wait_for(self.folder / "starts-worker0")
        return launcher

    def status(self) -> str:
        """How the run ended on the first machine."""
        path = self.folder / "worker0" / "m2io" / "runs" / "launch" / "worker" / "status"
        wait_for(path)
        return path.read_text().strip()

    def lines(self, name: str) -> list[str]:
        return (self.folder / name).read_text().splitlines()

    def verbs(self) -> list[str]:
        """What was called, without looks at how things are; remote commands by what they do."""
        kinds = {"install tpu": "install", "worker.sh mounted": "mounted", "worker.sh start": "start",
                 "tar -x": "unpack"}  # fmt: skip
        named = [next((kind for part, kind in kinds.items() if part in line), line) for line in self.lines("calls")]
        return [name for name in named if name != "list" and "status" not in name and "follow" not in name]


@pytest.fixture
def cloud(tmp_path, tree) -> Cloud:
    return Cloud(tmp_path, tree)


WHOLE = ["scp", "unpack", "install", "start"]
TRAIN = ["train", "configs/a.yaml", "name=it's a run", "checkpoint.folder=gs://bucket/a"]


def test_a_run_is_launched_on_every_slice_and_followed(cloud):
    said = cloud.launch("run", "--spot", *TRAIN)
    assert cloud.verbs() == ["create", *WHOLE]
    (asked,) = cloud.lines("asked")
    assert asked == (
        "a --project=p --zone=z --accelerator-type=v5litepod-4 --runtime-version=v2-alpha-tpuv5-lite "
        "--node-count=2 --node-prefix=a --spot"
    )
    assert cloud.lines("words-worker0") == cloud.lines("words-worker1") == TRAIN
    assert "this is worker0" in said and "has ended well" in said
    for worker in ("worker0", "worker1"):
        assert (cloud.folder / worker / "m2io" / "runs" / "launch" / "worker" / "status").read_text() == "0\n"
        assert not (cloud.folder / worker / "m2io" / "runs" / "large").exists()
    assert any("-e .[tpu]" in line and "-c constraints.txt" in line for line in cloud.lines("installed"))


def test_machines_that_were_taken_away_are_asked_for_again(cloud):
    cloud.fates("suspended", "ends")
    said = cloud.launch("run", *TRAIN)
    assert cloud.verbs() == ["create", *WHOLE, "describe", "delete", "create", *WHOLE]
    assert "SUSPENDED: once more" in said


@pytest.mark.parametrize(("fate", "reason"), [("saves", "75"), ("killed", "lost")])
def test_a_run_that_saved_or_was_killed_is_started_again_on_the_same_machines(cloud, fate, reason):
    cloud.fates(fate, "ends")
    said = cloud.launch("run", *TRAIN)
    assert cloud.verbs() == ["create", *WHOLE, *WHOLE]
    assert f"the run is {reason}: once more" in said


def test_a_failure_is_passed_on_and_the_same_command_tries_again(cloud):
    cloud.fates("fails")
    assert "status 3" in cloud.launch("run", *TRAIN, status=3)
    assert cloud.verbs() == ["create", *WHOLE]
    cloud.fates("ends")
    cloud.launch("run", *TRAIN)
    assert cloud.verbs() == ["create", *WHOLE, *WHOLE]


def test_a_copy_that_fails_is_made_again(cloud):
    (cloud.folder / "broken").touch()
    said = cloud.launch("run", *TRAIN)
    assert "could not be made ready" in said and cloud.verbs() == ["create", "scp", *WHOLE]


def test_nothing_is_started_before_the_disks_are_there(cloud):
    cloud.disks(mounted_at=3)
    cloud.launch("run", "--mounted", "/shared", "--mounted", "/a disk", *TRAIN)
    assert cloud.verbs() == ["create", *WHOLE[:-1], "mounted", "start"]
    for worker in ("worker0", "worker1"):
        assert cloud.lines(f"{worker}/m2io/looks") == ["/shared"] * 3 + ["/a disk"]


def test_disks_that_are_not_there_in_fifteen_minutes_are_waited_for_again(cloud):
    cloud.disks(mounted_at=1, timeout=TIMEOUT)
    said = cloud.launch("run", "--mounted", "/shared", *TRAIN)
    assert "nothing is mounted on /shared after 15 minutes" in said and "could not be made ready" in said
    assert cloud.verbs() == ["create", *WHOLE[:-1], "mounted", *WHOLE[:-1], "mounted", "start"]
    assert set(cloud.lines("limits")) == {"900"}


def test_flags_for_ssh_reach_every_call_that_goes_to_the_machines(cloud):
    cloud.launch("run", "--ssh", "--internal-ip", "--ssh", "--ssh-key-file=key", *TRAIN)
    cloud.launch("stop", "--ssh", "--internal-ip", "--ssh", "--ssh-key-file=key")
    verbs = set()
    for line in cloud.lines("words"):
        verbs.add(verb := line.split()[0])
        assert ("--internal-ip --ssh-key-file=key" in line) == (verb in ("ssh", "scp")), line
    assert verbs == {"list", "create", "ssh", "scp"}


def test_variables_reach_a_run_by_a_file_of_the_users_own(cloud):
    secret = "it's $(touch pwned) # x=y"
    cloud.environment |= {"WANDB_API_KEY": secret, "OTHER": "o"}
    cloud.fates("saves", "ends")
    cloud.launch("run", "--extra", "wandb", "--env", "WANDB_API_KEY", "--env", "OTHER", *TRAIN)
    assert any("-e .[tpu,wandb]" in line for line in cloud.lines("installed"))
    sent, got = cloud.tree / "runs" / "launch" / "a.env", "m2io/runs/launch/variables"
    for file in (sent, cloud.folder / "worker0" / got, cloud.folder / "worker1" / got):
        assert file.read_text() == f"WANDB_API_KEY={secret}\nOTHER=o\n" and file.stat().st_mode & 0o777 == 0o600
    assert cloud.lines("key-worker0") == cloud.lines("key-worker1") == [secret]
    assert len(cloud.lines("starts-worker0")) == 2 and cloud.lines("words-worker0") == TRAIN
    assert "touch pwned" not in (cloud.folder / "words").read_text()
    cloud.launch("run", *TRAIN)
    assert cloud.lines("key-worker0") == ["unset"]


def test_what_fails_again_and_again_is_told_and_given_up(cloud):
    (cloud.folder / "becomes").write_text("FAILED\n" * 4)
    said = cloud.launch("run", *TRAIN, status=1)
    assert said.count("failedData: out of quota") == 3 and "a is FAILED, 3 times in a row" in said
    assert cloud.verbs() == ["create", "describe", "delete"] * 2 + ["create", "describe"]


def test_failures_that_are_not_in_a_row_do_not_add_up(cloud):
    (cloud.folder / "becomes").write_text("FAILED\nFAILED\nSUSPENDED\nFAILED\nFAILED\n")
    assert "has ended well" in cloud.launch("run", *TRAIN)
    assert cloud.verbs().count("create") == 6


def test_restarts_come_to_an_end(cloud):
    cloud.fates(*["saves"] * 20)
    assert "after 2 restarts" in cloud.launch("run", "--restarts", "2", *TRAIN, status=1)
    assert cloud.verbs().count("start") == 3


def test_an_interrupted_launcher_leaves_the_run_alone_and_finds_it_again(cloud):
    cloud.fates("waits", "ends")
    first = cloud.begin(*TRAIN)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    assert "run: running" in cloud.launch("status")
    assert "busy with another run" in cloud.launch("run", "evaluate", "runs/a", status=1)
    assert "busy with: m2io train" in cloud.launch("start", "evaluate", "runs/a", status=1)
    cloud.launch("stop")
    assert cloud.status() == "130"
    assert "has ended well" in cloud.launch("run", *TRAIN)
    assert cloud.verbs().count("create") == 1 and len(cloud.lines("starts-worker0")) == 2
    cloud.launch("delete")
    assert not (cloud.folder / "state").exists()
    assert "there is no a" in cloud.launch("delete")


def test_a_stop_is_final_until_the_run_is_given_again(cloud):
    cloud.fates("waits", "ends")
    launcher = cloud.begin(*TRAIN)
    cloud.launch("stop")
    said = launcher.communicate(timeout=600)[1]
    assert launcher.returncode == 130 and "was asked to stop, and the same command goes on" in said
    assert cloud.status() == "130" and len(cloud.lines("starts-worker0")) == 1
    assert "has ended well" in cloud.launch("run", *TRAIN)
    assert cloud.verbs().count("create") == 1 and len(cloud.lines("starts-worker0")) == 2


def test_the_tree_that_was_copied_first_is_what_is_started_again(cloud):
    old, config = cloud.tree / "m2io_jax" / "old.py", cloud.tree / "configs" / "a.yaml"
    old.touch()
    cloud.fates("edits", "ends")
    cloud.launch("run", *TRAIN)
    there = cloud.folder / "worker0" / "m2io"
    assert config.read_text() == "name: edited\n" and (there / "configs" / "a.yaml").read_text() == "name: a\n"
    assert (there / "m2io_jax" / "old.py").exists() and len(cloud.lines("starts-worker0")) == 2
    old.unlink()
    (there / "data").mkdir()
    cloud.launch("run", *TRAIN)
    assert (there / "configs" / "a.yaml").read_text() == "name: edited\n"
    assert not (there / "m2io_jax" / "old.py").exists()
    assert (there / "data").exists() and (there / ".venv" / "bin" / "m2io").exists()


def test_a_runs_folder_is_fetched_without_its_weights(cloud):
    cloud.launch("run", *TRAIN)
    run = cloud.folder / "worker0" / "m2io" / "runs" / "a run"
    kept = ["adapter/adapter_config.json", "adapter/adapter_model.safetensors", "results.json"]
    for name in (*kept, "model.safetensors", "model-00001-of-00002.safetensors", "checkpoints/50"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text(name)
    cloud.launch("fetch", "runs/a run")
    fetched = cloud.tree / "runs" / "a run"
    assert sorted(str(file.relative_to(fetched)) for file in fetched.rglob("*") if file.is_file()) == kept
    assert (fetched / kept[0]).read_text() == kept[0]
    cloud.launch("fetch", "--weights", "runs/a run")
    assert {file.name for file in fetched.rglob("model*")} == {"model.safetensors", "model-00001-of-00002.safetensors"}
    assert not list(fetched.rglob("checkpoints")) and not list((cloud.tree / "runs" / "launch").glob("*fetched*"))
    shared = cloud.folder / "mnt" / "a run"  # as on a disk that all machines see
    shared.parent.mkdir()
    run.rename(shared)
    cloud.launch("fetch", str(shared), "runs/of it")
    assert (cloud.tree / "runs" / "of it" / "a run" / "results.json").read_text() == "results.json"
    assert "add the folder" in cloud.launch("fetch", str(shared), status=1)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 300
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.05)
