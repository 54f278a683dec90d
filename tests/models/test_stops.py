"""Stop tokens: those of generation_config.json or config.json, with <|im_end|> and <|endoftext|>; never a pad."""

import dataclasses
import json
import shutil
from functools import partial

import jax
import numpy as np
import pytest
from flax import nnx
from small_model import SMALL, mixed_rows, small_params

from m2io_jax.episodes.batching import stack_prompts
from m2io_jax.errors import UserError
from m2io_jax.models.conversion import export_folder, import_folder
from m2io_jax.models.policy import BASE, load_policy, structure_of
from m2io_jax.models.sizes import SIZES, SpecialTokens
from m2io_jax.models.tokenizer import TextCodec, load_tokenizer
from m2io_jax.sampling.sampler import SamplingConfig, sample

END_OF_TEXT, IM_END = 0, 2
STOPS = (2, 0, *range(20, 40))  # of the small model: many, so that completions end early


def folder_with(path, *, config=None, generation=None):
    """The base's folder with these ids; None for a file that names none."""
    shutil.copytree(BASE, path)
    raw = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(raw | (config or {})))
    (path / "generation_config.json").unlink()
    if generation is not None:
        (path / "generation_config.json").write_text(json.dumps(generation))
    return path


@pytest.mark.parametrize(
    "config, generation, stops",
    [
        ({}, None, (2, 0)),
        ({"pad_token_id": 4}, None, (2, 0)),  # one of the marks of images, as a well-known publisher's folders pad
        ({"pad_token_id": 4, "bos_token_id": None}, {"eos_token_id": [2, 0], "pad_token_id": 4}, (2, 0)),
        ({"pad_token_id": 77}, {"eos_token_id": 2, "pad_token_id": 77}, (2, 0)),
        ({"eos_token_id": 0}, {"eos_token_id": 0}, (2, 0)),  # a base model's
        ({"eos_token_id": [0, 2]}, None, (2, 0)),
        ({"eos_token_id": 2}, {"eos_token_id": [2, 9, 300]}, (2, 9, 300, 0)),
        ({"eos_token_id": [9, 2]}, {"temperature": 0.1}, (2, 9, 0)),
        ({"eos_token_id": [9, 2]}, {"eos_token_id": []}, (2, 9, 0)),
        ({"eos_token_id": None}, {"eos_token_id": 11}, (2, 11, 0)),
        ({"bos_token_id": 1, "eos_token_id": [9, 2]}, None, (2, 9, 0)),
        ({"eos_token_id": 2, "text_config": {"eos_token_id": 12}}, None, (2, 12, 0)),
    ],
)
def test_where_stop_tokens_are_read(config, generation, stops, tmp_path):
    source = folder_with(tmp_path / "source", config=config, generation=generation)
    policy = load_policy(str(source), size="tiny")
    special = policy.config.special
    assert special.stops == stops and special.eos == IM_END and special.bos == END_OF_TEXT
    assert special.pad == config.get("pad_token_id", 0)
    # What is decoded, saved, imported and exported stops at the same tokens.
    for stop in stops:
        assert policy.codec.decode([*policy.codec.encode("a stew"), stop]) == "a stew"
    policy.save(tmp_path / "saved")
    import_folder(source, tmp_path / "in")
    for made in (tmp_path / "saved", tmp_path / "in", export_folder(tmp_path / "in", tmp_path / "out")):
        assert load_policy(str(made)).config.special == special, made
    for made in (tmp_path / "saved", tmp_path / "out"):
        named = json.loads((made / "generation_config.json").read_text())["eos_token_id"]
        assert set(named if isinstance(named, list) else [named]) == set(stops)


def test_a_pad_token_is_text_like_any_other():
    codec = TextCodec(load_tokenizer(BASE), stops=(2, 0))
    assert codec.decode([*codec.encode("stew"), 4]).endswith("<|vision_end|>")


def test_a_generation_config_that_names_them_all_is_kept_byte_by_byte(tmp_path):
    source = folder_with(tmp_path / "source", generation={"eos_token_id": [0, 2], "temperature": 0.01})
    load_policy(str(source)).save(tmp_path / "saved")
    kept = (source / "generation_config.json").read_bytes()
    assert (tmp_path / "saved" / "generation_config.json").read_bytes() == kept
    source = folder_with(tmp_path / "other", generation={"eos_token_id": 0, "temperature": 0.01})
    written = json.loads((export_folder(source, tmp_path / "out") / "generation_config.json").read_text())
    assert written["temperature"] == 0.01 and written["eos_token_id"] == [2, 0]


@pytest.mark.parametrize("value", [5000, -1, "2", True, [2, 2.0], [None]])
def test_what_is_no_token_is_refused(value, tmp_path):
    source = folder_with(tmp_path / "source", generation={"eos_token_id": value})
    with pytest.raises(UserError, match="(?s)no token of a vocabulary of 1024.*generation_config.json: eos_token_id"):
        load_policy(str(source))


def test_without_a_folder_the_stops_are_eos_and_bos():
    assert SpecialTokens().stops == (151645, 151643) == SIZES["3b"].special.stops
    assert dataclasses.replace(SpecialTokens(), pad=7).stops == (151645, 151643)
    assert SIZES["tiny"].special.stops == (2, 0)


def test_the_pad_token_changes_nothing_of_what_is_sampled_or_scored():
    """Also where it is a mark of images, which is never given a probability."""
    config = SamplingConfig(temperatures=(1.0, 0.0), max_length=6)

    @partial(jax.jit, static_argnums=0)
    def both(structure, params, prompts):
        model = nnx.merge(structure, params)
        rollouts = sample(model, prompts, config, key=jax.random.key(1))
        return rollouts.completions, *model.completion_log_probs(prompts, rollouts.completions, 1.0)

    found = []
    for pad in (SMALL.special.pad, SMALL.special.vision_end):
        model = dataclasses.replace(SMALL, special=dataclasses.replace(SMALL.special, pad=pad, stops=STOPS))
        rows = [dataclasses.replace(row, tokens=np.where(row.mask, row.tokens, pad)) for row in mixed_rows()]

        completions, scored, entropies = jax.device_get(both(structure_of(model), small_params(), stack_prompts(rows)))
        mask = completions.mask
        found.append((mask, completions.tokens[mask], scored[mask], entropies[mask]))
        assert (completions.tokens[~mask] == pad).all() and not mask.all()
    jax.tree.map(np.testing.assert_array_equal, *found)
