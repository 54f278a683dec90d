"""Dimensions of every model size: one dataclass a tower, one table of sizes.

`tiny` ships with the package; `deep` is it with three times the decoder (models/growing.py). The others are the
published sizes of Qwen2.5-VL (arXiv 2502.13923) and Qwen2-VL (2409.12191). models/huggingface.py reads the dimensions
of any other from its config.json.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import jax
import numpy as np

from m2io_jax.errors import UserError

FEW_LAYERS, SHORT = 8, 1024


@dataclass(frozen=True)
class VisionConfig:
    """The vision transformer. Lengths `patch_size` and `window_size` are pixels.

    Qwen2.5-VL has RMS normalisation, SwiGLU, and windows in all blocks but a few; Qwen2-VL has layer normalisation, one
    hidden layer with the quick GELU, and no windows: every block is in `fullatt_block_indexes`.
    """

    depth: int
    hidden_size: int
    num_heads: int
    intermediate_size: int
    out_hidden_size: int
    fullatt_block_indexes: tuple[int, ...]
    patch_size: int = 14
    temporal_patch_size: int = 2
    spatial_merge_size: int = 2
    window_size: int = 112
    in_channels: int = 3
    norm: Literal["rms", "layer"] = "rms"
    mlp: Literal["swiglu", "quick_gelu"] = "swiglu"
    rope_theta: float = 1e4
    tokens_per_second: float = 2  # of videos, which nothing here reads; kept for those who serve them

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads

    @property
    def patch_features(self) -> int:
        """Numbers in one flattened patch."""
        return self.in_channels * self.temporal_patch_size * self.patch_size**2

    @property
    def merge_unit(self) -> int:
        """Patches that become one language token."""
        return self.spatial_merge_size**2

    @property
    def window_side(self) -> int:
        """Patches on a side of an attention window: whole merge units, as transformers rounds `window_size` down."""
        return self.window_size // self.spatial_merge_size // self.patch_size * self.spatial_merge_size


@dataclass(frozen=True)
class TextConfig:
    """The language model.

    `mrope_section` splits half of `head_dim` between time, height and width; `initializer_range` is the standard
    deviation that token embeddings start with.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    mrope_section: tuple[int, int, int] = (16, 24, 24)
    head_dim: int = 128
    rms_norm_eps: float = 1e-6
    rope_theta: float = 1e6
    tie_word_embeddings: bool = False
    max_position_embeddings: int = 128_000
    initializer_range: float = 0.02


@dataclass(frozen=True)
class SpecialTokens:
    """Ids of the tokens that steer the model rather than say something.

    Attributes:
        pad: fills rows to their length. It is masked everywhere, and never a stop token because it pads.
        eos: the token that ends a completion in the chat format, `<|im_end|>`.
        bos: `<|endoftext|>`, which config.json calls so; `pad` where none is given.
        stops: every token that ends a completion; `eos` and `bos` where none are given.
    """

    pad: int = 151643
    eos: int = 151645
    image_pad: int = 151655
    video_pad: int = 151656
    vision_start: int = 151652
    vision_end: int = 151653
    bos: int | None = None
    stops: tuple[int, ...] = ()

    def __post_init__(self):
        if self.bos is None:
            object.__setattr__(self, "bos", self.pad)
        if not self.stops:
            object.__setattr__(self, "stops", tuple(dict.fromkeys((self.eos, self.bos))))

    @property
    def media(self) -> tuple[int, ...]:
        """Tokens that stand for pictures: never sampled, never given a probability."""
        return (self.image_pad, self.video_pad, self.vision_start, self.vision_end)


CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class ImageConfig:
    """The settings of an image processor that change what the model sees.

    Attributes:
        min_pixels: smaller images are scaled up to at least this many pixels, where the run's bound allows it.
        mean, std: of each channel, whose values lie between 0 and 1; rounded to float32, in which they are used.
    """

    min_pixels: int = 56 * 56
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD

    def __post_init__(self):
        for name in ("mean", "std"):
            rounded = tuple(float(np.float32(value)) for value in getattr(self, name))
            object.__setattr__(self, name, rounded)


