"""config.json: each setting is read, refused with its cause, harmless, or told; what is written says the same."""

import json
import math

import numpy as np
import pytest
from odd_folder import nested_config, odd_model, write_odd_folder
from published import PUBLISHED, nested

from m2io_jax.errors import UserError
from m2io_jax.models.huggingface import FAMILIES, mlp_ratio, read_config, unknown_settings, write_config
from m2io_jax.models.policy import load_policy
from m2io_jax.models.sizes import SIZES, ModelConfig, VisionConfig


def written(folder, raw) -> object:
    (folder / "config.json").write_text(json.dumps(raw))
    return folder


def changed(raw: dict, dotted: str, value) -> dict:
    """The same with one setting laid over: `vision_config.depth`, or `text.x` for where the language model's stand."""
    section, _, key = dotted.rpartition(".")
    if section == "text":
        section = "text_config" if "text_config" in raw else ""
    return raw | ({section: raw[section] | {key: value}} if section else {key: value})


@pytest.mark.parametrize("family", FAMILIES)
def test_what_transformers_itself_writes_is_read(family, tmp_path):
    import transformers

    model = odd_model(family)
    (tmp_path / "config.json").write_text(json.dumps(nested_config(model)))
    transformers.AutoConfig.from_pretrained(tmp_path).save_pretrained(tmp_path / "saved")
    assert read_config(tmp_path / "saved") == read_config(tmp_path) == model
    assert not unknown_settings(tmp_path / "saved") and not unknown_settings(tmp_path)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "setting, value, says",
    [
        ("text.use_sliding_window", True, "use_sliding_window"),
        ("text.layer_types", ["full_attention", "sliding_attention"], "sliding_attention.*layer_types"),
        ("text.attention_dropout", 0.1, "0.1 is not implemented: only 0.*attention_dropout"),
        ("text.hidden_act", "gelu", "hidden_act"),
        ("text.head_dim", 16, "16 is not implemented: only 8.*head_dim"),
        ("text.partial_rotary_factor", 0.5, "partial_rotary_factor"),
        ("text.rope_scaling", {"type": "yarn", "factor": 4.0, "mrope_section": [1, 1, 2]}, "yarn is not implemented"),
        ("text.rope_scaling", {"rope_type": "dynamic", "mrope_section": [1, 1, 2]}, "dynamic is not implemented"),
        ("text.rope_scaling", {"type": "linear", "mrope_section": [1, 1, 2]}, "linear is not implemented"),
        ("text.rope_scaling", {"type": "mrope", "mrope_section": [2, 2, 2]}, "must add up to half of head_dim"),
        ("text.rope_scaling", {"type": "mrope", "mrope_section": [2, 2]}, "mrope_section is .* three whole numbers"),
        ("text.rope_scaling", {"full_attention": {"rope_theta": 1.0}}, "differ by layer"),
        ("text.rms_norm_eps", "small", "rms_norm_eps is 'small' but"),
        ("text.rms_norm_eps", math.nan, "rms_norm_eps is nan but"),
        ("text.vocab_size", 2**40, "may be"),
        ("text.num_hidden_layers", 10**8, "may be 1024 at most"),
        ("text.pad_token_id", 5000, "5000 is no token of a vocabulary of 1031.*pad_token_id"),
        ("text.eos_token_id", [2, -1], "-1 is no token.*eos_token_id"),
        ("text.num_attention_heads", 7, "head_dim x num_attention_heads|mrope_section"),
        ("image_token_id", 151655, "151655 is no token.*image_token_id"),
        ("vision_config.hidden_act", "gelu", "vision_config.hidden_act"),
        ("vision_config.in_channels", 1, "vision_config.in_channels"),
        ("vision_config.head_dim", 16, "vision_config.head_dim"),
        ("vision_config.rope_parameters", {"rope_type": "yarn"}, "yarn is not implemented"),
        ("vision_config.patch_size", [14, 14], "patch_size is"),
        ("quantization_config", {"quant_method": "bitsandbytes", "load_in_4bit": True}, "quantised, by bitsandbytes"),
        ("quantization_config", {"quant_method": "awq", "bits": 4}, "quantised, by awq"),
        ("quantization_config", {"quant_method": "gptq"}, "quantised, by gptq"),
        ("quantization_config", {"quant_method": "fp8"}, "quantised, by fp8"),
        ("quantization", {"group_size": 64, "bits": 4}, "quantised, by MLX"),
        ("text.quantization_config", {"quant_method": "compressed-tensors"}, "quantised, by compressed-tensors"),
        ("dtype", "float8_e4m3fn", "float8_e4m3fn is not implemented"),
        ("torch_dtype", "float64", "float64 is not implemented"),
        ("architectures", ["Qwen2_5_VLForSequenceClassification"], "Qwen2_5_VLForConditionalGeneration is implemented|"
         "Qwen2VLForConditionalGeneration is implemented"),
        ("tie_word_embeddings", "yes", "tie_word_embeddings"),
    ],
)  # fmt: skip
def test_what_is_computed_in_another_way_is_refused(family, setting, value, says, tmp_path):
    model = odd_model(family)
    forms = (nested_config(model), write_config(model, "float32"))
    for number, raw in enumerate(forms):
        if setting == "text.rope_scaling" and "text_config" in raw:  # as this form calls it
            raw = changed(raw, "text.rope_parameters", value)
        folder = tmp_path / str(number)
        folder.mkdir()
        with pytest.raises(UserError, match=f"(?s){says}") as caught:
            read_config(written(folder, changed(raw, setting, value)))
        assert "config.json" in str(caught.value)


