"""Adapters: nothing at first, then all that is trained; added to the weights for export; as PEFT keeps them."""

import json
from dataclasses import replace
from importlib.util import find_spec

import jax
import numpy as np
import optax
import pytest
from flax import nnx
from hugging_face_reference import FAMILIES, FOLDER, MAIN, build, case, inputs
from reference_model import FORWARD, close, config, params, prompts
from safetensors.numpy import load_file, save_file

from m2io_jax.config import RunConfig
from m2io_jax.errors import UserError
from m2io_jax.models.inputs import Completions
from m2io_jax.models.lora import adapted_modules, fold, is_adapter
from m2io_jax.models.peft import load_adapter, read_lora, save_adapter
from m2io_jax.models.policy import Policy, structure_of, with_adapter_of
from m2io_jax.models.sizes import LoraConfig
from m2io_jax.models.weights import declared
from m2io_jax.training.optimizer import make_optimizer
from m2io_jax.training.run import prepared
from m2io_jax.training.state import TrainState, join, split_trained
from m2io_jax.training.supervised import supervised_update

# Modules of both towers; in Qwen2-VL the vision tower has others.
TARGETS = (r"language\.blocks\.(q|v|mlp\.down)", r"vision\.(blocks\.qkv|merger\.fc1)")
LORA = LoraConfig(rank=3, alpha=6.0, targets=TARGETS)


def adapted(family: str, filled: bool = False) -> Policy:
    """The reference model with adapters: new ones, or such as training leaves."""
    policy = Policy(config(family), params(family), None).with_adapters(LORA, seed=3)
    return policy.with_params(fill(policy.params)) if filled else policy


def fill(trained: nnx.State) -> nnx.State:
    random = np.random.default_rng(8)

    def draw(path, param):
        shape = param.get_value().shape
        return param.replace(random.normal(size=shape).astype(np.float32) * 0.3) if is_adapter(path) else param

    return nnx.from_flat_state([(path, draw(path, param)) for path, param in nnx.to_flat_state(trained)])


def logits(policy: Policy, batch) -> np.ndarray:
    @jax.jit
    def forward(weights, batch):
        model = nnx.merge(policy.structure, weights)
        hidden, _ = model.language.prefill(model.embed_prompt(batch), batch.positions.transpose(1, 0, 2))
        return model.language.logits(hidden)

    with jax.default_matmul_precision("highest"):
        return np.asarray(forward(policy.params, batch))


@pytest.mark.parametrize("family", FAMILIES)
def test_new_adapters_change_nothing_and_folded_ones_compute_the_same(family):
    batch, plain = prompts(family, MAIN), Policy(config(family), params(family), None)
    np.testing.assert_array_equal(logits(adapted(family), batch), logits(plain, batch))
    filled = adapted(family, filled=True)
    beside = logits(filled, batch)
    length = len(case(MAIN).rows[0])
    close(logits(filled.without_adapters(), batch)[:, :length], beside[:, :length], FORWARD)
    assert np.abs(beside - logits(plain, batch)).max() > 0.1


def test_a_step_changes_the_adapters_alone():
    family = FAMILIES[0]
    policy, settings = adapted(family), dict(rank=LORA.rank, alpha=LORA.alpha, targets=LORA.targets)
    run = RunConfig(name="lora", objective="supervised", steps=1, lora=settings)
    trained, frozen = split_trained(policy.params, run)
    assert all(is_adapter(path) for path, _ in nnx.to_flat_state(trained))
    assert not any(is_adapter(path) for path, _ in nnx.to_flat_state(frozen))
    optimizer = make_optimizer(run.optimizer)
    state = TrainState(trained, optimizer.init(trained), np.zeros((), np.int32))
    tokens = np.array([[[9, 8, 7, 2]]], np.int32)
    targets = Completions(tokens, np.ones(tokens.shape, bool))
    update = jax.jit(lambda *given: supervised_update(policy.structure, optimizer, run, *given))
    for _ in range(2):  # in the first only b moves: a has no gradient while b is 0
        state, metrics = update(state, frozen, prompts(family, MAIN), targets, 0.1)
    assert metrics["loss"] > 0
    before, after = dict(nnx.to_flat_state(policy.params)), dict(nnx.to_flat_state(join(state.params, frozen)))
    assert before.keys() == after.keys()
    for path, param in after.items():
        moved = np.abs(np.asarray(param.get_value()) - np.asarray(before[path].get_value())).max()
        assert (moved > 1e-3) == is_adapter(path) and (is_adapter(path) or moved == 0), path


def test_freezing_by_name():
    run = RunConfig(name="freeze", objective="supervised", steps=1, freeze=(r"vision\..*", r"language\.embedding"))
    trained, frozen = split_trained(params(FAMILIES[0]), run)
    assert {path[0] for path, _ in nnx.to_flat_state(trained)} == {"language"}
    assert ("language", "embedding") in dict(nnx.to_flat_state(frozen))
    assert optax.tree.norm(join(trained, frozen)) == optax.tree.norm(params(FAMILIES[0]))
    with pytest.raises(UserError, match="'vision' names no parameter"):
        split_trained(params(FAMILIES[0]), run.model_copy(update={"freeze": ("vision",)}))
    with pytest.raises(UserError, match="Nothing is left to train"):
        split_trained(params(FAMILIES[0]), run.model_copy(update={"freeze": (".*",)}))


@pytest.mark.parametrize("target", [r"language\.blocks\.query", r"language\.head", r"vision\.patch_embed", "q"])
def test_what_cannot_be_adapted_is_named(target):
    lora = replace(LORA, targets=(target,))
    with pytest.raises(UserError, match="names no module") as caught:
        structure_of(replace(config(FAMILIES[0]), lora=lora))
    assert "language.blocks.q" in str(caught.value)


