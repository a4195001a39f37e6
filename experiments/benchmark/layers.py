"""Measures single convolutions of the autoencoders, ours and TensorFlow's.

    python -m experiments.benchmark layers

What a step or an inference costs beside `experiments.benchmark cpu` splits so into
convolutions, which each framework takes from a library, and all else. Each program
runs several times, alternately, in a process of its own.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tqdm
from etils import epy

from experiments.benchmark import cpu
from restoration.devices import backend

with epy.lazy_imports():
    import jax
    import tensorflow as tf

    from experiments.tables import keras_reference
    from restoration.models import convolution, layers

# Side of the square images, pixels.
SIDE = 128

_ROUNDS, _QUICK_ROUNDS = 3, 1

# Seconds of each measurement, after two calls, the first of which compiles.
_SECONDS, _QUICK_SECONDS = 1.0, 0.1


class Layer(NamedTuple):
    """A convolution.

    Attributes:
      kind: "conv" of stride 1 or "upconv", which doubles the size.
      side: of the input, pixels.
      inputs: channels.
      outputs: channels.
      first: whether it is the first layer, which needs no input gradient.
    """

    kind: str
    side: int
    inputs: int
    outputs: int
    first: bool


def layers_of(name: str, side: int) -> list[Layer]:
    """Returns the convolutions of `basic` or `advanced` for images of a side."""
    found = []
    for one, two, three, four in keras_reference.WIDTHS[name]:
        found += [
            Layer("conv", side, 3, one, not found),
            Layer("conv", side // 2, one, two, False),
            Layer("upconv", side // 4, two, three, False),
            Layer("upconv", side // 2, three, four, False),
            Layer("conv", side, four, 3, False),
        ]
    return found


def _milliseconds(call: Callable[[], Any], seconds: float) -> float:
    call()
    call()
    times = []
    while sum(times) < seconds or len(times) < 3:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def _arrays(layer: Layer, batch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns input, kernel and the output's gradient."""
    random = np.random.default_rng(0)
    after = layer.side * (2 if layer.kind == "upconv" else 1)
    return (
        random.random((batch, layer.side, layer.side, layer.inputs), np.float32),
        random.random((3, 3, layer.inputs, layer.outputs), np.float32),
        random.random((batch, after, after, layer.outputs), np.float32),
    )


def _ours(layer: Layer, seconds: float) -> dict[str, float]:
    """Measures a layer, in microbatches as in training."""
    count = backend.microbatches(cpu.BATCH, SIDE)
    x, kernel, gradient = _arrays(layer, cpu.BATCH // count)
    convolve = convolution.convolve if layer.kind == "conv" else layers.upconv
    learned = (1,) if layer.first else (0, 1)

    @jax.jit
    def gradients(*given: Any) -> Any:
        return jax.vjp(convolve, *given[:2])[1](given[2])[learned[0] :]

    forward = jax.jit(convolve)
    arguments = [jax.numpy.asarray(value) for value in (x, kernel, gradient)]
    return {
        "forward": count
        * _milliseconds(
            lambda: jax.block_until_ready(forward(*arguments[:2])), seconds
        ),
        "gradients": count
        * _milliseconds(lambda: jax.block_until_ready(gradients(*arguments)), seconds),
    }


def _tensorflow(layer: Layer, seconds: float) -> dict[str, float]:
    """Measures a layer as Keras calls it."""
    x, kernel, gradient = map(tf.constant, _arrays(layer, cpu.BATCH))

    def convolve(x: Any, kernel: Any) -> Any:
        if layer.kind == "conv":
            return tf.nn.conv2d(x, kernel, 1, "SAME")
        turned = tf.transpose(kernel, (0, 1, 3, 2))
        return tf.nn.conv2d_transpose(x, turned, gradient.shape, 2, "SAME")

    @tf.function
    def gradients() -> Any:
        learned = [kernel] if layer.first else [x, kernel]
        with tf.GradientTape() as tape:
            tape.watch(learned)
            result = convolve(x, kernel)
        return tape.gradient(result, learned, gradient)

    forward = tf.function(convolve)
    return {
        "forward": _milliseconds(lambda: forward(x, kernel).numpy(), seconds),
        "gradients": _milliseconds(
            lambda: [value.numpy() for value in gradients()], seconds
        ),
    }


def _run(program: str, name: str, seconds: float) -> list[dict[str, float]]:
    """Measures a model's layers with one program, in a process of its own."""
    environment = {k: v for k, v in os.environ.items() if "ONEDNN" not in k}
    environment |= {"TF_CPP_MIN_LOG_LEVEL": "3", "JAX_PLATFORMS": "cpu"}
    environment |= {"CUDA_VISIBLE_DEVICES": ""} | cpu.PROGRAMS[program]
    command = [sys.executable, "-m", "experiments.benchmark.layers"]
    command += [program, name, str(seconds)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(quick: bool) -> dict[str, Any]:
    """Measures the convolutions of both models.

    Args:
      quick: one short round, as a test.

    Returns:
      For each model the `layers`, with milliseconds per batch `forward` and for the
      `gradients` of input and kernel, medians of the rounds, by program; and the
      `sums`.
    """
    rounds = _QUICK_ROUNDS if quick else _ROUNDS
    seconds = _QUICK_SECONDS if quick else _SECONDS
    programs, names = cpu.PROGRAMS, tuple(keras_reference.WIDTHS)
    seen: dict[tuple[str, str], list[list[dict[str, float]]]] = {}
    with tqdm.tqdm(total=rounds * len(names) * len(programs), unit="run") as bar:
        for _ in range(rounds):
            for name in names:
                for program in programs:
                    row = _run(program, name, seconds)
                    seen.setdefault((name, program), []).append(row)
                    bar.update()
    models: dict[str, Any] = {}
    for name in names:
        rows: list[dict[str, Any]] = []
        for number, layer in enumerate(layers_of(name, SIDE)):
            figures = {
                program: {
                    what: round(
                        statistics.median(
                            run[number][what] for run in seen[name, program]
                        ),
                        3,
                    )
                    for what in ("forward", "gradients")
                }
                for program in programs
            }
            rows.append(layer._asdict() | {"milliseconds": figures})
        sums = {
            program: {
                what: round(sum(row["milliseconds"][program][what] for row in rows), 1)
                for what in ("forward", "gradients")
            }
            for program in programs
        }
        models[name] = {"layers": rows, "sums": sums}
    return {"batch": cpu.BATCH, "side": SIDE, "models": models}


def main(program: str, name: str, seconds: str) -> None:
    """Measures a model's layers with one program, as JSON."""
    if program == "ours":
        backend.keep_freed_memory()
    one = _ours if program == "ours" else _tensorflow
    print(json.dumps([one(layer, float(seconds)) for layer in layers_of(name, SIDE)]))


if __name__ == "__main__":
    main(*sys.argv[1:])
