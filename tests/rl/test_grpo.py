"""The GRPO step: which groups it learns from, at which length, by which weights; against the same step by its parts."""

import dataclasses
from functools import partial
from itertools import islice

import jax
import numpy as np
import pytest
from killed_run import small_run

from m2io_jax.config import MeshConfig, RunConfig
from m2io_jax.episodes.batching import stack_prompts
from m2io_jax.errors import UserError
from m2io_jax.parallel.mesh import make_mesh
from m2io_jax.parallel.sharding import place_batch
from m2io_jax.rl.grpo import GRPO
from m2io_jax.rl.learner import Schedules
from m2io_jax.rl.rollout import GroupBatch
from m2io_jax.training.run import set_up
from m2io_jax.training.state import join

RATE, KEY, TIME = 1e-2, jax.random.key(7), 6
close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)


class Odd:
    """An inserter whose reward is the share of letters with an odd code: it differs within groups from the start."""

    name, rewards = "odd", ("seen",)

    def __init__(self, task):
        self.prompt, self.names = task.prompt, getattr(task, "names", None)

    def score(self, completion: str, episode) -> dict[str, float]:
        return {"seen": sum(ord(letter) % 2 for letter in completion) / max(1, len(completion))}


def started(episodes, **changes):
    """The objective on one device, a state to begin with, and the rows of a step."""
    values = small_run(str(episodes), "unused", "grpo", 1).model_dump() | {"tasks": {"inserter": 1.0}}
    for name, value in changes.items():
        values[name] = values[name] | value if isinstance(value, dict) else value
    config = RunConfig.model_validate(values)
    policy, _, rows = set_up(config.model_copy(update={"mesh": MeshConfig(data=1, tensor=8)}))
    objective = GRPO(config, policy, make_mesh(MeshConfig(data=1), jax.devices()[:1]))
    state = objective.init_state(policy.params)
    taken = islice(rows, config.prompts_a_step)
    return objective, state, [dataclasses.replace(row, task=Odd(row.task)) for row in taken]


def stepped(objective, state, rows):
    state, metrics = objective.step(state, iter(rows), learning_rate=RATE, progress=0.5, key=KEY)
    return jax.device_get(state.params), metrics


def by_parts(objective, state, rows, chosen):
    """Sampled and scored like the step; one update by the rows that `chosen(rewards)` names."""
    prompts = place_batch(stack_prompts([row.prompt for row in rows]), objective.mesh)
    rollouts = objective.sampler.sampler(join(state.params, objective.frozen), prompts, KEY)
    tokens, masks = jax.device_get((rollouts.completions.tokens, rollouts.completions.mask))
    rewards = np.array(
        [
            [row.task.score(objective.codec.decode(ids[mask].tolist()), row.episode)["seen"] for ids, mask in group]
            for row, group in zip(rows, map(zip, tokens, masks), strict=True)
        ],
        np.float32,
    )
    take = np.array(chosen(rewards))
    prompts, rollouts = jax.tree.map(lambda x: x[take], (prompts, rollouts))
    updates = objective.learner.updates[TIME]
    reference = updates.score(objective.reference, prompts, None, rollouts.completions)
    batch = GroupBatch(prompts, None, rollouts, rewards[take], ref_log_probs=reference)
    state, *_ = updates.update(state, objective.frozen, batch, Schedules(RATE, objective.config.grpo.kl_beta))
    return jax.device_get(state.params), rewards


def test_sampled_in_micro_batches_the_groups_are_the_same(episodes):
    batch = {"prompts": 4}
    at_once, by_two = started(episodes, batch=batch), started(episodes, batch=batch, rollout={"micro_batches": 2})
    (params, metrics), (other_params, other_metrics) = stepped(*at_once), stepped(*by_two)
    assert len(by_two[0]._learnt) == 4
    for group, other in zip(at_once[0]._learnt, by_two[0]._learnt, strict=True):
        np.testing.assert_array_equal(other.tokens, group.tokens)
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5), other_params, params)
    assert other_metrics["num_tokens"] == metrics["num_tokens"]


def test_a_reference_is_read_in_the_micro_batches_of_an_update(episodes):
    batch = {"prompts": 4}
    objective, state, rows = started(episodes, batch=batch)
    by_two = started(episodes, batch=batch, optimizer={"micro_batches": 2})[0]
    prompts = place_batch(stack_prompts([row.prompt for row in rows]), objective.mesh)
    rollouts = objective.sampler.sampler(join(state.params, objective.frozen), prompts, KEY)
    given = (objective.reference, prompts, None, rollouts.completions)
    found, expected = (of.learner.updates[TIME].score(*given) for of in (by_two, objective))
    close(found, expected)
    programs = (of.learner.updates[TIME].score.function.lower(*given).compile() for of in (by_two, objective))
    by_half, whole = (program.memory_analysis().temp_size_in_bytes for program in programs)
    assert by_half < whole



