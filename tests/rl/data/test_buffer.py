"""What the data side makes of groups: without a model, and in steps of a small run that is stopped and goes on."""

import json
import weakref
from dataclasses import dataclass, field, replace
from itertools import count

import jax
import numpy as np
import pytest
from killed_run import small_run

from m2io_jax import tasks
from m2io_jax.config import MeshConfig, RunConfig
from m2io_jax.episodes.batching import PromptRow, stack_prompts
from m2io_jax.errors import UserError
from m2io_jax.models.inputs import Completions
from m2io_jax.parallel.mesh import make_mesh
from m2io_jax.parallel.sharding import place_batch
from m2io_jax.rl.data.buffer import RolloutBuffer, require_supported
from m2io_jax.rl.grpo import GRPO
from m2io_jax.rl.rewards import score_completions
from m2io_jax.rl.rollout import noisy_prompt, padding_group, to_batch, to_groups
from m2io_jax.sampling.sampler import Rollouts
from m2io_jax.training.checkpoints import Checkpoints
from m2io_jax.training.programs import AOTCompiler, TimedRunner
from m2io_jax.training.run import set_up

PROMPT = PromptRow(**{name: np.int32([0]) for name in PromptRow.__dataclass_fields__})
GROUP, TIME = 2, 3


class Digits:
    """Right is what is 1, well formed what is a digit."""

    name, rewards = "digits", ("format", "accuracy")

    def score(self, completion, episode):
        return {"format": float(completion.isdigit()), "accuracy": float(completion == "1")}


@dataclass
class Episode:
    id: str


@dataclass
class Row:
    episode: Episode
    task: Digits = field(default_factory=Digits)


@pytest.fixture(autouse=True)
def digits(monkeypatch):
    monkeypatch.setitem(tasks.TASKS, "digits", Digits())


def side(prompts=2, ahead=0, grpo=None, **data) -> RolloutBuffer:
    config = RunConfig(
        name="x",
        objective="grpo",
        steps=1,
        tasks={"digits": 1},
        rewards={"format": 0.5, "accuracy": 1},
        batch={"prompts": prompts},
        rollout={"group_size": GROUP, "ahead": ahead},
        grpo=grpo or {},
        data=data,
    )
    return RolloutBuffer(config, padding_group(PROMPT, None, GROUP, TIME))


def judged(of: RolloutBuffer, texts: dict[str, str], step: int = 0):
    """Groups of completions of one letter each, by the prompt's id; the tokens are the group's number and its own."""
    rows = [Row(Episode(id)) for id in texts]
    scores = score_completions(rows, [list(text) for text in texts.values()], of.config.rewards)
    shape = (len(texts), GROUP, TIME)
    tokens = np.broadcast_to(np.arange(len(texts))[:, None, None] + 10 * step, shape)
    rollouts = Rollouts(Completions(tokens, np.ones(shape, bool)), np.full(shape, -1.0, np.float32))
    return of.apply_filters(rows, to_groups([PROMPT] * len(texts), None, rollouts, step), scores)


def numbers(groups) -> list[int]:
    return [int(group.tokens[0, 0]) for group in groups]


def test_without_a_method_all_that_is_sampled_is_learnt_from():
    plain = side()
    groups, metrics = judged(plain, {"a": "11", "b": "01"})
    plain.enqueue(groups)
    learned, told = plain.next_batch(0)
    assert numbers(learned) == [0, 1] and metrics == {} and plain.arrays() is None and plain.state_dict() == {}
    assert told == {"rollout/staleness/mean": 0.0, "rollout/staleness/max": 0.0, "data/missing": 0.0}
    np.testing.assert_array_equal(to_batch(learned).rewards, np.array([[1.5, 1.5], [0.5, 1.5]], np.float32))
    np.testing.assert_array_equal(to_batch(learned).weights, [1, 1])


def test_what_is_missing_is_asked_for_and_else_filled_with_nothing():
    filtered = side(prompts=3, filter={"rounds": 2})
    groups, metrics = judged(filtered, {"a": "11", "b": "01", "c": "00"})
    assert metrics == {"data/filter/dropped_low": 1.0, "data/filter/dropped_high": 1.0}
    assert numbers(groups) == [1] and filtered.missing(groups) == 2 and filtered.rounds == 2 and side().rounds == 1
    more = groups + judged(filtered, {"d": "10"}, step=1)[0]
    filtered.enqueue(more)
    learned, told = filtered.next_batch(0)
    assert numbers(learned) == [1, 10, 0] and told["data/missing"] == 1
    assert np.isnan(learned[2].rewards).all() and not learned[2].mask.any()


