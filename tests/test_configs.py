"""Every configuration in `configs/` makes a step, at tiny scale: stage after stage, on generated data.

Batches have the same shapes and are computed alike whatever the configuration, so that most programs are compiled once
for all of them.
"""

import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from m2io_jax.config import MeshConfig, load_config
from m2io_jax.config.grpo import CLIP
from m2io_jax.corpus.importing import import_kitchen
from m2io_jax.corpus.kitchen import KitchenConfig
from m2io_jax.corpus.store import Corpus
from m2io_jax.episodes.building import EpisodeConfig
from m2io_jax.episodes.generated.figures import FigureConfig
from m2io_jax.episodes.generated.making import make_generated
from m2io_jax.episodes.generated.problems import ProblemConfig
from m2io_jax.episodes.generated.scenes import SceneConfig
from m2io_jax.episodes.making import make_episodes
from m2io_jax.errors import UserError
from m2io_jax.models.sizes import SIZES, model_config
from m2io_jax.parallel.mesh import make_mesh
from m2io_jax.rl.kl import kl_coefficient
from m2io_jax.tasks import TASKS, find_task
from m2io_jax.training import checks, run
from m2io_jax.training.metrics import read_metrics
from m2io_jax.training.stages import load_stages, train_stages

FOLDER = Path(__file__).resolve().parents[1] / "configs"
CONFIGS = {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}
SCALE = (
    "model=tiny", "init=base", "steps=1", "seconds=", "batch.prompts=2", "batch.prompt_length=256",
    "batch.completion_length=64", "batch.shorter=[]", "batch.pictures=3", "batch.patches=16", "batch.max_pixels=3136",
    "batch.max_sentence_tokens=32", "batch.explain=false", "rollout.prompts=", "rollout.group_size=2",
    "rollout.micro_batches=1", "optimizer.micro_batches=1", "computation={unroll: false}", "logging.every_steps=1",
    "logging.tensorboard=false",
)  # fmt: skip


@pytest.fixture(scope="module")
def episodes(tmp_path_factory) -> dict[str, str]:
    """A folder for each task."""
    folder = tmp_path_factory.mktemp("episodes")
    import_kitchen(KitchenConfig(documents=12), folder / "corpus")
    config = EpisodeConfig(min_candidates=2, max_candidates=3, train=1.0, validation=0.0)
    make_episodes(Corpus.open(folder / "corpus"), None, folder / "kitchen", config)
    made = {"counting": SceneConfig(most=2, side=56), "geometry": FigureConfig(), "arithmetic": ProblemConfig()}
    for task, generator in made.items():
        make_generated(task, generator, folder / task, count=40, seed=0)
    return {task: str(folder / (task if task in made else "kitchen")) for task in TASKS}


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """What one configuration compiled, the next one finds; all on one device."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checks, "make_mesh", lambda mesh: make_mesh(MeshConfig(data=1), jax.devices()[:1]))
        names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
        before = {name: getattr(jax.config, name) for name in names}
        for name, value in zip(names, (str(tmp_path_factory.mktemp("programs")), 0), strict=True):
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        yield
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()


@pytest.mark.parametrize("name", CONFIGS)
def test_names_what_there_is(name):
    stages = load_stages(CONFIGS[name])
    for config in stages.runs:
        assert config.name == (name if stages.are_one_run else f"{name}-{config.run.name}")
        assert config.model in SIZES
        tasks = [find_task(task) for task in config.tasks]
        rewarded = {part for task in tasks for part in task.rewards} & set(config.rewards)
        assert rewarded or config.objective == "supervised"
        assert config.batch.patches % model_config(config.model).vision.merge_unit == 0
        # no picture within the limit of pixels is dropped for its patches
        assert config.batch.max_pixels <= config.batch.patches * 14**2


def to_step() -> list:
    """Every configuration's name; slow where at this scale it is as one before (sizes differ in `model` alone)."""
    cases, seen = [], []
    for name, path in CONFIGS.items():
        keys = [config.resume_key() for config in load_stages(path, [*SCALE, "run=any"]).runs]
        cases.append(pytest.param(name, marks=[pytest.mark.slow] if keys in seen else []))
        seen.append(keys)
    return cases


@pytest.mark.parametrize("name", to_step())
def test_makes_a_step(name, episodes, programs, tmp_path):
    stages = load_stages(CONFIGS[name], [*SCALE, f"run={tmp_path / 'run'}", f"episodes={json.dumps(episodes)}"])
    finished = train_stages(stages)
    assert finished.steps == len(stages.runs)
    for config in stages.runs:
        (row,) = read_metrics(config.run)
        assert np.isfinite(row["loss"]) and row["grad_norm"] >= 0
        scored = {f"rewards/{part}/mean" for task in config.tasks for part in find_task(task).rewards}
        assert (scored <= set(row)) == (config.objective != "supervised")
        assert ("loss/value_avg" in row) == (config.objective == "ppo")


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [(f"othink_mr1_{task}_{size}", *betas) for task, betas in {"counting": (0.04, 0.1), "geometry": (0.0, 0.02)}.items()
     for size in ("2b", "7b")],
)  # fmt: skip
def test_othink_mr1_has_the_papers_schedule(name, least, most):
    config = load_config(CONFIGS[name])
    settings = config.grpo
    bounds = dict(low=settings.kl_beta_min, high=settings.kl_beta, turn=settings.kl_turn)
    found = [kl_coefficient(settings.kl_schedule, share, **bounds) for share in (0, 0.15, 0.3, 0.65, 1)]
    middle = (least + most) / 2
    assert found == pytest.approx([middle, (middle + least) / 2, least, middle, most], abs=1e-12)
    assert config.rewards == {"accuracy": 1.0, "format": 1.0}


