"""PEFT's settings one by one: read, harmless or refused with their cause; layers without adapters; who opens what."""

import json
import re
import shutil
from dataclasses import replace
from importlib.util import find_spec

import jax
import numpy as np
import pytest
from flax import nnx
from hugging_face_reference import FAMILIES, MAIN, build, case, inputs
from reference_model import FORWARD, close, config, params, prompts
from safetensors.numpy import load_file, save_file
from test_lora import LORA, adapted, logits

from m2io_jax.errors import UserError
from m2io_jax.models.conversion import export_folder, import_folder
from m2io_jax.models.peft import load_adapter, merging, read_lora, save_adapter
from m2io_jax.models.policy import BASE, Policy, load_policy, with_adapter_of
from m2io_jax.models.sizes import LoraConfig

FAMILY = FAMILIES[0]
TENSORS, SETTINGS = "adapter_model.safetensors", "adapter_config.json"
SUFFIXES = ["q_proj", "v_proj", "down_proj", "qkv", "mlp.0"]  # of `LORA`'s modules
Q = "base_model.model.model.language_model.layers.{}.self_attn.q_proj.lora_{}.weight"


def saved(folder, keep=lambda name: True, **settings):
    """The adapters of the reference model, of which those stay that `keep` says; settings laid over PEFT's."""
    filled = adapted(FAMILY, filled=True)
    folder.mkdir(exist_ok=True)
    save_adapter(folder, filled.params, filled.config)
    tensors = load_file(folder / TENSORS)
    save_file({name: tensor for name, tensor in tensors.items() if keep(name)}, folder / TENSORS)
    written = json.loads((folder / SETTINGS).read_text()) | settings
    (folder / SETTINGS).write_text(json.dumps(written))
    return folder


def computed(folder):
    """Logits of the main case with the adapters of a folder."""
    policy = with_adapter_of(Policy(config(FAMILY), params(FAMILY), None), folder)
    return logits(policy, prompts(FAMILY, MAIN))[:, : len(case(MAIN).rows[0])]


def in_layer_1(name):
    return ".layers.0." not in name and ".blocks.0." not in name and ".blocks.2." not in name


@pytest.mark.parametrize("settings", [{"layers_to_transform": [1]}, {"layers_to_transform": 1}, {}])
def test_layers_without_adapters_are_as_they_were(settings, tmp_path):
    some = saved(tmp_path / "some", in_layer_1, target_modules=SUFFIXES, **settings)
    tensors = load_file(saved(tmp_path / "zeros") / TENSORS)
    zeros = {name: tensor * (in_layer_1(name) or ".lora_A." in name) for name, tensor in tensors.items()}
    save_file({name: np.float32(tensor) for name, tensor in zeros.items()}, tmp_path / "zeros" / TENSORS)
    np.testing.assert_allclose(computed(some), computed(tmp_path / "zeros"), rtol=1e-6, atol=1e-6)
    assert np.abs(computed(some) - computed(saved(tmp_path / "all"))).max() > 0.1


def test_layers_without_adapters_are_merged_as_they_were(tmp_path):
    some = saved(tmp_path / "some", in_layer_1)
    with merging(some, config(FAMILY)) as merged:
        one = np.ones((32, 32), np.float32)
        np.testing.assert_array_equal(merged("model.layers.0.self_attn.q_proj.weight", one), one)
        assert np.abs(merged("model.layers.1.self_attn.q_proj.weight", one) - one).max() > 0.01


def test_an_adapter_of_one_module_in_one_layer(tmp_path):
    only = saved(tmp_path, lambda name: ".layers.1.self_attn.v_proj." in name)
    lora = read_lora(only)
    assert lora.targets == (re.escape("language.blocks.v"),)
    loaded = dict(nnx.to_flat_state(load_adapter(only, replace(config(FAMILY), lora=lora))))
    assert len(loaded) == 2
    b = loaded["language", "blocks", "v", "adapter", "b"].get_value()
    a = loaded["language", "blocks", "v", "adapter", "a"].get_value()
    assert not np.any(b[0]) and np.all(b[1]) and np.all(a)  # where it is new, it can be trained


