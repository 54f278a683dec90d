"""How answers are made with a policy, and what a first answer finds when it was stopped before."""

import json

import pytest

from m2io_jax.config import BatchConfig, EvaluateConfig, RunConfig
from m2io_jax.episodes.dataset import FORMAT, VERSION
from m2io_jax.episodes.episode import Episode
from m2io_jax.errors import UserError
from m2io_jax.evaluation.policy import Judge, Judged, Judgement
from m2io_jax.models.int8 import is_quantized
from m2io_jax.models.policy import load_policy
from m2io_jax.serving import command, inserting
from m2io_jax.serving.inserting import ROOM, answering


def test_there_is_room_for_as_many_pictures_as_the_policy_was_trained_with():
    base = load_policy("base")
    trained = RunConfig(name="x", objective="grpo", steps=1, batch=BatchConfig(pictures=16, completion_length=300))
    batch = answering(base, trained).batch
    assert (batch.pictures, batch.completion_length) == (16, 300)
    assert batch.prompt_length >= 16 * batch.patches // 4 + trained.batch.prompt_length
    assert answering(base, None).batch == ROOM


def test_a_policy_in_eight_bits_is_made_so_once_for_all_questions(monkeypatch):
    asked = []
    judged = Judgement({"greedy": [Judged(None, "?", 1, None)]})
    monkeypatch.setattr(Judge, "judge", lambda self, policy, *_: asked.append(policy) or judged)
    monkeypatch.setattr(inserting, "parse", lambda *_: None)
    run = RunConfig(name="x", objective="grpo", steps=1, evaluate=EvaluateConfig(int8=True))
    place = inserting.model_placer(load_policy("random"), run)
    assert place(None) == place(None) == ((), "?")
    assert is_quantized(asked[0].params) and asked[0] is asked[1]


def test_a_question_that_has_no_room_is_refused_as_a_question():
    episode = Episode(id="answer", question="why? " * 2000, sentences=("So.",), candidates=(), gold=(), labels=(),
                      document="d", group="g")  # fmt: skip
    with pytest.raises(UserError, match=r"(?s)cannot be asked this: .*prompt.*shorter question"):
        inserting.model_placer(load_policy("random"))(episode)


def test_a_runs_pictures_are_as_large_as_its_episodes_left_them(tmp_path):
    config = RunConfig(name="x", objective="grpo", steps=1, run=tmp_path, episodes=tmp_path / "episodes")
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    assert command._pixels_of(None) == command._pixels_of(tmp_path) == command.MAX_PIXELS
    (tmp_path / "episodes").mkdir()
    manifest = {"format": FORMAT, "version": VERSION, "episodes": {}, "config": {"max_pixels": 1000}}
    (tmp_path / "episodes" / "episodes.json").write_text(json.dumps(manifest))
    assert command._pixels_of(tmp_path) == 1000


def test_a_first_answer_that_was_stopped_before_its_index_was_built_is_made_good(tmp_path, monkeypatch):
    def stopped(*_):
        raise KeyboardInterrupt

    small = command.KitchenConfig
    monkeypatch.setattr(command, "user_cache_path", lambda _: tmp_path)
    monkeypatch.setattr(command, "KitchenConfig", lambda documents: small(documents=5))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(command, "build_index", stopped)
        command._corpus_of(None)
    folder = command._corpus_of(None)
    assert command.index_folder(folder).joinpath("retrieval.json").is_file()
