"""How completions are sampled, and what GRPO minimises."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from m2io_jax.config.section import Count, Fraction, NotNegative, Positive, Section, refuse_unread, unfit


class RolloutConfig(Section):
    """Sampling of `group_size` completions a prompt at `temperature`, from the `top_k` likeliest tokens (0: all), the
    fewest with a probability of `top_p` together, those with `min_p` of the likeliest's; `constrained`, from those
    that keep to the task's grammar. None of these is part of the policy: its log-probabilities are those without.

    `gather`: the weights that `mesh.fsdp` splits are gathered once a rollout and not for every token; a device then
    holds them whole, but for `mesh.tensor`, while it decodes. Evaluation decodes in the same way.

    `prompts` are sampled a step (None: `batch.prompts`); the groups whose rewards differ most are trained on. They are
    sampled in so many `micro_batches`, one after another: the same completions, with the caches of fewer at a time.

    `ahead`: how many steps before the update that learns from them completions are sampled, by the policy of then. The
    trust region is around that policy; or `grpo.rollout_correction` makes up for the difference."""

    prompts: Count | None = None
    micro_batches: Count = 1
    group_size: Count = 8
    temperature: Positive = 1.0
    top_k: Annotated[int, Field(ge=0)] = 0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    min_p: Annotated[float, Field(ge=0, lt=1)] = 0.0
    constrained: bool = False
    gather: bool = False
    ahead: Annotated[int, Field(ge=0)] = 0


# Of each loss the papers' `clip_epsilon` and `clip_epsilon_high` (docs/objectives.md); `sapo` reads neither.
CLIP = {"clip": (0.2, None), "gspo": (3e-4, 4e-4), "gmpo": (0.4, None), "cispo": (1.0, 4.0), "sapo": (0.2, None)}


def _is_papers(given: dict) -> bool:
    return given.get("clip_epsilon") == CLIP[given["loss"]][0]


class GRPOConfig(Section):
    """The objective: a loss, what advantages are relative to, how tokens are weighed (docs/objectives.md).

    Attributes:
        loss: of each token (`rl/losses`).
        clip_epsilon, clip_epsilon_high: how far below and above 1 the importance ratio counts (`gmpo`: its logarithm,
            from 0). By default those of the loss's paper (`CLIP`), so a configuration that leaves the choice of loss
            open does not set them. The first alone counts for both.
        dual_clip: `clip` alone: the largest ratio that counts against a completion worse than its group.
        sapo_temperatures: `sapo` alone: of tokens with advantages above 0, and of the others.
        advantage: what a reward is compared with (`rl/advantages.py`).
        scale_rewards: `group` alone: divide by the group's standard deviation.
        loss_aggregation: how tokens are weighed (`rl/losses.py`). By default as in the loss's paper: `token_mean`
            for `cispo`, `sequence_mean` for the others.
        kl_beta: weight of the KL to the frozen reference, the largest where it changes. 0: no reference is kept.
        kl_schedule, kl_beta_min, kl_turn: how the weight changes over the run, the least it gets, and the share of the
            run after which `grpo_d` turns (`rl/kl.py`).
        kl_estimator: of the KL (`rl/kl.py`).
        entropy_coef: weight of the entropy bonus.
        entropy_target, entropy_delta, entropy_coef_max: with a target (nats a token) the weight only starts there, and
            each step moves it by the second, up to the third (`rl/kl.py`).
        rollout_correction: weigh tokens by the trainer's probability over the sampler's, with large weights truncated
            or weights out of bounds masked (`rl/losses.py`). `none`: the trust region is around the sampler.
        rollout_weight_min, rollout_weight_max: these bounds; `truncate` knows the second alone.
        overlong_penalty, overlong_buffer: what a completion of full length loses of its reward, and how many tokens
            before that it begins to (`rl/rewards.py`).
        overlong_filter: learn nothing from completions that were cut off.
        updates_per_rollout: updates on the same rollouts.
    """

    loss: Literal["clip", "gspo", "gmpo", "cispo", "sapo"] = "clip"
    clip_epsilon: Annotated[float, Field(gt=0, le=1)] = Field(default_factory=lambda given: CLIP[given["loss"]][0])
    clip_epsilon_high: Positive | None = Field(
        # one that is given without the other counts for both
        default_factory=lambda given: CLIP[given["loss"]][1] if _is_papers(given) else None
    )
    dual_clip: Annotated[float, Field(gt=1)] | None = None
    sapo_temperatures: tuple[Positive, Positive] = (1.0, 1.05)
    advantage: Literal["group", "leave_one_out", "batch_std", "reinforce_baseline", "batch", "none"] = "group"
    scale_rewards: bool = True
    loss_aggregation: Literal["sequence_mean", "token_mean", "constant_length"] = Field(
        default_factory=lambda given: "token_mean" if given["loss"] == "cispo" else "sequence_mean"
    )
    kl_beta: NotNegative = 0.02
    kl_schedule: Literal["constant", "linear", "grpo_d"] = "constant"
    kl_beta_min: NotNegative = 0.0
    kl_turn: Annotated[float, Field(ge=0, lt=1)] = 0.3
    kl_estimator: Literal["k1", "k2", "k3", "k1+", "k3+"] = "k3"
    entropy_coef: NotNegative = 0.0
    entropy_target: Positive | None = None
    entropy_delta: Positive = 0.005
    entropy_coef_max: Positive = 0.1
    rollout_correction: Literal["none", "truncate", "mask"] = "none"
    rollout_weight_min: Fraction = 0.5
    rollout_weight_max: Annotated[float, Field(ge=1)] = Field(
        default_factory=lambda given: 5.0 if given["rollout_correction"] == "mask" else 2.0
    )
    overlong_penalty: NotNegative = 0.0
    overlong_buffer: Count = 16
    overlong_filter: bool = False
    updates_per_rollout: Count = 1

    @property
    def foreign_clip(self) -> str | None:
        """Say how the clip differs from that of the loss's paper; None if it does not, or if the loss is `clip`."""
        papers = CLIP[self.loss]
        if self.loss == "clip" or (self.clip_epsilon, self.clip_epsilon_high) == papers:
            return None

        def show(low: float, high: float | None) -> str:
            return f"{low:g} below and {low if high is None else high:g} above"

        own = show(self.clip_epsilon, self.clip_epsilon_high)
        return f"grpo.clip_epsilon is {own}, as it is set; the paper of {self.loss} has {show(*papers)}"

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.kl_beta_min > self.kl_beta:
            said = f"`grpo.kl_beta_min` is {self.kl_beta_min:g} but must be at most `grpo.kl_beta`, {self.kl_beta:g}"
            raise unfit("grpo.kl_beta_min", said)
        if self.entropy_target is not None and self.entropy_coef > self.entropy_coef_max:
            most = self.entropy_coef_max
            said = f"`grpo.entropy_coef` is {self.entropy_coef:g} but must be at most `grpo.entropy_coef_max`, {most:g}"
            raise unfit("grpo.entropy_coef", said)
        return self

    @model_validator(mode="after")
    def _all_is_read(self) -> Self:
        # What is set but would not be read is a slip that no run should hide.
        loss = self.loss
        readers = {
            "clip_epsilon": ("a loss but sapo", loss != "sapo"),
            "clip_epsilon_high": ("a loss but sapo", loss != "sapo"),
            "dual_clip": ("loss clip", loss == "clip"),
            "sapo_temperatures": ("loss sapo", loss == "sapo"),
            "scale_rewards": ("advantage group", self.advantage == "group"),
            "kl_schedule": ("a kl_beta above 0", self.kl_beta > 0),
            "kl_estimator": ("a kl_beta above 0", self.kl_beta > 0),
            "kl_beta_min": ("kl_schedule linear or grpo_d", self.kl_schedule != "constant"),
            "kl_turn": ("kl_schedule grpo_d", self.kl_schedule == "grpo_d"),
            "entropy_delta": ("an entropy_target", self.entropy_target is not None),
            "entropy_coef_max": ("an entropy_target", self.entropy_target is not None),
            "rollout_weight_min": ("rollout_correction mask", self.rollout_correction == "mask"),
            "rollout_weight_max": ("a rollout_correction", self.rollout_correction != "none"),
            "overlong_buffer": ("an overlong_penalty above 0", self.overlong_penalty > 0),
        }
        refuse_unread(self, "grpo", readers)
        return self
