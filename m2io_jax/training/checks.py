"""What is told before a run begins; nothing of it needs weights, so that of stages all are looked at first."""

from pathlib import Path

import jax
from jax.sharding import Mesh

from m2io_jax.config import RunConfig
from m2io_jax.errors import UserError, nearest
from m2io_jax.parallel.exchange import seen_by_all, wait_for_all
from m2io_jax.parallel.mesh import make_mesh
from m2io_jax.parallel.sharding import require_even
from m2io_jax.tasks import find_task
from m2io_jax.training.checkpoints import require_reachable
from m2io_jax.training.data_side import require_suited
from m2io_jax.training.group_sampler import the_grammar
from m2io_jax.training.logging.run_log import require_libraries


def check(config: RunConfig) -> None:
    """What the configuration alone cannot know, whatever the devices.

    Raises:
        UserError: a task that does not exist, rewards that are not those of the tasks, methods that do not suit them,
            no episodes, or nothing installed to log with, or to reach a bucket with, as asked.
    """
    for task in config.episodes if isinstance(config.episodes, dict) else config.tasks:
        config.episodes_of(find_task(task).name)
    if config.objective != "supervised":
        _require_rewards(config)
        require_suited(config)
        if config.rollout.constrained:
            the_grammar(config)
    require_libraries(config.logging)
    require_reachable(config.checkpoints)


def _require_rewards(config: RunConfig) -> None:
    """Raises UserError where a reward part that has a weight is none of the tasks', or none of theirs has one."""
    parts = {name for task, weight in config.tasks.items() if weight for name in find_task(task).rewards}
    weighed = {name for name, weight in config.rewards.items() if weight}
    if not parts & weighed:
        mend = f"give one of these a weight: {', '.join(sorted(parts))}"
        raise UserError("No reward part of the chosen tasks has a weight.", where="rewards", mend=mend)
    for name in sorted(weighed - parts):
        what = f"`rewards.{name}` has a weight, but none of the chosen tasks has that part: nothing would read it."
        raise UserError(what, where="rewards", mend=nearest(name, parts, "rewards."))


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
