"""Does a denoiser transfer to film damage, and when does it pay?

    python -m experiments.transfer --data_dir CLEAN --denoiser dncnn_color_blind.mat

The seed report's open question. Networks with different initial weights are trained on
the same stand-in pairs (`experiments.tables.standin`) for the same number of steps: a
published denoiser; our own network, pretrained to remove Gaussian noise or blur;
EfficientNetB0's features; and each of these networks from scratch. With 1, 10 and 100 %
of the pairs, and several seeds. Pretraining uses the clean images of all training
pairs, since clean images are usually available; its steps are not part of the budget.

Writes transfer.json and transfer.svg. A finished run is not repeated, and an
interrupted one continues.
"""

import dataclasses
import hashlib
import json
import pathlib
import shutil
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from etils import epy

from experiments.tables import runs, standin
from experiments.transfer import fitting, transfer_report
from restoration.base import config, errors, files
from restoration.data import pairs
from restoration.devices import backend

with epy.lazy_imports():
    import jax

    from experiments.transfer import denoisers, efficientnet, keras_weights
    from restoration import models
    from restoration.data import arrays
    from restoration.evaluation import metrics

_FOLDER = pathlib.Path(__file__).resolve().parents[1]

# Sources that determine the numbers, besides those of `runs.code_version`.
_SOURCES = (
    "experiments/transfer/fitting.py",
    "experiments/transfer/transfer.py",
    "experiments/transfer/denoisers.py",
    "experiments/transfer/keras_weights.py",
)

FRACTIONS = (0.01, 0.1, 1.0)

# Number of degraded images on which random encoders are calibrated.
_CALIBRATION = 64


@dataclasses.dataclass(frozen=True)
class Arm:
    """A network with one kind of initial weights.

    Attributes:
      network: "dncnn", "nafnet_s" or "efficientnet".
      start: "scratch", "published", "denoising", "deblurring", "imagenet" or
        "frozen" (an EfficientNet whose encoder is not trained).
    """

    network: str
    start: str

    @property
    def name(self) -> str:
        """Such as "nafnet_s_denoising"."""
        return f"{self.network}_{self.start}"


ARMS = (
    Arm("dncnn", "scratch"),
    Arm("dncnn", "published"),
    Arm("nafnet_s", "scratch"),
    Arm("nafnet_s", "denoising"),
    Arm("nafnet_s", "deblurring"),
    Arm("efficientnet", "scratch"),
    Arm("efficientnet", "imagenet"),
    Arm("efficientnet", "frozen"),
)

# The batches of pretraining.
_PRETRAINING = {
    "denoising": fitting.noisy_crops,
    "deblurring": fitting.blurred_crops,
}


@dataclasses.dataclass(frozen=True)
class Scale:
    """The size of the experiment.

    Attributes:
      pairs: of all splits.
      measured: pairs of validation, and of test, at most.
      pretraining_steps: of `denoising` and `deblurring`.
      budget: of all trainings; pretraining has another number of steps.
    """

    pairs: int
    measured: int
    pretraining_steps: int
    budget: fitting.Budget


SCALES = {
    # One large GPU.
    "full": Scale(
        pairs=standin.PAIRS,
        measured=512,
        pretraining_steps=20_000,
        budget=fitting.Budget(
            steps=5_000, batch_size=32, image_size=96, ema_decay=0.999
        ),
    ),
    # One CPU core for about an hour.
    "cpu": Scale(
        pairs=1_280,
        measured=64,
        pretraining_steps=1_500,
        budget=fitting.Budget(
            steps=250, batch_size=4, image_size=48, ema_decay=0.97, points=4
        ),
    ),
    # To try the command out.
    "quick": Scale(
        pairs=1_000,
        measured=40,
        pretraining_steps=40,
        budget=fitting.Budget(
            steps=20, batch_size=4, image_size=32, ema_decay=0.9, points=4
        ),
    ),
}

_NETWORKS = tuple(dict.fromkeys(arm.network for arm in ARMS))


