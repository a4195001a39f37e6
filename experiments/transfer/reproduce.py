"""Reproduces a published result: color DnCNN (Zhang et al. 2017).

    python -m experiments.transfer.reproduce --weights dncnn.mat --pictures KODAK
    python -m experiments.transfer.reproduce --weights ... --pictures ... --train_on D

The first command measures published denoisers on images with Gaussian noise. The second
also trains DnCNN with our own code and measures it on the same noise. An interrupted
run continues. Writes reproduce.json.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from etils import epy

from experiments.tables import runs, standin
from experiments.transfer import fitting
from restoration.base import cli, config, errors, files
from restoration.data import pairs
from restoration.devices import backend
from restoration.images import frames

with epy.lazy_imports():
    import jax
    import jax.numpy as jnp

    from experiments.transfer import denoisers, ffdnet
    from restoration.evaluation import metrics
    from restoration.models import dncnn

_FOLDER = pathlib.Path(__file__).resolve().parents[1]

# Ours should be at most this much worse than the published weights, dB.
NEAR = 0.3

# Patches of 50×50 for the blind network and batches of 128 are the paper's. Muon with a
# cosine schedule replaces its gradient descent over 150,000 steps.
FULL = fitting.Budget(
    steps=60_000,
    batch_size=128,
    image_size=50,
    learning_rate=1e-2,
    optimizer="muon",
    loss="mse",
    ema_decay=0.999,
    points=60,
)
# Side of the patches for a network of one noise level, as in the paper.
_ONE_NOISE_SIDE = 40

# Weights of a grey image (BT.709, with the digits of scikit-image).
_GREY = (0.2125, 0.7154, 0.0721)

# Number of images measured during training.
_WATCHED = 4

QUICK = dataclasses.replace(FULL, steps=30, batch_size=4, ema_decay=0.9, points=2)


@dataclasses.dataclass(frozen=True)
class ReproduceOptions:
    """Options of `python -m experiments.transfer.reproduce`."""

    pictures: tuple[str, ...] = config.option(
        help="folder of clean images to measure on, repeatable"
    )
    weights: tuple[str, ...] = config.option(
        (), help="published denoiser, .mat or .safetensors, repeatable"
    )
    sigma: float = config.option(
        25.0, help="noise level to measure with, of 255", minimum=0.0, maximum=75.0
    )
    train_on: str = config.option(
        "", help="folder of clean images to train DnCNN on; default: do not train"
    )
    blind: bool = config.option(
        True, help="train with noise of 0 to 55; --noblind: only with --sigma"
    )
    quick: bool = config.option(False, help="train for a few steps, to try it out")
    steps: int = config.option(0, help="training steps; 0: by scale", minimum=0)
    batch_size: int = config.option(0, help="patches per step; 0: by scale", minimum=0)
    ema_decay: float = config.option(
        0.0,
        help="decay of the averaged weights; 0: by scale",
        minimum=0.0,
        maximum=0.99999,
    )
    points: int = config.option(
        0, help="number of measurements and checkpoints; 0: by scale", minimum=0
    )
    seed: int = config.option(0, help="seed of weights, patches and noise", minimum=0)
    results: str = config.option(
        "", help="folder of reproduce.json; default: experiments/results (/quick)"
    )
    workdir: str = config.option("build/reproduce", help="folder of the unfinished run")

    def __post_init__(self):
        """Checks limits."""
        config.check(self)
        if not (self.weights or self.train_on):
            raise errors.InputError("nothing to measure; give --weights or --train_on")


def budget_of(options: ReproduceOptions) -> fitting.Budget:
    """Returns the budget of the training with these options."""
    budget = QUICK if options.quick else FULL
    return dataclasses.replace(
        budget,
        image_size=budget.image_size if options.blind else _ONE_NOISE_SIDE,
        **{
            name: getattr(options, name) or getattr(budget, name)
            for name in ("steps", "batch_size", "ema_decay", "points")
        },
    )


def clean_crops(
    key: "jax.Array", clean: standin.Clean, *, batch_size: int, image_size: int
) -> Any:
    """Cuts squares from clean images of any size; jittable.

    Args:
      key: PRNG key.
      clean: the images; each is equally likely, whatever its size.
      batch_size: number of squares.
      image_size: their side, pixels.

    Returns:
      float32 (batch_size, image_size, image_size, 3) in [0, 1].
    """
    which, where = jax.random.split(key)
    chosen = jax.random.randint(which, (batch_size,), 0, len(clean.offset))
    offset = jax.random.uniform(where, (batch_size, 2))
    size = jnp.stack([clean.height, clean.width], axis=-1)[chosen]
    start = (offset * (size - image_size + 1)).astype(jnp.int32)
    span = jnp.arange(image_size)
    rows = (start[:, :1] + span) * size[:, 1:] + start[:, 1:]
    rows = clean.offset[chosen][:, None] + rows
    squares = clean.pixels[rows[:, :, None] + span]
    return squares.astype(jnp.float32) / 255


def blind_batch(key: "jax.Array", clean: standin.Clean, **sizes: int) -> dict:
    """Draws squares with noise of random levels up to the paper's."""
    cut, noise = jax.random.split(key)
    return fitting.with_any_noise(noise, clean_crops(cut, clean, **sizes))


