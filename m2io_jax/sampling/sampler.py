"""Sampling: a prompt's images are encoded once, the prompt prefilled once, and its G completions share its KV cache.

`Sampler` maps the three parts over a mesh; `prefill` and `decode` are what each device runs.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, Key

from m2io_jax.models.inputs import Completions, PromptBatch
from m2io_jax.models.inserter import NEVER, Inserter, token_log_probs
from m2io_jax.models.language import KeysValues
from m2io_jax.parallel.exchange import local_rows
from m2io_jax.parallel.mesh import on_mesh
from m2io_jax.parallel.sharding import COPIES, RULES, batch_sharding, gathered_weights
from m2io_jax.sampling.constraints import Constraint, Place, advance, allowed_tokens, begin

CACHE = 64  # tokens of a completion's first cache
Cache = KeysValues | tuple[KeysValues, ...]  # of all layers, or one a layer (`LanguageModel.for_decoding`)


@dataclass(frozen=True)
class SamplingConfig:
    """Static settings of the decode loop.

    Attributes:
        temperatures: one for each completion of a group; 0 decodes greedily. A group may mix them.
        max_length: the longest completion, in tokens, stop token included.
        top_k: sample from this many likeliest tokens; 0: from all.
        top_p: sample from the fewest likeliest tokens that have this probability together (arXiv 1904.09751).
        min_p: sample from tokens with at least this share of the likeliest's probability (arXiv 2407.01082).
    """

    temperatures: tuple[float, ...]
    max_length: int
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    @property
    def group(self) -> int:
        return len(self.temperatures)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Rollouts:
    """Sampled completions and their log-probs under the policy, at each row's temperature (at 1 where it is 0).

    The log-probs are those before the grammar, `top_k`, `top_p` and `min_p`, so that the trainer's ratio is 1 on
    policy; the samples themselves are of a narrower distribution.
    """

    completions: Completions
    log_probs: Float[Array, "rows group time"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DecodeState:
    """The state of the decode loop.

    Attributes:
        step: number of tokens that each row has.
        tokens, log_probs: what was sampled so far, padded.
        alive: rows that have not sampled a stop token.
        lengths: tokens of each row, stop token included.
        cache: KV cache of the completions' tokens.
        place: position of each completion in the grammar; None without a constraint.
    """

    step: Int[Array, ""]
    tokens: Int[Array, "rows group time"]
    log_probs: Float[Array, "rows group time"]
    alive: Bool[Array, "rows group"]
    lengths: Int[Array, "rows group"]
    cache: Cache
    place: Place | None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Prefilled:
    """Prefilled prompts: their KV cache, and the logits of the token that follows each."""

    cache: KeysValues
    logits: Float[Array, "rows 1 vocab"]


# Where a program's arrays lie on the mesh: whole on every device, or with their rows spread over it.
SPREAD = RULES["batch"]
WHOLE, ROWS = PartitionSpec(), PartitionSpec(SPREAD)
PREFILLED = Prefilled(KeysValues(PartitionSpec(None, SPREAD), PartitionSpec(None, SPREAD)), ROWS)


class Sampler:
    """The sampler on a mesh, in the three parts that a step is timed by: `encode`, `prefill`, `decode`.

    Where every device has the whole model, or gathers it, rows are mapped over all devices and each shard's decode loop
    stops on its own. Where weights stay split over devices, all rows decode in step until the last is done.

    Args:
        constrained: every batch comes with a `Constraint`.
        gather: weights that `fsdp` splits are gathered once before completions are decoded, in this dtype; None: for
            every token.
    """

    def __init__(
        self,
        structure: nnx.GraphDef,
        sampling: SamplingConfig,
        mesh: Mesh,
        *,
        constrained: bool = False,
        gather: str | None = None,
    ):
        def encode(params, prompts: PromptBatch) -> jax.Array:
            return nnx.merge(structure, params).encode_pictures(prompts)

        def read(params, prompts: PromptBatch, pictures: jax.Array) -> Prefilled:
            return prefill(nnx.merge(structure, params), prompts, pictures)

        def draw(params, prompts: PromptBatch, prefilled: Prefilled, key, constraint: Constraint | None) -> Rollouts:
            return decode(nnx.merge(structure, params), prompts, prefilled, sampling, key=key, constraint=constraint)

        self.encode = _on_rows(encode, mesh, (WHOLE, ROWS), ROWS)
        self.prefill = _on_rows(read, mesh, (WHOLE, ROWS, ROWS), PREFILLED)
        by = Constraint(WHOLE, ROWS) if constrained else ROWS
        self.decode = _on_rows(draw, mesh, (WHOLE, ROWS, PREFILLED, WHOLE, by), ROWS, gather)

    def __call__(self, params, prompts: PromptBatch, key, constraint: Constraint | None = None) -> Rollouts:
        prefilled = self.prefill(params, prompts, self.encode(params, prompts))
        return self.decode(params, prompts, prefilled, key, constraint)


def _on_rows(function: Callable, mesh: Mesh, takes, gives, gather: str | None = None) -> Callable:
    """`function(params, *of_rows)`, compiled for the mesh; a device's own rows at a time where it has all weights."""
    whole = COPIES if gather is None else SPREAD  # the axes along which `function` finds nothing split
    # Mapping those axes alone and leaving the others to the compiler aborts XLA (jaxlib of jax 0.10.2).
    if all(size == 1 or axis in whole for axis, size in mesh.shape.items()):
        on_rows = jax.shard_map(function, mesh=mesh, in_specs=takes, out_specs=gives, check_vma=False)
    else:
        on_rows = function

    def program(params, *of_rows):
        return on_rows(params if gather is None else gathered_weights(_floats_as(gather, params)), *of_rows)

    return jax.jit(on_mesh(mesh, program), out_shardings=batch_sharding(mesh) if gives is ROWS else None)


