"""What a service knows a run as, kept in the run's folder, so that a resumed run goes on there as the same one."""

import json
from collections.abc import Callable
from pathlib import Path

from m2io_jax.errors import UserError
from m2io_jax.files import replace_text

IDENTITY_FILE = "logged_as.json"


def remembered_id(folder: Path, service: str, begin: Callable[[], str]) -> str:
    """The id that `service` knows the run of this folder by; of a new one, what `begin` returns.

    Raises:
        UserError: the file of ids cannot be read.
    """
    path = folder / IDENTITY_FILE
    known = _read(path)
    if service not in known:
        known[service] = begin()
        replace_text(path, json.dumps(known, indent=1) + "\n")
    return known[service]


def _read(path: Path) -> dict[str, str]:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        known = None
    if not isinstance(known, dict) or not all(isinstance(each, str) for each in known.values()):
        mend = "restore the file, or delete it: the run is then logged as a new one"
        raise UserError("What services know this run as cannot be read.", where=str(path), mend=mend)
    return known
