"""config.json and what stands beside the weights: read, written, refused."""

import json
from pathlib import Path

import pytest

from m2io_jax.errors import UserError
from m2io_jax.models.huggingface import read_config, write_config
from m2io_jax.models.sizes import SIZES


@pytest.mark.parametrize("size", SIZES)
def test_the_published_sizes_are_read_as_they_are_written(size, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(write_config(SIZES[size], "bfloat16")))
    assert read_config(tmp_path) == SIZES[size]


@pytest.mark.parametrize(
    "change, says",
    [
        ({"model_type": "llava"}, "model_type is 'llava'"),
        ({"use_sliding_window": True}, "Sliding-window"),
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
