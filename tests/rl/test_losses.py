"""Every loss, penalty and weight against the papers' sums in float64: values, and gradients by finite differences."""

from functools import partial
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import paper_sums
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from paper_sums import GRADIENTS, TIME, VALUES, rollouts, slopes

from m2io_jax.config import GRPOConfig
from m2io_jax.rl.advantages import ADVANTAGES
from m2io_jax.rl.kl import KL_ESTIMATORS, Schedule
from m2io_jax.rl.losses import LOSSES, Aggregation, Correction, LossInputs, aggregate, policy_objective

AGGREGATIONS = get_args(Aggregation)
LONGEST = 9


@pytest.fixture(autouse=True)
def in_float64():
    with jax.enable_x64(True):
        yield


KEYS = {"low": "clip_epsilon", "high": "clip_epsilon_high", "dual": "dual_clip", "temperatures": "sapo_temperatures"}


def ours(
    new, data, name, aggregation, reference=None, *, kl_estimator="k3", importance_weights=None, entropy=None, **coefs
):
    settings = {KEYS[key]: value for key, value in paper_sums.LOSSES[name][1].items()}
    config = GRPOConfig(
        loss=name.removesuffix("_dual"), loss_aggregation=aggregation, kl_estimator=kl_estimator, **settings
    )
    inputs = LossInputs(new, *data, importance_weights, reference, entropy)
    return policy_objective(inputs, config, max_length=LONGEST, **coefs)


def parts(data):
    new, old, reference, advantages, mask = data
    return new, (old, advantages, mask), reference


def close(found, expected, rtol=1e-9):
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-12)


def test_the_reference_knows_every_loss_and_the_configuration_every_name():
    assert {name.removesuffix("_dual") for name in paper_sums.LOSSES} == set(LOSSES)
    assert set(VALUES) == set(KL_ESTIMATORS)
    names = {"loss": LOSSES, "kl_estimator": KL_ESTIMATORS, "advantage": ADVANTAGES, "loss_aggregation": AGGREGATIONS}
    names |= {"kl_schedule": get_args(Schedule), "rollout_correction": ("none", *get_args(Correction))}
    for key, registered in names.items():
        assert set(get_args(GRPOConfig.model_fields[key].annotation)) == set(registered)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("name", paper_sums.LOSSES)
def test_a_loss_equals_its_papers_sums(name, aggregation):
    for seed in range(3):
        data = rollouts(seed)
        new, rest, _ = parts(data)
        total, denominator, metrics = ours(new, rest, name, aggregation)
        expected, count = paper_sums.objective(data, name, aggregation, longest=LONGEST)
        close(total, expected)
        assert denominator == count
        close(metrics["policy_loss"], (expected, count))


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("name", paper_sums.LOSSES)
def test_its_gradient_equals_finite_differences(name, aggregation):
    data = rollouts(1)
    new, rest, _ = parts(data)
    gradient = jax.grad(lambda x: ours(x, rest, name, aggregation)[0])(new)
    expected = slopes(lambda x: paper_sums.objective((x, *data[1:]), name, aggregation, at=new)[0], new)
    np.testing.assert_allclose(gradient, expected, rtol=1e-7, atol=1e-9)
    # completions that did as their group have no gradient at all; the others have
    assert not gradient[1].any() and gradient[0].any() and gradient[2].any()


@pytest.mark.parametrize("name", ["clip", "clip_dual", "cispo", "sapo"])
def test_advantages_of_tokens_are_as_those_of_completions_of_one_token(name):
    new, (old, _, mask), _ = parts(rollouts(1))
    advantages = np.random.default_rng(5).normal(size=new.shape)

    def of_tokens(x):
        return ours(x, (old, advantages, mask), name, "token_mean")[0]

    def alone(x):
        return ours(x[..., None], (old[..., None], advantages, mask[..., None]), name, "token_mean")[0]

    for one, other in zip(*(jax.value_and_grad(function)(new) for function in (of_tokens, alone)), strict=True):
        close(one, other)
    assert not np.allclose(of_tokens(new), ours(new, (old, advantages.mean(-1), mask), name, "token_mean")[0])


