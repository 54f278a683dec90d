"""The language model of Qwen2.5-VL: grouped-query attention, three-dimensional rotary positions, SwiGLU.

One set of blocks serves three passes: over whole groups (training), over prompts (prefill), and over one new token a
completion (decode). The passes differ only in how a block attends, which they hand to it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import repeat
from operator import itemgetter
from typing import TypeVar

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from m2io_jax.models.attention import KEYS, QUERIES, GroupLayout, decode_attention
from m2io_jax.models.backends import backend
from m2io_jax.models.layers import Linear, RMSNorm, SwiGLU, residual_gain, weight
from m2io_jax.models.rope import Rotation, rotate, token_rotation
from m2io_jax.models.sizes import Computation, TextConfig
from m2io_jax.parallel.sharding import spread

T = TypeVar("T")

# What passes from block to block: tokens of sequences are spread too, those that decode side by side are not.
SEQUENCES, SIDE_BY_SIDE = ("batch", "sequence", None), ("batch", None, None)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class KeysValues:
    """Rotated keys and values, a cache: [layers, rows, kv_heads, time, dim] of prompts, with the group before time of
    completions; of one layer, without the first axis."""

    keys: Float[Array, "*lead time dim"]
    values: Float[Array, "*lead time dim"]


class DecoderBlock(nnx.Module):
    """Attention, then SwiGLU, each after a normalisation and added to its input."""

    def __init__(self, config: TextConfig, *, rngs, stack=None):
        size, dim = config.hidden_size, config.head_dim
        common, gain = dict(rngs=rngs, stack=stack), residual_gain(config.num_hidden_layers)
        self.norm1 = RMSNorm(size, rngs=rngs, eps=config.rms_norm_eps, stack=stack)
        self.norm2 = RMSNorm(size, rngs=rngs, eps=config.rms_norm_eps, stack=stack)
        self.q = Linear((size, config.num_attention_heads * dim), ("embed", "heads"), bias=True, **common)
        self.k = Linear((size, config.num_key_value_heads * dim), ("embed", "kv_heads"), bias=True, **common)
        self.v = Linear((size, config.num_key_value_heads * dim), ("embed", "kv_heads"), bias=True, **common)
        self.o = Linear((config.num_attention_heads * dim, size), ("heads", "embed"), gain=gain, **common)
        self.mlp = SwiGLU(size, config.intermediate_size, gain=gain, **common)
        self.head_dim, self.kv_heads = dim, config.num_key_value_heads

    def __call__(self, x: Float[Array, "rows time size"], rotation: Rotation, attend: Callable):
        """`attend(q, k, v)` returns what the heads read. Also returns this block's new keys and values."""
        y, sizes = self.norm1(x), dict(heads=self.kv_heads, dim=self.head_dim)
        q = rearrange(self.q(y), "rows time (heads share dim) -> rows heads share time dim", **sizes)
        k = rearrange(self.k(y), "rows time (heads dim) -> rows heads time dim", **sizes)
        v = rearrange(self.v(y), "rows time (heads dim) -> rows heads time dim", **sizes)
        q, k = rotate(q, rotation), rotate(k, rotation)
        q, k, v = spread(q, QUERIES), spread(k, KEYS), spread(v, KEYS)
        x = x + self.o(rearrange(attend(q, k, v), "rows heads share time dim -> rows time (heads share dim)"))
        return x + self.mlp(self.norm2(x)), (k, v)


