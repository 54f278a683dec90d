"""What a run takes for unchanged when it goes on; the runs themselves are killed in test_resume.py."""

import re
import shutil
from types import SimpleNamespace

import pytest
from killed_run import small_run

from m2io_jax.errors import UserError
from m2io_jax.training import resuming
from m2io_jax.training.resuming import Saves, fingerprints
from m2io_jax.training.trainer import TrainerState

NOW = {"start": "these weights", "episodes": {"inserter": "these episodes"}}


def resumed(episodes, saved: dict):
    """Goes on at step 3 of 4 of a run with frozen weights, whose checkpoint has `saved` beside what all have."""
    config = small_run(str(episodes), "unused", "supervised", 4)
    extra = {"resume_key": config.resume_key(), "seconds": 1.5, "data": {"rows": 7}} | saved
    checkpoints = SimpleNamespace(latest=lambda: 3, extra=lambda step: extra, restore=lambda step, _: ("state", extra))
    loaded = []
    trainer = SimpleNamespace(
        reference=None,
        frozen=[0.0],
        abstract_state=lambda: None,
        state_dict=lambda: TrainerState({}),
        load_state_dict=lambda *given: loaded.append(given),
    )
    rows, told = SimpleNamespace(set_state=lambda data: told.append(data)), []
    assert Saves(config, checkpoints, trainer, rows, NOW).resume("weights") == ("state", 1.5)
    assert told == [{"rows": 7}] and loaded == [({}, None)]


@pytest.mark.parametrize("saved", [{}, {"start": NOW["start"]}, NOW], ids=["oldest", "older", "newest"])
def test_a_run_goes_on_from_checkpoints_of_every_age(episodes, saved):
    resumed(episodes, saved)


@pytest.mark.parametrize("saved", [{"start": "others"}, NOW | {"episodes": {"inserter": "others"}}])
def test_a_run_does_not_go_on_where_something_changed(episodes, saved):
    with pytest.raises(UserError, match="have changed since"):
        resumed(episodes, saved)


def test_the_same_files_in_another_folder_are_the_same(episodes, tmp_path):
    copied = shutil.copytree(episodes, tmp_path / "copied")
    found = [fingerprints(small_run(str(folder), "unused", "supervised", 4)) for folder in (episodes, copied)]
    assert found[0] == found[1]


@pytest.mark.parametrize("name", ["init", "episodes"])
def test_processes_that_find_different_files_are_told_so_all_together(episodes, monkeypatch, name):
    config = small_run(str(episodes), "unused", "supervised", 4)
    place = str(getattr(config, name))
    for me in range(2):  # process 1 has other files there
        own = "there" if me else "here"

        def gathered(found, own=own):
            found[place] = own
            return [found | {place: "here"}, found | {place: "there"}]

        monkeypatch.setattr(resuming, "gathered", gathered)
        with pytest.raises(UserError, match=f"(?s)Not every process finds the same files.*where: {re.escape(place)}\n"):
            fingerprints(config)
