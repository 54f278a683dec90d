"""Whether a configuration goes on with a run that was saved: by `RunConfig.resume_key`."""

from collections.abc import Mapping
from typing import Any

from m2io_jax.config.run import RunConfig
from m2io_jax.errors import UserError


def resume_differences(saved: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """Says, one line a key, where two `resume_key()`s differ; empty where a run may go on."""
    missing = object()

    def show(key: Mapping[str, Any], name: str) -> str:
        return repr(key[name]) if name in key else "nothing"

    changed = [name for name in {**saved, **current} if saved.get(name, missing) != current.get(name, missing)]
    return [f"{name}: was {show(saved, name)}, is now {show(current, name)}" for name in changed]


def require_resumable(saved: Mapping[str, Any], config: RunConfig) -> None:
    """Raises UserError, naming every key, where `config` would not continue the run whose `resume_key()` was saved."""
    saved, current = _stated_since(saved), config.resume_key()
    if current.get("model") is None:  # the weights' own size, which the checkpoint holds: what said it before may go
        saved["model"] = None
    changed = resume_differences(saved, current)
    if changed:
        raise UserError(
            "The run was started with other settings and cannot be resumed with these:\n  " + "\n  ".join(changed),
            where=str(config.run),
            mend="put the settings back, or give another directory with run=...",
        )


def _stated_since(saved: Mapping[str, Any]) -> dict[str, Any]:
    """A saved `resume_key()` with the defaults of settings that there were not when it was saved."""
    defaults = RunConfig(name="any", objective="supervised", steps=1).resume_key()
    named = ("tasks.", "rewards.")  # what these do not name has no weight, whatever the default says

    def is_missing(name: str) -> bool:
        whole = any(key.startswith(f"{name}.") for key in saved)  # a section that is off by default, and was on
        return "." in name and not name.startswith(named) and not whole

    return {name: value for name, value in defaults.items() if is_missing(name)} | dict(saved)