def test_every_group_may_be_dropped():
    filtered = side(filter={})
    filtered.enqueue(judged(filtered, {"a": "11", "b": "00"})[0])
    learned, told = filtered.next_batch(0)
    assert told["data/missing"] == 2 and np.isnan(to_batch(learned).rewards).all()


def test_of_more_than_an_update_takes_those_with_most_signal_stay():
    plain = side(prompts=1)
    plain.enqueue(judged(plain, {"a": "11", "b": "01"})[0])
    assert numbers(plain.next_batch(0)[0]) == [1]
    # what an update weighs nothing is no signal: all of a are wrong
    easy = side(prompts=1, curriculum={"difficulty": "easy"})
    groups, _ = judged(easy, {"a": "0x", "b": "01"})
    assert [float(group.signal) for group in groups] == [0.0, 0.5]
    assert [float(group.signal) for group in judged(plain, {"a": "0x"})[0]] == [0.25]
    # with a baseline of its past it is not the spread that counts: half of 1.5 was expected of each
    single = side(prompts=1, single={}, grpo={"advantage": "batch"})
    groups, _ = judged(single, {"a": "11", "b": "01"})
    np.testing.assert_allclose(to_batch(groups).rewards, [[0.75, 0.75], [-0.25, 0.75]])
    single.enqueue(groups)
    assert numbers(single.next_batch(0)[0]) == [0]


def test_solved_prompts_are_passed_over():
    history = side(history=True)
    judged(history, {"a": "11", "b": "01"})
    rows = iter([Row(Episode(id)) for id in "abca"])
    assert [row.episode.id for row in history.next_prompts(rows, 2)] == ["b", "c"]
    assert [row.episode.id for row in rows] == ["a"], "no more was taken than was needed"
    kept = history.state_dict()
    judged(history, {"c": "11"})
    assert kept == {"history": {"solved": {"digits: a": True}}}, "a checkpoint may be written while it changes"
    assert list(history.state_dict()["history"]["solved"]) == ["digits: a", "digits: c"]


def test_replayed_groups_come_in_place_of_fresh_ones_and_keep_their_log_probabilities():
    replay = side(prompts=2, replay={"size": 2, "share": 0.5})
    for step, texts in enumerate([{"a": "01", "b": "11"}, {"c": "01", "d": "01"}, {"e": "01", "f": "10"}]):
        groups, _ = judged(replay, texts, step)
        replay.enqueue([replace(group, log_probs=group.log_probs - step) for group in groups])
        learned, told = replay.next_batch(step)
        if step == 0:
            assert numbers(learned) == [0, 1] and told["data/replay/groups"] == 0 and told["data/replay/buffer"] == 1
        if step == 1:
            assert numbers(learned) == [10, 0], "one fresh group, then the one that had a signal"
            assert told["rollout/staleness/max"] == 1 and told["rollout/staleness/mean"] == 0.5
    assert numbers(learned)[0] == 20 and numbers(learned)[1] in (10, 11), "the oldest is forgotten"
    assert learned[1].log_probs[0, 0] == -2 and told["data/replay/buffer"] == 2


def test_batches_wait_their_turn():
    ahead = side(ahead=2)
    for step in range(3):
        ahead.enqueue(judged(ahead, {"a": "01", "b": "01"}, step)[0])
    found = [ahead.next_batch(2) for _ in range(3)]
    assert [numbers(groups) for groups, _ in found] == [[0, 1], [10, 11], [20, 21]]
    assert [told["rollout/staleness/max"] for _, told in found] == [2, 1, 0]


