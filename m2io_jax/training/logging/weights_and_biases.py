"""Weights & Biases. Where it logs to, offline too, is for its own settings to say: WANDB_MODE, WANDB_BASE_URL."""

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb

from m2io_jax.config import RunConfig
from m2io_jax.errors import UserError
from m2io_jax.pages import picture_sheet
from m2io_jax.training.logging.identity import remembered_id
from m2io_jax.training.logging.samples import SampledGroup, Samples
from m2io_jax.training.logging.sink import Sink, finite


class WeightsAndBiases(Sink):
    """A run of a project; its own files lie in the run's folder, in `wandb/`.

    What it was once told it keeps. Steps that a resumed run makes again are not told again: they are the same. Offline
    nobody knows what was told, so each start's own file has all that it made.

    Args:
        folder: the run's, where the id is kept.
        project: PROJECT or ENTITY/PROJECT.

    Raises:
        UserError: it does not begin, for want of a login, say.
    """

    def __init__(self, folder: Path, project: str, name: str, settings: Mapping[str, Any]):
        entity, _, project = project.rpartition("/")
        # eight signs of letters and digits, as its own ids
        known_as = remembered_id(folder, "wandb", lambda: secrets.token_hex(4))
        whose = dict(project=project, entity=entity or None, id=known_as, resume="allow", name=name)
        try:
            self._run = wandb.init(**whose, dir=str(folder), config=dict(settings), allow_val_change=True)
        except wandb.Error as error:
            mend = "log in (wandb login), log without a network (WANDB_MODE=offline), or leave logging.wandb empty"
            raise UserError(f"Weights & Biases does not begin: {error}", where="logging.wandb", mend=mend) from None

    def write(self, step: int, metrics: Mapping[str, float | None]) -> None:
        if step >= self._run.step:
            self._run.log(finite(metrics), step=step)

    def show(self, samples: Samples) -> None:
        if samples.step >= self._run.step:
            self._run.log({"samples": table(samples)}, step=samples.step)

    def close(self, finished: bool = True) -> None:
        self._run.finish(exit_code=0 if finished else 1)


def table(samples: Samples) -> wandb.Table:
    """A row for each completion, with its prompt's pictures on a sheet."""
    parts = dict.fromkeys(name for group in samples.groups for name in group.parts)
    columns = ["question", "answer", "pictures", "right", "completion", "reward", "advantage", *parts]
    rows = []
    for group in samples.groups:
        said = _prompt(group)
        rows += [
            [*said, each.text, each.reward, each.advantage, *(each.parts.get(name) for name in parts)]
            for each in group.completions
        ]
    return wandb.Table(columns=columns, data=rows)


def _prompt(group: SampledGroup) -> list[Any]:
    episode = group.episode
    pictures = wandb.Image(picture_sheet(episode.candidates)) if episode.candidates else None
    return [group.question, "\n".join(episode.sentences), pictures, group.expected]


def opened(config: RunConfig) -> WeightsAndBiases:
    """What a run is there."""
    return WeightsAndBiases(config.run, config.logging.wandb, config.name, config.model_dump(mode="json"))
