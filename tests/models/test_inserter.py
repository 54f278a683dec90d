"""The whole model against NumPy in float64, and what must and must not change its log-probabilities."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from small_model import (
    BATCH,
    PARTS,
    SMALL,
    log_probs,
    mixed_rows,
    picture,
    prompt_row,
    random_completions,
    reference_logits,
    small_params,
)

from m2io_jax.config import BatchConfig
from m2io_jax.episodes.batching import stack_prompts
from m2io_jax.models.inputs import Completions

MEDIA = list(SMALL.special.media)


@pytest.fixture(scope="module")
def completions():
    return random_completions()


@pytest.fixture(scope="module")
def measured(completions):
    return jax.device_get(log_probs(small_params(), stack_prompts(mixed_rows()), completions))


def of(rows, completions, temperature=1.0):
    """Log-probabilities of real tokens, 0 elsewhere."""
    found = np.asarray(log_probs(small_params(), stack_prompts(rows), completions, temperature)[0])
    return np.where(completions.mask, found, 0.0)


def reference(parts, completion, temperature=1.0):
    """Log-probabilities and entropies of a completion by `reference_logits`, without the media tokens."""
    logits = reference_logits(parts, completion)[: len(completion)] / temperature
    logits[:, MEDIA] = -np.inf
    chance = np.exp(logits - logits.max(-1, keepdims=True))
    chance /= chance.sum(-1, keepdims=True)
    some = np.where(chance > 0, chance, 1.0)
    return np.log(some[np.arange(len(completion)), completion]), -np.sum(chance * np.log(some), -1)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_equals_numpy(completions, temperature):
    got = log_probs(small_params(), stack_prompts(mixed_rows()), completions, temperature)
    for row, parts in enumerate(PARTS):
        for member in range(3):
            mask = completions.mask[row, member]
            expected = reference(parts, completions.tokens[row, member][mask].tolist(), temperature)
            for found, wanted in zip(got, expected, strict=True):
                np.testing.assert_allclose(found[row, member][mask], wanted, atol=1e-5)


def test_a_completion_of_a_group_is_what_it_is_alone(completions, measured):
    expected = np.where(completions.mask[2], measured[0][2], 0.0)
    company = random_completions(seed=6)
    for member in range(3):
        tokens, mask = company.tokens.copy(), company.mask.copy()
        tokens[:, 1], mask[:, 1] = completions.tokens[2, member], completions.mask[2, member]
        for row in of([mixed_rows()[2]] * 4, Completions(tokens, mask)):
            np.testing.assert_allclose(row[1], expected[member], atol=1e-6)


def test_groups_of_one_equal_one_group(completions, measured):
    rows = [mixed_rows()[2]] * 3
    single = Completions(completions.tokens[2][:, None], completions.mask[2][:, None])
    expected = np.where(completions.mask[2], measured[0][2], 0.0)
    np.testing.assert_allclose(of(rows, single)[:, 0], expected, atol=1e-5)


def test_larger_shapes_change_nothing(completions, measured):
    larger = BatchConfig(prompt_length=37, completion_length=6, pictures=3, patches=36, max_pixels=96)
    got = of(mixed_rows(larger), completions)
    np.testing.assert_allclose(got, np.where(completions.mask, measured[0], 0.0), atol=1e-5)


def test_what_lies_in_padding_does_not_matter(completions, measured):
    random = np.random.default_rng(0)
    prompts = stack_prompts(mixed_rows())

    def fill(values, real, low, high):
        return np.where(real, values, random.integers(low, high, values.shape)).astype(values.dtype)

    padding = prompts.windows < 0
    spoiled = replace(
        prompts,
        tokens=fill(prompts.tokens, prompts.mask, 7, 64),
        positions=fill(prompts.positions, prompts.mask[:, None], 0, 50),
        patches=fill(prompts.patches, ~padding[..., None], -3, 3),
        patch_positions=fill(prompts.patch_positions, ~padding[..., None], 0, 9),
    )
    assert (spoiled.tokens != prompts.tokens).any() and (spoiled.patches != prompts.patches).any()
    after = Completions(fill(completions.tokens, completions.mask, 7, 64), completions.mask)
    got = np.asarray(log_probs(small_params(), spoiled, after)[0])
    np.testing.assert_allclose(got[after.mask], measured[0][after.mask], atol=1e-5)


def test_every_picture_counts_and_where_it_stands_does_too(completions):
    first, second = picture(2, 4, 4), picture(3, 4, 4)
    other = picture(4, 4, 4)
    orders = [(first, second), (second, first), (first, other), (other, second)]
    rows = [prompt_row(40, a, 41, b, 42) for a, b in orders]
    same = Completions(*(np.repeat(x[:1], 4, 0) for x in (completions.tokens, completions.mask)))
    as_shown, *changed = of(rows, same)
    for row in changed:
        assert np.abs(row - as_shown).max() > 1e-2


def test_a_row_does_not_depend_on_the_others(completions, measured):
    order = [3, 1, 0, 2]
    shuffled = Completions(completions.tokens[order], completions.mask[order])
    got = of([mixed_rows()[index] for index in order], shuffled)
    np.testing.assert_allclose(got, np.where(shuffled.mask, measured[0][order], 0.0), atol=1e-6)


def test_media_tokens_have_no_probability(completions):
    tokens = np.broadcast_to(np.resize(MEDIA, 6), completions.tokens.shape).astype(np.int32)
    got, entropy = log_probs(
        small_params(), stack_prompts(mixed_rows()), Completions(tokens, np.ones(tokens.shape, bool))
    )
    assert (np.asarray(got) < -1e29).all() and np.isfinite(got).all()
    assert (np.asarray(entropy) > 0).all() and np.isfinite(entropy).all()


def test_batch_is_as_the_prompts_need_it():
    assert max(row.mask.sum() for row in mixed_rows()) <= BATCH.prompt_length
