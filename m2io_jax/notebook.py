"""What notebooks show: answers, episodes and pictures as outputs of cells, in kinds that every viewer knows.

And where they find the source tree: configurations lie beside the package, and are not installed with it.
"""

import io
import subprocess
from collections.abc import Sequence
from pathlib import Path

from IPython.display import Image, Markdown, display

import m2io_jax
from m2io_jax.episodes.episode import Candidate, Episode
from m2io_jax.episodes.reading import TextPart, by_slot, parts
from m2io_jax.errors import UserError
from m2io_jax.pages import picture_sheet, shown_picture
from m2io_jax.serving.answer import Answer
from m2io_jax.serving.rendering import escape_markdown
from m2io_jax.tasks.task import labelled_question

WIDTH = 160  # pixels, of a picture in an answer
FETCHED = Path("m2io-source")


def source_tree(address: str) -> Path:
    """The tree that the package is imported from; where it was installed, one that git fetches from `address`, once.

    Raises:
        UserError: git cannot fetch it.
    """
    tree = Path(m2io_jax.__file__).parents[1]
    if (tree / "configs").is_dir():
        return tree
    if not FETCHED.is_dir():
        try:
            subprocess.run(["git", "clone", "--quiet", "--depth", "1", address, str(FETCHED)], check=True)
        except (OSError, subprocess.CalledProcessError):
            mend = "give the address of this project's repository, which git can reach"
            raise UserError("The source tree cannot be fetched.", where=address, mend=mend) from None
    return FETCHED


def show_answer(answer: Answer) -> None:
    """The answer as a reader sees it, paragraph by paragraph, with its pictures in their places."""
    display(Markdown(f"**{escape_markdown(answer.question)}**"))
    for part in parts(answer.sentences, by_slot(answer.placements, len(answer.sentences))):
        if isinstance(part, TextPart):
            display(Markdown(escape_markdown(part.text)))
        else:
            for index in part.pictures:
                data, kind, _, _ = shown_picture(answer.candidates[index].data, WIDTH)
                display(Image(data, format=kind, width=WIDTH))


def show_pictures(candidates: Sequence[Candidate]) -> None:
    """Pictures beside one another, each below its label."""
    stored = io.BytesIO()
    picture_sheet(candidates).save(stored, format="png", optimize=True)
    display(Image(stored.getvalue(), format="png"))


def show_episode(episode: Episode) -> None:
    """What a model is given: the question, the numbered sentences and the pictures it may place."""
    lines = [f"**{escape_markdown(labelled_question(episode))}**", ""]
    lines += [f"{number}. {escape_markdown(said)}" for number, said in enumerate(episode.sentences, start=1)]
    display(Markdown("\n".join(lines)))
    show_pictures(episode.candidates)
