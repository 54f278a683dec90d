"""What the configuration asks for is what is computed; each function by itself is tested in tests/rl."""

import re
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml

from m2io_jax.config import GRPOConfig, RunConfig, SingleConfig
from m2io_jax.models.inputs import Completions
from m2io_jax.rl.advantages import ADVANTAGES
from m2io_jax.rl.grpo import (
    MIN_RATIO,
    compute_advantages,
    kl_coef_at,
    next_entropy_coef,
    policy_loss,
    sampling_metrics,
)
from m2io_jax.rl.learner import Schedules
from m2io_jax.rl.losses import LOSSES, token_loss
from m2io_jax.rl.rollout import GroupBatch
from m2io_jax.sampling.sampler import Rollouts

STOP, ROWS, GROUP, TIME = 2, 2, 3, 5
close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)


def sampled():
    """Rollouts of which the last of each group was cut off, and the trainer's log-probabilities, entropy, advantages.

    The trainer's are as large as the sampler's, times 0.1 to 10.
    """
    generator = np.random.default_rng(0)
    lengths = np.array([[2, 3, 5], [5, 1, 5]])
    mask = np.arange(TIME) < lengths[..., None]
    tokens = np.where(np.arange(TIME) == lengths[..., None] - 1, STOP, 7)
    tokens[:, -1, -1] = 7
    theirs = -generator.exponential(size=mask.shape)
    ours = theirs + np.log(10) * generator.uniform(-1, 1, size=mask.shape)
    arrays = ours, generator.exponential(size=mask.shape), generator.normal(size=mask.shape[:2])
    ours, entropy, advantages = (jnp.asarray(each, jnp.float32) for each in arrays)
    rollouts = Rollouts(Completions(jnp.asarray(tokens), jnp.asarray(mask)), jnp.asarray(theirs, jnp.float32))
    return ours, entropy, rollouts, advantages


def objective(
    settings,
    log_probs,
    entropy,
    rollouts,
    advantages,
    *,
    old_log_probs=None,
    ref_log_probs=None,
    kl_coef=0.0,
    entropy_coef=None,
    shaping=None,
):
    config = RunConfig(
        name="x",
        objective="grpo",
        steps=1,
        grpo=settings | ({"advantage": "none"} if shaping else {}),
        data={"single": shaping},
        batch={"completion_length": TIME},
    )
    batch = GroupBatch(None, None, rollouts, None, ref_log_probs=ref_log_probs, old_log_probs=old_log_probs)
    return policy_loss(config, log_probs, entropy, batch, advantages, Schedules(0.0, kl_coef, entropy_coef), (STOP,))


def gradient(settings, log_probs, *rest, **more):
    return jax.grad(lambda x: objective(settings, x, *rest, **more)[0])(log_probs)


@pytest.mark.parametrize(
    "settings, expected",
    [
        (dict(), dict(low=0.2, high=0.2, dual=None)),
        (dict(clip_epsilon=0.1), dict(low=0.1, high=0.1, dual=None)),
        (dict(clip_epsilon_high=0.28, dual_clip=3), dict(low=0.2, high=0.28, dual=3.0)),
        (dict(loss="gspo"), dict(low=3e-4, high=4e-4)),
        (dict(loss="gmpo"), dict(low=0.4, high=0.4)),
        (dict(loss="cispo"), dict(low=1.0, high=4.0)),
        (dict(loss="sapo", sapo_temperatures=[1, 2]), dict(temperatures=(1.0, 2.0))),
    ],
    ids=lambda value: str(value.get("loss", "")),
)
def test_a_loss_gets_its_settings(settings, expected):
    loss = token_loss(GRPOConfig(**settings))
    assert loss.func is LOSSES[settings.get("loss", "clip")] and loss.keywords == expected


