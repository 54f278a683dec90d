"""Folders of dimensions that no size has: trained, exported, opened elsewhere; and windows of any size of pixels."""

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import jax
import numpy as np
import pytest
import yaml
from hugging_face_reference import FAMILIES, FOLDER, MAIN, WINDOWS, case, window_answers
from odd_folder import odd_model, write_odd_folder
from reference_model import FORWARD, close, config, params, prompts
from safetensors.numpy import load_file
from test_lora import logits

from m2io_jax.config import MeshConfig, RunConfig, load_config
from m2io_jax.errors import UserError
from m2io_jax.models.conversion import export_folder, import_folder
from m2io_jax.models.huggingface import read_config
from m2io_jax.models.inputs import patch_geometry
from m2io_jax.models.policy import BASE, Policy, config_of, load_policy
from m2io_jax.models.sizes import SIZES, VisionConfig
from m2io_jax.planning.abstract import model_of


def windowed(window: int):
    """The reference model with windows of so many pixels, whose patches have 4."""
    model = config("qwen2_5_vl")
    return replace(model, vision=replace(model.vision, window_size=window))


@pytest.mark.parametrize("window", WINDOWS)
def test_logits_with_windows_that_are_no_multiple_of_a_merged_patch(window):
    policy = Policy(windowed(window), params("qwen2_5_vl"), None)
    chosen = case(MAIN)
    batch = prompts("qwen2_5_vl", MAIN)
    grids = chosen.grids[0]
    for index, grid in enumerate(grids):
        batch.windows[0, index, : grid[0] * grid[1]] = patch_geometry(*grid, policy.config.vision)[1]
    found = logits(policy, batch)[0, : len(chosen.rows[0])]
    expected = np.load(FOLDER / "qwen2_5_vl" / "windows.npz")
    close(found, expected[f"logits.{window}"], FORWARD)
    if find_spec("torch") is not None:
        close(found, window_answers()[f"logits.{window}"], FORWARD)


