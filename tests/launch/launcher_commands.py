"""The dry runs that are stored beside this file: what would be run for each launcher and size.

After a change that is meant, `python tests/launch/launcher_commands.py` writes them again: read the difference.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STORED = Path(__file__).with_name("dry_runs")
SIZES = {"3b": "v5e-16", "7b": "v6e-32", "72b": "v5p-128"}
TPU = "launch/tpu_vm.sh run --dry-run --project my-project --zone my-zone"
GKE = "--dry-run --image registry/m2io:1"
LOGGED = "--extra wandb --extra mlflow --env WANDB_API_KEY --env MLFLOW_TRACKING_URI".split()
SECRETS = {"WANDB_API_KEY": "not to be seen", "MLFLOW_TRACKING_URI": "nor this"}


def commands() -> dict[str, list[str]]:
    """Each stored file's name with the command whose output it holds."""
    every: dict[str, list[str]] = {}
    for size, topology in SIZES.items():
        words = ["train", f"configs/inserter_r1_{size}.yaml", "checkpoint.folder=gs://bucket/runs", "name=a run's name"]
        asked = ["--name", f"m2io-{size}", "--topology", topology]
        every[f"tpu_vm_{size}"] = [*TPU.split(), *asked, "--spot", *words]
        every[f"gke_{size}"] = ["launch/gke.sh", "run", *GKE.split(), *asked, "--queue", "research", *words]
        xpk = "--cluster my-cluster --project my-project --zone my-zone".split()
        every[f"xpk_{size}"] = ["launch/gke.sh", "xpk", *GKE.split(), *asked, *xpk, *words]
    two = ["--name", "m2io-two", "--topology", "2xv5e-16", "train", "configs/inserter_r1_3b.yaml", "seed=1"]
    every["tpu_vm_two_slices"] = [*TPU.split(), *two]
    every["gke_two_slices"] = ["launch/gke.sh", "run", *GKE.split(), "--spot", *two]
    reached = "--ssh --internal-ip --ssh --ssh-key-file=key --mounted /shared --mounted".split()
    every["tpu_vm_prepared"] = [*TPU.split(), *reached, "/a disk", *LOGGED, *two]
    every["gke_image"] = ["launch/gke.sh", "image", *GKE.split(), "--extra", "wandb"]
    tiny = ["train", "configs/tiny.yaml", "episodes=runs/a folder"]
    every["gpu_host"] = ["launch/gpu_host.sh", "run", "--dry-run", "--host", "me@box", *tiny]
    every["gpu_host_prepared"] = ["launch/gpu_host.sh", "run", "--dry-run", "--host", "me@box", *LOGGED, *tiny]
    every["gpu_docker"] = ["launch/gpu_host.sh", "run", "--dry-run", "--docker", *tiny]
    every["gpu_docker_prepared"] = ["launch/gpu_host.sh", "run", "--dry-run", "--docker", *LOGGED, *tiny]
    return every


def dry_run(command: list[str], **environment: str) -> str:
    """What it prints, where nothing can be run but a shell, its text tools and Python, and the user has no settings but
    secrets."""
    with tempfile.TemporaryDirectory() as folder:
        for tool in ("bash", "env", "dirname", "cat", "sed"):
            (Path(folder) / tool).symlink_to(shutil.which(tool))
        (Path(folder) / "python3").symlink_to(sys.executable)
        settings = {"PATH": folder} | SECRETS | environment
        ran = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True)
    if ran.returncode:
        raise RuntimeError(f"{command}: {ran.stderr}")
    return ran.stdout


def stored(name: str) -> Path:
    """The file that holds a command's output."""
    return STORED / f"{name}.txt"


if __name__ == "__main__":
    for name, command in commands().items():
        stored(name).write_text(dry_run(command))
