"""A model that compiles in a moment, prompts for it, and the same model again in plain NumPy, in float64."""

import math
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from m2io_jax.config import BatchConfig
from m2io_jax.episodes.batching import PromptEncoder, PromptRow
from m2io_jax.models.inputs import Completions, PictureGrid, PromptBatch
from m2io_jax.models.inserter import Inserter
from m2io_jax.models.policy import structure_of
from m2io_jax.models.sizes import TINY_TOKENS, ModelConfig, TextConfig, VisionConfig
from m2io_jax.sampling.sampler import SamplingConfig, sample

SMALL = ModelConfig(
    vision=VisionConfig(
        depth=2,
        hidden_size=32,
        num_heads=2,
        intermediate_size=48,
        out_hidden_size=32,
        fullatt_block_indexes=(1,),
        patch_size=2,
        window_size=8,
    ),
    text=TextConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        mrope_section=(1, 1, 2),
        rope_theta=100.0,
        tie_word_embeddings=True,
    ),
    special=TINY_TOKENS,
)
STRUCTURE = structure_of(SMALL)
BATCH = BatchConfig(prompt_length=24, completion_length=6, pictures=2, patches=24, max_pixels=96)


@cache
def small_params() -> nnx.State:
    """Weights of which none is 0 or 1 as at the start, drawn without compiling the initialisers."""
    random = np.random.default_rng(1)

    def draw(path, leaf):
        name = jax.tree_util.keystr(path)
        noise = random.normal(size=leaf.shape)
        if "kernel" in name:
            noise *= leaf.shape[-2] ** -0.5
        elif "scale" in name:
            noise = 1 + 0.1 * noise
        else:
            noise *= 0.3
        return jnp.asarray(noise, jnp.float32)

    declared = nnx.state(nnx.eval_shape(lambda: Inserter(SMALL, rngs=nnx.Rngs(0))), nnx.Param)
    return jax.tree_util.tree_map_with_path(draw, declared)


def log_probs(params, prompts: PromptBatch, completions: Completions, temperature: float = 1.0):
    """Log-probabilities and entropies by the model itself."""
    return _log_probs(params, prompts, completions, temperature)


@jax.jit
def _log_probs(params, prompts, completions, temperature):
    return nnx.merge(STRUCTURE, params).completion_log_probs(prompts, completions, temperature)


@partial(jax.jit, static_argnames="config")
def rollouts(params, prompts: PromptBatch, config: SamplingConfig, key):
    """Rollouts by the sampler itself."""
    return sample(nnx.merge(STRUCTURE, params), prompts, config, key=key)


def picture(seed: int, height: int, width: int) -> PictureGrid:
    """Random patches; height and width count patches."""
    random = np.random.default_rng(seed)
    patches = random.normal(size=(height * width, SMALL.vision.patch_features)).astype(np.float32)
    return PictureGrid(patches, height, width)


def tokens_of_parts(*parts: int | PictureGrid) -> tuple[np.ndarray, list[PictureGrid]]:
    """Text tokens and pictures in reading order; a picture's tokens stand between the vision marks."""
    special, tokens, grids = SMALL.special, [], []
    for part in parts:
        if isinstance(part, PictureGrid):
            grids.append(part)
            pads = [special.image_pad] * (part.height * part.width // SMALL.vision.merge_unit)
            tokens += [special.vision_start, *pads, special.vision_end]
        else:
            tokens.append(part)
    return np.array(tokens, np.int32), grids


def prompt_row(*parts: int | PictureGrid, seed: int = 0, batch: BatchConfig = BATCH) -> PromptRow:
    """A padded row."""
    return PromptEncoder(SMALL, None, batch).pad(*tokens_of_parts(*parts), seed)


# One of text alone, one with a picture, one with two of other sizes, one short: seeds 10 to 13.
PARTS = (
    (20, 21, 22, 23, 24, 25, 26),
    (30, 31, picture(1, 4, 4), 32, 33),
    (40, picture(2, 2, 6), 41, 42, picture(3, 6, 4), 43),
    (50,),
)


def mixed_rows(batch: BatchConfig = BATCH) -> list[PromptRow]:
    return [prompt_row(*parts, seed=10 + index, batch=batch) for index, parts in enumerate(PARTS)]


def random_completions(rows: int = 4, group: int = 3, time: int = 6, seed: int = 5) -> Completions:
    """Completions of every length up to `time`, of ordinary tokens."""
    random = np.random.default_rng(seed)
    lengths = random.integers(1, time + 1, (rows, group, 1))
    tokens = random.integers(7, SMALL.text.vocab_size, (rows, group, time)).astype(np.int32)
    mask = np.arange(time) < lengths
    return Completions(np.where(mask, tokens, SMALL.special.pad), mask)


def reference_logits(parts: tuple[int | PictureGrid, ...], completion: list[int]) -> np.ndarray:
    """Logits [len(completion) + 1, vocab] that predict each completion token and the one after it.

    One unpadded sequence through full attention matrices: nothing is shared with the model's code but its weights.
    """
    weights = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), nnx.to_pure_dict(small_params()))
    language, text = weights["language"], SMALL.text
    tokens, grids = tokens_of_parts(*parts)
    positions, following = _positions(parts)
    x = language["embedding"][np.concatenate([tokens, completion]).astype(int)]
    if grids:
        x[: len(tokens)][tokens == SMALL.special.image_pad] = np.concatenate(
            [_reference_picture(weights["vision"], grid) for grid in grids]
        )
    positions = np.concatenate([positions, np.repeat(following + np.arange(len(completion))[:, None], 3, 1)])
    half = text.head_dim // 2
    which = [axis for axis, count in enumerate(text.mrope_section) for _ in range(count)]
    angles = np.stack([positions[:, which[i]] * text.rope_theta ** (-i / half) for i in range(half)], -1)
    causal = np.tril(np.ones((len(x), len(x)), bool))
    for layer in range(text.num_hidden_layers):
        block = jax.tree.map(lambda leaf, layer=layer: leaf[layer], language["blocks"])
        y = _norm(x, block["norm1"])
        q, k, v = (_linear(y, block[name]) for name in "qkv")
        heads = []
        for head in range(text.num_attention_heads):
            own = head // (text.num_attention_heads // text.num_key_value_heads)
            chosen = (_head(part, index, text.head_dim) for part, index in ((q, head), (k, own), (v, own)))
            heads.append(_attend(*chosen, angles, causal))
        x = x + _linear(np.concatenate(heads, -1), block["o"])
        x = x + _swiglu(_norm(x, block["norm2"]), block["mlp"])
    return (_norm(x, language["norm"]) @ language["embedding"].T)[len(tokens) - 1 :]


