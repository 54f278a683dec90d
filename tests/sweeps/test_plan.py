"""What a sweep's file stands for: which runs, under which names, and what is told of a wrong one."""

import itertools
import re
from pathlib import Path

import pytest
import yaml

from m2io_jax.config import parse_override
from m2io_jax.errors import UserError
from m2io_jax.sweeps.plan import load_sweep

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def load(tmp_path):
    def load(overrides=(), **plan):
        path = tmp_path / "sweep.yaml"
        path.write_text(yaml.safe_dump({"name": "s"} | plan, sort_keys=False))
        return load_sweep(path, overrides)

    return load


def names(load, **plan) -> set[str]:
    return {run.name for run in load(**plan)[1]}


def test_a_run_is_an_item_of_each_axis(load):
    sizes = {"a": {"config": "a.yaml", "settings": {"steps": 7}}, "b": {}}
    grid = {"rollout.group_size": [4, 8], "steps": [1, 2, 3]}
    sweep, runs = load(config="c.yaml", settings={"steps": 5, "model": "tiny"}, sizes=sizes, grid=grid, seeds=[0, 1],
                       runs=[{}, {"rewards.order": 0}])  # fmt: skip
    expected = [
        (size, config, {"model": "tiny", "rollout.group_size": group, "steps": steps, "seed": seed} | own)
        for (size, config), own, group, steps, seed in itertools.product(
            [("a", "a.yaml"), ("b", "c.yaml")], [{}, {"rewards.order": 0}], [4, 8], [1, 2, 3], [0, 1])
    ]  # fmt: skip
    assert [(run.size, str(run.config), run.settings) for run in runs] == expected
    assert sweep.folder == Path("runs/sweeps/s")
    assert len({run.name for run in runs}) == len(runs) == 48


def test_settings_of_a_size_are_laid_over_those_of_all_and_the_command_line_over_both(load):
    size = {"config": "c.yaml", "settings": {"steps": 7, "seed": 2}}
    (run,) = load(["seed=3"], settings={"steps": 5, "model": "3b"}, sizes={"a": size})[1]
    assert run.settings == {"steps": 7, "seed": 3, "model": "3b"}


def test_a_name_follows_from_the_values_wherever_they_are_given(load):
    one = names(load, config="configs/c.yaml", settings={"steps": 2, "model": "tiny"}, seeds=[0, 1])
    assert one == names(load, grid={"seed": [1, 0]}, config="configs/c.yaml", settings={"model": "tiny", "steps": 2})
    assert one == names(load, runs=[{"steps": 2, "seed": 1}, {"seed": 0, "steps": 2}], settings={"model": "tiny"},
                        sizes={"any": {"config": "configs/c.yaml"}}, name="other", folder="elsewhere")  # fmt: skip
    assert one == names(load, config="configs/c.yaml", settings={"steps": 2.0, "model": "tiny"}, seeds=[0, 1])
    # named here once, by hand: a change of the rule would make every finished run again
    assert one == {"c-modeltiny-seed0-steps2-7030eb", "c-modeltiny-seed1-steps2-51e51d"}


@pytest.mark.parametrize(
    "other",
    [{"config": "d.yaml"}, {"settings": {"steps": 3}}, {"settings": {"steps": "2"}}, {"settings": {}},
     {"settings": {"steps": 2, "tasks": {"inserter": 1}}}, {"settings": {"checkpoint.steps": 2}}],
)  # fmt: skip
def test_other_values_have_another_name(load, other):
    plan = {"config": "c.yaml", "settings": {"steps": 2}}
    assert names(load, **plan).isdisjoint(names(load, **plan | other))


def test_a_name_is_one_that_runs_and_clouds_take(load):
    odd = {"init": "a/b c", "name_of.x": "é ü", "tasks": {"a": 1}, "long": "x" * 300, "y" * 50: 1}
    (run,) = load(config="c.yaml", settings=odd)[1]
    assert re.fullmatch(r"\w[\w.-]*", run.name, re.ASCII) and len(run.name) < 60


def test_what_train_is_given_is_read_back_as_it_was_set(load):
    settings = {"init": "a: b", "seed": 3, "tasks": {"inserter": 1.5}, "freeze": [r"vision\..*"], "seconds": None,
                "batch.explain": True}  # fmt: skip
    (run,) = load(config="c.yaml", settings=settings)[1]
    config, *words = run.words(Path("runs/sweeps/s/x"))
    read = dict((".".join(keys), value) for keys, value in map(parse_override, words))
    assert config == "c.yaml" and read == settings | {"name": run.name, "run": "runs/sweeps/s/x"}


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        ({}, ("config",)),
        ({"config": "c", "seedz": [1]}, ("seedz", "line", "seeds")),
        ({"config": "c", "sizes": {"3b": {"topologie": "v5e-16"}}}, ("sizes.3b.topologie", "topology")),
        ({"config": "c", "launcher": {"nam": "tpu_vm"}}, ("launcher.nam", "name")),
        ({"config": "c", "launcher": {"name": "tpu_vm"}}, ("`launcher.runs`", "absolute", "outlives")),
        ({"config": "c", "launcher": {"runs": "r"}}, ("`launcher.runs`", "NFS share", "hierarchical namespace")),
        ({"config": "c", "launcher": {"runs": "runs"}}, ("`launcher.runs`", "'runs'", "absolute", "outlives")),
        ({"config": "c", "grid": {"seed": []}}, ("grid.seed", "at least 1")),
        ({"config": "c", "grid": {"seed": [1]}, "seeds": [2]}, ("`seed`", "two axes")),
        ({"config": "c", "grid": {"steps": [1]}, "runs": [{"steps": 2}]}, ("`steps`", "two axes")),
        ({"config": "c", "settings": {"name": "x"}}, ("`name`", "of its own")),
        ({"config": "c", "runs": [{"run": "x"}]}, ("`run`", "of its own")),
        ({"config": "c", "seeds": [1, 1]}, ("are the same", "leave one")),
        ({"sizes": {"a": {"config": "c"}, "b": {"config": "c"}}}, ("sizes a and b",)),
        ({"config": "c", "sizes": {"a": {"topology": "v5e-16"}}}, ("no launcher",)),
        ({"config": "c", "sizes": {"a": {"topology": "v5e-17"}}, "launcher": {"runs": "/shared"}}, ("v5e:4x4",)),
        ({"sizes": {"a": {"config": "c", "topology": "v5e-16"}}, "launcher": {"runs": "/shared"},
          "settings": {"episodes": {"look": "runs/e"}}}, ("`episodes`", "size `a`", "not copied", "all machines see")),
        ({"config": "c", "price_per_chip_hour": {"v5": 1.0}}, ("`v5`", "v5e", "here")),
        ({"config": "c", "launcher": {"runs": "/shared"}}, ("`launcher`", "topology")),
    ],
)
def test_a_wrong_plan_is_told(load, plan, told):
    with pytest.raises(UserError) as error:
        load(**plan)
    assert all(part in str(error.value) for part in told), error.value


def test_a_run_has_its_own_name_whatever_the_command_line_says(load):
    with pytest.raises(UserError, match="name=x"):
        load(["name=x"], config="c.yaml")
