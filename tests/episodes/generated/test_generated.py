"""Generated problems: their answers worked out again from the words or the drawing's content, and their splits."""

import io
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from m2io_jax.corpus.pictures import decode
from m2io_jax.episodes.dataset import open_episodes
from m2io_jax.episodes.generated import GENERATED, find_generated
from m2io_jax.episodes.generated.figures import FigureConfig, right_triangles
from m2io_jax.episodes.generated.making import generate, make_generated
from m2io_jax.episodes.generated.problems import ProblemConfig
from m2io_jax.episodes.generated.scenes import SceneConfig
from m2io_jax.errors import UserError
from m2io_jax.tasks import find_task

COUNT = 80


def rows(task: str, generator=None, count: int = COUNT, seed: int = 3) -> dict:
    made = generate(task, generator or find_generated(task), count=count, seed=seed)
    return {split: list(episodes) for split, episodes in made.items()}


@pytest.fixture(scope="module")
def made() -> dict[str, dict]:
    return {task: rows(task) for task in GENERATED}


def counted(question: str, content: str) -> int:
    """How many things of the content have every word of the question's subject."""
    subject = re.fullmatch(r"How many (.+)s are there\?", question)[1].replace("thing", "").split()
    return sum(set(subject) <= set(thing.split()) for thing in content.split(", "))


def solved(question: str, content: str) -> int:
    """By trigonometry and from what the drawing says, not by the formulas of the generator."""
    numbers = [int(number) for number in re.findall(r"\d+", content)]
    if content.startswith("triangle"):
        a, b = np.radians(numbers)
        c = np.arccos(-np.cos(a) * np.cos(b) + np.sin(a) * np.sin(b))  # the law of cosines for angles, in the plane
        return round(float(np.degrees(c)))
    if content.startswith("right triangle legs"):
        return round(float(np.hypot(*numbers)))
    if content.startswith("right triangle leg"):
        return round(float(np.sqrt(numbers[1] ** 2 - numbers[0] ** 2)))
    squares = np.ones(numbers)
    return int(squares.sum()) if "area" in question else int(4 + 2 * ((squares.shape[0] - 1) + (squares.shape[1] - 1)))


def told(question: str) -> int:
    """The story word by word."""
    value = 0
    for sentence in re.split(r"(?<=[.?])\s+", question):
        numbers = [int(number) for number in re.findall(r"\d+", sentence)]
        if "boxes" in sentence:
            value = numbers[0] * numbers[1]
        elif " has " in sentence:
            value = numbers[0]
        elif "gets" in sentence or "finds" in sentence:
            value += numbers[0]
        elif "gives" in sentence or "loses" in sentence:
            value -= numbers[0]
        else:
            assert sentence.startswith("How many"), sentence
    return value


def worked_out(task: str, episode) -> int:
    if task == "arithmetic":
        return told(episode.question)
    by = counted if task == "counting" else solved
    return by(episode.question, episode.candidates[0].content)


@pytest.mark.parametrize("task", GENERATED)
def test_answers_are_right_and_targets_earn_everything(made, task):
    for episodes in made[task].values():
        for episode in episodes:
            assert worked_out(task, episode) == int(episode.answer), episode
            assert set(find_task(task).score(find_task(task).target(episode), episode).values()) == {1.0}


@pytest.mark.parametrize("task", GENERATED)
def test_every_line_of_reasoning_holds_and_the_last_gives_the_answer(made, task):
    for episode in made[task]["train"]:
        lines = episode.reasoning.split("\n")
        if task == "counting":
            assert [re.sub(r" \d+$", "", line) for line in lines] == episode.candidates[0].content.split(", ")
            numbers = [int(line.split()[-1]) for line in lines if line[-1].isdigit()]
            assert numbers == list(range(1, int(episode.answer) + 1))
            continue
        for line in lines:
            left, right = line.split("=")
            assert re.fullmatch(r"[\d*+-]+", left) and eval(left) == int(right), line  # digits and signs alone
        assert str(episode.answer) in re.findall(r"\d+", lines[-1])


