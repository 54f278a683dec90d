"""Configurations in YAML files, with dotted overrides on top."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from m2io_jax.config.errors import as_user_error, key_lines
from m2io_jax.config.run import RunConfig
from m2io_jax.config.text import Loader, read_yaml
from m2io_jax.errors import UserError

_EXAMPLE = "give a YAML file of `key: value`, such as configs/tiny.yaml"


def load_config(path: Path | str, overrides: Iterable[str] = ()) -> RunConfig:
    """Reads a YAML file and applies overrides such as `rollout.group_size=4` (the value is YAML too).

    An override of one name of `tasks` or `rewards` leaves the other names as they are.

    Raises:
        UserError: naming the key, the value, what is allowed, and the line of the file.
    """
    data, lines = read_settings(Path(path))
    if "stages" in data:
        mend = "m2io train trains its stages; elsewhere give the config.yaml in a stage's folder"
        raise UserError("This configuration has stages where that of one run is needed.", where=str(path), mend=mend)
    origins = {key: f"{path}, line {line}" for key, line in lines.items()}
    for override in overrides:
        keys, value = parse_override(override)
        set_setting(data, keys, value)
        origins[".".join(keys)] = f"{override} on the command line"
    return parse_config(data, origins=origins, source=str(path))


def parse_config(data: Mapping[str, Any], *, origins: Mapping[str, str], source: str) -> RunConfig:
    """Validates nested values; `origins` says where each dotted key was set, `source` where the rest came from."""
    try:
        return RunConfig.model_validate(data)
    except ValidationError as error:
        raise as_user_error(error, RunConfig, origins, source) from None


def read_settings(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """What a YAML file sets, not yet validated, and the line of each dotted key. Raises UserError: it is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UserError(f"The configuration cannot be read: {reason}.", where=str(path), mend=_EXAMPLE) from None
    try:
        data = read_yaml(text, takes_text)
        lines = key_lines(yaml.compose(text, Loader=Loader), path)
    except RecursionError:
        raise UserError("The configuration holds itself, by an alias.", where=str(path), mend=_EXAMPLE) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or str(error)
        raise UserError(f"The configuration is not valid YAML: {problem}.", where=where, mend=_EXAMPLE) from None
    if data is not None and not isinstance(data, dict):
        raise UserError("The configuration must be a list of `key: value`.", where=str(path), mend=_EXAMPLE)
    return data or {}, lines


def parse_override(override: str) -> tuple[list[str], Any]:
    """The keys and the value of `a.b=value`. Raises UserError: it is not of this form."""
    key, equals, text = override.partition("=")
    keys = key.strip().split(".")
    if not equals or not all(keys):
        mend = "write key=value, such as steps=20 or rollout.group_size=4"
        raise UserError(f"`{override}` is not an override.", where="the command line", mend=mend)
    try:
        return keys, read_yaml(text, takes_text, keys)
    except yaml.YAMLError:
        return keys, text


def set_setting(data: dict[str, Any], keys: list[str], value: Any) -> None:
    """Sets a dotted key, starting from the defaults where the key is one name of a mapping."""
    field = RunConfig.model_fields.get(keys[0])
    if len(keys) > 1 and field is not None and isinstance(field.default, dict):
        data.setdefault(keys[0], dict(field.default))
    for key in keys[:-1]:
        if not isinstance(data.get(key), dict):
            data[key] = {}
        data = data[key]
    data[keys[-1]] = value


def takes_text(keys: Sequence[str]) -> bool:
    """Return whether a setting of a run, or of one of its stages, takes text or a path, and no number."""
    kinds: list[Any] = [RunConfig]
    for key in keys[2:] if keys[:1] == ["stages"] else keys:
        kinds = [inner for kind in kinds for inner in _kinds_below(kind, key)]
    found = {leaf for kind in kinds for leaf in _leaves(kind)}
    return bool(found & {str, Path}) and not found & {int, float}


def _kinds_below(kind: Any, key: str) -> Iterator[Any]:
    """Yield the kinds of what `key` names in a value of `kind`."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        if key in kind.model_fields:
            yield kind.model_fields[key].annotation
    elif get_origin(kind) is not dict:  # a number that stands for a task's folder is a slip
        for part in get_args(kind):
            yield from _kinds_below(part, key)


def _leaves(kind: Any) -> Iterator[Any]:
    """Yield the plain types that a value of `kind` may have without keys of its own."""
    if isinstance(kind, type) and get_origin(kind) is None:
        yield kind
    elif get_origin(kind) not in (dict, Literal):
        for part in get_args(kind):
            yield from _leaves(part)
