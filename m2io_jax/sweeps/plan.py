"""A sweep as a YAML file, and the runs that it stands for.

    name: rewards
    config: configs/tiny.yaml            what is trained; or one a size
    settings: {episodes: runs/kitchen}   as key=value on the command line, for every run
    sizes:                               an axis of configurations, each with a slice to run on (none: this machine)
      3b: {config: configs/inserter_r1_3b.yaml, topology: v5e-16, settings: {...}}
    runs: [{rewards.order: 0}, {}]       an axis of settings, one item a run
    grid: {rollout.group_size: [4, 8]}   an axis a key
    seeds: [0, 1]

A run is an item of each axis. Its name follows from its configuration and settings, wherever in the file and in
whatever order these are given, so that a run that is in two sweeps of one folder is made once.
"""

import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from m2io_jax.config import parse_override, read_settings
from m2io_jax.config.errors import as_user_error
from m2io_jax.config.section import Positive, Section
from m2io_jax.errors import UserError
from m2io_jax.parallel.topologies import FAMILIES, Topology, find_topology

HERE = "here"  # the machine that the sweep is started on, where prices are given
NOT_COPIED = "runs"  # of the tree, all else goes to machines that are launched
OWN = ("name", "run")  # a run has these of the sweep
SHOWN = 40  # letters of settings in a run's name
# A policy appears by the renaming of a folder, which is no one step in a bucket of the ordinary kind.
SHARED = "an NFS share (Filestore), or a mounted bucket with a hierarchical namespace"

Settings = dict[str, Any]
Axis = Annotated[tuple[Any, ...], Field(min_length=1)]


class SizeSection(Section):
    """One configuration of a sweep.

    `planned_step_s`: seconds a step of the last stage is planned to take, such as `m2io plan` estimates; read while
    none was measured.
    """

    config: Path | None = None
    topology: str | None = None
    planned_step_s: Positive | None = None
    settings: Settings = {}


class LauncherSection(Section):
    """What runs the sizes that name a topology: launch/tpu_vm.sh, whose `options` these are: `project: a` is given as
    `--project a`, `spot: true` as `--spot`, `extra: [wandb, mlflow]` as `--extra wandb --extra mlflow`.

    Launched runs are made in `runs`, a folder that all machines see and that outlives them, of an NFS share (Filestore)
    or a mounted bucket with a hierarchical namespace. On a machine's own disk a policy would go with the machine, and
    other machines would not find it."""

    name: Literal["tpu_vm"] = "tpu_vm"
    runs: Path = Field(default=None, validate_default=True)
    options: dict[str, str | bool | int | tuple[str, ...]] = {}

    @field_validator("runs", mode="before")
    @classmethod
    def _stays(cls, runs: Any) -> Any:
        if not isinstance(runs, str) or not Path(runs).is_absolute():
            raise ValueError("must be an absolute path: a folder that all machines see and that outlives them, of "
                             f"{SHARED} (what lies in the tree is lost with the machine)")  # fmt: skip
        return runs


class SweepConfig(Section):
    """A sweep. Its runs and report are in `folder`; `price_per_chip_hour` is by family of TPU, and `here` for here."""

    name: Annotated[str, Field(pattern=r"^\w[\w.-]*$")]
    folder: Path = Field(default_factory=lambda given: Path("runs") / "sweeps" / given["name"])
    config: Path | None = None
    settings: Settings = {}
    sizes: dict[str, SizeSection] = {}
    runs: Annotated[tuple[Settings, ...], Field(min_length=1)] = ({},)
    grid: dict[str, Axis] = {}
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] | None = None
    launcher: LauncherSection | None = None
    price_per_chip_hour: dict[str, Positive] = {}

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        axes = [set().union(*self.runs), set(self.grid), {"seed"} if self.seeds else set()]
        for one, other in itertools.combinations(axes, 2):
            for key in sorted(one & other):
                raise PydanticCustomError("axes", f"`{key}` is on two axes: leave it on one of them")
        given = [self.settings, self.grid, *self.runs, *(size.settings for size in self.sizes.values())]
        for key in OWN:
            if any(key in settings for settings in given):
                raise PydanticCustomError("own", f"`{key}` is set, but each run of a sweep has a `{key}` of its own")
        for family in self.price_per_chip_hour:
            if family not in (*FAMILIES, HERE):
                allowed = ", ".join((*FAMILIES, HERE))
                raise PydanticCustomError("family", f"`price_per_chip_hour` names `{family}`; allowed: {allowed}")
        if self.launcher and not any(size.topology for size in self.sizes.values()):
            raise PydanticCustomError("unread", "`launcher` is set but only sizes with a `topology` read it")
        return self


