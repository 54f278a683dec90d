"""YAML as settings are written: what looks like a date is text, since runs and folders are named by dates."""

from typing import Any

import yaml

DATE = "tag:yaml.org,2002:timestamp"


class Loader(yaml.SafeLoader):
    """`yaml.SafeLoader` without dates."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != DATE]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def read_yaml(text: str) -> Any:
    """The values that a text holds.

    Raises:
        yaml.YAMLError: it is no YAML, or holds what cannot be read: a number of thousands of digits, a nest too deep.
    """
    try:
        return yaml.load(text, Loader=Loader)
    except (ValueError, RecursionError) as error:
        raise yaml.YAMLError(str(error)) from None
