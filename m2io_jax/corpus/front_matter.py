"""Read the front matter of a page: settings in YAML, TOML or JSON before the text."""

import json
import re
import tomllib
from typing import Any

import yaml

# markdown-it's own plugin takes any line that begins with "---" for the start: "--- task ---", too.
YAML_MATTER = re.compile(
    r"---(?:yaml)?[ \t]*\n((?:[ \t]*\n|#.*\n)*(?:[\w-]+[ \t]*:.*\n(?:.*\n)*?)?)(?:---|\.\.\.)[ \t]*(?:\n|\Z)"
)
TOML_MATTER = re.compile(r"(?:\+\+\+|---toml)[ \t]*\n(.*?)^(?:\+\+\+|---)[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
JSON_MATTER = re.compile(r"(?:;;;|---json)[ \t]*\n(.*?)^(?:;;;|---)[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
BARE_JSON = re.compile(r"\{[ \t]*(?:\n|\"|\})")
# The first line of TOML settings; MyST writes "+++" between two blocks of text as well.
TOML_SETTING = re.compile(r"\s*(?:#.*\n\s*)*(?:[\w\"'.-]+[ \t]*=|\[+[\w\"'. -]+\]+[ \t]*$)", re.MULTILINE)
TOML_TITLE = re.compile(r"^title[ \t]*=(.*)", re.MULTILINE)
NULL = "tag:yaml.org,2002:null"


def split_front_matter(text: str) -> tuple[str, str]:
    """Return the front matter's title ("" where there is none) and the text with as many empty lines in its place."""
    found = _yaml(text) or _toml(text) or _json(text)
    if not found:
        return "", text
    title, end = found
    # Half a surrogate pair, which YAML and JSON can escape, cannot be written.
    title = title.encode("utf-8", "replace").decode("utf-8")
    return " ".join(title.split()), "\n" * text.count("\n", 0, end) + text[end:]


def _yaml(text: str) -> tuple[str, int] | None:
    found = YAML_MATTER.match(text)
    return (_yaml_title(found[1]), found.end()) if found else None


def _yaml_title(settings: str) -> str:
    """Return the title as it is written; no value is made of what YAML says: tags fail and aliases grow without end."""
    try:
        node = yaml.compose(settings, yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError):
        # Sites accept what YAML does not, such as a second colon: the title's line is enough.
        line = re.search(r"^title:(.*)", settings, re.MULTILINE)
        return line[1].strip().strip("\"'") if line else ""
    pairs = node.value if isinstance(node, yaml.MappingNode) else ()
    titles = [value for name, value in pairs if name.value == "title" and isinstance(value, yaml.ScalarNode)]
    return titles[-1].value if titles and titles[-1].tag != NULL else ""


def _toml(text: str) -> tuple[str, int] | None:
    found = TOML_MATTER.match(text)
    if not found or (found[1].strip() and not TOML_SETTING.match(found[1])):
        return None
    try:
        title = _title_of(tomllib.loads(found[1]))
    except (tomllib.TOMLDecodeError, ValueError, RecursionError):
        line = TOML_TITLE.search(found[1])
        title = line[1].strip().strip("\"'") if line else ""
    return title, found.end()


def _json(text: str) -> tuple[str, int] | None:
    if found := JSON_MATTER.match(text):
        start, end = found.start(1), found.end()
    elif BARE_JSON.match(text):
        start, end = 0, None
    else:
        return None
    try:
        settings, stop = json.JSONDecoder().raw_decode(text, start + _leading_space(text[start : start + 1000]))
    except (ValueError, RecursionError):
        return None
    if end is None:
        line = text[stop:].partition("\n")[0]
        if line.strip():
            return None
        end = min(len(text), stop + len(line) + 1)
    return (_title_of(settings), end) if isinstance(settings, dict) else None


def _leading_space(text: str) -> int:
    return len(text) - len(text.lstrip())


def _title_of(settings: dict[str, Any]) -> str:
    title = settings.get("title", "")
    return str(title) if isinstance(title, str | int | float) else ""