def test_a_loss_that_takes_no_settings_is_given_none(monkeypatch):
    def plain(log_probs, old_log_probs, advantages, mask):
        return -advantages[..., None] * log_probs, {}

    monkeypatch.setitem(LOSSES, "clip", plain)
    ours, entropy, rollouts, advantages = sampled()
    mask, wanted = rollouts.completions.mask, -np.asarray(advantages)[..., None] * ours
    total, _, metrics = objective({}, ours, entropy, rollouts, advantages)
    close(total, (np.where(mask, wanted, 0).sum(-1) / mask.sum(-1)).sum())
    assert not [name for name in metrics if name.startswith("clip_ratio")]


def test_an_advantage_gets_its_settings():
    rewards = jnp.array([[0.0, 1.0, 5.0], [3.0, 3.5, 3.0]])
    for name, estimate in ADVANTAGES.items():
        close(compute_advantages(GRPOConfig(advantage=name), rewards), estimate(rewards))
    centred = rewards - rewards.mean(1, keepdims=True)
    close(compute_advantages(GRPOConfig(scale_rewards=False), rewards), centred)


def test_without_a_correction_the_trust_region_is_around_the_sampler():
    ours, entropy, rollouts, advantages = sampled()
    mask, ratio = rollouts.completions.mask, np.exp(ours - rollouts.log_probs)
    total, denominator, metrics = objective({}, ours, entropy, rollouts, advantages)
    wanted = np.asarray(advantages)[..., None]
    per_token = -np.minimum(ratio * wanted, np.clip(ratio, 0.8, 1.2) * wanted)
    close(total, (np.where(mask, per_token, 0).sum(-1) / mask.sum(-1)).sum())
    assert denominator == ROWS * GROUP
    close(metrics["clip_ratio/high_mean"][0], (mask & (ratio > 1.2) & (wanted > 0)).sum())


@pytest.mark.parametrize("how, low, high", [("truncate", None, 2.0), ("mask", 0.5, 5.0)])
def test_with_one_it_is_around_the_trainer_and_weights_make_up_for_the_rest(how, low, high):
    ours, entropy, rollouts, advantages = sampled()
    mask, ratio = np.asarray(rollouts.completions.mask), np.exp(np.asarray(ours - rollouts.log_probs))
    weights = np.minimum(ratio, high) if how == "truncate" else np.where((ratio >= low) & (ratio <= high), ratio, 0)
    assert (weights != ratio)[mask].any() and (weights == ratio)[mask].any()
    settings = dict(rollout_correction=how)
    total, _, metrics = objective(settings, ours, entropy, rollouts, advantages)
    wanted, share = np.asarray(advantages)[..., None], mask / mask.sum(-1, keepdims=True)
    close(total, -(wanted * weights * share).sum())
    assert metrics["clip_ratio/region_mean"][0] == 0  # the first update: the ratio of the trust region is 1
    close(gradient(settings, ours, entropy, rollouts, advantages), -wanted * weights * share)
    # a later update: the trust region and the weights stay where the first one found them
    later = ours + 0.1
    moved = gradient(settings, later, entropy, rollouts, advantages, old_log_probs=ours)
    close(moved, -wanted * weights * share * np.exp(0.1))


def test_the_overlong_filter_learns_nothing_from_what_was_cut_off():
    ours, entropy, rollouts, advantages = sampled()
    settings = dict(overlong_filter=True, entropy_coef=0.1, loss_aggregation="token_mean", kl_beta=0.5)
    more = dict(ref_log_probs=rollouts.log_probs, kl_coef=0.5)
    total, denominator, metrics = objective(settings, ours, entropy, rollouts, advantages, **more)
    finished = jax.tree.map(lambda x: x[:, :2], (ours, entropy, rollouts, advantages, more["ref_log_probs"]))
    kept = dict(ref_log_probs=finished[-1], kl_coef=0.5)
    expected, tokens, _ = objective(settings | {"overlong_filter": False}, *finished[:-1], **kept)
    close(total, expected)
    assert denominator == tokens == 2 + 3 + 5 + 1
    assert not np.asarray(gradient(settings, ours, entropy, rollouts, advantages, **more))[:, 2].any()
    assert metrics["sampling/importance_sampling_ratio/mean"][1] == tokens + 10  # what is told is of all