@pytest.mark.parametrize("task", GENERATED)
def test_no_problem_stands_in_two_splits(made, task):
    groups = {split: {episode.group for episode in episodes} for split, episodes in made[task].items()}
    assert not groups["train"] & (groups["validation"] | groups["test"]) and not groups["validation"] & groups["test"]
    shown = {
        split: {(e.question if task == "arithmetic" else (e.question, e.candidates[0].content)) for e in episodes}
        for split, episodes in made[task].items()
    }
    if task != "counting":  # where a scene's things may stand elsewhere
        assert not shown["train"] & shown["test"]
    assert {split: len(episodes) for split, episodes in made[task].items()} == {
        "train": 64,
        "validation": 4,
        "test": 12,
    }
    ids = [episode.id for episodes in made[task].values() for episode in episodes]
    assert len(set(ids)) == COUNT


@pytest.mark.parametrize("task", GENERATED)
def test_the_same_seed_gives_the_same_bytes_and_a_larger_set_begins_alike(made, task):
    assert rows(task) == made[task]
    more = rows(task, count=2 * COUNT)
    assert all(more[split][: len(episodes)] == episodes for split, episodes in made[task].items())
    assert rows(task, seed=4)["train"] != made[task]["train"]


def test_only_test_shows_the_combinations_that_are_held_out(made):
    held_out = {" ".join(combination) for combination in SceneConfig().held_out(3)}
    assert len(held_out) == 4 and len({name.split()[0] for name in held_out}) == 4
    shown = {
        split: {thing for episode in episodes for thing in episode.candidates[0].content.split(", ")}
        for split, episodes in made["counting"].items()
    }
    assert not shown["train"] & held_out and not shown["validation"] & held_out
    assert shown["test"] & held_out == held_out and len(shown["train"]) == 12 - 4


def test_all_counts_are_as_frequent():
    episodes = rows("counting", SceneConfig(most=3, side=28), count=500)["train"]
    shares = np.array([count for _, count in sorted(Counter(episode.answer for episode in episodes).items())]) / 400
    np.testing.assert_allclose(shares, 0.25, atol=4 * (0.25 * 0.75 / 400) ** 0.5)


@pytest.mark.parametrize(("task", "side"), [("counting", 84), ("geometry", 112)])
def test_pictures_can_be_decoded_and_differ(made, task, side):
    data = [episode.candidates[0].data for episodes in made[task].values() for episode in episodes]
    assert {decode(picture).shape for picture in data} == {(side, side, 3)} and len(set(data)) == COUNT


def test_every_thing_of_a_scene_is_drawn_in_its_colour_and_its_cell(made):
    """Hues by hand: a cell's most colourful pixels are of the thing's colour, and an empty cell is grey."""
    names = {"red": 0, "yellow": 60, "green": 120, "blue": 240}
    for episode in made["counting"]["train"]:
        picture = Image.open(io.BytesIO(episode.candidates[0].data)).convert("HSV")
        pixels = np.asarray(picture, int).reshape(3, 28, 3, 28, 3).swapaxes(1, 2).reshape(9, 28 * 28, 3)
        drawn = {int(place): name.split()[0] for place, name in re.findall(r"(\d):(\w+ \w+)", episode.group)}
        for cell in range(9):
            colourful = pixels[cell][pixels[cell][:, 1] > 120]
            if cell not in drawn:
                assert len(colourful) < 20  # at most the edge of a neighbour
                continue
            hue = np.median(colourful[:, 0]) * 360 / 255
            apart = {name: abs((hue - at + 180) % 360 - 180) for name, at in names.items()}
            assert len(colourful) > 100 and min(apart, key=apart.get) == drawn[cell]


def test_labels_stay_inside_the_picture():
    for episode in rows("geometry", FigureConfig(step=1, largest=99, side=112), count=100)["train"]:
        pixels = np.asarray(Image.open(io.BytesIO(episode.candidates[0].data)).convert("L"))
        edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
        assert edge.min() > 200 and pixels.min() < 80