@pytest.mark.parametrize("estimator", VALUES)
def test_the_penalty_its_gradient_the_weights_and_the_bonus(estimator):
    data = rollouts(1)
    new, rest, reference = parts(data)
    generator = np.random.default_rng(2)
    weights, entropy = generator.uniform(0, 2, new.shape), generator.exponential(size=new.shape)
    more = dict(importance_weights=weights, kl_coef=0.3, kl_estimator=estimator, entropy_coef=0.2)
    theirs = dict(weights=weights, kl_beta=0.3, entropy_coef=0.2, entropy=entropy)

    def total(new, entropy):
        return ours(new, rest, "clip", "sequence_mean", reference, entropy=entropy, **more)[0]

    expected, _ = paper_sums.objective(data, "clip", "sequence_mean", kl=VALUES[estimator], **theirs)
    close(total(new, entropy), expected)
    by_new, by_entropy = jax.grad(total, (0, 1))(new, entropy)

    def again(new, entropy):
        moved = theirs | {"entropy": entropy}
        return paper_sums.objective((new, *data[1:]), "clip", "sequence_mean", kl=GRADIENTS[estimator], **moved)[0]

    np.testing.assert_allclose(by_new, slopes(lambda x: again(x, entropy), new), rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(by_entropy, slopes(lambda x: again(new, x), entropy), rtol=1e-7, atol=1e-9)


def test_metrics_are_means_over_tokens():
    new, rest, reference = parts(rollouts(1))
    old, advantages, mask = rest
    settings = dict(entropy=np.full(new.shape, 2.0), kl_coef=0.1)
    _, _, metrics = ours(new, rest, "clip_dual", "sequence_mean", reference, **settings)
    ratio, wanted = np.exp(new - old)[mask], np.broadcast_to(advantages[..., None], mask.shape)[mask]
    low, high, dual = (ratio < 0.8) & (wanted < 0), (ratio > 1.2) & (wanted > 0), (ratio > 1.3) & (wanted < 0)
    expected = {"low": low, "high": high, "dual": dual, "region": low | high | dual}
    assert all(which.any() for which in expected.values())
    for name, which in expected.items():
        assert metrics[f"clip_ratio/{name}_mean"] == (which.sum(), mask.sum())
    assert metrics["entropy"] == (2 * mask.sum(), mask.sum())
    close(metrics["kl"][0], paper_sums.k3(new, reference)[mask].sum())


@pytest.mark.parametrize("name", ["gspo", "gmpo", "cispo"])
def test_tokens_that_other_losses_clip_are_told(name):
    new, rest, _ = parts(rollouts(1))
    old, advantages, mask = rest
    x, settings = new - old, paper_sums.LOSSES[name][1]
    ratio, liked, disliked = np.exp(x), advantages[..., None] > 0, advantages[..., None] < 0
    if name == "gspo":
        mean = np.where(mask, x, 0).sum(-1) / np.maximum(mask.sum(-1), 1)
        ratio = np.broadcast_to(np.exp(mean)[..., None], mask.shape)
    low, high = ratio < 1 - settings["low"], ratio > 1 + settings["high"]
    if name == "gmpo":
        low, high = x < -settings["low"], x > settings["high"]
    if name != "cispo":
        low, high = low & disliked, high & liked
    metrics = ours(new, rest, name, "sequence_mean")[2]
    assert (low & mask).any() and (high & mask).any()
    assert metrics["clip_ratio/low_mean"] == ((low & mask).sum(), mask.sum())
    assert metrics["clip_ratio/high_mean"] == ((high & mask).sum(), mask.sum())
    assert not [key for key in ours(new, rest, "sapo", "sequence_mean")[2] if key.startswith("clip_ratio")]


@pytest.mark.parametrize("name", paper_sums.LOSSES)
def test_micro_batches_add_up_to_the_batch(name):
    data = rollouts()
    for aggregation in AGGREGATIONS:

        def run(rows, aggregation=aggregation):
            new, rest, reference = parts([each[rows] for each in data])

            def loss(x):
                total, *others = ours(x, rest, name, aggregation, reference, kl_coef=0.1)
                return total, others

            return jax.value_and_grad(loss, has_aux=True)(new)

        whole, gradient = run(slice(None))
        pieces = [run(slice(0, 1)), run(slice(1, 3))]
        added = jax.tree.map(lambda *each: sum(each), *[piece for piece, _ in pieces])
        jax.tree.map(close, added, whole)
        close(np.concatenate([piece for _, piece in pieces]), gradient)


@pytest.mark.parametrize("name", paper_sums.LOSSES)
def test_two_four_and_eight_devices_change_nothing(name):
    data = rollouts(rows=8)

    def mean(new, old, reference, advantages, mask):
        rest = (old, advantages, mask)
        total, denominator, _ = ours(new, rest, name, "sequence_mean", reference, kl_coef=0.1)
        return total / denominator

    expected = jax.value_and_grad(mean)(*data)
    for count in (2, 4, 8):
        mesh = jax.make_mesh((count,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:count])
        spread = jax.device_put(data, NamedSharding(mesh, PartitionSpec("data")))
        jax.tree.map(close, jax.jit(jax.value_and_grad(mean))(*spread), expected)


@pytest.mark.parametrize("name", paper_sums.LOSSES)
@pytest.mark.parametrize("poison", [np.nan, np.inf, -1e30])
def test_nothing_outside_the_mask_is_looked_at(name, poison):
    data = rollouts()
    new, (old, advantages, mask), reference = parts(data)
    more = dict(kl_coef=0.3, entropy_coef=0.1)

    def run(fill):
        spoilt = [np.where(mask, each, fill) for each in (old, reference, np.abs(new), np.exp(new))]

        def loss(x):
            given = dict(entropy=spoilt[2], importance_weights=spoilt[3], **more)
            return ours(x, (spoilt[0], advantages, mask), name, "sequence_mean", spoilt[1], **given)[0]

        return jax.value_and_grad(loss)(np.where(mask, new, fill))

    (total, gradient), (expected, clean) = run(poison), run(-1.0)
    assert total == expected and np.isfinite(total)
    np.testing.assert_array_equal(gradient, clean)
    assert not np.asarray(gradient)[~mask].any()


@pytest.mark.parametrize("name", paper_sums.LOSSES)
def test_on_policy_every_loss_has_the_gradient_of_reinforce(name):
    new, (_, advantages, mask), _ = parts(rollouts())
    gradient = jax.grad(lambda x: ours(x, (new, advantages, mask), name, "sequence_mean")[0])(new)
    share = mask / np.maximum(mask.sum(-1, keepdims=True), 1)
    close(gradient, -advantages[..., None] * share)
    metrics = ours(new, (new, advantages, mask), name, "token_mean")[2]
    assert not any(metrics[key][0] for key in metrics if key.startswith("clip_ratio"))


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_no_completion_at_all_is_nothing_not_nan(aggregation):
    new, (old, advantages, mask), reference = parts(rollouts())
    for name in paper_sums.LOSSES:
        run = partial(ours, data=(old, advantages, mask & False), name=name, aggregation=aggregation)
        total, denominator, _ = run(new, reference=reference, kl_coef=0.1)
        assert total == 0 and denominator == 0
        assert not jax.grad(lambda x, run=run: run(x)[0])(new).any()


def test_two_completions_of_unequal_length_by_hand():
    per_token, mask = jnp.array([[1.0, 2.0, 3.0], [8.0, 9.0, 9.0]]), jnp.array([[1, 1, 1], [1, 0, 0]], bool)
    assert aggregate(per_token, mask, "sequence_mean", max_length=10) == (2 + 8, 2)
    assert aggregate(per_token, mask, "token_mean", max_length=10) == (14, 4)
    assert aggregate(per_token, mask, "constant_length", max_length=10) == (14, 20)
    with pytest.raises(ValueError, match="'mean'"):
        aggregate(per_token, mask, "mean", max_length=10)


def test_ratios_of_a_half_one_and_a_half_and_four_by_hand():
    new, old, mask = jnp.log(jnp.array([[0.5, 1.0, 1.5, 4.0]])), jnp.zeros((1, 4)), jnp.ones((1, 4), bool)
    run = partial(LOSSES["clip"], new, old, mask=mask, low=0.2, high=0.28)
    close(run(jnp.array([2.0]))[0], [[-1.0, -2.0, -2.56, -2.56]])
    close(run(jnp.array([-2.0]))[0], [[1.6, 2.0, 3.0, 8.0]])
    close(run(jnp.array([-2.0]), dual=3.0)[0], [[1.6, 2.0, 3.0, 6.0]])
    close(run(jnp.array([2.0]), dual=3.0)[0], [[-1.0, -2.0, -2.56, -2.56]])


def test_what_is_not_given_cannot_be_weighed():
    new, rest, reference = parts(rollouts())
    assert "kl" not in ours(new, rest, "clip", "token_mean")[2]
    run = partial(ours, new, rest, "clip", "token_mean")
    with pytest.raises(ValueError, match="no ref_log_probs"):
        run(kl_coef=0.1)
    with pytest.raises(ValueError, match="no entropy"):
        run(entropy_coef=0.1)
    with pytest.raises(ValueError, match="'k1', 'k2', 'k3'"):
        run(reference, kl_coef=0.1, kl_estimator="k4")
    assert TIME < LONGEST
