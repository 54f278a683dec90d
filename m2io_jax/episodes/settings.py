"""Checks of settings that are plain dataclasses: what is wrong is told with what is allowed."""

from collections.abc import Sequence

from m2io_jax.errors import UserError


def require(holds: bool, name: str, value: object, allowed: str) -> None:
    """Raises UserError for a setting out of its bounds."""
    if not holds:
        raise UserError(f"{name} is {value!r}.", where=name, mend=f"allowed: {allowed}")


def chosen(name: str, text: str, known: Sequence[str]) -> tuple[str, ...]:
    """The names in a text such as `add,subtract`. Raises UserError where one is unknown, or there is none."""
    names = tuple(part.strip() for part in text.split(","))
    require(set(names) <= set(known), name, text, f"some of {', '.join(known)}, with commas")
    return names
