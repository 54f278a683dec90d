"""Count what a picture shows: OThink-MR1's visual counting (arXiv 2503.16081), R1-V's first task."""

from m2io_jax.tasks.verifiable import VerifiableTask, write
from m2io_jax.verification.plain import bare, read_number
from m2io_jax.verification.pool import Unverified


class CountingTask(VerifiableTask):
    """How many there are: a whole number, which is compared as one and needs no verifier."""

    name = "counting"
    instruction = "Count the things."
    what = "the number"
    example = write("red cube 1\nblue ball\nred cube 2", "2")

    def readable(self, answer: str) -> bool:
        return _count(answer) is not None

    def equal(self, gold: str, answer: str) -> bool:
        count = _count(gold)
        if count is None:
            raise Unverified("error", "the gold answer is no count")
        return _count(answer) == count


def _count(answer: str) -> int | None:
    number = read_number(bare(answer))
    whole = number is not None and not number.percent and number.value.denominator == 1 and number.value >= 0
    return int(number.value) if whole else None