@pytest.mark.parametrize("window, side", [(8, 2), (15, 2), (16, 4), (20, 4), (36, 8), (47, 10), (126, 30), (112, 28)])
def test_windows_are_whole_merge_units(window, side):
    vision = VisionConfig(1, 16, 2, 16, 16, (), patch_size=4, window_size=window)
    assert vision.window_side == side
    order, windows = patch_geometry(22, 34, vision)
    for window_number in np.unique(windows):
        rows, columns = order[windows == window_number].T
        assert len({(row // side, column // side) for row, column in zip(rows, columns, strict=True)}) == 1
        assert not rows.min() % 2 and not columns.min() % 2


def test_a_window_that_no_block_looks_at_may_be_of_any_size():
    vision = VisionConfig(1, 16, 2, 16, 16, (0,), patch_size=64)
    assert vision.window_side == 0
    assert len(np.unique(patch_geometry(2, 2, vision)[1])) == 1


def two_steps(episodes: Path, folder: Path, source: Path) -> RunConfig:
    """A run of two steps that names no size."""
    return RunConfig(
        name="odd",
        run=folder,
        init=str(source),
        episodes=episodes,
        objective="supervised",
        steps=2,
        batch={"prompts": 2, "prompt_length": 320, "completion_length": 80, "pictures": 3, "max_pixels": 3136},
        mesh=MeshConfig(data=2, tensor=4),
        logging={"tensorboard": False},
    )


@pytest.fixture(scope="module")
def episodes(tmp_path_factory) -> Path:
    from m2io_jax.corpus.importing import import_kitchen
    from m2io_jax.corpus.kitchen import KitchenConfig
    from m2io_jax.corpus.store import Corpus
    from m2io_jax.episodes.building import EpisodeConfig
    from m2io_jax.episodes.making import make_episodes

    folder = tmp_path_factory.mktemp("kitchen")
    import_kitchen(KitchenConfig(documents=12), folder / "corpus")
    shares = EpisodeConfig(min_candidates=2, max_candidates=3, train=1.0, validation=0.0)
    make_episodes(Corpus.open(folder / "corpus"), None, folder / "episodes", shares)
    return folder / "episodes"


@pytest.mark.parametrize("family", [FAMILIES[0], pytest.param(FAMILIES[1], marks=pytest.mark.slow)])
def test_it_trains_two_steps_and_comes_back(family, episodes, tmp_path):
    from m2io_jax.training.run import train

    source = tmp_path / "odd"
    model = write_odd_folder(source, family, settings={"size": {"shortest_edge": 1568, "longest_edge": 99_999}})
    run = two_steps(episodes, tmp_path / "run", source)
    assert run.model is None and train(run).steps == 2
    lines = (run.run / "metrics.jsonl").read_text().splitlines()
    assert np.isfinite([json.loads(line)["loss"] for line in lines]).all()
    trained = load_policy(str(run.run), size=None)
    assert trained.config.shape_differences(model) == [] and trained.config.image.min_pixels == 1568
    before, after = (load_file(folder / "model.safetensors") for folder in (source, run.run / "model"))
    assert before.keys() == after.keys() and any(not np.array_equal(before[name], after[name]) for name in before)
    assert load_config(run.run / "config.yaml").model is None
    # A run's own folder says the bound that it was trained with, and so does its export.
    for folder in (run.run / "model", export_folder(run.run, tmp_path / "out", dtype="float32")):
        for name, section in (("preprocessor_config.json", None), ("processor_config.json", "image_processor")):
            read = json.loads((folder / name).read_text())
            read = read[section] if section else read
            assert (read["min_pixels"], read["max_pixels"]) == (1568, 3136)
    again = load_policy(str(import_folder(tmp_path / "out", tmp_path / "again")), size=None)
    assert again.config == trained.config
    jax.tree.map(np.testing.assert_array_equal, again.params, trained.params)


@pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")
@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_loads_it_and_its_export(family, tmp_path):
    import torch
    import transformers

    write_odd_folder(tmp_path / "odd", family)
    export_folder(tmp_path / "odd", tmp_path / "out", dtype="float32")
    ids = torch.tensor([[1, 20, 30, 40, 1030]])
    answers = []
    for folder in (tmp_path / "odd", tmp_path / "out"):
        model, info = transformers.AutoModelForImageTextToText.from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True
        )
        assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        with torch.no_grad():
            answers.append(model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.numpy())
    np.testing.assert_array_equal(*answers)


def test_model_left_out_is_the_folders_own_size(tmp_path):
    write_odd_folder(tmp_path / "odd")
    common = dict(name="a", objective="supervised", steps=1)
    assert RunConfig(**common).model == RunConfig(**common, init="random").model == "tiny"
    run = RunConfig(**common, init=str(tmp_path / "odd"))
    assert run.model is None and model_of(run).same_shapes(odd_model("qwen2_5_vl"))
    assert model_of(RunConfig(**common, init=str(tmp_path / "odd"), model="3b")).same_shapes(SIZES["3b"])
    assert config_of("base", None) == read_config(BASE)
    with pytest.raises(ValueError, match="`model` is null but `init` is 'random'"):
        RunConfig(**common, init="random", model=None)


def test_a_size_that_does_not_fit_says_where_it_differs(tmp_path):
    write_odd_folder(tmp_path / "odd")
    with pytest.raises(UserError, match="(?s)not of size `tiny`.*hidden_size 40, not 192.*model=null"):
        load_policy(str(tmp_path / "odd"), size="tiny")
    other = dict(pad_token_id=77, eos_token_id=0, rope_theta=3e4, rms_norm_eps=1e-4)
    folder = tmp_path / "same"
    load_policy("base").save(folder)
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(raw | other))
    assert load_policy(str(folder), size="tiny").config.text.rope_theta == 3e4


def test_a_run_saved_with_a_size_goes_on_without_one(tmp_path):
    from m2io_jax.config.resume import require_resumable

    write_odd_folder(tmp_path / "odd")
    common = dict(name="a", objective="supervised", steps=1, init=str(tmp_path / "odd"))
    before, now = (RunConfig(**common, model=size) for size in ("tiny", None))
    require_resumable(before.resume_key(), now)
    with pytest.raises(UserError, match="model: was 'tiny', is now '3b'"):
        require_resumable(before.resume_key(), RunConfig(**common, model="3b"))


def test_stages_keep_the_size_of_the_first(tmp_path):
    from m2io_jax.training.stages import load_stages

    stages = {"stages": {"one": {}, "two": {}}, "name": "a", "objective": "supervised", "steps": 1, "run": "r"}
    path = tmp_path / "stages.yaml"
    for init, expected in (("base", "tiny"), (str(tmp_path / "folder"), None)):
        path.write_text(yaml.safe_dump(stages | {"init": init}))
        assert [run.model for run in load_stages(path).runs] == [expected] * 2