@pytest.mark.parametrize(
    "window, says", [(27, "window_size is 27 but must be a merged patch at least, 28"), (0, "window_size is 0 but")]
)
def test_a_window_smaller_than_a_merged_patch_is_refused(window, says, tmp_path):
    raw = changed(nested_config(odd_model("qwen2_5_vl")), "vision_config.window_size", window)
    with pytest.raises(UserError, match=says):
        read_config(written(tmp_path, raw))


@pytest.mark.parametrize("form", [dict, nested])
def test_harmless_settings_are_passed_over_and_unknown_ones_told(form, tmp_path, capsys):
    for size in PUBLISHED:
        assert not unknown_settings(written(tmp_path, form(PUBLISHED[size])))
    more = {"unsloth_fixed": True, "transformers_version": "4.49.0", "max_window_layers": 3, "logit_scale": 3.0}
    raw = changed(form(PUBLISHED["3b"]) | more, "vision_config.deepstack", [1])
    assert unknown_settings(written(tmp_path, raw)) == ["logit_scale", "vision_config.deepstack"]
    write_odd_folder(tmp_path / "odd", logit_scale=3.0)
    load_policy(str(tmp_path / "odd"), size=None)
    assert "not known here and not read: logit_scale" in capsys.readouterr().err


@pytest.mark.parametrize(
    "setting, value, found",
    [
        ("text.rms_norm_eps", 1e-3, lambda model: model.text.rms_norm_eps),
        ("text.num_key_value_heads", 5, lambda model: model.text.num_key_value_heads),
        ("vision_config.tokens_per_second", 25, lambda model: model.vision.tokens_per_second),
        ("vision_config.window_size", 126, lambda model: model.vision.window_size),
    ],
)
def test_settings_are_read_and_written(setting, value, found, tmp_path):
    model = read_config(written(tmp_path, changed(nested_config(odd_model("qwen2_5_vl")), setting, value)))
    assert found(model) == value
    assert read_config(written(tmp_path, write_config(model, "float32"))) == model


@pytest.mark.parametrize("family", FAMILIES)
def test_the_vision_towers_rotation_is_read_and_written(family, tmp_path):
    model = odd_model(family)
    assert "rope_parameters" not in write_config(model, "float32")["vision_config"]
    for given in ({"rope_parameters": {"rope_type": "axial", "rope_theta": 500.0}}, {"rope_theta": 500.0}):
        raw = write_config(model, "float32")
        read = read_config(written(tmp_path, raw | {"vision_config": raw["vision_config"] | given}))
        assert read.vision.rope_theta == 500.0
        assert read_config(written(tmp_path, write_config(read, "float32"))) == read


