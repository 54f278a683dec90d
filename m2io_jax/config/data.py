"""What GRPO learns from: which prompts, which groups, at which weight (docs/data.md). All is off by default."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from m2io_jax.config.section import Count, Fraction, NotNegative, Positive, Section, refuse_unread, unfit

Decay = Annotated[float, Field(gt=0, lt=1)]


class FilterConfig(Section):
    """Groups whose mean outcome is below `low` or above `high` are dropped. Until an update has its prompts, a step
    samples others in their place, `rounds` times at most, the first included."""

    low: Fraction = 0.01
    high: Fraction = 0.99
    rounds: Count = 1

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if self.low > self.high:
            said = f"`data.filter.low` is {self.low:g} but must be at most `data.filter.high`, {self.high:g}"
            raise unfit("data.filter.low", said)
        return self


class ReplayConfig(Section):
    """A buffer of the last `size` groups with advantages, of which `share` of an update's groups are drawn, with
    probabilities that go by the size of their advantages to the power of `alpha`."""

    size: Count = 64
    share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    alpha: NotNegative = 1.0


class CurriculumConfig(Section):
    """Groups weigh by their accuracy, for an easy, a medium or a hard stage; with `length_weight`, wrong completions
    lose reward by their distance from the length of the group's right ones, or, where there are none, from
    `length_target`, and all of it from `length_limit` tokens on."""

    difficulty: Literal["easy", "medium", "hard"] = "medium"
    length_weight: NotNegative = 0.0
    length_target: Count = 750
    length_limit: Count = 4096

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        read = ("a length_weight above 0", self.length_weight > 0)
        refuse_unread(self, "data.curriculum", {"length_target": read, "length_limit": read})
        if self.length_target >= self.length_limit:
            said = f"`data.curriculum.length_target` is {self.length_target} but must be below length_limit"
            raise unfit("data.curriculum.length_target", said)
        return self


class NoiseConfig(Section):
    """Half of each group is sampled from pictures with noise: at first as after `steps` of 1000 diffusion steps, less
    and less around the share `middle` of the run, the faster the larger `steepness`."""

    steps: Annotated[int, Field(ge=0, lt=1000)] = 500
    steepness: Positive = 30.0
    middle: Fraction = 0.667


class SingleConfig(Section):
    """A baseline of each prompt from its own past, so that one completion a prompt is enough.

    Attributes:
        start: what is expected of a prompt that was never seen, as a share of the largest reward.
        decay_min, decay_max: bounds of how much of the past is kept at a visit.
        kl_target: of the mean KL to the reference over the last ten steps, by which it is chosen between them.
        entropy_weight, entropy_bound: what a token's entropy adds to the size of its advantage, and the part of the
            advantage (one in `entropy_bound`) that it adds at most. A weight of 0: nothing.
    """

    start: Fraction = 0.5
    decay_min: Decay = 0.875
    decay_max: Decay = 0.96
    kl_target: Positive = 0.01
    entropy_weight: NotNegative = 0.4
    entropy_bound: Annotated[float, Field(gt=1)] = 2.0

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if self.decay_min > self.decay_max:
            said = f"`data.single.decay_min` is {self.decay_min:g} but must be at most decay_max, {self.decay_max:g}"
            raise unfit("data.single.decay_min", said)
        refuse_unread(self, "data.single", {"entropy_bound": ("an entropy_weight above 0", self.entropy_weight > 0)})
        return self


class DataConfig(Section):
    """The data-side methods; each that is given is on, all can be.

    Attributes:
        outcome: reward parts that say whether a completion is right; of those that a task has, the mean counts.
        filter, history, replay, curriculum, noise, single: see their sections; `history` leaves out prompts whose
            completions were all right when they were last sampled.
    """

    outcome: tuple[str, ...] = ("accuracy", "placement")
    history: bool = False
    filter: FilterConfig | None = None
    curriculum: CurriculumConfig | None = None
    replay: ReplayConfig | None = None
    noise: NoiseConfig | None = None
    single: SingleConfig | None = None

    @model_validator(mode="after")
    def _all_is_read(self) -> Self:
        refuse_unread(self, "data", {"outcome": ("history, filter or curriculum", self.judges)})
        return self

    @property
    def judges(self) -> bool:
        """Whether a method asks if completions are right."""
        return bool(self.history or self.filter or self.curriculum)

    @property
    def remembers(self) -> bool:
        """Whether a method leaves something to later steps."""
        return bool(self.history or self.replay or self.single)
