"""Checkpoints of a run: everything that makes the next step, kept so that a kill at any moment loses no more than
what came after the last complete one.

    checkpoints/300/state    the train state: every array, placed as the restoring run asks
    checkpoints/300/extra    JSON: where the data stand, the settings that must not change, seconds elapsed, counters
    checkpoints/300/rollouts groups that later steps learn from, where the run keeps any

A checkpoint is complete when Orbax's last file says so (commit_success.txt) and its arrays were merged, which Orbax
does not look for. Nothing is renamed, which no bucket, mounted or not, does at once. What a killed run left unfinished
is not seen here, and is cleared away when the next run first saves. Nothing in one depends on the processes or devices
that wrote it, so another number of them can go on.
"""

import logging
import os
from importlib.util import find_spec
from typing import Any, TypeVar

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from m2io_jax.config import CheckpointConfig
from m2io_jax.errors import UserError
from m2io_jax.parallel.exchange import is_first
from m2io_jax.training.literal_path import LiteralPath, literal_path

State = TypeVar("State")

logger = logging.getLogger(__name__)

NEWEST_TWO = CheckpointConfig()
MEASURED = "measured"
COMPLETE = "commit_success.txt"  # Orbax's name for it
ARRAYS = ("state", "rollouts")
MERGED = "manifest.ocdbt"  # of the arrays that all processes wrote: what a checkpoint is read by

# How an operating system's refusal shows in TensorStore's errors, which are plain ValueErrors.
_REFUSED = "os_error_code"


class Checkpoints:
    """The checkpoints of one run.

    Reading changes nothing on disk, so another program can read while a run writes. In several processes all call
    every method, together, and see the same directory.

    Args:
        directory: where they lie, on a disk or in a bucket (`gs://...`); made when the first is saved.
        kept: which stay once a newer one is complete.

    Raises:
        UserError: checkpoints cannot be written below a directory of that name.
    """

    def __init__(self, directory: os.PathLike | str, kept: CheckpointConfig = NEWEST_TWO):
        self.directory = literal_path(directory)
        self._kept = kept
        self._writer: ocp.training.Checkpointer | None = None
        self._newest: int | None = None
        self._under_way: tuple[int, Any] | None = None

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, oldest first."""
        if not self.directory.is_dir():
            return []
        named = (path for path in self.directory.iterdir() if path.name.isdecimal())
        return sorted(int(path.name) for path in named if (path / COMPLETE).exists() and not _is_unmerged(path))

    def latest(self) -> int | None:
        """Step of the newest complete checkpoint; None where there is none."""
        return max(self.steps(), default=None)

    def save(
        self, step: int, state: Any, extra: dict[str, Any], *, rollouts: Any = None, measured: float | None = None
    ) -> None:
        """Begins to write a checkpoint, once the one before is complete, and returns when `state` may change; what
        became of it is told by the next `save`, `wait` or `close`. The newest is left as it is when saved again.

        Args:
            step: steps made so far.
            state: a pytree of arrays; typed PRNG keys and registered dataclasses are welcome.
            extra: JSON values, which nobody changes afterwards.
            rollouts: a pytree of arrays on the host, which nobody changes afterwards; None where there is none.
            measured: what the best are chosen by, where some of these are kept.

        Raises:
            UserError: the disk is full or cannot be written; or there are checkpoints of later steps already.
        """
        self.wait()
        try:
            writer = self._open_writer()
            if self._newest is not None and step <= self._newest:
                self._refuse_older(step)
                return
            items = {"state": state, "extra": extra} | ({} if rollouts is None else {"rollouts": rollouts})
            metrics = None if measured is None else {MEASURED: measured}
            self._under_way = step, writer.save_checkpointables_async(step, items, force=True, metrics=metrics)
        except (OSError, ValueError) as error:
            self._tell_refusal(step, error)
            raise

    def wait(self) -> None:
        """Returns when what was saved last is complete. Raises UserError as `save`."""
        if self._under_way is None:
            return
        (step, response), self._under_way = self._under_way, None
        try:
            response.result()
        except (OSError, ValueError) as error:
            self._tell_refusal(step, error)
            raise
        self._require_merged(step)
        self._newest = step

    def _require_merged(self, step: int) -> None:
        """Raise UserError if Orbax calls a checkpoint complete that cannot be read back; it is so called no longer."""
        folder = self.directory / str(step)
        if not is_first() or not folder.exists():  # the first process merges; another run's policy may remove it
            return
        missing = [f"{items}/{MERGED}" for items in ARRAYS if _has_no_merged(folder / items)]
        if missing:
            (folder / COMPLETE).unlink(missing_ok=True)
            what = f"Checkpoint {step} cannot be read back: Orbax has not merged its parts ({missing[0]})."
            raise UserError(what, where=str(folder), mend="give a folder of a plainer name with run=... and say so")

    def _unmark_unmerged(self) -> None:
        """Take the mark from what a run that was killed between Orbax's mark and `_require_merged` left."""
        marked = self.directory.iterdir() if self.directory.is_dir() else ()
        for folder in [path for path in marked if path.name.isdecimal() and (path / COMPLETE).exists()]:
            if _is_unmerged(folder):
                logger.warning("Checkpoint %s is removed: Orbax called it complete without merging its parts.", folder)
                (folder / COMPLETE).unlink(missing_ok=True)

    def _refuse_older(self, step: int) -> None:
        if step < self._newest:
            what = f"Checkpoint {step} would be older than checkpoint {self._newest}, which is already there."
            raise UserError(what, where=str(self.directory), mend="resume from the newest, or move the later ones away")

    def _tell_refusal(self, step: int, error: OSError | ValueError) -> None:
        """Raises UserError where the operating system refused to write."""
        self._writer, newest = None, self._newest
        if not isinstance(error, OSError) and _REFUSED not in str(error):
            return
        kept = "none was saved before"
        if newest is not None:
            kept = f"checkpoint {newest} is whole and the run resumes from it"
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

    def restore(self, step: int, abstract_state: State) -> tuple[State, dict[str, Any]]:
        """Reads a checkpoint back, exactly.

        Args:
            step: one of `steps()`.
            abstract_state: the structure to fill: arrays or `jax.ShapeDtypeStruct`s, whose `sharding` says where each
                array goes; without one it goes to the first device.

        Returns:
            The state, and what `save` was given as `extra`.

        Raises:
            UserError: there is no such checkpoint, it is damaged, or it has another structure or other shapes.
        """
        loaded = self._load(step, {"state": jax.tree.map(_placed, abstract_state), "extra": None})
        return loaded["state"], loaded["extra"]

    def close(self) -> None:
        """Waits for what is being written, and lets go of Orbax's threads. Raises UserError as `save`."""
        self.wait()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_) -> None:
        # Where one of several processes fails, it cannot wait for the others: they will not come.
        if kind is None or jax.process_count() == 1:
            self.close()

    def _open_writer(self) -> ocp.training.Checkpointer:
        # Only a writer may clear away what is half written: a reader would take it from under a running trainer.
        if self._writer is None:
            logging.getLogger("absl").addFilter(_is_not_told_here)
            self._newest = self.latest()
            if is_first():
                self._unmark_unmerged()
            policy = _policy(self._kept)
            self._writer = ocp.training.Checkpointer(
                self.directory, context=_context(), preservation_policy=policy, cleanup_tmp_directories=True
            )
        return self._writer

    def _load(self, step: int, items: dict[str, Any]) -> dict[str, Any]:
        known, where = self.steps(), self.directory / str(step)
        others = [other for other in known if other != step]
        if step not in known:
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


