"""Reads the records of a prepared `paired_frames` dataset in any order.

A training step needs random access, but TFDS reads TFRecord files only in sequence. So
the byte offset of every record is found once, from the lengths stored before the
records, and each record's checksum is verified when it is read. ArrayRecord files have
random access already, by TFDS's own data source.
"""

import os
import pathlib
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import google_crc32c
import numpy as np
import tensorflow_datasets as tfds

from restoration.base import errors
from restoration.data import arrays, bad_pairs, input_pipeline, pairs

# A TFRecord: length, checksum of the length, data, checksum of the data.
_LENGTH = struct.Struct("<QI")
_CHECKSUM = struct.Struct("<I")


def open_dataset(folder: str | os.PathLike) -> Any:
    """Opens a prepared dataset.

    Args:
      folder: the version's folder, which contains `dataset_info.json`.

    Returns:
      Its TFDS builder.

    Raises:
      InputError: if it is damaged or another kind of dataset.
    """
    try:
        builder = tfds.builder_from_directory(folder)
        known = {*builder.info.features} == {"input", "output", "name", "clip"}
        known = known and "names" in (builder.info.metadata or {})
    except Exception as error:
        # TFDS raises whatever the parser of the damaged part raises.
        raise errors.InputError(
            f"{folder}: cannot be read ({str(error)[:120]}); prepare it again"
        ) from None
    if not known:
        raise errors.InputError(
            f"{folder}: not made by python -m restoration.prepare; prepare it again"
        )
    return builder


def members(builder: Any) -> dict[str, tuple[pairs.Record, ...]]:
    """Returns the pairs of each split of a prepared dataset, in order."""
    metadata = builder.info.metadata
    try:
        found = pairs.records(metadata["names"], metadata["clips"])
    except (ValueError, KeyError, TypeError) as error:
        raise errors.InputError(
            f"{builder.data_dir}: damaged list of pairs ({error}); prepare it again"
        ) from None
    for split, chosen in found.items():
        count = builder.info.splits[split].num_examples if chosen else 0
        if count != len(chosen):
            raise errors.InputError(
                f"{builder.data_dir}: {count} records for the {len(chosen)} pairs of "
                f"{split}; prepare it again"
            )
    return found


def _damaged(path: str | os.PathLike, position: str) -> errors.InputError:
    return errors.InputError(
        f"{path}: damaged at {position}; put back a good copy, or prepare it again"
    )


def find_offsets(path: str | os.PathLike) -> np.ndarray:
    """Finds the byte offsets of the records in a TFRecord file.

    Args:
      path: the file.

    Returns:
      int64 (count + 1,): the offset of each record, and the file's size.

    Raises:
      InputError: if the file is missing, or its lengths do not add up to its size.
    """
    offsets = [0]
    try:
        size = os.path.getsize(path)
        with open(path, "rb", buffering=0) as file:
            while offsets[-1] < size:
                file.seek(offsets[-1])
                head = file.read(_LENGTH.size)
                if len(head) < _LENGTH.size:
                    raise _damaged(path, f"byte {offsets[-1]}")
                length, checksum = _LENGTH.unpack(head)
                if _masked_crc(head[:8]) != checksum:
                    raise _damaged(path, f"byte {offsets[-1]}")
                offsets.append(offsets[-1] + _LENGTH.size + length + _CHECKSUM.size)
    except OSError as error:
        raise errors.InputError(f"{path}: {error.strerror}; prepare it again") from None
    if offsets[-1] != size:
        raise _damaged(path, f"byte {offsets[-2]}")
    return np.array(offsets, np.int64)


