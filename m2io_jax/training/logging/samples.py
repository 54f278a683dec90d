"""What a step sampled, as people want to see it: prompts with their pictures, completions and what they earned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from m2io_jax.episodes.episode import Episode
from m2io_jax.pages import environment
from m2io_jax.tasks.task import label, labelled_question


@dataclass(frozen=True)
class SampledCompletion:
    """What the model wrote and what it was worth.

    Attributes:
        parts: reward parts by name; none where the completion could not be scored.
        reward: their weighted sum; None where the completion could not be scored.
        advantage: what the update went by.
    """

    text: str
    parts: Mapping[str, float]
    reward: float | None
    advantage: float


@dataclass(frozen=True)
class SampledGroup:
    """A prompt, by its episode and task, and its completions."""

    task: str
    episode: Episode
    completions: tuple[SampledCompletion, ...]

    @property
    def question(self) -> str:
        """The question, with the labels of the images that stand inside it."""
        return labelled_question(self.episode)

    @property
    def expected(self) -> str:
        """What is right: the answer, or the placements as completions write them."""
        placed = (f"{label(placement.picture)}:{placement.slot}" for placement in self.episode.gold)
        return self.episode.answer or ", ".join(placed) or "none"

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of the reward parts."""
        return tuple(dict.fromkeys(name for completion in self.completions for name in completion.parts))


@dataclass(frozen=True)
class Samples:
    """Some groups of one step."""

    step: int
    groups: Sequence[SampledGroup]

    @cached_property
    def page(self) -> str:
        """A page that needs nothing from elsewhere."""
        return environment(__package__).get_template("samples.html").render(samples=self)

    @cached_property
    def tables(self) -> tuple[str, ...]:
        """A table for each group, as HTML that is part of a page; without the pictures."""
        template = environment(__package__).get_template("completions.html")
        return tuple(str(template.module.completions(group)) for group in self.groups)