def _floats_as(dtype: str, params: nnx.State) -> nnx.State:
    """The weights in the dtype that they are computed with; integers stay."""
    return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, params)


def completion_ids(completions: Completions) -> list[list[list[int]]]:
    """The tokens of each completion that lies with this process, padding left out."""
    tokens, mask = local_rows(completions.tokens), local_rows(completions.mask)
    return [[ids[keep].tolist() for ids, keep in zip(*group, strict=True)] for group in zip(tokens, mask, strict=True)]


def sample(
    model: Inserter,
    prompts: PromptBatch,
    config: SamplingConfig,
    *,
    key: Key[Array, ""],
    constraint: Constraint | None = None,
) -> Rollouts:
    """Sample `config.group` completions of every prompt: encode images, prefill prompts, decode completions.

    What a row gets depends on `key`, its prompt's seed and its place in the group: not on the rest of the batch.
    """
    prefilled = prefill(model, prompts, model.encode_pictures(prompts))
    return decode(model, prompts, prefilled, config, key=key, constraint=constraint)


def prefill(model: Inserter, prompts: PromptBatch, pictures: Float[Array, "rows media size"]) -> Prefilled:
    """Prefill every prompt once, given its encoded images."""
    positions = prompts.positions.transpose(1, 0, 2)
    hidden, cache = model.language.prefill(model.embed_prompt(prompts, pictures), positions)
    last = jnp.take_along_axis(hidden, prompts.mask.sum(1)[:, None, None] - 1, axis=1)
    return Prefilled(cache, model.next_token_logits(last))


def decode(
    model: Inserter,
    prompts: PromptBatch,
    prefilled: Prefilled,
    config: SamplingConfig,
    *,
    key: Key[Array, ""],
    constraint: Constraint | None = None,
) -> Rollouts:
    """Decode the completions token by token until every one has stopped; with a constraint, each keeps to it.

    A completion stops at a stop token or at `config.max_length`. The KV cache grows by doubling: one loop a size.
    """
    rows, group = prompts.rows, config.group
    special = model.config.special
    row_keys = completion_keys(key, prompts.seeds, group)
    first_logits = jnp.broadcast_to(prefilled.logits, (rows, group, model.config.text.vocab_size))
    weights, prompt_cache = model.language.for_decoding(prefilled.cache)

    def append_token(state: DecodeState, logits) -> DecodeState:
        keys = jax.vmap(jax.vmap(lambda k: jax.random.fold_in(k, state.step)))(row_keys)
        mask, place = None, None
        if constraint is not None:
            mask = allowed_tokens(constraint, state.place, config.max_length - 1 - state.step)
        token, log_prob = sample_token(logits, keys, config, mask)
        if constraint is not None:
            place = advance(constraint, state.place, token)
        token = jnp.where(state.alive, token, special.pad)
        log_prob = jnp.where(state.alive, log_prob, 0.0)
        return replace(
            state,
            step=state.step + 1,
            tokens=jax.lax.dynamic_update_index_in_dim(state.tokens, token, state.step, axis=2),
            log_probs=jax.lax.dynamic_update_index_in_dim(state.log_probs, log_prob, state.step, axis=2),
            lengths=state.lengths + state.alive,
            alive=state.alive & ~jnp.isin(token, np.array(special.stops)),
            place=place,
        )

    def cond_fn(size: int, state: DecodeState):
        return (state.step < size) & jnp.any(state.alive)

    def step_fn(state: DecodeState) -> DecodeState:
        written = state.step - 1
        token = jax.lax.dynamic_index_in_dim(state.tokens, written, axis=2, keepdims=False)
        position = jnp.broadcast_to(prompts.next_position[None, :, None] + written, (3, rows, group))
        hidden, cache = model.language.decode(
            model.language.embed(token), position, weights, prompt_cache, prompts.mask, state.cache, written
        )
        return append_token(replace(state, cache=cache), model.next_token_logits(hidden))

    state = append_token(_initial_state(model, prompts, config, prompt_cache, constraint), first_logits)
    for size in cache_sizes(config.max_length):
        state = replace(state, cache=_grow(state.cache, size))
        state = jax.lax.while_loop(partial(cond_fn, size), step_fn, state)
    mask = jnp.arange(config.max_length) < state.lengths[..., None]
    return Rollouts(Completions(state.tokens, mask), state.log_probs)


