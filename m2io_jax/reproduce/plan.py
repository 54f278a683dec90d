"""What a paper's system in miniature is made of: data, arms, the paper's figures and claims, read from one YAML file.

    title: what it is
    about: what is small about it
    seeds: [0, 1, 2]
    metrics: {TASK: [accuracy, ...]}                 evaluated on; claims are about the first
    data: {TASK: {count: ..., settings: {...}}}      as `m2io generate` makes it; `inserter`: a kitchen of recipes
    common: {...}                                    a run's settings, for every arm
    arms:
      warm_start: {once: true, settings: {...}}      one for all seeds, which others begin with
      grpo: {begins_with: warm_start, settings: {...}}
    claims: [{better: grpo, than: warm_start, task: TASK}]
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, ValidationError

from m2io_jax.config import RunConfig, parse_config, parse_override, read_settings, set_setting
from m2io_jax.config.errors import as_user_error
from m2io_jax.config.section import Count, Section
from m2io_jax.errors import UserError, unknown_name
from m2io_jax.tasks import find_task
from m2io_jax.training.stages import laid_over

T = TypeVar("T", bound=Section)

OF_THE_WHOLE = ("name", "run", "seed", "init", "episodes")  # an arm has these from its name, its seed and `begins_with`
PARTS = ("data", "common", "arms", "claims")
UNTRAINED = {"objective": "supervised", "steps": 1}  # of a configuration that only says where a policy lies


class Data(Section):
    """A data set, made by its seed and settings: so many problems, or recipes of a kitchen. `also`: other tasks that
    learn from it, as `look` does from any pictures."""

    count: Count
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    settings: dict[str, Any] = {}
    also: tuple[str, ...] = ()


class Arm(Section):
    """One of the systems that are compared.

    Attributes:
        label: what tables call it; None: a step on the way, which is not evaluated.
        begins_with: the arm whose policy it begins with; None: the base that ships.
        grow: that policy is grown to the arm's size first (models/growing.py).
        once: one run, by the first seed, serves all seeds.
        settings: of the run, laid over those in common; None: it is not trained.
        paper: the paper's figures by task, as the table is to show them.
    """

    label: str | None = None
    begins_with: str | None = None
    grow: bool = False
    once: bool = False
    settings: dict[str, Any] | None = None
    paper: dict[str, str] = {}


class Claim(Section):
    """That one arm does better than another on a task, by its first metric or the one named; `paper`: the paper's
    figures, where it says so."""

    better: str
    than: str
    task: str
    metric: str | None = None
    paper: str = ""


class Frame(Section):
    """What holds for the whole; `run` is its folder."""

    title: str
    about: str
    run: Path
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**31)], ...], Field(min_length=1)]
    metrics: dict[str, Annotated[tuple[str, ...], Field(min_length=1)]]


@dataclass(frozen=True)
class Planned:
    """The run of an arm by a seed."""

    arm: str
    seed: int
    config: RunConfig


@dataclass(frozen=True)
class Plan:
    """A reproduction of which every run is known and valid.

    Attributes:
        judged_by: what all policies are evaluated with, whatever trained them.
        changed: what was set otherwise than the file has it.
    """

    name: str
    frame: Frame
    data: Mapping[str, Data]
    arms: Mapping[str, Arm]
    claims: tuple[Claim, ...]
    runs: tuple[Planned, ...]
    judged_by: RunConfig
    changed: tuple[str, ...]


@dataclass(frozen=True)
class _Setting:
    """One override of a run's setting: the arm it is for (None: every one), its keys and value, how it was written."""

    arm: str | None
    keys: list[str]
    value: Any
    written: str


def load_plan(name: str, overrides: Iterable[str], folder: Path) -> Plan:
    """Reads `folder/NAME.yaml`. An override `key=value` is a setting of every arm, `arms.NAME.key=value` of one;
    `seeds`, `run` and `data.TASK.key` are the whole's.

    Raises:
        UserError: there is no such file; or naming the key, the value, what is allowed, and where it was set.
    """
    known = [path.stem for path in folder.glob("*.yaml")]
    if name not in known:
        raise unknown_name("reproduce", name, known, str(folder))
    path, overrides = folder / f"{name}.yaml", tuple(overrides)
    data, lines = read_settings(path)
    origins = {key: f"{path}, line {line}" for key, line in lines.items()}
    data.setdefault("run", f"runs/reproduce/{name}")
    parts = {key: data.pop(key, {}) for key in PARTS}
    settings = [each for each in (_set(override, data, parts, origins) for override in overrides) if each]
    frame = _parsed(Frame, data, "", origins, path)
    sets = {task: _parsed(Data, each, f"data.{task}.", origins, path) for task, each in parts["data"].items()}
    arms = {arm: _parsed(Arm, each, f"arms.{arm}.", origins, path) for arm, each in parts["arms"].items()}
    claims = tuple(_parsed(Claim, each, "claims.", origins, path) for each in parts["claims"])
    _require_known(frame, sets, arms, claims, path)
    episodes = {name: str(frame.run / "data" / task) for task, each in sets.items() for name in (task, *each.also)}
    common = parts["common"] | {"episodes": episodes}

    def configured(arm: str | None, own: Mapping[str, Any]) -> RunConfig:
        laid, where = laid_over(common, own), _origins_of(arm, origins)
        for setting in settings:
            if setting.arm in (None, arm):
                set_setting(laid, setting.keys, setting.value)
                where[".".join(setting.keys)] = f"{setting.written} on the command line"
        return parse_config(laid, origins=where, source=f"{path}, in arm `{arm}`" if arm else str(path))

    runs, untrained = [], {**UNTRAINED, "tasks": dict.fromkeys(frame.metrics, 1.0)}
    for seed in frame.seeds:
        for label, arm in arms.items():
            if arm.once and seed != frame.seeds[0]:
                continue
            place = {"name": f"{name}-{label}", "run": str(_folder(frame, arms, label, seed)), "seed": seed}
            place["init"] = str(_start(frame, arms, label, seed))
            own = untrained if arm.settings is None else arm.settings
            runs.append(Planned(label, seed, configured(label, laid_over(own, place))))
    return Plan(name, frame, sets, arms, claims, tuple(runs), configured(None, {**untrained, "name": name}), overrides)


