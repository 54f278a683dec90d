"""The split that a set's publisher gave a row: by the name of its file or folder, or by its column `split`."""

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "trainset", "trainval"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "devset", "minival", "valset"), "validation"),
    **dict.fromkeys(("test", "testing", "testmini", "testset", "testdev", "teststd", "eval", "evaluation"), "test"),
}
WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")


def named_split(name: str) -> str | None:
    """Return the split that a file or folder is named after; None where it is none.

    `train-00000-of-00001`, `my_val`, `testmini` and `test2015` are named after splits, `trainable` is not. Of several
    splits test comes first, so that nothing named so is trained on; `train_val` is train.
    """
    found = {SPLIT_WORDS[word.lower()] for word in WORD.findall(name[:200]) if word.lower() in SPLIT_WORDS}
    return next((split for split in ("test", "train", "validation") if split in found), None)


def file_split(path: PurePath, root_name: str) -> str | None:
    """Return the split of a file: by its own name, else by the nearest folder below the root that tells one.

    Args:
        path: relative to the root.
        root_name: of the folder that is read. It counts only where it is a split's name and nothing else.
    """
    found = next(filter(None, map(named_split, (path.name, *reversed(path.parent.parts)))), None)
    return found or SPLIT_WORDS.get(root_name.lower())


def row_split(values: Mapping[str, Any], of_file: str | None) -> str | None:
    """Return the split of a row: by its own column `split`, else of its file, else by verl's `extra_info.split`."""
    info = values.get("extra_info")
    inner = info.get("split") if isinstance(info, Mapping) else None
    own, inner = (named_split(said) if isinstance(said, str) else None for said in (values.get("split"), inner))
    return own or of_file or inner
