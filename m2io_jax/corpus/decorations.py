"""Tell decorations from illustrations: badges, icons, logos, rules, and images that stand on many pages."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import PurePosixPath
from statistics import median

# Interface icons and emoji are 16 to 40 pixels; a drawing that shows something is rarely smaller than 48.
ICON_SIDE = 48
# Badges are 20 pixels high, rules and spacers less; a screenshot of one line of text or one button is 24 or more.
LINE_SIDE = 24
# A ribbon of this ratio is a divider, unless it is as high as a toolbar.
DIVIDER_RATIO = 20
DIVIDER_SIDE = 40
# An image whose file or alternative text calls it a logo, an icon or a badge is one up to these sizes in pixels.
# Anything larger is a picture of such things.
NAMED_SIDE = 512
NAMED_AREA = 512 * 256
FOLDER_SIDE = 128
# On so many pages, and on such a share of all, an image illustrates none of them; on `MANY_PAGES` whatever the share.
# Pages of one lesson, translations and versions of a page count once.
REPEATED_PAGES = 5
REPEATED_SHARE = 0.1
MANY_PAGES = 20
# Where a tree shows all its images on many pages (steps that machines share), repetition tells nothing: an image is
# repeated only if it stands on this many times as many pages as the median image. Of few images there is no median.
REPEATED_FACTOR = 3
MEDIAN_OF = 4

DECORATIVE = frozenset(
    "avatar avatars badge badges bullet divider emoji emojis favicon gravatar icon icons logo logos separator shield"
    " shields spacer sponsor sponsors".split()
)
ENDS_DECORATIVE = re.compile(r"(?:^|\W)(?:avatar|badge|emoji|favicon|icon|logo)\W*$", re.IGNORECASE)
NAME_WORD = re.compile(r"[a-z]+")


@dataclass(frozen=True)
class Place:
    """One place of an image: the key of its page (see `page_keys`), the address and the words it stands there with."""

    page: str
    address: str
    caption: str


def typical_pages(counts: Collection[int]) -> int:
    """Return the median number of pages that an image of the tree stands on; 1 where there are few images."""
    return int(median(counts)) if len(counts) >= MEDIAN_OF else 1


def decoration_reason(width: int, height: int, places: Collection[Place], pages: int, typical: int = 1) -> str:
    """Return why an image is a decoration, "" where it is none.

    Args:
        width, height: of the image, in pixels.
        places: everywhere it stands.
        pages: number of different pages in the tree.
        typical: number of pages that the tree's images stand on, as `typical_pages` gives it.
    """
    longer, shorter = max(width, height), min(width, height)
    if longer < ICON_SIDE:
        return f"an icon: both sides below {ICON_SIDE} pixels"
    if shorter < LINE_SIDE:
        return f"a badge, rule or spacer: one side below {LINE_SIDE} pixels"
    if longer >= DIVIDER_RATIO * shorter and shorter < DIVIDER_SIDE:
        return f"a divider: {DIVIDER_RATIO} times as long as high"
    if longer <= NAMED_SIDE and width * height <= NAMED_AREA:
        if all(_is_named(place, longer) for place in places):
            return "a logo, icon or badge by its name"
    on = len({place.page for place in places})
    on_many = on >= MANY_PAGES or (on >= REPEATED_PAGES and on >= REPEATED_SHARE * pages)
    if on_many and on >= REPEATED_FACTOR * typical:
        return f"on {on:,} of {pages:,} pages"
    return ""


def _is_named(place: Place, longer: int) -> bool:
    """Whether its file's name, a folder or the end of its alternative text calls an image decorative."""
    path = PurePosixPath(place.address.partition("?")[0].lower().replace("\\", "/"))
    words = NAME_WORD.findall(path.stem)
    # "logo", "acme-logo-dark", but not "change-the-icon-dialog": the word stands at the end, or the name is short.
    if words and (words[-1] in DECORATIVE or (len(words) <= 3 and DECORATIVE & set(words))):
        return True
    if longer > FOLDER_SIDE:
        return False
    return bool(DECORATIVE & set(path.parts[:-1])) or bool(ENDS_DECORATIVE.search(place.caption))
