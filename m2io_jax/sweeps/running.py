"""Runs a sweep: one run after another, each in processes of its own, so that none takes another down with it.

    FOLDER/NAME/...             a run's folder, as `m2io train` and `m2io evaluate` leave it
    FOLDER/NAME/results.json    it is finished

A run for a slice is handed to launch/tpu_vm.sh and made in `launcher.runs`, which all its machines see and where the
policy stays; what the report reads is fetched into FOLDER/NAME before the machines are given back.
"""

import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from m2io_jax.errors import UserError
from m2io_jax.sweeps.plan import SweepConfig, SweepRun
from m2io_jax.training.run import check, open_sources
from m2io_jax.training.stages import load_stages

SAVED = 75  # EX_TEMPFAIL: a run that was told to stop and saved
RESULTS = "results.json"
LAUNCHER = Path("launch/tpu_vm.sh")

Command = list[str]
Call = Callable[[Command], int]


def require_valid(sweep: SweepConfig, runs: Sequence[SweepRun], *, data: bool) -> None:
    """Reads every run's configuration, and with `data` opens the episodes of those that run here.

    Raises:
        UserError: with all mistakes of all runs.
    """
    mistakes: dict[str, list[str]] = {}
    for run in runs:
        try:
            for config in load_stages(run.config, run.words(folder_of(sweep, run))[1:]).runs:
                check(config)
                if data and run.topology is None:
                    open_sources(config)
        except UserError as error:
            mistakes.setdefault(str(error), []).append(run.name)
    if data and any(run.topology for run in runs) and not LAUNCHER.is_file():
        mistakes[f"{LAUNCHER} is not here.\n  mend:  start the sweep in the source tree"] = ["what is launched"]
    if mistakes:
        told = "\n".join(f"- {', '.join(names)}:\n  {said}" for said, names in mistakes.items())
        raise UserError(f"Nothing was started: {len(runs)} runs were looked at.\n{told}")


def run_sweep(sweep: SweepConfig, runs: Sequence[SweepRun], out: Console, call: Call | None = None) -> int:
    """Makes what is not finished yet; `call` runs one command and returns its exit status.

    Returns:
        How many runs failed. A run that was told to stop and saved (75) ends the sweep with that status.
    """
    call, failed, skipped = call or in_a_process, [], 0
    for number, run in enumerate(runs, 1):
        title = f"run {number} of {len(runs)}: {run.name}"
        if (folder_of(sweep, run) / RESULTS).is_file():
            skipped += 1
            out.print(f"{title}: finished before", markup=False, highlight=False)
            continue
        out.print(title, markup=False, highlight=False)
        status = _make(sweep, run, call)
        if status == SAVED:
            out.print("told to stop: the same command goes on", markup=False)
            raise SystemExit(SAVED)
        if status:
            failed.append(run.name)
            out.print(f"{run.name} failed with status {status}; the sweep goes on", markup=False, highlight=False)
    made = len(runs) - skipped - len(failed)
    out.print(f"{made} made, {skipped} finished before, {len(failed)} failed {' '.join(failed)}", markup=False)
    return len(failed)


def commands(sweep: SweepConfig, run: SweepRun) -> tuple[list[Command], Command | None]:
    """What makes a run, in order up to the first that fails; and what is run after it all the same."""
    here = folder_of(sweep, run)
    folder = sweep.launcher.runs / run.name if run.topology else here
    verbs = [["train", *run.words(folder)], ["evaluate", folder.as_posix()]]
    if run.topology is None:
        return [[sys.executable, "-m", "m2io_jax", *verb] for verb in verbs], None
    machines = ["--name", machine(run), *_options(sweep)]
    asked = ["--topology", run.topology.name]
    launched = [[str(LAUNCHER), "run", *machines, *asked, *verb] for verb in verbs]
    fetch = [str(LAUNCHER), "fetch", *machines, folder.as_posix(), here.parent.as_posix()]
    return [*launched, fetch], [str(LAUNCHER), "delete", *machines]


def show(sweep: SweepConfig, runs: Sequence[SweepRun], out: Console) -> None:
    """Prints every command, ready for a shell, and runs none."""
    for run in runs:
        makes, after = commands(sweep, run)
        where = run.topology.name if run.topology else "this machine"
        out.print(f"# {run.name} on {where}", markup=False, highlight=False, soft_wrap=True)
        for command in [*makes, *([after] if after else [])]:
            out.print(shlex.join(command), markup=False, highlight=False, soft_wrap=True)


def folder_of(sweep: SweepConfig, run: SweepRun) -> Path:
    """Where a run's results are on this machine, wherever it is made."""
    return sweep.folder / run.name


def machine(run: SweepRun) -> str:
    """A name for a run's machines: the digest keeps it its own, and clouds take it."""
    return f"m2io-{run.name.rpartition('-')[2]}"


def in_a_process(command: Command) -> int:
    """Runs a command. A request to stop is passed on to it and waited for, and then ends the sweep."""
    process, told = subprocess.Popen(command), []

    def pass_on(signum, frame):
        told.append(signum)
        process.terminate()

    before = signal.signal(signal.SIGTERM, pass_on)
    try:
        status = process.wait()
    finally:
        signal.signal(signal.SIGTERM, before)
    return SAVED if told else status


def _make(sweep: SweepConfig, run: SweepRun, call: Call) -> int:
    makes, after = commands(sweep, run)
    try:
        # The first status that is not 0; what follows it is not run.
        return next(filter(None, map(call, makes)), 0)
    finally:
        if after:
            call(after)


def _options(sweep: SweepConfig) -> Command:
    words = []
    for key, value in sweep.launcher.options.items():
        if value is not False:
            words += [f"--{key}"] if value is True else [f"--{key}", str(value)]
    return words
