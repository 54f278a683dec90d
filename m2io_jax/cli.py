"""The command `m2io`: one short function a verb."""

import errno
import math
import os
import signal
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Annotated

import typer
import yaml
from rich.console import Console

from m2io_jax.errors import UserError

PURPOSE = "Answers with the right pictures in the right places."
app = typer.Typer(add_completion=False, no_args_is_help=True, help=PURPOSE)
corpus_app = typer.Typer(no_args_is_help=True, help="Fill a corpus folder.")
import_app = typer.Typer(no_args_is_help=True, help="From where the documents come.")
convert_app = typer.Typer(no_args_is_help=True, help="Published weights in and out.")
read_app = typer.Typer(no_args_is_help=True, help="Published questions with verified answers.")
inspect_app = typer.Typer(no_args_is_help=True, help="What a configuration comes to.")
app.add_typer(corpus_app, name="corpus")
app.add_typer(inspect_app, name="inspect")
app.add_typer(read_app, name="read")
app.add_typer(convert_app, name="convert")
corpus_app.add_typer(import_app, name="import")

Overrides = Annotated[list[str] | None, typer.Argument(help="settings as key=value, dotted")]
Whole = Annotated[int, typer.Option(parser=lambda text: _whole_number(text), metavar="INTEGER")]
say = Console(stderr=True)
out = Console()


@import_app.command("markdown")
def import_markdown_tree(source: Path, folder: Path, settings: Overrides = None):
    """Import a tree of Markdown files with their pictures (encoding=gb18030 workers=4 cache=none ...)."""
    from m2io_jax.corpus.importing import MarkdownSettings, import_markdown

    how = _with(MarkdownSettings(), settings, "corpus import markdown")
    _tell(import_markdown(source, folder, settings=how).summary())


@import_app.command("kitchen")
def import_generated_kitchen(folder: Path, settings: Overrides = None):
    """Draw the generated kitchen (documents=400 seed=0 ...)."""
    from m2io_jax.corpus.importing import import_kitchen
    from m2io_jax.corpus.kitchen import KitchenConfig

    _tell(import_kitchen(_with(KitchenConfig(), settings, "kitchen"), folder).summary())


@app.command()
def index(corpus: Path):
    """Build the search index of a corpus, inside its folder."""
    from m2io_jax.corpus.store import Corpus
    from m2io_jax.retrieval.search import build_index, index_folder

    manifest = build_index(Corpus.open(corpus), index_folder(corpus))
    counts = f"{manifest['passages']:,} passages, {manifest['pictures']:,} pictures"
    _tell(f"index of {corpus}: {counts}, as vectors by {manifest['encoder']}")


@app.command()
def episodes(corpus: Path, folder: Path, settings: Overrides = None):
    """Build training episodes from a corpus and its index."""
    from m2io_jax.corpus.store import Corpus
    from m2io_jax.episodes.building import EpisodeConfig
    from m2io_jax.episodes.groups import groups_in_words
    from m2io_jax.episodes.making import make_episodes
    from m2io_jax.retrieval.search import Retriever, index_folder

    documents = Corpus.open(corpus)
    retriever = Retriever.open(index_folder(corpus), documents)
    manifest = make_episodes(documents, retriever, folder, _with(EpisodeConfig(), settings, "episodes"))
    dropped = [f"{count:,} because {reason}" for reason, count in manifest["report"]["dropped"].items()]
    _tell(f"{folder}: {_counts(manifest)}; dropped: {', '.join(dropped) or 'none'}")
    for line in groups_in_words(manifest["report"]["groups"], manifest["episodes"]):
        _tell(line)


@app.command()
def generate(task: str, folder: Path, settings: Overrides = None, count: Whole = 2000, seed: Whole = 0):
    """Make problems with verified answers: counting, geometry or arithmetic (most=4 colours=3 ...)."""
    from m2io_jax.episodes.generated import find_generated
    from m2io_jax.episodes.generated.making import make_generated

    generator = _with(find_generated(task), settings, f"generate {task}")
    manifest = make_generated(task, generator, folder, count=count, seed=seed)
    _tell(f"{folder}: {_counts(manifest)}")


@read_app.command("rows")
def read_rows(source: Path, folder: Path, settings: Overrides = None):
    """Read rows of published sets (JSON, JSON Lines or Parquet; forms of TRL, verl, VLM-R1 ...) as episodes."""
    from m2io_jax.episodes.published.draft import ReadConfig
    from m2io_jax.episodes.published.making import make_read

    _tell(make_read("rows", source, folder, _with(ReadConfig(), settings, "read rows")).summary())


@read_app.command("clevr")
def read_clevr(source: Path, folder: Path, settings: Overrides = None):
    """Read the counting questions of CLEVR, as TFDS prepared it, as episodes."""
    from m2io_jax.episodes.published.draft import ReadConfig
    from m2io_jax.episodes.published.making import make_read

    _tell(make_read("clevr", source, folder, _with(ReadConfig(), settings, "read clevr")).summary())


