"""Updates on eight virtual devices against one; the learning rate by hand; AdamW and Muon by what they promise."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import PartitionSpec
from small_model import SMALL, STRUCTURE, mixed_rows, random_completions, small_params

from m2io_jax.config import MeshConfig, OptimizerConfig, RunConfig
from m2io_jax.episodes.batching import stack_prompts
from m2io_jax.models.lora import is_adapter
from m2io_jax.models.policy import Policy
from m2io_jax.models.sizes import LoraConfig
from m2io_jax.parallel.mesh import make_mesh, on_mesh
from m2io_jax.parallel.sharding import batch_sharding, param_shardings, place, place_batch
from m2io_jax.rl.grpo import grpo_update
from m2io_jax.rl.learner import Schedules
from m2io_jax.rl.rollout import GroupBatch
from m2io_jax.sampling.sampler import Sampler, SamplingConfig
from m2io_jax.training.optimizer import apply, learning_rate, make_optimizer
from m2io_jax.training.state import TrainState, gradient_step, state_shardings
from m2io_jax.training.supervised import supervised_update

NOTHING = nnx.State({})  # no weight is frozen
# A large eps: Adam turns a gradient that is 0 but for rounding into a whole step, which would measure the rounding.
CONFIG = RunConfig(
    name="update",
    objective="grpo",
    steps=1,
    optimizer=OptimizerConfig(eps=1e-2, weight_decay=0.1, max_grad_norm=0.5),
    grpo={"kl_beta": 0.1},
)
OPTIMIZER = make_optimizer(CONFIG.optimizer)
SAMPLING = SamplingConfig((CONFIG.rollout.temperature,) * 3, 6)
RATE = 0.1


def eight_rows():
    """Each of the four prompts twice, with seeds of their own."""
    rows = [*mixed_rows(), *mixed_rows()]
    prompts = stack_prompts(rows)
    prompts.seeds[:] = np.arange(8)
    return prompts


def one_device():
    return make_mesh(MeshConfig(data=1), jax.devices()[:1])


def adapted() -> Policy:
    """The small model with adapters that training has left."""
    lora = LoraConfig(rank=4, alpha=8.0, targets=(r"language\.blocks\..*",))
    policy = Policy(SMALL, small_params(), None).with_adapters(lora, seed=3)
    random = np.random.default_rng(8)

    def drawn(path, param):
        shape = param.get_value().shape
        return param.replace(0.1 * random.normal(size=shape).astype(np.float32)) if is_adapter(path) else param

    flat = nnx.to_flat_state(policy.params)
    return policy.with_params(nnx.from_flat_state([(path, drawn(path, param)) for path, param in flat]))


def updates(mesh, config=CONFIG, gather=None, policy=None):
    """Parameters and metrics after a supervised and after a GRPO update, and the rollouts between, on a mesh."""
    start, structure = (policy.params, policy.structure) if policy else (small_params(), STRUCTURE)
    shardings = state_shardings(start, OPTIMIZER, mesh)
    prompts, targets = place_batch((eight_rows(), random_completions(8, 1)), mesh)

    def compiled(update, *more):
        return jax.jit(on_mesh(mesh, update), out_shardings=(shardings, None, *more))

    params = jax.tree.map(np.asarray, start)
    moments = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), jax.eval_shape(OPTIMIZER.init, params))
    state = place(TrainState(params, moments, np.zeros((), np.int32)), shardings)
    supervise = compiled(partial(supervised_update, structure, OPTIMIZER, config))
    supervised = supervise(state, NOTHING, prompts, targets, RATE)

    sampled = Sampler(structure, SAMPLING, mesh, gather=gather)(state.params, prompts, jax.random.key(3))
    rewards = np.random.default_rng(0).uniform(size=(8, 3)).astype(np.float32)
    reference = np.asarray(sampled.log_probs) - 0.1
    rewards, reference = place_batch((rewards, reference), mesh)
    update = compiled(partial(grpo_update, structure, OPTIMIZER, config), batch_sharding(mesh))
    batch = GroupBatch(prompts, None, sampled, rewards, ref_log_probs=reference)
    improved = update(state, NOTHING, batch, Schedules(RATE, config.grpo.kl_beta))
    return jax.device_get((supervised, sampled, improved))


@pytest.fixture(scope="module")
def on_one():
    return updates(one_device())


@pytest.mark.slow
@pytest.mark.parametrize(
    "sizes",
    [
        dict(data=8),
        dict(data=1, fsdp=8),
        dict(data=2, fsdp=2, tensor=2),
        dict(data=1, tensor=8),
        dict(data=4, fsdp=2),
        dict(slice=2, data=2, fsdp=2),
    ],
    ids=["8x1x1", "1x8x1", "2x2x2", "1x1x8", "4x2x1", "two slices of 2x2x1, gathered"],
)
def test_a_mesh_changes_nothing(on_one, sizes):
    mesh = make_mesh(MeshConfig(**sizes), jax.devices()[: int(np.prod(list(sizes.values())))])
    gather = "float32" if mesh.shape["slice"] > 1 else None
    require_same(updates(mesh, gather=gather), on_one)


@pytest.mark.slow
def test_a_mesh_changes_nothing_of_adapters():
    """Split on both sides: by `fsdp` along their rank too."""
    policy, mesh = adapted(), make_mesh(MeshConfig(data=1, fsdp=4, tensor=2))
    lies = {path[-1]: leaf.get_value().spec for path, leaf in nnx.to_flat_state(param_shardings(policy.params, mesh))
            if path[-4:-1] == ("mlp", "down", "adapter")}  # fmt: skip
    assert lies == {"a": PartitionSpec(None, "tensor", "fsdp"), "b": PartitionSpec(None, "fsdp", None)}
    require_same(updates(mesh, policy=policy), updates(one_device(), policy=policy))


def require_same(found, expected):
    """Completions to the token; states, metrics, log-probabilities and advantages to within rounding."""
    (tuned, sampled, improved), (one_tuned, one_sampled, one_improved) = found, expected
    jax.tree.map(np.testing.assert_array_equal, sampled.completions, one_sampled.completions)
    close = partial(np.testing.assert_allclose, atol=1e-5, rtol=1e-5)
    close(sampled.log_probs, one_sampled.log_probs)
    jax.tree.map(close, (tuned, improved), (one_tuned, one_improved))


@pytest.mark.parametrize("parts", [2, 8])
def test_micro_batches_change_nothing(on_one, parts):
    optimizer = CONFIG.optimizer.model_copy(update={"micro_batches": parts})
    found = updates(one_device(), CONFIG.model_copy(update={"optimizer": optimizer}))
    close = partial(np.testing.assert_allclose, atol=1e-5, rtol=1e-5)  # the largest gap of sampling is below that
    jax.tree.map(close, found, on_one)


def test_an_update_moves_every_tower_and_reports_what_it_did(on_one):
    (tuned, tuned_metrics), _, (improved, metrics, _) = on_one
    for state in (tuned, improved):
        assert state.step == 1
        for tower in ("vision", "language"):
            moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), state.params[tower], small_params()[tower])
            assert min(jax.tree.leaves(moved)) > 1e-4
    assert tuned_metrics["num_tokens"] == random_completions(8, 1).mask.sum()
    assert metrics["sampling/sampling_logp_difference/max"] < 1e-5
    assert metrics["learning_rate"] == np.float32(RATE)
    # the reference lies 0.1 below the policy: k3 = exp(-0.1) - 1 + 0.1
    np.testing.assert_allclose(metrics["kl"], np.exp(-0.1) - 1 + 0.1, rtol=1e-3)


@pytest.mark.parametrize(
    "schedule, warmup, at",
    [
        ("constant", 0.0, {0.0: 8.0, 0.5: 8.0, 1.0: 8.0}),
        ("constant", 0.2, {0.0: 0.0, 0.05: 2.0, 0.2: 8.0, 1.0: 8.0}),
        ("linear", 0.0, {0.0: 8.0, 0.25: 6.0, 1.0: 0.0}),
        ("linear", 0.5, {0.25: 4.0, 0.5: 8.0, 0.75: 4.0, 1.0: 0.0}),
        ("cosine", 0.0, {0.0: 8.0, 1 / 3: 6.0, 0.5: 4.0, 1.0: 0.0}),
        ("cosine", 0.5, {0.1: 1.6, 0.5: 8.0, 0.75: 4.0, 1.0: 0.0}),
        ("linear", 0.0, {1.5: 0.0}),  # the last step of a run bounded by time ends late
        ("cosine", 0.0, {1.5: 0.0}),
        ("cosine", 1.0, {0.5: 4.0, 1.0: 8.0}),
    ],
)
def test_learning_rate(schedule, warmup, at):
    config = OptimizerConfig(learning_rate=8.0, schedule=schedule, warmup=warmup)
    for progress, expected in at.items():
        assert learning_rate(config, progress) == pytest.approx(expected, abs=1e-9)


def test_steps_are_adamw_of_optax():
    config = OptimizerConfig(b1=0.8, b2=0.95, eps=1e-6, weight_decay=0.3, max_grad_norm=2.0)
    rates = [0.1, 0.02, 0.3]
    ours, theirs = make_optimizer(config), optax.chain(
        optax.clip_by_global_norm(2.0),
        optax.adamw(lambda count: jnp.asarray(rates)[count], b1=0.8, b2=0.95, eps=1e-6, weight_decay=0.3),
    )  # fmt: skip
    random = np.random.default_rng(0)
    start = {"a": jnp.asarray(random.normal(size=(4, 3)), jnp.float32), "b": jnp.ones(2)}
    params, expected = start, start
    state, their_state = ours.init(start), theirs.init(start)

    @jax.jit
    def step(params, state, gradients, rate):
        direction, state = ours.update(gradients, state, params)
        return apply(params, direction, rate), state

    @jax.jit
    def their_step(params, state, gradients):
        change, state = theirs.update(gradients, state, params)
        return optax.apply_updates(params, change), state

    for size, rate in zip((0.1, 10.0, 1.0), rates, strict=True):  # below and above the bound of the norm
        gradients = jax.tree.map(lambda leaf, size=size: jnp.asarray(size * random.normal(size=leaf.shape)), start)
        params, state = step(params, state, gradients, rate)
        expected, their_state = their_step(expected, their_state, gradients)
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-7), params, expected)
    assert np.abs(np.asarray(params["a"] - start["a"])).min() > 0


def test_where_there_is_nothing_to_learn_from_the_weights_stay():
    config = OptimizerConfig(weight_decay=0.3)
    optimizer, params = make_optimizer(config), nnx.State({"w": nnx.Param(jnp.ones((2, 2)))})
    moments = jax.tree.map(lambda moment: jnp.ones_like(moment), optimizer.init(params))  # of earlier updates
    state = TrainState(params, moments, jnp.int32(7))

    def loss(params, count):
        return 0.0 * params["w"].get_value().sum(), count.sum(), {}

    for count, moves in ((0.0, False), (1.0, True)):
        after, _, metrics = gradient_step(state, loss, jnp.full(2, count), optimizer, 0.1)
        assert after.step == 8 and bool((after.params["w"].get_value() != 1).all()) == moves
        assert bool(metrics["learning_rate"]) == moves


def test_muon_turns_every_block_matrix_by_the_same_in_all_directions_and_leaves_the_rest_to_adam():
    config = OptimizerConfig(name="muon", max_grad_norm=1e9)
    muon, adam = make_optimizer(config), optax.scale_by_adam(b1=0.9, b2=0.999, nesterov=True)
    params = small_params()
    random = np.random.default_rng(0)
    gradients = jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape), leaf.dtype), params)
    direction, _ = jax.jit(muon.update)(gradients, place(muon.init(params), optimizer_places(muon)), params)
    expected, _ = adam.update(gradients, adam.init(params), params)
    kernel = direction["language"]["blocks"]["mlp"]["up"]["kernel"][...]
    for layer, gradient in zip(kernel, gradients["language"]["blocks"]["mlp"]["up"]["kernel"][...], strict=True):
        turns = np.linalg.svd(layer, compute_uv=False) / (0.2 * max(layer.shape) ** 0.5)
        assert 0.6 < turns.min() and turns.max() < 1.3  # five Newton-Schulz iterations bring them near 1, no nearer
        u, _, v = np.linalg.svd(gradient, full_matrices=False)
        assert np.sum(layer * (u @ v)) > 0.95 * np.linalg.norm(layer) * np.linalg.norm(u @ v)
    got, want = direction["language"], expected["language"]
    np.testing.assert_allclose(got["embedding"][...], want["embedding"][...], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(got["norm"]["scale"][...], want["norm"]["scale"][...], rtol=1e-4, atol=1e-6)


def optimizer_places(optimizer):
    """Shardings of a chain that looks after some weights only, on eight devices."""
    return state_shardings(small_params(), optimizer, make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))).opt_state
