"""Words, letters of choices and names of figures, folded so that they can be compared."""

import re
import unicodedata
from dataclasses import dataclass

from m2io_jax.verification.characters import is_letter
from m2io_jax.verification.dates import FULL_NAMES

# One word in several spellings.
_SPELLINGS = FULL_NAMES | {"grey": "gray", "colour": "color", "centre": "center", "tyre": "tire"}
# A place is the same with the preposition that it needs in a sentence: on the left.
_PREPOSITION = re.compile(r"(?:on|in|at|to) (?:the )?(?=\S)")
_ION = re.compile(r"(?P<formula>(?:[A-Z][a-z]?[0-9]*|[()])+)\^\{?(?P<charge>[0-9]?[+-])\}?")
_COMPOUND = re.compile(r"(?:[A-Z][a-z]?[0-9]*|\((?:[A-Z][a-z]?[0-9]*)+\)[0-9]*)+")
_INDEXED = re.compile(r"(?=.*_)(?:[A-Za-z](?:_(?:\{[0-9]+\}|[0-9]))? ?)+")
_FUNCTIONS = frozenset("sin cos tan cot sec csc arcsin arccos arctan log ln lg".split())
_ARTICLE = re.compile(r"(?:the|an?) (?=\S)")
_SCRIPTS = re.compile(r"[_^]\{([^{}]*)\}|[_^](?=\w)")
_IGNORED = re.compile(r"[.,;:!?\"'()\[\]{}$]")
_MARK = r"(?:\((?P<round>[A-Za-z])\)|\[(?P<square>[A-Z])\]|\{(?P<curly>[A-Z])\}|(?P<bare>[A-Za-z])(?=[.):,]|$| ?选项))"
_CHOICE = re.compile(
    r"(?:(?:the )?(?:correct )?(?:[Oo]ption|[Cc]hoice|[Aa]nswer|选项|选择|选) ?:? ?)?"
    rf"{_MARK}[.):,]?(?: ?选项)?(?P<text> ?\S.*)?"
)
_ANOTHER = re.compile(r"(?<![\w(])\(?[A-Za-z][).](?= |$|\()")
_NO_TEXT = tuple("+-*/^=<>_,)|")

# Figures whose letters may be read backwards, in any order, or only as they are written.
_BACKWARDS = {"angle", "measuredangle", "overline", "overleftrightarrow", "widehat", "segment", "arc", "line"}
_ANY_ORDER = {"triangle", "delta"}
_AS_WRITTEN = {"overrightarrow", "vec", "odot", "ray"}
_FIGURES = sorted(_BACKWARDS | _ANY_ORDER | _AS_WRITTEN)
_SAME_FIGURE = {"delta": "triangle", "measuredangle": "angle", "segment": "overline", "arc": "widehat"}
_SAME_FIGURE["vec"] = "overrightarrow"
_FIGURE = re.compile(r"\\?(?i:(?P<kind>" + "|".join(_FIGURES) + r"))(?![a-z]) ?\{? ?(?P<name>[A-Z]['A-Z ]*|[0-9]) ?\}?")
_RELATION = re.compile(r"(?P<left>.+?) ?\\(?P<sign>parallel|perp|cong|sim)(?![a-z]) ?(?P<right>.+)")
_SPOKEN = re.compile(r" (?:is )?(?:(parallel|perpendicular|congruent|similar) to|//) ")
_SIGNS = {"perpendicular": "perp", "congruent": "cong", "similar": "sim", "parallel": "parallel", None: "parallel"}


@dataclass(frozen=True)
class Choice:
    """The letter of a choice, in upper case, and the text beside it if there is any."""

    letter: str
    text: str = ""


@dataclass(frozen=True)
class Figure:
    """A figure by its name, or two that stand in a relation; equal figures have equal values."""

    kind: str
    name: tuple[str, ...]


def fold_words(text: str) -> str:
    """Return words in lower case and one width, without articles, punctuation, hyphens and marks of LaTeX."""
    folded = unicodedata.normalize("NFKC", _SCRIPTS.sub(lambda match: match[1] or "", text)).casefold()
    folded = unicodedata.normalize("NFKC", folded)
    folded = re.sub(r"\\([a-z]+)", r"\1", folded)
    words = " ".join(_IGNORED.sub("", folded).replace("-", " ").replace("/", " / ").split())
    words = _ARTICLE.sub("", words, count=1) if _ARTICLE.match(words) else words
    words = " ".join(_SPELLINGS.get(word, word) for word in words.split())
    return words.removesuffix("的") if len(words) > 2 else words


def without_preposition(folded: str) -> str:
    """Return folded words without a preposition before them."""
    return _PREPOSITION.sub("", folded, count=1) if _PREPOSITION.match(folded) else folded