@dataclasses.dataclass(frozen=True)
class OneNoise:
    """Draws squares with noise of one level.

    Attributes:
      sigma: of 255.
    """

    sigma: float

    def __call__(self, key: "jax.Array", clean: standin.Clean, **sizes: int) -> dict:
        """See `fitting.Draw`."""
        cut, noise = jax.random.split(key)
        squares = clean_crops(cut, clean, **sizes)
        degraded = fitting.with_noise(noise, squares, self.sigma)
        return {"input": degraded, "output": squares}


def is_grey(parameters: Any) -> bool:
    """Returns whether a denoiser takes images of one channel."""
    return parameters["params"]["conv_1"]["kernel"].shape[2] == 1


def psnr_of(
    restore: Callable[[Any], Any],
    folder: str,
    *,
    sigma: float,
    seed: int,
    grey: bool = False,
    limit: int | None = None,
) -> dict[str, float]:
    """Measures a denoiser on the images of a folder.

    Args:
      restore: maps noisy to clean images, float (1, height, width, channels).
      folder: of clean images.
      sigma: noise level, of 255; the noisy image is not clipped, as in the papers.
      seed: of the noise, which is the same for all denoisers.
      grey: whether images are converted to grey first.
      limit: measure only the first images.

    Returns:
      Mean "psnr" of restored images and "input" of noisy ones in dB, both clipped to
      [0, 1]; "pictures", the number of images.

    Raises:
      InputError: if the folder has no images.
    """
    names = list(frames.list_images(folder))[:limit]
    if not names:
        raise errors.InputError(f"{folder}: no images; give a folder of images")
    before, after = [], []
    for number, name in enumerate(names):
        clean = frames.read(pathlib.Path(folder) / name)
        if grey:
            clean = (clean @ np.float32(_GREY))[..., None]
        clean = jnp.asarray(clean, jnp.float32)[None]
        key = jax.random.fold_in(jax.random.key(seed), number)
        noisy = fitting.with_noise(key, clean, sigma)
        for found, image in ((before, noisy), (after, restore(noisy))):
            found.append(float(metrics.psnr(jnp.clip(image, 0, 1), clean)[0]))
    return {
        "psnr": float(np.mean(after)),
        "input": float(np.mean(before)),
        "pictures": len(names),
    }


def _measure_all(
    model: Any, parameters: Any, options: ReproduceOptions
) -> dict[str, dict[str, float]]:
    """Returns the result of `psnr_of` for each folder, by the folder's name."""
    restore = jax.jit(model.apply)
    return {
        pathlib.Path(folder).name: psnr_of(
            lambda noisy: restore(parameters, noisy),
            folder,
            sigma=options.sigma,
            seed=options.seed,
            grey=is_grey(parameters),
        )
        for folder in options.pictures
    }


def measure_published(path: str, options: ReproduceOptions) -> dict[str, Any]:
    """Measures published weights.

    Args:
      path: the file.
      options: noise and images; FFDNet gets the noise level.

    Returns:
      "file", its "sha256", "network", whether it is "grey", and "psnr" by folder, see
      `psnr_of`.

    Raises:
      InputError: if the file or a folder cannot be used.
    """
    layers = denoisers.read(path)
    is_ffdnet = len(layers) == ffdnet.FFDNet.layers
    sigma = options.sigma / 255 if is_ffdnet else None
    model, parameters = denoisers.load(path, sigma=sigma)
    return {
        "file": pathlib.Path(path).name,
        "sha256": hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest(),
        "network": type(model).__name__,
        "grey": is_grey(parameters),
        "psnr": _measure_all(model, parameters, options),
    }


