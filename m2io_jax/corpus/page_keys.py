"""Paths without language and version, so that translations and versions of one page count as one."""

import re
from functools import lru_cache
from pathlib import PurePosixPath

LANGUAGES = frozenset(
    "aa ab af am ar as az ba be bg bn bo br bs ca cs cy da de dz el en eo es et eu fa fi fil fo fr ga gl gu he hi hr hu"
    " hy id is it ja jp ka kk km kn ko kr ku ky la lb lo lt lv mi mk ml mn mr ms mt my nb ne nl nn no pa pl ps pt ro ru"
    " si sk sl sq sr sv sw ta te tg th tk tr tt ug uk ur uz vi cn tw zh".split()
)
LOCALE = re.compile(r"([a-z]{2,3})(?:[-_](?:[a-z]{2}|hans|hant|latn|cyrl|\d{3})){0,2}")
TRANSLATION_FOLDERS = frozenset(
    "translations translation translated_images i18n l10n locales locale lang languages".split()
)
VERSION = re.compile(
    r"(?:version[-_]?|v)?\d+(?:\.(?:\d+|x)){1,3}|version[-_]\S+|v\d+|versioned_docs|latest|next|stable"
)


@lru_cache(maxsize=65_536)
def page_key(path: str) -> str:
    """Return the path without its parts that name a language or a version."""
    file = PurePosixPath(path.lower())
    parts = [part for part in file.parts[:-1] if not _varies(part)]
    stem, suffix = file.stem, file.suffix
    pieces = re.split(r"([._-])", stem)
    # README.zh-cn, page_fr, page-de: the language is the last or the last two pieces.
    for length in (4, 2):
        tail = "".join(pieces[-length:])[1:]
        if len(pieces) > length and _is_locale(tail):
            stem = "".join(pieces[:-length])
            break
    return "/".join([*parts, stem + suffix])


def _varies(part: str) -> bool:
    return part in TRANSLATION_FOLDERS or _is_locale(part) or bool(VERSION.fullmatch(part))


def _is_locale(text: str) -> bool:
    found = LOCALE.fullmatch(text)
    return bool(found) and found[1] in LANGUAGES
