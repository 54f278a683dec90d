"""What is raised on purpose: an error that the user can mend, which the command line prints without a traceback; a row
that is left out; a run's stop."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something outside the program is wrong.

    Args:
        what: what is wrong, in one sentence.
        where: the file, row or key it was found at.
        mend: what to do about it.
    """

    def __init__(self, what: str, *, where: str | None = None, mend: str | None = None):
        self.what, self.where, self.mend = what, where, mend
        super().__init__("\n".join(filter(None, [what, where and f"  where: {where}", mend and f"  mend:  {mend}"])))


class RowError(Exception):
    """This row cannot be used. `reason` is what it is counted under, so keep it general."""

    def __init__(self, reason: str):
        self.reason = reason
        super().__init__(reason)


class Stopped(SystemExit):
    """A run has stopped as it was asked to, in all its processes alike; the same command goes on from what it saved.
    `code` is the exit status."""


def unknown_name(key: str, name: str, allowed: Iterable[str], where: str | None = None) -> UserError:
    """The error for a name under `key` that nothing answers to, with the nearest one that something does."""
    return UserError(f"`{key}` names `{name}`, which is unknown.", where=where, mend=nearest(name, allowed))


def nearest(name: str, allowed: Iterable[str], prefix: str = "") -> str:
    """What to say of a name that is not among those allowed: the one that was perhaps meant, and all."""
    allowed = sorted(allowed)
    close = difflib.get_close_matches(name, allowed, n=1)
    guess = f"did you mean `{prefix}{close[0]}`? " if close else ""
    return f"{guess}allowed: {', '.join(allowed)}"
