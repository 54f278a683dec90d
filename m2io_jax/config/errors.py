"""Says what is wrong in a configuration: the key, the value, what is allowed, and the line that set it."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from m2io_jax.errors import UserError, nearest


def as_user_error(
    error: ValidationError, model: type[BaseModel], origins: Mapping[str, str], source: str
) -> UserError:
    """Turns pydantic's findings into one message; `origins` maps dotted keys to where they were set."""
    # A default that could not be computed only repeats the complaint about the field it is computed from.
    found = [item for item in error.errors() if item["type"] != "default_factory_not_called"]
    said = [(_say(item, model), _origin(item, origins, source)) for item in found]
    if len(said) == 1:
        (what, mend), where = said[0]
        return UserError(f"The configuration is wrong: {what}.", where=where, mend=mend)
    listed = "".join(f"\n- {what} ({where})" + (f"\n  {mend}" if mend else "") for (what, mend), where in said)
    return UserError(f"The configuration is wrong in {len(said)} places:{listed}", where=source)


def key_lines(node: yaml.Node | None, path: Path, prefix: str = "") -> dict[str, int]:
    """Maps each dotted key of a YAML document to its line; a key given twice raises UserError."""
    lines: dict[str, int] = {}
    if not isinstance(node, yaml.MappingNode):
        return lines
    for key, value in node.value:
        name, line = f"{prefix}{key.value}", key.start_mark.line + 1
        if name in lines:
            what = f"`{name}` is set twice, in lines {lines[name]} and {line}."
            raise UserError(what, where=str(path), mend="keep one of the two")
        lines[name] = line
        lines |= key_lines(value, path, f"{name}.")
    return lines


def _say(item: Mapping[str, Any], model: type[BaseModel]) -> tuple[str, str | None]:
    key, kind, value = ".".join(map(str, item["loc"])), item["type"], item["input"]
    if kind == "extra_forbidden":
        section = _section(model, item["loc"][:-1])
        prefix = ".".join(map(str, (*item["loc"][:-1], "")))
        return f"`{key}` is not a setting", nearest(str(item["loc"][-1]), section.model_fields, prefix)
    if kind == "missing":
        return f"`{key}` is not set", f"add `{key}: ...` to the file, or {key}=... to the command"
    if kind == "string_pattern_mismatch":
        return f"`{key}` is {value!r}", "use letters, digits, `_`, `-` and `.` only"
    said = _REQUIRED.get(kind) or item["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    if not key or "key" in item.get("ctx", {}):  # a check over several settings names them itself
        return said, None
    if isinstance(value, dict | BaseModel):
        return f"`{key}`: {said}", None
    return f"`{key}` is {value!r} but {said}", None


# Pydantic names Python's types here, which mean nothing to the writer of a YAML file.
_REQUIRED = {
    "model_type": "must hold settings of its own, as `key: value`",
    "dict_type": "must hold names with their weights, as `name: weight`",
    "path_type": "must be a path",
}


def _section(model: type[BaseModel], loc: Iterable[Any]) -> type[BaseModel]:
    for name in loc:
        kind = model.model_fields[name].annotation if name in model.model_fields else None
        # Seen through `... | None` and through a mapping, whose own names are passed over.
        model = next((part for part in (kind, *_parts(kind)) if _is_section(part)), model)
    return model


def _parts(kind: Any) -> Iterable[Any]:
    for part in get_args(kind):
        yield part
        yield from _parts(part)


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _origin(item: Mapping[str, Any], origins: Mapping[str, str], source: str) -> str:
    """Where the setting, or what it is part of, or the last of its parts, was set."""
    loc = item.get("ctx", {}).get("key", ".".join(map(str, item["loc"]))).split(".")
    parts = [origin for key, origin in origins.items() if key.startswith(".".join(loc) + ".")]
    wholes = (origins.get(".".join(loc[:length])) for length in range(len(loc), 0, -1))
    return next(iter(parts[::-1]), None) or next(filter(None, wholes), source)
