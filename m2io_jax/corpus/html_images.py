"""Which HTML elements and components show a picture, and where its address and its words stand."""

import re
from dataclasses import dataclass

from markdown_it.common.html_blocks import block_names

from m2io_jax.corpus.dialects.html import is_image_address, is_media_address
from m2io_jax.corpus.dialects.shortcodes import joined_words

# Where lazily loaded pictures keep the real address comes first: their `src` is a placeholder.
SOURCES = ("data-src", "data-original", "data-lazy-src", "data-lazy", "src")
SETS = ("data-srcset", "srcset")
IMAGES = frozenset(("img", "amp-img", "amp-anim"))
VIDEOS = frozenset(("video", "audio"))
# Components of MDX and Vue: <Image>, <ThemedImage>, <v-img>, <Screenshot>.
COMPONENT = re.compile(r"(?:\w+[-.:])*\w*(?:image|img|picture|figure|screenshot|photo)")
COMPONENT_SOURCES = ("src", "source", "sources", "image", "img", "imagesrc", "imgsrc", "poster", "url", "path")
# Elements that give an address and show no picture by it.
OTHERS = (frozenset(block_names) - {"figure"}) | frozenset(
    "a abbr b button cite code del em font i iframe input ins kbd label mark q s samp script small source span strong "
    "style sub sup svg textarea time track u use var embed object picture".split()
)
MEDIA = "a video, a recording or a PDF, no still image"


@dataclass(frozen=True)
class Reference:
    """A picture as a document names it.

    Attributes:
        address: as written.
        line: counted from 1.
        caption: the author's words for it: alternative text, caption, title.
        unsupported: why it cannot be read, for one that no file could be found for; else empty.
    """

    address: str
    line: int
    caption: str = ""
    unsupported: str = ""


def image_reference(tag: str, given: dict[str, str], line: int) -> Reference | None:
    """Return the picture that an element shows, given its attributes; None where it shows none."""
    if tag in IMAGES or (tag == "input" and given.get("type", "").lower() == "image"):
        return _reference(source_address(given), line, given)
    if tag == "image":  # of SVG, but also an old name of <img> and a component of many sites
        address = given.get("href") or given.get("xlink:href") or source_address(given)
        return _reference(address or _component_address(given), line, given)
    if tag in VIDEOS:
        address = given.get("poster") or source_address(given)
        return _reference(address, line, given) if address else None
    if tag in ("object", "embed", "iframe"):
        address = given.get("data") or source_address(given)
        is_image = is_image_address(address) or given.get("type", "").startswith("image/")
        is_media = tag != "iframe" and is_media_address(address)
        return _reference(address, line, given) if is_image or is_media else None
    if tag in OTHERS:
        return None
    address = _component_address(given, needs_suffix=not COMPONENT.fullmatch(tag))
    return _reference(address, line, given) if address else None


def source_address(given: dict[str, str]) -> str:
    """Return the address of an element's picture; empty where it gives none."""
    if address := next((given[name] for name in SOURCES if given.get(name)), ""):
        return address
    sets = next((given[name] for name in SETS if given.get(name, "").strip()), "")
    return sets.split()[0].rstrip(",") if sets else ""


def _component_address(given: dict[str, str], needs_suffix: bool = False) -> str:
    addresses = (given[name] for name in COMPONENT_SOURCES if given.get(name))
    return next((address for address in addresses if not needs_suffix or is_image_address(address)), "")


def markdown_reference(address: str, line: int, caption: str) -> Reference:
    """Return the picture of Markdown's own `![caption](address)`."""
    return Reference(address, line, caption, MEDIA if is_media_address(address) else "")


def _reference(address: str, line: int, given: dict[str, str]) -> Reference:
    words = joined_words(
        given.get("alt") or given.get("title", ""), given.get("data-caption") or given.get("caption", "")
    )
    return Reference(
        address, line, words, given.get("data-unsupported") or (MEDIA if is_media_address(address) else "")
    )
