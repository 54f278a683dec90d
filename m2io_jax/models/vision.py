"""The vision transformer of Qwen2.5-VL (arXiv 2502.13923, 2.1.1) and Qwen2-VL (2409.12191, 2.1): patches in,
language-sized embeddings out. Which of the two is a matter of configuration."""

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float, Int

from m2io_jax.models.attention import segment_attention
from m2io_jax.models.layers import LayerNorm, Linear, QuickGELU, RMSNorm, SwiGLU, residual_gain
from m2io_jax.models.rope import Rotation, patch_rotation, rotate
from m2io_jax.models.sizes import Computation, VisionConfig
from m2io_jax.parallel.sharding import spread

NORMS = {"rms": RMSNorm, "layer": LayerNorm}
MLPS = {"swiglu": SwiGLU, "quick_gelu": QuickGELU}


class VisionBlock(nnx.Module):
    """Attention inside segments, then the hidden layer, each after a normalisation and added to its input."""

    def __init__(self, config: VisionConfig, *, rngs, stack=None):
        size, norm = config.hidden_size, NORMS[config.norm]
        self.norm1 = norm(size, rngs=rngs, stack=stack)
        self.norm2 = norm(size, rngs=rngs, stack=stack)
        self.qkv = Linear((size, 3 * size), ("embed", "heads"), rngs=rngs, bias=True, stack=stack)
        common = dict(rngs=rngs, bias=True, stack=stack, gain=residual_gain(config.depth))
        self.proj = Linear((size, size), ("heads", "embed"), **common)
        self.mlp = MLPS[config.mlp](size, config.intermediate_size, **common)
        self.heads = config.num_heads

    def __call__(
        self, x: Float[Array, "rows patches size"], rotation: Rotation, segments: Int[Array, "rows patches"]
    ) -> Float[Array, "rows patches size"]:
        split = "rows patches (part heads dim) -> part rows heads patches dim"
        q, k, v = rearrange(self.qkv(self.norm1(x)), split, part=3, heads=self.heads)
        out = segment_attention(rotate(q, rotation), rotate(k, rotation), v, segments)
        x = x + self.proj(rearrange(out, "rows heads patches dim -> rows patches (heads dim)"))
        return x + self.mlp(self.norm2(x))


class PatchMerger(nnx.Module):
    """Joins the `merge_unit` neighbouring patches into one embedding of the language model's width."""

    def __init__(self, config: VisionConfig, *, rngs):
        joined = config.hidden_size * config.merge_unit
        self.norm = NORMS[config.norm](config.hidden_size, rngs=rngs)
        self.fc1 = Linear((joined, joined), ("embed", "mlp"), rngs=rngs, bias=True)
        self.fc2 = Linear((joined, config.out_hidden_size), ("mlp", "embed"), rngs=rngs, bias=True)

    def __call__(self, x: Float[Array, "rows patches size"]) -> Float[Array, "rows tokens out"]:
        x = self.norm(x).reshape(x.shape[0], -1, self.fc1.kernel.shape[0])
        return self.fc2(jax.nn.gelu(self.fc1(x), approximate=False))


class VisionTower(nnx.Module):
    """Encodes pictures, one a row, padded to the same number of patches.

    Every block runs by one `lax.scan`; a block looks at windows or at the whole picture, by the segments it is given.
    """

    def __init__(self, config: VisionConfig, computation: Computation, *, rngs: nnx.Rngs):
        self.config, self.computation = config, computation
        self.patch_embed = Linear((config.patch_features, config.hidden_size), (None, "embed"), rngs=rngs)
        self.blocks = VisionBlock(config, rngs=rngs, stack=config.depth)
        self.merger = PatchMerger(config, rngs=rngs)

    def __call__(
        self,
        patches: Float[Array, "rows patches features"],
        positions: Int[Array, "rows patches 2"],
        windows: Int[Array, "rows patches"],
    ) -> Float[Array, "rows tokens out"]:
        """Args:
        patches: normalised pixels, in the order of the image processor (merge units together).
        positions: row and column of each patch.
        windows: the attention window of each patch inside its picture, -1 for padding.
        """
        axes = ("batch", "sequence", None)
        x = spread(self.patch_embed(patches.astype(self.computation.dtype)), axes)
        rotation = patch_rotation(positions, self.config.head_dim, self.config.rope_theta)
        whole = jnp.minimum(windows, 0)
        is_full = np.isin(np.arange(self.config.depth), self.config.fullatt_block_indexes)
        structure, weights = nnx.split(self.blocks)

        def run_block(x, layer):
            layer_weights, full = layer
            block = nnx.merge(structure, layer_weights)
            return spread(block(x, rotation, jnp.where(full, whole, windows)), axes), None

        with jax.named_scope("vision_blocks"):
            x, _ = jax.lax.scan(self.computation.checkpoint(run_block), x, (weights, jnp.asarray(is_full)))
        return self.merger(x)
