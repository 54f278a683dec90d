"""How the tiny base model is made: a kitchen, a tokenizer for it, then lessons, each continuing from the one before.

The labels it learns from are made imperfect, as those of real documents are: 20% of gold placements are dropped and
10% moved to another slot.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from m2io_jax.config import RunConfig
from m2io_jax.demo import IMPERFECT, kitchen
from m2io_jax.episodes.building import EpisodeConfig
from m2io_jax.episodes.dataset import open_episodes
from m2io_jax.episodes.episode import Episode
from m2io_jax.episodes.prompt import Picture, Prompt
from m2io_jax.models.policy import Policy, load_policy
from m2io_jax.models.tokenizer import TextCodec, train_tokenizer
from m2io_jax.tasks import find_task
from m2io_jax.training.stages import load_stages, train_stages

WORK = Path("runs/base")
DOCUMENTS, SEED = 6000, 1000  # a kitchen of its own: no run's held-out recipes are among these
EPISODES = EpisodeConfig(min_candidates=4, max_candidates=6, train=0.94, validation=0.03, **IMPERFECT)
READ = 3000  # episodes that the tokenizer is trained on
SPOKEN = ("inserter", "describe", "find")  # tasks whose prompts and targets they are read as


def make_base(lessons: Path, overrides: Sequence[str], say: Console, folder: Path) -> Path:
    """Makes tokenizer and weights and writes them to `folder`. Lessons that are done already are not taught again.

    Args:
        lessons: a configuration, with a stage for each.

    Raises:
        UserError: the configuration or one of its stages is not valid.
    """
    init, episodes = WORK / "0_begin", WORK / "episodes"
    stages = load_stages(lessons, [f"init={init}", f"episodes={episodes}", *overrides])
    kitchen(WORK, documents=DOCUMENTS, seed=SEED, episodes=EPISODES, say=say)
    beginner(stages.runs[0], open_episodes(episodes, "train")).save(init)
    train_stages(stages).policy.save(folder, "bfloat16")
    return folder


def beginner(config: RunConfig, source: Sequence[Episode]) -> Policy:
    """A policy that speaks the kitchen's words and knows nothing."""
    untaught = load_policy("random", size=config.model, seed=config.seed)
    tokenizer = train_tokenizer(spoken(source), untaught.config.text.vocab_size)
    return replace(untaught, codec=TextCodec(tokenizer))


def spoken(source: Sequence[Episode]) -> Iterator[str]:
    """What prompts and completions say, for the tokenizer."""
    for index in range(min(READ, len(source))):
        for name in SPOKEN:
            task = find_task(name)
            yield _words(task.prompt(source[index]))
            yield task.target(source[index]) or ""
    yield "system\nuser\nassistant\n"


def _words(prompt: Prompt) -> str:
    parts = (" " if isinstance(part, Picture) else getattr(part, "text", part) for part in prompt.user)
    return prompt.system + "\n" + "".join(parts)
