import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from m2io_jax.config import CheckpointConfig, RunConfig
from m2io_jax.episodes.episode import Episode
from m2io_jax.episodes.pipeline import Portion, episode_pipeline
from m2io_jax.errors import RowError, UserError
from m2io_jax.training.checkpoints import Checkpoints, require_reachable
from m2io_jax.training.resuming import BestBy

ROWS = [Episode(str(i), "", (), (), (), ()) for i in range(11)]
EXTRA = {"resume_key": {"seed": 3, "init": None, "tasks.inserter": 0.5}, "seconds": 1.25, "counters": {"dropped": 2}}


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Keys:
    sampling: jax.Array
    noise: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    step: jax.Array
    params: nnx.State
    optimizer: optax.OptState
    keys: Keys


def state_of(seed: int) -> TrainState:
    values = jax.random.normal(jax.random.key(seed), (64, 96))
    params = nnx.State({"a": nnx.Param(values, axes=("embed", "mlp")), "b": nnx.Param(values[0].astype(jnp.bfloat16))})
    keys = Keys(jax.random.split(jax.random.key(seed), 3), jax.random.key(seed, impl="rbg"))
    return TrainState(jnp.int32(seed), params, optax.adamw(1e-3).init(params), keys)


def keep_most(episode, random):
    if episode.id == "4":
        raise RowError("a four")
    return int(episode.id), int(random.integers(2**40))


def pipeline():
    return episode_pipeline([Portion(ROWS, keep_most)], seed=5, batch_of=3)


def standing_at(rows):
    return EXTRA | {"data": rows.get_state()}


def bits(state):
    """Bytes, types and structure: equal only where nothing at all differs."""

    def leaf(x):
        x = jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
        return str(x.dtype), x.shape, np.asarray(x).tobytes()

    return jax.tree.structure(state), [(leaf(x), str(x.dtype)) for x in jax.tree.leaves(state)]


def test_everything_comes_back_bit_for_bit(tmp_path):
    rows, state = pipeline(), state_of(7)
    for _ in range(5):
        next(rows)
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        given = standing_at(rows)
        checkpoints.save(7, state, given)
        expected = [next(rows) for _ in range(27)]
    again, fresh = Checkpoints(tmp_path / "checkpoints"), pipeline()
    assert again.latest() == 7 and again.extra(7) == given
    restored, extra = again.restore(7, jax.eval_shape(lambda: state_of(0)))
    assert bits(restored) == bits(state) and extra == given and json.dumps(extra) == json.dumps(given)
    fresh.set_state(extra["data"])
    assert restored.params["a"].get_metadata()["axes"] == ("embed", "mlp")
    assert [next(fresh) for _ in range(27)] == expected and fresh.dropped == rows.dropped
    assert bits(again.restore(7, state_of(0))[0]) == bits(state)


def test_what_is_saved_is_the_state_as_it_was_although_the_next_step_is_given_its_memory(tmp_path):
    update = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf * 3 + 1, state), donate_argnums=0)
    state = {"a": jax.random.normal(jax.random.key(0), (1024, 1024)), "b": jnp.arange(7)}
    expected = jax.tree.map(np.array, state)
    with Checkpoints(tmp_path) as checkpoints:
        for step in range(4):
            checkpoints.save(step, state, {})
            state = update(state)
            checkpoints.wait()
            assert bits(checkpoints.restore(step, expected)[0]) == bits(expected)
            expected = jax.tree.map(np.array, state)


def test_saving_goes_on_beside_the_run_and_the_next_waits_for_it(tmp_path):
    state = {"a": jnp.zeros((2048, 2048))}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, {})
        assert checkpoints.latest() is None
        checkpoints.save(2, state, {})
        assert checkpoints.latest() == 1
    assert checkpoints.steps() == [1, 2]


MEASURES = {2: 0.5, 4: 0.9, 6: 0.1, 8: None, 10: 0.4, 12: 0.3}


