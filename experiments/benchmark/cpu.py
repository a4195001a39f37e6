"""Measures training and inference on a CPU, compared with Keras.

    python -m experiments.benchmark cpu

Programs run alternately, several times, each in a process of its own. Keras runs with
its defaults and with TensorFlow's oneDNN kernels; the ratio is to the faster of both.
With `--other_python` ours runs in another Python too, which may have another JAX.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tqdm
from etils import epy

from experiments.benchmark import interleaved
from restoration.devices import backend
from restoration.training import train_config

with epy.lazy_imports():
    import jax

    from experiments.tables import keras_reference
    from restoration import models
    from restoration.models import apply
    from restoration.training import losses, optim, step

BATCH = 16

# Model, and side of the square images in pixels.
_CASES = tuple((name, side) for name in ("basic", "advanced") for side in (128, 256))

# The programs and their environment variables.
PROGRAMS: dict[str, dict[str, str]] = {
    "ours": {},
    "keras": {},
    "keras, oneDNN": {"TF_ENABLE_ONEDNN_OPTS": "1"},
}
_ROUNDS, _QUICK_ROUNDS = 3, 1

# Seconds of each measurement, after two calls, the first of which compiles.
_SECONDS, _QUICK_SECONDS = 4.0, 0.5


def _images_per_second(call: Callable[[], Any], seconds: float) -> float:
    call()
    call()
    times = []
    while sum(times) < seconds or len(times) < 3:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return BATCH / statistics.median(times)


def _batch(side: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    shape = (BATCH, side, side, 3)
    return random.random(shape, np.float32), random.random(shape, np.float32)


def _ours(name: str, side: int, seconds: float) -> dict[str, float]:
    backend.keep_freed_memory()
    options = train_config.TrainConfig(
        data_dir="", workdir="", model=name, image_size=side
    )
    model, optimizer = models.get_model(name), optim.make_optimizer(options, 1)
    train_step = step.make_train_step(
        model,
        optimizer,
        step.restoring(losses.make_loss(options.loss)),
        accumulate=backend.microbatches(BATCH, side),
    )
    train = jax.jit(train_step, donate_argnums=0)
    infer = jax.jit(lambda p, x: apply.apply(model, p, x))
    degraded, target = map(jax.numpy.asarray, _batch(side))
    state = [step.init_state(model, optimizer, jax.random.key(0), ema=False)]

    def one_step() -> None:
        state[0], _ = train(state[0], {"input": degraded, "output": target})
        jax.block_until_ready(state[0])

    found = {"train": _images_per_second(one_step, seconds)}
    parameters = state[0].parameters
    found["infer"] = _images_per_second(
        lambda: infer(parameters, degraded).block_until_ready(), seconds
    )
    return found


def _keras(name: str, side: int, seconds: float) -> dict[str, float]:
    reference = keras_reference.build(name)
    reference.compile(optimizer="adam", loss="mse")
    degraded, target = _batch(side)
    return {
        "train": _images_per_second(
            lambda: reference.train_on_batch(degraded, target), seconds
        ),
        "infer": _images_per_second(
            lambda: reference.predict_on_batch(degraded), seconds
        ),
    }


def _run(
    program: str, python: str, name: str, side: int, seconds: float
) -> dict[str, float]:
    """Measures one program in a process of its own."""
    environment = {k: v for k, v in os.environ.items() if "ONEDNN" not in k}
    environment |= {"TF_CPP_MIN_LOG_LEVEL": "3", "JAX_PLATFORMS": "cpu"}
    environment |= {"CUDA_VISIBLE_DEVICES": ""} | PROGRAMS.get(program, {})
    command = [python, "-m", "experiments.benchmark.cpu"]
    command += [program, name, str(side), str(seconds)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(quick: bool, other_python: str = "") -> dict[str, Any]:
    """Measures both models at both sizes.

    Args:
      quick: one short round, as a test.
      other_python: a Python with another JAX, to measure ours in too; "": none.

    Returns:
      `images_per_second` by case and program, medians of the rounds, with all
      rounds; `ratio_to_keras`, ours over the faster Keras, by case; `other_jax`, the
      version of the other Python's JAX, or "".

    Raises:
      InputError: if the other Python has no JAX.
    """
    other_jax = interleaved.jax_version(other_python) if other_python else ""
    pythons = interleaved.pythons(PROGRAMS, other_python)
    rounds = _QUICK_ROUNDS if quick else _ROUNDS
    seconds = _QUICK_SECONDS if quick else _SECONDS
    seen: dict[str, dict[str, list[float]]] = {}
    with tqdm.tqdm(total=rounds * len(_CASES) * len(pythons), unit="run") as bar:
        for _ in range(rounds):
            for name, side in _CASES:
                for program, python in pythons.items():
                    bar.set_description(f"{name} {side}, {program}")
                    found = _run(program, python, name, side, seconds)
                    for what, value in found.items():
                        case = seen.setdefault(f"{name}_{what}_{side}", {})
                        case.setdefault(program, []).append(round(value, 2))
                    bar.update()
    medians = {
        case: {program: statistics.median(values) for program, values in runs.items()}
        for case, runs in seen.items()
    }
    return {
        "batch": BATCH,
        "other_jax": other_jax,
        "ratio_to_keras": {
            case: round(row["ours"] / max(row["keras"], row["keras, oneDNN"]), 3)
            for case, row in medians.items()
        },
        "ratio_to_keras_as_it_comes": {
            case: round(row["ours"] / row["keras"], 3) for case, row in medians.items()
        },
        "images_per_second": medians,
        "rounds": seen,
    }


if __name__ == "__main__":
    program, name, side, seconds = sys.argv[1:]
    run = _keras if program.startswith("keras") else _ours
    print(json.dumps(run(name, int(side), float(seconds))))