def train_ours(options: ReproduceOptions) -> dict[str, Any]:
    """Trains DnCNN, or continues training, and measures it.

    Args:
      options: images, noise and steps.

    Returns:
      "budget", "blind", "trained_on", "curve" (PSNR on the first images of the first
      folder) and "psnr" by folder.

    Raises:
      InputError: if a folder cannot be used.
    """
    model, budget = dncnn.DnCNN(), budget_of(options)
    sources = standin.find_sources(options.train_on)
    clean = standin.load_clean(sources, budget.image_size)
    draw = blind_batch if options.blind else OneNoise(options.sigma)
    restore = jax.jit(model.apply)

    def measure(parameters: Any) -> float:
        found = psnr_of(
            lambda noisy: restore(parameters, noisy),
            options.pictures[0],
            sigma=options.sigma,
            seed=options.seed,
            limit=_WATCHED,
        )
        return round(found["psnr"], 4)

    side = budget.image_size
    initial = jax.jit(model.init)(
        jax.random.key(options.seed), jnp.zeros((1, side, side, 3))
    )
    # The untrained network predicts no noise.
    last = initial["params"][f"conv_{model.layers}"]
    last["kernel"] = jnp.zeros_like(last["kernel"])
    fitted = fitting.fit(
        model,
        initial,
        draw,
        clean,
        budget,
        seed=options.seed,
        workdir=pathlib.Path(options.workdir) / _name(options, sources),
        measure=measure,
    )
    return {
        "budget": dataclasses.asdict(budget),
        "blind": options.blind,
        "trained_on": f"{len(sources)} pictures",
        "curve": fitted.curve,
        "psnr": _measure_all(model, fitted.parameters, options),
    }


def _name(options: ReproduceOptions, sources: Mapping[str, Any]) -> str:
    """Returns the name of a run's folder, by images, options and code."""
    values = [
        dataclasses.asdict(budget_of(options)),
        options.blind or options.sigma,
        options.seed,
        sorted(sources),
        options.pictures[0],
        runs.code_version(),
    ]
    return f"dncnn_{pairs.hash_fraction(json.dumps(values)):.12f}".replace("0.", "")


def reproduce(options: ReproduceOptions) -> dict[str, Any]:
    """Measures published denoisers, and trains and measures ours if wanted.

    Args:
      options: from the command line.

    Returns:
      The content of `reproduce.json`. "near" is, by published network and folder,
      whether ours is at most `NEAR` worse.

    Raises:
      InputError: if a file or folder cannot be used.
    """
    published = [measure_published(path, options) for path in options.weights]
    ours = train_ours(options) if options.train_on else None
    near = {
        one["file"]: {
            folder: ours["psnr"][folder]["psnr"] >= found["psnr"] - NEAR
            for folder, found in one["psnr"].items()
        }
        for one in published
        if ours and one["network"].startswith("DnCNN") and not one["grey"]
    }
    found = {
        "quick": options.quick,
        "sigma": options.sigma,
        "protocol": "PSNR of RGB in [0, 1] for each picture, then averaged; Gaussian "
        "noise, not clipped before restoring",
        "published": published,
        "ours": ours,
        "near": near,
        "machine": runs.machine(),
    }
    default = _FOLDER / "results" / ("quick" if options.quick else "")
    path = pathlib.Path(options.results or default) / "reproduce.json"
    files.write_text(path, json.dumps(found, indent=1) + "\n")
    return found


def to_markdown(found: Mapping[str, Any]) -> str:
    """Returns a table of networks and folders, and a note on our training."""
    rows = [(one["file"], one["psnr"]) for one in found["published"]]
    rows += [("ours", found["ours"]["psnr"])] if found["ours"] else []
    lines = [
        f"| denoiser | pictures | noisy, σ {found['sigma']:g} | restored |",
        "|---|---|--:|--:|",
    ]
    lines += [
        f"| {name} | {folder} ({value['pictures']}) | {value['input']:.2f} "
        f"| {value['psnr']:.2f} |"
        for name, by_folder in rows
        for folder, value in by_folder.items()
    ]
    notes = [f"Protocol: {found['protocol']}; dB."]
    if ours := found["ours"]:
        budget, machine = ours["budget"], found["machine"]
        device = f"{machine['devices']} x {machine['device']}"
        if machine["backend"] == "cpu":
            device = f"{machine['cores']} CPU cores"
        noise = "noise of any σ up to 55" if ours["blind"] else "noise of this σ only"
        notes.append(
            f"Ours: {budget['steps']:,} steps of {budget['batch_size']} patches of "
            f"{budget['image_size']}×{budget['image_size']} with {noise}, from "
            f"{ours['trained_on']}, on {device}."
        )
    return "\n".join([*lines, "", " ".join(notes), ""])


def main(options: ReproduceOptions) -> None:
    """Entry point."""
    backend.keep_freed_memory()
    print(to_markdown(reproduce(options)))


if __name__ == "__main__":
    cli.run(main, ReproduceOptions)
