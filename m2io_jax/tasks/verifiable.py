"""What tasks with a verified answer share: look at the pictures, read the question, think, answer.

Completions are `<think>...</think><answer>...</answer>`, as R1-V, OThink-MR1 (arXiv 2503.16081) and LMM-R1 (arXiv
2503.07536) ask for. Their expressions for the format are not published alike; here it is one think block, one answer
block and nothing else but white space, with no tag inside of either.
"""

import re
from collections.abc import Mapping

from m2io_jax.episodes.episode import Episode
from m2io_jax.episodes.prompt import Prompt, question_parts
from m2io_jax.errors import RowError
from m2io_jax.verification import answers
from m2io_jax.verification.choices import with_choices
from m2io_jax.verification.pool import Unverified

_INSIDE = r"(?:(?!</?think>|</?answer>).)*"
COMPLETION = re.compile(rf"\s*<think>{_INSIDE}</think>\s*<answer>{_INSIDE}</answer>\s*", re.DOTALL)
ANSWER = re.compile(rf"<answer>(?P<said>{_INSIDE})</answer>", re.DOTALL)

MANUAL = """\
Think first, in short lines between <think> and </think>. Then give {what} alone between <answer> and </answer>. \
Write nothing else. For example:
{example}"""


def write(reasoning: str, answer: str) -> str:
    """A completion in the format that earns everything."""
    lines = "".join(line + "\n" for line in reasoning.splitlines())
    return f"<think>\n{lines}</think>\n<answer>\n{answer}\n</answer>"


def said(completion: str) -> str | None:
    """What stands in a completion's one answer block, whatever is around it; None where there is none, or several."""
    found = ANSWER.findall(completion)
    return found[0].strip() if len(found) == 1 else None


def is_formatted(completion: str) -> bool:
    """Whether a completion is one think block and one answer block that holds something."""
    return COMPLETION.fullmatch(completion) is not None and bool(said(completion))


class VerifiableTask:
    """The two reward parts of OThink-MR1 and LMM-R1, each by itself: whether the answer is right, and the format.

    A task of this kind says what it asks for (`instruction`, `what`) and shows one completion (`example`).
    """

    name: str
    instruction: str
    what: str
    example: str
    rewards = ("accuracy", "format")
    metrics = ("accuracy", "format", "validity", "reward", "length", "unscored")

    def prompt(self, episode: Episode) -> Prompt:
        """The episode's question with its images where they stand in it, or in front of it.

        Raises:
            RowError: its answer is none that others could be compared with.
        """
        try:
            if not self.readable(episode.answer):
                raise RowError(f"no answer that the task {self.name} can verify")
        except Unverified as error:
            raise RowError(f"an answer whose verification ends in an {error.kind}") from error
        manual = MANUAL.format(what=self.what, example=self.example)
        return Prompt(self.instruction, question_parts(episode), manual)

    def target(self, episode: Episode) -> str:
        """The reasoning, where somebody wrote it, and the answer."""
        return write(episode.reasoning, episode.answer)

    def score(self, completion: str, episode: Episode) -> dict[str, float]:
        """`accuracy` and `format`, each 0 or 1.

        Raises:
            Unverified: nobody can say whether the answer is right.
        """
        answer = said(completion)
        right = answer is not None and self.equal(*with_choices(episode.question, episode.answer, answer))
        return {"accuracy": float(right), "format": float(is_formatted(completion))}

    def measure(self, completion: str, episode: Episode, parts: Mapping[str, float]) -> dict[str, float | None]:
        """The reward parts, and `validity`: whether an answer can be read, whatever is around it."""
        return {**parts, "validity": float(bool(said(completion)))}

    def readable(self, answer: str) -> bool:
        """Whether others can be compared with this answer, which an episode holds. Raises Unverified."""
        return answers.readable(answer)

    def equal(self, gold: str, answer: str) -> bool:
        """Whether a completion's answer is right. Raises Unverified."""
        return answers.equal(gold, answer)
