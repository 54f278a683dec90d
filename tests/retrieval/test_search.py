"""Indexing and searching a small corpus, as a user would."""

import shutil

import pytest

from m2io_jax.corpus.documents import Document, PictureBlock, TextBlock
from m2io_jax.corpus.store import Corpus, CorpusWriter
from m2io_jax.errors import UserError
from m2io_jax.retrieval import search as module
from m2io_jax.retrieval.search import Retriever, build_index

TOPICS = {
    "soil": "connect the soil moisture sensor to the board",
    "bread": "knead the dough and bake the bread in the oven",
    "camera": "attach the camera module and take a photograph",
}


@pytest.fixture
def corpus(tmp_path):
    with CorpusWriter(tmp_path / "corpus", name="topics") as writer:
        for topic, text in TOPICS.items():
            picture = writer.add_picture(topic.encode(), extension="png")
            logo = writer.add_picture(b"logo", extension="png")
            blocks = (
                TextBlock(topic.title(), 1, "heading", 1),
                PictureBlock(logo, 2, caption="logo"),
                TextBlock("this page is about " + topic, 3),
                TextBlock(text, 4),
                PictureBlock(picture, 5),
            )
            writer.add_document(Document(topic, topic.title(), f"{topic}.md", topic, blocks))
    return Corpus.open(tmp_path / "corpus")


def test_finds_passages_and_pictures(corpus, tmp_path):
    manifest = build_index(corpus, tmp_path / "index")
    assert (manifest["passages"], manifest["pictures"]) == (3, 6)
    retriever = Retriever.open(tmp_path / "index", corpus)
    for topic, text in TOPICS.items():
        hits = retriever.passages(f"How do I {text}?", 2)
        assert hits[0].passage.document == topic and hits[0].score >= hits[1].score
        best = retriever.pictures(f"How do I {text}?", 3)[0]
        assert (best.place.document, best.place.position) == (topic, 4)
        assert corpus.picture(best.place.picture) == topic.encode()


def test_a_picture_counts_once(corpus, tmp_path):
    build_index(corpus, tmp_path / "index")
    retriever = Retriever.open(tmp_path / "index", corpus)
    found = [hit.place.picture for hit in retriever.pictures("logo", 10)]
    assert len(found) == len(set(found)) == 4
    assert len(retriever.pictures("logo", 2)) == 2
    assert retriever.pictures_batch([], 3) == []
    assert [len(hits) for hits in retriever.passages_batch(["a", "b"], 1)] == [1, 1]


def test_a_picture_that_stands_everywhere_is_not_looked_for_everywhere(tmp_path, monkeypatch):
    with CorpusWriter(tmp_path / "corpus", name="icons") as writer:
        icon = writer.add_picture(b"icon", extension="png")
        blocks = [TextBlock(f"part {i}", i, "heading", 1) if i % 2 == 0 else PictureBlock(icon, i) for i in range(400)]
        writer.add_document(Document("one", "One", "one.md", "one", tuple(blocks)))
    corpus, asked = Corpus.open(tmp_path / "corpus"), []
    build_index(corpus, tmp_path / "index")
    retriever = Retriever.open(tmp_path / "index", corpus)
    search = retriever._picture_index.search
    monkeypatch.setattr(retriever._picture_index, "search", lambda vectors, k: asked.append(k) or search(vectors, k))
    assert [len(hits) for hits in retriever.pictures_batch(["part 4", "part 8"], 24)] == [1, 1]
    assert asked == [48]


def test_the_index_moves_with_its_corpus(corpus, tmp_path):
    build_index(corpus, tmp_path / "corpus" / "index")
    expected = Retriever.open(tmp_path / "corpus" / "index", corpus).pictures("bake", 3)
    shutil.move(tmp_path / "corpus", tmp_path / "moved")
    moved = Corpus.open(tmp_path / "moved")
    assert Retriever.open(tmp_path / "moved" / "index", moved).pictures("bake", 3) == expected


