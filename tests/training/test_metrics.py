"""The metrics log: what a reader finds after writing, after a kill, after a resume."""

import json
import logging
import math
import struct

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from m2io_jax.errors import UserError
from m2io_jax.training.metrics import METRICS_FILE, MetricsLog, read_metrics


def write_steps(run_dir, steps):
    with MetricsLog(run_dir, tensorboard=False) as log:
        for step in steps:
            log.write(step, {"reward": step / 10})


def test_each_line_is_readable_as_soon_as_it_is_written(tmp_path):
    log = MetricsLog(tmp_path / "new" / "run", tensorboard=False)
    log.write(1, {"reward": np.float32(0.5), "loss": 2})
    lines = (tmp_path / "new" / "run" / METRICS_FILE).read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"step": 1, "reward": 0.5, "loss": 2.0}]
    log.close()


def test_reopened_log_goes_on(tmp_path):
    write_steps(tmp_path, [1, 2])
    write_steps(tmp_path, [3])
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2, 3]


def test_not_finite_is_null_and_told(tmp_path, caplog):
    with caplog.at_level(logging.WARNING), MetricsLog(tmp_path) as log:
        log.write(4, {"kl": math.nan, "loss": -math.inf, "reward": 1.0})
    assert read_metrics(tmp_path) == [{"step": 4, "kl": None, "loss": None, "reward": 1.0}]
    assert "NaN" not in (tmp_path / METRICS_FILE).read_text()
    assert "step 4: not finite: kl, loss" in caplog.text


@pytest.mark.parametrize("cut", range(1, 28))
def test_killed_in_any_byte_of_a_line_and_resumed(tmp_path, cut):
    write_steps(tmp_path, [1, 2, 3])
    path = tmp_path / METRICS_FILE
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    with MetricsLog(tmp_path, tensorboard=False) as log:
        log.truncate_after(2)
        log.write(3, {"reward": 0.3})
    assert path.read_bytes() == whole
    assert [file.name for file in tmp_path.iterdir()] == [METRICS_FILE]


def test_truncation_drops_later_steps_only(tmp_path):
    write_steps(tmp_path, [1, 2, 3, 4])
    with MetricsLog(tmp_path, tensorboard=False) as log:
        log.truncate_after(2)
    assert read_metrics(tmp_path) == [{"step": 1, "reward": 0.1}, {"step": 2, "reward": 0.2}]


def test_half_a_line_is_tolerated_at_the_end_only(tmp_path):
    path = tmp_path / METRICS_FILE
    path.write_text('{"step": 1}\n{"step": 2, "rew')
    assert read_metrics(tmp_path) == [{"step": 1}]
    path.write_text('{"step": 1}\n{"step": 2, "rew\n{"step": 3}\n')
    with pytest.raises(UserError, match="line 2"):
        read_metrics(tmp_path)


def read_events(run_dir):
    """Reads TensorBoard's record files by their published layout: length, its checksum, event, its checksum."""
    for path in sorted((run_dir / "tensorboard").iterdir(), key=lambda path: path.stat().st_mtime_ns):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            yield Event.FromString(data[at + 12 : at + 12 + length])
            at += 16 + length


def test_tensorboard_is_told_of_scalars_and_of_what_a_resume_takes_back(tmp_path):
    with MetricsLog(tmp_path) as log:
        log.write(1, {"reward": 0.25})
        log.write(2, {"reward": 0.5, "kl": math.nan})
        log.truncate_after(1)
        log.write(2, {"reward": 0.75})
    events = list(read_events(tmp_path))
    scalars = [(event.step, value.tag, value.simple_value) for event in events for value in event.summary.value]
    assert scalars == [(1, "reward", 0.25), (2, "reward", 0.5), (2, "reward", 0.75)]
    starts = [event.step for event in events if event.session_log.status == SessionLog.START]
    assert starts == [2]


def test_no_file_no_metrics(tmp_path):
    assert read_metrics(tmp_path) == []


def test_unwritable_run_directory_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"):
        MetricsLog(tmp_path / "file" / "run")
