"""Programs as JAX traces them."""

import jax.extend


def equations(jaxpr):
    """Every equation, those inside loops and calls too."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from equations(inner)
