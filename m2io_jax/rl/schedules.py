"""The KL penalty's weight, a function of the share of the run that is done: a resumed run needs no state for it."""

from typing import Literal

Schedule = Literal["constant", "linear", "grpo_d"]


def kl_weight(schedule: Schedule, progress: float, *, least: float, most: float, turn: float) -> float:
    """The weight at `progress` (0 to 1; beyond 1 as at 1) of the run.

        constant    most
        linear      from least to most
        grpo_d      from (least + most)/2 down to least at `turn`, then up to most

    `grpo_d` is GRPO-D's (OThink-MR1, arXiv 2503.16081, eq. 3) with progress = s/t and turn = w/t, which is 0.3 there.
    The equation is followed where the paper's prose, which has the weight start small, disagrees with it.

    Raises:
        ValueError: an unknown schedule.
    """
    progress = min(progress, 1.0)
    if schedule == "constant":
        return most
    if schedule == "linear":
        return least + (most - least) * progress
    if schedule == "grpo_d":
        if progress < turn:
            middle = (least + most) / 2
            return middle - (middle - least) * progress / turn
        return least + (most - least) * (progress - turn) / (1 - turn)
    raise ValueError(f"no schedule is called {schedule!r}: constant, linear or grpo_d")
