"""Groups of completions to log, and the folder of this test package on the path."""

import io

import pytest
from PIL import Image

from m2io_jax.episodes.episode import Candidate, Episode, Placement
from m2io_jax.training.logging.samples import SampledCompletion, SampledGroup, Samples

ATTACK = '<script>alert("x")</script><img src=http://evil.example/x onerror=y> {{ 7*7 }} [a](javascript:b) "\'&'
COLOURS = ((255, 0, 0), (0, 0, 255))


def picture(colour, size=(12, 8)) -> bytes:
    stored = io.BytesIO()
    Image.new("RGB", size, colour).save(stored, format="PNG")
    return stored.getvalue()


def group(text: str = "Soup?", said: str = "<answer>none</answer>") -> SampledGroup:
    episode = Episode(
        id="1",
        question=text,
        sentences=(text, "Stir."),
        candidates=tuple(Candidate(f"{i}" * 64, picture(colour), caption=text) for i, colour in enumerate(COLOURS)),
        gold=(Placement(1, 1), Placement(2, 0)),
        labels=(),
    )
    completions = (
        SampledCompletion(said, {"format": 1.0, "selection": 0.25}, 0.375, 1.5),
        SampledCompletion("other", {}, None, 0.0),
    )
    return SampledGroup("inserter", episode, completions)


@pytest.fixture
def samples() -> Samples:
    return Samples(7, [group()])


@pytest.fixture
def hostile() -> Samples:
    return Samples(7, [group(ATTACK, ATTACK)])


@pytest.fixture
def attack() -> str:
    return ATTACK
