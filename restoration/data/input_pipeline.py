"""tf.data pipelines over paired frames: from files, or from what a `Reader` reads.

TensorFlow is imported when a pipeline is made, so that training on arrays and
restoring do without. What is drawn for a step comes from `sampling`.
"""

import functools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from restoration.base import errors
from restoration.data import arrays, bad_pairs, pairs, sampling
from restoration.evaluation import metrics

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")

# Pixels of the images that one evaluation batch holds at most.
_EVALUATION_PIXELS = 16 * 256 * 256


class Load(Protocol):
    """Reads a pair, within a graph of TensorFlow."""

    def __call__(self, *keys: Any) -> tuple[Any, Any, Any]:
        """Reads one pair.

        Args:
          *keys: one row of each of the reader's keys.

        Returns:
          Input and target, uint8 (height, width, 3) of the same size, and a text that
          names the pair in errors.
        """


class Explain(Protocol):
    """Says what failed."""

    def __call__(self, error: Exception) -> errors.InputError:
        """Returns an error that names the file or record for one of the pipeline."""


class Reader(NamedTuple):
    """How a pipeline reads pairs.

    Attributes:
      names: of the pairs.
      keys: arrays with one row for each pair: what it is read by.
      load: reads one of them.
      explain: says which of them made the pipeline fail.
    """

    names: Sequence[str]
    keys: tuple[np.ndarray, ...]
    load: Load
    explain: Explain


