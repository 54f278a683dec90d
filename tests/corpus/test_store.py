"""A corpus written and read back, and every way in which its folder can be wrong."""

import hashlib
import json
import os
import resource

import pytest

from m2io_jax.corpus.documents import AnswerPicture, Document, PictureBlock, Question, TextBlock
from m2io_jax.corpus.importing import import_kitchen
from m2io_jax.corpus.kitchen import KitchenConfig, generate
from m2io_jax.corpus.pictures import decode
from m2io_jax.corpus.store import Corpus, CorpusWriter
from m2io_jax.errors import UserError

DATA = b"not decoded here"
HASH = hashlib.sha256(DATA).hexdigest()


def document(id: str = "soup") -> Document:
    blocks = (
        TextBlock("Soup", 1, "heading", 1),
        TextBlock('Line\u2028separator, crème "brûlée"', 3),
        PictureBlock(HASH, 5, caption="a pot", content="pot"),
        PictureBlock(HASH, 9),
    )
    return Document(id, "Soup", "a/soup.md", "dish", blocks)


def question(id: str = "q1") -> Question:
    return Question(id, "soup", "How?", ("Boil.", "Eat."), (AnswerPicture(HASH, 1),), ("pot", ""))


def write(path, documents=1):
    with CorpusWriter(path, name="kitchen") as writer:
        assert writer.add_picture(DATA, extension="png") == HASH
        for number in range(documents):
            writer.add_document(document(f"soup{number or ''}"))
        writer.add_question(question())


def files(path):
    return sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())


def test_what_is_written_is_read_back(tmp_path):
    write(tmp_path / "made" / "c", documents=3)
    corpus = Corpus.open(tmp_path / "made" / "c")
    assert corpus.documents == (document(), document("soup1"), document("soup2"))
    assert corpus.questions == (question(),)
    assert corpus.document("soup2") == document("soup2")
    assert corpus.picture(HASH) == DATA
    assert (corpus.name, corpus.version) == ("kitchen", 1)
    assert corpus.documents is corpus.documents


def test_a_picture_is_stored_once(tmp_path):
    with CorpusWriter(tmp_path / "c", name="c") as writer:
        assert writer.add_picture(DATA, extension="png") == writer.add_picture(DATA, extension="jpg")
    picture = f"pictures/{HASH[:2]}/{HASH}.png"
    assert files(tmp_path / "c") == ["corpus.json", "documents.jsonl", picture, "questions.jsonl"]
    assert json.loads((tmp_path / "c" / "corpus.json").read_text())["counts"] == {
        "documents": 0,
        "questions": 0,
        "pictures": 1,
    }
    assert Corpus.open(tmp_path / "c").questions == ()


