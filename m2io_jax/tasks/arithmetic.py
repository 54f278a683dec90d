"""Solve a problem told in words alone: the text that LMM-R1 begins with (FRE-Text, arXiv 2503.07536)."""

from m2io_jax.tasks.verifiable import VerifiableTask, write


class ArithmeticTask(VerifiableTask):
    """The answer is a number or an expression."""

    name = "arithmetic"
    instruction = "Solve the problem."
    what = "the number or the expression"
    example = write("3*4=12\n12-5=7", "7")
