"""Our models against Hugging Face's, block by block and end to end: logits, positions, gradients, samples.

The reference is committed (`hugging_face_reference.py` made it); where torch is installed it is made again and compared
as well.
"""

from functools import partial
from importlib.util import find_spec

import jax
import numpy as np
import pytest
from flax import nnx
from hugging_face_reference import CASES, FAMILIES, MAIN, answers, build, case
from reference_model import (
    BACKWARD,
    BUCKETS,
    FORWARD,
    close,
    config,
    logits,
    merged,
    params,
    prompts,
    reference,
)

from m2io_jax.models.attention import causal_attention
from m2io_jax.models.inserter import token_log_probs
from m2io_jax.models.policy import structure_of
from m2io_jax.models.rope import patch_rotation, token_rotation
from m2io_jax.models.weights import in_torch, matches
from m2io_jax.sampling.sampler import SamplingConfig, sample


@pytest.mark.parametrize("bucket", BUCKETS)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_positions(family, name, bucket):
    batch = prompts(family, name, bucket)
    found = logits(family, params(family), batch)
    for row, tokens in enumerate(case(name).rows):
        close(found[row, : len(tokens)], reference(family)[f"{name}/logits.{row}"], FORWARD)
        positions = reference(family)[f"{name}/positions.{row}"]
        np.testing.assert_array_equal(batch.positions[row, :, : len(tokens)], positions)


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_changes_nothing(family):
    tight, loose = (logits(family, params(family), prompts(family, MAIN, bucket)) for bucket in BUCKETS)
    length = len(case(MAIN).rows[0])
    close(loose[0, :length], tight[0, :length], 1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_vision_blocks_and_merger(family):
    answer, batch, tower = reference(family), prompts(family, MAIN), merged(family).vision
    windows, order = batch.windows[0], window_order(batch.windows[0])
    if tower.config.norm == "rms":
        np.testing.assert_array_equal(order, answer[f"{MAIN}/windows"])
    else:
        order = np.arange(len(order))
    with jax.default_matmul_precision("highest"):
        rotation = patch_rotation(batch.patch_positions[0], tower.config.head_dim)
        x = tower.patch_embed(batch.patches[0])
        for number, block in enumerate(layers(tower.blocks)):
            full = number in tower.config.fullatt_block_indexes
            x = block(x, rotation, np.minimum(windows, 0) if full else windows)
            units = real_units(x)[order]
            close(units, answer[f"{MAIN}/vision.{number}"].reshape(units.shape), FORWARD)
        close(real_units(tower.merger(x))[order][:, 0], answer[f"{MAIN}/merger"], FORWARD)


@pytest.mark.parametrize("family", FAMILIES)
def test_language_blocks(family):
    answer, batch, model = reference(family), prompts(family, MAIN), merged(family)
    text, length = model.config.text, len(case(MAIN).rows[0])
    with jax.default_matmul_precision("highest"):
        positions = batch.positions.transpose(1, 0, 2)
        rotation = token_rotation(positions, text.head_dim, text.mrope_section, text.rope_theta)
        x = model.embed_prompt(batch)
        for number, block in enumerate(layers(model.language.blocks)):
            x, _ = block(x, rotation, causal_attention)
            close(x[0, :length], answer[f"{MAIN}/language.{number}"].reshape(length, -1), FORWARD)


def layers(stack):
    """The blocks of a tower one by one."""
    structure, weights = nnx.split(stack)
    depth = jax.tree.leaves(weights)[0].shape[0]
    return [nnx.merge(structure, jax.tree.map(lambda leaf, n=n: leaf[n], weights)) for n in range(depth)]


def real_units(x):
    """[units, patches a unit, size] of the main case's pictures, one after another, without padding."""
    rows = []
    for index, (height, width) in enumerate(case(MAIN).grids[0]):
        picture = np.asarray(x[index])
        count = height * width // 4
        rows.append(picture.reshape(BUCKETS["tight"]["patches"] // 4, -1, picture.shape[-1])[:count])
    return np.concatenate(rows)


def window_order(windows):
    """The merge units of all pictures, sorted by picture and window: how the reference lays them out."""
    order, before = [], 0
    for index, (height, width) in enumerate(case(MAIN).grids[0]):
        count = height * width // 4
        order += list(before + np.argsort(windows[index, : 4 * count : 4], kind="stable"))
        before += count
    return np.array(order)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_of_every_parameter(family):
    answer, batch, length = reference(family), prompts(family, MAIN), len(case(MAIN).rows[0])

    @jax.jit
    def loss(weights, batch):
        model = nnx.merge(structure_of(config(family)), weights)
        hidden, _ = model.language.prefill(model.embed_prompt(batch), batch.positions.transpose(1, 0, 2))
        chosen, _ = token_log_probs(model.language.logits(hidden)[0, : length - 1], batch.tokens[0, 1:length])
        return -chosen.mean()

    with jax.default_matmul_precision("highest"):
        value, gradients = jax.value_and_grad(loss)(params(family), batch)
    close(value, answer[f"{MAIN}/loss"], FORWARD)
    flat = {".".join(map(str, path)): leaf.get_value() for path, leaf in nnx.to_flat_state(gradients)}
    seen = set()
    for name, match in matches(config(family)).items():
        for layer, tensor in enumerate(match.theirs):
            ours = match.view(np.asarray(flat[name][layer] if match.stacked else flat[name]))
            close(ours, answer[f"{MAIN}/gradient.{in_torch(tensor)}"], BACKWARD)
            seen.add(f"{MAIN}/gradient.{in_torch(tensor)}")
    assert seen == {key for key in answer.files if "/gradient." in key}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_comparison_notices_any_wrong_weight(family):
    batch, good = prompts(family, MAIN), jax.tree.map(np.asarray, params(family))
    expected, length = reference(family)[f"{MAIN}/logits.0"], len(case(MAIN).rows[0])
    flat = nnx.to_flat_state(good)
    for index, (path, param) in enumerate(flat):
        value = param.get_value().copy()
        place = tuple(size // 2 for size in value.shape)
        if path == ("language", "embedding"):
            place = (7, 3)  # a token that the prompt has
        value[place] += 0.1
        wrong = nnx.from_flat_state([*flat[:index], (path, param.replace(value)), *flat[index + 1 :]])
        found = logits(family, wrong, batch)[0, :length]
        error = np.abs(found - expected).max() / np.abs(expected).max()
        assert error > FORWARD, path


def one_token_later(batch, length, axis):
    batch.positions[0, axis, length // 2] += 1


def one_patch_off(batch, length, axis):
    batch.patch_positions[0, 0, 0, axis] += 1


def into_the_next_window(batch, length):
    windows = max(batch.windows[0], key=np.max)  # of the picture that has most
    assert windows.max() > 0
    windows[:4] = windows.max()


@pytest.mark.parametrize(
    "family, change",
    [(family, partial(one_token_later, axis=axis)) for family in FAMILIES for axis in range(3)]
    + [(family, partial(one_patch_off, axis=axis)) for family in FAMILIES for axis in range(2)]
    + [("qwen2_5_vl", into_the_next_window)],
)
def test_the_comparison_notices_any_wrong_position(family, change):
    batch, length = prompts(family, MAIN), len(case(MAIN).rows[0])
    change(batch, length)
    found = logits(family, params(family), batch)[0, :length]
    with pytest.raises(AssertionError, match="off by"):
        close(found, reference(family)[f"{MAIN}/logits.0"], FORWARD)


@pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_reference_made_again(family, name):
    for key, value in answers(build(family), name).items():
        close(value, reference(family)[f"{name}/{key}"], BACKWARD)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_sampler_and_the_trainer_agree(family, name):
    """Prefill once, decode token by token; against one sequence [prompt | c1 | c2 | c3]."""
    batch, settings = prompts(family, name), SamplingConfig((1.0, 0.7, 1.3), 7)

    @jax.jit
    def both(weights, batch):
        model = nnx.merge(structure_of(config(family)), weights)
        drawn = sample(model, batch, settings, key=jax.random.key(5))
        scores = [model.completion_log_probs(batch, drawn.completions, heat)[0] for heat in settings.temperatures]
        return drawn, scores

    with jax.default_matmul_precision("highest"):
        drawn, scores = both(params(family), batch)
    mask = np.asarray(drawn.completions.mask)
    for place, by_heat in enumerate(scores):
        gap = np.abs(np.asarray(by_heat) - np.asarray(drawn.log_probs))[:, place] * mask[:, place]
        assert gap.max() < 1e-5
    assert mask.sum() > 3 * len(case(name).rows)
