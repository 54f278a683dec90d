"""A folder of a random model of dimensions that no size has, as transformers 5 saves one."""

import json
from pathlib import Path

from flax import nnx

from m2io_jax.models.huggingface import FAMILIES, write_config
from m2io_jax.models.image_processor import PROCESSOR_CLASSES
from m2io_jax.models.inserter import Inserter
from m2io_jax.models.policy import BASE
from m2io_jax.models.sizes import TINY_TOKENS, ModelConfig, TextConfig, VisionConfig
from m2io_jax.models.tokenizer import load_tokenizer
from m2io_jax.models.weights import save_weights

IDS = dict(image_token_id=5, video_token_id=6, vision_start_token_id=3, vision_end_token_id=4)


def odd_model(family: str) -> ModelConfig:
    """Dimensions that no size has; windows of 84 pixels, three merge units a side."""
    widths = dict(depth=3, hidden_size=24, num_heads=3, out_hidden_size=40)
    if family == "qwen2_vl":
        kinds = dict(norm="layer", mlp="quick_gelu")
        vision = VisionConfig(intermediate_size=72, fullatt_block_indexes=(0, 1, 2), **widths, **kinds)
    else:
        vision = VisionConfig(intermediate_size=28, fullatt_block_indexes=(2,), window_size=84, **widths)
    text = TextConfig(
        vocab_size=1031,
        hidden_size=40,
        intermediate_size=52,
        num_hidden_layers=3,
        num_attention_heads=5,
        num_key_value_heads=1,
        head_dim=8,
        mrope_section=(1, 1, 2),
        rms_norm_eps=1e-5,
        rope_theta=5e4,
        max_position_embeddings=2048,
    )
    return ModelConfig(vision, text, TINY_TOKENS)


def nested_config(model: ModelConfig, **outer) -> dict:
    """config.json in the form of transformers 5: the language model's settings in a section, and no flat ones."""
    flat = write_config(model, "float32")
    family, rope = flat["model_type"], flat.pop("rope_scaling")
    vision = flat.pop("vision_config") | {"model_type": f"{family}_vision", "initializer_range": 0.02}
    for key in ("in_chans", "spatial_patch_size"):
        vision.pop(key)
    vision["rope_parameters"] = {"rope_type": "axial", "rope_theta": 10000.0}
    section = {key: value for key, value in flat.items() if key not in ("architectures", "model_type", *IDS)}
    parameters = {"rope_theta": section.pop("rope_theta"), "rope_type": "default"}
    parameters["mrope_section"] = rope["mrope_section"]
    layers = ["full_attention"] * model.text.num_hidden_layers
    text = section | {"model_type": f"{family}_text", "rope_parameters": parameters, "layer_types": layers}
    text |= {"dtype": text.pop("torch_dtype"), "attention_dropout": 0.0, "sliding_window": None, "use_cache": True}
    common = {"architectures": [FAMILIES[family]], "model_type": family, "dtype": "float32", **IDS}
    tied = {"tie_word_embeddings": model.text.tie_word_embeddings, "transformers_version": "5.23.0"}
    return common | tied | {"text_config": text, "vision_config": vision} | outer


def processor(model: ModelConfig, least: int = 3136, most: int = 12_845_056, **more) -> dict:
    """The settings of the image processor, as the section of processor_config.json holds them."""
    return {
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_processor_type": "Qwen2VLImageProcessor",
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "merge_size": model.vision.spatial_merge_size,
        "patch_size": model.vision.patch_size,
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"longest_edge": most, "shortest_edge": least},
        "temporal_patch_size": model.vision.temporal_patch_size,
    } | more


def write_odd_folder(folder: Path, family: str = "qwen2_5_vl", *, settings: dict | None = None, **outer) -> ModelConfig:
    """Write the folder; `settings` are laid over the image processor's, `outer` over config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    model = odd_model(family)
    params = nnx.split(Inserter(model, rngs=nnx.Rngs(0)))[1]
    save_weights(folder, params, model, dtype="float32")
    (folder / "config.json").write_text(json.dumps(nested_config(model, **outer)))
    load_tokenizer(BASE).save_pretrained(folder)
    section, kind = processor(model) | (settings or {}), PROCESSOR_CLASSES[model.vision.mlp]
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": section, "processor_class": kind}))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 0], "pad_token_id": 0}))
    return model
