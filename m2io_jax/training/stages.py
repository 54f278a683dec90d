"""A run in stages, each going on with the policy that the one before it left, as LMM-R1 does (arXiv 2503.07536).

    name: NAME             what all stages share, as in the configuration of one run
    stages:
      first: {...}         laid over it: sections key by key; `tasks`, `rewards` and `episodes` whole
      second: {...}

    runs/NAME/first, runs/NAME/second     a run each
    runs/NAME/config.yaml, model          those of the last stage, once that has come to its end
"""

import re
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from m2io_jax.config import RunConfig, load_config, parse_config, parse_override, read_settings, set_setting
from m2io_jax.errors import UserError, unknown_name
from m2io_jax.parallel.exchange import is_first
from m2io_jax.training.checkpoints import Checkpoints
from m2io_jax.training.checks import check, require_shared, suited_mesh
from m2io_jax.training.resuming import open_sources, progress_of
from m2io_jax.training.run import Finished, say, train

OF_THE_WHOLE = ("name", "run", "model", "init")  # a stage has the name it is given and starts where the last one ended
GIVEN_WHOLE = ("tasks", "rewards", "episodes")
STAGE_NAME = re.compile(r"\w[\w-]*")
TAKEN = "model"  # what the folder of all stages holds beside theirs


@dataclass(frozen=True)
class Stages:
    """Runs one after another, and the folder that they lie in; one run alone is its own folder."""

    folder: Path
    runs: tuple[RunConfig, ...]

    @property
    def are_one_run(self) -> bool:
        return self.folder == self.runs[-1].run


@dataclass(frozen=True)
class _Setting:
    """One override: the stage that it is for (None: every one), its keys there, its value, and how it was written."""

    stage: str | None
    keys: list[str]
    value: Any
    written: str


def load_stages(path: Path | str, overrides: Iterable[str] = ()) -> Stages:
    """Reads the configuration of a run, in stages or not.

    An override `key=value` holds for every stage, `stages.NAME.key=value` for one; later ones win.

    Raises:
        UserError: as `load_config`, naming the stage too.
    """
    data, lines = read_settings(Path(path))
    if "stages" not in data:
        config = load_config(path, overrides)
        return Stages(config.run, (config,))
    origins = {key: f"{path}, line {line}" for key, line in lines.items()}
    stages = _stages(data.pop("stages"), origins)
    settings = [_setting(override, stages) for override in overrides]
    runs: list[RunConfig] = []
    for name, own in stages.items():
        laid, where = laid_over(data, own), _origins_of(name, origins)
        for setting in settings:
            if setting.stage in (None, name):
                set_setting(laid, setting.keys, setting.value)
                where[".".join(setting.keys)] = f"{setting.written} on the command line"
        laid = _placed(laid, name, runs[-1] if runs else None)
        where = {key: f"{origin}, in stage `{name}`" for key, origin in where.items()}
        runs.append(parse_config(laid, origins=where, source=f"{path}, in stage `{name}`"))
    return Stages(runs[-1].run.parent, tuple(runs))


def train_stages(stages: Stages) -> Finished:
    """Trains stage after stage. Killed and started again, it goes on where it was: a stage that had come to its end is
    loaded and not trained.

    Returns:
        The last stage's policy; steps and seconds are those of all stages together.

    Raises:
        UserError: as `train`, for any stage before the first is trained; or a stage would change under a later one.
    """
    if stages.are_one_run:
        return train(stages.runs[0])
    _require_ready(stages)
    steps, seconds, already = 0, 0.0, True
    for number, config in enumerate(stages.runs, 1):
        say(f"stage {number} of {len(stages.runs)}: {config.run.name}")
        finished = None  # these weights are on disk: they need not lie in memory beside the next stage's
        finished = train(config)
        steps, seconds, already = steps + finished.steps, seconds + finished.seconds, already and finished.already
    if is_first():
        _show_last(stages)
    return replace(finished, folder=stages.folder, steps=steps, seconds=seconds, already=already)


