"""A run in stages: what each is made of, what is told when one is wrong, and that each goes on from the one before."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from killed_run import small_run
from safetensors.numpy import load_file

from m2io_jax import cli
from m2io_jax.config import GRPOConfig, LoraSection, OptimizerConfig, load_config
from m2io_jax.errors import UserError
from m2io_jax.evaluation.command import run_config
from m2io_jax.models.policy import load_policy
from m2io_jax.training import stages as module
from m2io_jax.training.run import train
from m2io_jax.training.stages import load_stages, train_stages

PLAN = """\
name: two
objective: grpo
steps: 9
tasks: {inserter: 1}
batch: {prompts: 4, pictures: 2}
stages:
  text:
    tasks: {arithmetic: 1}
    rewards: {accuracy: 1}
    batch: {pictures: 1}
  pictures:
    steps: 5
    grpo:
      kl_beta: 0.1
"""


@pytest.fixture
def write(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "two.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_a_stage_is_laid_over_what_all_share(write):
    stages = load_stages(write(PLAN))
    text, pictures = stages.runs
    assert stages.folder == Path("runs/two") and not stages.are_one_run
    assert [(run.name, run.run) for run in stages.runs] == [
        ("two-text", Path("runs/two/text")),
        ("two-pictures", Path("runs/two/pictures")),
    ]
    assert (text.init, pictures.init) == ("base", "runs/two/text")
    assert (text.steps, pictures.steps) == (9, 5)
    assert (text.batch.prompts, text.batch.pictures, pictures.batch.pictures) == (4, 1, 2)  # key by key
    assert (text.tasks, text.rewards) == ({"arithmetic": 1.0}, {"accuracy": 1.0})  # whole
    assert pictures.tasks == {"inserter": 1.0} and "placement" in pictures.rewards
    assert (text.grpo.kl_beta, pictures.grpo.kl_beta) == (0.02, 0.1)


def test_overrides_are_for_all_stages_or_for_one(write):
    plan = write(PLAN)
    given = ["steps=3", "stages.text.steps=2", "grpo.kl_beta=0", "run=elsewhere", "init=random", "rewards.order=7"]
    text, pictures = load_stages(plan, given).runs
    assert (text.steps, pictures.steps, pictures.grpo.kl_beta) == (2, 3, 0)
    assert (text.run, text.init, pictures.init) == (Path("elsewhere/text"), "random", "elsewhere/text")
    assert text.rewards == {"accuracy": 1.0, "order": 7.0}
    assert load_stages(plan, ["stages.text.steps=2", "steps=3"]).runs[0].steps == 3  # the later wins
    weighed = load_stages(plan, ["stages.text.tasks.counting=2"]).runs
    assert weighed[0].tasks == {"arithmetic": 1.0, "counting": 2.0} and weighed[1].tasks == {"inserter": 1.0}


def test_a_configuration_without_stages_is_one_run(write):
    plain = PLAN.partition("stages:")[0]
    stages = load_stages(write(plain), ["steps=3"])
    assert stages.are_one_run and stages.runs == (load_config(write(plain), ["steps=3"]),)
    with pytest.raises(UserError, match="`stages` is not a setting"):
        load_stages(write(plain), ["stages.text.steps=2"])
    with pytest.raises(UserError, match="has stages where that of one run is needed"):
        load_config(write(PLAN))


@pytest.mark.parametrize(
    ("before", "after", "overrides", "parts"),
    [
        ("pictures: 1", "picture: 1", [], ["`batch.picture`", "`batch.pictures`", "line 10, in stage `text`"]),
        ("kl_beta: 0.1", "kl_bta: 0.1", [], ["`grpo.kl_bta`", "`grpo.kl_beta`", "line 14, in stage `pictures`"]),
        ("steps: 5", "stepz: 5", [], ["`stepz`", "`steps`", "line 12, in stage `pictures`"]),
        ("steps: 9\n", "", [], ["steps or seconds must be given", "stage `text`"]),
        ("steps: 5", "init: base", [], ["`stages.pictures.init`", "beside `stages`", "line 12"]),
        ("steps: 5", "model: 3b", [], ["`stages.pictures.model`", "beside `stages`", "line 12"]),
        ("pictures:\n", "model:\n", [], ["`model`", "line 11"]),
        ("pictures:\n", "a.b:\n", [], ["`a.b`", "letters", "line 11"]),
        ("pictures:\n", "on:\n", [], ["`True`", "letters", "line 6"]),
        (PLAN.partition("stages:")[2], " [text]", [], ["`stages`", "by its name", "line 6"]),
        (PLAN.partition("stages:")[2], "\n  text: 3", [], ["`stages.text` is 3", "line 7"]),
        ("", "", ["stages.txt.steps=3"], ["`txt`", "did you mean `text`?", "on the command line"]),
        ("", "", ["stages.text=3"], ["sets no setting", "stages.NAME.key=value"]),
        ("", "", ["stages.text.run=a"], ["`stages.text.run`", "run=a on the command line"]),
        ("", "", ["stages.text.steps=0"], ["`steps` is 0", "stages.text.steps=0 on", "in stage `text`"]),
        ("", "", ["run=[1]"], ["`run`", "must be a path"]),
    ],
)
def test_errors_name_the_stage_and_the_key(write, before, after, overrides, parts):
    with pytest.raises(UserError) as caught:
        load_stages(write(PLAN.replace(before, after, 1)), overrides)
    assert [part for part in parts if part not in str(caught.value)] == []
    assert len(str(caught.value).splitlines()) <= 5


def small_stages(episodes: Path, folder: Path, steps=(2, 1)):
    """Two stages of supervision, of a model that is small enough for a test, from a file."""
    common = json.loads(small_run(str(episodes), str(folder), "supervised", steps[1]).model_dump_json())
    common |= {"optimizer": {"learning_rate": 1e-2}}
    common["batch"] |= {"prompts": 8}  # one a device
    stages = {"look": {"steps": steps[0], "tasks": {"look": 1.0}}, "place": {"tasks": {"inserter": 1.0}}}
    file = folder.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(common | {"stages": stages}, sort_keys=False))
    return load_stages(file)


def weights_of(run: Path) -> dict[str, np.ndarray]:
    return load_file(run / "model" / "model.safetensors")


def equal(one: Path, other: Path) -> bool:
    first, second = weights_of(one), weights_of(other)
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def trained(episodes, tmp_path_factory):
    """Both stages, with what each began with, and what was finished."""
    stages = small_stages(episodes, tmp_path_factory.mktemp("stages") / "whole")
    with pytest.MonkeyPatch.context() as patch:
        begun = watched(patch)
        return stages, begun, train_stages(stages)


def watched(patch) -> dict[str, dict[str, np.ndarray]]:
    """Fills with the weights that each run is set up with."""
    from m2io_jax.models.weights import save_weights  # the names that files have, for the weights in memory
    from m2io_jax.training import run

    begun, prepared = {}, run.prepared

    def watch(policy, config):
        folder = config.run / "begun"
        folder.mkdir(parents=True)
        save_weights(folder, policy.params, policy.config, dtype="float32")
        begun[config.run.name] = load_file(folder / "model.safetensors")
        return prepared(policy, config)

    patch.setattr(run, "prepared", watch)
    return begun


def test_the_second_stage_starts_with_the_weights_that_the_first_left(trained):
    stages, begun, _ = trained
    left = weights_of(stages.runs[0].run)
    assert begun["place"].keys() == left.keys()
    assert all(np.array_equal(begun["place"][name], left[name]) for name in left)
    assert any(not np.array_equal(begun["look"][name], left[name]) for name in left)  # the first did train


def test_the_folder_of_all_stages_is_read_like_that_of_the_last(trained):
    stages, _, finished = trained
    assert (finished.folder, finished.steps, finished.already) == (stages.folder, 3, False)
    assert equal(stages.folder, stages.runs[1].run) and not equal(stages.folder, stages.runs[0].run)
    read = run_config(stages.folder)
    assert read == stages.runs[1].model_copy(update={"run": stages.folder})
    assert load_policy(str(stages.folder), size="small").config == finished.policy.config.with_lora(None)


def test_killed_between_its_stages_it_goes_on_with_the_second(trained, episodes, tmp_path, monkeypatch):
    whole, _, _ = trained
    stages, train = small_stages(episodes, tmp_path / "killed"), module.train

    def killed(config):
        if config.run.name == "place":
            raise KeyboardInterrupt
        return train(config)

    monkeypatch.setattr(module, "train", killed)
    with pytest.raises(KeyboardInterrupt):
        train_stages(stages)
    assert not (stages.folder / "model").exists()
    finished = []
    monkeypatch.setattr(module, "train", lambda config: finished.append(train(config)) or finished[-1])
    train_stages(stages)
    assert [run.already for run in finished] == [True, False]
    assert all(equal(ours.run, theirs.run) for ours, theirs in zip(stages.runs, whole.runs, strict=True))
    assert train_stages(stages).already


def test_a_stage_does_not_change_under_the_one_that_began_from_it(trained, episodes):
    stages, _, _ = trained
    longer = stages.runs[0].model_copy(update={"steps": 9})
    before = weights_of(longer.run)
    with pytest.raises(UserError, match="Stage `look` would go on, but `place` has begun"):
        train_stages(replace(stages, runs=(longer, stages.runs[1])))
    assert all(np.array_equal(tensor, weights_of(longer.run)[name]) for name, tensor in before.items())


def test_a_run_does_not_go_on_from_weights_that_have_changed_under_it(trained, tmp_path):
    stages, _, _ = trained
    start = shutil.copytree(stages.runs[0].run / "model", tmp_path / "start")
    frozen = {"init": str(start), "run": tmp_path / "run", "freeze": ("vision\\..*",)}
    any_length = {"optimizer": OptimizerConfig(schedule="constant"), "grpo": GRPOConfig()}
    config = stages.runs[1].model_copy(update=frozen | any_length)
    train(config)
    shutil.copytree(stages.runs[1].run / "model", start, dirs_exist_ok=True)
    with pytest.raises(UserError, match="(?s)weights that the run started from have changed.*start"):
        train(config.model_copy(update={"steps": 2}))
    assert train(config).already


def test_a_run_does_not_go_on_over_other_episodes(trained, episodes, tmp_path):
    stages, _, _ = trained
    copied = shutil.copytree(episodes, tmp_path / "episodes")
    any_length = {"optimizer": OptimizerConfig(schedule="constant"), "grpo": GRPOConfig()}
    config = stages.runs[0].model_copy(update={"episodes": copied, "run": tmp_path / "run"} | any_length)
    train(config)
    (records,) = copied.rglob("*-train.array_record*")
    before = records.read_bytes()
    records.write_bytes(before + b"another")
    with pytest.raises(UserError, match="(?s)episodes of the task `look` have changed.*episodes"):
        train(config.model_copy(update={"steps": config.steps + 1}))
    assert train(config).already, "there is nothing left to read"
    records.write_bytes(before)
    assert train(config.model_copy(update={"steps": config.steps + 1})).steps == config.steps + 1


def test_a_later_stage_that_cannot_begin_is_told_before_the_first_is_trained(episodes, tmp_path):
    stages = small_stages(episodes, tmp_path / "wrong")
    wrongs = [
        ({"tasks": {"lok": 1.0}}, "lok"),
        ({"episodes": tmp_path / "none"}, "none"),
        ({"batch": stages.runs[1].batch.model_copy(update={"prompts": 7})}, "7 rows cannot be shared out evenly to 8"),
    ]
    for changes, told in wrongs:
        wrong = stages.runs[1].model_copy(update=changes)
        with pytest.raises(UserError, match=rf"(?s){told}.*in stage `place`"):
            train_stages(replace(stages, runs=(stages.runs[0], wrong)))
    adapted = [stages.runs[n].model_copy(update={"lora": LoraSection(rank=4 + n)}) for n in range(2)]
    with pytest.raises(UserError, match="`place` has other adapters than `look`"):
        train_stages(replace(stages, runs=tuple(adapted)))
    assert not stages.folder.exists()


def test_the_first_stage_is_profiled_and_nothing_of_it_is_kept(episodes, tmp_path):
    stages = small_stages(episodes, tmp_path / "profiled")
    cli.profile(tmp_path / "profiled.yaml", tmp_path / "trace", None, steps=1)
    assert [path.suffixes[-1] for path in (tmp_path / "trace").rglob("*.xplane.pb")] == [".pb"]
    assert not stages.folder.exists()
