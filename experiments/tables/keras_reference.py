"""The seed report's program as the report describes it, in Keras.

    python -m experiments.tables.keras_reference

The same two networks, Adam with Keras's defaults, mean squared error, `fit` on tf.data.
The tables compare our results with it. The command trains the Keras model and ours in
lockstep, from the same weights on the same batches, and prints how the losses differ.
"""

import dataclasses
import json
import os
import pathlib
import time
from collections.abc import Sequence
from typing import Any

# Before TensorFlow is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from etils import epy

from experiments.tables import runs
from restoration.base import cli, config, files
from restoration.data import arrays, sampling
from restoration.devices import backend
from restoration.training import train_config

with epy.lazy_imports():
    import jax
    import keras
    import tensorflow as tf

    from restoration import models
    from restoration.evaluation import metrics
    from restoration.models import apply
    from restoration.training import losses, optim, step

# Channels of the hidden convolutions of each autoencoder.
WIDTHS = {
    "basic": ((32, 32, 32, 32),),
    "advanced": ((32, 64, 64, 32), (64, 128, 128, 64)),
}

_LAYERS = ("conv_1", "conv_2", "upconv_1", "upconv_2", "conv_3")


@dataclasses.dataclass(frozen=True)
class LockstepOptions:
    """Options of `python -m experiments.tables.keras_reference`."""

    model: str = config.option("basic", help="network", choices=tuple(WIDTHS))
    steps: int = config.option(50, help="number of training steps", minimum=1)
    batch_size: int = config.option(8, help="pairs per step", minimum=1)
    image_size: int = config.option(16, help="side of the pairs, pixels", minimum=16)
    seed: int = config.option(0, help="seed of weights and batches", minimum=0)
    double: bool = config.option(
        False, help="compute in float64, to rule out rounding as a cause"
    )

    def __post_init__(self):
        """Checks the limits and choices."""
        config.check(self)


@dataclasses.dataclass(frozen=True)
class Fit:
    """The result of a training run in Keras.

    Attributes:
      history: loss and psnr of train and validation, by epoch.
      scores: mse, psnr and ssim of each split, means over its images.
      seconds: wall time of the fit, without building and measuring.
    """

    history: list[dict[str, float]]
    scores: dict[str, dict[str, float]]
    seconds: float


def build(name: str) -> "keras.Model":
    """Returns a network of the report with Keras's initial weights."""
    image = x = keras.Input((None, None, 3))
    for first, second, third, fourth in WIDTHS[name]:
        options = {"padding": "same", "activation": "relu"}
        x = keras.layers.Conv2D(first, 3, **options)(x)
        x = keras.layers.MaxPooling2D(2)(x)
        x = keras.layers.Conv2D(second, 3, **options)(x)
        x = keras.layers.MaxPooling2D(2)(x)
        x = keras.layers.Conv2DTranspose(third, 3, strides=2, **options)(x)
        x = keras.layers.Conv2DTranspose(fourth, 3, strides=2, **options)(x)
        x = keras.layers.Conv2D(3, 3, padding="same", activation="sigmoid")(x)
    return keras.Model(image, x)


def set_weights(reference: "keras.Model", parameters: Any) -> None:
    """Copies our parameters into the Keras model."""
    stages = parameters["params"]
    ours = [stages[stage][layer] for stage in sorted(stages) for layer in _LAYERS]
    theirs = [layer for layer in reference.layers if layer.weights]
    for weights, layer in zip(ours, theirs, strict=True):
        kernel = np.asarray(weights["kernel"])
        if isinstance(layer, keras.layers.Conv2DTranspose):
            kernel = kernel.transpose(0, 1, 3, 2)
        layer.set_weights([kernel, np.asarray(weights["bias"])])


def _compile(reference: "keras.Model") -> None:
    """Sets the report's optimizer and loss, and PSNR as a metric for the curves."""

    def psnr(target: Any, restored: Any) -> Any:
        return tf.image.psnr(target, restored, max_val=1.0)

    reference.compile(optimizer=keras.optimizers.Adam(), loss="mse", metrics=[psnr])


