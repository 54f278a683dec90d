"""The one exception that means "the user can mend this": the command line prints it without a traceback."""


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
