"""What the commands `m2io sweep` and `m2io sweep report` do."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from m2io_jax.errors import UserError
from m2io_jax.sweeps.plan import load_sweep
from m2io_jax.sweeps.report import write_report
from m2io_jax.sweeps.running import require_valid, run_sweep, show


def sweep(words: Sequence[str], dry_run: bool, out: Console) -> int:
    """Runs the sweep SWEEP.yaml [key=value...]; returns how many of its runs failed."""
    plan, runs = load_sweep(Path(words[0]), words[1:])
    require_valid(plan, runs, data=not dry_run)
    if dry_run:
        show(plan, runs, out)
        return 0
    return run_sweep(plan, runs, out)


def report(words: Sequence[str], out: Console) -> None:
    """Writes the report of the sweep SWEEP.yaml [key=value...], given as it was run."""
    if not words:
        raise UserError("No sweep is named.", mend="m2io sweep report SWEEP.yaml")
    written = write_report(*load_sweep(Path(words[0]), words[1:]))
    out.print(written[1].read_text(encoding="utf-8"), markup=False, highlight=False, soft_wrap=True)
    out.print(f"written: {', '.join(map(str, written))}", markup=False, highlight=False, soft_wrap=True)
