from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m2io_jax.config import RunConfig
from m2io_jax.errors import UserError
from m2io_jax.training.checkpoints import COMPLETE, MERGED, Checkpoints, require_reachable
from m2io_jax.training.checks import check
from m2io_jax.training.literal_path import LiteralPath, literal_path

NAMES = [
    "lr[1e-4]",
    "a*b",
    "what?",
    "{a,b}",
    "[!a]",
    "half[open",
    "shut]",
    "[[]",
    "sp ace",
    "数据 é",
    "it's \"so\"",
    "50%20",
    "#1",
    "~",
    "-dash",
    "new\nline",
    "a:b",
    "$HOME",
    "<b>&amp;",
]


def state_of(seed):
    return {"w": jax.random.normal(jax.random.key(seed), (8, 3)), "key": jax.random.key(seed)}


def is_equal(one, other):
    same_keys = (jax.random.key_data(one["key"]) == jax.random.key_data(other["key"])).all()
    return same_keys and np.array_equal(one["w"], other["w"])


@pytest.mark.parametrize("name", NAMES)
def test_a_run_goes_on_whatever_its_folder_is_called(tmp_path, name):
    folder = tmp_path / name / "checkpoints"
    for step in (1, 2, 3):  # each time as a new process would
        with Checkpoints(folder) as checkpoints:
            checkpoints.save(step, state_of(step), {"step": step}, rollouts={"a": np.arange(step)})
    again = Checkpoints(folder)
    assert again.steps() == [2, 3] == sorted(int(path.name) for path in folder.iterdir())
    restored, extra = again.restore(3, jax.eval_shape(lambda: state_of(0)))
    assert is_equal(restored, state_of(3)) and extra == {"step": 3}
    np.testing.assert_array_equal(again.rollouts(3, {"a": np.zeros(3, int)})["a"], np.arange(3))


def test_wildcards_of_the_pattern_alone_count(tmp_path):
    for name in ("part[1]/x.1", "part[1]/x.2", "part[1]/y.1", "part1/x.3"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = literal_path(tmp_path / "part[1]").glob("x.*")
    assert sorted(map(str, found)) == [str(tmp_path / "part[1]" / name) for name in ("x.1", "x.2")]
    below = list((literal_path(tmp_path) / "part[1]").parent.glob("part[[]1]/y.?"))
    assert below == [tmp_path / "part[1]/y.1"] and isinstance(below[0], LiteralPath)


@pytest.mark.parametrize(
    "place",
    [
        "runs/back\\slash/checkpoints",
        "/data/gs:/checkpoints",
        "logs:/x",
        "runs/logs:",
        "/gs/bucket/runs",
        "gs://bucket/runs[1]/x",
        "gs://bucket/a*b",
        "gs://bucket/what?/x",
        "gs://bucket/#1",
        "gs://bucket/new\nline",
    ],
)
def test_what_cannot_be_written_below_is_refused_by_its_path(place):
    with pytest.raises(UserError, match="(?s)Checkpoints cannot be written below.*where: .*mend: ") as caught:
        Checkpoints(place)
    assert place in str(caught.value)
    with pytest.raises(UserError, match="cannot be written below"):
        require_reachable(place)


@pytest.mark.parametrize("where", [{"run": "runs/a\\b"}, {"checkpoint": {"folder": "gs://bucket/a[1]"}}])
def test_a_run_is_refused_before_it_trains(where):
    config = RunConfig(name="x", objective="supervised", steps=1, episodes="none", **where)
    with pytest.raises(UserError, match="cannot be written below"):
        check(config)


def without_merging(monkeypatch):
    """As Orbax did below a path with brackets: it found no parts to merge."""
    monkeypatch.setattr(LiteralPath, "glob", lambda self, pattern: iter(()))


def test_what_is_not_merged_is_never_called_complete(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, state_of(1), {})
    checkpoints.wait()
    with monkeypatch.context() as patched:
        without_merging(patched)
        checkpoints.save(2, state_of(2), {})
        with pytest.raises(UserError, match=rf"Checkpoint 2 cannot be read back.*state/{MERGED}") as caught:
            checkpoints.wait()
    assert str(tmp_path / "2") in str(caught.value) and not Path(tmp_path / "2" / COMPLETE).exists()
    assert checkpoints.steps() == [1]
    checkpoints.close()
    with Checkpoints(tmp_path) as again:
        again.save(2, state_of(2), {})
    assert again.steps() == [1, 2] and is_equal(again.restore(2, state_of(0))[0], state_of(2))


def test_a_kill_before_the_check_leaves_nothing_that_counts_as_complete(tmp_path, monkeypatch, caplog):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state_of(1), {})
        checkpoints.wait()
        with monkeypatch.context() as patched:
            without_merging(patched)
            checkpoints.save(2, state_of(2), {})
            checkpoints._under_way[1].result()  # Orbax has written its mark, and the process is killed
        checkpoints._under_way = None
    assert (tmp_path / "2" / COMPLETE).exists()
    assert Checkpoints(tmp_path).steps() == [1] and (tmp_path / "2" / COMPLETE).exists()  # a reader changes nothing
    with pytest.raises(UserError, match="no checkpoint of step 2"):
        Checkpoints(tmp_path).extra(2)
    with Checkpoints(tmp_path) as again:
        again.save(2, state_of(3), {"again": True})
    assert "without merging its parts" in caplog.text
    restored, extra = again.restore(2, jax.eval_shape(lambda: state_of(0)))
    assert again.steps() == [1, 2] and extra == {"again": True} and is_equal(restored, state_of(3))


def test_rollouts_that_are_not_merged_are_told_too(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"a": jnp.zeros(2)}, {}, rollouts={"a": np.arange(3)})
    response = checkpoints._under_way[1]
    response.result()
    (tmp_path / "1" / "rollouts" / MERGED).unlink()
    with pytest.raises(UserError, match=f"rollouts/{MERGED}"):
        checkpoints.close()
    assert checkpoints.steps() == []


def test_rollouts_without_an_array_have_nothing_to_merge(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"a": jnp.zeros(2)}, {}, rollouts={"a": []})
    assert checkpoints.steps() == [1]
