"""The policy's losses by name. A new one is one file here, one line here, and its name in the configuration.

A loss takes log-probabilities of the tokens under the policy and under the one that the trust region is around (nats),
the advantages of completions or of their tokens (`gspo` and `gmpo`, whose tokens share one ratio: of completions
alone), and the mask of the tokens; and by keyword those of the settings `low`, `high`, `dual` and `temperatures` that
it names (training/objective.py). It returns the loss of every token, before any is added up, and by name which tokens
it clipped. Loss and gradient are those of the papers when tokens are aggregated as in the papers (docs/objectives.md).
Outside the mask all numbers must be finite; what a loss returns there is not looked at.
"""

from typing import Protocol

from jaxtyping import Array, Bool, Float

from m2io_jax.rl.losses.cispo import cispo
from m2io_jax.rl.losses.clip import clip
from m2io_jax.rl.losses.gmpo import gmpo
from m2io_jax.rl.losses.gspo import gspo
from m2io_jax.rl.losses.sapo import sapo

LOSSES = {"clip": clip, "gspo": gspo, "gmpo": gmpo, "cispo": cispo, "sapo": sapo}


class PolicyLoss(Protocol):
    """One of `LOSSES` with its settings given."""

    def __call__(
        self,
        log_probs: Float[Array, "*batch time"],
        old_log_probs: Float[Array, "*batch time"],
        advantages: Float[Array, "*batch"] | Float[Array, "*batch time"],
        mask: Bool[Array, "*batch time"],
    ) -> tuple[Float[Array, "*batch time"], dict[str, Bool[Array, "*batch time"]]]: ...
