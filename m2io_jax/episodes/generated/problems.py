"""Problems told in words: somebody has so many things, gets some, gives some away."""

from dataclasses import dataclass

import numpy as np

from m2io_jax.episodes.generated.problem import Problem, pick
from m2io_jax.episodes.settings import chosen, require

NAMES = ("Ann", "Ben", "Eva", "Leo", "Mia", "Tom")
ITEMS = ("apples", "books", "coins", "cups", "eggs", "pens")
OPERATIONS = ("add", "subtract", "multiply")
TOLD = {
    "add": ("{name} gets {number} more.", "{name} finds {number} more."),
    "subtract": ("{name} gives {number} away.", "{name} loses {number}."),
}
SIGNS = {"add": "+", "subtract": "-", "multiply": "*"}


@dataclass(frozen=True)
class ProblemConfig:
    """How hard the problems are.

    Attributes:
        largest: number that is told; what comes out may be larger.
        steps: the most that a problem takes.
        operations: which, with commas. What is multiplied is multiplied first.
    """

    largest: int = 9
    steps: int = 2
    operations: str = ",".join(OPERATIONS)

    def __post_init__(self) -> None:
        """Raises UserError for the first value that is out of its bounds."""
        require(2 <= self.largest <= 1000, "largest", self.largest, "2 to 1000")
        require(1 <= self.steps <= 6, "steps", self.steps, "1 to 6")
        further = set(chosen("operations", self.operations, OPERATIONS)) & set(TOLD)
        require(bool(further) or self.steps == 1, "steps", self.steps, "1, where things are only multiplied")

    def problem(self, random: np.random.Generator, split: str, seed: int) -> Problem:
        """A problem of 1 to `steps` steps. No number on the way is below 0."""
        operations = chosen("operations", self.operations, OPERATIONS)
        name, items, value = pick(random, NAMES), pick(random, ITEMS), self._number(random)
        story, key, lines = f"{name} has {value} {items}.", str(value), []
        for step in range(int(random.integers(1, self.steps + 1))):
            operation = pick(random, [each for each in operations if step == 0 or each in TOLD])
            if operation == "subtract" and value == 0:
                operation = "add"
            number = self._number(random, value if operation == "subtract" else None)
            if operation == "multiply":
                story = f"{name} has {value} boxes with {number} {items} in each."
            else:
                story += " " + pick(random, TOLD[operation]).format(name=name, number=number)
            said = f"{SIGNS[operation]}{number}"
            result = {"add": value + number, "subtract": value - number, "multiply": value * number}[operation]
            lines.append(f"{value}{said}={result}")
            key, value = key + said, result
        question = f"{story} How many {items} does {name} have now?"
        return Problem(key=key, question=question, answer=value, reasoning="\n".join(lines))

    def _number(self, random: np.random.Generator, most: int | None = None) -> int:
        most = self.largest if most is None else min(most, self.largest)
        return int(random.integers(min(2, most), most + 1))
