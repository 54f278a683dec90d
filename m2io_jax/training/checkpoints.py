"""Checkpoints of a run: everything that makes the next step, kept so that a kill at any moment loses no more than
what came after the last complete one.

    checkpoints/300/state    the train state: every array, placed as the restoring run asks
    checkpoints/300/data     the data iterator of each process
    checkpoints/300/extra    JSON: the settings that must not change, seconds elapsed, counters
    checkpoints/300/rollouts groups that later steps learn from, where the run keeps any

Orbax writes a checkpoint beside its final name and renames it when it is whole, so a directory named by a step is
always complete; what a killed run left half written is cleared away when the next run first saves.
"""

from pathlib import Path
from typing import Any, TypeVar

import grain
import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from m2io_jax.errors import UserError

State = TypeVar("State")
Iterator = grain.DatasetIterator

# How an operating system's refusal shows in TensorStore's errors, which are plain ValueErrors.
_REFUSED = "os_error_code"


class Checkpoints:
    """The checkpoints of one run.

    Reading changes nothing on disk, so another program can read while a run writes. In several processes all call
    every method, together.

    Args:
        directory: where they lie; made when the first is saved.
        keep: how many stay; older ones are deleted once a newer one is complete.
    """

    def __init__(self, directory: Path | str, keep: int = 2):
        if keep < 1:
            raise ValueError(f"keep is {keep}; it must be 1 or more")
        self.directory = Path(directory).resolve()
        self._keep = keep
        self._writer: ocp.training.Checkpointer | None = None

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, oldest first."""
        if not self.directory.is_dir():
            return []
        names = (path.name for path in self.directory.iterdir() if path.is_dir())
        return sorted(int(name) for name in names if name.isdecimal())

    def latest(self) -> int | None:
        """Step of the newest complete checkpoint; None where there is none."""
        return max(self.steps(), default=None)

    def save(
        self, step: int, state: Any, data_iterator: Iterator | None, extra: dict[str, Any], rollouts: Any = None
    ) -> None:
        """Writes a checkpoint and returns when it is complete. A step that is already there is left as it is.

        Args:
            step: updates made so far.
            state: a pytree of arrays; typed PRNG keys and registered dataclasses are welcome.
            data_iterator: saved as it stands; None where there is none.
            extra: JSON values.
            rollouts: a pytree of arrays on the host; None where there is none.

        Raises:
            UserError: the disk is full or cannot be written; or there are checkpoints of later steps already.
        """
        steps = self.steps()
        if step in steps:
            return
        if steps and step < steps[-1]:
            what = f"Checkpoint {step} would be older than checkpoint {steps[-1]}, which is already there."
            raise UserError(what, where=str(self.directory), mend="resume from the newest, or move the later ones away")
        items = {"state": state, "extra": extra} | ({} if data_iterator is None else {"data": data_iterator})
        items |= {} if rollouts is None else {"rollouts": rollouts}
        try:
            self._open_writer().save_checkpointables(step, items, force=True)
        except (OSError, ValueError) as error:
            self._writer = None
            if not isinstance(error, OSError) and _REFUSED not in str(error):
                raise
            kept = f"checkpoint {steps[-1]} is whole and the run resumes from it" if steps else "none was saved before"
            raise UserError(
                f"Checkpoint {step} cannot be written ({kept}): {_reason(error)}",
                where=str(self.directory / str(step)),
                mend="make room or allow writing there, then run the same command again",
            ) from error

    def extra(self, step: int) -> dict[str, Any]:
        """What `save` was given as `extra`, read alone: look at it before making a state to restore into.

        Raises:
            UserError: there is no such checkpoint, or it cannot be read.
        """
        return self._load(step, {"extra": None})["extra"]

    def rollouts(self, step: int, like: State) -> State:
        """What `save` was given as `rollouts`, in NumPy; `like` has its structure and shapes.

        Raises:
            UserError: as `restore`.
        """
        abstract = jax.tree.map(lambda leaf: _placed(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)), like)
        return jax.tree.map(np.asarray, self._load(step, {"rollouts": abstract})["rollouts"])

    def restore(self, step: int, abstract_state: State, data_iterator: Iterator | None) -> tuple[State, dict[str, Any]]:
        """Reads a checkpoint back, exactly.

        Args:
            step: one of `steps()`.
            abstract_state: the structure to fill: arrays or `jax.ShapeDtypeStruct`s, whose `sharding` says where each
                array goes; without one it goes to the first device.
            data_iterator: a fresh one, made as the saved one was; set to where that stood. None leaves it out.

        Returns:
            The state, and what `save` was given as `extra`.

        Raises:
            UserError: there is no such checkpoint, it is damaged, or it has another structure or other shapes.
        """
        items = {"state": jax.tree.map(_placed, abstract_state), "extra": None}
        if data_iterator is not None:
            items["data"] = data_iterator
        loaded = self._load(step, items)
        return loaded["state"], loaded["extra"]

    def close(self) -> None:
        """Lets go of Orbax's threads."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _open_writer(self) -> ocp.training.Checkpointer:
        # Only a writer may clear away what is half written: a reader would take it from under a running trainer.
        if self._writer is None:
            newest = ocp.training.preservation_policies.LatestN(self._keep)
            self._writer = ocp.training.Checkpointer(
                self.directory, context=_context(), preservation_policy=newest, cleanup_tmp_directories=True
            )
        return self._writer

    def _load(self, step: int, items: dict[str, Any]) -> dict[str, Any]:
        others = [other for other in self.steps() if other != step]
        where = self.directory / str(step)
        if not where.is_dir():
            what = f"There is no checkpoint of step {step}."
            raise UserError(what, where=str(self.directory), mend=f"there are: {others or 'none'}")
        try:
            with _context():
                return ocp.load_checkpointables(where, items)
        except Exception as error:  # Orbax and TensorStore raise many kinds, bare Exception among them.
            on = f"the run goes on from step {others[-1]}" if others else "the run starts from the beginning"
            raise UserError(
                f"Checkpoint {step} cannot be read: {_reason(error)}",
                where=str(where),
                mend=f"if the settings are those it was saved with, it is damaged: move it away, and {on}",
            ) from error


def _context() -> ocp.Context:
    """Orbax would take a dict of numbers for arrays; `extra` is to stay JSON."""
    registry = ocp.handlers.local_registry()
    registry.add(ocp.handlers.JsonHandler, checkpointable_name="extra")
    context = ocp.Context()
    context.checkpointables.registry = registry
    return context


def _placed(leaf: Any) -> Any:
    """Without a stated sharding Orbax reads the saved one, which names devices that may not be here."""
    if not isinstance(leaf, jax.ShapeDtypeStruct) or leaf.sharding is not None:
        return leaf
    first = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=first)


def _reason(error: BaseException) -> str:
    """The first cause in a chain of exceptions, in one line."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return " ".join(str(error).split())[:400] or type(error).__name__
