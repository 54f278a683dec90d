"""Directives of MyST and reStructuredText, and the colon blocks of pandoc, Quarto, Docusaurus and VuePress."""

import re
from collections.abc import Callable, Sequence
from functools import partial

from m2io_jax.corpus.dialects.chunks import chunk_lines
from m2io_jax.corpus.dialects.containers import Container, Numbered, Options
from m2io_jax.corpus.dialects.html import attributes, image_tag

FENCED = re.compile(r"(`{3,}|~{3,}|:{3,})[ \t]*\{(=html|[a-zA-Z][\w:.+*-]*)\}[ \t]*([^`]*)$")
COLONS = re.compile(r":{3,}[ \t]*([^:\s].*)$")
# The colon blocks of Microsoft's pages end where they begin, ":::row:::", or have their own end, ":::zone-end".
COMPLETE = re.compile(r":{3,}[ \t]*(?:[a-z][\w-]*-end\b.*|[a-z][^:]*:::.*)$")
IMAGE_EXTENSION = re.compile(r":{3}[ \t]*(?:image|video)[ \t][^\n]*")
ATTRIBUTE_BLOCK = re.compile(r"\{([^{}]*)\}")
TITLE_ATTRIBUTE = re.compile(r"""\b(?:title|summary)=(?:"([^"]*)"|'([^']*)')""")
NAME_AND_TITLE = re.compile(r"([\w.-]+)[ \t]*(?:\[([^\]]*)\])?[ \t]*(?:\{[^{}]*\})?[ \t]*(.*?)(?:\{[^{}]*\})?[ \t]*$")
REST = re.compile(r"\.\.[ \t]+(?:\|[^|]+\|[ \t]+)?([a-zA-Z][\w:-]*)::(?:[ \t]+(.*))?$")
REST_LABEL = re.compile(r"\.\.[ \t]+_[^:]+:[ \t]*$")
MYST_SIGN = re.compile(
    r"^[ \t>]*(?:`{3,}|:{3,})[ \t]*\{[a-z][\w:-]*\}|^\([\w.:-]+\)=[ \t]*$|\{(?:ref|numref|doc|term|cite)\}`", re.M
)
MYST_LINE = re.compile(r"\^{3,}[ \t]*$|\([^()\s]+\)=[ \t]*$|\+\+\+(?:[ \t].*)?$|%(?:[ \t].*)?$")

IMAGES = ("image", "figure", "figure*")
# Bodies that are shown as they stand.
CODE = frozenset(
    "code code-block code-cell sourcecode math parsed-literal mermaid graphviz digraph graph plantuml ipython prompt "
    "doctest testcode testoutput highlight jupyter-execute literal diagram kroki wavedrom altair-plot plot math-block "
    "productionlist console terminal pyodide thebe-button program-output command-output asciinema".split()
)
# Bodies that are lists of files, settings or other things that a page does not show.
UNSHOWN = frozenset(
    "toctree bibliography contents tableofcontents index meta include mdinclude literalinclude tags "
    "currentmodule module default-role highlightlang comment embed footbibliography".split()
)
# Arguments that are labels, classes or numbers, no sentence.
UNSHOWN_ARGUMENT = frozenset(
    "tab-item tab tabbed tab-set tabs grid grid-item container div class only raw group-tab code-tab panels "
    "figure-md eval-rst subfigure youtube iframe video audio =html versionadded versionchanged "
    "deprecated".split()
)
# Languages that run in a page's chunks, so that "```{python}" begins code.
ENGINES = frozenset(
    "r python python3 julia sql bash sh zsh js javascript ojs css html stan rcpp dot mermaid cpp c fortran ruby perl "
    "powershell node go rust scala haskell awk sas stata d3 cat asis block tikz latex".split()
)
CARD_IMAGES = ("img-top", "img-bottom", "img-background")


def open_directive(line: str) -> Container | None:
    """Open "```{name} argument" or ":::{name} argument"."""
    found = FENCED.match(line)
    if not found:
        return None
    fence = (found[1][0], len(found[1]))
    return _directive(found[2], found[3].strip(), fence)


def open_colons(line: str) -> Container | None:
    """Open `::: note`, `:::note[Title]`, `::: {.callout-note title="…"}` and their like."""
    if IMAGE_EXTENSION.match(line):
        return None
    if COMPLETE.match(line):
        return _unshown_line()
    found = COLONS.match(line)
    if not found:
        return None
    # Any line of colons ends these, however many they are.
    fence = (":", 3)
    text = found[1].rstrip(": \t")
    if block := ATTRIBUTE_BLOCK.fullmatch(text):
        title = TITLE_ATTRIBUTE.search(block[1])
        if re.search(r"(?:^|\s)#fig-", block[1]):
            return Container(lambda _: ("", '<figure data-caption="rest">', ""), ("", "</figure>", ""), fence)
        return Container(_text((title[1] or title[2] or "") if title else ""), ("",), fence)
    named = NAME_AND_TITLE.match(text)
    if named and named[1] in CODE:
        return Container(fence=fence, raw=partial(_code, ""))
    title_words = (named[2] or named[3]) if named else text
    return Container(_text(title_words.lstrip("# ")), ("",), fence)


def open_rest(line: str) -> Container | None:
    """Open `.. image:: a.png` and other directives of reStructuredText, whose bodies are indented."""
    if REST_LABEL.match(line):
        return _unshown_line()
    found = REST.match(line)
    return _directive(found[1], (found[2] or "").strip(), None) if found else None


def open_myst_line(line: str) -> Container | None:
    """Take out `(label)=`, `+++` and `% comment`."""
    return _unshown_line() if MYST_LINE.match(line) else None


def _unshown_line() -> Container:
    return Container(end=("",), indent=10**6, raw=_nothing)


def _directive(name: str, argument: str, fence: tuple[str, int] | None) -> Container:
    make = partial(Container, fence=fence, indent=1, options="field")
    if name in IMAGES and argument:
        end = ("", "</figcaption></figure>", "")
        return make(partial(_figure, argument), end)
    if name in (*IMAGES, "figure-md"):
        return make(lambda _: ("", '<figure data-caption="rest">', ""), ("", "</figure>", ""))
    if name in UNSHOWN or (name == "raw" and argument not in ("", "html")):
        return make(raw=_nothing)
    if name in CODE or name.startswith("code") or (fence and fence[0] != ":" and name.lower() in ENGINES):
        return make(raw=partial(_code, argument))
    if name in ("video", "audio"):
        return make(lambda _: ("", f"<{name} {attributes({'src': argument})}></{name}>", ""), ("",))
    return make(partial(_prose, "" if name in UNSHOWN_ARGUMENT else argument), ("",))


def _figure(address: str, options: Options) -> Sequence[str]:
    return ("", f"<figure>{image_tag(address, alt=options.get('alt', ''))}<figcaption>", "")


def _prose(title: str, options: Options) -> Sequence[str]:
    cards = [image_tag(options[name], alt=options.get("img-alt", "")) for name in CARD_IMAGES if options.get(name)]
    shown = [title, *cards]
    return ("", *(line for text in shown if text for line in (text, "")))


def _text(text: str) -> Callable[[Options], Sequence[str]]:
    return partial(_prose, text)


def _nothing(body: list[Numbered], options: Options) -> list[Numbered]:
    return [("", number) for _, number in body]


def _code(argument: str, body: list[Numbered], options: Options) -> list[Numbered]:
    return chunk_lines(argument, body, python=True)
