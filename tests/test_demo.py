"""What the demo's results say; and its seeds: a seed that is complete is not made again."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from m2io_jax import demo
from m2io_jax.config import load_config
from m2io_jax.episodes.episode import Episode
from m2io_jax.evaluation.policy import Judged, Judgement
from m2io_jax.evaluation.results import METRICS, Results, merge_into

CONFIG = Path(__file__).parents[1] / "configs" / "demo.yaml"
SCORES = {"greedy": {name: {"mean": 90.0, "low": 89.0, "high": 91.0} for name in METRICS}}


def test_rules_and_counts_are_of_the_judged_episodes(monkeypatch, tmp_path):
    episodes = [Episode(f"e{i}", "?", (), (), (), ()) for i in range(3)]
    kept, dropped = episodes[:2], {"more pictures than batch.pictures": 1}
    judged = Judgement({"greedy": [Judged(each, "", 1, None) for each in kept], "sampled": []}, Counter(dropped))
    config = load_config(CONFIG, [f"run={tmp_path}", f"episodes={tmp_path}"])
    judge = SimpleNamespace(judge=lambda *_: judged, ready=lambda policy: policy)
    for name, played in {
        "held_out": episodes, "load_policy": None, "Judge": judge, "summaries": SCORES,
        "train": SimpleNamespace(policy=None), "conclude": None,
    }.items():  # fmt: skip
        monkeypatch.setattr(demo, name, lambda *_, played=played, **__: played)
    monkeypatch.setattr(demo, "rules", lambda _, episodes: {"all": {}} if episodes == kept else {"easier": {}})
    for step in (demo.demo, demo.controls):
        step(CONFIG, [f"run={config.run}", f"episodes={tmp_path}"], Console(quiet=True))
        results = Results.read(tmp_path / "results.json")
        assert results.scores["rules"] == {"all": {}}
        assert (results.episodes, results.dropped) == (2, dropped)


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
