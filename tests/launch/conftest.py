"""Lets these tests import `launcher_commands` (pytest's importlib mode leaves test folders off the path), and makes a
source tree for them."""

import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def tree(tmp_path) -> Path:
    """As much of the source tree as a launcher needs: copies are quick."""
    folder = tmp_path / "tree"
    shutil.copytree(ROOT / "launch", folder / "launch")
    (folder / "m2io_jax" / "parallel").mkdir(parents=True)
    for name in ("__init__.py", "errors.py", "parallel/__init__.py", "parallel/topologies.py"):
        shutil.copy(ROOT / "m2io_jax" / name, folder / "m2io_jax" / name)
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / "configs").mkdir()
    (folder / "configs" / "a.yaml").write_text("name: a\n")
    (folder / "runs").mkdir()
    (folder / "runs" / "large").write_text("not to be copied")
    return folder
