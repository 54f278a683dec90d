"""Count what a picture shows: OThink-MR1's visual counting (arXiv 2503.16081), R1-V's first task."""

from m2io_jax.tasks.verifiable import VerifiableTask, write
from m2io_jax.verification.pool import Unverified
from m2io_jax.verification.quantities import Quantity, same_quantity, whole_count
from m2io_jax.verification.readings import read


class CountingTask(VerifiableTask):
    """How many there are: a whole number, in digits or in words, with a noun or without. Needs no worker."""

    name = "counting"
    instruction = "Count the things."
    what = "the number"
    example = write("red cube 1\nblue ball\nred cube 2", "2")

    def readable(self, answer: str) -> bool:
        return _count(answer) is not None

    def equal(self, gold: str, answer: str) -> bool:
        truth = _count(gold)
        if truth is None:
            raise Unverified("error", "the gold answer is no count")
        count = _count(answer)
        verdict = False if count is None else same_quantity(truth, count)
        if verdict is None:
            raise Unverified("error", "the number is right, but its noun is another")
        return verdict


def _count(answer: str) -> Quantity | None:
    """Return the whole number that an answer is, from 0 on; None where it is none."""
    reading = read(answer)
    if isinstance(reading, Quantity) and not reading.ordinal and whole_count(reading) is not None:
        return reading
    return None
