import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m2io_jax.rl.objectives import aggregate, clipped_surrogate, grpo_loss

BOTH = ["sequence_mean", "token_mean"]
ROWS, GROUP, TIME = 3, 5, 7
SETTINGS = dict(clip_epsilon=0.2, kl_beta=0.3)
compiled_loss = jax.jit(grpo_loss, static_argnames=("clip_epsilon", "kl_beta", "aggregation"))


def rollouts(seed=0):
    """Log-probabilities, advantages and ragged masks; one completion is empty, one row has zero advantages."""
    generator = np.random.default_rng(seed)
    old = -generator.exponential(size=(ROWS, GROUP, TIME))
    new, reference = (old + generator.normal(scale=0.4, size=old.shape) for _ in range(2))
    advantages = generator.normal(size=(ROWS, GROUP))
    advantages[1] = 0
    lengths = generator.integers(1, TIME + 1, size=(ROWS, GROUP))
    lengths[0, 2], lengths[2, 1] = 0, TIME
    mask = np.arange(TIME) < lengths[..., None]
    return new, old, reference, advantages, mask


def by_hand(new, old, reference, advantages, mask, aggregation, *, clip_epsilon, kl_beta):
    """The paper's sums, token by token, in float64."""
    completions, tokens, policy, kls, low, high = [], [], [], [], 0, 0
    for where in np.ndindex(advantages.shape):
        losses = []
        for t in np.flatnonzero(mask[where]):
            ratio, advantage = np.exp(new[where][t] - old[where][t]), advantages[where]
            clipped = min(max(ratio, 1 - clip_epsilon), 1 + clip_epsilon)
            inverse = np.exp(reference[where][t] - new[where][t])
            kls.append(inverse - np.log(inverse) - 1)
            policy.append(-min(ratio * advantage, clipped * advantage))
            losses.append(policy[-1] + kl_beta * kls[-1])
            low += ratio < 1 - clip_epsilon and advantage < 0
            high += ratio > 1 + clip_epsilon and advantage > 0
        tokens += losses
        completions += [np.mean(losses)] if losses else []
    summed = completions if aggregation == "sequence_mean" else tokens
    n = len(tokens)
    means = {"kl": np.mean(kls), "clip_ratio/low_mean": low / n, "clip_ratio/high_mean": high / n}
    means["clip_ratio/region_mean"] = (low + high) / n
    if aggregation == "token_mean":
        means["policy_loss"] = np.mean(policy)
    return sum(summed), len(summed), means


def loss_of(data, aggregation, **more):
    arrays = [jnp.asarray(each, jnp.float32 if each.dtype != bool else bool) for each in data]
    return compiled_loss(*arrays, aggregation=aggregation, **SETTINGS, **more)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("aggregation", BOTH)
def test_equals_the_papers_sums(aggregation, seed):
    data = rollouts(seed)
    total, denominator, metrics = loss_of(data, aggregation)
    expected, count, means = by_hand(*data, aggregation, **SETTINGS)
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    assert denominator == count
    assert means["clip_ratio/low_mean"] > 0 and means["clip_ratio/high_mean"] > 0
    for name, mean in means.items():
        np.testing.assert_allclose(metrics[name][0] / metrics[name][1], mean, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("aggregation", BOTH)
def test_gradient_equals_finite_differences(aggregation):
    new, *rest = rollouts()
    gradient = jax.grad(lambda x: loss_of((x, *rest), aggregation)[0])(jnp.asarray(new, jnp.float32))
    gradient, step = np.asarray(gradient), 1e-6
    for where in np.ndindex(new.shape):
        sides = []
        for sign in (1, -1):
            moved = new.copy()
            moved[where] += sign * step
            sides.append(by_hand(moved, *rest, aggregation, **SETTINGS)[0])
        np.testing.assert_allclose(gradient[where], (sides[0] - sides[1]) / (2 * step), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("aggregation", BOTH)
def test_micro_batches_add_up_to_the_batch(aggregation):
    data = rollouts()

    def run(rows):
        part = [each[rows] for each in data]
        new, *rest = part

        def loss(x):
            total, *others = loss_of((x, *rest), aggregation)
            return total, others

        return jax.jit(jax.value_and_grad(loss, has_aux=True))(jnp.asarray(new, jnp.float32))

    whole, gradient = run(slice(None))
    for cuts in ([slice(0, 1), slice(1, 3)], [slice(0, 1), slice(1, 2), slice(2, 3)]):
        parts = [run(cut) for cut in cuts]
        added = jax.tree.map(lambda *each: sum(each), *[part for part, _ in parts])
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), added, whole)
        np.testing.assert_allclose(np.concatenate([part for _, part in parts]), gradient, rtol=1e-6)


