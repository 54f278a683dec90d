"""PPO: values where logits are read; a step against the same step by its equations, whole where updates go through in
micro-batches; what it must not depend on."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from killed_run import small_run
from small_model import (
    PARTS,
    SMALL,
    STRUCTURE,
    log_probs,
    mixed_rows,
    random_completions,
    reference_logits,
    small_params,
)

from m2io_jax.config import MeshConfig, OptimizerConfig, RunConfig
from m2io_jax.episodes.batching import stack_prompts
from m2io_jax.models.critic import VALUE, critic_start, critic_structure
from m2io_jax.models.inserter import Inserter
from m2io_jax.models.policy import Policy, load_policy
from m2io_jax.parallel.mesh import make_mesh
from m2io_jax.parallel.sharding import param_shardings, place
from m2io_jax.rl.learner import Learner, LearnerInputs, Schedules
from m2io_jax.rl.ppo import PPO, PPOState
from m2io_jax.rl.rollout import to_groups
from m2io_jax.sampling.sampler import Rollouts
from m2io_jax.training import checks, run
from m2io_jax.training.checkpoints import Checkpoints
from m2io_jax.training.metrics import MetricsLog, read_metrics
from m2io_jax.training.optimizer import apply, make_optimizer
from m2io_jax.training.programs import TimedRunner
from m2io_jax.training.state import join, new_state, split_trained

close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
RATE, BETA, GAMMA, LAMBDA = 0.01, 0.3, 0.9, 0.8
CRITIC = dict(discount=GAMMA, gae_lambda=LAMBDA, critic_learning_rate=10 * RATE)


def config(micro_batches=4) -> RunConfig:
    # A large eps: Adam turns a gradient that is 0 but for rounding into a whole step, which would measure the rounding.
    optimizer = OptimizerConfig(learning_rate=RATE, eps=1e-2, micro_batches=micro_batches)
    batch = {"prompts": 8, "completion_length": 6}
    values = dict(name="ppo", objective="ppo", steps=1, optimizer=optimizer, batch=batch, rollout={"group_size": 3})
    # The vision tower is as in every update; without it these compile in half the time.
    return RunConfig(**values, freeze=(r"vision\..*",), grpo={"kl_beta": BETA}, ppo=CRITIC)


def parts() -> tuple[nnx.State, nnx.State]:
    """The policy's weights that are trained, and those that are not."""
    return split_trained(small_params(), config())


def critic_params() -> nnx.State:
    """What is trained of a critic whose head says something."""
    start, random = critic_start(parts()[0], SMALL), np.random.default_rng(2)
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: random.normal(size=leaf.shape).astype(np.float32) / 6 if VALUE in str(path) else leaf, start
    )


def reference_params() -> nnx.State:
    random = np.random.default_rng(3)

    def moved(leaf):
        return np.asarray(leaf) + 0.02 * random.normal(size=leaf.shape).astype(np.float32)

    return jax.tree.map(moved, small_params())


def learner(config: RunConfig, devices=1, **sizes) -> Learner:
    mesh = make_mesh(MeshConfig(**(sizes or {"data": devices})), jax.devices()[:devices])
    policy, optimizer = Policy(SMALL, small_params(), None), make_optimizer(config.optimizer)
    reference = place(reference_params(), param_shardings(small_params(), mesh))
    inputs = LearnerInputs(config, policy, mesh, optimizer, *parts(), reference)
    return Learner(inputs, PPO.make_updates, takes_pictures=False)


def fresh(learner: Learner) -> PPOState:
    """The state that it begins with."""
    optimizer = make_optimizer(learner.config.optimizer)
    return PPOState(*(new_state(params, optimizer, learner.mesh) for params in (parts()[0], critic_params())))


@pytest.fixture(scope="module")
def groups():
    """Eight groups that the policy itself sampled, as it were; one completion was not scored."""
    rows, completions = [*mixed_rows(), *mixed_rows()], random_completions(8, 3)
    drawn = log_probs(small_params(), stack_prompts(rows), completions)[0]
    rewards = np.random.default_rng(4).uniform(size=(8, 3)).astype(np.float32)
    rewards[2, 1] = np.nan
    found = to_groups(rows, None, Rollouts(completions, np.asarray(drawn)), 0)
    return [dataclasses.replace(group, rewards=row) for group, row in zip(found, rewards, strict=True)]


def stepped(learner: Learner, groups):
    """Both policy and critic, what was told, and the advantages that are shown, after one step."""
    state, metrics = learner(TimedRunner(), fresh(learner), groups, Schedules(RATE, BETA))
    return jax.device_get((state.params, state.critic.params)), metrics, learner.advantages()


@pytest.fixture(scope="module")
def trainer() -> Learner:
    return learner(config())


