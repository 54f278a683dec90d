"""Sampling: a prompt's pictures are encoded once, the prompt prefilled once, and its G completions share its cache."""

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from m2io_jax.models.inputs import Completions, PromptBatch
from m2io_jax.models.inserter import Inserter, token_log_probs
from m2io_jax.models.language import KeysValues


@dataclass(frozen=True)
class SamplingConfig:
    """Static settings of a decode loop.

    Attributes:
        temperatures: one a completion of the group; 0 decodes greedily. A group may mix them.
        max_length: longest completion, in tokens, stop token included.
    """

    temperatures: tuple[float, ...]
    max_length: int

    @property
    def group(self) -> int:
        return len(self.temperatures)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Rollouts:
    """Sampled completions. `log_probs` are the policy's own at each row's temperature (at 1 where it was 0)."""

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
    """

    step: Int[Array, ""]
    tokens: Int[Array, "rows group time"]
    log_probs: Float[Array, "rows group time"]
    alive: Bool[Array, "rows group"]
    lengths: Int[Array, "rows group"]
    cache: KeysValues


def sample(model: Inserter, prompts: PromptBatch, config: SamplingConfig, *, key: Key[Array, ""]) -> Rollouts:
    """Samples `config.group` completions of every prompt.

    What a row gets depends on `key`, its prompt's seed and its place in the group: not on the rest of the batch.
    """
    rows, group = prompts.rows, config.group
    special = model.config.special
    places = jnp.arange(group)
    row_keys = jax.vmap(lambda seed: jax.vmap(partial(jax.random.fold_in, jax.random.fold_in(key, seed)))(places))(
        prompts.seeds
    )
    temperatures = jnp.asarray(config.temperatures)

    hidden, prompt_cache = model.language.prefill(model.embed_prompt(prompts), prompts.positions.transpose(1, 0, 2))
    last = jnp.take_along_axis(hidden, prompts.mask.sum(1)[:, None, None] - 1, axis=1)
    first_logits = jnp.broadcast_to(model.next_token_logits(last), (rows, group, model.config.text.vocab_size))

    def draw(state: DecodeState, logits) -> DecodeState:
        keys = jax.vmap(jax.vmap(lambda k: jax.random.fold_in(k, state.step)))(row_keys)
        token, log_prob = sample_token(logits, temperatures, keys)
        token = jnp.where(state.alive, token, special.pad)
        log_prob = jnp.where(state.alive, log_prob, 0.0)
        return replace(
            state,
            step=state.step + 1,
            tokens=jax.lax.dynamic_update_index_in_dim(state.tokens, token, state.step, axis=2),
            log_probs=jax.lax.dynamic_update_index_in_dim(state.log_probs, log_prob, state.step, axis=2),
            lengths=state.lengths + state.alive,
            alive=state.alive & (token != special.eos),
        )

    def unfinished(state: DecodeState):
        return (state.step < config.max_length) & jnp.any(state.alive)

    def extend(state: DecodeState) -> DecodeState:
        written = state.step - 1
        token = jax.lax.dynamic_index_in_dim(state.tokens, written, axis=2, keepdims=False)
        position = jnp.broadcast_to(prompts.next_position[None, :, None] + written, (3, rows, group))
        hidden, cache = model.language.decode(
            model.language.embed(token), position, prompt_cache, prompts.mask, state.cache, written
        )
        return draw(replace(state, cache=cache), model.next_token_logits(hidden))

    state = draw(_empty_state(model, prompts, config, prompt_cache), first_logits)
    state = jax.lax.while_loop(unfinished, extend, state)
    mask = jnp.arange(config.max_length) < state.lengths[..., None]
    return Rollouts(Completions(state.tokens, mask), state.log_probs)


def sample_token(
    logits: Float[Array, "rows group vocab"], temperatures: Float[Array, " group"], keys: Key[Array, "rows group"]
) -> tuple[Int[Array, "rows group"], Float[Array, "rows group"]]:
    """One token a row, and its log-probability at the row's temperature (1 where greedy)."""
    scale = jnp.where(temperatures > 0, temperatures, 1.0)[:, None]
    drawn = jax.vmap(jax.vmap(jax.random.categorical))(keys, logits / scale)
    token = jnp.where(temperatures > 0, drawn, jnp.argmax(logits, axis=-1))
    log_prob, _ = token_log_probs(logits / scale, token)
    return token.astype(jnp.int32), log_prob


def _empty_state(
    model: Inserter, prompts: PromptBatch, config: SamplingConfig, prompt_cache: KeysValues
) -> DecodeState:
    shape = (prompts.rows, config.group, config.max_length)
    layers, rows, heads, _, dim = prompt_cache.keys.shape
    cache = jnp.zeros((layers, rows, heads, config.group, config.max_length, dim), prompt_cache.keys.dtype)
    return DecodeState(
        step=jnp.zeros((), jnp.int32),
        tokens=jnp.full(shape, model.config.special.pad, jnp.int32),
        log_probs=jnp.zeros(shape, jnp.float32),
        alive=jnp.ones(shape[:2], bool),
        lengths=jnp.zeros(shape[:2], jnp.int32),
        cache=KeysValues(cache, cache),
    )


