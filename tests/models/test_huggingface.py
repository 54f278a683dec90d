"""config.json and what stands beside the weights: read, written, refused."""

import json
import shutil
from pathlib import Path

import pytest
from published import PUBLISHED, nested

from m2io_jax.errors import UserError
from m2io_jax.models.huggingface import read_config, write_config
from m2io_jax.models.policy import BASE
from m2io_jax.models.sizes import SIZES
from m2io_jax.models.tokenizer import load_tokenizer


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
        ({"num_attention_heads": 0}, "num_attention_heads is 0 but must be"),
        ({"num_key_value_heads": 0}, "num_key_value_heads is 0 but must be"),
        ({"num_hidden_layers": 6.0}, "num_hidden_layers is 6.0 but must be"),
        ({"vision_config": {**write_config(SIZES["3b"], "bfloat16")["vision_config"], "patch_size": 0}},
         "patch_size is 0 but must be"),
    ],
)
def test_a_config_that_is_not_ours_is_refused(change, says, tmp_path):
    raw = write_config(SIZES["3b"], "bfloat16") | change
    raw = {key: value for key, value in raw.items() if value is not None}
    (tmp_path / "config.json").write_text(json.dumps(raw))
    with pytest.raises(UserError, match=says) as caught:
        read_config(tmp_path)
    assert str(Path(tmp_path) / "config.json") in str(caught.value)


def test_a_stop_token_that_is_an_empty_list_is_as_if_it_were_not_there(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(write_config(SIZES["3b"], "bfloat16") | {"eos_token_id": []}))
    assert read_config(tmp_path) == SIZES["3b"]


@pytest.mark.parametrize("name, text", [("tokenizer.json", '{"added'), ("tokenizer.json", "{}"),
                                        ("tokenizer_config.json", "version https://git-lfs.github.com/spec/v1")])
def test_a_tokenizer_that_is_cut_short_is_told(name, text, tmp_path):
    shutil.copytree(BASE, tmp_path / "base")
    (tmp_path / "base" / name).write_text(text)
    with pytest.raises(UserError, match="(?s)tokenizer cannot be read.*base.*whole"):
        load_tokenizer(tmp_path / "base")
