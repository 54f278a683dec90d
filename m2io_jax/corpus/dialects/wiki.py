"""Links and embeds in double brackets: Obsidian, GitHub's, GitLab's and Gollum's wikis, MediaWiki."""

import re

from m2io_jax.corpus.dialects.html import image_tag, is_image_address, is_media_address
from m2io_jax.corpus.dialects.source import Source

EMBED = re.compile(r"(!?)\[\[([^\[\]\n]{1,1000})\]\]")
FILE = re.compile(r"(?:File|Image|file|image):[ \t]*")
SIZE = re.compile(r"\d+(?:x\d+)?(?:px|%)?|x\d+px")
# Words that say how an image stands, in Gollum's and MediaWiki's brackets.
LAYOUT = re.compile(r"(?:frame|framed|thumb|thumbnail|border|left|right|center|none|float|frameless|inline|wrap)")
SETTING = re.compile(r"(alt|caption|title|width|height|align|class|link|upright|page|lang|float|size)\s*=\s*(.*)")
DRAWING = re.compile(r".*\.(?:excalidraw(?:\.md)?|canvas|drawio(?:\.svg)?)", re.IGNORECASE)
COMMENT = re.compile(r"(?<!%)%%(?!%)")


def embed_at(text: str, start: int) -> tuple[str, str, int] | None:
    """Read the brackets that begin at `start`.

    Returns:
        An `<img>` tag or nothing, the words to read or nothing, and the end; None where no brackets begin.
    """
    found = EMBED.match(text, start)
    # Three brackets are some lesson sites' way to include a page.
    if not found or text[max(0, start - 1) : start] == "[" or text[found.end() : found.end() + 1] == "]":
        return None
    target, *rest = (part.strip() for part in found[2].replace("\\|", "|").split("|"))
    is_file = bool(FILE.match(target))
    address = FILE.sub("", target, count=1).split("#", 1)[0].strip() if "://" not in target else target
    settings = {match[1]: match[2].strip().strip("\"'") for part in rest if (match := SETTING.fullmatch(part))}
    words = [part for part in rest if not (SETTING.fullmatch(part) or SIZE.fullmatch(part) or LAYOUT.fullmatch(part))]
    shown = settings.get("alt") or (words[-1] if words else "")
    is_escaped = not found[1] and text[max(0, start - 1) : start] == "!"
    if is_image_address(address) and not is_escaped:
        return image_tag(address, alt=shown, caption=settings.get("caption", "")), "", found.end()
    if DRAWING.fullmatch(address) or (is_media_address(address) and (found[1] or is_file)):
        return image_tag(address, alt=shown, unsupported="no still image"), "", found.end()
    if found[1] or target.strip("_").lower() == "toc":
        return "", "", found.end()
    return "", shown or target.lstrip("#").replace("#", " > "), found.end()


def without_vault_comments(source: Source) -> Source:
    """Leave out what stands between two `%%`, which Obsidian does not show."""
    marks = list(source.outside_code(COMMENT))
    whole_lines = any(source.text[mark.start() - 1 : mark.end() + 1].strip("\n") == "%%" for mark in marks)
    if not marks or not ("[[" in source.text or whole_lines):
        return source
    return source.without(zip(marks[::2], marks[1::2], strict=False))
