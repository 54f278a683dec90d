"""Weights & Biases with the real library, offline: what it kept is read back from its files."""

import json
import struct
from pathlib import Path

import pytest

from m2io_jax.config import RunConfig
from m2io_jax.errors import UserError
from m2io_jax.training.logging.identity import IDENTITY_FILE

wandb = pytest.importorskip("wandb", reason="Weights & Biases is not installed (the extra `wandb`)")
from wandb.proto.wandb_internal_pb2 import Record  # noqa: E402

from m2io_jax.training.logging import weights_and_biases  # noqa: E402

BLOCK, WHOLE, LAST = 32768, 1, 4  # bytes, and kinds of records


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for name in ("DATA", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "own"))


def opened(folder) -> weights_and_biases.WeightsAndBiases:
    folder.mkdir(exist_ok=True)
    config = RunConfig(name="soup", run=folder, objective="grpo", steps=9, logging={"wandb": "team/kitchen"})
    return weights_and_biases.opened(config)


def records(folder: Path) -> list[Record]:
    """Of all starts. A file is a header, then records as in LevelDB's log: whole, or in parts that keep to blocks."""
    found = []
    for path in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
        data, at, parts = path.read_bytes(), len(":W&B") + 3, b""
        while at + 7 <= len(data):
            if (left := BLOCK - at % BLOCK) < 7:
                at += left
                continue
            _, length, kind = struct.unpack_from("<IHB", data, at)
            parts += data[at + 7 : at + 7 + length]
            at += 7 + length
            if kind in (WHOLE, LAST):
                found.append(Record.FromString(parts))
                parts = b""
    return found


def history(folder: Path) -> list[dict]:
    """What was logged, a dictionary a step, without what it adds itself."""
    rows = []
    for record in records(folder):
        if record.HasField("history"):
            row = {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
            own = {name: value for name, value in row.items() if not name.startswith("_")}
            rows.append({"step": record.history.step.num, **own})
    return rows


def test_metrics_arrive_by_step_and_no_step_twice(tmp_path):
    sink = opened(tmp_path / "run")
    sink.write(1, {"reward": 0.25, "kl": None})
    sink.write(2, {"reward": 0.5, "kl": 0.125})
    sink.truncate_after(1)
    sink.write(1, {"reward": 9.0})  # known already
    sink.write(3, {"reward": 0.75})
    sink.close()
    assert history(tmp_path / "run") == [
        {"step": 1, "reward": 0.25},
        {"step": 2, "reward": 0.5, "kl": 0.125},
        {"step": 3, "reward": 0.75},
    ]


def test_a_resumed_run_is_the_same_run(tmp_path):
    for _ in range(2):
        opened(tmp_path / "run").close()
    known = json.loads((tmp_path / "run" / IDENTITY_FILE).read_text())["wandb"]
    runs = [record.run for record in records(tmp_path / "run") if record.HasField("run")]
    assert [(run.run_id, run.entity, run.project, run.display_name) for run in runs] == [
        (known, "team", "kitchen", "soup")
    ] * 2
    settings = {item.key: json.loads(item.value_json) for item in runs[0].config.update}
    assert settings["steps"] == 9 and settings["rollout"]["group_size"] == 8


def staged_table(tmp_path) -> dict:
    """The table as it would be uploaded, with its pictures."""
    staged = [path.read_bytes() for path in (tmp_path / "own" / "artifacts" / "staging").iterdir()]
    table, *_ = (json.loads(data) for data in staged if data.startswith(b"{") and b'"columns"' in data)
    return table


def test_samples_are_a_table_with_pictures(tmp_path, samples):
    sink = opened(tmp_path / "run")
    sink.write(7, {"reward": 0.5})
    sink.show(samples)
    sink.close()
    kept = staged_table(tmp_path)
    assert kept["columns"] == [
        "question", "answer", "pictures", "right", "completion", "reward", "advantage", "format", "selection"
    ]  # fmt: skip
    first, second = kept["data"]
    assert first[:2] == ["Soup?", "Soup?\nStir."] and first[3:] == [
        "B:1, A:2", "<answer>none</answer>", 0.375, 1.5, 1.0, 0.25
    ]  # fmt: skip
    assert second[4:] == ["other", None, 0.0, None, None]
    assert first[2]["_type"] == "image-file" and (first[2]["width"], first[2]["height"]) == (2 * 64, 14 + 64)
    (row,) = history(tmp_path / "run")  # beside the metrics of the step
    assert row["step"] == 7 and row["reward"] == 0.5 and row["samples/_type"] == "table-file"


def test_not_beginning_is_told_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(wandb, "init", lambda **_: (_ for _ in ()).throw(wandb.errors.UsageError("no login")))
    with pytest.raises(UserError) as caught:
        opened(tmp_path / "run")
    assert all(part in str(caught.value) for part in ("no login", "logging.wandb", "WANDB_MODE=offline"))
