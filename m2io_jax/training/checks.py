"""Validate a run before it starts. Needs no weights, so every stage is checked up front."""

from pathlib import Path

import jax
from jax.sharding import Mesh

from m2io_jax.config import RunConfig
from m2io_jax.errors import UserError
from m2io_jax.parallel.exchange import seen_by_all, wait_for_all
from m2io_jax.parallel.mesh import make_mesh
from m2io_jax.parallel.sharding import require_even
from m2io_jax.tasks import find_task
from m2io_jax.training.checkpoints import require_reachable
from m2io_jax.training.logging.run_log import require_libraries
from m2io_jax.training.trainer import trainer_class


def check(config: RunConfig) -> None:
    """What the configuration alone cannot know, whatever the devices.

    Raises:
        UserError: a task that does not exist, rewards that are not those of the tasks, methods that do not suit them,
            no episodes, or nothing installed to log with, or to reach a bucket with, as asked.
    """
    for task in config.episodes if isinstance(config.episodes, dict) else config.tasks:
        config.episodes_of(find_task(task).name)
    trainer_class(config.objective).validate(config)
    require_libraries(config.logging)
    require_reachable(config.checkpoints)


def suited_mesh(config: RunConfig) -> Mesh:
    """The run's mesh of all devices. Raises UserError: as `make_mesh`; or the batch cannot be shared out to them."""
    mesh = make_mesh(config.mesh)
    require_even(config.batch.prompts, mesh, "batch.prompts")
    require_even(config.prompts_at_once, mesh, "rollout")
    return mesh


def require_shared(folder: Path, name: str) -> None:
    """Raises UserError where several processes would each have a folder of their own, or the first cannot write there;
    `name` is the run's."""
    if jax.process_count() == 1:
        return
    wait_for_all(f"start of {name}")
    mend = "give run=FOLDER on a disk that all hosts see; checkpoints alone may go to checkpoint.folder=gs://..."
    try:
        seen = seen_by_all(folder)
    except OSError as error:
        raise UserError(f"This cannot be written: {error.strerror}.", where=str(folder), mend=mend) from error
    if not seen:
        raise UserError("What process 0 writes here, others do not find.", where=str(folder), mend=mend)