@dataclass(frozen=True)
class SweepRun:
    """One run: its configuration's file, its settings by dotted key, and the slice it is for (None: this machine)."""

    size: str
    config: Path
    settings: Settings
    topology: Topology | None = None
    planned_step_s: float | None = None

    @property
    def name(self) -> str:
        """Follows from the configuration and the settings alone."""
        settings = {key: _plain(self.settings[key]) for key in sorted(self.settings)}
        digest = hashlib.sha256(json.dumps([self.config.as_posix(), settings], sort_keys=True).encode()).hexdigest()
        short = (f"{key.rpartition('.')[2]}{value}" for key, value in settings.items() if _is_short(value))
        words = re.sub(r"[^\w.-]", "", "-".join(short), flags=re.ASCII)[:SHOWN].strip(".-")
        return "-".join(filter(None, [self.config.stem, words, digest[:6]]))

    def words(self, folder: Path) -> list[str]:
        """What `m2io train` is given to make the run in `folder`."""
        own = {"name": self.name, "run": folder.as_posix()}
        return [str(self.config), *(f"{key}={json.dumps(value)}" for key, value in (self.settings | own).items())]


def load_sweep(path: Path, overrides: Sequence[str] = ()) -> tuple[SweepConfig, list[SweepRun]]:
    """Reads a sweep and lists its runs; `overrides` are further settings for all of them.

    Raises:
        UserError: naming what is wrong in the sweep's file. The runs' configurations are not read yet.
    """
    data, lines = read_settings(path)
    origins = {key: f"{path}, line {line}" for key, line in lines.items()}
    try:
        sweep = SweepConfig.model_validate(data)
    except ValidationError as error:
        raise as_user_error(error, SweepConfig, origins, str(path)) from None
    given = dict(_override(override) for override in overrides)
    runs = list(_expand(sweep, given, path))
    by_name: dict[str, SweepRun] = {}
    for run in runs:
        if (same := by_name.setdefault(run.name, run)) is not run:
            what = f"Two runs are the same: {run.config} with {run.settings}"
            where = f"{path}, sizes {same.size} and {run.size}" if run.size != same.size else str(path)
            raise UserError(what, where=where, mend="leave one of them out")
    return sweep, runs


def _expand(sweep: SweepConfig, given: Mapping[str, Any], path: Path) -> Iterable[SweepRun]:
    sizes = sweep.sizes or {"": SizeSection()}
    seeds = [{}] if sweep.seeds is None else [{"seed": seed} for seed in sweep.seeds]
    grid = [dict(zip(sweep.grid, values, strict=True)) for values in itertools.product(*sweep.grid.values())]
    for (label, size), own, point, seed in itertools.product(sizes.items(), sweep.runs, grid, seeds):
        config = size.config or sweep.config
        where = f"{path}, sizes.{label}" if label else str(path)
        if config is None:
            raise UserError("Nothing says what is trained.", where=where, mend="add `config: configs/tiny.yaml`")
        topology = find_topology(size.topology) if size.topology else None
        if topology and sweep.launcher is None:
            mend = "add `launcher: {name: tpu_vm, runs: /shared/...}`, or leave the topology out to run it here"
            raise UserError(f"Size `{label}` is for {topology.name}, but no launcher is named.", where=where, mend=mend)
        settings = sweep.settings | size.settings | own | point | seed | given
        if topology:
            _require_reachable(settings, f"size `{label}` on {topology.name}", where)
        yield SweepRun(label or config.stem, config, settings, topology, size.planned_step_s)


def _require_reachable(settings: Settings, run: str, where: str) -> None:
    """Raises UserError where another machine would have to read what only this one has."""
    for key, value in settings.items():
        values = value.values() if isinstance(value, dict) else [value]
        if any(isinstance(each, str) and Path(each).parts[:1] == (NOT_COPIED,) for each in values):
            what = f"`{key}` of {run} is {value!r}, and {NOT_COPIED}/ is not copied to other machines."
            raise UserError(what, where=where, mend=f"give a folder that all machines see, of {SHARED}")


def _override(override: str) -> tuple[str, Any]:
    keys, value = parse_override(override)
    if keys[0] in OWN:
        what = f"`{override}` cannot be set: each run of a sweep has its own."
        raise UserError(what, where="the command line")
    return ".".join(keys), value


def _plain(value: Any) -> Any:
    """One way to write a number: 1 for 1.0."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _is_short(value: Any) -> bool:
    return isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) <= 12 and "/" not in value)
