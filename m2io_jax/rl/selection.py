"""Which groups are trained on, where more are sampled than an update takes."""

import numpy as np
from jaxtyping import Float, Int


def signal(rewards: Float[np.ndarray, "rows group"], advantage: str = "group") -> Float[np.ndarray, " rows"]:
    """How much there is to learn from each group: the root mean square of its advantages before they are scaled.

    That is the standard deviation of its rewards, but where advantages are not relative to the group. NaN, of a
    completion that could not be scored, says nothing of its group.

    Args:
        advantage: of `rl/advantages.py`: `batch` compares with the mean of all, `none` takes a reward as it is.
    """
    given = np.ma.masked_invalid(rewards.astype(np.float64))
    if advantage != "none":
        axis = None if advantage == "batch" else 1
        equal = given.max(axis, keepdims=True) == given.min(axis, keepdims=True)
        given = np.ma.where(equal, 0.0, given - given.mean(axis, keepdims=True))  # rounding of the mean is no signal
    return np.sqrt((given**2).mean(axis=1)).filled(0)


def strongest(signals: Float[np.ndarray, " rows"], keep: int) -> Int[np.ndarray, " keep"]:
    """The groups with most signal, at most `keep`, in the order of the batch.

    A group whose rewards are all equal has no advantage to learn from; the steps of sampling it are spent, those of an
    update need not be (dynamic sampling of DAPO, arXiv 2503.14476, 3.2, at a fixed cost; largest variance as in
    arXiv 2504.13818, here over groups).
    """
    return np.sort(np.argsort(-signals, kind="stable")[:keep]).astype(np.int32)
