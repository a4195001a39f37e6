"""All commands on a small film made from real photographs.

    python -m experiments.figures.demo

The photographs are those of the scikit-image package. Each is cut into scenes without
common pixels, and a camera pans over each scene: the clips of a small film. These are
degraded and cleaned, a model is trained on them, and restored frames are shown in
`demo/report.html`. A large photograph that is not in the film is restored too.
"""

import dataclasses
import functools
import json
import pathlib
import shlex
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import skimage
import tqdm
from skimage import transform

from restoration import clean, degrade, evaluate, report, restore, train
from restoration.base import cli, config, errors, files
from restoration.devices import backend
from restoration.images import frames
from restoration.inference import batch, film_jobs
from restoration.reports import training_run
from restoration.training import train_config

RESULTS = pathlib.Path(__file__).parents[1] / "results" / "demo.json"

# Color photographs in scikit-image's wheel, and what to shrink their sides by.
PHOTOGRAPHS = {
    "astronaut": ("astronaut.png", 1),
    "cat": ("chelsea.png", 1),
    "coffee": ("coffee.png", 1),
    "retina": ("retina.jpg", 3),
    "rocket": ("rocket.jpg", 1),
    "sky": ("hubble_deep_field.jpg", 2),
    "tissue": ("ihc.png", 1),
}
LARGE_PHOTOGRAPH = "motorcycle_left.png"
FRAME = 128