def test_adapters_of_a_model_are_not_lost_for_others(tmp_path):
    policy = load_policy("base")
    policy.with_adapters(LoraConfig(2, 4.0, (r"language\.blocks\.q",)), seed=1).save(tmp_path / "mine")
    with pytest.raises(UserError, match="(?s)has adapters already, which would be lost.*mine/adapter"):
        import_folder(tmp_path / "mine", tmp_path / "out", adapter=tmp_path / "mine" / "adapter")
    assert not (tmp_path / "out").exists()


def patterned(folder, rslora):
    """The same function twice: adapters that differ in rank and alpha by `*_pattern`, and with all made alike."""
    scale = {True: lambda alpha, rank: alpha / rank**0.5, False: lambda alpha, rank: alpha / rank}[rslora]
    alike, differing = saved(folder / "alike"), folder / "differing"
    ranks, alphas = {"q_proj": 2, "layers.1.self_attn.v_proj": 1}, {"^visual.merger.mlp.0": 3, "q_proj": 5.5}
    shutil.copytree(alike, differing)
    tensors, plain = load_file(alike / TENSORS), scale(LORA.alpha, LORA.rank)
    narrow, wide = dict(tensors), dict(tensors)
    for name in tensors:
        rank = next((rank for key, rank in ranks.items() if f"{key}.lora_" in name), LORA.rank)
        alpha = next((alpha for key, alpha in alphas.items() if f"{key.strip('^')}.lora_" in name), LORA.alpha)
        cut = (slice(rank),) if ".lora_A." in name else (slice(None), slice(rank))
        narrow[name], wide[name] = np.ascontiguousarray(tensors[name][cut]), np.zeros_like(tensors[name])
        wide[name][cut] = narrow[name]
        if ".lora_B." in name:
            wide[name] *= np.float32(scale(alpha, rank) / (LORA.alpha / LORA.rank))
    save_file(narrow, differing / TENSORS)
    save_file(wide, alike / TENSORS)
    settings = json.loads((alike / SETTINGS).read_text())
    settings |= {"rank_pattern": ranks, "alpha_pattern": alphas, "use_rslora": rslora}
    (differing / SETTINGS).write_text(json.dumps(settings))
    return differing, alike, plain


@pytest.mark.parametrize("rslora", [False, True])
def test_modules_that_differ_in_rank_and_alpha(rslora, tmp_path):
    differing, alike, plain = patterned(tmp_path, rslora)
    lora = read_lora(differing)
    assert lora.rank == LORA.rank and lora.alpha == pytest.approx(plain * LORA.rank)
    np.testing.assert_allclose(computed(differing), computed(alike), rtol=1e-4, atol=1e-4)
    names = ("model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.v_proj", "visual.merger.mlp.0")
    with merging(differing, config(FAMILY)) as one, merging(alike, config(FAMILY)) as other:
        for name in names:
            a, b = (load_file(differing / TENSORS) for _ in "ab")
            key = next(key for key in a if key.endswith(f"{name.removeprefix('model.')}.lora_A.weight"))
            zero = np.zeros((b[key.replace("_A.", "_B.")].shape[0], a[key].shape[1]), np.float32)
            added = one(f"{name}.weight", zero)
            np.testing.assert_allclose(added, other(f"{name}.weight", zero), rtol=1e-5, atol=1e-6)
            assert np.abs(added).max() > 1e-3


@pytest.mark.parametrize("half", "AB")
def test_half_of_an_adapter_is_missing(half, tmp_path):
    lost = Q.format(0, half)
    folder = saved(tmp_path, lambda name: name != lost)
    with pytest.raises(UserError, match=f"layers.0.self_attn.q_proj.lora_{half}.weight is missing"):
        load_adapter(folder, replace(config(FAMILY), lora=read_lora(folder)))