def test_what_waits_and_what_may_be_replayed_is_in_the_checkpoint(tmp_path):
    given = dict(ahead=2, replay={"size": 3}, filter={})
    first, second = side(**given), side(**given)
    shapes = jax.tree.map(np.shape, first.arrays())
    first.enqueue(judged(first, {"a": "01", "b": "01"}, 0)[0])
    first.next_batch(0)
    first.enqueue(judged(first, {"c": "01", "d": "11"}, 1)[0])
    kept = first.arrays()
    assert jax.tree.map(np.shape, kept) == shapes, "whatever there is"
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"a": np.arange(3)}, {}, rollouts=kept)
    second.load_arrays(Checkpoints(tmp_path).rollouts(1, second.arrays()))
    jax.tree.map(np.testing.assert_array_equal, second.arrays(), kept)
    for each in (first, second):
        each.enqueue(judged(each, {"e": "01", "f": "10"}, 2)[0])
    for step in (2, 3):
        (one, told), (other, said) = first.next_batch(step), second.next_batch(step)
        assert told == said and len(one) == 2
        jax.tree.map(np.testing.assert_array_equal, one, other)


def test_a_checkpoint_without_rollouts_is_read_as_before(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"a": np.arange(3)}, {"seconds": 1.0})
    state, extra = Checkpoints(tmp_path).restore(1, {"a": np.zeros(3, np.int64)})
    assert state["a"].tolist() == [0, 1, 2] and extra == {"seconds": 1.0}
    with pytest.raises(UserError, match="cannot be read"):
        Checkpoints(tmp_path).rollouts(1, side(ahead=1).arrays())


def test_a_task_must_say_what_is_right(monkeypatch):
    with pytest.raises(UserError, match=r"(?s)task `digits`.*data.outcome.*format, accuracy"):
        require_supported(side(filter={}, outcome=["placement"]).config)
    monkeypatch.setattr(Digits, "rewards", ("format",))
    require_supported(side(replay={}).config)  # asks for nothing
    with pytest.raises(UserError, match="task `digits`"):
        require_supported(side(filter={}).config)


def started(episodes, **changes):
    """A small run with every method on: the objective, compiled; a state to begin with; and its rows."""
    config = RunConfig.model_validate(small_run(str(episodes), "unused", "grpo+data", 4).model_dump() | changes)
    many = {"prompts": 8}  # as many as there are devices
    wide = {"batch": config.batch.model_copy(update=many), "rollout": config.rollout.model_copy(update=many)}
    policy, _, rows = set_up(config.model_copy(update=wide))
    objective = GRPO(config, policy, make_mesh(MeshConfig(data=1), jax.devices()[:1]))
    state = objective.init_state(policy.params)
    objective.compile(state, AOTCompiler(objective.mesh))
    return objective, state, rows


@pytest.fixture(scope="module")
def run(episodes):
    """Groups come with encoded pictures: the vision tower is frozen."""
    return started(episodes, freeze=[r"vision\..*"])


def test_stopped_and_resumed_equals_never_stopped(run):
    objective, state, rows = run
    steps = count()

    def step(state):
        number = next(steps)
        rates = dict(learning_rate=1e-2, progress=number / 4, key=jax.random.fold_in(jax.random.key(0), number))
        state, metrics = objective.step(state, rows, **rates)
        return state, {name: value for name, value in metrics.items() if not name.startswith(("timing", "mfu", "dec"))}

    for _ in range(2):
        state, metrics = step(state)
    # what a checkpoint has, in other memory
    carried = objective.state_dict()
    saved = jax.device_get(state), json.dumps(carried.values), carried.arrays, rows.get_state()
    placed = jax.tree.map(lambda leaf: leaf.sharding, state)
    expected = []
    for _ in range(2):
        state, metrics = step(state)
        expected.append(metrics)
    carried = objective.state_dict()
    final = jax.device_get(state), json.dumps(carried.values), carried.arrays

    objective.buffer = RolloutBuffer(objective.config, objective.buffer.padding)
    state, steps = jax.device_put(saved[0], placed), count(2)
    objective.load_state_dict(json.loads(saved[1]), saved[2])
    rows.set_state(saved[3])
    for wanted in expected:
        state, metrics = step(state)
        assert metrics == wanted
    carried = objective.state_dict()
    again = jax.device_get(state), json.dumps(carried.values), carried.arrays
    jax.tree.map(np.testing.assert_array_equal, again[0], final[0])
    jax.tree.map(np.testing.assert_array_equal, again[2], final[2])
    assert again[1] == final[1] and again[1] != saved[1]
    assert int(again[0].step) == 4, "steps are counted, of two updates each"
    assert objective.samples(9), "they were sampled a step before they were learnt from"
    assert expected[-1]["rollout/staleness/max"] >= 1 and expected[-1]["data/replay/groups"] == 1


