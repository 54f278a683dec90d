"""A run whose gradient is not finite ends there, and what it saved before stays."""

import json

import pytest
from killed_run import small_run

from m2io_jax.config import RunConfig
from m2io_jax.errors import UserError
from m2io_jax.training.run import train


def test_a_gradient_that_is_not_finite_ends_the_run_before_it_is_saved(tmp_path, episodes):
    small = small_run(str(episodes), str(tmp_path / "run"), "supervised", steps=4).model_dump()
    # The first step leaves huge weights, of which the second has no gradient.
    spoils = {"optimizer": {"learning_rate": 1e38}, "checkpoint": {"every_steps": 1}}
    spoils |= {"batch": small["batch"] | {"prompts": 8}}  # a row for each device
    with pytest.raises(UserError, match="(?s)`grad_norm` of step 2 is not finite.*optimizer.learning_rate"):
        train(RunConfig.model_validate(small | spoils))
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir() if path.is_dir()] == ["1"]
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["grad_norm"] is None for row in rows] == [False, True]
    assert not (tmp_path / "run" / "model").exists()