@functools.cache
def tensorflow() -> Any:
    """Imports TensorFlow, quietly and away from any accelerator."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # It logs oneDNN at any level, and pictures are read without.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    return tf


def _check_suffixes(members: Sequence[pairs.Pair]) -> None:
    for pair in members:
        for path in (pair.input, pair.output):
            if path.suffix.lower() not in _SUFFIXES:
                raise errors.InputError(
                    f"{path}: pairs are read from PNG, JPEG and BMP; convert it"
                )


def decode(data: Any) -> Any:
    """Decodes the bytes of a file to uint8 RGB (height, width, 3), within a graph."""
    tf = tensorflow()

    def bmp() -> Any:
        image = tf.io.decode_bmp(data)
        channels = tf.shape(image)[-1]
        return tf.cond(
            channels < 3,
            lambda: tf.repeat(image[..., :1], 3, -1),
            lambda: image[..., :3],
        )

    def other() -> Any:
        # Despite its name it distinguishes JPEG from PNG by content. The default DCT is
        # a fast approximation; the accurate one is what libvips decodes with.
        return tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")

    image = tf.cond(tf.equal(tf.strings.substr(data, 0, 2), b"BM"), bmp, other)
    return tf.ensure_shape(image, (None, None, 3))


def same_size(degraded: Any, target: Any, what: Any) -> tuple[Any, Any]:
    """Passes two images on, within a graph, if they are of one size.

    Args:
      degraded: (height, width, 3).
      target: the same.
      what: text that names the two.

    Returns:
      The two images; reading them fails when their sizes differ.
    """
    tf = tensorflow()
    same = tf.reduce_all(tf.equal(tf.shape(degraded), tf.shape(target)))
    message = tf.strings.join(
        [what, ": a pair of different sizes; "
         "remove it, or move it away with python -m restoration.clean"]
    )  # fmt: skip
    with tf.control_dependencies([_check(same, message)]):
        return tf.identity(degraded), tf.identity(target)


def _check(condition: Any, message: Any) -> Any:
    """Returns an operation that fails with a message unless a condition holds.

    The raw operation: `tf.debugging.Assert` calls it in a branch, and a branch in a
    pipeline costs as much as cutting the crops.
    """
    return tensorflow().raw_ops.Assert(condition=condition, data=[message], summarize=1)


def _crop(
    what: Any, degraded: Any, target: Any, offset: Any, flip: Any, size: int
) -> tuple[Any, Any]:
    """Cuts the same square from both images of a pair, and flips."""
    tf = tensorflow()
    room = tf.shape(degraded)[:2] - size
    message = tf.strings.join(
        [what, f": smaller than --image_size={size}; choose a smaller --image_size"]
    )
    with tf.control_dependencies([_check(tf.reduce_all(room >= 0), message)]):
        span = tf.cast(room + 1, tf.float32)
    start = tf.minimum(tf.cast(offset * span, tf.int32), room)
    flipped = tf.boolean_mask([0, 1], flip)

    def cut(image: Any) -> Any:
        crop = tf.slice(image, [start[0], start[1], 0], [size, size, 3])
        return tf.reverse(crop, flipped)

    return cut(degraded), cut(target)


def assertion(error: Exception) -> errors.InputError | None:
    """Returns what a failed check within a graph said; None for other errors."""
    found = re.search(r"assertion failed: \[(.*?)\]", str(error), re.DOTALL)
    if not found:
        return None
    return errors.InputError(found[1].replace("\\n", " ").strip("'\""))


def file_reader(members: Sequence[pairs.Pair]) -> Reader:
    """Returns a reader of the files of pairs.

    Args:
      members: the pairs.

    Returns:
      The reader.

    Raises:
      InputError: for a file of a format that is not read.
    """
    tf = tensorflow()
    _check_suffixes(members)

    def load(input_path: Any, output_path: Any) -> tuple[Any, Any, Any]:
        what = tf.strings.join([input_path, " and ", output_path])
        degraded = decode(tf.io.read_file(input_path))
        target = decode(tf.io.read_file(output_path))
        return *same_size(degraded, target, what), input_path

    def explain(error: Exception) -> errors.InputError:
        if refusal := assertion(error):
            return refusal
        for pair in members:
            for path in (pair.input, pair.output):
                try:
                    decode(tf.io.read_file(os.fsencode(path)))
                except Exception:
                    return errors.InputError(
                        f"{path}: cannot be decoded; move it away with "
                        "python -m restoration.clean"
                    )
        return errors.InputError(f"reading the pairs failed: {str(error)[:200]}")

    return Reader(
        names=[pair.name for pair in members],
        keys=(
            np.array([os.fsencode(pair.input) for pair in members]),
            np.array([os.fsencode(pair.output) for pair in members]),
        ),
        load=load,
        explain=explain,
    )


def _iterate(dataset: Any, reader: Reader) -> Iterator[Any]:
    tf = tensorflow()
    try:
        yield from dataset.as_numpy_iterator()
    except tf.errors.OpError as error:
        raise reader.explain(error) from None


def train_batches(
    reader: Reader,
    *,
    image_size: int,
    batch_size: int,
    seed: int,
    start_step: int,
    total_steps: int,
    augment: bool,
    process: tuple[int, int] = (0, 1),
    bad: bad_pairs.Bad | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """Yields the training batches of each step, the same for the same seed.

    Args:
      reader: reads the training pairs.
      image_size: side of the crops.
      batch_size: over all processes.
      seed: of order, crops and flips.
      start_step: the first step; a resumed run begins where it stopped.
      total_steps: the step after the last.
      augment: whether to flip.
      process: (number of this process, number of processes); each reads its own
        slice of every batch.
      bad: pairs that cannot be read are added to it, and replaced; None: they are
        errors.

    Yields:
      {"input", "output"}: uint8 (batch / processes, size, size, 3).

    Raises:
      InputError: naming what is unreadable, too small or of another size than its
        partner.
    """
    tf = tensorflow()
    share = batch_size // process[1]
    rows = slice(process[0] * share, (process[0] + 1) * share)
    types = [key.dtype for key in reader.keys]

    def draws(step: int) -> sampling.Draws:
        drawn = sampling.batch_draws(
            seed=seed,
            step=int(step),
            count=len(reader.names),
            batch_size=batch_size,
            augment=augment,
        )
        mine = sampling.Draws(*(part[rows] for part in drawn))
        if not bad:
            return mine
        count = len(reader.names)
        good = [bad_pairs.next_good(int(i), count, bad) for i in mine.index]
        return mine._replace(index=np.array(good, np.int32))

    def draw(step: int) -> tuple[np.ndarray, ...]:
        drawn = draws(step)
        keys = (key[drawn.index] for key in reader.keys)
        return drawn.offset, drawn.flip, *keys

    # Not `from_generator`: it sets M_TRIM_THRESHOLD for the whole process, which
    # then returns freed memory at once and faults it in again at every step.
    def draw_in_graph(step: Any) -> tuple:
        drawn = tf.numpy_function(
            draw, [step], [tf.float32, tf.bool, *map(tf.as_dtype, types)]
        )
        shapes = [(share, 2), (share, 2), *((share,) for _ in types)]
        return tuple(map(tf.ensure_shape, drawn, shapes))

    def load(offset: Any, flip: Any, *keys: Any) -> dict:
        degraded, target, what = reader.load(*keys)
        crops = _crop(what, degraded, target, offset, flip, image_size)
        shape = (image_size, image_size, 3)
        degraded, target = (tf.ensure_shape(crop, shape) for crop in crops)
        return {"input": degraded, "output": target}

    def batches(first: int) -> Iterator[dict[str, np.ndarray]]:
        dataset = tf.data.Dataset.range(first, total_steps).map(draw_in_graph)
        dataset = dataset.unbatch().map(load, num_parallel_calls=tf.data.AUTOTUNE)
        dataset = dataset.batch(share, drop_remainder=True).prefetch(tf.data.AUTOTUNE)
        return dataset.as_numpy_iterator()

    def replace(step: int) -> bool:
        return bad is not None and _find_bad(reader, draws(step).index, bad)

    return _begin_again(batches, start_step, replace, reader)


def _begin_again(
    batches: Callable[[int], Iterator[dict[str, np.ndarray]]],
    step: int,
    replace: Callable[[int], bool],
    reader: Reader,
) -> Iterator[dict[str, np.ndarray]]:
    """Yields batches; where one cannot be read, goes on from it with others.

    Args:
      batches: gives those from a step on.
      step: the first.
      replace: returns whether bad pairs of a step were found, so that the next
        reading passes over them.
      reader: explains an error.
    """
    tf = tensorflow()
    while True:
        try:
            for batch in batches(step):
                yield batch
                step += 1
            return
        except tf.errors.OpError as error:
            if not replace(step):
                raise reader.explain(error) from None


def _find_bad(reader: Reader, indices: np.ndarray, bad: bad_pairs.Bad) -> bool:
    """Adds those of some pairs that cannot be read; returns whether there are any."""
    tf = tensorflow()
    before = len(bad)
    for index in sorted(set(indices.tolist())):
        try:
            reader.load(*(tf.constant(key[index]) for key in reader.keys))
        except (tf.errors.OpError, errors.InputError) as error:
            bad_pairs.add(bad, index, reader.names, _reason(error))
    return len(bad) > before


def _reason(error: Exception) -> str:
    """Returns in a line why a pair could not be read, without TensorFlow's marks."""
    refusal = assertion(error)
    text = str(refusal) if refusal else getattr(error, "message", str(error))
    text = re.sub(r"\{\{.*?\}\}|\[Op:.*?\]", "", text).strip()
    return text.split("\n")[0][:200]