@pytest.mark.parametrize("aggregation", BOTH)
def test_nothing_outside_the_mask_is_looked_at(aggregation):
    data = rollouts()
    mask = data[-1]
    spoilt = [np.where(mask, each, np.nan) for each in data[:3]] + list(data[3:])
    new, *rest = spoilt
    for poison in (np.nan, -1e30, np.inf):
        new = np.where(mask, data[0], poison)
        total, gradient = jax.value_and_grad(lambda x: loss_of((x, *rest), aggregation)[0])(
            jnp.asarray(new, jnp.float32)
        )
        np.testing.assert_array_equal(total, loss_of(data, aggregation)[0])
        assert np.isfinite(gradient).all() and not np.asarray(gradient)[~mask].any()


def test_on_policy_the_gradient_is_that_of_reinforce():
    new, _, reference, advantages, mask = rollouts()
    gradient = jax.grad(lambda x: loss_of((x, new, x, advantages, mask), "token_mean")[0])(
        jnp.asarray(new, jnp.float32)
    )
    np.testing.assert_allclose(gradient, np.where(mask, -advantages[..., None], 0), rtol=1e-6)
    _, _, metrics = loss_of((new, new, new, advantages, mask), "token_mean", entropy=jnp.full(new.shape, 2.0))
    tokens = mask.sum()
    assert metrics["kl"] == (0, tokens) and metrics["clip_ratio/region_mean"] == (0, tokens)
    assert metrics["entropy"] == (2 * tokens, tokens)


def test_no_completion_at_all_is_nothing_not_nan():
    new, old, reference, advantages, mask = rollouts()
    for aggregation in BOTH:
        total, denominator, _ = loss_of((new, old, reference, advantages, mask & False), aggregation)
        assert total == 0 and denominator == 0


def test_two_completions_of_unequal_length_by_hand():
    per_token, mask = jnp.array([[1.0, 2.0, 3.0], [8.0, 9.0, 9.0]]), jnp.array([[1, 1, 1], [1, 0, 0]], bool)
    assert aggregate(per_token, mask, "sequence_mean") == (2 + 8, 2)
    assert aggregate(per_token, mask, "token_mean") == (14, 4)
    with pytest.raises(ValueError, match="'mean'"):
        aggregate(per_token, mask, "mean")


def test_clip_by_hand():
    ratio, mask = jnp.array([[0.5, 1.0, 1.5]]), jnp.ones((1, 3), bool)
    liked = clipped_surrogate(jnp.log(ratio), jnp.zeros((1, 3)), jnp.array([2.0]), mask, epsilon=0.2)
    np.testing.assert_allclose(liked, [[-1.0, -2.0, -2.4]], rtol=1e-6)
    disliked = clipped_surrogate(jnp.log(ratio), jnp.zeros((1, 3)), jnp.array([-2.0]), mask, epsilon=0.2)
    np.testing.assert_allclose(disliked, [[1.6, 2.0, 3.0]], rtol=1e-6)


def test_without_a_reference_there_is_no_penalty_to_ask_for():
    new, old, _, advantages, mask = rollouts()
    total, _, metrics = grpo_loss(
        new, old, None, advantages, mask, clip_epsilon=0.2, kl_beta=0, aggregation="token_mean"
    )
    assert "kl" not in metrics and total == metrics["policy_loss"][0]
    with pytest.raises(ValueError, match="no reference"):
        grpo_loss(new, old, None, advantages, mask, clip_epsilon=0.2, kl_beta=0.1, aggregation="token_mean")
