"""YAML as settings are written, in files and on every command line.

Text that looks like a date stays text, since runs and folders are named by dates. Numbers may be written with an
exponent and without a point (1e-4), which is text in YAML 1.1, PyYAML's, and a number in YAML 1.2. A setting that takes
text takes a number as it is written: a run named 1e5 or 007 is not named 100000.0 or 7.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

import yaml

DATE, FLOAT = "tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:float"
INT, TEXT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:str"
EXPONENT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+\Z")


class Loader(yaml.SafeLoader):
    """`yaml.SafeLoader` without dates, and with the floats of YAML 1.2."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != DATE]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


Loader.add_implicit_resolver(FLOAT, EXPONENT, list("-+.0123456789"))


def read_yaml(text: str, takes_text: Callable[[Sequence[str]], bool] | None = None, keys: Sequence[str] = ()) -> Any:
    """Return the values that a text holds.

    Args:
        takes_text: says of a setting's keys whether it takes text, and a number therefore as it is written.
        keys: of the setting that the whole text is the value of.

    Raises:
        yaml.YAMLError: it is no YAML, or holds what cannot be read: a number of thousands of digits, a nest too deep.
    """
    try:
        node = yaml.compose(text, Loader=Loader)
        if node is None:
            return None
        if takes_text is not None:
            _keep_written(node, takes_text, list(keys), set())
        return Loader("").construct_document(node)
    except (ValueError, RecursionError) as error:
        raise yaml.YAMLError(str(error)) from None


def _keep_written(
    node: yaml.Node, takes_text: Callable[[Sequence[str]], bool], keys: list[str], seen: set[int]
) -> None:
    """Make text of the numbers that settings of text have; `seen` are the nodes done, since aliases repeat them."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            _keep_written(value, takes_text, [*keys, str(key.value)], seen)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _keep_written(value, takes_text, keys, seen)
    elif node.tag in (INT, FLOAT) and node.style is None and takes_text(keys):
        node.tag = TEXT