# Faded, grainy and dusty: damage that a network with a halo of 18 pixels can restore.
KINDS = (
    "contrast", "dust", "fading", "grain", "hairs", "running_scratches", "scratches",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class DemoOptions:
    """Options of `python -m experiments.figures.demo`."""

    out: str = config.option("demo", short="o", help="folder to write, new or empty")
    epochs: int = config.option(45, help="passes over the training frames", minimum=1)
    frames: int = config.option(4, help="frames of each clip", minimum=1)
    severity: float = config.option(5.0, help="damage of the film", minimum=0.0)
    seed: int = config.option(0, help="of damage, weights and order", minimum=0)
    record: bool = config.option(
        False, help="also write the figures to experiments/results/demo.json"
    )

    def __post_init__(self):
        """Checks limits."""
        config.check(self)


def photograph(name: str) -> np.ndarray:
    """Reads a photograph of scikit-image's wheel, float (h, w, 3) in [0, 1]."""
    return frames.read(pathlib.Path(skimage.__file__).parent / "data" / name)


def scenes(image: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Cuts a photograph into scenes that share no pixel.

    Args:
      image: (height, width, 3).
      size: side of the frames to come; scenes are at least a sixth larger.

    Yields:
      Views of the image, row by row, at most three rows and columns.
    """
    rows, columns = (
        max(1, min(3, length // (size + size // 6))) for length in image.shape[:2]
    )
    for band in np.array_split(image, rows, axis=0):
        yield from np.array_split(band, columns, axis=1)


def pan(scene: np.ndarray, count: int, size: int) -> Iterator[np.ndarray]:
    """Yields the square frames of a camera that moves across a scene."""
    room = np.array(scene.shape[:2]) - size
    for share in np.linspace(0, 1, count):
        top, left = np.rint(share * room).astype(int)
        yield scene[top : top + size, left : left + size]


def make_film(folder: pathlib.Path, count: int) -> None:
    """Writes a film as `{photograph}-{scene}_{number}.png`; a scene is a clip."""
    for title, (name, shrink) in tqdm.tqdm(
        PHOTOGRAPHS.items(), unit="photograph", desc="film"
    ):
        image = transform.downscale_local_mean(photograph(name), (shrink, shrink, 1))
        for scene, view in enumerate(scenes(image, FRAME), start=1):
            for number, frame in enumerate(pan(view, count, FRAME)):
                frames.write(folder / f"{title}-{scene}_{number:03d}.png", frame)


def _command(module: str, options: Any) -> str:
    """Returns the command line that runs an entry point with these options."""
    words = []
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if value == field.default:
            continue
        values = value if isinstance(value, tuple) else (value,)
        words += [f"--{field.name}={shlex.quote(str(v))}" for v in values]
    return f"python -m restoration.{module} {' '.join(words)}"


def _run(module: str, call: Callable[[Any], Any], options: Any) -> Any:
    print(f"\n$ {_command(module, options)}", flush=True)
    return call(options)


def _require(code: int | None) -> None:
    if code:
        raise errors.InputError("the step before failed; see above")


def demo(options: DemoOptions) -> dict[str, dict[str, float]]:
    """Runs all commands.

    Args:
      options: from the command line.

    Returns:
      The test split's means, as in `metrics.json`: {"input", "restored"}.

    Raises:
      InputError: when the folder is in use.
    """
    out = pathlib.Path(options.out)
    if out.is_dir() and any(out.iterdir()):
        raise errors.InputError(f"{out}: not empty; remove it or give another --out")
    make_film(out / "clean", options.frames)
    degraded = degrade.DegradeOptions(
        input=(str(out / "clean"),),
        output=str(out / "data"),
        severity=options.severity,
        kinds=KINDS,
        variants=2,
        seed=options.seed,
    )
    _require(_run("degrade", degrade.main, degraded))
    _run("clean", clean.main, clean.CleanOptions(data_dir=str(out / "data")))
    run = train_config.TrainConfig(
        data_dir=str(out / "data"),
        workdir=str(out / "run"),
        model="basic",
        epochs=options.epochs,
        batch_size=8,
        image_size=64,
        seed=options.seed,
        optimizer="muon",
        learning_rate=2e-2,
        schedule="cosine",
        warmup_steps=20,
        evaluate_every=max(1, options.epochs // 10),
    )
    _run("train", train.main, run)
    measured = evaluate.EvaluateOptions(workdir=run.workdir, split="all")
    print(f"\n$ {_command('evaluate', measured)}", flush=True)
    results = evaluate.evaluate(measured)
    print(evaluate.table(results))
    means = {side: results["test"][side] for side in ("input", "restored")}
    files.write_text(out / "metrics.json", json.dumps(means, indent=1) + "\n")

    test_folder = out / "test_input"
    for pair in evaluate.open_run(measured)[1]["test"]:
        frames.write(test_folder / f"{pair.name}.png", frames.read(pair.input))
    frames.write(out / "photograph" / "motorcycle.png", photograph(LARGE_PHOTOGRAPH))
    photo = dataclasses.replace(
        degraded,
        input=(str(out / "photograph"),),
        output=str(out / "photograph_data"),
        variants=1,
        seed=options.seed + 1,
    )
    _require(_run("degrade", degrade.main, photo))
    restored = batch.RestoreOptions(
        input=(str(test_folder), str(out / "photograph_data" / "input")),
        output=str(out / "restored"),
        workdir=run.workdir,
    )
    still = functools.partial(restore.main, film_options=film_jobs.FilmOptions())
    _require(_run("restore", still, restored))
    page = training_run.ReportOptions(
        workdir=run.workdir,
        before=str(out / "photograph_data" / "input"),
        after=str(out / "restored"),
        title="A small film, restored",
        out=str(out / "report.html"),
    )
    _run("report", report.main, page)
    if options.record:
        record(run, results)
    return means


def record(run: train_config.TrainConfig, results: dict[str, dict]) -> None:
    """Writes the network's scores, for the README."""
    found = {
        "command": "python -m experiments.figures.demo --record",
        "recipe": json.loads(config.to_json(run)),
        "figures": {
            name: {key: result[key] for key in ("count", "input", "restored")}
            for name, result in results.items()
        },
        "protocol": next(iter(results.values()))["protocol"],
    }
    files.write_text(RESULTS, json.dumps(found, indent=1) + "\n")


def serve_command() -> str:
    """Returns what starts the page here, whether or not its environment is active."""
    script = pathlib.Path(sys.executable).with_name("restoration")
    if not script.is_file():
        return "restoration serve"
    inside = script.is_relative_to(pathlib.Path.cwd())
    shown = script.relative_to(pathlib.Path.cwd()) if inside else script
    return f"{shlex.quote(str(shown))} serve"


def main(options: DemoOptions) -> None:
    """Entry point."""
    backend.keep_freed_memory()
    means = demo(options)
    before, after = means["input"]["psnr"], means["restored"]["psnr"]
    print(
        f"\nTest frames: {before:.2f} dB -> {after:.2f} dB ({after - before:+.2f} dB). "
        f"Open {options.out}/report.html"
    )
    print(
        f"Your own photographs and films: {serve_command()}   (a page in the browser; "
        "nothing leaves this computer)"
    )


if __name__ == "__main__":
    cli.run(main, DemoOptions)