def _stages(stages: Any, origins: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The stages' settings by their names, in order. Raises UserError: they are not given so."""
    if not isinstance(stages, dict) or not stages:
        mend = "write `stages:` and below it, for each, `name: {...}`"
        raise UserError("`stages` must hold the settings of each by its name.", where=origins["stages"], mend=mend)
    for name, own in stages.items():
        where = origins.get(f"stages.{name}", origins["stages"])  # YAML reads some names as numbers or truths
        if not isinstance(name, str) or not STAGE_NAME.fullmatch(name) or name == TAKEN:
            mend = f"use letters, digits, `_` and `-` only, and not `{TAKEN}`"
            raise UserError(f"A stage cannot be called `{name}`.", where=where, mend=mend)
        if own is not None and not isinstance(own, dict):
            raise UserError(f"`stages.{name}` is {own!r} but must hold settings, as `key: value`.", where=where)
        for key in own or {}:
            _require_stage_setting(name, key, origins.get(f"stages.{name}.{key}", where))
    return {name: own or {} for name, own in stages.items()}


def _setting(override: str, stages: Mapping[str, Any]) -> _Setting:
    keys, value = parse_override(override)
    where = f"{override} on the command line"
    if keys[0] != "stages":
        return _Setting(None, keys, value, override)
    if len(keys) < 3:
        raise UserError(f"`{override}` sets no setting of a stage.", where=where, mend="write stages.NAME.key=value")
    if keys[1] not in stages:
        raise unknown_name("stages", keys[1], stages, where)
    _require_stage_setting(keys[1], keys[2], where)
    return _Setting(keys[1], keys[2:], value, override)


def _require_stage_setting(stage: str, key: str, where: str) -> None:
    if key in OF_THE_WHOLE:
        what = f"`stages.{stage}.{key}` is set, but `{key}` is the whole run's: each stage goes on from the one before."
        raise UserError(what, where=where, mend=f"set `{key}` beside `stages`")


def laid_over(common: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with others on top: sections key by key; `tasks`, `rewards` and `episodes` whole."""
    laid = deepcopy(dict(common))
    for key, value in own.items():
        sections = isinstance(laid.get(key), dict) and isinstance(value, dict) and key not in GIVEN_WHOLE
        laid[key] = laid[key] | value if sections else deepcopy(value)
    return laid


def _origins_of(stage: str, origins: Mapping[str, str]) -> dict[str, str]:
    """Where each key was set as a stage has it."""
    start = f"stages.{stage}."
    common = {key: origin for key, origin in origins.items() if key.partition(".")[0] != "stages"}
    return common | {key.removeprefix(start): origin for key, origin in origins.items() if key.startswith(start)}


def _placed(laid: dict[str, Any], stage: str, before: RunConfig | None) -> dict[str, Any]:
    """A stage's settings with its own name and folder, and with the policy that it starts from."""
    name, run = laid.get("name"), laid.get("run")
    run = f"runs/{name}" if run is None else run
    named = {} if name is None else {"name": f"{name}-{stage}"}
    start = {} if before is None else {"init": str(before.run), "model": before.model}
    # what is no path is left for the validation to refuse
    return laid | named | start | {"run": f"{run}/{stage}" if isinstance(run, str) else run}


def _require_ready(stages: Stages) -> None:
    """Raises UserError where a stage could not begin, before hours are spent on those before it; or where one would go
    on although the next has begun with the policy that it had left, which that also takes for its reference."""
    require_shared(stages.folder, stages.folder.name)  # a stage begins with what the first process left there
    for config in stages.runs:
        try:
            check(config)
            open_sources(config)
            suited_mesh(config)
        except UserError as error:
            where = f"{error.where or 'the configuration'}, in stage `{config.run.name}`"
            raise UserError(error.what, where=where, mend=error.mend) from error
    for config, following in pairwise(stages.runs):
        if None not in (config.lora, following.lora) and config.lora != following.lora:
            what = f"Stage `{following.run.name}` has other adapters than `{config.run.name}`, which it goes on from."
            mend = "give both the same, or one of them none (lora=null): adapters are then added to the weights"
            raise UserError(what, where="lora", mend=mend)
        if _progress(following) is not None and (_progress(config) or 0) < 1:
            what = f"Stage `{config.run.name}` would go on, but `{following.run.name}` has begun from what it left."
            mend = "leave its length as it was, or give another directory with run=..."
            raise UserError(what, where=str(config.run), mend=mend)


def _progress(config: RunConfig) -> float | None:
    """How much of a run is in its newest checkpoint; None where there is none."""
    checkpoints = Checkpoints(config.checkpoints)
    newest = checkpoints.latest()
    return None if newest is None else progress_of(config, newest, checkpoints.extra(newest)["seconds"])


def _show_last(stages: Stages) -> None:
    """Lets the folder of all stages be read like that of its last one."""
    last, link = stages.runs[-1], stages.folder / TAKEN
    draft = link.with_name(f".{TAKEN}.unfinished")
    try:
        draft.unlink(missing_ok=True)
        draft.symlink_to(Path(last.run.name) / "model")
        draft.replace(link)
        (stages.folder / "config.yaml").write_text(last.to_yaml(), encoding="utf-8")
    except OSError as error:
        what, mend = f"The run's folder cannot be written: {error.strerror}.", "give another place with run=FOLDER"
        raise UserError(what, where=str(stages.folder), mend=mend) from None
