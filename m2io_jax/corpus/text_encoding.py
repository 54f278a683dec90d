"""Decode the bytes of a text file whose encoding nobody has written down."""

import codecs
import re
from dataclasses import dataclass

from charset_normalizer import from_bytes

from m2io_jax.errors import UserError

AUTO = "auto"
# UTF-32's little-endian mark begins with UTF-16's, so it is tried first.
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
EAST_ASIAN = ("gb18030", "big5", "cp932", "euc_jp", "cp949")
SINGLE_BYTE = ("cp1252", "koi8_r", "cp1251", "cp1250", "cp1253", "cp1254", "cp1255", "cp1256")
# Detectors know these by the names of their supersets; reports say what people say.
NAMES = {"cp932": "shift-jis", "cp949": "euc-kr", "euc_jp": "euc-jp", "koi8_r": "koi8-r"}
NAMES |= {name: f"windows-{name[2:]}" for name in SINGLE_BYTE if name.startswith("cp")}
# The first bytes of files that are no text, whatever their name ends in.
MAGIC = (
    (b"\x89PNG", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF8", "GIF"),
    (b"%PDF-", "PDF"),
    (b"PK\x03\x04", "ZIP"),
    (b"\x1f\x8b", "gzip"),
    (b"\x7fELF", "ELF"),
    (b"SQLite format 3\x00", "SQLite"),
)
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f\ufffe\uffff]")
CONTROL_BYTES = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
CONTROL_SHARE = 0.05  # of a text's characters; stray ones occur in real files
READ_AS_CYRILLIC = ("cp1250", "cp1252", "cp1254", "cp1256")
CYRILLIC_WORD = re.compile(r"[А-ЯЁ]?[а-яё]{2,}|[А-ЯЁ]{3,}|[а-яёА-ЯЁ]")
DAMAGED_LETTERS = 10  # of UTF-8, to one place that is damaged
SAMPLE_BYTES = 65_536  # a detector needs no more, and its time grows with the length
# The commonest characters of each encoding: lead byte and trail byte ranges of two-byte characters.
COMMON = {
    "gb18030": (b"\xa1-\xa3\xb0-\xd7", b"\xa1-\xfe"),
    "big5": (b"\xa1-\xc6", b"\x40-\x7e\xa1-\xfe"),
    "cp932": (b"\x81-\x83\x88-\x97", b"\x40-\x7e\x80-\xfc"),
    "euc_jp": (b"\xa1-\xa5\xb0-\xcf", b"\xa1-\xfe"),
    "cp949": (b"\xa1-\xa3\xb0-\xc8", b"\xa1-\xfe"),
}
# Signs that windows-1252 shows inside words where the text is in another alphabet.
MISREAD = re.compile(r"\w[³¹²¾¼½¥£¢¤¦¬®¯±µ¶ºª×÷]\w|[³¹¾¼¥£¢¤¦¬®¯±¶×÷]\w\w|[À-ÿ]{4,}")


class Undecodable(ValueError):
    """A file that is not text, or text that no known encoding fits; the message says which."""


@dataclass(frozen=True)
class DecodedText:
    """A file's text, and the encoding that it was read in."""

    text: str
    encoding: str


def check_encoding(name: str) -> None:
    """Raise UserError unless `name` is "auto" or a text encoding that Python knows."""
    try:
        if name != AUTO and not isinstance("".encode(name), bytes):
            raise LookupError(name)
    except (LookupError, ValueError, TypeError):
        mend = "Allowed: auto, or an encoding of Python such as utf-8, gb18030, big5, shift-jis, euc-kr, windows-1252."
        raise UserError(f"The encoding {name!r} is unknown.", where="markdown: encoding", mend=mend) from None


def decode_text(data: bytes, encoding: str = AUTO) -> DecodedText:
    """Decode a text file.

    A byte order mark decides first. Then comes `encoding`, but for files that are UTF-8 with more than ASCII in them:
    text of another encoding hardly ever is, and trees hold both. Where it is "auto": UTF-8, UTF-16 and UTF-32 without a
    mark, and then the most likely of the East Asian and the single-byte encodings.

    Raises:
        Undecodable: a binary file, or bytes that do not fit.
    """
    for magic, kind in MAGIC:
        if data.startswith(magic):
            raise Undecodable(f"a binary file ({kind}), not text")
    for mark, name in BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return DecodedText(_plain_text(_decode(data[len(mark) :], name)), name)
    if encoding != AUTO and (data.isascii() or _decoded_or_none(data, "utf-8") is None):
        return DecodedText(_plain_text(_decode(data, encoding)), encoding)
    if (wide := _wide_encoding(data)) is not None:
        return DecodedText(_plain_text(_decode(data, wide)), wide)
    try:
        return DecodedText(_plain_text(data.decode("utf-8")), "utf-8")
    except UnicodeDecodeError:
        pass
    replaced = data.decode("utf-8", "replace")
    foreign = sum(letter > "\x7f" for letter in replaced)
    if DAMAGED_LETTERS * replaced.count("\ufffd") < foreign:
        # Text of another encoding holds hardly any letter of UTF-8, a cut or damaged UTF-8 text most of them.
        return DecodedText(_plain_text(replaced), "utf-8, damaged")
    if len(CONTROL_BYTES.findall(data[:SAMPLE_BYTES])) > CONTROL_SHARE * len(data[:SAMPLE_BYTES]):
        raise Undecodable("a binary file, not text")
    for name in _likely(data):
        try:
            text = _plain_text(data.decode(name))
        except (UnicodeDecodeError, Undecodable):
            continue
        return DecodedText(text, NAMES.get(name, name))
    raise Undecodable("not UTF-8 text, nor text of another known encoding")


