"""The words of a text, and those that say what it is about."""

import re

# Scripts written without spaces give one word a character; elsewhere a word is a run of letters and digits, "2" too.
WORD = r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+"
UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")

# Function words of English, and verbs that go with anything (put, make, use). TF-IDF weighs words by their
# frequency alone, which in a small corpus says little.
STOP_WORDS = frozenset(
    "a about all also am an and any are as at be because been being both but by can could did do does doing done"
    " each either else ever every few for from get gets give go goes got had has have having he her here hers him"
    " his how i if in into is it its just know let made make makes may me might mine more most much must my need"
    " needs of on once one ones only onto or other our ours own per please put shall she should so some such take"
    " takes than that the their theirs them then there these they this those through to too up upon us use used"
    " using very want was we were what when where whether which while who whom whose why will with within would yes"
    " yet you your yours d ll m re s t ve aren couldn didn doesn don hadn hasn haven isn shouldn wasn weren"
    " wouldn".split()
)

_WORD = re.compile(WORD)


def words(text: str) -> list[str]:
    """Return the words of a text in order, in lower case."""
    return _WORD.findall(text.lower())


def content_words(text: str) -> str:
    """Return the text's words without stop words."""
    return " ".join(word for word in words(text) if word not in STOP_WORDS)