def test_right_triangles_by_hand():
    assert right_triangles(12) == [(3, 4, 5), (6, 8, 10), (5, 12, 13), (9, 12, 15)]


@pytest.mark.parametrize("held_out", ["figure", "drawing"])
def test_splits_share_figures_only_where_drawings_are_held_out(held_out):
    made = rows("geometry", FigureConfig(kinds="perimeter,area", held_out=held_out), count=200)
    sides, files = {}, {}
    for split in ("train", "test"):
        pictures = [episode.candidates[0] for episode in made[split]]
        sides[split] = {tuple(sorted(picture.content.split()[2:])) for picture in pictures}
        files[split] = {picture.data for picture in pictures}
    assert bool(sides["train"] & sides["test"]) == (held_out == "drawing")
    assert not files["train"] & files["test"]


def test_settings_change_what_is_made():
    small = rows("counting", SceneConfig(most=2, colours=2, shapes=2, sizes=2, side=56))
    things = {thing for episode in small["train"] for thing in episode.candidates[0].content.split(", ")}
    assert {word for thing in things for word in thing.split()} == {"large", "small", "red", "blue", "cube", "ball"}
    assert max(int(episode.answer) for episode in small["train"]) == 2
    assert any(re.search("large|small", episode.question) for episode in small["train"])
    assert all(counted(e.question, e.candidates[0].content) == int(e.answer) for e in small["train"])
    areas = rows("geometry", FigureConfig(kinds="area", largest=30))["train"]
    assert {episode.question for episode in areas} == {"What is the area of the rectangle?"}
    sums = rows("arithmetic", ProblemConfig(largest=15, steps=1, operations="add"))["train"]
    assert all(4 <= int(episode.answer) <= 30 and "boxes" not in episode.question for episode in sums)
    long = rows("arithmetic", ProblemConfig(largest=99, steps=5))["train"]
    assert max(len(episode.reasoning.split("\n")) for episode in long) == 5
    assert all(told(episode.question) == int(episode.answer) >= 0 for episode in long)


@pytest.mark.parametrize(
    ("config", "changes"),
    [
        (SceneConfig(), dict(most=0)),
        (SceneConfig(), dict(colours=7)),
        (SceneConfig(), dict(shapes=1)),
        (SceneConfig(), dict(sizes=3)),
        (SceneConfig(), dict(side=10)),
        (FigureConfig(), dict(kinds="angle,circle")),
        (FigureConfig(), dict(step=7)),
        (FigureConfig(), dict(largest=3)),
        (FigureConfig(), dict(held_out="picture")),
        (ProblemConfig(), dict(operations="")),
        (ProblemConfig(), dict(largest=1)),
        (ProblemConfig(steps=1, operations="multiply"), dict(steps=2)),
    ],
)
def test_settings_out_of_bounds_are_told(config, changes):
    with pytest.raises(UserError, match=next(iter(changes))):
        replace(config, **changes)


def test_settings_that_leave_a_split_empty_are_told():
    with pytest.raises(UserError, match="too few problems"):
        rows("arithmetic", ProblemConfig(largest=2, steps=1, operations="add"))


def test_a_data_set_is_written_and_says_how_it_was_made(tmp_path):
    manifest = make_generated("arithmetic", ProblemConfig(largest=7), tmp_path / "out", count=40, seed=1)
    assert manifest["episodes"] == {"train": 32, "validation": 2, "test": 6}
    assert manifest["generated"] == {
        "task": "arithmetic", "seed": 1, "largest": 7, "steps": 2, "operations": "add,subtract,multiply",
    }  # fmt: skip
    written = {episode.id: episode for episode in open_episodes(tmp_path / "out", "train")}
    assert written == {e.id: e for e in rows("arithmetic", ProblemConfig(largest=7), count=40, seed=1)["train"]}
