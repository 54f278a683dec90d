"""Constrained decoding: a task's grammar as an automaton over tokens, so that every completion can be read.

A grammar is an automaton over bytes. `compile_grammar` runs every token of the vocabulary through it from every state;
what is left to the decode loop is to look up a row of the tables. Which labels exist, and how far slots go, depends on
the prompt, and a label may be used once: so a token's labels and its largest slot are tables too.

Completions end in time: a token after which the shortest way to the end no longer fits is not drawn.
"""

from dataclasses import dataclass
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Int, UInt32

from m2io_jax.errors import UserError
from m2io_jax.grammar import Grammar
from m2io_jax.models.sizes import ModelConfig
from m2io_jax.parallel.sharding import place, place_batch, replicated

MOST_LABELS = 26  # one letter each, so that a label is used up by its letter
DEAD = -1
FAR = np.int16(1 << 14)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TokenAutomaton:
    """A grammar over the tokens of a vocabulary. State 0 is the start, the last that after the stop token.

    Attributes:
        after: the state after a token, -1 where it is not allowed.
        labels: a bit for each label that the token uses.
        slots: the largest slot that the token names, -1 for none.
        to_end: after a token, how many more the shortest way to the end has, whatever the prompt.
        shortest: that way's tokens from the start.
    """

    after: Int[Array, "states vocab"]
    labels: UInt32[Array, "states vocab"]
    slots: Int[Array, "states vocab"]
    to_end: Int[Array, "states vocab"]
    shortest: Int[Array, ""]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Limits:
    """What a prompt's completions may name: a bit for each of its labels, and the last of its slots."""

    labels: UInt32[Array, " rows"]
    slots: Int[Array, " rows"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Constraint:
    """The grammar that completions keep to, and what each prompt's may name."""

    automaton: TokenAutomaton
    limits: Limits


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Place:
    """Where completions stand in the grammar, and the labels they have used."""

    state: Int[Array, "rows group"]
    used: UInt32[Array, "rows group"]


class Constraints:
    """The constraints of batches, for one grammar and one model.

    Raises:
        UserError: no completion of the grammar fits `max_length` tokens.
    """

    def __init__(
        self, grammar: Grammar, tokens: list[bytes | None], model: ModelConfig, mesh: Mesh, *, max_length: int
    ):
        padded = [*tokens, *[None] * (model.text.vocab_size - len(tokens))]
        automaton = compile_grammar(grammar, padded, model.special.eos)
        if automaton.shortest > max_length:
            what = f"The grammar's shortest completion has {automaton.shortest} tokens, with {max_length} allowed."
            raise UserError(what, where="batch.completion_length", mend="allow more, or decode without the grammar")
        self._mesh, self._automaton = mesh, place(automaton, replicated(mesh))

    @staticmethod
    def refuses(names: tuple[int, int]) -> str | None:
        """Why a prompt with so many labels cannot be constrained; None where it can."""
        return "more pictures than constrained decoding has letters for" if names[0] > MOST_LABELS else None

    def batch(self, names: list[tuple[int, int]]) -> Constraint:
        """`names`: how many labels, and which last slot, each prompt has.

        Raises:
            UserError: more labels than letters.
        """
        return Constraint(self._automaton, place_batch(limits(names), self._mesh))


def limits(pairs: list[tuple[int, int]]) -> Limits:
    """Limits of rows from how many labels, and which last slot, each has.

    Raises:
        UserError: more labels than letters.
    """
    most = max((labels for labels, _ in pairs), default=0)
    if most > MOST_LABELS:
        raise UserError(f"Constrained decoding knows {MOST_LABELS} pictures a prompt, not {most}.", where="constrained")
    bits = np.array([(1 << labels) - 1 for labels, _ in pairs], np.uint32)
    return Limits(bits, np.array([slots for _, slots in pairs], np.int32))


def compile_grammar(grammar: Grammar, tokens: list[bytes | None], eos: int) -> TokenAutomaton:
    """The grammar over a vocabulary.

    Args:
        tokens: the bytes of every token; None for those that are not text, which are never drawn.
        eos: the stop token, which is drawn at the end and nowhere else.
    """
    numbers, order = {grammar.start: 0}, [grammar.start]
    rows: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    trie, step_from = _trie(tokens), cache(grammar.step)
    while len(rows) < len(order):
        after, slots = np.full(len(tokens), DEAD, np.int16), np.full(len(tokens), DEAD, np.int16)
        labels = np.zeros(len(tokens), np.uint32)
        ways = [(trie, order[len(rows)], 0, DEAD)]
        while ways:  # along the trie, so that what tokens have in common is walked once
            node, state, used, slot = ways.pop()
            for token in node.tokens:
                if state not in numbers:
                    numbers[state] = len(order)
                    order.append(state)
                after[token], labels[token], slots[token] = numbers[state], used, slot
            for byte, deeper in node.children.items():
                step = step_from(state, byte)
                if step is None or (step.label >= 0 and used >> step.label & 1):
                    continue
                now_used = used | 1 << step.label if step.label >= 0 else used
                ways.append((deeper, step.state, now_used, max(slot, step.slot)))
        rows.append((after, labels, slots))
    after, labels, slots = (np.stack([*column, column[0] * 0]) for column in zip(*rows, strict=True))
    after[-1] = DEAD  # the last state is that of completions that have stopped
    after[numbers[grammar.end], eos] = len(rows)
    distance = _to_end(after, labels, slots)
    return TokenAutomaton(after, labels, slots, distance[after], distance[0])


def _to_end(after: np.ndarray, labels: np.ndarray, slots: np.ndarray) -> np.ndarray:
    """Of every state: the tokens to the last by those that every prompt allows, with no label and no slot but 0."""
    always = (after >= 0) & (labels == 0) & (slots <= 0)
    distance = np.full(len(after), FAR, np.int16)
    distance[-1] = 0
    while True:
        shorter = np.minimum(distance, np.where(always, distance[after], FAR).min(1) + 1)
        if (shorter == distance).all():
            return distance
        distance = shorter


class _Node:
    __slots__ = ("children", "tokens")

    def __init__(self):
        self.children: dict[int, _Node] = {}
        self.tokens: list[int] = []


def _trie(tokens: list[bytes | None]) -> _Node:
    root = _Node()
    for token, text in enumerate(tokens):
        if text:
            node = root
            for byte in text:
                node = node.children.setdefault(byte, _Node())
            node.tokens.append(token)
    return root


def begin(rows: int, group: int) -> Place:
    return Place(jnp.zeros((rows, group), jnp.int32), jnp.zeros((rows, group), jnp.uint32))


def allowed_tokens(
    constraint: Constraint, place: Place, remaining: Int[Array, ""]
) -> Bool[Array, "rows group vocab"]:
    """Return which tokens may come next, where at most `remaining` more may follow them."""
    automaton, state = constraint.automaton, place.state
    after, labels = automaton.after[state], automaton.labels[state]
    unused = constraint.limits.labels[:, None] & ~place.used
    return (
        (after >= 0)
        & (labels & ~unused[..., None] == 0)
        & (automaton.slots[state] <= constraint.limits.slots[:, None, None])
        & (automaton.to_end[state] <= remaining)
    )


def advance(constraint: Constraint, place: Place, token: Int[Array, "rows group"]) -> Place:
    """Return the places after an allowed token; completions that have stopped stay where they are."""
    after = constraint.automaton.after[place.state, token]
    used = place.used | constraint.automaton.labels[place.state, token]
    return Place(jnp.where(after >= 0, after, place.state).astype(place.state.dtype), used)