def _decode(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeError as error:  # encodings such as idna raise UnicodeError itself
        raise Undecodable(f"not {encoding} text") from error


def _plain_text(text: str) -> str:
    """Return the text unless control characters show that it is none."""
    if len(CONTROL.findall(text)) > CONTROL_SHARE * len(text):
        raise Undecodable("a binary file, not text")
    return text


def _wide_encoding(data: bytes) -> str | None:
    """Tell UTF-16 or UTF-32 without a byte order mark by where its zero bytes stand."""
    if not data or len(data) % 2 or 0 not in data:
        return None
    if len(data) % 4 == 0:
        # The upper half of a code point is at most 0x0010.
        for name, top, next in (("utf-32-le", 3, 2), ("utf-32-be", 0, 1)):
            if not any(data[top::4]) and max(data[next::4]) <= 0x10 and _fits(data, name):
                return name
    units = len(data) // 2
    low, high = data[1::2].count(0), data[0::2].count(0)  # zero bytes of little- and of big-endian text
    name, zeros, others = ("utf-16-le", low, high) if low >= high else ("utf-16-be", high, low)
    # Chinese text has such units only in its spaces, line ends and marks.
    return name if zeros >= 0.02 * units and others <= zeros / 3 and _fits(data, name) else None


def _fits(data: bytes, encoding: str) -> bool:
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        return False
    return len(CONTROL.findall(text)) <= CONTROL_SHARE * len(text)


def _likely(data: bytes) -> list[str]:
    """Return encodings to try, the likeliest first."""
    sample = _sample(data)
    matches = from_bytes(sample, cp_isolation=[*EAST_ASIAN, *SINGLE_BYTE], threshold=0.4)
    ranked = [match.encoding for match in matches if not _is_half_width(str(match))]
    if not ranked or ranked[0] in SINGLE_BYTE:
        # Too short a text tells nothing apart, and western text is by far the commonest.
        western = _decoded_or_none(sample, "cp1252")
        if western is not None and not MISREAD.search(western):
            ranked.insert(0, "cp1252")
        # A word or two of Russian: no other text in Latin or Arabic letters reads as whole Cyrillic words.
        if not ranked or ranked[0] in READ_AS_CYRILLIC:
            ranked = [name for name in ("koi8_r", "cp1251") if _is_cyrillic(sample, name)] + ranked
    else:
        shares = {name: _common_share(sample, name) for name in EAST_ASIAN}
        best = max(EAST_ASIAN, key=lambda name: shares[name])
        if shares[best] > shares.get(ranked[0], 0.0) + 0.2:
            ranked.insert(0, best)
    return list(dict.fromkeys([*ranked, *SINGLE_BYTE[:1]]))


def _sample(data: bytes) -> bytes:
    """Return the lines that hold more than ASCII, up to a bound."""
    lines, size = [], 0
    for line in data.split(b"\n"):
        if not line.isascii():
            lines.append(line)
            size += len(line) + 1
            if size > SAMPLE_BYTES:
                break
    return b"\n".join(lines)


def _common_share(sample: bytes, encoding: str) -> float:
    """Return the share of the bytes above ASCII that belong to common characters of an East Asian encoding."""
    if _decoded_or_none(sample, encoding) is None:
        return 0.0
    lead, trail = COMMON[encoding]
    pairs = re.findall(b"[\x80-\xff][\x30-\xff]", sample)
    common = re.compile(b"[" + lead + b"][" + trail + b"]")
    return sum(1 for pair in pairs if common.fullmatch(pair)) / max(1, len(pairs))


def _is_half_width(text: str) -> bool:
    """Tell text of half-width katakana: Shift-JIS reads any single byte as one, and nobody writes pages in them."""
    foreign = [letter for letter in text if letter > "\x7f"]
    return sum("\uff61" <= letter <= "\uff9f" for letter in foreign) > 0.3 * len(foreign)


def _is_cyrillic(sample: bytes, encoding: str) -> bool:
    """Whether all words with more than ASCII are Russian by letters and case, and one has three letters or more."""
    text = _decoded_or_none(sample, encoding) or ""
    words = [word for word in re.findall(r"\w+", text) if not word.isascii()]
    return all(CYRILLIC_WORD.fullmatch(word) for word in words) and any(len(word) > 2 for word in words)


def _decoded_or_none(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        return None
