"""Arithmetic of a pass: floating-point operations of its matrix products, what MFU is counted in (arXiv 2204.02311, B).

Padding counts, for it is computed; what is computed again (`remat`) and what is masked does not.
"""

from flax import nnx

from m2io_jax.models.sizes import ModelConfig
from m2io_jax.models.weights import declared


def group_flops(config: ModelConfig, *, rows: int, prompt: int, group: int, completion: int) -> tuple[float, float]:
    """The language model's forward pass over `rows` groups [prompt | c1 | ... | cG], logits of the completions too.

    Returns:
        Of products with weights, and of attention.
    """
    text = config.text
    tokens = rows * (prompt + group * completion)
    pairs = rows * (prompt * prompt / 2 + group * completion * (prompt + completion / 2))
    attention = 4 * pairs * text.num_attention_heads * text.head_dim * text.num_hidden_layers
    logits = 2 * rows * group * completion * text.hidden_size * text.vocab_size
    return 2 * tokens * _products(config, "language", "blocks") + logits, attention


def picture_flops(config: ModelConfig, *, pictures: int, patches: int) -> tuple[float, float]:
    """The vision tower's forward pass over `pictures` of `patches` patches each; as `group_flops`."""
    vision = config.vision
    window = vision.window_side**2
    full = len(vision.fullatt_block_indexes)
    pairs = patches * (full * patches + (vision.depth - full) * min(window, patches))
    attention = 4 * pairs * vision.hidden_size
    through = _products(config, "vision", "blocks") + _products(config, "vision", "patch_embed")
    merged = _products(config, "vision", "merger") / vision.merge_unit
    return pictures * 2 * patches * (through + merged), pictures * attention


def _products(config: ModelConfig, tower: str, part: str) -> float:
    """Numbers in the kernels of a part: the multiplications that one token costs there."""
    flat = nnx.to_flat_state(declared(config))
    chosen = [leaf for path, leaf in flat if path[:2] == (tower, part) and path[-1] == "kernel"]
    return float(sum(leaf.get_value().size for leaf in chosen))