def _dataset(
    members: arrays.PairArrays, batch_size: int, *, shuffle: bool
) -> "tf.data.Dataset":
    """Returns float batches (input, output); reshuffled each epoch, or in order."""
    found = tf.data.Dataset.from_tensor_slices(tuple(map(np.asarray, members)))
    if shuffle:
        found = found.shuffle(len(members.input))
    scale = lambda image: tf.cast(image, tf.float32) / 255  # noqa: E731
    return (
        found.batch(batch_size)
        .map(lambda degraded, target: (scale(degraded), scale(target)))
        .prefetch(tf.data.AUTOTUNE)
    )


def score(
    reference: "keras.Model", members: arrays.PairArrays, batch_size: int, context: int
) -> dict[str, float]:
    """Returns mean mse, psnr and ssim of restored images, measured as ours are.

    Images are padded by reflection, as for our models. Keras's zero padding costs half
    a decibel at 32×32 pixels.
    """
    values: list[dict[str, Any]] = []
    for degraded, target in _dataset(members, batch_size, shuffle=False):
        edges = ((0, 0), (context, context), (context, context), (0, 0))
        seen = reference(np.pad(degraded.numpy(), edges, mode="symmetric")).numpy()
        inner = seen[:, context:, context:][:, : degraded.shape[1], : degraded.shape[2]]
        restored = np.clip(inner, 0, 1)
        values.append(metrics.all_metrics(restored, target.numpy()))
    return {
        name: float(np.mean(np.concatenate([np.asarray(v[name]) for v in values])))
        for name in values[0]
    }


def fit(
    name: str,
    data: dict[str, arrays.PairArrays],
    *,
    epochs: int,
    batch_size: int,
    seed: int,
) -> Fit:
    """Trains a network in Keras as the report did.

    Args:
      name: "basic" or "advanced".
      data: pairs of "train", "validation" and further splits that are only measured.
      epochs: passes over the training pairs.
      batch_size: pairs per step.
      seed: of weights and order.

    Returns:
      Curves, scores of every split, and the time.
    """
    keras.utils.set_random_seed(seed)
    reference = build(name)
    _compile(reference)
    train = _dataset(data["train"], batch_size, shuffle=True)
    validation = _dataset(data["validation"], batch_size, shuffle=False)
    started = time.monotonic()
    logged = reference.fit(train, validation_data=validation, epochs=epochs, verbose=0)
    seconds = time.monotonic() - started
    history = [
        {key: float(values[epoch]) for key, values in logged.history.items()}
        for epoch in range(epochs)
    ]
    context = apply.margin(models.get_model(name))
    scores = {
        split: score(reference, pairs, batch_size, context)
        for split, pairs in data.items()
    }
    return Fit(history, scores, seconds)


def result(
    run: runs.Run, data: dict[str, arrays.PairArrays], workdir: pathlib.Path
) -> dict[str, Any]:
    """Trains a network in Keras by the report's recipe, or reads a finished result.

    Args:
      run: only model, epochs, batch size and seed are used.
      data: pairs of "train", "validation" and further splits that are only measured.
      workdir: the run's folder; an interrupted fit starts anew.

    Returns:
      "scores", "history" and "seconds" of `Fit`.
    """
    path = workdir / f"twin_{run.epochs}.json"
    if path.is_file():
        return json.loads(path.read_text(encoding="utf-8"))
    fitted = fit(
        run.model, data, epochs=run.epochs, batch_size=run.batch_size, seed=run.seed
    )
    found = {
        "scores": fitted.scores,
        "history": [
            {name: float(f"{value:.6g}") for name, value in epoch.items()}
            for epoch in fitted.history
        ],
        "seconds": round(fitted.seconds, 2),
    }
    files.write_text(path, json.dumps(found, indent=1) + "\n")
    return found


