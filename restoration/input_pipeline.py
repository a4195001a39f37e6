"""tf.data pipelines over the files of paired frames.

TensorFlow is imported when a pipeline is made, so that training on arrays and
restoring do without. What is drawn for a step comes from `sampling`.
"""

import functools
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from restoration import arrays, errors, frames, metrics, pairs, sampling

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")

# Pixels of the images that one evaluation batch holds at most.
_EVALUATION_PIXELS = 16 * 256 * 256


@functools.cache
def _tensorflow() -> Any:
    """Imports TensorFlow, quietly and away from any accelerator."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
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


def _decode(path: Any) -> Any:
    """Decodes a file to uint8 RGB (height, width, 3), within a graph."""
    tf = _tensorflow()
    data = tf.io.read_file(path)

    def bmp() -> Any:
        image = tf.io.decode_bmp(data)
        channels = tf.shape(image)[-1]
        return tf.cond(
            channels < 3,
            lambda: tf.repeat(image[..., :1], 3, -1),
            lambda: image[..., :3],
        )

    def other() -> Any:
        # Despite its name it tells JPEG from PNG by content. The default DCT is
        # a fast approximation; the accurate one is what libvips decodes with.
        return tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")

    image = tf.cond(tf.equal(tf.strings.substr(data, 0, 2), b"BM"), bmp, other)
    return tf.ensure_shape(image, (None, None, 3))


def _decode_pair(input_path: Any, output_path: Any) -> tuple[Any, Any]:
    tf = _tensorflow()
    worn, truth = _decode(input_path), _decode(output_path)
    same = tf.reduce_all(tf.equal(tf.shape(worn), tf.shape(truth)))
    message = tf.strings.join(
        [input_path, " and ", output_path, ": a pair of different sizes; "
         "remove it, or move it away with python -m restoration.clean"]
    )  # fmt: skip
    with tf.control_dependencies([tf.debugging.Assert(same, [message], summarize=1)]):
        return tf.identity(worn), tf.identity(truth)


def _crop(path: Any, images: Any, offset: Any, flip: Any, size: int) -> Any:
    """Cuts the same square from two images stacked as (2, h, w, 3), and flips."""
    tf = _tensorflow()
    room = tf.shape(images)[1:3] - size
    message = tf.strings.join(
        [path, f": smaller than --image_size={size}; choose a smaller --image_size"]
    )
    enough = tf.debugging.Assert(tf.reduce_all(room >= 0), [message], summarize=1)
    with tf.control_dependencies([enough]):
        span = tf.cast(room + 1, tf.float32)
    start = tf.minimum(tf.cast(offset * span, tf.int32), room)
    images = images[:, start[0] : start[0] + size, start[1] : start[1] + size]
    images = tf.cond(flip[0], lambda: images[:, ::-1], lambda: images)
    return tf.cond(flip[1], lambda: images[:, :, ::-1], lambda: images)


def _explain(error: Exception, members: Sequence[pairs.Pair]) -> errors.InputError:
    """Turns an error inside a pipeline into one that names the file."""
    found = re.search(r"assertion failed: \[(.*?)\]", str(error), re.DOTALL)
    if found:
        return errors.InputError(found[1].replace("\\n", " ").strip("'\""))
    for pair in members:
        for path in (pair.input, pair.output):
            try:
                _decode(os.fsencode(path))
            except Exception:
                return errors.InputError(
                    f"{path}: cannot be decoded; move it away with "
                    "python -m restoration.clean"
                )
    return errors.InputError(f"reading the pairs failed: {str(error)[:200]}")


def _iterate(dataset: Any, members: Sequence[pairs.Pair]) -> Iterator[dict]:
    tf = _tensorflow()
    try:
        yield from dataset.as_numpy_iterator()
    except tf.errors.OpError as error:
        raise _explain(error, members) from None


def train_batches(
    members: Sequence[pairs.Pair],
    *,
    image_size: int,
    batch_size: int,
    seed: int,
    start_step: int,
    total_steps: int,
    augment: bool,
    process: tuple[int, int] = (0, 1),
) -> Iterator[dict[str, np.ndarray]]:
    """Yields the training batches of each step, the same for the same seed.

    Args:
      members: the training pairs.
      image_size: side of the crops.
      batch_size: over all processes.
      seed: of order, crops and flips.
      start_step: the first step; a resumed run begins where it stopped.
      total_steps: the step after the last.
      augment: whether to flip.
      process: (number of this process, number of processes); each reads its own
        slice of every batch.

    Yields:
      {"input", "output"}: uint8 (batch / processes, size, size, 3).

    Raises:
      InputError: naming the file that is unreadable, too small or of another
        size than its partner.
    """
    tf = _tensorflow()
    _check_suffixes(members)
    inputs = np.array([os.fsencode(pair.input) for pair in members])
    outputs = np.array([os.fsencode(pair.output) for pair in members])
    share = batch_size // process[1]
    rows = slice(process[0] * share, (process[0] + 1) * share)

    def draws() -> Iterator[tuple]:
        for step in range(start_step, total_steps):
            drawn = sampling.batch_draws(
                seed=seed,
                step=step,
                count=len(members),
                batch_size=batch_size,
                augment=augment,
            )
            index = drawn.index[rows]
            yield inputs[index], outputs[index], drawn.offset[rows], drawn.flip[rows]

    def load(input_path: Any, output_path: Any, offset: Any, flip: Any) -> dict:
        images = tf.stack(_decode_pair(input_path, output_path))
        images = _crop(input_path, images, offset, flip, image_size)
        images = tf.ensure_shape(images, (2, image_size, image_size, 3))
        return {"input": images[0], "output": images[1]}

    dataset = tf.data.Dataset.from_generator(
        draws,
        output_signature=(
            tf.TensorSpec((share,), tf.string),
            tf.TensorSpec((share,), tf.string),
            tf.TensorSpec((share, 2), tf.float32),
            tf.TensorSpec((share, 2), tf.bool),
        ),
    )
    dataset = dataset.unbatch().map(load, num_parallel_calls=tf.data.AUTOTUNE)
    dataset = dataset.batch(share, drop_remainder=True).prefetch(tf.data.AUTOTUNE)
    return _iterate(dataset, members)


def evaluation_batches(
    members: Sequence[pairs.Pair], *, batch_size: int
) -> Iterator[dict[str, Any]]:
    """Yields whole images, every pair once, in batches of one size each.

    The last batch of each size is padded with zeros so that its shape is that
    of the others; `mask` tells the padding from the images.

    Args:
      members: the pairs to evaluate.
      batch_size: at most; large images come in smaller batches.

    Yields:
      {"input", "output"}: uint8 (batch, height, width, 3); "mask": bool
      (batch,); "name": list of the names that are not padding.

    Raises:
      InputError: naming the file that is unreadable or of another size than its
        partner.
    """
    tf = _tensorflow()
    _check_suffixes(members)
    sizes: dict[tuple[int, int], list[pairs.Pair]] = {}
    for pair in members:
        shape = frames.size(pair.input)
        if min(shape) < metrics.WINDOW:
            raise errors.InputError(
                f"{pair.input}: smaller than SSIM's window of {metrics.WINDOW}×"
                f"{metrics.WINDOW} pixels; remove the pair"
            )
        sizes.setdefault(shape, []).append(pair)
    for (height, width), group in sizes.items():
        fitting = max(1, _EVALUATION_PIXELS // (height * width))
        size = min(batch_size, fitting, len(group))
        dataset = tf.data.Dataset.from_tensor_slices(
            (
                [os.fsencode(pair.input) for pair in group],
                [os.fsencode(pair.output) for pair in group],
            )
        )
        dataset = dataset.map(_decode_pair, num_parallel_calls=tf.data.AUTOTUNE)
        dataset = dataset.batch(size).prefetch(tf.data.AUTOTUNE)
        images = _iterate(dataset.map(lambda a, b: {"input": a, "output": b}), group)
        for number, batch in enumerate(images):
            names = [p.name for p in group[number * size : (number + 1) * size]]
            yield arrays.pad_batch(batch, size) | {"name": names}