def _folder(frame: Frame, arms: Mapping[str, Arm], name: str, seed: int) -> Path:
    return frame.run / ("once" if arms[name].once else f"seed{seed}") / name


def _start(frame: Frame, arms: Mapping[str, Arm], name: str, seed: int) -> Path | str:
    arm = arms[name]
    return "base" if arm.begins_with is None else _folder(frame, arms, arm.begins_with, seed)


def _set(override: str, data: dict[str, Any], parts: Mapping[str, Any], origins: dict[str, str]) -> _Setting | None:
    """Sets what is the whole's; returns what is a setting of runs."""
    keys, value = parse_override(override)
    where = f"{override} on the command line"
    if keys[0] in ("seeds", "run") and len(keys) == 1:
        data[keys[0]] = value
    elif keys[0] == "data" and len(keys) > 2:
        if keys[1] not in parts["data"]:
            raise unknown_name("data", keys[1], parts["data"], where)
        set_setting(parts["data"], keys[1:], value)
    elif keys[0] in PARTS and (keys[0] != "arms" or len(keys) < 3):
        mend = "key=value is for all arms; else arms.NAME.key=value, data.TASK.key=value, seeds=[0] or run=FOLDER"
        raise UserError(f"`{override}` sets nothing of the reproduction.", where=where, mend=mend)
    else:
        arm = keys[1] if keys[0] == "arms" else None
        if arm is not None and arm not in parts["arms"]:
            raise unknown_name("arms", arm, parts["arms"], where)
        keys = keys[2:] if arm is not None else keys
        _require_own(keys[0], where)
        return _Setting(arm, keys, value, override)
    origins[".".join(keys)] = where
    return None


def _require_own(key: str, where: str) -> None:
    if key in OF_THE_WHOLE:
        mend = "an arm has its own by its name, its seed and `begins_with`"
        raise UserError(f"`{key}` is set, but it is the reproduction's.", where=where, mend=mend)


def _parsed(kind: type[T], data: Any, prefix: str, origins: Mapping[str, str], path: Path) -> T:
    own = {key.removeprefix(prefix): origin for key, origin in origins.items() if key.startswith(prefix)}
    source = origins.get(prefix.rstrip("."), str(path))
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise as_user_error(error, kind, own, source) from None


def _origins_of(arm: str | None, origins: Mapping[str, str]) -> dict[str, str]:
    """Where each setting of an arm's run was set."""
    found = {}
    for prefix in ("common.", f"arms.{arm}.settings."):
        found |= {key.removeprefix(prefix): origin for key, origin in origins.items() if key.startswith(prefix)}
    return found


def _require_known(
    frame: Frame, data: Mapping[str, Data], arms: Mapping[str, Arm], claims: Iterable[Claim], path: Path
) -> None:
    """Raises UserError for a name that nothing answers to, or an arm that begins with one not made before it."""
    for task, metrics in frame.metrics.items():
        shares = [metric for metric in find_task(task).metrics if metric != "length"]  # all else is in points
        _require_each(metrics, shares, f"metrics.{task}", path)
    _require_each(frame.metrics, data, "metrics", path)
    made: dict[str, Arm] = {}
    for name, arm in arms.items():
        _require_each(arm.paper, frame.metrics, f"arms.{name}.paper", path)
        for key in arm.settings or {}:
            _require_own(key, f"{path}, in arm `{name}`")
        if arm.begins_with is not None:
            _require_each([arm.begins_with], made, f"arms.{name}.begins_with", path)
            if arm.once and not made[arm.begins_with].once:
                what = f"`arms.{name}` is made once but begins with `{arm.begins_with}`, which every seed has."
                raise UserError(what, where=str(path))
        made[name] = arm
    for claim in claims:
        _require_each([claim.better, claim.than], [name for name, arm in arms.items() if arm.label], "claims", path)
        _require_each([claim.task], frame.metrics, "claims", path)
        _require_each([claim.metric] if claim.metric else [], frame.metrics[claim.task], "claims", path)


def _require_each(names: Iterable[str], known: Iterable[str], key: str, path: Path) -> None:
    for name in names:
        if name not in known:
            raise unknown_name(key, name, known, str(path))