@pytest.mark.parametrize(
    ("kept", "stay"),
    [
        ({"keep": 3}, [8, 10, 12]),
        ({"keep": 1, "keep_every": 4}, [4, 8, 12]),
        ({"keep": 1, "keep_best": 2, "best_by": "reward"}, [2, 4, 12]),
        ({"keep": 1, "keep_best": 2, "best_by": "loss", "best": "lowest"}, [6, 12]),
        ({"keep": 2, "keep_every": 8, "keep_best": 1, "best_by": "reward"}, [4, 8, 10, 12]),
    ],
)
def test_what_stays_is_by_policy_also_over_a_restart(tmp_path, kept, stay):
    config = CheckpointConfig(every_steps=2, **kept)
    for steps in ((2, 4, 6, 8), (10, 12)):
        with Checkpoints(tmp_path, config) as checkpoints:
            for step in steps:
                checkpoints.save(step, {"a": jnp.full(2, step)}, {}, measured=MEASURES[step])
    assert checkpoints.steps() == stay == sorted(int(path.name) for path in tmp_path.iterdir())


def test_the_best_are_chosen_by_a_mean_since_the_checkpoint_before():
    kept = {"keep_best": 1, "best_by": "reward"}
    best = BestBy(RunConfig(name="x", objective="supervised", steps=1, checkpoint=kept))
    for reward in (0.25, 0.5, 0.75):
        best.note({"reward": reward, "loss": 3.0})
    assert best.take() == 0.5 and best.take() is None
    best.note({"reward": math.nan})
    best.note({"reward": 1.0})
    assert best.take() is None
    with pytest.raises(UserError, match=r"`checkpoint.best_by` names `reward`(.|\n)*allowed: loss, rewards"):
        BestBy(RunConfig(name="x", objective="supervised", steps=1, checkpoint=kept)).note({"loss": 3.0, "rewards": 1})


def test_a_step_without_completions_of_a_part_is_no_end():
    """Of several tasks a step may have drawn none that has the part."""
    kept = {"keep_best": 1, "best_by": "rewards/accuracy/mean"}
    rewards = {"format": 1, "accuracy": 1}
    best = BestBy(RunConfig(name="x", objective="grpo", steps=1, checkpoint=kept, rewards=rewards))
    for metrics in ({"loss": 3.0}, {"rewards/accuracy/mean": 0.5}, {"loss": 3.0}):
        best.note(metrics)
    assert best.take() == 0.5
    with pytest.raises(UserError, match="rewards/exactness/mean"):
        unknown = {"keep_best": 1, "best_by": "rewards/exactness/mean"}
        BestBy(RunConfig(name="x", objective="grpo", steps=1, checkpoint=unknown, rewards=rewards)).note({"loss": 3.0})


def test_the_address_of_a_bucket_is_left_as_it_is():
    assert str(Checkpoints("gs://bucket/runs//x").directory) == "gs://bucket/runs/x"


def test_a_bucket_needs_what_reaches_it(monkeypatch):
    monkeypatch.setattr("m2io_jax.training.checkpoints.find_spec", lambda module: None)
    require_reachable("runs/x/checkpoints")
    with pytest.raises(UserError, match=r"(?s)Cloud Storage.*gs://b/runs/x.*pip install -e '\.\[bucket\]'"):
        require_reachable("gs://b/runs/x")


def test_restored_onto_another_mesh(tmp_path):
    def on(count):
        mesh = jax.make_mesh((count,), ("fsdp",), (jax.sharding.AxisType.Auto,), devices=jax.devices()[:count])
        return NamedSharding(mesh, PartitionSpec("fsdp"))

    values = np.arange(64, dtype=np.float32).reshape(16, 4)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"a": jax.device_put(values, on(8))}, {})
    for count in (1, 2, 4):
        abstract = {"a": jax.ShapeDtypeStruct(values.shape, values.dtype, sharding=on(count))}
        restored, _ = checkpoints.restore(1, abstract)
        assert restored["a"].sharding == on(count)
        np.testing.assert_array_equal(restored["a"], values)