def _has_no_merged(items: LiteralPath) -> bool:
    """Return whether arrays lack the file that they are read by; rollouts may be without any array, and then parts."""
    return (items.name == "state" or _has_parts(items)) and not (items / MERGED).exists()


def _is_unmerged(folder: LiteralPath) -> bool:
    """Return whether parts were never merged. A checkpoint that was, and lost a file since, is damaged instead."""
    kinds = [folder / items for items in ARRAYS]
    return any(_has_parts(items) and not any((items / name).exists() for name in (MERGED, "d")) for items in kinds)


def _has_parts(items: LiteralPath) -> bool:
    return items.is_dir() and any(path.name.startswith("ocdbt.process_") for path in items.iterdir())


def require_reachable(directory: str) -> None:
    """Raises UserError: nothing can be written there: it is a bucket's, and nothing is installed that reaches it; or
    its name has characters that checkpoints cannot be written below."""
    literal_path(directory)
    needed = ("gcsfs", "google.cloud.storage")
    if directory.startswith("gs://") and not all(map(_is_installed, needed)):
        mend = "pip install -e '.[bucket]' in the source tree, or leave `checkpoint.folder` out"
        raise UserError("Nothing is installed that reaches Cloud Storage.", where=directory, mend=mend)


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of a package that it would be in
        return False


def _is_not_told_here(record: logging.LogRecord) -> bool:
    """Orbax logs what was raised in each of its threads, hundreds of lines of one full disk; it also raises it, and
    the first cause is what `Checkpoints` tells."""
    return not (record.exc_info and "orbax" in record.pathname)


def _policy(kept: CheckpointConfig) -> ocp.training.preservation_policies.PreservationPolicy:
    """Which checkpoints stay."""
    policies = ocp.training.preservation_policies
    chosen = [policies.LatestN(kept.keep)]
    if kept.keep_every is not None:
        chosen.append(policies.EveryNSteps(kept.keep_every))
    if kept.keep_best:
        # It keeps the last in ascending order; one that was saved without a measure is not among the best.
        lowest, known = kept.best == "lowest", dict(n=kept.keep_best, keep_checkpoints_without_metrics=False)
        chosen.append(policies.BestN(get_metric_fn=lambda metrics: metrics[MEASURED], reverse=lowest, **known))
    return policies.AnyPreservationPolicy(chosen)


def _context() -> ocp.Context:
    """How Orbax writes and reads. It would take a dict of numbers for arrays; `extra` is to stay JSON."""
    registry = ocp.handlers.local_registry()
    registry.add(ocp.handlers.JsonHandler, checkpointable_name="extra")
    context = ocp.Context()
    context.checkpointables.registry = registry
    context.atomicity.mode = ocp.options.AtomicityMode.COMMIT_FILE
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
