"""What notebooks show, as the displays that a cell gets."""

import io
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from m2io_jax.episodes.episode import Candidate, Episode, Placement
from m2io_jax.errors import UserError
from m2io_jax.serving.answer import Answer

pytest.importorskip("IPython", reason="IPython is not installed (the extra `notebooks`)")

from m2io_jax import notebook  # noqa: E402


@pytest.fixture
def shown(monkeypatch) -> list:
    """What is displayed: texts as Markdown, pictures as their size and first pixel."""
    seen = []

    def display(what):
        if isinstance(what, notebook.Markdown):
            seen.append(what.data)
        else:
            picture = Image.open(io.BytesIO(what.data)).convert("RGB")
            seen.append((picture.size, picture.getpixel((0, 0))))

    monkeypatch.setattr(notebook, "display", display)
    return seen


def candidate(colour: tuple[int, int, int], side: int = 8) -> Candidate:
    stored = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(stored, format="PNG")
    return Candidate("0" * 64, stored.getvalue())


CANDIDATES = (candidate((255, 0, 0)), candidate((0, 0, 255), side=400))


def test_an_answer_is_shown_in_reading_order_with_its_text_as_it_was(shown):
    placed = (Placement(1, 1), Placement(2, 0))
    notebook.show_answer(Answer("How *much*?", ("<b>One</b>.", "Two.", "Three."), CANDIDATES, placed))
    width = notebook.WIDTH
    assert shown == [
        r"**How \*much\*?**",
        r"\<b\>One\</b\>.",
        ((width, width), (0, 0, 255)),
        "Two.",
        ((8, 8), (255, 0, 0)),
        "Three.",
    ]


def test_an_episode_is_its_question_numbered_sentences_and_pictures(shown):
    episode = Episode("1", "How?", ("One.", "# Two."), CANDIDATES, (), ())
    notebook.show_episode(episode)
    text, (size, _) = shown
    assert text.splitlines() == ["**How?**", "", "1. One.", r"2. \# Two."]
    assert size[0] == 2 * 128


def test_the_source_tree_is_the_one_imported_from():
    assert (notebook.source_tree("nowhere") / "configs" / "sweeps" / "inserter_sizes.yaml").is_file()


def test_without_one_git_fetches_it_once(tmp_path, monkeypatch):
    def git(*words, at):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a", *words], cwd=at, check=True)

    repository = tmp_path / "repository"
    (repository / "configs").mkdir(parents=True)
    (repository / "configs" / "one.yaml").write_text("name: one\n")
    git("init", "--quiet", at=repository)
    git("add", ".", at=repository)
    git("commit", "--quiet", "-m", "one", at=repository)
    monkeypatch.setattr(notebook.m2io_jax, "__file__", str(tmp_path / "installed" / "m2io_jax" / "__init__.py"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="cannot be fetched"):
        notebook.source_tree(str(tmp_path / "nowhere"))
    for address in (repository.as_uri(), "nowhere"):  # it is there the second time
        tree = notebook.source_tree(address)
        assert tree == Path("m2io-source") and (tree / "configs" / "one.yaml").is_file()