def evaluation_batches(reader: Reader, *, batch_size: int) -> Iterator[dict[str, Any]]:
    """Yields whole images, every pair once, in batches of one size each.

    The last batch of each size is padded with zeros so that its shape is that
    of the others; `mask` distinguishes the padding from the images.

    Args:
      reader: reads the pairs to evaluate.
      batch_size: at most; large images come in smaller batches.

    Yields:
      {"input", "output"}: uint8 (batch, height, width, 3); "mask": bool
      (batch,); "name": list of the names that are not padding.

    Raises:
      InputError: naming what is unreadable, smaller than SSIM's window or of
        another size than its partner.
    """
    tf = tensorflow()
    dataset = tf.data.Dataset.from_tensor_slices(reader.keys)
    dataset = dataset.map(reader.load, num_parallel_calls=tf.data.AUTOTUNE)
    images = _iterate(dataset.prefetch(tf.data.AUTOTUNE), reader)
    waiting: dict[tuple[int, int], list[tuple]] = {}
    filled = set()
    for name, (degraded, target, what) in zip(reader.names, images, strict=True):
        shape = degraded.shape[:2]
        if min(shape) < metrics.WINDOW:
            raise errors.InputError(
                f"{os.fsdecode(what)}: smaller than SSIM's window of {metrics.WINDOW}×"
                f"{metrics.WINDOW} pixels; remove the pair"
            )
        group = waiting.setdefault(shape, [])
        group.append((name, degraded, target))
        size = min(batch_size, max(1, _EVALUATION_PIXELS // (shape[0] * shape[1])))
        if len(group) == size:
            filled.add(shape)
            yield _batch(waiting.pop(shape), size)
    for shape, group in waiting.items():
        size = min(batch_size, max(1, _EVALUATION_PIXELS // (shape[0] * shape[1])))
        yield _batch(group, size if shape in filled else len(group))


def _batch(group: Sequence[tuple], size: int) -> dict[str, Any]:
    """Stacks (name, input, target) to a batch padded to `size` rows."""
    names, degraded, target = zip(*group, strict=True)
    stacked = {"input": np.stack(degraded), "output": np.stack(target)}
    return arrays.pad_batch(stacked, size) | {"name": list(names)}
