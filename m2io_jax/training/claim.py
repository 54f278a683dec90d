"""A run's folder while it is trained in: one process holds it. A second would clear away what the first is writing."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from m2io_jax.config import RunConfig
from m2io_jax.errors import UserError
from m2io_jax.files import replace_text
from m2io_jax.parallel.exchange import is_first

LOCK_FILE = ".lock"


@contextmanager
def claimed(config: RunConfig) -> Iterator[Path]:
    """The run's folder, which is made, held while the context is open; a new one has the configuration noted.

    Of several processes the first holds it for all. However it ends, the system lets go of it then.

    Raises:
        UserError: another run holds it, or it cannot be written.
    """
    folder = config.run
    if not is_first():
        yield folder
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK_FILE).open("a+", encoding="utf-8")
    except OSError as error:
        raise _unwritable(folder, error) from None
    with file:
        _lock(file, folder)
        if not (folder / "config.yaml").is_file():
            note(config)
        yield folder


def note(config: RunConfig) -> None:
    """Writes the configuration into the run's folder; over that of an earlier start only where the run goes on.

    Raises:
        UserError: it cannot be written.
    """
    try:
        replace_text(config.run / "config.yaml", config.to_yaml())
    except OSError as error:
        raise _unwritable(config.run, error) from None


def _lock(file: TextIO, folder: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        what, mend = f"Another run is at work here: {file.read().strip()}.", "wait for its end, or give run=FOLDER"
        raise UserError(what, where=str(folder), mend=mend) from None
    except OSError:
        return  # a file system without locks, such as a bucket's
    with suppress(OSError):  # who holds it is told where that can be written
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()


def _unwritable(folder: Path, error: OSError) -> UserError:
    what, mend = f"The run's folder cannot be written: {error.strerror}.", "give another place with run=FOLDER"
    return UserError(what, where=str(folder), mend=mend)
