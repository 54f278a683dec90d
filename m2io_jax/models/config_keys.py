"""The keys of a config.json: those that are read or required, those without effect, and transformers' defaults."""

# What transformers takes where config.json says nothing: version 4 left out of a section what is the default.
TEXT_DEFAULTS = dict(
    vocab_size=152_064,
    hidden_size=8192,
    intermediate_size=29_568,
    num_hidden_layers=80,
    num_attention_heads=64,
    num_key_value_heads=8,
    rms_norm_eps=1e-5,
    rope_theta=1e6,
    max_position_embeddings=32_768,
    initializer_range=0.02,
)
MROPE_SECTION = (16, 24, 24)
_PATCHES = dict(depth=32, num_heads=16, patch_size=14, temporal_patch_size=2, spatial_merge_size=2, hidden_size=3584)
VISION_DEFAULTS = {
    "qwen2_vl": dict(_PATCHES, embed_dim=1280, mlp_ratio=4),
    "qwen2_5_vl": dict(
        _PATCHES,
        intermediate_size=3420,
        out_hidden_size=3584,
        fullatt_block_indexes=[7, 15, 23, 31],
        window_size=112,
        tokens_per_second=4,
    ),
}

# Read, or refused unless it has the one value that is computed.
READ = """
    vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads rms_norm_eps
    rope_theta rope_scaling rope_parameters tie_word_embeddings max_position_embeddings initializer_range
    bos_token_id eos_token_id pad_token_id image_token_id video_token_id vision_start_token_id vision_end_token_id
    text_config vision_config model_type architectures dtype torch_dtype
    hidden_act use_sliding_window layer_types attention_dropout head_dim partial_rotary_factor quantization_config
    compression_config quantization
    depth num_heads embed_dim mlp_ratio patch_size temporal_patch_size spatial_merge_size in_channels in_chans
    out_hidden_size fullatt_block_indexes window_size tokens_per_second
"""
# Read by transformers and without effect on what is computed here, or by nothing at all.
HARMLESS = """
    transformers_version use_cache sliding_window max_window_layers spatial_patch_size vision_token_id auto_map
    _name_or_path name_or_path model_name attn_implementation _attn_implementation _attn_implementation_autoset
    return_dict output_hidden_states output_attentions torchscript use_bfloat16 tf_legacy_loss is_encoder_decoder
    is_decoder add_cross_attention cross_attention_hidden_size tie_encoder_decoder chunk_size_feed_forward pruned_heads
    id2label label2id num_labels problem_type finetuning_task task_specific_params tokenizer_class prefix
    sep_token_id cls_token_id decoder_start_token_id forced_bos_token_id forced_eos_token_id
    max_length min_length do_sample early_stopping num_beams num_beam_groups diversity_penalty temperature top_k top_p
    typical_p repetition_penalty length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids
    num_return_sequences output_scores return_dict_in_generate remove_invalid_values exponential_decay_length_penalty
    suppress_tokens begin_suppress_tokens ignore_index unsloth_version unsloth_fixed transformers.js_config
"""
KNOWN = frozenset((READ + HARMLESS).split())
