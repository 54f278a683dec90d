"""The metrics log: what a reader finds after writing, after a kill, after a resume."""

import json
import resource

import pytest

from m2io_jax.errors import UserError
from m2io_jax.training.metrics import METRICS_FILE, MetricsLog, read_metrics


def write_steps(run_dir, steps):
    log = MetricsLog(run_dir)
    for step in steps:
        log.write(step, {"reward": step / 10})
    log.close()


def test_each_line_is_readable_as_soon_as_it_is_written(tmp_path):
    log = MetricsLog(tmp_path / "new" / "run")
    log.write(1, {"reward": 0.5, "loss": 2.0, "kl": None})
    lines = (tmp_path / "new" / "run" / METRICS_FILE).read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"step": 1, "reward": 0.5, "loss": 2.0, "kl": None}]
    log.close()


def test_reopened_log_goes_on(tmp_path):
    write_steps(tmp_path, [1, 2])
    write_steps(tmp_path, [3])
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2, 3]


def test_what_the_disk_has_no_room_for_is_taken_back_whole(tmp_path):
    log = MetricsLog(tmp_path)
    log.write(1, {"reward": 0.5})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (log.path.stat().st_size + 9, limits[1]))  # room for half a line
    try:
        with pytest.raises(OSError):
            log.write(2, {"reward": 0.25})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    log.write(3, {"reward": 0.75})
    log.close()
    assert read_metrics(tmp_path) == [{"step": 1, "reward": 0.5}, {"step": 3, "reward": 0.75}]


@pytest.mark.parametrize("cut", range(1, 28))
def test_killed_in_any_byte_of_a_line_and_resumed(tmp_path, cut):
    write_steps(tmp_path, [1, 2, 3])
    path = tmp_path / METRICS_FILE
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    log = MetricsLog(tmp_path)
    log.truncate_after(2)
    log.write(3, {"reward": 0.3})
    log.close()
    assert path.read_bytes() == whole
    assert [file.name for file in tmp_path.iterdir()] == [METRICS_FILE]


def test_truncation_drops_later_steps_only(tmp_path):
    write_steps(tmp_path, [1, 2, 3, 4])
    log = MetricsLog(tmp_path)
    log.truncate_after(2)
    log.close()
    assert read_metrics(tmp_path) == [{"step": 1, "reward": 0.1}, {"step": 2, "reward": 0.2}]


def test_half_a_line_is_tolerated_at_the_end_only(tmp_path):
    path = tmp_path / METRICS_FILE
    path.write_text('{"step": 1}\n{"step": 2, "rew')
    assert read_metrics(tmp_path) == [{"step": 1}]
    path.write_text('{"step": 1}\n{"step": 2, "rew\n{"step": 3}\n')
    with pytest.raises(UserError, match="line 2"):
        read_metrics(tmp_path)


def test_no_file_no_metrics(tmp_path):
    assert read_metrics(tmp_path) == []


def test_unwritable_run_directory_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"):
        MetricsLog(tmp_path / "file" / "run")
