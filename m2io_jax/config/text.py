"""YAML as settings are written, in files and on every command line.

Text that looks like a date stays text, since runs and folders are named by dates. Numbers may be written with an
exponent and without a point (1e-4), which is text in YAML 1.1, PyYAML's, and a number in YAML 1.2.
"""

import re
from typing import Any

import yaml

DATE, FLOAT = "tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:float"
EXPONENT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+\Z")


class Loader(yaml.SafeLoader):
    """`yaml.SafeLoader` without dates, and with the floats of YAML 1.2."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != DATE]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


Loader.add_implicit_resolver(FLOAT, EXPONENT, list("-+.0123456789"))


def read_yaml(text: str) -> Any:
    """The values that a text holds.

    Raises:
        yaml.YAMLError: it is no YAML, or holds what cannot be read: a number of thousands of digits, a nest too deep.
    """
    try:
        return yaml.load(text, Loader=Loader)
    except (ValueError, RecursionError) as error:
        raise yaml.YAMLError(str(error)) from None