@pytest.mark.parametrize("family", FAMILIES)
def test_there_and_back(family, tmp_path):
    filled = adapted(family, filled=True)
    save_adapter(tmp_path, filled.params, filled.config)
    lora = read_lora(tmp_path)
    assert (lora.rank, lora.alpha) == (LORA.rank, LORA.alpha)
    again = Policy(config(family), params(family), None)
    again = again.with_adapters(lora, load_adapter(tmp_path, replace(again.config, lora=lora)))
    first, second = (dict(nnx.to_flat_state(policy.params)) for policy in (filled, again))
    assert first.keys() == second.keys()
    for path in first:
        np.testing.assert_array_equal(first[path].get_value(), second[path].get_value())
    assert {path for path, _ in nnx.to_flat_state(declared(again.config))} == first.keys()


def test_an_adapter_of_older_transformers_with_another_scale(tmp_path):
    filled = adapted(FAMILIES[0], filled=True)
    save_adapter(tmp_path, filled.params, filled.config)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    older = {name.replace("model.language_model.", "model.").replace("model.visual.", "visual."): tensor
             for name, tensor in tensors.items()}  # fmt: skip
    assert older.keys() != tensors.keys()
    save_file(older, tmp_path / "adapter_model.safetensors")
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings | {"use_rslora": True}))
    lora = read_lora(tmp_path)
    assert lora.alpha / lora.rank == pytest.approx(LORA.alpha / LORA.rank**0.5)
    assert len(nnx.to_flat_state(load_adapter(tmp_path, replace(config(FAMILIES[0]), lora=lora)))) == 10


@pytest.mark.parametrize(
    "change, says",
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
        ({"use_dora": True}, "not implemented here: use_dora"),
        ({"bias": "all"}, "not implemented here: bias"),
        ({"r": None}, "must be numbers"),
    ],
)
def test_an_adapter_that_computes_something_else_is_refused(change, says, tmp_path):
    filled = adapted(FAMILIES[0])
    save_adapter(tmp_path, filled.params, filled.config)
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings | change))
    with pytest.raises(UserError, match=says):
        read_lora(tmp_path)


def test_an_adapter_of_another_model_is_refused(tmp_path):
    filled = adapted(FAMILIES[0])
    save_adapter(tmp_path, filled.params, filled.config)
    path = tmp_path / "adapter_model.safetensors"
    tensors = load_file(path)
    lost, cut = sorted(tensors)[:2]
    save_file({**tensors, cut: tensors[cut][:1], lost: tensors[lost]}, path)
    lora = read_lora(tmp_path)
    with pytest.raises(UserError, match="the model's is"):
        load_adapter(tmp_path, replace(config(FAMILIES[0]), lora=lora))
    save_file({name: tensor for name, tensor in tensors.items() if name != lost}, path)
    with pytest.raises(UserError, match="is missing"):
        load_adapter(tmp_path, replace(config(FAMILIES[0]), lora=lora))
    save_file(tensors | {"base_model.model.model.colour.lora_A.weight": np.zeros((3, 3), np.float32)}, path)
    with pytest.raises(UserError, match="adapts no module"):
        read_lora(tmp_path)


@pytest.mark.skipif(find_spec("torch") is None or find_spec("peft") is None, reason="torch or peft is not installed")
@pytest.mark.parametrize("family", FAMILIES)
def test_peft_computes_the_same(family, tmp_path):
    import peft
    import torch

    filled = adapted(family, filled=True)
    save_adapter(tmp_path, filled.params, filled.config)
    theirs = build(family)
    norm = load_file(FOLDER / family / "model.safetensors")["model.norm.weight"]
    assert torch.equal(theirs.state_dict()["model.language_model.norm.weight"], torch.tensor(norm))
    with torch.no_grad():
        expected = peft.PeftModel.from_pretrained(theirs, str(tmp_path)).eval()(**inputs(MAIN)).logits.numpy()
    length = len(case(MAIN).rows[0])
    close(logits(filled, prompts(family, MAIN))[:, :length], expected[:, :length], FORWARD)


def test_a_policy_has_one_set_of_adapters():
    with pytest.raises(UserError, match="has adapters already"):
        adapted(FAMILIES[0]).with_adapters(LORA)


def test_a_run_goes_on_with_the_adapters_that_it_asks_for(tmp_path):
    """Saved and read, targets are names of modules, no longer the patterns that chose them."""
    filled = adapted(FAMILIES[0], filled=True)
    save_adapter(tmp_path, filled.params, filled.config)
    read = with_adapter_of(Policy(config(FAMILIES[0]), params(FAMILIES[0]), None), tmp_path)
    asked = dict(rank=LORA.rank, alpha=LORA.alpha, targets=LORA.targets)
    run = RunConfig(name="lora", objective="supervised", steps=1, lora=asked)
    assert adapted_modules(prepared(read, run).params) == adapted_modules(filled.params)
    assert prepared(read, run.model_copy(update={"lora": None})).config.lora is None
    for change in ({"rank": 4}, {"alpha": 1.0}, {"targets": (r"language\.blocks\.q",)}):
        other = RunConfig(name="lora", objective="supervised", steps=1, lora=asked | change)
        with pytest.raises(UserError, match="has adapters of rank 3 and alpha 6"):
            prepared(read, other)


def test_folding_keeps_the_names_of_a_plain_model():
    filled = adapted(FAMILIES[0], filled=True)
    folded, plain = (dict(nnx.to_flat_state(state)) for state in (fold(filled.params, LORA), params(FAMILIES[0])))
    assert folded.keys() == plain.keys()
