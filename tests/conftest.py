"""What all tests share: JAX on eight virtual CPU devices, and the folder of shared data where there is one."""

import os
import tempfile
from pathlib import Path

# JAX reads these when it is first imported, which any test module may do.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_NUM_CPU_DEVICES"] = "8"
# Tests compile the same small programs again and again: all workers and the commands they run share them.
PROGRAMS = None if "JAX_COMPILATION_CACHE_DIR" in os.environ else tempfile.TemporaryDirectory(prefix="m2io-programs-")
if PROGRAMS:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = PROGRAMS.name

import pytest  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Commands that tests run keep compiled programs here, not in the user's cache."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of data shared between checkouts: M2IO_SHARED, or `shared` beside the repository."""
    beside = Path(__file__).resolve().parents[2] / "shared"
    path = Path(os.environ.get("M2IO_SHARED", beside))
    if not path.is_dir():
        pytest.skip(f"no shared data: {path} is not a folder (M2IO_SHARED names another)")
    return path


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
