"""The 3B's own dimensions: a checkpoint of 7.5 GB is written, read onto one device and onto four, and thrown away."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PROGRAM = Path(__file__).with_name("real_size.py")
GIB = 1024**3


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("3b")
    if shutil.disk_usage(folder).free < 20 * GIB:
        pytest.skip("needs 20 GiB of disk")
    started("write", folder)
    yield folder
    shutil.rmtree(folder)


def memory() -> int:
    return int(Path("/proc/meminfo").read_text().partition("MemAvailable:")[2].split()[0]) * 1024


def started(*words) -> str:
    done = subprocess.run([sys.executable, str(PROGRAM), *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "devices, dtype, gigabytes", [(1, "bfloat16", 7.5), (4, "bfloat16", 7.5), (1, "float32", 15.0)]
)
def test_the_host_never_holds_the_model(checkpoint, devices, dtype, gigabytes):
    if memory() < gigabytes * 1e9 + 5 * GIB:
        pytest.skip(f"needs {gigabytes + 5:.0f} GB of memory")
    found = json.loads(started("load", checkpoint, devices, dtype))
    print(found)
    assert found["arrays"] == pytest.approx(gigabytes * 1e9, rel=0.01)
    assert found["above"] < 3 * GIB, f"{found['above'] / GIB:.2f} GiB"
    if devices == 1:
        assert np.isfinite(found["log_probs"]).all() and np.isfinite(found["entropy"]).all()
        assert 0 < max(found["entropy"]) <= np.log(151936)


@pytest.mark.slow
def test_converting_takes_no_memory_for_the_model(checkpoint):
    found = json.loads(started("import", checkpoint))
    print(found)
    assert found["same"] and found["bytes"] > 7.4e9
    assert found["above"] < 3 * GIB, f"{found['above'] / GIB:.2f} GiB"
