"""Strip what stands around an answer: Markdown, LaTeX's text commands, "The answer is", a box, a full stop."""

import re
from functools import lru_cache
from html import unescape

from m2io_jax.verification.characters import fold_characters, matching_bracket

LONGEST = 500  # characters; what is longer is no answer

# A dollar sign that is money, apart from one that opens mathematics.
DOLLAR = "\N{CURRENCY SIGN}"

_TEXT = re.compile(
    r"\\(?:text(?:bf|it|rm|tt|sf|normal)?|math(?:rm|bf|it|sf|tt|normal)|mbox|hbox|operatorname\*?|boldsymbol|bm"
    r"|emph|underline|ce|textcolor ?\{[a-zA-Z]+\}) ?\{(?P<body>[^{}]*)\}"
)
_SIZES = re.compile(
    r"\\(?:left|right|[bB]igg?[lr]?)(?![a-zA-Z])\.?|\\(?:display|text|script)style(?![a-zA-Z])|\\color ?\{[a-zA-Z]+\}"
    r"|\\(?:bf|it|rm|tiny|small|large|Large|LARGE|huge|Huge|normalsize|centering)(?![a-zA-Z])|\\limits(?![a-z])"
)
_SPACES = re.compile(r"(?<!\\)\\[,;: ]|~|\\q?quad(?![a-zA-Z])|\\thinspace(?![a-zA-Z])")
_CASES = re.compile(r"\\(?:begin|end) ?\{(?:cases|aligned|array|split)\}(?:\{[lcr|]+\})?")
_COMMA = re.compile(r" ?\{ ?, ?\}")
_FRAC = re.compile(r"\\[dtc]?frac(?![a-zA-Z]) *(?P<top>[0-9]|\{[^{}]*\}) *(?P<bottom>[0-9]|\{[^{}]*\})")
_DEGREES = re.compile(r" ?(?:\^ ?\{? ?\\circ ?\}?|\\degree(?![a-zA-Z])|\{\\degree\}|\\textdegree(?![a-zA-Z]))")
_MONEY = {r"\pounds": "£", r"\euro": "€", r"\yen": "¥", r"\$": DOLLAR}

_POWER = re.compile(r"(?<=[0-9)}])\*\*(?=[-+]?[0-9({])")  # no emphasis: 10**3
_EMPHASIS = re.compile(r"(?<![\w)}])(?P<mark>\*\*|__|`)(?=\S)(?P<body>[^*`]+?)(?<=\S)(?P=mark)(?![\w({])")

_HTML = (
    (re.compile(r"<sup>([^<>]*)</sup>"), r"^{\1}"),
    (re.compile(r"<sub>([^<>]*)</sub>"), r"_{\1}"),
    (re.compile(r"<(b|i|u|em|strong|code|p|span)>([^<>]*)</\1>"), r"\2"),
)
_CHINESE_CHOICE = re.compile(r"(?<!\S)(?P<letter>[A-HＡ-Ｈ])[、．](?![A-HＡ-Ｈ](?:\W|$))(?=\s*\S)")

WRAPPINGS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("```", "```"), ("`", "`"), ("***", "***"))
WRAPPINGS += (("**", "**"), ("__", "__"), ("*", "*"), ("_", "_"), ('"', '"'), ("'", "'"))
_BOXES = (r"\boxed{", r"\fbox{", r"\framebox{", "{")

_LEAD = re.compile(
    r"(?:\#{1,6} +|\#(?=[0-9])|n(?:o|r|umber)\b\.? ?(?=[0-9])|[*\u2022] +|= *|\\approx *|\\therefore *|~ *"
    r"|(?:so|thus|hence|therefore|then|and so)\b,? *"
    r"|(?:the |my |our |your )?(?:final |correct |right |best |exact )*"
    r"(?:answer|ans|result|solution|count)\b(?: (?:to|for) [a-z0-9 ]{1,40}?)??\.?"
    r" ?(?:(?:is|are|equals|would be|should be|will be)\b(?: equal to\b)?|[:=])"
    r"[ :=]*(?:option (?=\(?[A-Z]\b))?"
    r"|(?:the |my )?(?:correct |right |best )?(?:option|choice) (?:is|:) *"
    r"|i (?:think|believe)(?: that)?(?: it is| it's)? "
    r"|final answer +"
    r"|in (?=[12][0-9]{3}$)|(?:in )?(?:the )?year (?=[0-9])"
    r"|there (?:is|are)\b *|it(?: is|'s)\b *|(?:i|we) (?:count|see|get|have|obtain|find)\b *|(?:a |in )?total of\b *"
    r"|(?:antwort|réponse|respuesta|resposta|risposta|ответ) ?[:=] *"
    r"|(?:the |this )?(?:image|picture|photo|figure|diagram|scene) (?:shows|contains|has)\b *"
    r"|(?:exactly|approximately|approx)\b\.? *"
    r"|(?:(?:图片?|画面)[中里]?)?(?:一共|总共|共)?(?:有|(?<=共))(?=[0-9一二三四五六七八九十两])"
    r"|(?:所以|因此)?,? ?(?:最终|正确)?"
    r"(?:答案|答|结果) ?(?:[:是为]|等于)[: ]*)",
    re.IGNORECASE,
)
_REASON = re.compile(
    r"(?<=\S)(?:,? \(?because\b.*|(?:,| \() ?since\b.*|\s*\n\s*\**(?:explanation|reason|reasoning|note)\b.*)",
    re.IGNORECASE | re.DOTALL,
)
_REPEATING = re.compile(r"(?P<before>[0-9]\.[0-9]*?)(?P<digit>[0-9])(?P=digit){2,}(?:\.{3}|\\[lc]?dots)$")  # 0.333...
_TRAIL = re.compile(r"(?<=\S) is (?:the )?(?:correct|right)(?: (?:answer|option|choice|one))?$", re.IGNORECASE)
_FACTORIAL = re.compile(r"(?:[0-9)}]|(?:^|[\W\d_])[a-zA-Zα-ω]) ?!$")