@dataclasses.dataclass(frozen=True)
class TransferOptions:
    """Options of `python -m experiments.transfer`."""

    data_dir: str = config.option(
        "", help="folder of clean images; default: scikit-image's photographs"
    )
    denoiser: str = config.option(
        "",
        help="weights of the color DnCNN, .mat or .safetensors; default: left out",
    )
    imagenet: str = config.option(
        "", help="Keras's .h5 of EfficientNetB0; default: random weights"
    )
    networks: tuple[str, ...] = config.option(
        (), help=f"of {', '.join(_NETWORKS)}, repeatable; default: all"
    )
    scale: str = config.option(
        "full",
        help="number and size of the pairs, and steps: full needs a large GPU, cpu "
        "an hour, quick minutes",
        choices=tuple(SCALES),
    )
    steps: int = config.option(0, help="steps per training; 0: by scale", minimum=0)
    learning_rate: float = config.option(
        0.0, help="peak learning rate; 0: by scale", minimum=0.0
    )
    seeds: int = config.option(3, help="runs of each cell, seeds 0, 1, ...", minimum=2)
    input_psnr: float = config.option(28.0, help="mean PSNR of the degraded images, dB")
    results: str = config.option(
        "", help="folder of the results; default: experiments/results (/quick)"
    )
    workdir: str = config.option("build/transfer", help="folder of unfinished runs")

    def __post_init__(self):
        """Checks limits and choices."""
        config.check(self)
        for name in self.networks:
            if name not in _NETWORKS:
                raise errors.InputError(
                    f"--networks={name}: choose one of {', '.join(_NETWORKS)}"
                )


def scale_of(options: TransferOptions) -> Scale:
    """Returns the size of the experiment with these options."""
    scale = SCALES[options.scale]
    given = {"steps": options.steps, "learning_rate": options.learning_rate}
    changed = {name: value for name, value in given.items() if value}
    budget = dataclasses.replace(scale.budget, **changed)
    return dataclasses.replace(scale, budget=budget)


def arms_of(options: TransferOptions) -> tuple[list[Arm], dict[str, str]]:
    """Returns the arms that can be run.

    Args:
      options: with the files of weights.

    Returns:
      The arms, and for the names of the others the reasons.
    """
    left_out = {
        arm.name: "another network was asked for, by --networks"
        for arm in ARMS
        if options.networks and arm.network not in options.networks
    }
    if not options.denoiser:
        why = "no weights of a denoiser: give --denoiser"
        left_out.setdefault("dncnn_published", why)
    if not options.imagenet:
        why = "no weights of ImageNet: give --imagenet"
        left_out.setdefault("efficientnet_imagenet", why)
    return [arm for arm in ARMS if arm.name not in left_out], left_out


def build(arm: Arm, options: TransferOptions) -> Any:
    """Returns the network of an arm."""
    if arm.network != "efficientnet":
        return models.get_model(arm.network)
    return efficientnet.EfficientNet(
        imagenet=_has_imagenet(arm, options), frozen=arm.start == "frozen"
    )


def _has_imagenet(arm: Arm, options: TransferOptions) -> bool:
    return bool(options.imagenet) and arm.start in ("imagenet", "frozen")


@dataclasses.dataclass(frozen=True)
class Data:
    """The pairs.

    Attributes:
      train: by fraction.
      validation: the same for all runs.
      test: the same for all runs.
      card: the data card.
    """

    train: "Mapping[float, arrays.PairArrays]"
    validation: "arrays.PairArrays"
    test: "arrays.PairArrays"
    card: Mapping[str, Any]


def _standin(options: TransferOptions) -> standin.StandinOptions:
    scale = scale_of(options)
    return standin.StandinOptions(
        data_dir=options.data_dir,
        pairs=scale.pairs,
        image_size=scale.budget.image_size,
        input_psnr=options.input_psnr,
    )


def make_data(options: TransferOptions) -> Data:
    """Draws the stand-in pairs; a smaller sample is a subset of a larger one.

    Args:
      options: images and scale.

    Returns:
      The pairs.

    Raises:
      InputError: if an image cannot be used.
    """
    drawn, measured = standin.prepare(_standin(options)), scale_of(options).measured
    whole = standin.draw(drawn, drawn.splits["train"])
    train = {}
    for fraction in FRACTIONS:
        members = set(pairs.sample(drawn.splits, fraction, seed=0)["train"])
        rows = np.array(
            [n for n, p in enumerate(drawn.splits["train"]) if p in members]
        )
        train[fraction] = arrays.PairArrays(*(side[rows] for side in whole))
    validation, test = (
        standin.draw(drawn, drawn.splits[split][:measured])
        for split in ("validation", "test")
    )
    return Data(train, validation, test, standin.card(drawn))


