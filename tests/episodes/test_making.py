"""The whole way, with the real corpus, index and data set."""

import json

import pytest

from m2io_jax.corpus.documents import Document, PictureBlock, TextBlock
from m2io_jax.corpus.kitchen import KitchenConfig, generate
from m2io_jax.corpus.store import Corpus, CorpusWriter
from m2io_jax.episodes.building import EpisodeConfig, split_of
from m2io_jax.episodes.dataset import open_episodes
from m2io_jax.episodes.making import make_episodes
from m2io_jax.errors import UserError
from m2io_jax.retrieval.search import Retriever, build_index

CONFIG = EpisodeConfig(seed=4, train=0.6, validation=0.1, drop_labels=0.2, move_labels=0.1)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kitchen")
    with CorpusWriter(folder / "corpus", name="kitchen") as writer:
        for recipe in generate(KitchenConfig(documents=60, seed=2)):
            writer.add_document(recipe.document)
            for question in recipe.questions:
                writer.add_question(question)
            for data in recipe.pictures.values():
                writer.add_picture(data, extension="png")
    corpus = Corpus.open(folder / "corpus")
    build_index(corpus, folder / "index")
    seen = []
    manifest = make_episodes(
        corpus, Retriever.open(folder / "index", corpus), folder / "episodes", CONFIG, on_episode=seen.append
    )
    return corpus, folder, manifest, seen


def test_every_question_is_there_once_in_the_split_of_its_dish(made):
    corpus, folder, manifest, seen = made
    groups = {document.id: document.group for document in corpus.documents}
    expected = {question.id: split_of(groups[question.document], CONFIG) for question in corpus.questions}
    sources = {split: open_episodes(folder / "episodes", split) for split in manifest["episodes"]}
    read = {episode.id: split for split, source in sources.items() for episode in source}
    assert read == expected and len(seen) == len(expected)


def test_candidates_are_right_where_gold_says_and_nowhere_else(made):
    corpus, folder, manifest, _ = made
    questions = {question.id: question for question in corpus.questions}
    for split in manifest["episodes"]:
        for episode in open_episodes(folder / "episodes", split):
            question = questions[episode.id]
            gold = {placement.picture: placement.slot for placement in episode.gold}
            shown = {episode.candidates[i].picture: slot for i, slot in gold.items()}
            assert shown == {placement.picture: placement.slot for placement in question.pictures}
            wrong = [candidate for i, candidate in enumerate(episode.candidates) if i not in gold]
            assert not {candidate.content for candidate in wrong} & (set(question.contents) - {""})
            assert 4 <= len(episode.candidates) <= 8


def test_manifest_tells_where_it_came_from(made):
    _, folder, manifest, _ = made
    assert manifest == json.loads((folder / "episodes" / "episodes.json").read_text())
    assert manifest["corpus"]["fingerprint"] == manifest["index"]["corpus"]["fingerprint"]
    assert manifest["config"]["seed"] == 4 and manifest["report"]["dropped"] == {}
    assert manifest["report"]["episodes"] == {k: v for k, v in manifest["episodes"].items() if v}


def test_labels_differ_from_gold_about_as_often_as_asked(made):
    _, _, _, seen = made
    gold = [(episode.id, placement) for episode in seen for placement in episode.gold]
    labels = {(episode.id, placement) for episode in seen for placement in episode.labels}
    changed = sum(placement not in labels for placement in gold) / len(gold)
    # Three standard deviations of a binomial with a share of 0.3.
    assert abs(changed - 0.3) < 3 * (0.21 / len(gold)) ** 0.5


@pytest.mark.parametrize(
    ("blocks", "reason"),
    [
        ((TextBlock("Text alone.", 1),), "the corpus has no image"),
        ((TextBlock("Some text.", 1), PictureBlock("0" * 64, 2, decoration="an icon")), "all 1 images are decorations"),
        ((TextBlock("Done.", 1), PictureBlock("0" * 64, 2)), "1 because the section's text is a single word"),
        ((PictureBlock("0" * 64, 2),), "1 because the section has pictures and no text"),
    ],
)
def test_a_corpus_that_makes_no_episode_says_why(tmp_path, blocks, reason):
    with CorpusWriter(tmp_path / "corpus", name="bare") as writer:
        writer.add_document(Document("d", "Pump", "d.md", "d", blocks))
    with pytest.raises(UserError, match=reason) as refused:
        make_episodes(Corpus.open(tmp_path / "corpus"), None, tmp_path / "episodes", EpisodeConfig())
    assert str(tmp_path / "corpus") in str(refused.value)


def test_a_folder_that_holds_something_else_is_refused_before_anything_is_built(tmp_path):
    with CorpusWriter(tmp_path / "corpus", name="bare") as writer:
        writer.add_document(Document("d", "Pump", "d.md", "d", (TextBlock("Text alone.", 1),)))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError) as refused:
        make_episodes(Corpus.open(tmp_path / "corpus"), None, tmp_path / "mine", EpisodeConfig())
    assert "no image" not in str(refused.value)