def test_lmm_r1_trains_its_first_stage_once():
    alone = load_config(CONFIGS["lmm_r1_fre_text"])
    for name in ("lmm_r1_mgt_geo", "lmm_r1_mgt_perce_reason"):
        first = load_stages(CONFIGS[name]).runs[0]
        assert first.run == alone.run and first.resume_key() == alone.resume_key()


def test_lmm_r1_trains_its_geometry_by_ppo_with_the_papers_settings():
    """Table A7: lambda = gamma = 1; the critic's learning rate, which is here relative to the policy's."""
    config = load_stages(CONFIGS["lmm_r1_mgt_geo"]).runs[-1]
    assert config.objective == "ppo" and (config.ppo.discount, config.ppo.gae_lambda) == (1.0, 1.0)
    assert config.ppo.critic_learning_rate == 9e-6
    by_the_table = ["objective=ppo", "grpo={kl_beta: 0.001}", "ppo.critic_learning_rate=9e-6"]
    text = load_config(CONFIGS["lmm_r1_fre_text"], by_the_table)
    assert text.ppo == config.ppo and text.grpo == config.grpo


def test_lmm_r1_has_the_papers_table():
    """Table A7: rows, episodes, batch, learning rate, by stage."""
    table = {
        "lmm_r1_fre_text": (40_300, 1, 128, 1e-6),
        "lmm_r1_fre_multi": (65_000, 2, 256, 1e-6),
        "lmm_r1_mgt_geo": (15_000, 2, 256, 4e-7),
        "lmm_r1_mgt_perce_reason": (65_000, 2, 256, 4e-7),
    }
    for name, (rows, times, batch, rate) in table.items():
        config = load_stages(CONFIGS[name]).runs[-1]
        assert (config.batch.prompts, config.optimizer.learning_rate) == (batch, rate)
        assert config.steps == rows * times // batch
        assert (config.rollout.group_size, config.rollout.temperature, config.optimizer.warmup) == (16, 1.0, 0.03)
        assert (config.grpo.kl_beta, config.batch.completion_length) == (1e-3, 8192)
        assert config.rewards == {"accuracy": 1.0, "format": 0.5}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("loss", CLIP)
def test_a_loss_on_the_command_line_brings_its_papers_clip(name, loss):
    of_all = [config.objective for config in load_stages(CONFIGS[name]).runs]
    if "ppo" in of_all and loss in ("gspo", "gmpo"):
        with pytest.raises(UserError, match="share one advantage"):
            load_stages(CONFIGS[name], [f"grpo.loss={loss}"])
        return
    for config in load_stages(CONFIGS[name], [f"grpo.loss={loss}"]).runs:
        assert (config.grpo.loss, config.grpo.clip_epsilon, config.grpo.clip_epsilon_high) == (loss, *CLIP[loss])
        assert config.grpo.foreign_clip is None


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"loss": "gspo", "clip_epsilon": 0.2}, "0.2 below and 0.2 above.*gspo has 0.0003 below and 0.0004 above"),
        ({"loss": "cispo", "clip_epsilon": 0.2}, "0.2 below and 0.2 above.*cispo has 1 below and 4 above"),
        ({"loss": "gmpo", "clip_epsilon_high": 0.5}, "0.4 below and 0.5 above.*gmpo has 0.4 below and 0.4 above"),
        ({"loss": "gspo"}, None),
        ({"loss": "cispo", "clip_epsilon": 0.5}, "0.5 below and 0.5 above.*cispo has 1 below and 4 above"),
        ({"loss": "cispo", "clip_epsilon": 1.0, "clip_epsilon_high": 4.0}, None),
        ({"clip_epsilon": 0.1, "clip_epsilon_high": 0.28}, None),
    ],
)
def test_a_clip_that_is_set_is_kept_and_told_when_the_run_starts(settings, told, monkeypatch, tmp_path):
    said, config = [], load_config(CONFIGS["tiny"], [f"grpo={json.dumps(settings)}", f"run={tmp_path}", "episodes=x"])
    monkeypatch.setattr(run, "say", said.append)
    with pytest.raises(UserError, match="no such folder"):
        run.train(config)
    assert bool(said) == (told is not None) and all(re.search(told, words) for words in said)
    assert {name: getattr(config.grpo, name) for name in settings} == settings