@lru_cache(maxsize=16_384)
def canonical(answer: str) -> str:
    """Return an answer in one line, in keyboard characters and LaTeX, without what stands around it.

    Empty where it is longer than `LONGEST`.
    """
    if len(answer) > LONGEST:
        return ""
    marked = _CHINESE_CHOICE.sub(r"\g<letter>. ", unescape(answer))
    for pattern, written in _HTML:
        marked = pattern.sub(written, marked)
    folded = fold_characters(marked)
    if len(folded) > 2 * LONGEST:  # a single character can stand for many
        return ""
    text, inner = "", plain_latex(folded)
    while inner != text:
        text, inner = inner, _unwrapped(inner)
    return text


def without_reasons(*answers: str) -> tuple[str, ...]:
    """Return answers without the reasons that follow them, "because ..."; as they are where each gives one."""
    cut = [_REASON.sub("", answer) if len(answer) <= LONGEST else answer for answer in answers]
    given = [short != answer for short, answer in zip(cut, answers, strict=True)]
    return answers if all(given) else tuple(cut)


def plain_latex(text: str) -> str:
    """Return text without LaTeX that changes its looks alone; fractions and degree signs in one form each."""
    text = _POWER.sub("^", text)
    text = _EMPHASIS.sub(lambda match: match["body"], text)
    for name, sign in _MONEY.items():
        text = re.sub(re.escape(name) + ("" if name == r"\$" else r"(?![a-zA-Z]) ?"), sign, text)
    if _CASES.search(text):  # its lines are a list
        text = re.sub(r"\\\\(?![a-zA-Z]+\{)", ", ", _CASES.sub("", text).replace("&", ""))
    text = _COMMA.sub(",", text.replace(r"\!", "").replace(r"\%", "%").replace(r"\#", "#").replace(r"\&", "&"))
    text = _SIZES.sub("", text)
    for _ in range(5):  # commands inside commands
        text, changes = _TEXT.subn(_bare_text, text)
        if not changes:
            break
    text = re.sub(r"\\varnothing(?![a-z])", r"\\emptyset", text)
    text = _DEGREES.sub("\N{DEGREE SIGN}", _SPACES.sub(" ", text))
    text = _FRAC.sub(lambda match: rf"\frac{{{match['top'].strip('{} ')}}}{{{match['bottom'].strip('{} ')}}}", text)
    return " ".join(re.sub(r"\\[dtc]frac(?![a-zA-Z])", r"\\frac", text).split())


def _bare_text(match: re.Match[str]) -> str:
    before, body = match.string[: match.start()][-1:], match["body"]
    apart = (before.isdigit() or before == "}" or before == "\N{DEGREE SIGN}") and body[:1].isalpha()
    after = match.string[match.end() : match.end() + 1]
    return " " * apart + body + " " * (body[-1:].isalpha() and after.isalnum() and match[0].startswith(r"\text"))


def _unwrapped(text: str) -> str:
    text = _REPEATING.sub(r"\g<before>\\overline{\g<digit>}", text)
    text = _without_stop(text.strip().removesuffix(r"\\"))
    for opening, closing in WRAPPINGS:
        body = text[len(opening) : len(text) - len(closing)]
        if body.strip() and text == opening + body + closing and _belong_together(body, opening):
            return body.strip()
    for box in _BOXES:
        if text.startswith(box) and text.endswith("}"):
            body = text[len(box) : -1]
            listed = box == "{" and re.search("[,;]", body)  # a set
            if body.strip() and not listed and matching_bracket(text, len(box) - 1) == len(text) - 1:
                return body.strip()
    text = _TRAIL.sub("", text)
    lead = _LEAD.match(text)
    if lead and text[lead.end() :].strip():
        return text[lead.end() :].strip()
    return text


def _without_stop(text: str) -> str:
    """Take off a full stop and the like; an exclamation mark after a number or a symbol is a factorial."""
    while text and text[-1] in ".,;:?!":
        if text.endswith("!") and _FACTORIAL.search(text) or text.endswith("\\" + text[-1]):
            break
        text = text[:-1].rstrip()
    return text


def _belong_together(body: str, opening: str) -> bool:
    """Return whether the marks around `body` belong to each other: `$1$ or $2$` has two pairs."""
    if opening == "*" and body[0].isspace():
        return False  # a bullet
    return opening[-1] not in body if opening[0] == "$" else opening not in body