def test_keys_that_are_null_or_left_out_are_as_in_transformers(tmp_path):
    raw = write_config(odd_model("qwen2_5_vl"), "float32")
    assert read_config(written(tmp_path, raw | {"num_key_value_heads": None})).text.num_key_value_heads == 5
    without = {key: value for key, value in raw.items() if key != "rope_theta"}
    assert read_config(written(tmp_path, without)).text.rope_theta == 1e6


@pytest.mark.parametrize("outer, inner", [(True, False), (False, True), (True, True), (False, False)])
def test_embeddings_are_tied_where_either_place_says_so(outer, inner, tmp_path):
    raw = changed(nested_config(odd_model("qwen2_5_vl")), "text.tie_word_embeddings", inner)
    model = read_config(written(tmp_path, raw | {"tie_word_embeddings": outer}))
    assert model.text.tie_word_embeddings == (outer or inner)


def qwen2_vision(width: int, hidden: int) -> VisionConfig:
    full = dict(fullatt_block_indexes=(0,), norm="layer", mlp="quick_gelu")
    return VisionConfig(1, width, 2, hidden, SIZES["tiny"].text.hidden_size, **full)


@pytest.mark.parametrize("ratio", [2.5, 3, 3.7, 0.3, 1.1])
def test_a_ratio_that_is_not_whole_is_kept(ratio, tmp_path):
    raw = write_config(odd_model("qwen2_vl"), "float32")
    model = read_config(written(tmp_path, changed(raw, "vision_config.mlp_ratio", ratio)))
    assert model.vision.intermediate_size == int(24 * ratio)
    assert read_config(written(tmp_path, write_config(model, "float32"))) == model


def test_every_hidden_size_has_a_ratio_that_comes_back():
    for width, hidden in np.random.default_rng(0).integers(4, 5000, (2000, 2)).tolist():
        assert int(width * mlp_ratio(qwen2_vision(width, hidden))) == hidden
    assert type(mlp_ratio(qwen2_vision(32, 64))) is int


@pytest.mark.parametrize(
    "raw, says",
    [
        ({"model_type": "qwen2"}, "'qwen2', a model of text alone"),
        ({"model_type": "llama", "hidden_size": 8}, "'llama', a model of text alone"),
        ({"model_type": "qwen3_vl", "vision_config": {}}, "model_type is 'qwen3_vl'"),
        ({"model_type": "qwen2_5_vl_text", "hidden_size": 8}, "a model of text alone"),
        ({"model_type": "qwen2_5_omni", "thinker_config": {}}, "model_type is 'qwen2_5_omni'.\n"),
        ({"model_type": "phi3_v", "img_processor": {}}, "model_type is 'phi3_v'.\n"),
        ({"model_type": "qwen2_audio", "audio_config": {}}, "model_type is 'qwen2_audio'.\n"),
        ({"model_type": ["x"]}, "not the configuration"),
        ({}, "model_type is None"),
    ],
)
def test_another_family_is_named_with_those_that_are_read(raw, says, tmp_path):
    with pytest.raises(UserError, match=says) as caught:
        read_config(written(tmp_path, raw))
    assert "qwen2_5_vl, qwen2_vl" in str(caught.value) or says == "not the configuration"


def test_shapes_alone_make_a_size():
    import dataclasses

    tiny = SIZES["tiny"]
    other = dataclasses.replace(tiny, text=dataclasses.replace(tiny.text, rope_theta=3.0, rms_norm_eps=1e-3))
    assert tiny.same_shapes(other)
    wider = dataclasses.replace(tiny, vision=dataclasses.replace(tiny.vision, intermediate_size=300))
    assert wider.shape_differences(tiny) == ["vision.intermediate_size 300, not 256"]
    assert isinstance(wider, ModelConfig) and not wider.same_shapes(tiny)