def completion_keys(key: Key[Array, ""], seeds: Int[Array, " rows"], group: int) -> Key[Array, "rows group"]:
    """Derive a key for each completion from its prompt's seed and its place in the group, so that what is sampled for
    a row does not depend on the rest of the batch."""
    places = jnp.arange(group)
    return jax.vmap(lambda seed: jax.vmap(partial(jax.random.fold_in, jax.random.fold_in(key, seed)))(places))(seeds)


def sample_token(
    logits: Float[Array, "rows group vocab"],
    keys: Key[Array, "rows group"],
    config: SamplingConfig,
    allowed_mask: Bool[Array, "rows group vocab"] | None = None,
) -> tuple[Int[Array, "rows group"], Float[Array, "rows group"]]:
    """Sample one allowed token a row; return it and its log-prob at the row's temperature (1 where greedy)."""
    temperatures = np.array(config.temperatures, np.float32)
    scaled = logits / np.where(temperatures > 0, temperatures, 1.0)[:, None]
    scores = allowed = scaled if allowed_mask is None else jnp.where(allowed_mask, scaled, NEVER)
    if temperatures.any():  # the largest of logits with Gumbel noise is a draw from their softmax
        noise = jax.vmap(jax.vmap(lambda key: jax.random.gumbel(key, logits.shape[-1:])))(keys)
        scores = jnp.where((temperatures > 0)[:, None], filter_top_k_top_p_min_p(allowed, config) + noise, allowed)
    token = first_largest(scores)
    log_prob, _ = token_log_probs(scaled, token)
    return token, log_prob


def first_largest(values: Float[Array, "... size"]) -> Int[Array, "..."]:
    """Compute `argmax` over the last axis by two reductions, which XLA vectorises on CPU (`argmax` was 15% of it)."""
    size = values.shape[-1]
    at_peak = values == jnp.max(values, axis=-1, keepdims=True)
    return jnp.min(jnp.where(at_peak, jnp.arange(size, dtype=jnp.int32), size - 1), axis=-1)


def filter_top_k_top_p_min_p(logits: Float[Array, "... vocab"], config: SamplingConfig) -> Float[Array, "... vocab"]:
    """Mask the logits that `top_k`, `top_p` or `min_p` leave out; the likeliest token always stays."""
    if config.top_k:
        least = jax.lax.top_k(logits, min(config.top_k, logits.shape[-1]))[0][..., -1:]
        logits = jnp.where(logits < least, NEVER, logits)
    if config.top_p < 1:
        falling = jnp.flip(jnp.sort(logits, axis=-1), axis=-1)
        probs = jax.nn.softmax(falling, axis=-1)
        kept = jnp.cumsum(probs, axis=-1) - probs < config.top_p  # what stands before a token is not enough yet
        least = jnp.min(jnp.where(kept, falling, jnp.inf), axis=-1, keepdims=True)
        logits = jnp.where(logits < least, NEVER, logits)
    if config.min_p:
        least = jnp.max(logits, axis=-1, keepdims=True) + jnp.log(config.min_p)
        logits = jnp.where(logits < least, NEVER, logits)
    return logits


def cache_sizes(longest: int) -> list[int]:
    """Return the sizes of the KV cache, each with a loop of its own: at most twice a completion's length is read."""
    sizes = [CACHE]
    while sizes[-1] < longest:
        sizes.append(2 * sizes[-1])
    return [*sizes[:-1], longest]


def _grow(cache: Cache, size: int) -> Cache:
    def longer(x):
        return jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(0, size - x.shape[-2]), (0, 0)])

    return jax.tree.map(longer, cache)


def _initial_state(
    model: Inserter, prompts: PromptBatch, config: SamplingConfig, prompt_cache: Cache, constraint: Constraint | None
) -> DecodeState:
    shape = (prompts.rows, config.group, config.max_length)

    def empty(x):
        *lead, _, dim = x.shape
        return jnp.zeros((*lead, config.group, 0, dim), x.dtype)

    return DecodeState(
        step=jnp.zeros((), jnp.int32),
        tokens=jnp.full(shape, model.config.special.pad, jnp.int32),
        log_probs=jnp.zeros(shape, jnp.float32),
        alive=jnp.ones(shape[:2], bool),
        lengths=jnp.zeros(shape[:2], jnp.int32),
        cache=jax.tree.map(empty, prompt_cache),
        place=None if constraint is None else begin(prompts.rows, config.group),
    )
