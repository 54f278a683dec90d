"""The demo's seeds: a seed that is complete is not made again."""

from pathlib import Path

import pytest
from rich.console import Console

from m2io_jax import demo
from m2io_jax.config import load_config
from m2io_jax.evaluation.results import METRICS, Results, merge_into

CONFIG = Path(__file__).parents[1] / "configs" / "demo.yaml"
SCORES = {"greedy": {name: {"mean": 90.0, "low": 89.0, "high": 91.0} for name in METRICS}}


@pytest.fixture
def made(monkeypatch, tmp_path) -> list[str]:
    """What was made in the current folder, in order: training and judging are played."""
    monkeypatch.chdir(tmp_path)
    made: list[str] = []

    def trained(config_path, overrides, say):
        config = load_config(config_path, overrides)
        made.append(f"demo {config.seed}")
        config = config.model_copy(update={"episodes": config.run / "episodes"})  # as it is with its data
        Results({"grpo": SCORES}, seed=config.seed, config=config.model_dump(mode="json")).write(
            config.run / "results.json"
        )

    def controlled(config_path, overrides, say):
        config = load_config(config_path, overrides)
        made.append(f"controls {config.seed}")
        merge_into(config.run / "results.json", Results({"sft_same_time": SCORES}, seed=config.seed))

    monkeypatch.setattr(demo, "demo", trained)
    monkeypatch.setattr(demo, "controls", controlled)
    for seed in demo.SEEDS:
        (tmp_path / f"runs/demo-seed{seed}").mkdir(parents=True)
    return made


def test_seeds_are_made_once(made):
    everything = [f"{what} {seed}" for seed in (0, 1, 2) for what in ("demo", "controls")]
    demo.seeds(CONFIG, [], Console(quiet=True))
    assert made == everything
    demo.seeds(CONFIG, [], Console(quiet=True))
    assert made == everything


def test_a_seed_without_controls_or_with_other_settings_is_made_again(made):
    demo.seeds(CONFIG, [], Console(quiet=True))
    made.clear()
    path = Path("runs/demo-seed1/results.json")
    whole = Results.read(path)
    Results({"grpo": SCORES}, seed=1, config=whole.config).write(path)
    demo.seeds(CONFIG, [], Console(quiet=True))
    assert made == ["demo 1", "controls 1"]
    made.clear()
    demo.seeds(CONFIG, ["optimizer.learning_rate=5.0e-5"], Console(quiet=True))
    assert len(made) == 6