@pytest.fixture(scope="module")
def one_step(trainer, groups):
    return stepped(trainer, groups)


def test_values_are_read_where_the_policy_reads_logits(trainer):
    """A critic whose head is a token's row of the embedding has that token's logits for values."""
    flat = dict(nnx.to_flat_state(critic_start(small_params(), SMALL)))
    token, path = 23, (VALUE, "kernel")
    flat[path] = flat[path].replace(small_params()["language"]["embedding"][...][token][:, None])
    prompts, completions = stack_prompts([*mixed_rows(), *mixed_rows()]), random_completions(8, 3)
    found = np.asarray(trainer.updates[6].value(nnx.from_flat_state(list(flat.items())), prompts, None, completions))
    for row, parts in enumerate(PARTS):
        for place_, (ids, mask) in enumerate(zip(completions.tokens[row], completions.mask[row], strict=True)):
            expected = reference_logits(parts, ids[mask].tolist())[:-1, token]
            np.testing.assert_allclose(found[row, place_][mask], expected, rtol=2e-4, atol=2e-4)


def test_a_critic_begins_as_the_policy_with_a_head_that_expects_nothing_in_place_of_logits():
    untied = dataclasses.replace(SMALL, text=dataclasses.replace(SMALL.text, tie_word_embeddings=False))
    declared = nnx.state(nnx.eval_shape(lambda: Inserter(untied, rngs=nnx.Rngs(0))), nnx.Param)
    start = {path: param.get_value() for path, param in nnx.to_flat_state(critic_start(declared, untied))}
    policys = dict(nnx.to_flat_state(declared))
    assert policys.keys() - start.keys() == {("language", "head", "kernel")}
    assert start.keys() - policys.keys() == {(VALUE, "kernel"), (VALUE, "bias")}
    assert not start[VALUE, "kernel"].any() and start[VALUE, "kernel"].shape == (32, 1)
    needed = nnx.state(nnx.merge(critic_structure(untied), critic_start(declared, untied)), nnx.Param)
    assert dict(nnx.to_flat_state(needed)).keys() == start.keys()


def estimates(groups, trainer):
    """Advantages before and after they are whiten, returns, values and mask, by the papers' sums in float64."""
    prompts = stack_prompts([group.prompt for group in groups])
    names = ("tokens", "mask", "log_probs")
    tokens, mask, drawn = (np.stack([getattr(group, name) for group in groups]) for name in names)
    rewards = np.stack([group.rewards for group in groups])
    completions = dataclasses.replace(random_completions(8, 3), tokens=tokens, mask=mask)
    theirs = np.asarray(log_probs(reference_params(), prompts, completions)[0])
    critic = join(critic_params(), parts()[1])
    values = np.asarray(trainer.updates[6].value(critic, prompts, None, completions), np.float64)
    mask = mask & ~np.isnan(rewards)[..., None]
    kl, advantages = np.where(mask, drawn - theirs, 0), np.zeros(mask.shape)
    for where in np.argwhere(mask.any(-1)):
        at, later = tuple(where), 0.0
        for t in reversed(range(mask[at].sum())):
            last = t == mask[at].sum() - 1
            earned = -BETA * kl[at][t] + (rewards[at] if last else 0)
            error = earned + (0 if last else GAMMA * values[at][t + 1]) - values[at][t]
            advantages[at][t] = later = error + GAMMA * LAMBDA * later
    returns = np.where(mask, advantages + values, 0)
    real = advantages[mask]
    white = np.where(mask, (advantages - real.mean()) / (real.std() + 1e-6), 0)
    return advantages, white, returns, values, kl, dataclasses.replace(completions, mask=mask), prompts


