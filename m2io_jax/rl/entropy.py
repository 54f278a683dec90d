"""A weight of the entropy bonus that holds the policy's entropy near a target."""


def adapted_coefficient(coef: float, entropy: float, *, target: float, delta: float, most: float) -> float:
    """The weight of the next step: a step of `delta` up where the entropy is below the target, down where it is above.

    Skywork-OR1's rule (arXiv 2505.22312, adaptive entropy control), which also drops the bonus whole while the entropy
    is above the target. Here it falls step by step, and it stays between 0 and `most`: a target that cannot be reached
    would have it grow without end.

    Args:
        coef: the weight of this step.
        entropy, target: nats a token.
    """
    step = delta if entropy < target else -delta if entropy > target else 0.0
    return min(max(coef + step, 0.0), most)
