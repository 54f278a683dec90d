"""Attention by backend: the same two functions of the language model, by what a device is fast at.

    blocks   block by block in plain JAX (models/attention.py); every device
    splash   TPU's kernel with the tree as its mask (models/splash.py)
    cudnn    the prompt's part by cuDNN's kernel, completions as in `blocks` (models/cudnn.py); half precision
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax

from m2io_jax.models.attention import causal_attention, group_attention
from m2io_jax.models.cudnn import cudnn_causal_attention
from m2io_jax.models.sizes import Computation
from m2io_jax.models.splash import LANES, splash_causal_attention, splash_group_attention


class Backend(NamedTuple):
    """`causal` over prompts (`attention.causal_attention`), `group` over whole groups (`attention.group_attention`)."""

    causal: Callable
    group: Callable


BACKENDS = {
    "blocks": Backend(causal_attention, group_attention),
    "splash": Backend(splash_causal_attention, splash_group_attention),
    "cudnn": Backend(cudnn_causal_attention, partial(group_attention, causal=cudnn_causal_attention)),
}


def backend(computation: Computation, head_dim: int) -> Backend:
    """What a model with heads of this size attends by; "auto" goes by the devices that JAX has."""
    asked = computation.attention
    return BACKENDS[suited(jax.default_backend(), computation.dtype, head_dim) if asked == "auto" else asked]


def suited(platform: str, dtype: str, head_dim: int) -> str:
    """The fastest backend that takes this."""
    if platform == "tpu" and head_dim % LANES == 0:
        return "splash"
    if platform == "gpu" and dtype == "bfloat16" and head_dim % 8 == 0 and head_dim <= 128:
        return "cudnn"
    return "blocks"