CONFIG_CLASSES = {"qwen2_5_vl": "Qwen2_5_VLConfig", "qwen2_vl": "Qwen2VLConfig"}


@pytest.mark.parametrize("size", PUBLISHED)
@pytest.mark.parametrize("form", [dict, nested])
def test_what_transformers_left_out_as_a_default_is_filled_in(size, form, tmp_path):
    import transformers

    raw = form(PUBLISHED[size])
    expected = read_config(written(tmp_path, raw))
    default = getattr(transformers, CONFIG_CLASSES[raw["model_type"]])().to_dict()
    kept = {key: value for key, value in raw["vision_config"].items() if default["vision_config"].get(key) != value}
    assert len(kept) < len(raw["vision_config"])
    short = raw | {"vision_config": kept}
    if "text_config" in raw:
        given, usual = raw["text_config"], default["text_config"]
        short["text_config"] = {key: value for key, value in given.items() if usual.get(key) != value}
        short = {key: value for key, value in short.items() if key == "model_type" or key not in given}
    found = read_config(written(tmp_path, short))
    assert (found.text, found.vision) == (expected.text, expected.vision)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "dotted",
    [f"text_config.{key}" for key in ("rms_norm_eps", "rope_parameters", "max_position_embeddings")]
    + [
        f"vision_config.{key}" for key in ("temporal_patch_size", "spatial_merge_size", "patch_size", "rope_parameters")
    ],
)
def test_a_setting_that_is_missing_is_what_transformers_takes(family, dotted, tmp_path):
    import transformers

    section, _, key = dotted.partition(".")
    model = odd_model(family)
    raw = nested_config(model)
    raw["text_config"]["rope_parameters"] |= {"mrope_section": [1, 1, 2]}
    raw[section] = {name: value for name, value in raw[section].items() if name != key}
    if key == "rope_parameters" and section == "text_config":  # keeps the section, which must fit the heads
        raw[section][key] = {"mrope_section": [1, 1, 2], "rope_type": "default"}
    found = read_config(written(tmp_path, raw))
    theirs = transformers.AutoConfig.from_pretrained(tmp_path)
    text, vision = theirs.text_config, theirs.vision_config
    assert (found.text.rms_norm_eps, found.text.max_position_embeddings, found.text.rope_theta) == (
        text.rms_norm_eps, text.max_position_embeddings, text.rope_parameters["rope_theta"],
    )  # fmt: skip
    for name in ("patch_size", "temporal_patch_size", "spatial_merge_size"):
        assert getattr(found.vision, name) == getattr(vision, name)
    assert found.vision.rope_theta == vision.rope_parameters["rope_theta"]


@pytest.mark.parametrize("outer", [{"rope_theta": 7.0, "rms_norm_eps": 0.5}, {"rope_scaling": {"rope_theta": 7.0}}])
def test_what_stands_outside_of_a_whole_text_config_does_not_count(outer, tmp_path):
    model = odd_model("qwen2_5_vl")
    assert read_config(written(tmp_path, nested_config(model) | outer)) == model


@pytest.mark.parametrize(
    "change, says",
    [
        ({"vision_config": None}, "vision_config is missing"),
        ({"text_config": None}, "hidden_size is missing"),
        ({"text_config": {}}, "hidden_size is missing"),
        ({"vision_config": []}, "not the configuration of a model"),
        ({"vision_config.num_heads": 5}, "hidden_size must be a multiple of its num_heads"),
        ({"vision_config.num_attention_heads": 4}, "4 is not implemented: only 3"),
        ({"vision_config.num_hidden_layers": 4}, "4 is not implemented: only 3"),
        ({"text.max_position_embeddings": "many"}, "max_position_embeddings is 'many'"),
        ({"text.initializer_range": -1}, "initializer_range is -1"),
    ],
)
def test_sections_that_are_absent_or_contradict_themselves_are_refused(change, says, tmp_path):
    raw = nested_config(odd_model("qwen2_5_vl"))
    for dotted, value in change.items():
        raw = changed(raw, dotted, value)
    with pytest.raises(UserError, match=says):
        read_config(written(tmp_path, raw))