def _masked_crc(data: bytes) -> int:
    """Returns the checksum that TFRecord uses: CRC-32C, rotated, plus a constant."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _tfrecord_read(paths: Sequence[str]) -> tuple[int, Callable[[int], bytes]]:
    """Returns the number of records in all shards, and a function that reads one."""
    offsets = [find_offsets(path) for path in paths]
    firsts = np.cumsum([0, *(len(found) - 1 for found in offsets)])

    def read(index: int) -> bytes:
        shard = int(np.searchsorted(firsts, index, side="right")) - 1
        start, end = offsets[shard][index - firsts[shard] :][:2].tolist()
        # Opened for each record, since a large dataset has more shards than a process
        # may keep open.
        descriptor = os.open(paths[shard], os.O_RDONLY)
        try:
            data = os.pread(descriptor, end - start, start)
        finally:
            os.close(descriptor)
        record = data[_LENGTH.size : -_CHECKSUM.size]
        if (
            len(data) != end - start
            or _CHECKSUM.pack(_masked_crc(record)) != data[-_CHECKSUM.size :]
        ):
            raise _damaged(paths[shard], f"record {index - firsts[shard]}")
        return record

    return int(firsts[-1]), read


def _array_record_read(
    builder: Any, split: str, paths: Sequence[str]
) -> tuple[int, Callable[[int], bytes]]:
    source = builder.as_data_source(
        split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
    )

    def read(index: int) -> bytes:
        try:
            return source[index]
        except Exception as error:
            lengths = builder.info.splits[split].shard_lengths
            shard = int(np.searchsorted(np.cumsum(lengths), index, side="right"))
            raise _damaged(paths[shard], f"record {index} ({error})") from None

    return len(source), read


def make_read(builder: Any, split: str) -> Callable[[int], bytes]:
    """Returns a function that reads the record of an index of a split.

    Args:
      builder: see `open_dataset`.
      split: a split that is not empty.

    Returns:
      The function; it raises InputError if the shard is damaged.

    Raises:
      InputError: if a shard is missing or cut off.
    """
    try:
        paths = [os.fspath(path) for path in builder.info.splits[split].filepaths]
    except (ValueError, LookupError, AttributeError) as error:
        # TFDS formats the shards' names by a template in the dataset's metadata.
        raise errors.InputError(
            f"{builder.data_dir}: its shards have no names ({error}); prepare it again"
        ) from None
    for path in paths:
        if not pathlib.Path(path).is_file():
            raise errors.InputError(f"{path}: no such file; prepare it again")
    if builder.info.file_format is tfds.core.FileFormat.ARRAY_RECORD:
        count, read = _array_record_read(builder, split, paths)
    else:
        count, read = _tfrecord_read(paths)
    if count != builder.info.splits[split].num_examples:
        raise errors.InputError(
            f"{builder.data_dir}: {count} records in {split}, "
            f"{builder.info.splits[split].num_examples} expected; prepare it again"
        )
    return read


def holds_pixels(builder: Any) -> bool:
    """Returns whether the records contain pixels, not the bytes of image files."""
    return not isinstance(builder.info.features["input"], tfds.features.Image)


def parse_pixels(record: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Returns the images of a record of pixels.

    Equals the result of TFDS's own parser, which is slower since it copies the pixels.

    Args:
      record: see `make_read`.

    Returns:
      Input and target, uint8 (height, width, 3) each.
    """
    parts = input_pipeline.tensorflow().train.Example.FromString(record)
    feature = parts.features.feature
    return tuple(
        np.frombuffer(feature[f"{side}/value"].bytes_list.value[0], np.uint8).reshape(
            feature[f"{side}/shape"].int64_list.value
        )
        for side in ("input", "output")
    )


def train_batches(
    builder: Any,
    chosen: Sequence[pairs.Record],
    *,
    bad: bad_pairs.Bad | None = None,
    **options: Any,
) -> Iterator[dict[str, np.ndarray]]:
    """Returns the training batches of some records.

    tf.data decodes records of files. For records of pixels, which are only cropped,
    tf.data would be slower than NumPy.

    Args:
      builder: see `open_dataset`.
      chosen: records of one split.
      bad: see `input_pipeline.train_batches`.
      **options: sizes, seed and steps, as for `arrays.train_batches`.

    Returns:
      The batches, see `arrays.train_batches`.
    """
    if not holds_pixels(builder):
        reader = record_reader(builder, chosen)
        return input_pipeline.train_batches(reader, bad=bad, **options)
    read = make_read(builder, chosen[0].split)
    names = [record.name for record in chosen]

    def read_pair(number: int) -> tuple[np.ndarray, np.ndarray]:
        return parse_pixels(read(chosen[number].index))

    return arrays.train_batches(
        bad_pairs.reading(read_pair, names, bad), names, **options
    )


def record_reader(
    builder: Any, chosen: Sequence[pairs.Record]
) -> input_pipeline.Reader:
    """Returns a reader of records for `input_pipeline`.

    Args:
      builder: see `open_dataset`.
      chosen: records of one split.

    Returns:
      The reader.
    """
    tf = input_pipeline.tensorflow()
    features = builder.info.features
    read = make_read(builder, chosen[0].split)
    failures: list[errors.InputError] = []
    skipped = {}
    if not holds_pixels(builder):
        skipped = {side: tfds.decode.SkipDecoding() for side in ("input", "output")}

    def read_or_remember(index: int) -> bytes:
        try:
            return read(int(index))
        except errors.InputError as error:
            failures.append(error)
            raise

    def load(index: Any) -> tuple[Any, Any, Any]:
        data = tf.numpy_function(read_or_remember, [index], tf.string)
        example = features.deserialize_example(
            tf.ensure_shape(data, ()), decoders=skipped
        )
        label = tf.strings.join(["the pair ", example["name"]])
        degraded, target = (
            input_pipeline.decode(example[side]) if skipped else example[side]
            for side in ("input", "output")
        )
        return *input_pipeline.same_size(degraded, target, label), label

    def explain(error: Exception) -> errors.InputError:
        if failures:
            return failures[0]
        return input_pipeline.assertion(error) or errors.InputError(
            f"{builder.data_dir}: cannot be read ({str(error)[:200]}); prepare it again"
        )

    return input_pipeline.Reader(
        names=[record.name for record in chosen],
        keys=(np.array([record.index for record in chosen], np.int64),),
        load=load,
        explain=explain,
    )