class LanguageModel(nnx.Module):
    """Token embeddings, stacked decoder blocks, final normalisation, output head (tied or not)."""

    def __init__(self, config: TextConfig, computation: Computation, *, rngs: nnx.Rngs):
        sizes = (config.vocab_size, config.hidden_size)
        self.config, self.computation = config, computation
        self.embedding = weight(rngs, sizes, ("vocab", "embed"), config.initializer_range)
        self.blocks = DecoderBlock(config, rngs=rngs, stack=config.num_hidden_layers)
        self.norm = RMSNorm(config.hidden_size, rngs=rngs, eps=config.rms_norm_eps)
        untied = not config.tie_word_embeddings
        self.head = Linear(sizes[::-1], ("embed", "vocab"), rngs=rngs) if untied else None

    def embed(self, tokens: Int[Array, "rows time"]) -> Float[Array, "rows time size"]:
        """Each device looks up its part of every embedding for the rows of all that share the table, and rows go to
        their devices after it: the table stays where it lies."""
        x = self.embedding[...][spread(tokens, ("copies", None))]
        return spread(spread(x, ("copies", None, "embed")).astype(self.computation.dtype), SIDE_BY_SIDE)

    def output(self) -> Float[Array, "size vocab"]:
        """The matrix from hidden states to logits. What `fsdp` splits of it is gathered here, where no loop is."""
        kernel = self.embedding[...].T if self.head is None else self.head.kernel[...]
        return spread(kernel.astype(self.computation.dtype), (None, "vocab"))

    def logits(
        self, hidden: Float[Array, "... size"], output: Float[Array, "size vocab"] | None = None
    ) -> Float[Array, "... vocab"]:
        """Unnormalised log-probabilities, in float32. `output()` may be at hand already."""
        output = self.output() if output is None else output
        return jnp.einsum("...e,ev->...v", self.norm(hidden), output, preferred_element_type=jnp.float32)

    def group(
        self,
        x: Float[Array, "rows length size"],
        positions: Int[Array, "3 rows length"],
        layout: GroupLayout,
        prompt_mask: Bool[Array, "rows prompt"],
    ) -> Float[Array, "rows length size"]:
        """Training: whole groups, each one sequence [prompt | c1 | ... | cG]."""
        attention = backend(self.computation, self.config.head_dim)

        def attend(q, k, v, _):
            return attention.group(q, k, v, layout, prompt_mask)

        unroll = self.computation.unrolls(self.config.num_hidden_layers, layout.length)
        weights = self.weights(by_layer=unroll)
        hidden, _ = self._run(x, positions, attend, weights, axes=SEQUENCES, keep=lambda kv: None)
        return hidden

    def prefill(
        self, x: Float[Array, "rows time size"], positions: Int[Array, "3 rows time"]
    ) -> tuple[Float[Array, "rows time size"], KeysValues]:
        """Sampling: prompts, once each; returns their hidden states and the cache that completions share."""
        attention = backend(self.computation, self.config.head_dim)

        def attend(q, k, v, _):
            return attention.causal(q, k, v)

        return self._run(x, positions, attend, self.weights(), axes=SEQUENCES, keep=lambda kv: KeysValues(*kv))

    def weights(self, *, by_layer: bool = False) -> nnx.State | tuple[nnx.State, ...]:
        """The blocks' weights, stacked or one tree a layer: what `_run` goes through."""
        stacked = nnx.split(self.blocks)[1]
        return self.by_layer(stacked) if by_layer else stacked

    def by_layer(self, stacked: T) -> tuple[T, ...]:
        """A tree for each layer from one with layers along the first axis."""
        return tuple(jax.tree.map(itemgetter(layer), stacked) for layer in range(self.config.num_hidden_layers))

    def for_decoding(self, prompts: KeysValues):
        """Weights and the prompts' cache as `decode` takes them.

        To be called before the loop: on CPU, cutting a layer's out of the stack for every token took a third of the
        time.
        """
        if self.computation.unrolls(self.config.num_hidden_layers, 1):
            return self.weights(by_layer=True), self.by_layer(prompts)
        return self.weights(), prompts

    def decode(
        self,
        x: Float[Array, "rows group size"],
        positions: Int[Array, "3 rows group"],
        weights: nnx.State | tuple[nnx.State, ...],
        prompt: KeysValues | tuple[KeysValues, ...],
        prompt_mask: Bool[Array, "rows prompt"],
        own: KeysValues | tuple[KeysValues, ...],
        step: Int[Array, ""],
    ) -> tuple[Float[Array, "rows group size"], KeysValues | tuple[KeysValues, ...]]:
        """Sampling: one new token a completion; weights and caches as of `for_decoding`.

        Returns hidden states, and the completions' cache with the token's keys and values written.
        """

        def attend(q, k, v, cache):
            prompt, own = cache
            prompt_cache, own_cache = (prompt.keys, prompt.values), (own.keys, own.values)
            return decode_attention(q, k, v, prompt_cache, own_cache, prompt_mask, step)

        caches = tuple(zip(prompt, own, strict=True)) if isinstance(weights, tuple) else (prompt, own)
        keep = dict(axes=SIDE_BY_SIDE, keep=lambda kv: KeysValues(*kv))
        hidden, new = self._run(x, positions, attend, weights, caches, **keep)

        def write(cache, new):  # one write for all layers, outside the scan, so that it happens in place
            return jax.lax.dynamic_update_index_in_dim(cache, new, step, axis=cache.ndim - 2)

        return hidden, jax.tree.map(write, own, new)

    def _run(self, x, positions, attend, weights, caches=None, *, axes, keep):
        """Through all layers: a loop where weights are stacked, written out where they come layer by layer; so comes
        what `keep` keeps of each layer's keys and values. `axes` are those of what passes between the layers."""
        config, structure = self.config, nnx.split(self.blocks)[0]
        rotation = token_rotation(positions, config.head_dim, config.mrope_section, config.rope_theta)

        def run_block(x, layer):
            layer_weights, cache = layer
            block = nnx.merge(structure, layer_weights)
            x, kv = block(x, rotation, lambda q, k, v: attend(q, k, v, cache))
            return spread(x, axes), keep(kv)

        x, run_block = spread(x, axes), self.computation.checkpoint(run_block)
        with jax.named_scope("language_blocks"):
            if not isinstance(weights, tuple):
                return jax.lax.scan(run_block, x, (weights, caches))
            kept = []
            for layer in zip(weights, caches or repeat(None), strict=False):
                x, of_layer = run_block(x, layer)
                kept.append(of_layer)
            return x, tuple(kept)
