"""A small run by GRPO on counting and arithmetic together: rows with a picture and rows of text alone in one batch."""

import itertools
import json

import numpy as np
import pytest
from killed_run import small_run

from m2io_jax.config import RunConfig
from m2io_jax.episodes.generated.making import make_generated
from m2io_jax.episodes.generated.problems import ProblemConfig
from m2io_jax.episodes.generated.scenes import SceneConfig
from m2io_jax.errors import UserError
from m2io_jax.tasks.counting import CountingTask
from m2io_jax.training import run
from m2io_jax.verification.pool import Unverified

STEPS = 2


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("generated")
    made = {"counting": SceneConfig(most=2, side=56), "arithmetic": ProblemConfig(largest=5)}
    for task, generator in made.items():
        make_generated(task, generator, folder / task, count=40, seed=0)
    return {task: str(folder / task) for task in made}


def verified_run(folders: dict[str, str], folder) -> RunConfig:
    small = small_run("unused", str(folder), "grpo", STEPS)
    changes = {
        "episodes": folders,
        "tasks": {"counting": 1.0, "arithmetic": 1.0},
        "rewards": {"accuracy": 1.0, "format": 0.5},
        "batch": small.batch.model_copy(update={"prompts": 8, "completion_length": 12}),
        "logging": {"tensorboard": False, "samples": 8},
    }
    return RunConfig.model_validate(small.model_dump() | changes)


def metrics_of(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_pictures_and_text_alone_train_together(folders, tmp_path):
    numbers = itertools.count(1)
    score = CountingTask.score

    def watched(self, completion, episode):
        if next(numbers) % 3 == 0:  # one in three cannot be verified
            raise Unverified("timeout", "as told")
        # an untaught model is never right: a score that differs from completion to completion gives a signal
        return score(self, completion, episode) | {"format": len(completion) % 2}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CountingTask, "score", watched)
        finished = run.train(verified_run(folders, tmp_path / "run"))
    assert finished.steps == STEPS
    logged = metrics_of(tmp_path / "run")
    scored = next(numbers) - 1
    assert scored == STEPS * 4 * 2  # four of eight prompts are for counting, with two completions each
    assert sum(row["verifier/timeouts"] for row in logged) == scored // 3
    assert all(row["verifier/errors"] == 0 and row["dropped_rows"] == 0 for row in logged)
    assert all(np.isfinite(row[name]) for row in logged for name in ("loss", "grad_norm", "reward", "kl"))
    assert all(row["rewards/accuracy/mean"] == 0 for row in logged)
    assert any(row["grad_norm"] > 0 for row in logged)
    (page,) = (tmp_path / "run" / "samples").iterdir()  # of the first step, whole
    shown = page.read_text(encoding="utf-8")
    assert (page.name, shown.count("<article>"), shown.count("<img")) == ("1.html", 8, 4)
    assert shown.count("not scored") == 4 * 2 // 3


def test_a_task_without_a_folder_of_its_own_is_told(folders, tmp_path):
    config = verified_run(folders, tmp_path / "run")
    with pytest.raises(UserError, match="geomtry"):
        run.train(config.model_copy(update={"episodes": folders | {"geomtry": "x"}}))