def _positions(parts) -> tuple[np.ndarray, int]:
    """Token by token, by the words of the paper: [tokens, 3] and what follows."""
    found, following = [], 0
    for part in parts:
        if not isinstance(part, PictureGrid):
            found.append([following] * 3)
            following += 1
            continue
        found.append([following] * 3)
        start = following + 1
        units = [(y, x) for y in range(part.height // 2) for x in range(part.width // 2)]
        found += [[start, start + y, start + x] for y, x in units]
        following = 1 + max(max(position) for position in found)
        found.append([following] * 3)
        following += 1
    return np.array(found), following


def _reference_picture(vision: dict, grid: PictureGrid) -> np.ndarray:
    config = SMALL.vision
    # rows and columns in the order that merge units lie together
    places = [
        (2 * unit_y + y, 2 * unit_x + x)
        for unit_y in range(grid.height // 2)
        for unit_x in range(grid.width // 2)
        for y in range(2)
        for x in range(2)
    ]
    x = grid.patches.astype(np.float64) @ vision["patch_embed"]["kernel"]
    quarter = config.head_dim // 4
    angles = np.array(
        [[place[axis] * 10_000.0 ** (-i / quarter) for axis in range(2) for i in range(quarter)] for place in places]
    )
    side = config.window_size // config.patch_size
    window = np.array([[(a[0] // side, a[1] // side) == (b[0] // side, b[1] // side) for b in places] for a in places])
    for layer in range(config.depth):
        block = jax.tree.map(lambda leaf, layer=layer: leaf[layer], vision["blocks"])
        allowed = np.ones_like(window) if layer in config.fullatt_block_indexes else window
        q, k, v = np.split(_linear(_norm(x, block["norm1"]), block["qkv"]), 3, -1)
        heads = [
            _attend(*(_head(part, head, config.head_dim) for part in (q, k, v)), angles, allowed)
            for head in range(config.num_heads)
        ]
        x = x + _linear(np.concatenate(heads, -1), block["proj"])
        x = x + _swiglu(_norm(x, block["norm2"]), block["mlp"])
    merger = vision["merger"]
    hidden = _linear(_norm(x, merger["norm"]).reshape(len(x) // 4, -1), merger["fc1"])
    erf = np.vectorize(math.erf)
    return _linear(hidden * 0.5 * (1 + erf(hidden / 2**0.5)), merger["fc2"])


def _linear(x, layer):
    return x @ layer["kernel"] + layer.get("bias", 0.0)


def _norm(x, layer):
    return layer["scale"] * x / np.sqrt(np.mean(x**2, -1, keepdims=True) + 1e-6)


def _swiglu(x, layer):
    gate = _linear(x, layer["gate"])
    return _linear(gate / (1 + np.exp(-gate)) * _linear(x, layer["up"]), layer["down"])


def _head(x, head: int, dim: int):
    return x[:, head * dim : (head + 1) * dim]


def _attend(q, k, v, angles, allowed):
    q, k = _turn(q, angles), _turn(k, angles)
    scores = np.where(allowed, q @ k.T / np.sqrt(q.shape[-1]), -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ v


def _turn(x, angles):
    """Each pair of numbers is one complex number, turned by its angle."""
    half = x.shape[-1] // 2
    turned = (x[:, :half] + 1j * x[:, half:]) * np.exp(1j * angles)
    return np.concatenate([turned.real, turned.imag], -1)
