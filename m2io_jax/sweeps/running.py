"""Runs a sweep: one run after another, each in processes of its own, so that none takes another down with it.

    FOLDER/NAME/...             a run's folder, as `m2io train` and `m2io evaluate` leave it
    FOLDER/NAME/results.json    it is finished

A run for a slice is handed to launch/tpu_vm.sh and made in `launcher.runs`, which all its machines see and where the
policy stays; what the report reads is fetched into FOLDER/NAME before the machines are given back. They are given back
however the run ended; where the sweep is asked to stop, the run is asked to save first.
"""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from m2io_jax.errors import UserError
from m2io_jax.sweeps.plan import SweepConfig, SweepRun
from m2io_jax.training.checks import check
from m2io_jax.training.resuming import open_sources
from m2io_jax.training.stages import load_stages

# How a run ends that was asked to stop and saved, by the signal that asks.
STOPPED = {signal.SIGTERM: os.EX_TEMPFAIL, signal.SIGINT: 128 + signal.SIGINT}
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
        How many runs failed, and how many have left machines that could not be given back. One that was asked to stop
        (75, 130) ends the sweep with its status.
    """
    call, failed, kept, skipped = call or in_a_process, [], [], 0
    for number, run in enumerate(runs, 1):
        title = f"run {number} of {len(runs)}: {run.name}"
        if (folder_of(sweep, run) / RESULTS).is_file():
            skipped += 1
            out.print(f"{title}: finished before", markup=False, highlight=False)
            continue
        out.print(title, markup=False, highlight=False)
        status = _make(sweep, run, call, kept, out)
        if status in STOPPED.values():
            out.print("asked to stop: the same command goes on", markup=False)
            _tell_kept(kept, out)
            raise SystemExit(status)
        if status:
            failed.append(run.name)
            out.print(f"{run.name} failed with status {status}; the sweep goes on", markup=False, highlight=False)
    made = len(runs) - skipped - len(failed)
    out.print(f"{made} made, {skipped} finished before, {len(failed)} failed {' '.join(failed)}", markup=False)
    _tell_kept(kept, out)
    return len(failed) + len(kept)


def commands(sweep: SweepConfig, run: SweepRun) -> tuple[list[Command], Command | None]:
    """What makes a run, in order up to the first that fails; and what is run after it all the same."""
    here = folder_of(sweep, run)
    folder = sweep.launcher.runs / run.name if run.topology else here
    verbs = [["train", *run.words(folder)], ["evaluate", folder.as_posix()]]
    if run.topology is None:
        return [[sys.executable, "-m", "m2io_jax", *verb] for verb in verbs], None
    asked = ["--topology", run.topology.name]
    launched = [[*_launcher("run", sweep, run), *asked, *verb] for verb in verbs]
    fetch = [*_launcher("fetch", sweep, run), folder.as_posix(), here.parent.as_posix()]
    return [*launched, fetch], _launcher("delete", sweep, run)


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
    """Runs a command. A request to stop ends the sweep once the command has ended: SIGTERM is passed on to it, and of
    Ctrl-C the terminal has told it."""
    process, told = subprocess.Popen(command), []

    def note(signum, frame):
        told.append(signum)
        if signum == signal.SIGTERM:
            process.terminate()

    before = {number: signal.signal(number, note) for number in STOPPED}
    try:
        status = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return STOPPED[told[0]] if told else status


def _make(sweep: SweepConfig, run: SweepRun, call: Call, kept: list[Command], out: Console) -> int:
    """Makes a run and gives its machines back; where that fails, adds the command that does it to `kept`."""
    makes, give_back = commands(sweep, run)
    status = STOPPED[signal.SIGINT]  # between two commands Ctrl-C is an exception
    try:
        # The first status that is not 0; what follows it is not run.
        status = next(filter(None, map(call, makes)), 0)
    finally:
        if give_back:
            if status in STOPPED.values() and call(_launcher("stop", sweep, run)):
                said = "could not be asked to save, or did not end: it goes on from the checkpoint that there is"
                out.print(f"{run.name} {said}", markup=False, highlight=False)
            given_back = call(give_back)
            if given_back:
                kept.append(give_back)
                _tell_kept(kept[-1:], out)
            if given_back in STOPPED.values():  # asked to stop meanwhile: no other machines are to be made
                status = given_back
    return status


def _tell_kept(kept: Sequence[Command], out: Console) -> None:
    for command in kept:
        said = f"Machines may still run, and cost: they could not be given back. Do so by: {shlex.join(command)}"
        out.print(said, markup=False, highlight=False, soft_wrap=True)


def _launcher(verb: str, sweep: SweepConfig, run: SweepRun) -> Command:
    """A command of the launcher on the machines of a run."""
    words = []
    for key, value in sweep.launcher.options.items():
        if isinstance(value, bool):
            words += [f"--{key}"] if value else []
        else:
            values = value if isinstance(value, tuple) else [value]
            words += [word for each in values for word in (f"--{key}", str(each))]
    return [str(LAUNCHER), verb, "--name", machine(run), *words]
