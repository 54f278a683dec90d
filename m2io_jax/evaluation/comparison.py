"""The rules beside the model, judged on the same episodes by the same scores."""

from collections.abc import Mapping, Sequence

from m2io_jax.config import RunConfig
from m2io_jax.episodes.dataset import open_episodes
from m2io_jax.episodes.episode import Episode
from m2io_jax.evaluation.policy import take
from m2io_jax.evaluation.results import score_completion, summarise
from m2io_jax.evaluation.rules import fit_encoder, fit_threshold, insert_all, insert_none, match_episodes
from m2io_jax.tasks import find_task
from m2io_jax.tasks.inserter import write

FITTED_ON = 1000  # training episodes that the matching rule's encoder and threshold are fitted on


def rules(config: RunConfig, test: Sequence[Episode]) -> dict[str, Mapping]:
    """Summaries of `all`, `none` and `match`. What `match` is fitted on comes from the training split."""
    train_split = take(open_episodes(config.episodes_of("inserter"), "train"), FITTED_ON)
    encoder = fit_encoder(train_split)
    placed = {
        "all": [insert_all(episode) for episode in test],
        "none": [insert_none(episode) for episode in test],
        "match": match_episodes(test, encoder, fit_threshold(train_split, encoder)),
    }
    task = find_task("inserter")

    def scored(episode: Episode, placements):
        said = write([], tuple(placements))
        return score_completion(task, said, episode, task.score(said, episode), config.rewards)

    return {
        name: summarise([scored(*pair) for pair in zip(test, each, strict=True)], seed=config.seed)
        for name, each in placed.items()
    }
