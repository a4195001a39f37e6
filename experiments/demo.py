"""The whole path on a small film made of real photographs.

    python -m experiments.demo

The photographs are those inside scikit-image's wheel. Each becomes a clip of a
camera panning over it; the clips are degraded, cleaned, learned from, restored
and reported in `demo/report.html`.
"""

import dataclasses
import json
import pathlib
import shlex
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import skimage
import tqdm
from etils import epy
from skimage import transform

from restoration import (
    backend,
    clean,
    cli,
    config,
    degrade,
    errors,
    evaluate,
    frames,
    report,
    restore,
    train,
)

with epy.lazy_imports():
    from restoration import checkpoint, pretrained

# Clips and their photographs in scikit-image's wheel. By the hash of its name
# `commander` and `photographer` are test clips, `liftoff` validates.
CLIPS = {
    "bricks": "brick.png",
    "cat": "chelsea.png",
    "coffee": "coffee.png",
    "commander": "astronaut.png",
    "gravel": "gravel.png",
    "liftoff": "rocket.jpg",
    "lunar": "moon.png",
    "meadow": "grass.png",
    "photographer": "camera.png",
    "retina": "retina.jpg",
    "sky": "hubble_deep_field.jpg",
    "tissue": "ihc.png",
}
PHOTOGRAPH = "motorcycle_left.png"
FRAME = 144


@dataclasses.dataclass(frozen=True)
class DemoOptions:
    """Options of `python -m experiments.demo`."""

    out: str = config.option("demo", short="o", help="folder to write, new or empty")
    epochs: int = config.option(60, help="passes over the training frames", minimum=1)
    frames: int = config.option(20, help="frames of each clip", minimum=1)
    severity: float = config.option(1.5, help="damage of the film", minimum=0.0)
    seed: int = config.option(0, help="of damage, weights and order", minimum=0)
    ship: bool = config.option(
        False, help="also write the weights to restoration/weights/basic.safetensors"
    )

    def __post_init__(self):
        """Checks limits."""
        config.check(self)


def photograph(name: str) -> np.ndarray:
    """Reads a photograph of scikit-image's wheel, float (h, w, 3) in [0, 1]."""
    return frames.read(pathlib.Path(skimage.__file__).parent / "data" / name)


def pan(image: np.ndarray, count: int, size: int) -> Iterator[np.ndarray]:
    """Yields the frames of a camera that moves over a photograph.

    Args:
      image: float (height, width, 3); shrunk so that its short side is about two
        and a half frames.
      count: number of frames.
      size: side of the square frames.

    Yields:
      float (size, size, 3) in [0, 1].
    """
    scale = min(1.0, 2.5 * size / min(image.shape[:2]))
    image = transform.rescale(image, scale, channel_axis=-1, anti_aliasing=scale < 1)
    room = np.array(image.shape[:2]) - size
    for place in np.linspace(0, 2 * np.pi, count, endpoint=False):
        # A Lissajous figure: neighbouring frames overlap, all parts are seen.
        where = 0.5 + 0.5 * np.array([np.sin(place), np.sin(2 * place + 0.5)])
        top, left = np.rint(where * room).astype(int)
        yield image[top : top + size, left : left + size]


def make_film(folder: pathlib.Path, count: int) -> None:
    """Writes the clips as `{clip}_{number}.png`."""
    for clip, name in tqdm.tqdm(CLIPS.items(), unit="clip", desc="film"):
        for number, frame in enumerate(pan(photograph(name), count, FRAME)):
            frames.write(folder / f"{clip}_{number:03d}.png", frame)


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
    """Runs the whole path.

    Args:
      options: sizes and places.

    Returns:
      The test split's means, as in `metrics.json`: {"input", "restored"}.

    Raises:
      InputError: when the folder is in use.
    """
    out = pathlib.Path(options.out)
    if out.is_dir() and any(out.iterdir()):
        raise errors.InputError(f"{out}: not empty; remove it or give another --out")
    make_film(out / "clean", options.frames)
    worn = degrade.DegradeOptions(
        input=(str(out / "clean"),),
        output=str(out / "data"),
        severity=options.severity,
        seed=options.seed,
    )
    _require(_run("degrade", degrade.main, worn))
    _run("clean", clean.main, clean.CleanOptions(data_dir=str(out / "data")))
    run = config.TrainConfig(
        data_dir=str(out / "data"),
        workdir=str(out / "run"),
        model="basic",
        epochs=options.epochs,
        image_size=128,
        seed=options.seed,
        learning_rate=2e-3,
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
    config.write_text(out / "metrics.json", json.dumps(means, indent=1) + "\n")

    test_folder = out / "test_input"
    for pair in evaluate.members_of(measured, "test"):
        frames.write(test_folder / f"{pair.name}.png", frames.read(pair.input))
    frames.write(out / "photograph" / "motorcycle.png", photograph(PHOTOGRAPH))
    photo = dataclasses.replace(
        worn,
        input=(str(out / "photograph"),),
        output=str(out / "photograph_data"),
        seed=options.seed + 1,
    )
    _require(_run("degrade", degrade.main, photo))
    restored = restore.RestoreOptions(
        input=(str(test_folder), str(out / "photograph_data" / "input")),
        output=str(out / "restored"),
        workdir=run.workdir,
    )
    _require(_run("restore", restore.main, restored))
    page = report.ReportOptions(
        workdir=run.workdir,
        before=str(out / "photograph_data" / "input"),
        after=str(out / "restored"),
        title="A small film, restored",
        out=str(out / "report.html"),
    )
    _run("report", report.main, page)
    if options.ship:
        ship(run, results, options)
    return means


def ship(
    run: config.TrainConfig, results: dict[str, dict], options: DemoOptions
) -> None:
    """Writes the trained weights, with their card, into the package."""
    _, parameters, number = checkpoint.load_trained(run.workdir)
    card = {
        "training data": "photographs of scikit-image's wheel "
        f"({', '.join(CLIPS.values())}), panned over in clips of "
        f"{options.frames} frames, damaged by restoration.damage (film kinds, "
        f"severity {options.severity}); licences: skimage/data/README.txt",
        "recipe": json.loads(config.to_json(run)),
        "steps": number,
        "command": "python -m experiments.demo --ship",
        "figures": {
            name: {key: result[key] for key in ("count", "input", "restored")}
            for name, result in results.items()
        },
        "protocol": next(iter(results.values()))["protocol"],
        "limits": "A demonstration: 29,507 parameters, eleven photographs and a few "
        "minutes of training. It removes film dirt and softens fine detail.",
    }
    pretrained.save(pretrained.FOLDER / "basic.safetensors", "basic", parameters, card)


def main(options: DemoOptions) -> None:
    """Entry point."""
    backend.keep_freed_memory()
    means = demo(options)
    before, after = means["input"]["psnr"], means["restored"]["psnr"]
    print(
        f"\nTest frames: {before:.2f} dB -> {after:.2f} dB ({after - before:+.2f} dB). "
        f"Open {options.out}/report.html"
    )


if __name__ == "__main__":
    cli.run(main, DemoOptions)
