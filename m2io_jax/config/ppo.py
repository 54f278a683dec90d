"""What PPO has beside the objective of its policy: a critic."""

from m2io_jax.config.section import Fraction, Positive, Section


class PPOConfig(Section):
    """Advantages by a critic, and how that learns. The rest of the objective is `grpo`'s (docs/objectives.md).

    Attributes:
        discount, gae_lambda: gamma and lambda of generalised advantage estimation (`rl/advantages.py`).
        whiten: advantages of a batch's tokens are given mean 0 and standard deviation 1.
        value_clip: how far updates on the same rollouts may move a value, in the reward's unit. None: any far.
        critic_learning_rate: of the critic, at its highest; over the run it goes as the policy's does. None: the
            policy's.
    """

    discount: Fraction = 1.0
    gae_lambda: Fraction = 1.0
    whiten: bool = True
    value_clip: Positive | None = 0.2
    critic_learning_rate: Positive | None = None
