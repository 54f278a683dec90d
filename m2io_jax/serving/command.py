"""What the command `m2io answer` does, and what answers many questions (docs/serving.md)."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

from platformdirs import user_cache_path
from rich.console import Console

from m2io_jax.corpus.importing import import_kitchen
from m2io_jax.corpus.kitchen import KitchenConfig
from m2io_jax.corpus.store import Corpus
from m2io_jax.episodes.dataset import open_episodes, read_manifest
from m2io_jax.errors import UserError
from m2io_jax.evaluation.command import run_config
from m2io_jax.evaluation.comparison import FITTED_ON
from m2io_jax.evaluation.policy import take
from m2io_jax.evaluation.rules import fit_encoder, fit_threshold
from m2io_jax.files import write_at_once
from m2io_jax.models.policy import load_policy
from m2io_jax.retrieval.search import Retriever, build_index, index_folder
from m2io_jax.serving.answer import Answer
from m2io_jax.serving.answering import MAX_PIXELS, Answerer, Placer
from m2io_jax.serving.inserting import match_placer, model_placer
from m2io_jax.serving.matching import CorpusMatcher
from m2io_jax.serving.rendering import to_html, to_json, to_markdown

INSERTERS = ("source", "match", "model")
BASE_PICTURES = 6  # the most that the base model was taught to choose from


def answer(
    question: str,
    run: Path | None,
    *,
    corpus: Path | None,
    inserter: str | None,
    html: Path | None,
    as_json: bool,
    out: Console,
) -> None:
    """Answers as `ask` does and writes the answer down."""
    said = ask(question, run, corpus=corpus, inserter=inserter)
    if html is not None:
        write_at_once(html, to_html(said), what="page")
    if as_json:
        print(json.dumps(to_json(said)))
    else:
        out.print(to_markdown(said), markup=False, highlight=False, soft_wrap=True)


def ask(
    question: str, run: Path | str | None = None, *, corpus: Path | str | None = None, inserter: str | None = None
) -> Answer:
    """The answer to one question; `answerer` says from what, and what can be wrong."""
    return answerer(run, corpus=corpus, inserter=inserter)(question)


def answerer(
    run: Path | str | None = None, *, corpus: Path | str | None = None, inserter: str | None = None
) -> Callable[[str], Answer]:
    """Return a function that answers question after question. Documents, index and policy are read here, once.

    Args:
        run: the run's folder; its corpus is answered from. Without a run, a small kitchen is.
        corpus: another folder of documents to answer from, with its index.
        inserter: "model": the run's policy places images, without a run the base. "source": the images of the text stay
            where they stand in its document, and "match" places others where the text has no source. "match": the rule
            that compares words. None: "model" with a run, "source" without one.

    Raises:
        UserError: no such run, corpus or inserter; and of a question, that nothing answers it.
    """
    inserter = inserter or ("source" if run is None else "model")
    if inserter not in INSERTERS:
        mend = f"one of {', '.join(INSERTERS)}"
        raise UserError(f"There is no inserter `{inserter}`.", where="--inserter", mend=mend)
    run = None if run is None else Path(run)
    documents = Corpus.open(corpus or _corpus_of(run))
    retriever = Retriever.open(index_folder(documents.path), documents)
    offered = BASE_PICTURES if run is None else run_config(run).batch.pictures
    answers = Answerer(documents, retriever, max_candidates=offered, max_pixels=_pixels_of(run))
    return partial(answers.answer, place=_placer(inserter, run, answers), keep_own=inserter == "source")


def _placer(inserter: str, run: Path | None, answers: Answerer) -> Placer:
    if inserter == "source" or (inserter == "match" and run is None):
        return CorpusMatcher(answers.corpus, answers.retriever, max_candidates=answers.max_candidates)
    if inserter == "match":
        known = take(open_episodes(run_config(run).episodes_of("inserter"), "train"), FITTED_ON)
        encoder = fit_encoder(known)
        return match_placer(encoder, fit_threshold(known, encoder))
    if run is None:
        return model_placer(load_policy("base"))
    config = run_config(run)
    return model_placer(load_policy(str(run), size=config.model, dtype=config.computation.dtype), config)


def _pixels_of(run: Path | None) -> int:
    """How many pixels the run's episodes leave a picture, where they are still there to say so."""
    if run is None:
        return MAX_PIXELS
    try:
        return read_manifest(run_config(run).episodes_of("inserter"))["config"]["max_pixels"]
    except (UserError, KeyError):
        return MAX_PIXELS


def _corpus_of(run: Path | None) -> Path:
    if run is not None:
        episodes = run_config(run).episodes_of("inserter")
        if (made_of := read_manifest(episodes).get("corpus")) is None:
            what, mend = "The run's episodes are not made of documents.", "name some with --corpus FOLDER"
            raise UserError(what, where=str(episodes), mend=mend)
        return Path(made_of["path"])
    folder = user_cache_path("m2io_jax") / "kitchen"
    if not (folder / "corpus.json").is_file():
        import_kitchen(KitchenConfig(documents=200), folder)
    if not (index_folder(folder) / "retrieval.json").is_file():  # a first answer may have been stopped between the two
        build_index(Corpus.open(folder), index_folder(folder))
    return folder
