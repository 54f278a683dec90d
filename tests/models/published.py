"""What the published config.json files say, size by size, as they were first published: every section that we read."""

SHARED = {
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
    "vision_token_id": 151654,
    "image_token_id": 151655,
    "video_token_id": 151656,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "use_sliding_window": False,
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
}
PATCHES = {
    "depth": 32,
    "num_heads": 16,
    "in_chans": 3,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "spatial_patch_size": 14,
    "temporal_patch_size": 2,
}


def _text(vocab: int, hidden: int, intermediate: int, layers: int, heads: int, kv_heads: int) -> dict:
    return {
        "vocab_size": vocab,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
    }


def _qwen2_5(text: dict, intermediate: int, tied: bool) -> dict:
    vision = {
        "hidden_size": 1280,
        "hidden_act": "silu",
        "intermediate_size": intermediate,
        "out_hidden_size": text["hidden_size"],
        "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31],
        "tokens_per_second": 2,
    }
    return SHARED | text | {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        "max_position_embeddings": 128000,
        "tie_word_embeddings": tied,
        "vision_config": PATCHES | vision,
    }


def _qwen2(text: dict, tied: bool) -> dict:
    return SHARED | text | {
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "model_type": "qwen2_vl",
        "max_position_embeddings": 32768,
        "tie_word_embeddings": tied,
        "vision_config": PATCHES | {"embed_dim": 1280, "mlp_ratio": 4, "hidden_size": text["hidden_size"]},
    }


def nested(flat: dict) -> dict:
    """The same as version 4.53 of transformers writes it: the language model's settings in a section of their own."""
    moved = {key: flat[key] for key in flat if key not in ("architectures", "model_type", "vision_config")}
    section = moved | {
        "model_type": flat["model_type"] + "_text",
        "image_token_id": None,
        "video_token_id": None,
        "layer_types": ["full_attention"] * flat["num_hidden_layers"],
        "rope_scaling": {"type": "default", "rope_type": "default", "mrope_section": [16, 24, 24]},
        "sliding_window": None,
        "torch_dtype": "float32",
    }
    vision = flat["vision_config"] | {"in_channels": 3, "model_type": flat["model_type"], "torch_dtype": "float32"}
    return flat | {"text_config": section, "vision_config": vision}


PUBLISHED = {
    "3b": _qwen2_5(_text(151936, 2048, 11008, 36, 16, 2), 3420, True),
    "7b": _qwen2_5(_text(152064, 3584, 18944, 28, 28, 4), 3420, False),
    "32b": _qwen2_5(_text(152064, 5120, 27648, 64, 40, 8), 3456, False),
    "72b": _qwen2_5(_text(152064, 8192, 29568, 80, 64, 8), 3456, False),
    "qwen2-2b": _qwen2(_text(151936, 1536, 8960, 28, 12, 2), True),
    "qwen2-7b": _qwen2(_text(152064, 3584, 18944, 28, 28, 4), False),
    "qwen2-72b": _qwen2(_text(152064, 8192, 29568, 80, 64, 8), False),
}
