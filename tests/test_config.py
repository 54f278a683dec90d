"""The configuration: what it accepts, and what it says about what it does not."""

import re
from pathlib import Path

import pytest
import yaml

from m2io_jax.config import DataConfig, GRPOConfig, RunConfig, load_config, require_resumable, resume_differences
from m2io_jax.errors import UserError, unknown_name

MINIMAL = "name: x\nobjective: grpo\nsteps: 20\n"


@pytest.fixture
def write(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "run.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def complaint(path: Path, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load_config(path, list(overrides))
    return str(caught.value)


def test_defaults_and_overrides(write):
    config = load_config(write(MINIMAL), ["steps=7", "rollout.group_size=4", "episodes=runs/x", "seconds=1.5e1"])
    assert (config.steps, config.rollout.group_size, config.episodes, config.seconds) == (7, 4, Path("runs/x"), 15.0)
    assert config.run == Path("runs/x")
    assert config.rollout.temperature == 1.0
    assert load_config(write(MINIMAL), ["run=elsewhere"]).run == Path("elsewhere")
    assert load_config(write(MINIMAL), ["run="]).run == Path("runs/x")


def test_a_setting_that_is_true_false_or_empty(write):
    for text, value in (("true", True), ("false", False), ("", None)):
        assert load_config(write(MINIMAL), [f"computation.unroll={text}"]).computation.unroll is value


def test_what_looks_like_a_date_is_text(write):
    named = load_config(write("name: 2026-11-22\nobjective: grpo\nsteps: 1\n"), ["episodes=2026-11-23"])
    assert (named.name, named.run, named.episodes) == ("2026-11-22", Path("runs/2026-11-22"), Path("2026-11-23"))
    assert load_config(write(named.to_yaml())) == named
    assert load_config(write(MINIMAL), ["name=2024-13-45"]).name == "2024-13-45"  # which is no date at all


def test_exponent_without_a_point_is_a_number(write):
    # YAML 1.1 reads 1e-3 as text.
    assert load_config(write(MINIMAL + "optimizer: {learning_rate: 1e-3}\n")).optimizer.learning_rate == 0.001


def test_one_weight_is_overridden_and_the_others_stay(write):
    config = load_config(write(MINIMAL), ["rewards.order=0.5"])
    assert config.rewards == {"format": 0.1, "selection": 0.4, "placement": 0.4, "order": 0.5}
    assert RunConfig(name="y", objective="grpo", steps=1).rewards["order"] == 0.1
    given = write(MINIMAL + "tasks: {find: 1}\n")
    assert load_config(given, ["tasks.describe=2"]).tasks == {"find": 1.0, "describe": 2.0}


def test_episodes_are_one_folder_or_one_for_each_task(write):
    one = load_config(write(MINIMAL), ["episodes=a/b", "tasks={counting: 1, inserter: 1}"])
    assert one.episodes_of("counting") == one.episodes_of("inserter") == Path("a/b")
    each = write(MINIMAL + "tasks: {counting: 1, geometry: 2, inserter: 0}\nepisodes: {counting: a}\n")
    config = load_config(each, ["episodes.geometry=runs/b"])
    assert (config.episodes_of("counting"), config.episodes_of("geometry")) == (Path("a"), Path("runs/b"))
    assert load_config(write(config.to_yaml())) == config
    assert "episodes.geometry: was 'runs/b', is now 'runs/c'" in resume_differences(
        config.resume_key(), config.model_copy(update={"episodes": {"geometry": "runs/c"}}).resume_key()
    )
    with pytest.raises(UserError, match=r"(?s)task `inserter`.*episodes=FOLDER"):
        config.episodes_of("inserter")
    with pytest.raises(UserError, match="episodes=FOLDER"):
        load_config(write(MINIMAL)).episodes_of("inserter")


def test_frozen(write):
    with pytest.raises(ValueError):
        load_config(write(MINIMAL)).rollout.group_size = 3


def test_yaml_round_trip(write):
    config = load_config(write(MINIMAL), ["optimizer.eps=1e-9", "seed=3", "episodes=a/b"])
    assert load_config(write(config.to_yaml())) == config


@pytest.mark.parametrize(
    ("extra", "overrides", "parts"),
    [
        ("rolout: {group_size: 4}\n", [], ["`rolout`", "did you mean `rollout`?", "line 4"]),
        ("lora: {rnk: 4}\n", [], ["`lora.rnk`", "did you mean `lora.rank`?", "line 4"]),
        ("rollout:\n  group_sise: 4\n", [], ["`rollout.group_sise`", "`rollout.group_size`", "line 5"]),
        ("", ["rollout.group_sise=4"], ["`rollout.group_sise`", "rollout.group_sise=4 on the command line"]),
        ("rollout:\n  group_size: four\n", [], ["`rollout.group_size` is 'four'", "integer", "line 5"]),
        ("optimizer:\n  schedule: cosin\n", [], ["'cosin'", "'constant', 'cosine' or 'linear'", "line 5"]),
        ("episodes: {find: a}\n", [], ["`episodes` names no folder", "`inserter`", "line 4"]),
        ("episodes: [a, b]\n", [], ["`episodes` is ['a', 'b']", "a folder for each task", "line 4"]),
        ("", ["episodes={inserter: 3}"], ["`episodes`", "a folder for each task", "on the command line"]),
        ("", ["steps=0"], ["`steps` is 0", "greater than or equal to 1", "steps=0 on the command line"]),
        ("", ["steps=true"], ["`steps` is True", "not true or false"]),
        ("", ["seconds=.inf"], ["`seconds` is inf", "finite"]),
        ("", ["steps="], ["steps or seconds must be given"]),
        ("", ["rollout.group_size=1"], ["`rollout.group_size` is 1", "2 or more for grpo", "rollout.group_size=1 on"]),
        ("", ["tasks={inserter: 0}"], ["`tasks`", "above 0"]),
        ("", ["rewards.order=-1"], ["`rewards.order` is -1", "greater than or equal to 0"]),
        ("mesh: {data: -1, fsdp: -1}\n", [], ["`mesh`", "for one of them", "line 4"]),
        ("mesh:\n  data: 2\n", ["mesh.fsdp=0"], ["`mesh`", "mesh.fsdp=0 on the command line"]),
        ("rollout:\n", [], ["`rollout` is None", "`key: value`", "line 4"]),
        ("", ["name=../up"], ["`name` is '../up'", "letters"]),
        ("", ["steps.more=3"], ["`steps`", "integer"]),
        ("", ["grpo.loss=gsop"], ["`grpo.loss` is 'gsop'", "'gspo'", "grpo.loss=gsop on the command line"]),
        ("grpo:\n  loss: gspo\n  dual_clip: 3\n", [], ["`grpo.dual_clip` is 3", "only loss clip", "line 6"]),
        ("rollout:\n  gather: true\n", [], ["`rollout.gather` is true", "`mesh.fsdp` is 1", "line 5"]),
        ("", ["grpo.sapo_temperatures=[1, 2]"], ["`grpo.sapo_temperatures`", "only loss sapo"]),
        ("", ["grpo.advantage=none", "grpo.scale_rewards=false"], ["`grpo.scale_rewards`", "only advantage group"]),
        ("", ["rollout.micro_batches=4", "batch.prompts=6"], ["`rollout.micro_batches` is 4", "the 6 prompts"]),
        ("", ["run=gs://a/b"], ["`run` is 'gs://a/b'", "mounted here", "checkpoint.folder", "run=gs://a/b on the"]),
        ("", ["episodes={inserter: gs://a}"], ["`episodes`", "mounted here", "on the command line"]),
        ("", ["objective=ppo", "ppo.value_clip=0.5"], ["`ppo.value_clip` is 0.5", "`grpo.updates_per_rollout` is 1"]),
        ("", ["checkpoint.keep_every=75"], ["`checkpoint.keep_every` is 75", "a multiple of every_steps, 50"]),
        ("", ["checkpoint.keep_best=2"], ["`checkpoint.best_by` is not set", "keep_best=2 on the command line"]),
        ("", ["checkpoint.best_by=reward"], ["`checkpoint.best_by` is reward", "only keep_best above 0"]),
        ("", ["checkpoint.best=lowest"], ["`checkpoint.best` is lowest", "only keep_best above 0"]),
        ("", ["grpo.kl_beta_min=0.01"], ["`grpo.kl_beta_min`", "only kl_schedule linear or grpo_d"]),
        ("", ["grpo.kl_beta_min=1", "grpo.kl_schedule=grpo_d"], ["`grpo.kl_beta_min` is 1", "`grpo.kl_beta`, 0.02"]),
        ("", ["grpo.overlong_penalty=1", "grpo.overlong_buffer=90"], ["`grpo.overlong_buffer` is 90", "`, 80"]),
        ("lora: {rnk: 4}\n", [], ["`lora.rnk` is not a setting", "did you mean `lora.rank`?", "line 4"]),
        ("", ["data.filter.lo=0.1"], ["`data.filter.lo`", "did you mean `data.filter.low`?", "on the command line"]),
        ("data: {filters: {}}\n", [], ["`data.filters`", "did you mean `data.filter`?"]),
        ("", ["data.filter.low=0.5", "data.filter.high=0.4"], ["`data.filter.low` is 0.5", "`data.filter.high`, 0.4"]),
        ("", ["data.curriculum.difficulty=simple"], ["'simple'", "'easy', 'medium' or 'hard'"]),
        ("", ["data.replay.share=1"], ["`data.replay.share` is 1", "less than 1"]),
        ("", ["data.noise={}", "rollout.group_size=3"], ["`rollout.group_size` is 3", "even", "group_size=3 on"]),
        ("", ["data.single={}"], ["`grpo.advantage` is 'group'", "'batch' or 'none'"]),
        ("", ["data.single.decay_min=0.97"], ["`data.single.decay_min` is 0.97", "decay_max, 0.96"]),
        ("", ["data={single: {}, filter: {}}", "grpo.advantage=batch", "rollout.group_size=1"],
         ["`data.filter`", "`rollout.group_size` is 1"]),
        ("", ["ppo.whiten=false"], ["`ppo` is set", "`objective` is 'grpo'"]),
        ("", ["objective=ppo", "grpo.advantage=none"], ["`grpo.advantage` is none", "critic's", "advantage=none on"]),
        ("", ["objective=ppo", "grpo.scale_rewards=false"], ["`grpo.scale_rewards` is False", "the critic's"]),
        ("", ["objective=ppo", "grpo.kl_estimator=k1+"], ["`grpo.kl_estimator` is k1+", "in the reward"]),
        ("", ["objective=ppo", "grpo.loss=gspo"], ["`grpo.loss` is gspo", "share one advantage"]),
        ("", ["objective=ppo", "data.single={}", "grpo.advantage=batch"], ["`grpo.advantage` is batch"]),
        ("", ["objective=ppo", "ppo.lambda=1"], ["`ppo.lambda`", "`ppo.gae_lambda`"]),
        ("", ["objective=ppo", "ppo.discount=1.1"], ["`ppo.discount` is 1.1", "less than or equal to 1"]),
        ("", ["objective=ppo", "rollout.group_size=1", "data.replay={}"],
         ["`data.replay`", "`rollout.group_size` is 1"]),
        ("", ["objective=ppo", "rollout.group_size=1", "rollout.prompts=20"],
         ["`rollout.prompts`", "how rewards differ"]),
        ("", ["grpo.loss=sapo", "grpo.clip_epsilon_high=0.3"], ["`grpo.clip_epsilon_high` is 0.3", "a loss but sapo"]),
        ("", ["grpo.kl_turn=0.5"], ["`grpo.kl_turn` is 0.5", "only kl_schedule grpo_d"]),
        ("", ["grpo.kl_beta=0", "grpo.kl_estimator=k3+"], ["`grpo.kl_estimator`", "only a kl_beta above 0"]),
        ("", ["grpo.kl_beta=0", "int8=[reference]"], ["`int8`", "`grpo.kl_beta` is 0"]),
        ("", ["grpo.entropy_delta=0.1"], ["`grpo.entropy_delta` is 0.1", "only an entropy_target"]),
        ("", ["grpo.entropy_target=1", "grpo.entropy_coef=0.2"], ["`grpo.entropy_coef` is 0.2", "_max`, 0.1"]),
        ("", ["grpo.rollout_correction=truncate", "grpo.rollout_weight_min=0.1"], ["only rollout_correction mask"]),
        ("", ["grpo.overlong_buffer=8"], ["`grpo.overlong_buffer` is 8", "only an overlong_penalty above 0"]),
        ("", ["data.curriculum.length_target=9"], ["`data.curriculum.length_target`", "a length_weight above 0"]),
        ("", ["data.curriculum.length_weight=1"], ["`data.curriculum.length_target` is 750", "completion_length`, 80"]),
        ("", ["data.outcome=[accuracy]"], ["`data.outcome`", "only history, filter or curriculum"]),
        ("", ["data.replay.share=0.01"], ["`data.replay.share` is 0.01", "is none"]),
        ("", ["rollout.ahead=-1"], ["`rollout.ahead` is -1", "greater than or equal to 0"]),
        ("steps: 30\n", [], ["`steps` is set twice, in lines 3 and 4"]),
        ("batch: [1\n", [], ["not valid YAML", "line"]),
        ("batch: &a {more: *a}\n", [], ["holds itself"]),
        ("batch: " + "[" * 3000, [], ["not valid YAML"]),
        ("seed: " + "9" * 5000 + "\n", [], ["not valid YAML", "digits"]),
        ("", ["freeze=['(']"], ["`freeze.0` is '('", "regular expression", "freeze=['('] on the command line"]),
        ("lora: {targets: ['*']}\n", [], ["`lora.targets.0` is '*'", "regular expression", "line 4"]),
        ("", ["steps"], ["`steps` is not an override", "key=value"]),
    ],
)
def test_says_what_is_wrong_where(write, extra, overrides, parts):
    said = complaint(write(MINIMAL + extra), *overrides)
    assert [part for part in parts if part not in said] == []
    assert len(said.splitlines()) <= 5


def test_all_mistakes_are_told_at_once(write):
    said = complaint(write("objective: grop\nsteps: -1\n"))
    assert "3 places" in said
    assert all(part in said for part in ("`name` is not set", "'grop'", "`steps` is -1", "line 2"))


def test_a_bound_that_is_given_counts_for_both(write):
    def bounds(*settings):
        grpo = load_config(write(MINIMAL), settings).grpo
        return grpo.clip_epsilon, grpo.clip_epsilon_high

    assert bounds("grpo.loss=gspo") == (3e-4, 4e-4) and bounds("grpo.loss=cispo") == (1.0, 4.0)
    assert bounds("grpo.loss=gspo", "grpo.clip_epsilon=0.01") == (0.01, None)  # above as below
    assert bounds("grpo.loss=gspo", "grpo.clip_epsilon_high=0.01") == (3e-4, 0.01)


def test_a_group_of_one_where_advantages_are_not_of_groups(write):
    for advantage in ("batch", "none"):
        config = load_config(write(MINIMAL), [f"grpo.advantage={advantage}", "rollout.group_size=1"])
        assert config.rollout.group_size == 1


def test_unreadable_files(tmp_path, write):
    assert "No such file" in complaint(tmp_path / "none.yaml")
    assert "directory" in complaint(tmp_path)
    assert "key: value" in complaint(write("- a\n"))
    assert "`name` is not set" in complaint(write(""))
    path = tmp_path / "bytes.yaml"
    path.write_bytes(b"name: \xff\n")
    assert "UTF-8" in complaint(path)


def test_resume_key_names_what_differs(write):
    config = load_config(write(MINIMAL))
    same = load_config(write(MINIMAL), ["steps=99", "run=b", "mesh.data=1", "checkpoint.every_steps=3"])
    assert resume_differences(config.resume_key(), same.resume_key()) == []
    other = load_config(write(MINIMAL), ["seed=1", "rewards.order=0.2", "tasks.find=1"])
    assert resume_differences(config.resume_key(), other.resume_key()) == [
        "seed: was 0, is now 1",
        "rewards.order: was 0.1, is now 0.2",
        "tasks.find: was nothing, is now 1.0",
    ]
    with pytest.raises(UserError, match="seed: was 0, is now 1"):
        require_resumable(config.resume_key(), other)


def test_a_decaying_rate_fixes_the_length_of_the_run(write):
    config = load_config(write(MINIMAL), ["optimizer.schedule=cosine"])
    longer = load_config(write(MINIMAL), ["optimizer.schedule=cosine", "steps=99"])
    assert resume_differences(config.resume_key(), longer.resume_key()) == ["steps: was 20, is now 99"]


def test_a_kl_weight_that_changes_fixes_it_too(write):
    config = load_config(write(MINIMAL), ["grpo.kl_schedule=grpo_d"])
    longer = load_config(write(MINIMAL), ["grpo.kl_schedule=grpo_d", "steps=99"])
    assert resume_differences(config.resume_key(), longer.resume_key()) == ["steps: was 20, is now 99"]


def test_a_loss_brings_its_papers_clip_and_gives_way_to_what_is_set(write):
    def bounds(*overrides):
        settings = load_config(write(MINIMAL), overrides).grpo
        return settings.clip_epsilon, settings.clip_epsilon_high

    assert bounds() == (0.2, None)
    assert bounds("grpo.loss=gspo") == (3e-4, 4e-4)
    assert bounds("grpo.loss=gmpo") == (0.4, None)
    assert bounds("grpo.loss=cispo") == (1.0, 4.0)
    assert bounds("grpo.loss=gspo", "grpo.clip_epsilon=0.1", "grpo.clip_epsilon_high=") == (0.1, None)


def test_a_run_from_before_there_was_a_choice_of_objectives_goes_on(write):
    config = load_config(write(MINIMAL), ["grpo.clip_epsilon=0.1", "grpo.kl_beta=0.3"])
    known = ("kl_beta", "clip_epsilon", "scale_rewards", "loss_aggregation", "updates_per_rollout")
    saved = {
        name: value
        for name, value in config.resume_key().items()
        if not name.startswith("grpo.") or name.removeprefix("grpo.") in known
    }
    assert len(saved) < len(config.resume_key())
    require_resumable(saved, config)
    with pytest.raises(UserError, match="grpo.loss: was 'clip', is now 'cispo'"):
        require_resumable(saved, load_config(write(MINIMAL), ["grpo.loss=cispo", "grpo.clip_epsilon=0.1"]))


def test_one_rollout_a_prompt_is_allowed_with_a_baseline_of_its_own(write):
    config = load_config(write(MINIMAL), ["rollout.group_size=1", "data.single={}", "grpo.advantage=batch"])
    assert config.rollout.group_size == 1 and config.data.single.decay_min == 0.875
    assert load_config(write(config.to_yaml())) == config


def test_ppo_needs_no_group_and_a_run_from_before_there_was_ppo_goes_on(write):
    config = load_config(write(MINIMAL), ["objective=ppo", "rollout.group_size=1", "ppo.gae_lambda=0.95"])
    assert (config.rollout.group_size, config.ppo.gae_lambda, config.ppo.discount) == (1, 0.95, 1.0)
    assert load_config(write(config.to_yaml())) == config
    with pytest.raises(UserError, match="ppo.gae_lambda: was 0.95, is now 1.0"):
        require_resumable(config.resume_key(), load_config(write(config.to_yaml()), ["ppo.gae_lambda=1"]))
    plain = load_config(write(MINIMAL))
    require_resumable({name: x for name, x in plain.resume_key().items() if not name.startswith("ppo.")}, plain)


def test_a_run_with_methods_of_the_data_side_goes_on_and_not_with_others(write):
    config = load_config(write(MINIMAL), ["data.filter.rounds=2", "data.history=true"])
    require_resumable(config.resume_key(), config)
    with pytest.raises(UserError, match="data.filter.rounds: was 2, is now 3"):
        require_resumable(config.resume_key(), load_config(write(config.to_yaml()), ["data.filter.rounds=3"]))
    with pytest.raises(UserError, match="data.replay: was None, is now nothing"):
        require_resumable(config.resume_key(), load_config(write(config.to_yaml()), ["data.replay.size=3"]))
    plain = load_config(write(MINIMAL))
    before = {name: value for name, value in plain.resume_key().items() if not name.startswith("data.")}
    require_resumable(before, plain)


def test_what_the_page_on_data_says_to_write_can_be_written():
    page = (Path(__file__).resolve().parents[1] / "docs" / "data.md").read_text(encoding="utf-8")
    snippets = [yaml.safe_load(text) for text in re.findall(r"\| `(\{.*\})` \|$", page, flags=re.MULTILINE)]
    assert {name for snippet in snippets for name in snippet} == set(DataConfig.model_fields) - {"outcome"}
    for snippet in snippets:
        advantage = {"advantage": "batch"} if "single" in snippet else {}
        RunConfig(name="documented", objective="grpo", steps=1, data=snippet, grpo=advantage)


def test_unknown_names_are_met_with_the_nearest():
    assert "did you mean `placement`?" in str(unknown_name("rewards", "placment", ["placement", "order"]))


def test_checkpoints_lie_with_the_run_or_under_its_name_in_a_folder_that_may_be_a_bucket(write):
    assert load_config(write(MINIMAL)).checkpoints == "runs/x/checkpoints"
    assert load_config(write(MINIMAL), ["checkpoint.folder=gs://bucket/runs/"]).checkpoints == "gs://bucket/runs/x"


@pytest.mark.parametrize("loss", ["clip", "gspo", "gmpo", "cispo", "sapo"])
def test_tokens_are_aggregated_as_in_the_losss_paper_unless_it_is_said(loss):
    assert GRPOConfig(loss=loss).loss_aggregation == ("token_mean" if loss == "cispo" else "sequence_mean")
    assert GRPOConfig(loss=loss, loss_aggregation="constant_length").loss_aggregation == "constant_length"
