"""Write the splits of a TFDS data set as ArrayRecord shards, in little memory and without TensorFlow.

TFDS orders a split by the hash of its rows' keys, so that its first rows are a fair sample. It holds the split in
memory for that, and beyond 1,000 MiB sorts on disk by TensorFlow's file functions, which are not installed here. So
the rows go to one file as they come, and from there to the shards in the order of their hashes. Where TFDS could write
the split, the shards are equal to its own, byte for byte.

    spool                                              serialised rows in the order of arrival; removed at the end
    m2io_episodes-train.array_record-00000-of-00002    a shard; how many there are follows from the split's size
"""

import errno
import itertools
import os
from array import array
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from tensorflow_datasets.core.example_serializer import ExampleSerializer
from tensorflow_datasets.core.hashing import Hasher
from tensorflow_datasets.core.utils.shard_utils import ShardConfig, get_shard_boundaries

from m2io_jax.errors import UserError

Example = tuple[str, Mapping[str, Any]]  # a row's key, which no other row of its split has, and its values

ONE_BY_ONE = "group_size:1"  # rows a chunk: a reader then decompresses no more than the row it asked for
HASH = np.dtype([("high", ">u8"), ("low", ">u8")])


def write_splits(
    info: tfds.core.DatasetInfo, folder: Path, splits: Mapping[str, Iterable[Example]], shards: int | None = None
) -> None:
    """Write the data set that `info` describes into `folder`, which must exist.

    Args:
        info: name, version and features; its splits are set.
        folder: receives the shards, `dataset_info.json` and `features.json`.
        splits: rows of each split, at least one. They are read once, one split after the other.
        shards: how many a split has; None: as many as TFDS makes of its size, each of 64 MiB to 1 GiB.

    Raises:
        UserError: two rows of a split have the same key.
        OSError: the folder cannot be written, or the disk is full.
    """
    written = [_write_split(info, folder, split, rows, ShardConfig(shards)) for split, rows in splits.items()]
    info.set_splits(tfds.core.splits.SplitDict(written))
    info.write_to_directory(folder)


def _write_split(
    info: tfds.core.DatasetInfo, folder: Path, split: str, rows: Iterable[Example], sizes: ShardConfig
) -> tfds.core.SplitInfo:
    names = tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name=info.name, split=split, filetype_suffix="array_record"
    )
    path = folder / "spool"
    try:
        with open(path, "w+b") as file:
            spool = Spool(file, info.features, salt=split)
            for key, example in rows:
                spool.add(key, example)
            shards = sizes.get_number_shards(spool.bytes, len(spool))
            ends = get_shard_boundaries(len(spool), shards)
            records, lengths = spool.in_order(), np.diff([0, *ends]).tolist()
            for index, length in enumerate(lengths):
                _write_shard(Path(names.sharded_filepath(shard_index=index, num_shards=shards)), records, length)
            return tfds.core.SplitInfo(
                name=split, shard_lengths=lengths, num_bytes=spool.bytes, filename_template=names
            )
    finally:
        path.unlink(missing_ok=True)


class Spool:
    """The serialised rows of one split, on disk; in memory are 24 bytes a row: the hash of its key and where it ends.

    Attributes:
        bytes: size of all rows.
    """

    def __init__(self, file: BinaryIO, features: tfds.features.FeaturesDict, *, salt: str):
        self._file, self._features = file, features
        self._serializer, self._hasher = ExampleSerializer(features.get_serialized_info()), Hasher(salt)
        self._hashes, self._ends = bytearray(), array("Q")

    def __len__(self) -> int:
        return len(self._ends)

    @property
    def bytes(self) -> int:
        return self._ends[-1] if self._ends else 0

    def add(self, key: str, example: Mapping[str, Any]) -> None:
        """Append a row."""
        record = self._serializer.serialize_example(self._features.encode_example(example))
        self._file.write(record)
        self._hashes += self._hasher.hash_key(key).to_bytes(HASH.itemsize, "big")
        self._ends.append(self.bytes + len(record))

    def in_order(self) -> Iterator[bytes]:
        """Yield the rows by the hashes of their keys. Raises UserError where two have the same key."""
        hashes = np.frombuffer(bytes(self._hashes), HASH)
        order = np.lexsort((hashes["low"], hashes["high"]))
        in_order = hashes[order]
        if len(same := np.flatnonzero(in_order[1:] == in_order[:-1])):
            self._refuse_twice(self._read(int(order[same[0]])))
        yield from map(self._read, map(int, order))

    def _read(self, row: int) -> bytes:
        start = self._ends[row - 1] if row else 0
        self._file.seek(start)
        return self._file.read(self._ends[row] - start)

    def _refuse_twice(self, record: bytes) -> None:
        id = self._features.deserialize_example_np(record)["id"].decode()
        mend = "Give each document, question or row an id of its own."
        raise UserError(f"Two episodes of one split have the same id: {id}.", where=self._file.name, mend=mend)


def _write_shard(path: Path, records: Iterator[bytes], count: int) -> None:
    """Write the next `count` records. Raises OSError."""
    try:
        writer = ArrayRecordWriter(str(path), ONE_BY_ONE)
        for record in itertools.islice(records, count):
            writer.write(record)
        writer.close()
    except RuntimeError as error:  # it holds the operating system's words alone
        code = next((code for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) if os.strerror(code) in str(error)), 0)
        raise OSError(code or errno.EIO, os.strerror(code) if code else str(error), str(path)) from error