CLIP = ImageConfig()  # as the published folders have it

@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters (arXiv 2106.09685): `kernel + alpha / rank * a @ b` in the modules that `targets` name.

    Attributes:
        targets: regular expressions, each for whole module names such as `language.blocks.q` or `vision.blocks.mlp.up`.
    """

    rank: int
    alpha: float
    targets: tuple[str, ...]

    def __post_init__(self):
        if self.rank < 1:
            raise UserError(f"an adapter's rank must be 1 or more, not {self.rank}", where="lora.rank")
        if not self.targets:
            raise UserError("no module is named to be adapted", where="lora.targets")


@dataclass(frozen=True)
class Computation:
    """How a model is computed, whatever its weights are stored as. It belongs to a run, not to the weights.

    Attributes:
        dtype: of activations and matrix products; softmax, normalisation, rotation and logits are float32 always.
        remat: what the backward pass computes again in place of keeping it, block by block: nothing, all but the
            outputs of matrix products ("dots"), or everything ("full").
        attention: a name of models/backends.py; "auto" takes what suits the devices.
        unroll: the language model's layers are written out in the program: faster on CPU than the loop over them, but
            longer to compile and with more memory. None: on CPU without remat, for few layers and short sequences.
    """

    dtype: Literal["float32", "bfloat16"] = "float32"
    remat: Literal["none", "dots", "full"] = "none"
    attention: Literal["auto", "blocks", "splash", "cudnn"] = "auto"
    unroll: bool | None = None

    def unrolls(self, layers: int, time: int) -> bool:
        """Whether layers stand one after another in a program for sequences of this many tokens."""
        if self.unroll is None:
            few = layers <= FEW_LAYERS and time <= SHORT
            return few and self.remat == "none" and jax.default_backend() == "cpu"
        return self.unroll

    def checkpoint(self, block: Callable) -> Callable:
        """`block`, a layer as `lax.scan` runs it, under this policy."""
        if self.remat == "none":
            return block
        dots = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
        return jax.checkpoint(block, policy=dots if self.remat == "dots" else None, prevent_cse=False)


@dataclass(frozen=True)
class ModelConfig:
    """Everything that fixes a model: the shapes of its weights and how they are computed with."""

    vision: VisionConfig
    text: TextConfig
    special: SpecialTokens = field(default_factory=SpecialTokens)
    lora: LoraConfig | None = None
    computation: Computation = Computation()
    image: ImageConfig = CLIP

    def __post_init__(self):
        text, vision = self.text, self.vision
        if sum(text.mrope_section) * 2 != text.head_dim:
            raise UserError(f"mrope_section {text.mrope_section} must add up to half of head_dim {text.head_dim}")
        if text.head_dim * text.num_attention_heads != text.hidden_size:
            raise UserError("head_dim x num_attention_heads must be hidden_size, as in every published size")
        if text.num_attention_heads % text.num_key_value_heads:
            raise UserError("num_attention_heads must be a multiple of num_key_value_heads")
        if vision.out_hidden_size != text.hidden_size:
            raise UserError("the vision tower's out_hidden_size must equal the language model's hidden_size")
        if vision.head_dim * vision.num_heads != vision.hidden_size:
            raise UserError("the vision tower's hidden_size must be a multiple of its num_heads")
        if vision.head_dim % 4:
            raise UserError("the vision tower's head size must be a multiple of 4 (two axes, pairs of numbers)")
        if vision.window_side < 1 and set(range(vision.depth)) - set(vision.fullatt_block_indexes):
            least = vision.patch_size * vision.spatial_merge_size
            raise UserError(f"window_size {vision.window_size} is smaller than a merged patch, {least} pixels")

    def with_lora(self, lora: LoraConfig | None) -> "ModelConfig":
        return dataclasses.replace(self, lora=lora)

    def same_shapes(self, other: "ModelConfig") -> bool:
        """Return whether the weights of one fit the other, adapters apart."""
        return not self.shape_differences(other)

    def shape_differences(self, other: "ModelConfig") -> list[str]:
        """Name every dimension of the weights that differs, with both values: `text.hidden_size 32, not 192`."""
        ours, theirs = self._shapes(), other._shapes()
        return [f"{name} {ours[name]}, not {theirs[name]}" for name in ours if ours[name] != theirs[name]]

    def _shapes(self) -> dict[str, object]:
        text, vision = self.text, self.vision
        key_value_size = text.num_key_value_heads * text.head_dim
        named = {f"text.{name}": getattr(text, name) for name in TEXT_SHAPES} | {"key_value_size": key_value_size}
        return named | {f"vision.{name}": getattr(vision, name) for name in VISION_SHAPES}


# What the shapes of weights depend on. All else is a matter of computing with them.
TEXT_SHAPES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "tie_word_embeddings")
VISION_SHAPES = (
    "depth",
    "hidden_size",
    "intermediate_size",
    "out_hidden_size",
    "patch_size",
    "temporal_patch_size",
    "spatial_merge_size",
    "in_channels",
    "norm",
    "mlp",
)


def _vision(out: int, intermediate: int = 3456) -> VisionConfig:
    return VisionConfig(
        depth=32,
        hidden_size=1280,
        num_heads=16,
        intermediate_size=intermediate,
        out_hidden_size=out,
        fullatt_block_indexes=(7, 15, 23, 31),
    )


def _vision_of_qwen2(out: int) -> VisionConfig:
    return VisionConfig(
        depth=32,
        hidden_size=1280,
        num_heads=16,
        intermediate_size=5120,
        out_hidden_size=out,
        fullatt_block_indexes=tuple(range(32)),
        norm="layer",
        mlp="quick_gelu",
    )


def _text(hidden: int, intermediate: int, layers: int, heads: int, kv_heads: int, **more) -> TextConfig:
    return TextConfig(
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        **({"vocab_size": 152064} | more),
    )


_text_of_qwen2 = partial(_text, max_position_embeddings=32_768)

TINY_TOKENS = SpecialTokens(pad=0, eos=2, image_pad=5, video_pad=6, vision_start=3, vision_end=4)


def _tiny(layers: int) -> ModelConfig:
    vision = VisionConfig(
        depth=4,
        hidden_size=128,
        num_heads=4,
        intermediate_size=256,
        out_hidden_size=192,
        fullatt_block_indexes=(1, 3),
    )
    text = _text(
        192, 512, layers, 6, 2, vocab_size=1024, head_dim=32, mrope_section=(4, 6, 6), tie_word_embeddings=True,
        max_position_embeddings=4096, initializer_range=0.1,
    )  # fmt: skip
    return ModelConfig(vision, text, TINY_TOKENS)


SIZES: dict[str, ModelConfig] = {
    "tiny": _tiny(6),
    "deep": _tiny(18),
    "3b": ModelConfig(
        _vision(2048, 3420), _text(2048, 11008, 36, 16, 2, vocab_size=151936, tie_word_embeddings=True)
    ),
    "7b": ModelConfig(_vision(3584, 3420), _text(3584, 18944, 28, 28, 4)),
    "32b": ModelConfig(_vision(5120), _text(5120, 27648, 64, 40, 8)),
    "72b": ModelConfig(_vision(8192), _text(8192, 29568, 80, 64, 8)),
    "qwen2-2b": ModelConfig(
        _vision_of_qwen2(1536),
        _text_of_qwen2(1536, 8960, 28, 12, 2, vocab_size=151936, tie_word_embeddings=True),
    ),
    "qwen2-7b": ModelConfig(_vision_of_qwen2(3584), _text_of_qwen2(3584, 18944, 28, 28, 4)),
    "qwen2-72b": ModelConfig(_vision_of_qwen2(8192), _text_of_qwen2(8192, 29568, 80, 64, 8)),
}


def model_config(size: str) -> ModelConfig:
    """The configuration of a named size.

    Raises:
        UserError: the name is not in `SIZES`.
    """
    if size not in SIZES:
        raise UserError(f"no model size is called {size!r}", where="model", mend=f"one of: {', '.join(SIZES)}")
    return SIZES[size]
