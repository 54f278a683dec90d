"""`m2io evaluate` on verified tasks: the figures of known completions, by hand, in the file and the table."""

import gc
import json
import weakref
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from flax import nnx
from rich.console import Console

from m2io_jax.config import RunConfig
from m2io_jax.episodes.dataset import open_episodes
from m2io_jax.episodes.generated.making import make_generated
from m2io_jax.episodes.generated.problems import ProblemConfig
from m2io_jax.episodes.generated.scenes import SceneConfig
from m2io_jax.errors import RowError, UserError
from m2io_jax.evaluation import command
from m2io_jax.evaluation import policy as judging
from m2io_jax.evaluation.command import evaluate_run
from m2io_jax.models.inputs import Completions
from m2io_jax.models.policy import load_policy
from m2io_jax.tasks.arithmetic import ArithmeticTask
from m2io_jax.tasks.verifiable import write
from m2io_jax.verification.pool import Unverified

TASKS = {"counting": SceneConfig(most=2, side=56), "arithmetic": ProblemConfig(largest=5)}
EPISODES, AT_A_TIME = 10, 8  # of each task: the second batch is filled up


def config(folder, **changes) -> RunConfig:
    return RunConfig(
        name="two",
        run=folder,
        objective="grpo",
        steps=1,
        tasks={"counting": 1, "arithmetic": 1, "geometry": 0},
        episodes={task: folder / task for task in TASKS},
        rewards={"accuracy": 1.0, "format": 0.5},
        batch={"pictures": 1, "completion_length": 40, "prompt_length": 128},
        evaluate={"episodes": EPISODES, "batch_prompts": AT_A_TIME} | changes,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two tasks, as `m2io train` leaves one."""
    folder = tmp_path_factory.mktemp("run")
    for task, generator in TASKS.items():
        make_generated(task, generator, folder / task, count=80, seed=0)
    load_policy("random").save(folder / "model")
    (folder / "config.yaml").write_text(config(folder).to_yaml())
    return folder


@pytest.fixture
def lengths(run, monkeypatch) -> dict[str, list[int]]:
    """Lets the policy say known things, and tells the lengths of its greedy completions by task.

    Greedy, six of ten are right in every way, the others no answer at all. Sampled, nine give the right answer and
    nothing else; the first an empty one. How tokens are drawn is held by the sampler's own tests.
    """
    encode = load_policy("random").codec.encode
    said = {
        task: [
            (write("", truth) if index < 6 else "9", f"<answer>{truth if index else ''}</answer>")
            for index, truth in enumerate(open_episodes(run / task, "test")[at].answer for at in range(EPISODES))
        ]
        for task in TASKS
    }
    order = iter([group for groups in said.values() for group in groups])
    sizes = iter([AT_A_TIME, EPISODES - AT_A_TIME] * len(TASKS))

    def speak(params, prompts, key, constraint):
        tokens, mask = np.zeros((AT_A_TIME, 2, 40), np.int32), np.zeros((AT_A_TIME, 2, 40), bool)
        for row in range(next(sizes)):
            for place, text in enumerate(next(order)):
                ids = encode(text)
                tokens[row, place, : len(ids)], mask[row, place, : len(ids)] = ids, True
        return SimpleNamespace(completions=Completions(tokens, mask))

    monkeypatch.setattr(judging, "Sampler", lambda *_, **__: speak)
    return {task: [len(encode(greedy)) for greedy, _ in groups] for task, groups in said.items()}


def means(scores) -> dict[str, float]:
    return {name: value["mean"] for name, value in scores.items()}


def test_each_task_has_a_section_with_its_own_metrics(run, lengths, capsys):
    evaluate_run(run, "test", True, Console())
    row = json.loads(capsys.readouterr().out)
    assert row == json.loads((run / "results.json").read_text())
    assert row["tasks"].keys() == TASKS.keys() and "two" not in row
    for task, length in lengths.items():
        section = row["tasks"][task]
        assert section["episodes"] == EPISODES and section["two"].keys() == {"greedy", "sampled"}
        of = dict(accuracy=60, format=60, validity=60, reward=60, length=np.mean(length), unscored=0)
        assert means(section["two"]["greedy"]) == pytest.approx(of)
        # right without the format earns 1 of 1.5
        sampled = means(section["two"]["sampled"]) | {"length": 0}
        of = dict(accuracy=90, format=0, validity=90, reward=60, length=0, unscored=0)
        assert sampled == pytest.approx(of)
    greedy = section["two"]["greedy"]["accuracy"]
    assert greedy["low"] < 60 < greedy["high"]


def test_what_nobody_can_verify_is_counted_and_in_no_mean(run, lengths, monkeypatch, capsys):
    equal, asked = ArithmeticTask.equal, iter(range(100))

    def watched(self, gold, answer):
        if next(asked) % 4 == 0:
            raise Unverified("timeout", "as told")
        return equal(self, gold, answer)

    monkeypatch.setattr(ArithmeticTask, "equal", watched)
    out = Console(width=160)
    evaluate_run(run, "test", False, out)
    said = capsys.readouterr().out
    scores = json.loads((run / "results.json").read_text())["tasks"]["arithmetic"]["two"]
    unscored = {name: round(each["unscored"]["mean"] * EPISODES / 100) for name, each in scores.items()}
    assert sum(unscored.values()) == 4  # six greedy answers and ten sampled ones were looked at
    for name, count in unscored.items():
        assert (f"{count} of {EPISODES} {name} completions that nobody can verify" in said) == (count > 0)
    right = {"greedy": 6 - unscored["greedy"]}
    assert scores["greedy"]["accuracy"]["mean"] == pytest.approx(100 * right["greedy"] / (10 - unscored["greedy"]))
    assert "counting: points of 100 over 10 episodes" in said and "arithmetic: points" in said


def test_episodes_that_do_not_fit_are_in_the_file_and_with_the_table(run, lengths, monkeypatch, capsys):
    fits, seen = judging.PromptEncoder.row, iter(range(100))

    def narrow(self, prompt, candidates, seed):
        if next(seen) in (3, 4):  # of the first task; what is said next is then another episode's
            raise RowError("too [long]")
        return fits(self, prompt, candidates, seed=seed)

    monkeypatch.setattr(judging.PromptEncoder, "row", narrow)
    monkeypatch.setattr(judging, "score_completions", lambda batch, texts, weights: SimpleNamespace(
        parts=[[{"accuracy": 1.0, "format": 1.0}] * len(group) for group in texts]
    ))  # fmt: skip
    evaluate_run(run, "test", False, Console(width=160))
    said = capsys.readouterr().out
    row = json.loads((run / "results.json").read_text())
    counting, arithmetic = (row["tasks"][task] for task in TASKS)
    assert (counting["episodes"], counting["dropped"]) == (EPISODES - 2, {"too [long]": 2})
    assert (arithmetic["episodes"], arithmetic["dropped"]) == (EPISODES, {})
    assert said.count(f"left out: 2 of {EPISODES} episodes: too [long]") == 1


def test_in_eight_bits_there_are_no_float_kernels_beside(run, tmp_path, monkeypatch):
    floats, seen = [], []

    def load(*args, **options):
        policy = load_policy(*args, **options)
        for path, param in nnx.to_flat_state(policy.params):
            if "blocks" in path and path[-1] == "kernel":
                floats.append(weakref.ref(param.get_value()))
        return policy

    def speak(params, *_):
        gc.collect()
        small = [leaf for leaf in jax.tree.leaves(params) if leaf.dtype == "int8"]
        seen.append([np.asarray(leaf.addressable_shards[0].data) for leaf in small])
        assert floats and not any(kernel() for kernel in floats)
        shape = (AT_A_TIME, 2, 40)
        return SimpleNamespace(completions=Completions(np.zeros(shape, np.int32), np.zeros(shape, bool)))

    monkeypatch.setattr(command, "load_policy", load)
    monkeypatch.setattr(judging, "Sampler", lambda *_, **__: speak)
    (tmp_path / "model").symlink_to(run / "model")
    (tmp_path / "config.yaml").write_text(config(run, int8=True).to_yaml())
    evaluate_run(tmp_path, "test", True, Console())
    assert len(seen) == 2 * len(TASKS) and seen[0]
    for each in seen:  # the same for both tasks
        assert all(np.shares_memory(*pair) for pair in zip(each, seen[0], strict=True))


def test_what_cannot_be_evaluated_is_told(run, lengths, tmp_path):
    with pytest.raises(UserError, match="no episodes in the split `dev`"):
        evaluate_run(run, "dev", False, Console())
    (tmp_path / "model").symlink_to(run / "model")
    (tmp_path / "config.yaml").write_text(config(run, constrained=True).to_yaml())
    with pytest.raises(UserError, match=r"`counting` have no grammar[^$]*evaluate.constrained"):
        evaluate_run(tmp_path, "test", False, Console())
