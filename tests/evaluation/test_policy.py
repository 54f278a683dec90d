"""Judging a policy: every episode once, whatever the batches; exchanged pictures are really exchanged."""

import io
from dataclasses import replace

import jax
import numpy as np
import pytest
from PIL import Image

from m2io_jax.config import ComputationSection, EvaluateConfig, MeshConfig, RolloutConfig, RunConfig
from m2io_jax.episodes.episode import Candidate, Episode, Placement
from m2io_jax.errors import UserError
from m2io_jax.evaluation import policy as judging
from m2io_jax.evaluation.policy import DECODING, Judge, shuffle_pixels, summaries
from m2io_jax.models.policy import load_policy
from m2io_jax.parallel.mesh import make_mesh
from m2io_jax.parallel.sharding import param_shardings
from m2io_jax.tasks import find_task

INSERTER = find_task("inserter")
CONFIG = RunConfig(
    name="judged",
    objective="supervised",
    steps=1,
    mesh={"data": 1},
    batch={"prompt_length": 96, "completion_length": 8, "pictures": 3},
    evaluate={"batch_prompts": 2},
)


def episode(number: int, pictures: int = 2) -> Episode:
    def picture(index: int) -> bytes:
        written = io.BytesIO()
        Image.new("RGB", (56, 56), (index * 40, number * 10, 0)).save(written, "PNG")
        return written.getvalue()

    candidates = tuple(Candidate(picture=f"{number}-{index}", data=picture(index)) for index in range(pictures))
    placed = (Placement(slot=1, picture=0),)
    return Episode(f"e{number}", "How?", ("Cut.", "Stir."), candidates, gold=placed, labels=placed)


def first_part(array: jax.Array) -> np.ndarray:
    return np.asarray(array.addressable_shards[0].data)


@pytest.fixture(scope="module")
def policy():
    return load_policy("random", seed=3)


def test_every_episode_is_judged_once_in_both_decodings(policy, monkeypatch):
    monkeypatch.setattr("jax.devices", lambda *_: __import__("jax").local_devices()[:1])
    judge = Judge(CONFIG, policy)
    too_many = episode(9, pictures=4)
    judged = judge.judge(policy, INSERTER, [episode(0), episode(1), episode(2), too_many], "judging")
    for name in DECODING:
        assert [row.episode.id for row in judged.rows[name]] == ["e0", "e1", "e2"]
    assert judged.dropped == {"more pictures than batch.pictures": 1}
    summary = summaries(judged, INSERTER, CONFIG)
    assert summary["greedy"]["validity"]["mean"] == 0.0  # eight random tokens are no completion
    spread = Judge(CONFIG, policy, make_mesh(MeshConfig(), jax.local_devices()))
    assert judge.rows == 2 and spread.rows == 8  # one for each device
    alone = judge.judge(policy, INSERTER, [episode(0)], "judging")
    assert alone.rows["greedy"][0] == judged.rows["greedy"][0] and not alone.dropped
    with pytest.raises(UserError, match="No episode can be evaluated"):
        judge.judge(policy, INSERTER, [too_many], "judging")
    other = judge.judge(policy, find_task("look"), [episode(0)], "judging")  # by the same program
    assert other.rows["greedy"][0].rewards.keys() == {"seen"}
    assert other.rows["greedy"][0].completion != alone.rows["greedy"][0].completion  # it read another prompt


def test_weights_in_eight_bits_lie_as_the_float_ones_and_are_made_once(policy):
    mesh = make_mesh(MeshConfig(data=1, fsdp=4), jax.local_devices()[:4])
    judge = Judge(CONFIG.model_copy(update={"evaluate": EvaluateConfig(int8=True)}), policy, mesh)
    ready = judge.ready(policy)
    shardings = jax.tree.leaves(param_shardings(ready.params, mesh))
    arrays = jax.tree.leaves(ready.params)
    split = [array for array in arrays if array.dtype == "int8" and not array.sharding.is_fully_replicated]
    assert split and all(
        array.sharding.is_equivalent_to(sharding, array.ndim) for array, sharding in zip(arrays, shardings, strict=True)
    )
    again = jax.tree.leaves(judge.ready(ready).params)
    assert all(np.shares_memory(*map(first_part, pair)) for pair in zip(again, arrays, strict=True))


@pytest.mark.parametrize("gather, dtype", [(True, "bfloat16"), (False, None)])
def test_weights_are_gathered_as_rollouts_have_them(policy, monkeypatch, gather, dtype):
    asked = []
    monkeypatch.setattr(judging, "Sampler", lambda *_, **how: asked.append(how["gather"]))
    changes = {"rollout": RolloutConfig(gather=gather), "computation": ComputationSection(dtype="bfloat16")}
    mesh = make_mesh(MeshConfig(data=1, fsdp=4), jax.local_devices()[:4])
    Judge(CONFIG.model_copy(update=changes), policy, mesh)._sampler(policy)
    assert asked == [dtype]


def test_no_picture_keeps_its_pixels():
    for count in range(2, 8):
        before = episode(1, pictures=count)
        after = shuffle_pixels(before, seed=count)
        pairs = list(zip(before.candidates, after.candidates, strict=True))
        assert sorted(new.data for _, new in pairs) == sorted(old.data for old, _ in pairs)
        assert all(old.data != new.data and old.picture == new.picture for old, new in pairs)
    single = replace(before, candidates=before.candidates[:1])
    assert shuffle_pixels(single) == single
