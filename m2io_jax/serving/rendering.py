"""An answer as Markdown, as a self-contained HTML page, and as JSON.

What documents and models say is foreign text: it reaches a page escaped by Jinja only, and Markdown with its marks
escaped. Pictures are foreign bytes: they are decoded within bounds and encoded anew, so that nothing else they carry
(metadata, scripts in polyglot files) leaves the corpus.
"""

import base64
import io
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from m2io_jax.corpus.pictures import PictureError, PictureLimits, decode
from m2io_jax.episodes.episode import Candidate
from m2io_jax.errors import UserError
from m2io_jax.serving.answer import Answer, TextPart, by_slot, parts
from m2io_jax.tasks.task import label

# A shown picture's bounds: what a page needs, not what the corpus holds.
MAX_SIDE = 640
MAX_PNG_BYTES = 200_000

_MARKDOWN_MARKS = re.compile(r"([\\`*_{}\[\]<>#|~!&])")
# "1." or "-" begin a list only at the start of a line.
_LIST_MARK = re.compile(r"^(\s*)(?:([-+=])|(\d+)([.)]))(?=\s|$)")


def environment() -> Environment:
    """Jinja with every value escaped and unknown names refused; it knows the templates of this package."""
    found = Environment(
        loader=PackageLoader("m2io_jax.serving"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.globals["picture"] = picture_view
    return found


@lru_cache(maxsize=512)
def shown_picture(data: bytes, max_side: int = MAX_SIDE) -> tuple[bytes, str, int, int]:
    """A picture made anew from its pixels: encoded bytes, "png" or "jpeg", width and height (pixels).

    Raises:
        PictureError: it cannot be decoded within bounds.
    """
    picture = Image.fromarray(decode(data, PictureLimits()))
    picture.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    for kind in ("png", "jpeg"):
        stored = io.BytesIO()
        picture.save(stored, format=kind, **({"optimize": True} if kind == "png" else {"quality": 85}))
        # Photographs are many times larger as PNG; drawings are not, and stay exact.
        if stored.tell() <= MAX_PNG_BYTES:
            break
    return stored.getvalue(), kind, picture.width, picture.height


def picture_view(candidates: tuple[Candidate, ...], index: int, max_side: int = MAX_SIDE) -> dict[str, Any]:
    """What templates need of a candidate: label, caption, alt, document, uri, width, height; `uri` is empty and
    `fault` says why where the picture cannot be decoded."""
    candidate = candidates[index]
    view = {"label": label(index), "caption": candidate.caption, "document": candidate.document, "fault": ""}
    view["alt"] = candidate.caption or f"Picture {label(index)}"
    try:
        data, kind, width, height = shown_picture(candidate.data, max_side)
    except PictureError as error:
        return view | {"uri": "", "fault": error.reason, "width": 0, "height": 0}
    uri = f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
    return view | {"uri": uri, "width": width, "height": height}


def to_html(answer: Answer) -> str:
    """A page that needs nothing from elsewhere: no script, no style sheet, no picture."""
    reading = parts(answer.sentences, by_slot(answer.placements, len(answer.sentences)))
    used = {placement.picture for placement in answer.placements}
    return (
        environment()
        .get_template("answer.html")
        .render(answer=answer, parts=list(reading), unused=[i for i in range(len(answer.candidates)) if i not in used])
    )


def to_markdown(answer: Answer, picture_dir: str | Path | None = None) -> str:
    """CommonMark. Text shows as it was written: its marks are escaped.

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
    return "\n\n".join(blocks) + "\n"


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