def test_a_step_learns_from_the_groups_that_differ_most(episodes):
    changes = dict(batch={"prompts": 2}, rollout={"prompts": 8, "group_size": 3})
    params, metrics = stepped(*started(episodes, **changes))

    def largest(rewards):
        found = most(rewards)
        assert found != [0, 1], "the first would have been right too"
        return found

    expected, rewards = by_parts(*started(episodes, **changes), largest)
    jax.tree.map(close, params, expected)
    assert metrics["reward"] == pytest.approx(rewards.mean()), "what is logged is of all that was sampled"


def test_samples_are_the_groups_learnt_from_with_the_advantages_they_had(episodes):
    objective, state, rows = started(episodes, batch={"prompts": 2}, rollout={"prompts": 8, "group_size": 3})
    stepped(objective, state, rows)
    groups = objective.samples(5)
    scored = [[Odd.score(None, each.text, None)["seen"] for each in group.completions] for group in groups]
    assert [[each.reward for each in group.completions] for group in groups] == [
        pytest.approx(rewards, abs=1e-6) for rewards in scored
    ]
    assert [[each.parts for each in group.completions] for group in groups] == [
        [{"seen": reward} for reward in rewards] for rewards in scored
    ]
    rewards = np.array(scored)
    by_hand = (rewards - rewards.mean(1, keepdims=True)) / (rewards.std(1, keepdims=True) + 1e-6)
    close([[each.advantage for each in group.completions] for group in groups], by_hand, rtol=1e-4)
    _, all_rewards = by_parts(*started(episodes, batch={"prompts": 2}, rollout={"prompts": 8, "group_size": 3}), most)
    assert [group.episode for group in groups] == [rows[place].episode for place in most(all_rewards)]
    assert {group.task for group in groups} == {"odd"}
    assert objective.samples(1) == groups[:1]


def most(rewards) -> list[int]:
    return sorted(np.argsort(-rewards.std(1), kind="stable")[:2].tolist())


def test_a_shorter_update_is_the_same_update(episodes, monkeypatch):
    changes = dict(batch={"prompts": 2, "completion_length": TIME})
    expected, metrics = stepped(*started(episodes, **changes))
    assert metrics["completions/max_length"] == TIME
    longer = {"prompts": 2, "completion_length": 2 * TIME, "shorter": [TIME]}
    objective, state, rows = started(episodes, batch=longer)
    cut_short(objective, TIME)
    objective.learner.updates[2 * TIME] = None  # would fail
    params, _ = stepped(objective, state, rows)
    jax.tree.map(close, params, expected)


def cut_short(objective, length: int) -> None:
    """Every completion ends after `length` tokens, as if a stop token had come."""
    program = objective.sampler.decode
    decode = program.function

    def shorter(*given):
        rollouts = decode(*given)
        mask = rollouts.completions.mask & (np.arange(rollouts.completions.mask.shape[-1]) < length)
        return dataclasses.replace(rollouts, completions=dataclasses.replace(rollouts.completions, mask=mask))

    program.function = shorter


def test_completions_under_constraint_all_parse(episodes):
    objective, state, rows = started(episodes, rollout={"constrained": True}, batch={"completion_length": 48})
    told = [dataclasses.replace(row, task=Read()) for row in rows]
    _, metrics = stepped(objective, state, told)
    assert metrics["rewards/format/mean"] == 1
    assert metrics["sampling/sampling_logp_difference/max"] < 1e-5, "log-probabilities are those before the grammar"


class Read:
    """The inserter itself."""

    def __getattr__(self, name):
        from m2io_jax.tasks import find_task

        return getattr(find_task("inserter"), name)


def test_weights_in_eight_bits_are_nearly_the_policys(episodes):
    gap = "sampling/sampling_logp_difference/max"
    exact = stepped(*started(episodes))[1]
    for reader, (least_gap, least_kl) in {"reference": (0, 1e-9), "rollouts": (1e-5, 0)}.items():
        metrics = stepped(*started(episodes, int8=[reader]))[1]
        assert least_gap <= metrics[gap] < 0.1 and (least_gap or metrics[gap] < 1e-5)
        assert least_kl <= metrics["kl"] < 1e-2
    assert exact[gap] < 1e-5 and exact["kl"] < 1e-9


def test_fewer_prompts_sampled_than_trained_are_refused():
    with pytest.raises((UserError, ValueError), match="rollout.prompts"):
        RunConfig(name="x", objective="grpo", steps=1, batch={"prompts": 4}, rollout={"prompts": 3})
