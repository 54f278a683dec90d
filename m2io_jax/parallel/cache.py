"""Compiled programs are kept between runs, in the user's cache folder: a second start compiles next to nothing."""

import hashlib
import os
import platform
from collections.abc import MutableMapping
from pathlib import Path

VARIABLE = "JAX_COMPILATION_CACHE_DIR"


def keep_programs(environment: MutableMapping[str, str] = os.environ) -> None:
    """Tells JAX where to keep them, unless the environment already does. To be called before JAX is imported."""
    if VARIABLE in environment:
        return
    home = environment.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    environment[VARIABLE] = str(Path(home) / "m2io_jax" / "compiled" / processor())


def processor() -> str:
    """Names what this processor can do: a program for one may not run on another, and homes are shared."""
    try:
        about = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
        can = [line for line in about.splitlines() if line.startswith(("model name", "flags", "Features"))]
    except OSError:
        can = [platform.processor()]
    digest = hashlib.sha256("\n".join(can).encode()).hexdigest()[:12]
    return f"{platform.machine()}-{digest}"
