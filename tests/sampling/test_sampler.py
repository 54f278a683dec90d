"""The sampler against the trainer's pass over the same tokens, and what a row may depend on."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from small_model import PARTS, SMALL, log_probs, mixed_rows, prompt_row, reference_logits, rollouts, small_params

from m2io_jax.episodes.batching import stack_prompts
from m2io_jax.models.inputs import Completions
from m2io_jax.sampling.sampler import SamplingConfig, filter_top_k_top_p_min_p

CONFIG = SamplingConfig(temperatures=(1.0, 0.7, 0.0, 1.0), max_length=10)
KEY = 3
MEDIA = np.array(SMALL.special.media)


def run(rows, params=None, key=KEY):
    params = small_params() if params is None else params
    return jax.device_get(rollouts(params, stack_prompts(rows), CONFIG, jax.random.key(key)))


@pytest.fixture(scope="module")
def sampled():
    return run(mixed_rows())


def test_log_probs_are_the_trainers(sampled):
    """Rows of text, of one picture, of two, and a short one, at three temperatures."""
    completions = sampled.completions
    assert completions.mask.any(-1).all()
    for member, temperature in enumerate(CONFIG.temperatures):
        expected, _ = log_probs(small_params(), stack_prompts(mixed_rows()), completions, temperature or 1.0)
        mask = completions.mask[:, member]
        np.testing.assert_allclose(sampled.log_probs[:, member][mask], np.asarray(expected)[:, member][mask], atol=1e-5)
    assert (sampled.log_probs[~completions.mask] == 0).all()


def test_greedy_rows_take_the_likeliest_token_of_a_whole_pass(sampled):
    greedy = CONFIG.temperatures.index(0.0)
    for row, parts in enumerate(PARTS):
        mask = sampled.completions.mask[row, greedy]
        tokens = sampled.completions.tokens[row, greedy][mask].tolist()
        logits = reference_logits(parts, tokens)[: len(tokens)]
        logits[:, MEDIA] = -np.inf
        np.testing.assert_array_equal(tokens, logits.argmax(-1))


def test_a_row_depends_on_its_seed_and_not_on_the_batch(sampled):
    order = [2, 0, 3, 1]
    moved = run([mixed_rows()[index] for index in order])
    np.testing.assert_array_equal(moved.completions.tokens, sampled.completions.tokens[order])
    np.testing.assert_allclose(moved.log_probs, sampled.log_probs[order], atol=1e-5)
    # other company: the third row is the same, the others are of other prompts
    others = [prompt_row(60, seed=1), prompt_row(61, 9, seed=2), mixed_rows()[2], prompt_row(62, seed=4)]
    np.testing.assert_array_equal(run(others).completions.tokens[2], sampled.completions.tokens[2])


def test_a_batch_of_one(sampled):
    alone = run(mixed_rows()[2:3])
    np.testing.assert_array_equal(alone.completions.tokens[0], sampled.completions.tokens[2])


def test_other_seeds_other_keys_and_other_members_draw_otherwise(sampled):
    again = run(mixed_rows())
    np.testing.assert_array_equal(again.completions.tokens, sampled.completions.tokens)
    reseeded = run([replace(row, seeds=np.int32(row.seeds + 100)) for row in mixed_rows()])
    other_key = run(mixed_rows(), key=4)
    greedy = CONFIG.temperatures.index(0.0)
    for other in (reseeded, other_key):
        differs = (other.completions.tokens != sampled.completions.tokens).any(-1)
        assert differs[:, [0, 1, 3]].all()
        assert not differs[:, greedy].any()
    tokens = sampled.completions.tokens
    assert (tokens[:, 0] != tokens[:, 3]).any(-1).all()  # the same temperature, another place in the group


def with_embedding(change):
    """The weights with another embedding, which is the output head too."""
    params = jax.tree.map(lambda leaf: leaf, small_params())
    embedding = params["language"]["embedding"]
    values = np.asarray(embedding[...]).copy()
    change(values)
    params["language"]["embedding"] = embedding.replace(jax.numpy.asarray(values))
    return params


@pytest.mark.parametrize("stop", SMALL.special.stops)
def test_a_stop_token_ends_a_row_and_the_mask_covers_it(stop):
    # small embeddings draw nearly evenly, so that the stop token (one of 60) comes in some rows and not in others
    def flatten(embedding):
        embedding *= 0.05
        embedding[stop] *= 8

    params = with_embedding(flatten)
    stopped = 0
    for key in range(8):
        found = run(mixed_rows(), params, key)
        for tokens, mask in zip(found.completions.tokens.reshape(-1, 10), found.completions.mask.reshape(-1, 10),
                                strict=True):  # fmt: skip
            ends = np.flatnonzero(np.isin(tokens, SMALL.special.stops))
            length = ends[0] + 1 if len(ends) else 10
            np.testing.assert_array_equal(mask, np.arange(10) < length)
            assert (tokens[length:] == SMALL.special.pad).all()
            stopped += 1 < length < 10 and tokens[length - 1] == stop
    assert stopped > 0


def test_media_tokens_are_never_sampled():
    def raise_media(embedding):
        embedding[MEDIA] *= 50  # where one of them points the right way, it would take all of the probability

    params = with_embedding(raise_media)
    text = [prompt_row(20 + index, 21, seed=index) for index in range(4)]
    for key in range(4):
        found = run(text, params, key)
        assert not np.isin(found.completions.tokens, MEDIA).any()
        assert (found.log_probs > -30).all()


def test_completions_come_as_the_trainer_takes_them(sampled):
    assert isinstance(sampled.completions, Completions)
    assert sampled.completions.tokens.shape == sampled.completions.mask.shape == sampled.log_probs.shape == (4, 4, 10)
    assert sampled.completions.tokens.dtype == np.int32 and sampled.log_probs.dtype == np.float32


@pytest.mark.parametrize(
    "settings, allowed",
    [
        (dict(), [0, 1, 2, 3, 4]),
        (dict(top_k=2), [1, 3]),
        (dict(top_k=99), [0, 1, 2, 3, 4]),
        (dict(top_p=0.69), [1, 3]),
        (dict(top_p=0.39), [3]),
        (dict(top_p=0.71), [1, 2, 3]),
        (dict(min_p=0.5), [1, 3]),
        (dict(min_p=0.2), [1, 2, 3, 4]),
        (dict(top_k=3, top_p=0.5), [1, 3]),
    ],
)
def test_what_may_be_drawn(settings, allowed):
    """Probabilities 0.05, 0.3, 0.15, 0.4, 0.1 (top_k and top_p count from the likeliest)."""
    logits = np.log(np.array([0.05, 0.3, 0.15, 0.4, 0.1], np.float32)) + 7
    kept = np.asarray(filter_top_k_top_p_min_p(logits, replace(CONFIG, **settings)))
    assert np.flatnonzero(kept > -1e29).tolist() == allowed
    np.testing.assert_array_equal(kept[allowed], logits[allowed])


def test_filters_are_not_part_of_the_policy():
    """What is drawn is likely; its log-probability is the policy's, as the trainer computes it."""
    config = replace(CONFIG, top_k=1)
    sampled = jax.device_get(rollouts(small_params(), stack_prompts(mixed_rows()), config, jax.random.key(KEY)))
    tokens = sampled.completions.tokens
    assert (tokens == tokens[:, 2:3]).all(), "one token to draw from is the greedy one, whatever the temperature"
    expected, _ = log_probs(small_params(), stack_prompts(mixed_rows()), sampled.completions, 0.7)
    np.testing.assert_allclose(
        sampled.log_probs[:, 1], np.where(sampled.completions.mask[:, 1], np.asarray(expected)[:, 1], 0), atol=1e-5
    )
