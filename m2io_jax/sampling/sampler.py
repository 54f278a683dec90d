"""Sampling: a prompt's pictures are encoded once, the prompt prefilled once, and its G completions share its cache."""

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from m2io_jax.models.inputs import Completions, PromptBatch
from m2io_jax.models.inserter import NEVER, Inserter, token_log_probs
from m2io_jax.models.language import KeysValues
from m2io_jax.sampling.constraints import Constraint, Place, advance, allowed, begin

CACHE = 64  # tokens of a completion's first cache
Cache = KeysValues | tuple[KeysValues, ...]  # of all layers, or one a layer (`LanguageModel.for_decoding`)


@dataclass(frozen=True)
class SamplingConfig:
    """Static settings of a decode loop.

    Attributes:
        temperatures: one a completion of the group; 0 decodes greedily. A group may mix them.
        max_length: longest completion, in tokens, stop token included.
        top_k: draw from this many likeliest tokens; 0 from all.
        top_p: draw from the fewest likeliest tokens that have this probability together (arXiv 1904.09751).
        min_p: draw from tokens with at least this share of the likeliest's probability (arXiv 2407.01082).
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
    """Sampled completions. `log_probs` are the policy's own at each row's temperature (at 1 where it was 0).

    They are those before the grammar, `top_k`, `top_p` and `min_p`, of which the trainer knows nothing: its ratio
    stays 1, and what it learns from are samples of a narrower distribution than the policy's.
    """

    completions: Completions
    log_probs: Float[Array, "rows group time"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DecodeState:
    """State of the decode loop.

    Attributes:
        step: how many tokens each row has.
        tokens, log_probs: what has been sampled, padded.
        alive: rows that have not sampled the stop token.
        lengths: tokens of each row, stop token included.
        cache: keys and values of the completions' tokens.
        place: where completions stand in the grammar, where there is one.
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
    """Prompts that have been read: their cache, and the logits of the token that follows them."""

    cache: KeysValues
    logits: Float[Array, "rows 1 vocab"]


def sample(
    model: Inserter,
    prompts: PromptBatch,
    config: SamplingConfig,
    *,
    key: Key[Array, ""],
    constraint: Constraint | None = None,
) -> Rollouts:
    """Samples `config.group` completions of every prompt: pictures encoded, prompts read, completions decoded.

    What a row gets depends on `key`, its prompt's seed and its place in the group: not on the rest of the batch.
    """
    prefilled = prefill(model, prompts, model.encode_pictures(prompts))
    return decode(model, prompts, prefilled, config, key=key, constraint=constraint)


def prefill(model: Inserter, prompts: PromptBatch, pictures: Float[Array, "rows media size"]) -> Prefilled:
    """Reads every prompt once; `pictures` are their encoded pictures."""
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
    """Samples the completions, token by token, until the last has stopped. With a constraint each keeps to it."""
    rows, group = prompts.rows, config.group
    special = model.config.special
    places = jnp.arange(group)
    row_keys = jax.vmap(lambda seed: jax.vmap(partial(jax.random.fold_in, jax.random.fold_in(key, seed)))(places))(
        prompts.seeds
    )
    first_logits = jnp.broadcast_to(prefilled.logits, (rows, group, model.config.text.vocab_size))

    weights, prompt_cache = model.language.for_decoding(prefilled.cache)

    def draw(state: DecodeState, logits) -> DecodeState:
        keys = jax.vmap(jax.vmap(lambda k: jax.random.fold_in(k, state.step)))(row_keys)
        may, place = None, None
        if constraint is not None:
            may = allowed(constraint, state.place, config.max_length - 1 - state.step)
        token, log_prob = sample_token(logits, keys, config, may)
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

    def unfinished(until: int, state: DecodeState):
        return (state.step < until) & jnp.any(state.alive)

    def extend(state: DecodeState) -> DecodeState:
        written = state.step - 1
        token = jax.lax.dynamic_index_in_dim(state.tokens, written, axis=2, keepdims=False)
        position = jnp.broadcast_to(prompts.next_position[None, :, None] + written, (3, rows, group))
        hidden, cache = model.language.decode(
            model.language.embed(token), position, weights, prompt_cache, prompts.mask, state.cache, written
        )
        return draw(replace(state, cache=cache), model.next_token_logits(hidden))

    place = begin(rows, group) if constraint is not None else None
    state = draw(replace(_empty_state(model, prompts, config, prompt_cache), place=place), first_logits)
    for size in cache_sizes(config.max_length):
        state = jax.lax.while_loop(partial(unfinished, size), extend, replace(state, cache=_grown(state.cache, size)))
    mask = jnp.arange(config.max_length) < state.lengths[..., None]
    return Rollouts(Completions(state.tokens, mask), state.log_probs)


def sample_token(
    logits: Float[Array, "rows group vocab"],
    keys: Key[Array, "rows group"],
    config: SamplingConfig,
    may: Bool[Array, "rows group vocab"] | None = None,
) -> tuple[Int[Array, "rows group"], Float[Array, "rows group"]]:
    """One token a row of those that it `may` be, and its log-probability at the row's temperature (1 where greedy)."""
    temperatures = np.array(config.temperatures, np.float32)
    scaled = logits / np.where(temperatures > 0, temperatures, 1.0)[:, None]
    scores = open_to = scaled if may is None else jnp.where(may, scaled, NEVER)
    if temperatures.any():  # the largest of logits with Gumbel noise is a draw from their softmax
        noise = jax.vmap(jax.vmap(lambda key: jax.random.gumbel(key, logits.shape[-1:])))(keys)
        scores = jnp.where((temperatures > 0)[:, None], likely(open_to, config) + noise, open_to)
    token = first_largest(scores)
    log_prob, _ = token_log_probs(scaled, token)
    return token, log_prob


def first_largest(values: Float[Array, "... size"]) -> Int[Array, "..."]:
    """`argmax` over the last axis, by two reductions that XLA vectorises on CPU, where its own took 15% of decoding."""
    size = values.shape[-1]
    at_peak = values == jnp.max(values, axis=-1, keepdims=True)
    return jnp.min(jnp.where(at_peak, jnp.arange(size, dtype=jnp.int32), size - 1), axis=-1)


def likely(logits: Float[Array, "... vocab"], config: SamplingConfig) -> Float[Array, "... vocab"]:
    """The logits, without those that `top_k`, `top_p` or `min_p` leave out. The likeliest token always stays."""
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
    """Lengths of the cache, each with a loop of its own: no more than twice a completion's length is ever read."""
    sizes = [CACHE]
    while sizes[-1] < longest:
        sizes.append(2 * sizes[-1])
    return [*sizes[:-1], longest]


def _grown(cache: Cache, size: int) -> Cache:
    def longer(x):
        return jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(0, size - x.shape[-2]), (0, 0)])

    return jax.tree.map(longer, cache)


def _empty_state(model: Inserter, prompts: PromptBatch, config: SamplingConfig, prompt_cache: Cache) -> DecodeState:
    shape = (prompts.rows, config.group, config.max_length)

    def none_yet(x):
        *lead, _, dim = x.shape
        return jnp.zeros((*lead, config.group, 0, dim), x.dtype)

    return DecodeState(
        step=jnp.zeros((), jnp.int32),
        tokens=jnp.full(shape, model.config.special.pad, jnp.int32),
        log_probs=jnp.zeros(shape, jnp.float32),
        alive=jnp.ones(shape[:2], bool),
        lengths=jnp.zeros(shape[:2], jnp.int32),
        cache=jax.tree.map(none_yet, prompt_cache),
        place=None,
    )