def test_the_newest_stay_and_a_step_is_saved_once(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest() is None and checkpoints.steps() == []
        for step in (5, 9, 100):
            checkpoints.save(step, {"a": jnp.full(2, step)}, {"step": step})
        checkpoints.save(100, {"a": jnp.zeros(2)}, {"step": 0})
        with pytest.raises(UserError, match="older than checkpoint 100"):
            checkpoints.save(50, {"a": jnp.zeros(2)}, {})
    assert checkpoints.steps() == [9, 100] == sorted(int(path.name) for path in tmp_path.iterdir())
    assert checkpoints.extra(100) == {"step": 100}
    with pytest.raises(UserError, match=r"no checkpoint of step 5(.|\n)*\[9, 100\]"):
        checkpoints.restore(5, {"a": jnp.zeros(2)})


SAVING = """
import sys
from tests_checkpoints import Checkpoints, pipeline, state_of
checkpoints, rows = Checkpoints(sys.argv[1]), pipeline()
start = checkpoints.latest()
if start is not None:
    state, extra = checkpoints.restore(start, state_of(0))
    rows.set_state(extra["data"])
for step in range(1 if start is None else start + 1, 10**6):
    next(rows)
    checkpoints.save(step, state_of(step), {"step": step, "data": rows.get_state()})
    checkpoints.wait()
    print(step, flush=True)
"""


def half_written(where: Path) -> list[Path]:
    """What is newer than the newest complete checkpoint."""
    newest = Checkpoints(where).latest() or 0
    return [path for path in where.glob("*") if path.name.isdecimal() and int(path.name) > newest]


def test_killed_while_saving_leaves_the_last_complete_one(tmp_path):
    where = tmp_path / "checkpoints"
    # this file by another name: the tests are no package
    shutil.copy(__file__, tmp_path / "tests_checkpoints.py")
    root = Path(__file__).resolve().parents[2]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(root)]), "JAX_NUM_CPU_DEVICES": "1"}
    said = 0
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-c", SAVING, str(where)], env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        for _ in range(2):
            said = int(process.stdout.readline())
        deadline = time.monotonic() + 60
        while not half_written(where) and time.monotonic() < deadline:
            pass
        process.send_signal(signal.SIGKILL)
        said = int(([said] + process.stdout.read().split())[-1])
        process.wait()
        assert half_written(where), "it was not killed in the middle of a save"

        checkpoints, rows, never_killed = Checkpoints(where), pipeline(), pipeline()
        latest = checkpoints.latest()
        assert latest >= said and len(half_written(where)) == 1
        state, extra = checkpoints.restore(latest, jax.eval_shape(lambda: state_of(0)))
        rows.set_state(extra["data"])
        assert bits(state) == bits(state_of(latest)) and extra["step"] == latest
        for _ in range(latest):
            next(never_killed)
        assert next(rows) == next(never_killed)


def largest(folder: Path) -> Path:
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


@pytest.mark.parametrize(
    "damage",
    [
        lambda saved: os.truncate(largest(saved / "state"), 100),
        lambda saved: (saved / "state" / "manifest.ocdbt").unlink(),
        lambda saved: shutil.rmtree(saved / "state"),
        lambda saved: [path.write_text("{") for path in (saved / "extra").glob("*.json")],
    ],
    ids=["cut", "no manifest", "no state", "no JSON"],
)
def test_a_damaged_one_is_named_with_the_way_on(tmp_path, damage):
    with Checkpoints(tmp_path) as checkpoints:
        for step in (3, 8):
            checkpoints.save(step, state_of(step), EXTRA)
    damage(tmp_path / "8")
    with pytest.raises(UserError, match="Checkpoint 8 cannot be read") as caught:
        checkpoints.restore(8, state_of(0))
    assert str(tmp_path / "8") in str(caught.value) and "goes on from step 3" in str(caught.value)
    assert bits(checkpoints.restore(3, state_of(0))[0]) == bits(state_of(3))


def test_other_shapes_are_refused_by_number(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"a": jnp.zeros(4)}, {})
    with pytest.raises(UserError, match=r"\(3,\).*\(4,\)"):
        checkpoints.restore(1, {"a": jnp.zeros(3)})


def test_a_path_that_cannot_be_a_directory(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "checkpoints"):
        checkpoints = Checkpoints(path)
        assert checkpoints.latest() is None
        with pytest.raises(UserError, match="Checkpoint 1 cannot be written") as caught:
            checkpoints.save(1, {"a": jnp.zeros(4)}, {})
            checkpoints.wait()
        assert str(path) in str(caught.value)


def test_a_full_disk_names_what_is_kept_and_can_be_mended(tmp_path, caplog):
    big = {"a": jax.random.normal(jax.random.key(0), (300, 100))}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, big, {})
        checkpoints.wait()
        unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
        # A limit on the size of files stands in for a disk that has no room.
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, unlimited[1]))
        try:
            with pytest.raises(UserError, match="Checkpoint 2 cannot be written .checkpoint 1 is whole"):
                checkpoints.save(2, big, {})  # goes on while it is written, so it is the next that tells
                checkpoints.save(3, big, {})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
        assert "Traceback" not in caplog.text
        assert checkpoints.latest() == 1
        checkpoints.save(2, big, {})
    assert bits(checkpoints.restore(2, big)[0]) == bits(big)
