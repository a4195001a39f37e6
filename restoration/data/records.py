"""Reads a prepared `paired_frames` dataset pair by pair, in any order.

TFDS reads TFRecord files from front to back alone; a training step draws pairs from
everywhere. So the place of every record is found once, from the lengths that stand
before them, and each record's checksum is verified when it is read. ArrayRecord
knows its places; there TFDS' own data source reads.
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

# A TFRecord: length, checksum of the length, bytes, checksum of the bytes.
_LENGTH = struct.Struct("<QI")
_CHECKSUM = struct.Struct("<I")


def open_dataset(folder: str | os.PathLike) -> Any:
    """Opens a prepared dataset.

    Args:
      folder: the version's folder, which holds `dataset_info.json`.

    Returns:
      Its TFDS builder.

    Raises:
      InputError: when it is damaged, or is no `paired_frames`.
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


def _damaged(path: str | os.PathLike, place: str) -> errors.InputError:
    return errors.InputError(
        f"{path}: damaged at {place}; put back a good copy, or prepare it again"
    )


def find_offsets(path: str | os.PathLike) -> np.ndarray:
    """Finds where the records of a TFRecord file begin.

    Args:
      path: the file.

    Returns:
      int64 (count + 1,): byte positions, the last one the file's end.

    Raises:
      InputError: when the file is missing or its lengths do not add up.
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
    """Returns the checksum of TFRecord: CRC-32C, rotated and shifted."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _tfrecord_read(paths: Sequence[str]) -> tuple[int, Callable[[int], bytes]]:
    """Returns how many records some shards hold, and a function that reads one."""
    offsets = [find_offsets(path) for path in paths]
    firsts = np.cumsum([0, *(len(found) - 1 for found in offsets)])

    def read(place: int) -> bytes:
        shard = int(np.searchsorted(firsts, place, side="right")) - 1
        start, end = offsets[shard][place - firsts[shard] :][:2].tolist()
        # Opened anew each time: a large dataset has more shards than a process
        # may hold open.
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
            raise _damaged(paths[shard], f"record {place - firsts[shard]}")
        return record

    return int(firsts[-1]), read


def _array_record_read(
    builder: Any, split: str, paths: Sequence[str]
) -> tuple[int, Callable[[int], bytes]]:
    source = builder.as_data_source(
        split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
    )

    def read(place: int) -> bytes:
        try:
            return source[place]
        except Exception as error:
            lengths = builder.info.splits[split].shard_lengths
            shard = int(np.searchsorted(np.cumsum(lengths), place, side="right"))
            raise _damaged(paths[shard], f"record {place} ({error})") from None

    return len(source), read


def make_read(builder: Any, split: str) -> Callable[[int], bytes]:
    """Returns a function that reads the record at a place of a split.

    Args:
      builder: see `open_dataset`.
      split: one that has records.

    Returns:
      The function; it raises InputError naming a damaged shard.

    Raises:
      InputError: naming a shard that is missing or cut off.
    """
    try:
        paths = [os.fspath(path) for path in builder.info.splits[split].filepaths]
    except (ValueError, LookupError, AttributeError) as error:
        # TFDS formats the shards' names by a template that the dataset tells.
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
    """Returns whether the records hold pixels, not the bytes of files."""
    return not isinstance(builder.info.features["input"], tfds.features.Image)


def parse_pixels(record: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Returns the images that a record of pixels holds.

    The same as TFDS' own parser gives, six times faster: it copies the pixels.

    Args:
      record: see `make_read`.

    Returns:
      Worn and clean image, uint8 (height, width, 3) each.
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
    """Yields training batches; `options` are those of `arrays.train_batches`.

    Files are decoded by tf.data. Pixels are only cut, which costs less than a single
    call from tf.data into Python.

    Args:
      builder: see `open_dataset`.
      chosen: records of one split.
      bad: see `input_pipeline.train_batches`.
      **options: sizes, seed and steps.

    Returns:
      The batches.
    """
    if not holds_pixels(builder):
        reader = record_reader(builder, chosen)
        return input_pipeline.train_batches(reader, bad=bad, **options)
    read = make_read(builder, chosen[0].split)
    names = [record.name for record in chosen]

    def read_pair(number: int) -> tuple[np.ndarray, np.ndarray]:
        return parse_pixels(read(chosen[number].place))

    return arrays.train_batches(
        bad_pairs.reading(read_pair, names, bad), names, **options
    )


def record_reader(
    builder: Any, chosen: Sequence[pairs.Record]
) -> input_pipeline.Reader:
    """Returns a reader of records for the pipelines.

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

    def read_or_remember(place: int) -> bytes:
        try:
            return read(int(place))
        except errors.InputError as error:
            failures.append(error)
            raise

    def load(place: Any) -> tuple[Any, Any, Any]:
        data = tf.numpy_function(read_or_remember, [place], tf.string)
        example = features.deserialize_example(
            tf.ensure_shape(data, ()), decoders=skipped
        )
        what = tf.strings.join(["the pair ", example["name"]])
        degraded, target = (
            input_pipeline.decode(example[side]) if skipped else example[side]
            for side in ("input", "output")
        )
        return *input_pipeline.same_size(degraded, target, what), what

    def explain(error: Exception) -> errors.InputError:
        if failures:
            return failures[0]
        return input_pipeline.assertion(error) or errors.InputError(
            f"{builder.data_dir}: cannot be read ({str(error)[:200]}); prepare it again"
        )

    return input_pipeline.Reader(
        names=[record.name for record in chosen],
        keys=(np.array([record.place for record in chosen], np.int64),),
        load=load,
        explain=explain,
    )
