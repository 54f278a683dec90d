"""A prompt's completions on the host: what rollouts become before an update, so that they can be dropped, kept for
later, replayed and saved."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from m2io_jax.episodes.batching import PromptRow, stack_prompts
from m2io_jax.models.inputs import Completions, PromptBatch
from m2io_jax.sampling.sampler import Rollouts


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Group:
    """Arrays in NumPy.

    Attributes:
        pictures: encoded ones, where every policy of the run encodes them alike; else None.
        log_probs: of the tokens under the policy that sampled them, given the clean pictures.
        rewards: NaN where a completion could not be scored: nothing is learnt from it.
        weight: what the advantages are multiplied with.
        signal: how much there is to learn (`rl/selection.py`).
        step: steps of the run before the one that sampled it.
    """

    prompt: PromptRow
    pictures: Float[np.ndarray, "media size"] | None
    tokens: Int[np.ndarray, "group time"]
    mask: Bool[np.ndarray, "group time"]
    log_probs: Float[np.ndarray, "group time"]
    rewards: Float[np.ndarray, " group"]
    weight: Float[np.ndarray, ""]
    signal: Float[np.ndarray, ""]
    step: Int[np.ndarray, ""]

    def completions(self) -> list[list[int]]:
        """Tokens of each, padding left out."""
        return [ids[real].tolist() for ids, real in zip(self.tokens, self.mask, strict=True)]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class GroupBatch:
    """Groups as an update takes them, a row each.

    Attributes:
        pictures: encoded ones, that no gradient reaches; None: an update encodes them itself.
        rewards: NaN where a completion could not be scored.
        weights: what groups' advantages are multiplied with; None: nothing.
        reference_log_probs: what the KL penalty is taken to, of as many tokens as the update is of; None where there is
            none.
        own_log_probs: the same of the policy before the first of the updates, where they look back at it.
    """

    prompts: PromptBatch
    pictures: Float[Array, "rows media size"] | None
    rollouts: Rollouts
    rewards: Float[Array, "rows group"]
    weights: Float[Array, " rows"] | None = None
    reference_log_probs: Float[Array, "rows group length"] | None = None
    own_log_probs: Float[Array, "rows group length"] | None = None


def blank_group(prompt: PromptRow, pictures: jax.ShapeDtypeStruct | None, group: int, length: int) -> Group:
    """A group that teaches nothing, in the shapes of every other.

    Args:
        prompt: one that says nothing.
        pictures: shape and dtype of a prompt's encoded pictures.
    """
    shape = (group, length)
    return Group(
        prompt=prompt,
        pictures=None if pictures is None else np.zeros(pictures.shape, pictures.dtype),
        tokens=np.zeros(shape, np.int32),
        mask=np.zeros(shape, bool),
        log_probs=np.zeros(shape, np.float32),
        rewards=np.full(group, np.nan, np.float32),
        weight=np.float32(1),
        signal=np.float32(0),
        step=np.int32(0),
    )


def as_groups(prompts: Sequence[PromptRow], pictures: np.ndarray | None, rollouts: Rollouts, step: int) -> list[Group]:
    """Groups of what was sampled (arrays in NumPy), not scored yet."""
    blank = blank_group(prompts[0], None, *rollouts.log_probs.shape[1:])
    tokens, mask, log_probs = rollouts.completions.tokens, rollouts.completions.mask, rollouts.log_probs
    return [
        replace(
            blank,
            prompt=prompt,
            # copies: one row that is kept is not to keep the whole batch
            pictures=None if pictures is None else pictures[row].copy(),
            tokens=tokens[row].copy(),
            mask=mask[row].copy(),
            log_probs=log_probs[row].copy(),
            step=np.int32(step),
        )
        for row, prompt in enumerate(prompts)
    ]


def batched(groups: Sequence[Group]) -> GroupBatch:
    """Groups of the same shapes become a batch."""
    stacked = stack_groups([replace(group, prompt=None) for group in groups])
    rollouts = Rollouts(Completions(stacked.tokens, stacked.mask), stacked.log_probs)
    prompts = stack_prompts([group.prompt for group in groups])
    return GroupBatch(prompts, stacked.pictures, rollouts, stacked.rewards, stacked.weight)


def stack_groups(groups: Sequence[Group]) -> Group:
    """One group whose arrays have a row for each."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *groups)


def unstack_groups(stacked: Group, count: int) -> list[Group]:
    """The first `count` of what `stack_groups` was given."""
    return [jax.tree.map(lambda leaf, row=row: np.array(leaf[row]), stacked) for row in range(count)]