def _measure(model: Any, data: Data, batch_size: int) -> Callable[[Any], float]:
    def psnr(parameters: Any) -> float:
        means = fitting.score(model, parameters, data.validation, batch_size)
        return round(means["restored"]["psnr"], 4)

    return psnr


def initial_weights(
    arm: Arm, seed: int, data: Data, options: TransferOptions, workdir: pathlib.Path
) -> Any:
    """Returns the initial weights of an arm, after pretraining if it needs that.

    Args:
      arm: network and start.
      seed: of random weights, and of the batches of pretraining.
      data: the pairs.
      options: with the files of weights, and the scale.
      workdir: folder of all runs.

    Returns:
      Parameters of `build(arm, options)`.

    Raises:
      InputError: if weights cannot be read or are of another network.
    """
    model, scale = build(arm, options), scale_of(options)
    if arm.start == "published":
        return read_denoiser(options.denoiser)
    side = scale.budget.image_size
    shape = (1, side, side, 3)
    fresh = jax.jit(model.init)(jax.random.key(seed), np.zeros(shape, np.float32))
    if _has_imagenet(arm, options):
        encoder = keras_weights.load_efficientnet(options.imagenet)
        return efficientnet.with_encoder(fresh, encoder)
    if arm.network == "efficientnet":
        degraded = data.train[1.0].input[:_CALIBRATION].astype(np.float32) / 255
        return efficientnet.calibrate(model, fresh, degraded)
    if arm.start in _PRETRAINING:
        print(f"{arm.name}, seed {seed}: pretraining", flush=True)
        return fitting.fit(
            model,
            fresh,
            _PRETRAINING[arm.start],
            data.train[1.0],
            dataclasses.replace(scale.budget, steps=scale.pretraining_steps),
            seed=seed + 1_000_000,  # other crops than in training
            workdir=workdir / f"before_{arm.name}_{seed}",
            measure=_measure(model, data, scale.budget.batch_size),
        ).parameters
    return fresh


def read_denoiser(path: str) -> Any:
    """Reads the color DnCNN of 20 layers.

    Args:
      path: its weights.

    Returns:
      Parameters of the model "dncnn".

    Raises:
      InputError: if the file cannot be read or is another denoiser.
    """
    model, parameters = denoisers.load(path)
    wanted = models.get_model("dncnn")
    shapes = jax.tree.map(np.shape, parameters)
    same = shapes == jax.tree.map(np.shape, models.abstract_parameters(wanted))
    if model != wanted or not same:
        raise errors.InputError(
            f"--denoiser={path}: not the color DnCNN of 20 layers; give that one"
        )
    return parameters


def run(
    arm: Arm,
    fraction: float,
    seed: int,
    data: Data,
    options: TransferOptions,
    workdir: pathlib.Path,
) -> dict[str, Any]:
    """Does or continues one run, or reads its result.

    Args:
      arm: network and start.
      fraction: of the pairs, one of `FRACTIONS`.
      seed: of weights and batches.
      data: the pairs.
      options: with the files of weights, and the scale.
      workdir: folder of all runs.

    Returns:
      "arm", "fraction", "seed"; "curve", (step, validation PSNR); "test", means of
      mse, psnr and ssim of degraded images ("input"), and of restored ones before
      ("start") and after ("end") training; "seconds".
    """
    folder = workdir / f"{arm.name}_{fraction:g}_{seed}"
    path = folder / "result.json"
    if path.is_file():
        return json.loads(path.read_text(encoding="utf-8"))
    print(folder.name, flush=True)
    model, budget = build(arm, options), scale_of(options).budget
    initial = initial_weights(arm, seed, data, options, workdir)
    started = time.monotonic()
    fitted = fitting.fit(
        model,
        initial,
        fitting.crops,
        data.train[fraction],
        budget,
        seed=seed,
        workdir=folder,
        measure=_measure(model, data, budget.batch_size),
    )
    seconds = time.monotonic() - started
    before, after = (
        fitting.score(model, parameters, data.test, budget.batch_size)
        for parameters in (initial, fitted.parameters)
    )
    found = {
        "arm": arm.name,
        "fraction": fraction,
        "seed": seed,
        "curve": fitted.curve,
        "test": {
            "input": before["input"],
            "start": before["restored"],
            "end": after["restored"],
        },
        "seconds": round(seconds, 2),
    }
    shutil.rmtree(folder / "checkpoints")
    files.write_text(path, json.dumps(found) + "\n")
    return json.loads(json.dumps(found))