def _double(tree: Any) -> Any:
    """Converts the float32 arrays of a tree to float64."""
    return jax.tree.map(
        lambda leaf: (
            leaf.astype(jax.numpy.promote_types(leaf.dtype, "float64"))
            if jax.numpy.issubdtype(leaf.dtype, jax.numpy.floating)
            else leaf
        ),
        tree,
    )


def _mean_squares(image: "jax.Array", target: "jax.Array") -> "jax.Array":
    return jax.numpy.mean(jax.numpy.square(image - target), axis=(1, 2, 3))


def lockstep(options: LockstepOptions, members: arrays.PairArrays) -> np.ndarray:
    """Trains the Keras model and ours from the same weights on the same batches.

    Args:
      options: network, steps, batch size, seed and precision.
      members: training pairs, `options.image_size` or larger.

    Returns:
      float64 (steps, 2), our loss and Keras's before each step.
    """
    before = keras.config.floatx(), keras.config.dtype_policy()
    precision = "float64" if options.double else "float32"
    # Layers use the policy, which follows floatx only until it is first read.
    keras.config.set_floatx(precision)
    keras.config.set_dtype_policy(precision)
    try:
        with jax.enable_x64(options.double):
            return _lockstep(options, members)
    finally:
        keras.config.set_floatx(before[0])
        keras.config.set_dtype_policy(before[1])


def _lockstep(options: LockstepOptions, members: arrays.PairArrays) -> np.ndarray:
    run = train_config.TrainConfig(data_dir="", workdir="", model=options.model)
    model = models.get_model(options.model)
    optimizer = optim.make_optimizer(run, options.steps)
    state = step.init_state(model, optimizer, jax.random.key(options.seed), ema=False)
    if options.double:
        state = _double(state)
    reference = build(options.model)
    set_weights(reference, state.parameters)
    _compile(reference)
    if options.double:
        # Keras rounds a decay given as a number to float32 in one of its uses.
        reference.optimizer.beta_1 = np.array(reference.optimizer.beta_1)
        reference.optimizer.beta_2 = np.array(reference.optimizer.beta_2)
    # Our own loss is always float32.
    loss = _mean_squares if options.double else losses.make_loss("mse")
    objective = step.restoring(loss)
    train_step = jax.jit(step.make_train_step(model, optimizer, objective))
    seen: list[Sequence[float]] = []
    for number in range(options.steps):
        draws = sampling.batch_draws(
            seed=options.seed,
            step=number,
            count=len(members.input),
            batch_size=options.batch_size,
            augment=False,
        )
        with jax.enable_x64(False):  # the crops' indices are 32-bit
            batch = arrays.take_crops(members, draws, options.image_size)
        degraded, target = (
            np.asarray(step.to_float(side), keras.config.floatx())
            for side in batch.values()
        )
        # Both get floats, since a compiled division by 255 rounds differently.
        state, values = train_step(state, {"input": degraded, "output": target})
        theirs = reference.train_on_batch(degraded, target, return_dict=True)["loss"]
        reference.reset_metrics()  # otherwise losses are means over batches
        seen.append((float(values["loss"]), float(theirs)))
    return np.array(seen)


def main(options: LockstepOptions) -> None:
    """Entry point."""
    from experiments.tables import standin

    backend.keep_freed_memory()
    drawn = standin.prepare(
        standin.StandinOptions(pairs=100, image_size=options.image_size)
    )
    seen = lockstep(options, standin.draw(drawn, drawn.splits["train"]))
    apart = np.abs(seen[:, 0] / seen[:, 1] - 1)
    for number, (ours, theirs) in enumerate(seen):
        print(f"{number:4d}  {ours:.7f}  {theirs:.7f}  {apart[number]:.1e}")
    print(
        f"losses differ by {apart[:10].max():.1e} in 10 steps, {apart.max():.1e} in all"
    )


if __name__ == "__main__":
    cli.run(main, LockstepOptions)