def test_shaped_advantages_weigh_in_every_tokens_loss():
    ours, entropy, rollouts, advantages = sampled()
    mask, shaping = np.asarray(rollouts.completions.mask), SingleConfig(entropy_weight=0.4, entropy_bound=2)
    ours = rollouts.log_probs  # on policy: the gradient is that of -A log pi
    sizes, wanted = np.asarray(advantages)[..., None], np.asarray(entropy)
    shaped = sizes + np.minimum(0.4 * wanted, np.abs(sizes) / 2)
    assert (0.4 * wanted < np.abs(sizes) / 2)[mask].any() and (0.4 * wanted > np.abs(sizes) / 2)[mask].any()
    found = gradient({}, ours, entropy, rollouts, advantages, shaping=shaping)
    close(found, -shaped * mask / mask.sum(-1, keepdims=True))
    plain = gradient({}, ours, entropy, rollouts, advantages, shaping=SingleConfig(entropy_weight=0))
    close(plain, -sizes * mask / mask.sum(-1, keepdims=True))
    # together with importance weights
    corrected = dict(rollout_correction="truncate", rollout_weight_max=1.0)
    ours = rollouts.log_probs - np.log(2)
    found = gradient(corrected, ours, entropy, rollouts, advantages, shaping=shaping)
    close(found, -0.5 * shaped * mask / mask.sum(-1, keepdims=True))


def test_the_kl_weight_follows_its_schedule():
    settings = GRPOConfig(kl_schedule="grpo_d", kl_beta=0.10, kl_beta_min=0.04, kl_turn=0.3)
    found = [kl_coef_at(settings, progress) for progress in (0, 0.15, 0.3, 0.65, 1)]
    assert found == pytest.approx([0.07, 0.055, 0.04, 0.07, 0.10])
    assert kl_coef_at(GRPOConfig(kl_beta=0.3), 0.4) == 0.3


def test_a_bonus_that_adapts_is_remembered_and_weighs_as_much():
    settings = GRPOConfig(entropy_coef=0.01, entropy_target=0.2, entropy_delta=0.03, entropy_coef_max=0.05)
    assert next_entropy_coef(settings, 0.01, 0.1) == 0.04
    assert next_entropy_coef(settings, 0.04, 0.1) == 0.05
    assert next_entropy_coef(settings, 0.04, 0.3) == pytest.approx(0.01)
    assert next_entropy_coef(GRPOConfig(entropy_coef=0.01), None, 0.1) is None
    given = sampled()
    adapted = objective(dict(entropy_coef=0.01), *given, entropy_coef=jnp.float32(0.04))[0]
    close(adapted, objective(dict(entropy_coef=0.04), *given)[0])


def test_ratios_are_told_as_they_are_before_any_correction():
    mask = jnp.array([[[True, True, True, False]]])
    ratio = jnp.array([[[0.25, 1.0, 4.0, 9.0]]])
    metrics = sampling_metrics(jnp.log(ratio), ratio, mask)
    assert metrics[MIN_RATIO] == -0.25
    assert metrics["sampling/importance_sampling_ratio/max"] == 4
    assert metrics["sampling/importance_sampling_ratio/mean"] == (5.25, 3)
    close(metrics["sampling/sampling_logp_difference/max"], np.log(4))
    close(metrics["sampling/sampling_logp_difference/mean"][0], 2 * np.log(4))
    nothing = sampling_metrics(jnp.full(mask.shape, jnp.nan), jnp.full(mask.shape, jnp.nan), mask & False)
    assert not np.isnan(jax.tree.leaves(nothing)).any()


def test_what_the_documentation_says_to_write_can_be_written():
    page = (Path(__file__).resolve().parents[2] / "docs" / "objectives.md").read_text(encoding="utf-8")
    snippets = [yaml.safe_load(text) for text in re.findall(r"\| `(\{.*\})` \|$", page, flags=re.MULTILINE)]
    assert {snippet.get("loss", "clip") for snippet in snippets} == set(LOSSES)
    assert {snippet.get("advantage", "group") for snippet in snippets} == set(ADVANTAGES)
    for snippet in snippets:
        RunConfig(name="documented", objective="grpo", steps=1, grpo=snippet)
