"""The split that a set's publisher gave a row: by the name of its file or folder, or by its column `split`."""

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "trainset", "trainval"), "train"),
    **dict.fromkeys(("validation", "validate", "valid", "val", "valset", "minival", "dev", "devset", "development"),
                    "validation"),
    **dict.fromkeys(("test", "tests", "testing", "testset", "testmini", "minitest", "testdev", "devtest", "teststd",
                     "testfull", "heldout", "holdout", "eval", "evaluation"), "test"),
}  # fmt: skip
COLUMNS = ("split", "data_split", "dataset_split")
INFO = ("extra_info", "metadata", "meta")  # columns that may hold one of these
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
    """Return the split of a row: by its own column `split`, else of its file, else by a column such as `extra_info`."""
    inner = (_column_split(info) for name in INFO if isinstance(info := values.get(name), Mapping))
    return _column_split(values) or of_file or next(filter(None, inner), None)


def _column_split(values: Mapping[str, Any]) -> str | None:
    found = (each for name, each in values.items() if isinstance(name, str) and name.lower() in COLUMNS)
    return next(filter(None, (named_split(each) for each in found if isinstance(each, str))), None)
