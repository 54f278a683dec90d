"""Which groups are trained on, where more are sampled than an update takes."""

import numpy as np
from jaxtyping import Float, Int


def most_signal(rewards: Float[np.ndarray, "rows group"], keep: int, shards: int = 1) -> Int[np.ndarray, " keep"]:
    """The groups whose rewards differ most, in the order of the batch, `keep / shards` from each of the batch's shards.

    A group whose rewards are all equal has no advantage to learn from; the steps of sampling it are spent, those of an
    update need not be (dynamic sampling of DAPO, arXiv 2503.14476, 3.2, at a fixed cost; largest variance as in
    arXiv 2504.13818, here over groups). Each device keeps rows of its own, so that none has to move.

    Args:
        rewards: of all sampled completions, the rows of one shard after those of another; NaN where one could not be
            scored, which then says nothing of its group.
        keep: groups to train on.
        shards: equal parts of the batch.

    Returns:
        Rows to keep, each counted from the start of its shard.

    Raises:
        ValueError: rows or groups that cannot be shared out evenly.
    """
    if len(rewards) % shards or keep % shards:
        raise ValueError(f"{keep} of {len(rewards)} groups cannot be kept evenly from {shards} shards")
    spread = np.ma.masked_invalid(rewards).std(axis=1).filled(0).reshape(shards, -1)
    largest = np.argsort(-spread, axis=1, kind="stable")[:, : keep // shards]
    return np.sort(largest, axis=1).reshape(-1).astype(np.int32)