def test_a_former_corpus_is_replaced_whole(tmp_path):
    write(tmp_path / "c", documents=3)
    with CorpusWriter(tmp_path / "c", name="new") as writer:
        writer.add_document(document("other"))
        assert len(Corpus.open(tmp_path / "c").documents) == 3, "the former one stands until the end"
    assert [document.id for document in Corpus.open(tmp_path / "c").documents] == ["other"]
    assert files(tmp_path / "c") == ["corpus.json", "documents.jsonl", "questions.jsonl"]
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_a_failed_import_leaves_what_was_there(tmp_path):
    write(tmp_path / "c")
    with pytest.raises(RuntimeError), CorpusWriter(tmp_path / "c", name="new"):
        raise RuntimeError
    assert Corpus.open(tmp_path / "c").name == "kitchen"
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_a_disk_that_fills_up_leaves_nothing_and_is_told(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))  # as a full disk: files end there
    try:
        with pytest.raises(UserError, match="(?s)cannot be written.*disk with room"):
            with CorpusWriter(tmp_path / "corpus", name="x") as writer:
                for number in range(3):
                    writer.add_document(Document(f"{number}", "t", "s", "g", (TextBlock("a" * 5000, 1),)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_foreign_folders_are_not_replaced(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    (tmp_path / "file").write_text("precious")
    for name in ("mine", "file"):
        with pytest.raises(UserError, match=name):
            write(tmp_path / name)
    assert files(tmp_path) == ["file", "mine/thesis.txt"]
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty")


def test_an_unwritable_output_is_a_user_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write(tmp_path / "file" / "c")
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    with pytest.raises(UserError, match="cannot be written"):
        write(locked / "c")


@pytest.mark.parametrize("name", ["documents", "questions"])
def test_a_line_cut_in_half_is_named(tmp_path, name):
    write(tmp_path / "c", documents=2)
    file = tmp_path / "c" / f"{name}.jsonl"
    whole = file.read_bytes()
    lines = whole.count(b"\n")
    file.write_bytes(whole[:-40])
    with pytest.raises(UserError) as caught:
        getattr(Corpus.open(tmp_path / "c"), name)
    assert caught.value.where == f"{file}:{lines}"


@pytest.mark.parametrize("line", [b"[]", b"{}", b"null", b'{"id": "x", "spice": 1}', b"\xff\xfe", b""])
def test_a_line_of_another_shape_is_named(tmp_path, line):
    write(tmp_path / "c")
    with open(tmp_path / "c" / "documents.jsonl", "ab") as file:
        file.write(line + b"\n")
    with pytest.raises(UserError, match=r"documents\.jsonl:2"):
        Corpus.open(tmp_path / "c").documents  # noqa: B018


def test_what_is_no_corpus(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        Corpus.open(tmp_path / "nowhere")
    with pytest.raises(UserError, match="not a corpus"):
        Corpus.open(tmp_path)
    write(tmp_path / "c")
    manifest = tmp_path / "c" / "corpus.json"
    manifest.write_text(manifest.read_text().replace('"version": 1', '"version": 99'))
    with pytest.raises(UserError, match="version 99"):
        Corpus.open(tmp_path / "c")
    manifest.write_text(manifest.read_text()[:20])
    with pytest.raises(UserError, match=r"corpus\.json"):
        Corpus.open(tmp_path / "c")
    manifest.unlink()
    with pytest.raises(UserError, match="unfinished"):
        Corpus.open(tmp_path / "c")


@pytest.mark.parametrize(
    "hash", ["", "..", "../" * 20 + "x" * 4, HASH[:-1], HASH.upper(), HASH[:-1] + "*", f"{HASH}\n"]
)
def test_only_hashes_become_paths(tmp_path, hash):
    write(tmp_path / "c")
    with pytest.raises(UserError, match="content hash"):
        Corpus.open(tmp_path / "c").picture(hash)


def test_absent_things_are_named(tmp_path):
    write(tmp_path / "c")
    corpus = Corpus.open(tmp_path / "c")
    with pytest.raises(UserError, match="lacks the picture"):
        corpus.picture("0" * 64)
    with pytest.raises(UserError, match="'stew'"):
        corpus.document("stew")
    with CorpusWriter(tmp_path / "d", name="d") as writer:
        writer.add_document(document())
        with pytest.raises(ValueError, match="soup"):
            writer.add_document(document())


def test_the_kitchen_is_imported(tmp_path):
    config = KitchenConfig(documents=3, seed=5)
    report = import_kitchen(config, tmp_path / "c")
    corpus, recipes = Corpus.open(tmp_path / "c"), list(generate(config))
    assert corpus.documents == tuple(recipe.document for recipe in recipes)
    assert corpus.questions == tuple(question for recipe in recipes for question in recipe.questions)
    shown = [block.picture for d in corpus.documents for block in d.blocks if isinstance(block, PictureBlock)]
    assert all(decode(corpus.picture(hash)).ndim == 3 for hash in shown)
    assert report.pictures["references"] == report.pictures["kept"] == len(shown) > 0
    assert json.loads((tmp_path / "c" / "import_report.json").read_text())["documents"] == 3
