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
from m2io_jax.serving.rendering import to_html, to_json, to_markdown

BASE_PICTURES = 6  # the most that the base model was taught to choose from


def answer(
    question: str,
    run: Path | None,
    *,
    corpus: Path | None,
    inserter: str,
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
    question: str, run: Path | str | None = None, *, corpus: Path | str | None = None, inserter: str = "model"
) -> Answer:
    """The answer to one question; `answerer` says from what, and what can be wrong."""
    return answerer(run, corpus=corpus, inserter=inserter)(question)


def answerer(
    run: Path | str | None = None, *, corpus: Path | str | None = None, inserter: str = "model"
) -> Callable[[str], Answer]:
    """Answers question after question by a run's policy, from the corpus it was trained on; without a run, by the base,
    from a small kitchen. Documents, index and policy are read here, once.

    Args:
        run: the run's folder.
        corpus: another folder of documents to answer from, with its index.
        inserter: "model", or "match" for the rule.

    Raises:
        UserError: no such run, corpus or inserter; and of a question, that nothing answers it.
    """
    if inserter not in ("model", "match"):
        raise UserError(f"There is no inserter `{inserter}`.", where="--inserter", mend="model or match")
    run = None if run is None else Path(run)
    documents = Corpus.open(corpus or _corpus_of(run))
    retriever = Retriever.open(index_folder(documents.path), documents)
    offered = BASE_PICTURES if run is None else run_config(run).batch.pictures
    answers = Answerer(documents, retriever, max_candidates=offered, max_pixels=_pixels_of(run))
    return partial(answers.answer, place=_placer(inserter, run, retriever))


def _placer(inserter: str, run: Path | None, retriever: Retriever) -> Placer:
    if inserter == "match":
        if run is None:
            return match_placer(retriever.encoder)
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
