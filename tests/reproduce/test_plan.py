"""Plans: those that ship are whole, arms are laid out as they say, and what is wrong is named with where it was set."""

from pathlib import Path

import pytest

from m2io_jax.errors import UserError
from m2io_jax.reproduce.plan import load_plan
from m2io_jax.tasks import find_task

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "reproduce"
SHIPPED = sorted(path.stem for path in FOLDER.glob("*.yaml"))
PLAN = """\
title: Two
about: small
seeds: [3, 4]
metrics: {counting: [accuracy]}
data:
  counting: {count: 40, settings: {most: 2}, also: [look]}
common:
  batch: {prompts: 4, pictures: 1}
  rewards: {accuracy: 1}
arms:
  warm:
    once: true
    settings: {objective: supervised, tasks: {counting: 1, look: 1}, steps: 5}
  rl:
    label: RL
    begins_with: warm
    settings:
      objective: grpo
      tasks: {counting: 1}
      steps: 7
      batch: {prompts: 2}
  base:
    label: base
claims:
  - {better: rl, than: base, task: counting}
"""


@pytest.fixture
def plan(tmp_path):
    def plan(overrides=(), text=PLAN):
        (tmp_path / "two.yaml").write_text(text)
        return load_plan("two", overrides, tmp_path)

    return plan


def test_every_seed_has_a_run_of_each_arm_that_is_not_made_once(plan):
    made = plan()
    runs = {str(each.config.run): each.config for each in made.runs}
    root = "runs/reproduce/two"
    assert list(runs) == [f"{root}/{run}" for run in ("once/warm", "seed3/rl", "seed3/base", "seed4/rl", "seed4/base")]
    assert [run.seed for run in runs.values()] == [3, 3, 3, 4, 4]
    rl = runs[f"{root}/seed4/rl"]
    assert (rl.init, rl.name, rl.steps) == (f"{root}/once/warm", "two-rl", 7)
    assert (rl.batch.prompts, rl.batch.pictures, rl.rewards) == (2, 1, {"accuracy": 1.0})
    assert runs[f"{root}/seed4/base"].init == runs[f"{root}/once/warm"].init == "base"
    assert rl.episodes == {task: Path(root) / "data" / "counting" for task in ("counting", "look")}
    assert made.judged_by.tasks == {"counting": 1.0} and made.judged_by.batch.pictures == 1


def test_overrides_are_for_all_arms_for_one_or_for_the_whole(plan):
    given = ["steps=2", "arms.rl.steps=3", "arms.rl.grpo.kl_beta=0.5", "batch.pictures=2", "seeds=[9]", "run=else",
             "data.counting.count=8", "data.counting.settings.most=3"]  # fmt: skip
    made = plan(given)
    warm, rl, _ = (each.config for each in made.runs)
    assert (warm.steps, rl.steps, rl.grpo.kl_beta, warm.grpo.kl_beta) == (2, 3, 0.5, 0.02)
    assert (rl.batch.prompts, rl.batch.pictures, warm.batch.pictures, made.judged_by.batch.pictures) == (2, 2, 2, 2)
    assert (rl.seed, rl.run) == (9, Path("else/seed9/rl"))
    assert (made.data["counting"].count, made.data["counting"].settings) == (8, {"most": 3})
    assert made.changed == tuple(given) and plan().changed == ()


