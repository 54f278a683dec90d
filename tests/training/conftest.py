"""Lets these tests import what lies in test folders, such as `small_model` and `killed_run` (pytest's importlib mode
leaves them off the path)."""

import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parents[1] / name) for name in ("models", "parallel", "training")]


@pytest.fixture(scope="module")
def episodes(tmp_path_factory) -> Path:
    from m2io_jax.corpus.importing import import_kitchen
    from m2io_jax.corpus.kitchen import KitchenConfig
    from m2io_jax.corpus.store import Corpus
    from m2io_jax.episodes.building import EpisodeConfig
    from m2io_jax.episodes.making import make_episodes

    folder = tmp_path_factory.mktemp("kitchen")
    import_kitchen(KitchenConfig(documents=12), folder / "corpus")
    config = EpisodeConfig(min_candidates=2, max_candidates=3, train=1.0, validation=0.0)
    make_episodes(Corpus.open(folder / "corpus"), None, folder / "episodes", config)
    return folder / "episodes"
