"""Paths of checkpoints, taken letter by letter whatever characters a user's folder has in its name.

Orbax lists the parts of a checkpoint by `directory.glob("ocdbt.process_*")`. In etils that joins the directory and the
pattern to one pattern, so `[`, `]`, `*` and `?` of the directory count as wildcards: nothing is found, nothing is
merged, and the checkpoint is called complete all the same. A `LiteralPath` reads the pattern alone as a pattern.

What Orbax, TensorStore or a bucket's client change inside a path cannot be mended from here and is refused.
"""

import glob
import os
from collections.abc import Iterator
from typing import Self

from etils import epath

from m2io_jax.errors import UserError

# Of a path on a disk: TensorStore takes `\` for `/`; Orbax writes `gs://` for `gs:/`; no system allows a zero.
CHANGED = ("\\", "gs:/", "\0")
# Of a bucket's address: wildcards of its clients, what a URL's path ends at, and what Cloud Storage allows in no name.
CHANGED_IN_BUCKETS = ("[", "]", "*", "?", "#", "\\", "\r", "\n", "\0")


class LiteralPath(type(epath.Path())):
    """An `epath.Path` whose `glob` reads the pattern alone as a pattern, never the path itself."""

    def glob(self, pattern: str) -> Iterator[Self]:
        """Yield the paths below this one that match `pattern` (no `**`), in no order."""
        if self._uri_scheme:  # `literal_path` refuses wildcards there
            yield from super().glob(pattern)
        else:
            yield from (self / found for found in glob.glob(pattern, root_dir=os.fspath(self)))


def literal_path(place: os.PathLike | str) -> LiteralPath:
    """Return the absolute path of a folder on a disk, or the address of one in a bucket.

    Raises:
        UserError: it has characters that checkpoints cannot be written below.
    """
    given = os.fspath(place)
    in_bucket = "://" in given
    full = given if in_bucket else os.path.abspath(given)
    path, mend = LiteralPath(full), "rename that folder, or give another with run= or checkpoint.folder="
    for letters in CHANGED_IN_BUCKETS if in_bucket else CHANGED:
        if letters in full + "/":
            what = f"Checkpoints cannot be written below a path with {letters!r} in it."
            raise UserError(what, where=given, mend=mend)
    if path._uri_scheme and not in_bucket:  # etils reads /gs/BUCKET as gs://BUCKET
        what = f"Checkpoints cannot be written below /{path._uri_scheme}, which is taken for a bucket's address."
        raise UserError(what, where=given, mend=mend)
    return path
