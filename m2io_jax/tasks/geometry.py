"""Work out an angle, a length or an area from a drawn figure: OThink-MR1's geometry reasoning, LMM-R1's MGT-Geo."""

from m2io_jax.tasks.verifiable import VerifiableTask, write


class GeometryTask(VerifiableTask):
    """The answer is a number or an expression; degrees need no sign."""

    name = "geometry"
    instruction = "Solve the figure."
    what = "the number or the expression"
    example = write("50+60=110\n180-110=70", "70")