def _sha256(path: str) -> str:
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest() if path else ""


def _code() -> str:
    """Returns a hash of the source files that determine the numbers."""
    digest = hashlib.sha256(runs.code_version().encode())
    for source in _SOURCES:
        digest.update((_FOLDER.parent / source).read_bytes())
    return digest.hexdigest()[:12]


def _identity(options: TransferOptions) -> dict[str, Any]:
    """Returns all that determines the numbers."""
    values = {
        "standin": standin.identity(_standin(options)),
        "scale": dataclasses.asdict(scale_of(options)),
        "fractions": FRACTIONS,
        "arms": [arm.name for arm in arms_of(options)[0]],
        "seeds": options.seeds,
        "denoiser_sha256": _sha256(options.denoiser),
        "imagenet_sha256": _sha256(options.imagenet),
        "code": _code(),
    }
    return json.loads(json.dumps(values))


def results_folder(options: TransferOptions) -> pathlib.Path:
    """Returns the folder of the results."""
    default = _FOLDER / "results" / ("quick" if options.scale == "quick" else "")
    return pathlib.Path(options.results or default)


def transfer(options: TransferOptions) -> dict[str, Any]:
    """Does all unfinished runs, or reads the results.

    Args:
      options: from the command line.

    Returns:
      The content of `transfer.json`.

    Raises:
      InputError: if images or weights cannot be used.
    """
    for path in (options.denoiser, options.imagenet):
        if path and not pathlib.Path(path).is_file():
            raise errors.InputError(f"{path}: no such file; check the path")
    identity = _identity(options)
    path = results_folder(options) / "transfer.json"
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["identity"] == identity:
            return found
    # A run with another configuration or code must not be continued.
    name = f"{pairs.hash_fraction(json.dumps(identity)):.12f}"[2:]
    workdir = pathlib.Path(options.workdir) / name
    runs.keep_compiled(pathlib.Path(options.workdir) / "compiled")
    data, (arms, left_out) = make_data(options), arms_of(options)
    done = [
        run(arm, fraction, seed, data, options, workdir)
        for seed in range(options.seeds)
        for arm in arms
        for fraction in FRACTIONS
    ]
    cells = transfer_report.cells_of(done)
    found = {
        "scale": options.scale,
        "identity": identity,
        "protocol": metrics.PROTOCOL,
        "measured_on": f"{len(data.test.input)} test pairs, the same for all runs, "
        "each whole; averaged weights after the last step",
        "data": data.card,
        "counts": {f"{fraction:g}": len(p.input) for fraction, p in data.train.items()},
        "left_out": left_out,
        "encoder": "Keras' ImageNet weights"
        if options.imagenet
        else "random weights, no file of ImageNet's was given",
        "input": done[0]["test"]["input"],
        "cells": cells,
        "gains": transfer_report.gains_of(cells),
        "runs": done,
        "machine": runs.machine(),
    }
    files.write_text(path, json.dumps(found, indent=1) + "\n")
    shutil.rmtree(workdir)
    return json.loads(path.read_text(encoding="utf-8"))


def main(options: TransferOptions) -> None:
    """Entry point."""
    backend.keep_freed_memory()
    found = transfer(options)
    folder = results_folder(options)
    files.write_text(folder / "transfer.svg", transfer_report.to_svg(found))
    print(transfer_report.to_markdown(found))