@pytest.mark.parametrize("start", [True, False, None, "gaussian", "orthogonal", "Orthogonal", "eva", "mica"])
def test_how_adapters_began_is_of_no_matter(start, tmp_path):
    assert read_lora(saved(tmp_path, init_lora_weights=start)).rank == LORA.rank


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_16", "olora", "corda", "loftq", "lora_ga", "PiSSA"])
def test_a_start_that_changed_the_model_is_refused_with_the_reason(start, tmp_path):
    with pytest.raises(UserError, match=f"(?s){start}.*changed the model's own weights.*init_lora_weights"):
        read_lora(saved(tmp_path, init_lora_weights=start))


@pytest.mark.parametrize("start", ["a new one", 3, ["pissa"], 1])
def test_a_start_that_nobody_knows_is_refused(start, tmp_path):
    with pytest.raises(UserError, match="is not known here.*may have changed"):
        read_lora(saved(tmp_path, init_lora_weights=start))


@pytest.mark.parametrize(
    "settings, says",
    [
        ({"rank_pattern": {"q_proj": 8}}, "q_proj.lora_A.weight has rank 3, but r and rank_pattern say 8"),
        ({"rank_pattern": {"q_proj": 3}, "r": 8}, "has rank 3, but r and rank_pattern say 8"),
        ({"rank_pattern": {"q_proj": 0}}, "0 of 'q_proj' is no rank"),
        ({"rank_pattern": [8]}, "rank_pattern is .* must hold a number by module"),
        ({"rank_pattern": {"(a+)+b": 4}}, "is a regular expression"),
        ({"alpha_pattern": {".*q_proj": 8}}, "'..q_proj' is a regular expression"),
        ({"alpha_pattern": {"q_proj": "8"}}, "'8' of 'q_proj' is no alpha"),
        ({"use_dora": True}, "use_dora .it scales"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save .it trained whole modules"),
        ({"bias": "lora_only"}, "bias .it trained the modules' biases: lora_only"),
        ({"lora_bias": True}, "lora_bias .its matrices have a bias"),
        ({"trainable_token_indices": [5]}, "trainable_token_indices"),
        ({"target_parameters": ["mlp.experts"]}, "target_parameters"),
        ({"alora_invocation_tokens": [1, 2]}, "alora_invocation_tokens"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "layer_replication"),
        ({"use_qalora": True}, "use_qalora"),
        ({"peft_type": "ADALORA"}, "peft_type is 'ADALORA'"),
        ({"r": 5}, "r is 5, but its matrices have rank 3"),
        ({"r": True}, "must be numbers"),
        ({"r": 10**12}, "its matrices have rank 3"),
        ({"lora_alpha": "16"}, "must be numbers"),
        ({"target_modules": ["k_proj"]}, "target_modules does not name"),
        ({"target_modules": SUFFIXES, "layers_to_transform": [0]}, "layers_to_transform does not name"),
    ],
)
def test_what_computes_something_else_is_refused_with_its_cause(settings, says, tmp_path):
    with pytest.raises(UserError, match=f"(?s){says}.*adapter_config.json"):
        read_lora(saved(tmp_path, **settings))


@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": r"model\.(language_model|visual)\..*"},
        {"target_modules": "(a+)+$"},  # a pattern of strangers is not run
        {"target_modules": None},
        {"rank_pattern": {}, "alpha_pattern": {}, "modules_to_save": None, "lora_dropout": 0.1, "layers_pattern": ""},
        {"layers_to_transform": None, "exclude_modules": None, "use_dora": False, "eva_config": None, "revision": None},
    ],
)
def test_what_changes_nothing_is_passed_over(settings, tmp_path):
    assert read_lora(saved(tmp_path, **settings)).alpha == LORA.alpha


def test_an_adapter_in_another_format_is_named(tmp_path):
    folder = saved(tmp_path)
    whole = (folder / TENSORS).read_bytes()
    pointer = b"version https://git-lfs.github.com/spec/v1"
    for content, says in ((pointer, "Git LFS pointer"), (whole[:-9], "cut short")):
        (folder / TENSORS).write_bytes(content)
        with pytest.raises(UserError, match=f"adapter cannot be read: .*{says}"):
            read_lora(folder)
    (folder / TENSORS).rename(folder / "adapter_model.bin")
    with pytest.raises(UserError, match="pickle format .adapter_model.bin"):
        read_lora(folder)