def test_of_the_noise_no_encoded_pictures_are_kept(run, monkeypatch):
    objective, _, rows = run
    encode, clean = (program.function for program in (objective.sampler.encode, objective.sampler.clean))
    seen, there = [], []

    def encoded(*given):
        pictures = encode(*given)
        seen.append(weakref.ref(pictures))
        return pictures

    def read(*given):
        there.append([pictures() is not None for pictures in seen[-2:]])
        return clean(*given)

    monkeypatch.setattr(objective.sampler.encode, "function", encoded)
    monkeypatch.setattr(objective.sampler.clean, "function", read)
    prompts = [next(rows) for _ in range(objective.config.prompts_a_step)]
    given = (prompts, objective.reference, objective.reference, jax.random.key(1))
    objective.sampler(TimedRunner(), *given, step=0, progress=0.0)
    assert there and all(each == [True, False] for each in there), "the clean ones are, to be learnt from"


def test_what_saw_noise_is_judged_by_the_clean_pictures(run):
    objective, _, rows = run
    weights, learner = objective.reference, objective.learner
    prompts = [next(rows) for _ in range(objective.config.prompts_a_step)]
    given = (prompts, weights, weights, jax.random.key(1))
    groups = objective.sampler(TimedRunner(), *given, step=0, progress=0.0)[:2]

    def log_probs(rows):
        placed = place_batch(stack_prompts(rows), objective.mesh)
        pictures = np.asarray(objective.sampler.sampler.encode(weights, placed))[:2]
        given = (stack_prompts(rows[:2]), pictures, to_batch(groups).rollouts.completions)
        return np.asarray(learner.updates[6].score(weights, *place_batch(given, objective.mesh))), pictures

    found, mask = to_batch(groups).rollouts.log_probs, to_batch(groups).rollouts.completions.mask
    assert mask.shape[1] == 4 and mask[:, 2:].any(), "half of a group is two"
    clean, pictures = log_probs([row.prompt for row in prompts])
    np.testing.assert_allclose(found[mask], clean[mask], atol=1e-5)
    np.testing.assert_array_equal(to_batch(groups).pictures, pictures)
    vision, random = objective.sampler.vision, np.random.default_rng(0)
    noisy, _ = log_probs([noisy_prompt(row.prompt, vision, 500, random) for row in prompts])
    assert np.abs(found - noisy)[mask].max() > 1e-4, "else it would not matter which pictures they are"


def test_noise_is_on_the_pictures_alone_and_the_same_in_frames_that_repeat(run):
    objective, _, rows = run
    prompt, vision = next(rows).prompt, objective.sampler.vision
    noisy = noisy_prompt(prompt, vision, 300, np.random.default_rng(0))
    real, shape = prompt.windows >= 0, (-1, 3, vision.temporal_patch_size, vision.patch_size**2)
    assert real.any() and not real.all()
    np.testing.assert_array_equal(noisy.patches[~real], prompt.patches[~real])
    frames = noisy.patches[real].reshape(shape)
    np.testing.assert_array_equal(frames[:, :, 0], frames[:, :, 1])
    assert (noisy.patches[real] != prompt.patches[real]).mean() > 0.9
    same = replace(noisy, patches=prompt.patches)
    jax.tree.map(np.testing.assert_array_equal, same, prompt)


@pytest.mark.slow
def test_one_rollout_a_prompt_is_enough_with_its_past_as_a_baseline(episodes):
    # no reward is three quarters, half of the largest: there is an advantage whatever is drawn
    alone = {"data": {"single": {}}, "rollout": {"group_size": 1}, "grpo": {"advantage": "none"}}
    objective, state, rows = started(episodes, **alone)
    before = jax.device_get(state.params)
    rates = dict(learning_rate=1e-2, progress=0.0, key=jax.random.key(0))
    state, metrics = objective.step(state, rows, **rates)
    assert metrics["data/single/expected"] == 0.5 and metrics["data/single/prompts"] == 2
    assert metrics["grad_norm"] > 0 and metrics["data/missing"] == 0
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), before, jax.device_get(state.params))
    assert max(jax.tree.leaves(moved)) > 0