def bare_letters(text: str) -> str:
    """Return a text's letters and digits, without case and accents, to tell spellings of one word: B12, B-12."""
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text).casefold())
    latin = [character for character in decomposed if not "\u0300" <= character <= "\u036f"]
    return re.sub(r"[\s'.-]", "", "".join(latin))


def read_formula(text: str) -> str | None:
    """Return an ion, its charge apart, or a compound with a group in brackets: Fe^{3+}, Ca(OH)_2.

    None for all other text; a formula without brackets or charge is a word.
    """
    plain = re.sub(r"_\{?([0-9]+)\}?", r"\1", text)
    ion = _ION.fullmatch(plain)
    if ion:
        return f"{ion['formula']} {ion['charge']}"
    grouped = "(" in plain and re.search("[A-Z][a-z]", plain) and _COMPOUND.fullmatch(plain)
    return plain if grouped else None


def fold_expression(text: str) -> str:
    """Return a text to compare as it stands: without spaces, but for those that part digits or words."""
    text = unicodedata.normalize("NFKC", text.replace(r"\cdot", "*").replace(r"\times", "*"))
    return re.sub(r"(?<![^\W_]) | (?![^\W_])", "", text)


def read_choice(text: str) -> Choice | None:
    """Read the letter of a choice, alone or with its text: B, (B), b), Option B, B. 25 cm; None for all other text."""
    match = _CHOICE.fullmatch(text)
    if match is None or text == "e":  # Euler's number
        return None
    letter = match["round"] or match["square"] or match["curly"] or match["bare"]
    body = (match["text"] or "").strip()
    spaced = (match["text"] or " ")[0].isspace() or text[match.start("text") - 1] in "):"
    spaced |= re.match(r"[0-9]|[^\W\d_]{2}", body) is not None and letter.isupper()
    if body and (body.startswith(_NO_TEXT) or not spaced or letter.upper() > "H"):
        return None
    if body and (text[match.start("text") - 1] == "," or _ANOTHER.search(body)):
        return None  # A, B is a list
    if body and match["bare"] and text[match.end("bare") : match.end("bare") + 1] not in (".", ")", ":"):
        return None
    return Choice(letter.upper(), body)


def read_figure(text: str) -> Figure | None:
    """Read the name of a figure, or two figures in a relation; None for all other text.

    An angle is the same from either side, so are a segment, a line and an arc; a triangle is in any order.
    """
    text = _SPOKEN.sub(lambda match: rf" \{_SIGNS[match[1]]} ", text, count=1)
    relation = _RELATION.fullmatch(text)
    if relation:
        sides = [read_figure(side) or _named(side) for side in (relation["left"], relation["right"])]
        if None in sides:
            return None
        return Figure(relation["sign"], tuple(sorted(f"{side.kind} {' '.join(side.name)}" for side in sides)))
    match = _FIGURE.fullmatch(text)
    if match is None:
        return None
    kind, name = match["kind"].casefold(), re.findall(r"[A-Z0-9]'*", match["name"])
    if kind in _BACKWARDS:
        name = min(name, name[::-1])
    elif kind in _ANY_ORDER:
        name = sorted(name)
    return Figure(_SAME_FIGURE.get(kind, kind), tuple(name))


def _named(text: str) -> Figure | None:
    name = text.strip(" {}")
    return Figure("", tuple(min(name, name[::-1]))) if re.fullmatch("[A-Za-z]{1,2}", name) else None


def is_words(text: str) -> bool:
    """Return whether a text is words and codes in any script: red, 左边, New York, B12, H2O.

    Each begins with a letter, and one has two characters at least: a single letter is a symbol or a choice.
    """
    bare = _SCRIPTS.sub(lambda match: match[1] or "", text) if not re.search(r"\^", text) else text
    tokens = re.split(r"[\s/-]+", _IGNORED.sub("", bare).replace("&", " ").strip())
    tokens = [token for token in tokens if token]
    symbols = any(len(token) == 1 and _is_greek(token) for token in tokens) and any(map(str.isascii, tokens))
    symbols = symbols or (" " in text or text[:1].islower()) and _INDEXED.fullmatch(text) is not None
    if symbols or _FUNCTIONS & set(tokens[:-1]):
        return False  # π rad, v_0 t, sin x
    if not tokens or "^" in bare or not any(len(token) > 1 for token in tokens):
        return bool(tokens) and len(text) == 1 and is_letter(text) and not text.isascii() and not _is_greek(text)
    return all(_is_word(token) for token in tokens) and "(" not in text


def _is_word(token: str) -> bool:
    if not is_letter(token[0]) or any(_is_greek(token) for token in token) and any(c.isascii() for c in token):
        return False
    return all(is_letter(character) or character.isdecimal() for character in token)


def _is_greek(character: str) -> bool:
    return "GREEK" in unicodedata.name(character, "")
