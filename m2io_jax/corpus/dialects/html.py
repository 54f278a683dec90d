"""The HTML that all other ways to show an image are rewritten as."""

import re
from html import escape

from m2io_jax.corpus.dialects.containers import Numbered

IMAGE_SUFFIX = r"\.(?:png|jpe?g|gif|webp|svgz?|bmp|avif|apng|tiff?|ico|jfif|heic|jxl|eps|emf|wmf)"
IMAGE_ADDRESS = re.compile(rf"[^\n]*{IMAGE_SUFFIX}(?:[?#][^\n]*)?", re.IGNORECASE)
MEDIA_SUFFIX = r"\.(?:mp4|m4v|mov|webm|ogv|avi|mkv|mpe?g|mp3|wav|ogg|oga|opus|flac|m4a|3gp|pdf)"
MEDIA_ADDRESS = re.compile(rf"[^\n]*{MEDIA_SUFFIX}(?:[?#][^\n]*)?", re.IGNORECASE)


def is_image_address(address: str) -> bool:
    """Return whether an address ends like an image file's name."""
    return bool(IMAGE_ADDRESS.fullmatch(address.strip()))


def is_media_address(address: str) -> bool:
    """Return whether an address ends like the name of a video, a recording or a PDF."""
    return bool(MEDIA_ADDRESS.fullmatch(address.strip()))


def image_tag(address: str, *, alt: str = "", caption: str = "", unsupported: str = "") -> str:
    """Return an `<img>` on one line.

    Args:
        address: as the document gives it.
        alt: its alternative text.
        caption: the words shown below it.
        unsupported: why it cannot be read; empty where it can.
    """
    given = {"src": address, "alt": alt, "data-caption": caption, "data-unsupported": unsupported}
    return f"<img {attributes(given)}>"


def attributes(given: dict[str, str]) -> str:
    """Return HTML attributes on one line, without those that are empty."""
    # A pipe would end a cell of a table.
    pairs = ((name, escape(" ".join(value.split())).replace("|", "&#124;")) for name, value in given.items())
    return " ".join(f'{name}="{value}"' for name, value in pairs if value)


def figure_lines(image: str, caption: str, number: int) -> list[Numbered]:
    """Return a figure of an image tag and a caption in Markdown as lines that all have one number."""
    lines = ["", f"<figure>{image}<figcaption>", "", caption, "", "</figcaption></figure>", ""]
    return [(line, number) for line in (lines if caption else ["", image, ""])]
