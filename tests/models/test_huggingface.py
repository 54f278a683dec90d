"""config.json and what stands beside the weights: read, written, refused."""

import json
from pathlib import Path

import pytest
from published import PUBLISHED, nested

from m2io_jax.errors import UserError
from m2io_jax.models.huggingface import read_config, write_config
from m2io_jax.models.sizes import SIZES


@pytest.mark.parametrize("form", [dict, nested])
@pytest.mark.parametrize("size", PUBLISHED)
def test_our_sizes_are_those_that_were_published(size, form, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(form(PUBLISHED[size])))
    assert read_config(tmp_path) == SIZES[size]


def test_every_size_is_published_but_the_one_that_ships_and_what_grows_from_it():
    assert set(SIZES) == {"tiny", "deep", *PUBLISHED}


@pytest.mark.parametrize("size", SIZES)
def test_sizes_are_read_as_they_are_written(size, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(write_config(SIZES[size], "bfloat16")))
    assert read_config(tmp_path) == SIZES[size]


def test_a_section_that_is_empty_or_null_leaves_what_stands_outside(tmp_path):
    for section in (None, {}, {"image_token_id": None, "vocab_size": SIZES["tiny"].text.vocab_size}):
        raw = write_config(SIZES["tiny"], "bfloat16") | {"text_config": section}
        (tmp_path / "config.json").write_text(json.dumps(raw))
        assert read_config(tmp_path) == SIZES["tiny"]


@pytest.mark.parametrize(
    "change, says",
    [
        ({"model_type": "llava"}, "model_type is 'llava'"),
        ({"use_sliding_window": True}, "True is not implemented(.|\\n)*use_sliding_window"),
        ({"rope_scaling": {"type": "yarn", "mrope_section": [16, 24, 24]}}, "yarn(.|\\n)*rope_scaling.type"),
        ({"hidden_act": "gelu"}, "gelu is not implemented"),
        ({"hidden_size": "wide"}, "not the configuration of a model"),
        ({"text_config": "none"}, "not the configuration of a model"),
        ({"hidden_size": None}, "hidden_size is missing"),
    ],
)
def test_a_config_that_is_not_ours_is_refused(change, says, tmp_path):
    raw = write_config(SIZES["3b"], "bfloat16") | change
    raw = {key: value for key, value in raw.items() if value is not None}
    (tmp_path / "config.json").write_text(json.dumps(raw))
    with pytest.raises(UserError, match=says) as caught:
        read_config(tmp_path)
    assert str(Path(tmp_path) / "config.json") in str(caught.value)