def test_a_matrix_that_is_a_number_is_refused(tmp_path):
    folder = saved(tmp_path)
    tensors = {name: np.array(1.0, np.float32) for name in load_file(folder / TENSORS)}
    save_file(tensors, folder / TENSORS)
    with pytest.raises(UserError, match="r is 3, but its matrices have rank 0"):
        read_lora(folder)


@pytest.fixture(scope="module")
def with_adapters(tmp_path_factory):
    """The base's folder with adapters that training might have left."""
    policy = load_policy("base").with_adapters(LoraConfig(2, 4.0, (r"language\.blocks\.(q|v)",)), seed=1)
    flat = dict(nnx.to_flat_state(policy.params))
    filled = {path: param.replace(param.get_value() + 0.2) for path, param in flat.items() if path[-1] == "b"}
    folder = tmp_path_factory.mktemp("adapted") / "model"
    policy.with_params(nnx.from_flat_state(flat | filled)).save(folder)
    return folder


def test_a_folder_with_adapters_says_so_and_keeps_them_where_transformers_looks(with_adapters, tmp_path):
    for name in (SETTINGS, TENSORS):
        assert (with_adapters / name).read_bytes() == (with_adapters / "adapter" / name).read_bytes()
    told = (with_adapters / "README.md").read_text()
    assert "the base alone" in told and "m2io convert export" in told
    out = export_folder(with_adapters, tmp_path / "out")
    assert not {"README.md", "adapter", SETTINGS, TENSORS} & {path.name for path in out.iterdir()}
    again = import_folder(with_adapters, tmp_path / "in")
    assert {path.name for path in again.iterdir()} == {path.name for path in with_adapters.iterdir()}


def test_adapters_beside_the_weights_are_read_as_transformers_reads_them(with_adapters, tmp_path):
    beside = shutil.copytree(with_adapters, tmp_path / "beside")
    shutil.rmtree(beside / "adapter")
    first, second = load_policy(str(with_adapters)), load_policy(str(beside))
    assert second.config.lora == first.config.lora is not None
    jax.tree.map(np.testing.assert_array_equal, first.params, second.params)
    both = [export_folder(source, tmp_path / source.name / "out") for source in (with_adapters, beside)]
    merged, again = (load_file(out / "model.safetensors") for out in both)
    assert all(np.array_equal(merged[name], again[name]) for name in merged)
    assert not (both[1] / SETTINGS).exists()
    assert load_policy("base").config.lora is None and not (BASE / "README.md").exists()


@pytest.mark.skipif(find_spec("torch") is None or find_spec("peft") is None, reason="torch or peft is not installed")
def test_transformers_opens_base_and_adapters_together(with_adapters, tmp_path):
    import torch
    import transformers

    ids = torch.tensor([[1, 20, 30, 40, 50]])

    def theirs(folder):
        model = transformers.AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
        with torch.no_grad():
            return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.numpy()

    export_folder(with_adapters, tmp_path / "out", dtype="float32")
    expected = theirs(tmp_path / "out")
    close(theirs(with_adapters), expected, FORWARD)
    assert np.abs(theirs(BASE) - expected).max() > 0.1


@pytest.mark.skipif(find_spec("torch") is None or find_spec("peft") is None, reason="torch or peft is not installed")
@pytest.mark.parametrize("start", ["orthogonal", "gaussian", False])
def test_what_peft_saves_computes_the_same_here(start, tmp_path):
    import peft
    import torch

    settings = dict(r=4, lora_alpha=8, target_modules=["q_proj", "up_proj"], layers_to_transform=[1])
    model = peft.get_peft_model(build(FAMILY), peft.LoraConfig(init_lora_weights=start, **settings)).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".lora_B." in name:
                weight.add_(0.3 * torch.randn_like(weight))
        expected = model(**inputs(MAIN)).logits.numpy()
    model.save_pretrained(tmp_path)
    close(computed(tmp_path), expected[:, : len(case(MAIN).rows[0])], FORWARD)