def test_another_corpus_is_refused(corpus, tmp_path):
    build_index(corpus, tmp_path / "index")
    with CorpusWriter(tmp_path / "other", name="other") as writer:
        writer.add_document(Document("x", "X", "x.md", "x", (TextBlock("x", 1),)))
    with pytest.raises(UserError, match="'topics'.*'other'"):
        Retriever.open(tmp_path / "index", Corpus.open(tmp_path / "other"))


def test_an_empty_corpus_can_be_indexed(tmp_path):
    with CorpusWriter(tmp_path / "corpus", name="nothing"):
        pass
    corpus = Corpus.open(tmp_path / "corpus")
    build_index(corpus, tmp_path / "index")
    retriever = Retriever.open(tmp_path / "index", corpus)
    assert retriever.passages("anything", 3) == [] and retriever.pictures("anything", 3) == []


def test_building_again_replaces_but_touches_nothing_else(corpus, tmp_path):
    build_index(corpus, tmp_path / "index")
    build_index(corpus, tmp_path / "index")
    assert [path.name for path in tmp_path.iterdir() if "unfinished" in path.name] == []
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="not a search index"):
        build_index(corpus, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_an_output_that_cannot_be_written_is_named(corpus, tmp_path):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "index"):
        with pytest.raises(UserError, match=str(out)):
            build_index(corpus, out)


@pytest.mark.parametrize("damage", ["retrieval.json", "passages.jsonl", "pictures.jsonl"])
def test_a_damaged_index_is_named(corpus, tmp_path, damage):
    build_index(corpus, tmp_path / "index")
    file = tmp_path / "index" / damage
    file.write_text(file.read_text()[:-20])
    with pytest.raises(UserError, match=damage):
        Retriever.open(tmp_path / "index", corpus)


def test_no_index_and_unknown_ones_are_told_apart(corpus, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="m2io index"):
        Retriever.open(tmp_path / "nowhere", corpus)
    build_index(corpus, tmp_path / "index")
    monkeypatch.setattr(module, "VERSION", 2)
    with pytest.raises(UserError, match="version 1"):
        Retriever.open(tmp_path / "index", corpus)


@pytest.fixture(scope="module")
def manual(tmp_path_factory):
    """Pages whose titles say what they are about, and whose texts use each other's common words."""
    pages = {
        "Lid": "Open the lid. Put it on a cloth. Keep the screws in a box, and put the box on a shelf.",
        "Seal": "Take the old one out. Grease the groove. Press it into the housing.",
        "Warranty": "It lasts two years. How long do I have to keep the seal in its box? Until it ends.",
        "What you will make": "A small pump from scraps and old parts.",
        "Filter": "Rinse it with water. What is left in the sieve goes into the bin.",
    }
    folder = tmp_path_factory.mktemp("manual")
    with CorpusWriter(folder / "corpus", name="manual") as writer:
        for title, text in pages.items():
            blocks = (TextBlock(title, 1, "heading", 1), TextBlock(text, 3))
            writer.add_document(Document(title, title, f"{title}.md", title, blocks))
    corpus = Corpus.open(folder / "corpus")
    build_index(corpus, folder / "index")
    return Retriever.open(folder / "index", corpus)


@pytest.mark.parametrize(
    ("question", "title"),
    [
        ("How do I put in a new seal?", "Seal"),
        ("What do I have to do with the filter?", "Filter"),
        ("How long is the warranty?", "Warranty"),
        ("What is there to do with the lid, and how?", "Lid"),
        ("SEAL", "Seal"),
        ("What is there to know about what you will make?", "What you will make"),
    ],
)
def test_titles_count_and_stop_words_do_not(manual, question, title):
    assert manual.passages(question, 1)[0].passage.document == title


def test_a_question_of_stop_words_alone_is_searched_as_it_is(manual):
    assert manual.passages("What will you make?", 1)[0].passage.document == "What you will make"