def test_a_step_is_what_the_equations_say(groups, trainer, one_step):
    (policy, critic), metrics, shown = one_step
    advantages, white, returns, values, kl, completions, prompts = estimates(groups, trainer)
    mask, lengths = completions.mask, completions.mask.sum(-1)
    optimizer = make_optimizer(config().optimizer)

    def surrogate(params):  # at the policy that sampled, where the clipped ratio has this gradient
        model = nnx.merge(STRUCTURE, params, parts()[1])
        log_probs, _ = model.completion_log_probs(prompts, completions)
        return -jnp.sum(white * log_probs * mask / np.maximum(lengths, 1)[..., None]) / (lengths > 0).sum()

    def error(params):
        found = nnx.merge(critic_structure(SMALL), params, parts()[1]).values(prompts, completions)
        return jnp.sum(jnp.square(found - returns) * mask) / 2 / mask.sum()

    def improved(loss, params, rate):
        direction, _ = optimizer.update(jax.grad(loss)(params), optimizer.init(params), params)
        return apply(params, direction, rate)

    actor, judge = (surrogate, parts()[0], RATE, policy), (error, critic_params(), 10 * RATE, critic)
    for loss, begun, rate, found in (actor, judge):
        expected = jax.jit(partial(improved, loss))(begun, rate)
        jax.tree.map(close, found, jax.device_get(expected))
        moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), found, jax.device_get(begun))
        assert min(jax.tree.leaves(moved)) > 1e-5

    close(shown, white.sum(-1) / np.maximum(lengths, 1), atol=1e-4)
    told = {
        "loss/value_avg": np.square(values - returns)[mask].mean() / 2,
        "val/clipfrac_avg": 0,
        "critic/advantages/mean": advantages[mask].mean(),
        "critic/returns/mean": returns[mask].mean(),
        "critic/values/mean": values[mask].mean(),
        "critic/vf_explained_var": 1 - (returns - values)[mask].var() / returns[mask].var(),
        "kl": kl[mask].mean(),
        "objective/non_score_reward": -BETA * kl.sum() / (lengths > 0).sum(),
        "kl_coef": BETA,
        "learning_rate": RATE,
        "critic/lr": 10 * RATE,
    }
    assert {name: metrics[name] for name in told} == pytest.approx(told, rel=1e-3, abs=1e-5)
    assert abs(told["kl"]) > 0.01, "or the reference would not matter"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("devices", "sizes"), [(1, {}), (4, {}), (8, dict(data=2, fsdp=2, tensor=2))], ids=["one", "four", "2x2x2"]
)
def test_neither_devices_nor_micro_batches_change_anything(groups, one_step, devices, sizes):
    params, metrics, shown = one_step
    again, others, shown_again = stepped(learner(config(micro_batches=1), devices, **sizes), groups)
    jax.tree.map(close, again, params)
    close(shown_again, shown)
    assert others | {"mfu": 0} == pytest.approx(metrics | {"mfu": 0}, rel=1e-3, abs=1e-5)


def test_a_critic_learns_what_completions_earn(groups, trainer):
    constant = [dataclasses.replace(group, rewards=np.ones(3, np.float32)) for group in groups]
    state, told = fresh(trainer), []
    for _ in range(40):
        state, metrics = trainer(TimedRunner(), state, constant, Schedules(0.3 * RATE, 0.0))
        told.append(metrics)
    assert told[-1]["loss/value_avg"] < told[0]["loss/value_avg"] / 10
    assert told[-1]["critic/values/mean"] == pytest.approx(told[-1]["critic/returns/mean"], abs=0.05)


@pytest.fixture(scope="module")
def finished(episodes, tmp_path_factory):
    """The configuration of a run of four steps, which came to its end: on one device, pictures encoded once a step."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checks, "make_mesh", lambda _: make_mesh(MeshConfig(data=1), jax.devices()[:1]))
        started = small_run(str(episodes), str(tmp_path_factory.mktemp("whole") / "run"), "ppo", 4)
        logging = started.logging.model_copy(update={"samples_every_steps": 2})
        started = started.model_copy(update={"freeze": (r"vision\..*",), "logging": logging})
        run.train(started)
        yield started


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(finished, tmp_path, monkeypatch):
    again = finished.model_copy(update={"run": tmp_path / "again"})

    class Killed(BaseException):  # what logging would not catch
        pass

    write = MetricsLog.write

    def write_and_die(self, step, metrics):
        write(self, step, metrics)
        if step == 3:  # when a checkpoint of step 2 is whole
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(MetricsLog, "write", write_and_die)
        run.train(again)
    assert Checkpoints(again.checkpoints).latest() == 2
    run.train(again)
    one, other = ((each.run / "model" / "model.safetensors").read_bytes() for each in (finished, again))
    assert one == other
    kinds = ("critic/", "loss", "val/", "reward", "kl")
    told = [
        [{name: x for name, x in row.items() if name.startswith(kinds)} for row in read_metrics(each.run)]
        for each in (finished, again)
    ]
    assert told[0] == told[1] and len(told[0]) == 4 and len(told[0][0]) > 8
    assert told[0][3]["critic/values/mean"] != 0, "the critic had learnt before it was saved"


@pytest.mark.slow
def test_the_policy_it_leaves_is_one_as_any_other(finished):
    """Its folder has no critic; what reads a policy reads it."""
    policy = load_policy(str(finished.run), size="small")
    assert [page.name for page in sorted((finished.run / "samples").glob("*.html"))] == ["1.html", "2.html", "4.html"]
    names = {path for path, _ in nnx.to_flat_state(policy.params)}
    assert names == {path for path, _ in nnx.to_flat_state(load_policy("random", size="small").params)}