@app.command()
def train(config: Path, settings: Overrides = None):
    """Train as a configuration says, stage after stage; started again, it goes on where it was."""
    from m2io_jax.parallel.hosts import find_place, together
    from m2io_jax.training.stages import load_stages, train_stages

    stages = load_stages(config, settings or [])
    with together(find_place()):
        finished = train_stages(stages)
    if finished.already:
        _tell("The run had come to its end before; nothing was trained.")
    took = f"{finished.steps} steps in {finished.seconds:.0f} s"
    apart = finished.policy.config.lora is not None
    more = ", base and adapters apart (m2io convert export joins them)" if apart else ""
    _tell(f"{took}; policy in {finished.folder / 'model'}{more}")


@app.command()
def sweep(
    words: Annotated[
        list[str], typer.Argument(help="SWEEP.yaml, or report SWEEP.yaml; then settings for every run as key=value")
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the commands and run nothing")] = False,
):
    """Train and evaluate every run of a sweep that is not finished, or write the report of those that are."""
    from m2io_jax.sweeps import command

    if words[0] == "report":
        command.report(words[1:], out)
    elif command.sweep(words, dry_run, out):
        raise typer.Exit(1)


@app.command()
def profile(config: Path, folder: Path, settings: Overrides = None, steps: Whole = 3):
    """Trace a few steps of a configuration, for TensorBoard or Perfetto; nothing of the run is kept.

    Of stages, the first; another one by the config.yaml in its folder.
    """
    from m2io_jax.parallel.hosts import find_place, together
    from m2io_jax.training import run
    from m2io_jax.training.stages import load_stages

    first = load_stages(config, settings or []).runs[0]
    with together(find_place()):
        _tell(f"trace in {run.trace(first, folder, steps)}")


@app.command()
def plan(
    config: Path,
    settings: Overrides = None,
    topology: Annotated[str, typer.Option(help="such as v5e:4x4; several with commas; 2xv5e:4x4 is two slices")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
):
    """Compile a configuration's programs for TPUs that are not at hand: memory, arithmetic, traffic, time."""
    from m2io_jax.planning.command import plan_command

    plan_command(config, settings or [], topology, as_json, out, say)


@inspect_app.command("shardings")
def inspect_shardings(
    config: Path,
    settings: Overrides = None,
    topology: Annotated[str, typer.Option(help="such as v5e:4x4")] = "",
):
    """Show where every array of a run lies on a topology: shapes, mesh axes, bytes a device."""
    from m2io_jax.planning.shardings import shardings_command

    shardings_command(config, settings or [], topology, out)


@app.command()
def evaluate(
    run: Annotated[str, typer.Argument(help="a run's folder, or `rules`")],
    gold: Annotated[Path | None, typer.Option(help="MRAMG gold lists, for `rules`")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    split: str = "test",
):
    """Evaluate a run's policy on each of its tasks, or the rules alone on MRAMG-Bench's gold lists."""
    if run == "rules":
        from m2io_jax.evaluation.gold_command import evaluate_gold

        evaluate_gold(gold, as_json, out)
    else:
        from m2io_jax.evaluation.command import evaluate_run
        from m2io_jax.parallel.hosts import find_place, together

        with together(find_place()):
            evaluate_run(Path(run), split, as_json, out)


@app.command()
def answer(
    words: Annotated[list[str], typer.Argument(help="[RUN] QUESTION")],
    corpus: Annotated[Path | None, typer.Option(help="documents to answer from; the run's by default")] = None,
    inserter: Annotated[
        str | None, typer.Option(help="source (default without RUN), model (default with RUN) or match")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="also write the answer as a page")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
):
    """Answer a question with pictures: placed by a run's policy, or where they stand in the answer's own document.

    source keeps the pictures of the text where its document has them. match compares words, and places few. model asks
    the run's policy, or without a run the base that ships with the package.
    """
    from m2io_jax.serving import command

    if len(words) > 2:
        raise UserError("One question at a time.", where=" ".join(words), mend='m2io answer [RUN] "QUESTION"')
    run = Path(words[0]) if len(words) == 2 else None
    command.answer(words[-1], run, corpus=corpus, inserter=inserter, html=html, as_json=as_json, out=out)


@convert_app.command("import")
def convert_import(
    source: Path,
    folder: Path,
    adapter: Annotated[Path | None, typer.Option(help="a PEFT folder to add")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16; as stored if not given")] = None,
):
    """Read a Hugging Face folder of Qwen2.5-VL or Qwen2-VL, check it, and write a policy's folder."""
    from m2io_jax.models.conversion import import_folder

    import_folder(source, folder, adapter=adapter, dtype=_weight_type(dtype))
    _tell(f"policy: {folder}")


@convert_app.command("export")
def convert_export(
    run: Path,
    folder: Path,
    adapter: Annotated[bool, typer.Option("--adapter", help="the adapters alone, for PEFT")] = False,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16")] = "bfloat16",
):
    """Write a run's policy, adapters added to its weights, as a folder that transformers and vLLM load."""
    from m2io_jax.models.conversion import export_folder
    from m2io_jax.models.peft import adapter_folder
    from m2io_jax.models.policy import policy_folder

    written = export_folder(run, folder, adapter=adapter, dtype=_weight_type(dtype))
    added = "" if adapter or adapter_folder(policy_folder(run)) is None else ", adapters added to the weights"
    _tell(f"{'PEFT' if adapter else 'Hugging Face'} folder{added}: {written}")


@app.command()
def demo(
    part: Annotated[str, typer.Argument(help="demo, controls or seeds")] = "demo",
    settings: Overrides = None,
    config: Path = Path("configs/demo.yaml"),
):
    """The whole way on generated data: episodes, GRPO from the base, evaluation, report."""
    from m2io_jax import demo as module

    parts = {"demo": module.demo, "controls": module.controls, "seeds": module.seeds}
    if part not in parts:
        raise UserError(f"The demo has no part `{part}`.", mend=f"one of: {', '.join(parts)}")
    parts[part](config, settings or [], out)


@app.command()
def reproduce(
    name: Annotated[str, typer.Argument(help="othink-mr1, lmm-r1 or m2io-r1")],
    settings: Overrides = None,
    plans: Annotated[Path, typer.Option(help="where the plans lie")] = Path("configs/reproduce"),
):
    """A paper's comparisons in miniature: data, every arm with three seeds, tables; started again, it goes on."""
    from m2io_jax.reproduce import making

    making.reproduce(name, settings or [], plans, out)


@app.command()
def base(
    folder: Annotated[Path, typer.Argument(help="where the model is written")],
    settings: Overrides = None,
    lessons: Annotated[Path, typer.Option(help="a configuration, a stage a lesson")] = Path("configs/base.yaml"),
):
    """Make the base model again: tokenizer and lessons, one after another."""
    from m2io_jax.base import make_base

    _tell(f"base model: {make_base(lessons, settings or [], say, folder)}")


def _tell(words: str) -> None:
    """Prints a result; a line stays a line, so that a path in it can be copied and a log searched."""
    out.print(words, markup=False, soft_wrap=True)


def _counts(manifest) -> str:
    return ", ".join(f"{count} {split}" for split, count in manifest["episodes"].items())


def _weight_type(name: str | None) -> str | None:
    types = ("float32", "bfloat16", "float16")
    if name is not None and name not in types:
        raise UserError(f"Weights cannot be {name}.", where="--dtype", mend=f"one of: {', '.join(types)}")
    return name


def _with(config, settings, section: str):
    """A plain configuration dataclass with `key=value` settings applied."""
    known = {field.name for field in fields(config)}
    changes = {}
    for setting in settings or []:
        key, found, value = setting.partition("=")
        if not found or key not in known:
            mend = f"key=value with one of: {', '.join(sorted(asdict(config)))}"
            raise UserError(f"`{setting}` is not a setting of {section}.", mend=mend)
        changes[key] = _read_as(type(getattr(config, key)), setting, value)
    return replace(config, **changes)


def _read_as(kind: type, setting: str, text: str):
    """The value of a setting whose default is of the type `kind`."""
    from m2io_jax.config.text import read_yaml

    try:
        value = read_yaml(text)
    except yaml.YAMLError:
        value = text
    if type(value) in (int, float) and kind in (int, float) and _is_same_number(kind, value):
        return kind(value)
    if type(value) in (int, float) and kind is str:
        return text
    if kind in (bool, int, float, str) and type(value) is not kind or kind is float:
        needed = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}[kind]
        raise UserError(f"`{setting}` has a value of the wrong type.", where="the command line", mend=f"give {needed}")
    return value


def _is_same_number(kind: type, value: int | float) -> bool:
    """Whether a finite number can be of the type: 1e3 is a whole number, 1.5 and infinity are none."""
    try:
        return math.isfinite(value) and kind(value) == value
    except OverflowError:
        return False


def _whole_number(text: int | str) -> int:
    """An option's value, written as settings are."""
    try:
        return _read_as(int, str(text), str(text))
    except UserError:
        raise typer.BadParameter(f"{text!r} is not a whole number.") from None


def main() -> None:
    """Runs the command line; what the user can mend is told without a traceback, with exit status 1."""
    if os.getpid() == 1:
        # The first process of a container: to it the kernel gives no signal that it does not handle.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    # Transformers is here for its tokenizers; that it finds no PyTorch is as it should be.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    from m2io_jax.parallel.cache import keep_programs

    keep_programs()
    try:
        app(standalone_mode=True)
    except UserError as error:
        _tell_error(error)
        sys.exit(1)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        mend = "make room, then give the same command again: a training run goes on from its last checkpoint"
        full = UserError("The disk is full.", where=error.filename and str(error.filename), mend=mend)
        _tell_error(full)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _tell_error(error: UserError) -> None:
    from rich.markup import escape

    say.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
