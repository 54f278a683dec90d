"""What completions may look like, as an automaton over bytes: a task states it, constrained decoding keeps to it."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Step:
    """Where a byte leads: the next state, and the label or the slot that is named by it (-1: none)."""

    state: Hashable
    label: int = -1
    slot: int = -1


class Grammar(Protocol):
    """An automaton over bytes, with `start` and the one state `end`."""

    start: Hashable
    end: Hashable

    def step(self, state: Hashable, byte: int) -> Step | None:
        """Where a byte leads from a state; None where it is not allowed."""
        ...