@pytest.mark.parametrize(
    ("before", "after", "overrides", "parts"),
    [
        ("steps: 7", "stepz: 7", [], ["`stepz`", "`steps`", "line 20"]),
        ("once: true", "onse: true", [], ["`onse`", "`once`", "line 12"]),
        ("prompts: 4", "prompts: 0", [], ["`batch.prompts` is 0", "line 8"]),
        ("begins_with: warm", "begins_with: wram", [], ["`wram`", "did you mean `warm`?", "begins_with"]),
        ("begins_with: warm", "begins_with: base", [], ["`base`", "begins_with"]),  # made later
        ("than: base", "than: warm", [], ["`warm`", "claims"]),  # which is not evaluated
        ("task: counting}", "task: geometry}", [], ["`geometry`", "claims"]),
        ("[accuracy]", "[acuracy]", [], ["`acuracy`", "`accuracy`", "metrics.counting"]),
        ("[accuracy]", "[length]", [], ["`length`", "metrics.counting"]),
        ("steps: 7", "seed: 7", [], ["`seed`", "arm `rl`"]),
        ("    label: base", "    label: base\n    once: true\n    begins_with: rl", [], ["`arms.base`", "every seed"]),
        ("[3, 4]", "[]", [], ["`seeds`", "line 3"]),
        ("", "", ["stepz=3"], ["`stepz`", "stepz=3 on the command line"]),
        ("", "", ["arms.rll.steps=3"], ["`rll`", "did you mean `rl`?"]),
        ("", "", ["arms.rl=3"], ["sets nothing", "arms.NAME.key=value"]),
        ("", "", ["claims=3"], ["sets nothing"]),
        ("", "", ["data.couting.count=3"], ["`couting`", "`counting`"]),
        ("", "", ["data.counting.cuont=3"], ["`cuont`", "`count`", "on the command line"]),
        ("", "", ["init=random"], ["`init`", "begins_with"]),
        ("", "", ["seeds=[-1]"], ["`seeds.0` is -1", "seeds=[-1] on the command line"]),
    ],
)
def test_errors_name_the_key_and_where_it_was_set(plan, before, after, overrides, parts):
    with pytest.raises(UserError) as caught:
        plan(overrides, PLAN.replace(before, after, 1))
    assert [part for part in parts if part not in str(caught.value)] == []


def test_an_unknown_reproduction_is_told_with_the_nearest():
    with pytest.raises(UserError, match="did you mean `othink-mr1`?"):
        load_plan("othink-mr", [], FOLDER)


@pytest.mark.parametrize("name", SHIPPED)
def test_plans_that_ship(name):
    made = load_plan(name, [], FOLDER)
    assert len(made.frame.seeds) == 3
    for each in made.runs:
        config = each.config
        assert config.rollout.temperature == 1 and config.seconds is None  # steps, so that no load changes a result
        tasks = [find_task(task) for task, weight in config.tasks.items() if weight]
        trained = made.arms[each.arm].settings is not None
        assert not trained or config.objective != "grpo" or any(set(t.rewards) & set(config.rewards) for t in tasks)
        assert config.batch.max_pixels <= config.batch.patches * 14**2
    assert all(claim.task in made.frame.metrics for claim in made.claims) and made.claims


def test_what_is_compared_is_given_alike():
    """As many steps and the same prompts; the KL weights are the paper's."""
    for name in SHIPPED:
        made = load_plan(name, ["seeds=[0]"], FOLDER)
        trained = {each.arm: each.config for each in made.runs if made.arms[each.arm].settings is not None}
        steps = {arm: total_steps(arm, made, trained) for arm in trained if not made.arms[arm].once}
        shown = {steps[arm] for arm in steps if made.arms[arm].label}
        assert len(shown) == 1, (name, steps)
        assert len({trained[arm].prompts_a_step for arm in steps}) == 1
    betas = {
        arm: (config.grpo.kl_beta_min, config.grpo.kl_beta)
        for arm, config in ((each.arm, each.config) for each in load_plan("othink-mr1", ["seeds=[0]"], FOLDER).runs)
        if arm.startswith("grpo")
    }
    assert betas == {"grpo_counting": (0, 0.04), "grpo_d_counting": (0.04, 0.1), "grpo_geometry": (0, 0.01),
                     "grpo_d_geometry": (0, 0.02)}  # fmt: skip


def total_steps(arm: str, made, trained) -> int:
    """Steps since the last arm that is made once."""
    before = made.arms[arm].begins_with
    on_the_way = before and not made.arms[before].once
    return trained[arm].steps + (total_steps(before, made, trained) if on_the_way else 0)
