"""Numbers as people write them, on every command line and in every file of settings."""

import pytest
import typer

from m2io_jax import cli
from m2io_jax.config import load_config, parse_override
from m2io_jax.config.text import read_yaml
from m2io_jax.corpus.importing import MarkdownSettings
from m2io_jax.corpus.kitchen import KitchenConfig
from m2io_jax.episodes.building import EpisodeConfig
from m2io_jax.episodes.generated import find_generated
from m2io_jax.episodes.published.draft import ReadConfig
from m2io_jax.errors import UserError
from m2io_jax.sweeps.plan import load_sweep
from m2io_jax.training.stages import load_stages

RUN = "name: x\nobjective: supervised\n"
WRITTEN = {
    "1e-1": 0.1,
    "5e-2": 0.05,
    "1E3": 1000.0,
    "+1e3": 1000.0,
    "-2e-3": -0.002,
    "1.e3": 1000.0,
    "1.5e3": 1500.0,
    ".5e-1": 0.05,
    "1e+2": 100.0,
    "012e0": 12.0,
    "1_000": 1000,
    ".05": 0.05,
}


@pytest.mark.parametrize(("text", "value"), WRITTEN.items())
def test_a_number_is_one_however_it_is_written(text, value):
    assert read_yaml(text) == value and type(read_yaml(text)) is type(value)
    assert read_yaml(f"a: [{text}, {{b: {text}}}]") == {"a": [value, {"b": value}]}
    assert parse_override(f"optimizer.learning_rate={text}") == (["optimizer", "learning_rate"], value)


@pytest.mark.parametrize("text", ["e3", "1e", "1e3x", "1e-", "x1e3", "1e3 4", "1-e3", "٣e3", "1e3e4", "'1e3'", "2e_3"])
def test_what_only_looks_like_one_is_text(text):
    assert read_yaml(text) == text.strip("'")


@pytest.mark.parametrize(("text", "value"), [(text, value) for text, value in WRITTEN.items() if 0 < value < 1])
def test_shares_are_read_by_every_command_that_makes_data(text, value):
    assert cli._with(ReadConfig(), [f"validation={text}"], "read rows").validation == value
    assert cli._with(EpisodeConfig(), [f"empty={text}"], "episodes").empty == value
    assert cli._with(KitchenConfig(), [f"caption_rate={text}"], "kitchen").caption_rate == value


@pytest.mark.parametrize("text", ["1e1", "1E+1", "+1e1", "1_0", "10", "10.0", ".1e2", "100e-1"])
def test_whole_numbers_are_too(text):
    made = [
        cli._with(ReadConfig(), [f"most={text}"], "read rows").most,
        cli._with(EpisodeConfig(), [f"max_candidates={text}"], "episodes").max_candidates,
        cli._with(KitchenConfig(), [f"documents={text}"], "kitchen").documents,
        cli._with(find_generated("counting"), [f"most={text}"], "generate").most,
        cli._whole_number(text),
    ]
    assert made == [10] * 5 and {type(value) for value in made} == {int}


@pytest.mark.parametrize("text", ["1.5", "15e-1", "1e-1", ".inf", "1e400", ".nan", "ten", "true", "1e1x", "[1e1]", ""])
def test_what_is_no_whole_number_is_refused(text):
    with pytest.raises(UserError, match="a whole number"):
        cli._with(ReadConfig(), [f"most={text}"], "read rows")
    with pytest.raises(typer.BadParameter):
        cli._whole_number(text)


@pytest.mark.parametrize("text", [".inf", "1e400", "-1e400", ".nan", "abc", "9" * 400, "false", "1e-1x"])
def test_what_is_no_finite_number_is_refused(text):
    with pytest.raises(UserError, match="give a number"):
        cli._with(EpisodeConfig(), [f"empty={text}"], "episodes")


WRITTEN_NAMES = ["1e5", "1e-4", "007", "0123", "1_000", "1.10", "0x10", "2026", "2026-01-01", "1e400"]


@pytest.mark.parametrize("name", WRITTEN_NAMES)
def test_a_setting_of_text_takes_a_number_as_it_is_written(tmp_path, name):
    config, stages = tmp_path / "config.yaml", tmp_path / "stages.yaml"
    config.write_text(f"name: {name}\nobjective: supervised\nsteps: 1\nepisodes: {name}\nfreeze: [{name}]\n")
    run = load_config(config, [f"init={name}", f"run={name}", f"checkpoint.folder={name}"])
    assert (run.name, run.init, str(run.run), run.checkpoint.folder, run.freeze) == (name, name, name, name, (name,))
    assert str(run.episodes) == name
    config.write_text(run.to_yaml())
    assert load_config(config) == run
    assert load_config(config, [f"episodes={name}", f"name={name}"]) == run

    stages.write_text(f"{RUN}steps: 1e1\nstages:\n  a: {{freeze: [{name}]}}\n  b: {{}}\n")
    first, second = load_stages(stages, [f"stages.b.freeze=[{name}]"]).runs
    assert (first.freeze, second.freeze, first.steps) == ((name,), (name,), 10)
    assert cli._with(MarkdownSettings(), [f"cache={name}"], "corpus import markdown").cache == name


def test_aliases_cost_no_more_than_they_are_written(tmp_path):
    rows = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9) if i else '1'}]" for i in range(30)]
    (tmp_path / "config.yaml").write_text("\n".join(rows))
    with pytest.raises(UserError, match="a29"):
        load_config(tmp_path / "config.yaml")


def test_runs_stages_and_sweeps_read_them_in_files_and_in_settings(tmp_path):
    config, stages, sweep = (tmp_path / f"{name}.yaml" for name in ("config", "stages", "sweep"))
    config.write_text(RUN + "steps: 1e3\noptimizer: {learning_rate: 5e-5, eps: 1E-6}\n")
    run = load_config(config, ["seconds=1e1", "tasks.inserter=5e-1"])
    assert (run.steps, run.seconds, run.tasks["inserter"]) == (1000, 10.0, 0.5)
    assert (run.optimizer.learning_rate, run.optimizer.eps) == (5e-5, 1e-6)
    with pytest.raises(UserError, match="`steps` is 0.5"):
        load_config(config, ["steps=5e-1"])

    stages.write_text(RUN + "steps: 1e1\nstages:\n  a: {optimizer: {learning_rate: 2e-4}}\n  b: {}\n")
    first, second = load_stages(stages, ["stages.b.steps=+2e1"]).runs
    assert (first.optimizer.learning_rate, first.steps, second.steps) == (2e-4, 10, 20)

    axes = "config: config.yaml\ngrid: {optimizer.learning_rate: [1e-4, 0.0002]}\n"
    sweep.write_text("name: s\n" + axes + "price_per_chip_hour: {here: 1e-1}\n")
    plan, runs = load_sweep(sweep, ["rollout.temperature=5e-1"])
    assert [run.settings["optimizer.learning_rate"] for run in runs] == [1e-4, 2e-4]
    assert plan.price_per_chip_hour == {"here": 0.1} and runs[0].settings["rollout.temperature"] == 0.5
    assert len({run.name for run in runs}) == 2
    sweep.write_text("name: s\n" + axes.replace("0.0002", "0.0001"))
    with pytest.raises(UserError, match="Two runs are the same"):
        load_sweep(sweep)
