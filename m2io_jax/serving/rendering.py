"""An answer as Markdown, as a self-contained HTML page, and as JSON.

What documents and models say is foreign text: it reaches a page as `pages.py` says, Markdown with its marks escaped.
"""

import re
from pathlib import Path
from typing import Any

from m2io_jax.corpus.pictures import PictureError
from m2io_jax.episodes.episode import Candidate
from m2io_jax.episodes.reading import TextPart, by_slot, parts
from m2io_jax.errors import UserError
from m2io_jax.pages import environment, shown_picture
from m2io_jax.serving.answer import Answer
from m2io_jax.tasks.task import label

_MARKDOWN_MARKS = re.compile(r"([\\`*_{}\[\]<>#|~!&$])")
# What steers a terminal, which Markdown is printed to: of foreign text it would clear the screen, or worse.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# "1." or "-" begin a list only at the start of a line; "---" or "===" alone make a heading of the line before.
_LIST_MARK = re.compile(r"^(\s*)(?:(-+|=+|\+)|(\d+)([.)]))(?=\s|$)")


def to_html(answer: Answer) -> str:
    """A page that needs nothing from elsewhere: no script, no style sheet, no picture."""
    reading = parts(answer.sentences, by_slot(answer.placements, len(answer.sentences)))
    used = {placement.picture for placement in answer.placements}
    return (
        environment("m2io_jax.serving")
        .get_template("answer.html")
        .render(answer=answer, parts=list(reading), unused=[i for i in range(len(answer.candidates)) if i not in used])
    )


def to_markdown(answer: Answer, picture_dir: str | Path | None = None) -> str:
    """CommonMark. Text shows as it was written: its marks are escaped, control characters become U+FFFD.

    Args:
        picture_dir: folder to write the placed pictures to; references to them are relative to the folder's parent,
            where the Markdown belongs. Without it a line in brackets stands for each picture.

    Raises:
        UserError: the folder cannot be written.
    """
    blocks = [f"# {escape_markdown(' '.join(answer.question.split()))}"]
    for part in parts(answer.sentences, by_slot(answer.placements, len(answer.sentences))):
        if isinstance(part, TextPart):
            blocks.append(_fenced(part.text) if part.verbatim else escape_markdown(part.text))
        else:
            blocks += [_markdown_picture(answer.candidates, index, picture_dir) for index in part.pictures]
    if answer.sources:
        lines = [f"- {escape_markdown(s.title or s.document)}" + _where(s.path, s.line) for s in answer.sources]
        blocks.append("\n".join(["Sources:", "", *lines]))
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", "\n\n".join(blocks) + "\n")


def to_json(answer: Answer) -> dict[str, Any]:
    """Plain values. A placement names its picture by content hash, and by its index in `candidates`."""
    return {
        "question": answer.question,
        "sentences": list(answer.sentences),
        "placements": [
            {"slot": p.slot, "candidate": p.picture, "picture": answer.candidates[p.picture].picture}
            for p in answer.placements
        ],
        "candidates": [
            {"picture": c.picture, "caption": c.caption, "document": c.document, "position": c.position}
            for c in answer.candidates
        ],
        "reasoning": answer.reasoning,
        "sources": [{"document": s.document, "title": s.title, "path": s.path, "line": s.line} for s in answer.sources],
    }


def escape_markdown(text: str) -> str:
    """Text that CommonMark shows as it is, HTML in it included."""
    lines = (_MARKDOWN_MARKS.sub(r"\\\1", line) for line in text.split("\n"))
    return "\n".join(_LIST_MARK.sub(_escaped_list_mark, line) for line in lines)


def _escaped_list_mark(found: re.Match[str]) -> str:
    space, bullet, number, stop = found.groups()
    return f"{space}\\{bullet}" if bullet else f"{space}{number}\\{stop}"


def _fenced(text: str) -> str:
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"


def _markdown_picture(candidates: tuple[Candidate, ...], index: int, folder: str | Path | None) -> str:
    candidate = candidates[index]
    caption = escape_markdown(" ".join(candidate.caption.split()))
    if folder is None:
        words = ": ".join(filter(None, [f"picture {label(index)}", caption]))
        return rf"\[{words}" + (f" ({escape_markdown(candidate.document)})" if candidate.document else "") + r"\]"
    try:
        data, kind, _, _ = shown_picture(candidate.data)
    except PictureError as error:
        return rf"\[picture {label(index)} cannot be shown: {escape_markdown(error.reason)}\]"
    # The name is made here: a candidate's own could be a path.
    file = Path(folder) / f"picture-{label(index).lower()}.{'jpg' if kind == 'jpeg' else kind}"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    except OSError as error:
        mend = "Name a folder that you may write to."
        raise UserError(f"A picture cannot be written: {error.strerror}.", where=str(file), mend=mend) from error
    return f"![{caption}](<{file.parent.name}/{file.name}>)"


def _where(path: str, line: int) -> str:
    if not path:
        return ""
    return f" ({escape_markdown(path)}" + (f", line {line})" if line else ")")
