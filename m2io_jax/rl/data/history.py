"""History resampling (SRPO, arXiv 2504.14286): prompts that are always answered right are left out."""

from m2io_jax.rl.data.method import Method, Metrics, Scored


class History(Method):
    """Leaves out prompts whose completions were all right when they were last sampled; mixed and all wrong ones stay.

    SRPO does so at the end of an epoch, for the next ones. A prompt comes once an epoch, so to leave it out from its
    next visit on is the same, and needs no epochs. Where nothing else is left, it begins anew.
    """

    def __init__(self, settings):
        super().__init__(settings)
        self.memory = {"solved": {}}  # a dict in place of a set: JSON, in the order of arrival
        self._skipped = self._in_a_row = self._forgotten = 0

    def admits(self, key: str) -> bool:
        solved = self.memory["solved"]
        if key not in solved:
            self._in_a_row = 0
            return True
        self._skipped, self._in_a_row = self._skipped + 1, self._in_a_row + 1
        if self._in_a_row > 2 * len(solved):  # an epoch's end and the next one's beginning may both be solved
            self.memory["solved"] = {}
            self._in_a_row, self._forgotten = 0, self._forgotten + 1
            return True
        return False

    def scored(self, groups: Scored) -> tuple[Scored, Metrics]:
        for key, outcomes in zip(groups.keys, groups.outcomes, strict=True):
            if (outcomes >= 1).all():  # not of NaN: what could not be scored is not known to be right
                self.memory["solved"][key] = True
        done = {
            "data/history/solved": float(len(self.memory["solved"])),
            "data/history/skipped": float(self._skipped),
            "data/history/forgotten": float(self._forgotten),
        }
        self._skipped = self._forgotten = 0
        return groups, done
