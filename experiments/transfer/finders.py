"""Does a classifier's encoder help to find damage, and with how few pictures?

    python -m experiments.transfer.finders --clean CLEAN --overlays SCANS \
        --encoder lite0.safetensors --bench BENCH

The report's wish for transfer learning, asked of the finder: its encoder begins with
ImageNet's weights, with random ones, or stays frozen with ImageNet's; 1, 10 or 100 % of
the clean pictures; several seeds; the same steps for all. Damage is drawn of scans as
for the shipped finder. Every second picture of the benchmark gives the curve, the
others are the test.

Writes finders.json and finders.svg. A finished run is not repeated, and an interrupted
one goes on.
"""

import dataclasses
import io
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epy

from experiments.pretrain import pretrain, pretrain_masks
from experiments.tables import tables
from restoration.base import cli, config, errors, files
from restoration.devices import backend

with epy.lazy_imports():
    import matplotlib
    from matplotlib import figure

    from experiments.pretrain import finder_quality
    from restoration.models import pretrained
    from restoration.training import run, run_log

FRACTIONS = (0.01, 0.1, 1.0)

# How the encoder begins, and its learning rate as a share of the decoder's.
STARTS = {"imagenet": 0.3, "frozen": 0.0, "random": 1.0}

_NAMES = {
    "imagenet": "ImageNet, fine-tuned",
    "frozen": "ImageNet, frozen",
    "random": "random, trained",
}
_COLORS = {"imagenet": "C2", "frozen": "C3", "random": "0.45"}

_TRACKS = ("film", "photo")


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of `python -m experiments.transfer.finders`."""

    clean: str = config.option(help="folder of clean pictures, or a packed file")
    overlays: str = config.option(help="folder of scanned dirt")
    encoder: str = config.option(help="file that experiments.pretrain.lite0 wrote")
    bench: str = config.option(help="folder of a benchmark with true masks")
    steps: int = config.option(240, help="of each run", minimum=1)
    batch_size: int = config.option(8, help="crops a step", minimum=1)
    image_size: int = config.option(128, help="side of the crops, pixels", minimum=64)
    learning_rate: float = config.option(1.5e-3, help="of the decoder")
    evaluations: int = config.option(3, help="points of a curve", minimum=1)
    seeds: int = config.option(3, help="runs of each cell, seeds 0, 1, ...", minimum=2)
    results: str = config.option(
        "", help="folder of the results; default: experiments/results"
    )
    workdir: str = config.option("build/finders", help="folder of the runs")


def run_options(
    options: Options, start: str, seed: int, folder: pathlib.Path
) -> "pretrain_masks.Options":
    """Returns the options of one run.

    Args:
      options: of the experiment.
      start: of `STARTS`.
      seed: of the run.
      folder: of the run.
    """
    changed = {
        "workdir": str(folder),
        "clean": options.clean,
        "overlays": options.overlays,
        "bench": options.bench,
        "encoder": "" if start == "random" else options.encoder,
        "seed": seed,
        "steps": options.steps,
        "decay_from": 0,
        "batch_size": options.batch_size,
        "image_size": options.image_size,
        "learning_rate": options.learning_rate,
        "encoder_rate": options.learning_rate * STARTS[start],
        "warmup_steps": min(20, options.steps // 2),
        "ema_decay": 0.98,
        "drawn_share": 0.0,
        "belonging_share": 0.0,
        "evaluations": options.evaluations,
        "log_every": 20,
    }
    return pretrain_masks.Options(**(pretrain.read_recipe("finder") | changed))


def sample(count: int, fraction: float) -> list[int]:
    """Returns which pictures a fraction has, at least one; more hold fewer."""
    order = np.random.default_rng(0).permutation(count)
    return sorted(int(n) for n in order[: max(1, round(fraction * count))])


def test(parameters: Any, bench: str) -> dict[str, float]:
    """Returns the average precision by track, of the pictures that no curve shows."""
    found = {}
    for track in _TRACKS:
        rows = []
        pictures = list(finder_quality.pictures(pathlib.Path(bench), track))[1::2]
        for _, image, _, mask in pictures:
            truth = mask > finder_quality.DAMAGED / 255
            if truth.any():
                score = finder_quality.find(parameters, image)
                rows.append(finder_quality.average_precision(truth, score))
        found[track] = round(float(np.mean(rows)), 4)
    return found


def curve_of(folder: pathlib.Path) -> list[list[float]]:
    """Returns step and score of each validation, from a run's log."""
    rows = run_log.read(folder / run_log.NAME)
    return [[r["step"], r["score"]] for r in rows if r["split"] == "validation"]


def run_one(
    options: Options,
    material: Any,
    described: Mapping[str, Any],
    start: str,
    fraction: float,
    seed: int,
) -> dict[str, Any]:
    """Does or continues one run, or reads its result.

    Args:
      options: of the experiment.
      material: of all pictures, see `pretrain_masks.load`.
      described: likewise.
      start: of `STARTS`.
      fraction: of the pictures, one of `FRACTIONS`.
      seed: of weights and pairs.

    Returns:
      "start", "fraction", "seed"; "pictures", their count; "curve": (step, mean of
      both tracks' average precision on every second picture); "test": average
      precision of each track on the others.
    """
    folder = pathlib.Path(options.workdir) / f"{start}_{fraction:g}_{seed}"
    path = folder / "result.json"
    if path.is_file():
        return json.loads(path.read_text(encoding="utf-8"))
    print(folder.name, flush=True)
    chosen = sample(len(material.pictures), fraction)
    some = material._replace(pictures=[material.pictures[n] for n in chosen])
    described = {**described, "pairs": {"train": len(chosen)}}
    run_of = run_options(options, start, seed, folder)
    feed = pretrain_masks.make_feed(run_of, some, described)
    task = pretrain_masks.make_task(run_of, some)
    done = run.train(run_of, feed, task=task)
    if done.step < done.total_steps:
        raise SystemExit(f"{folder}: stopped; run the command again to go on")
    found = {
        "start": start,
        "fraction": fraction,
        "seed": seed,
        "pictures": len(chosen),
        "curve": curve_of(folder),
        "test": test(done.parameters, options.bench),
    }
    files.write_text(path, json.dumps(found))
    return found


def cells_of(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns means over seeds.

    Args:
      runs: at least two of each start and fraction, see `run_one`.

    Returns:
      For each start and fraction: "film" and "photo", mean average precision on the
      test pictures; "std", the sample standard deviation of their mean; "curve".
    """
    cells = []
    for start, fraction in dict.fromkeys((r["start"], r["fraction"]) for r in runs):
        members = [r for r in runs if (r["start"], r["fraction"]) == (start, fraction)]
        tracks = np.array([[r["test"][track] for track in _TRACKS] for r in members])
        curves = np.array([r["curve"] for r in members])
        cells.append(
            {
                "start": start,
                "fraction": fraction,
                "pictures": members[0]["pictures"],
                **dict(zip(_TRACKS, tracks.mean(0).round(4).tolist(), strict=True)),
                "std": round(float(tracks.mean(1).std(ddof=1)), 4),
                "curve": curves.mean(0).round(4).tolist(),
            }
        )
    return cells


def to_markdown(found: Mapping[str, Any]) -> str:
    """Returns the table.

    Args:
      found: the content of `finders.json`.

    Returns:
      Markdown.
    """
    cells = {(c["start"], c["fraction"]): c for c in found["cells"]}
    counts = {c["fraction"]: c["pictures"] for c in found["cells"]}
    plural = {f: "picture" if n == 1 else "pictures" for f, n in counts.items()}
    heads = [f"{f:.0%} ({counts[f]} {plural[f]})" for f in FRACTIONS]
    lines = [
        f"| the finder's encoder | {' | '.join(heads)} |",
        f"|---|{'--:|' * len(heads)}",
    ]
    for start in STARTS:
        shown = [
            f"{c['film']:.3f} / {c['photo']:.3f} ± {c['std']:.3f}"
            for c in (cells[start, fraction] for fraction in FRACTIONS)
        ]
        lines.append(f"| {_NAMES[start]} | {' | '.join(shown)} |")
    scale = found["scale"]
    size = f"{scale['image_size']}×{scale['image_size']}"
    note = (
        f"Average precision, film / photo, mean of {scale['seeds']} seeds ± standard "
        f"deviation of both tracks' mean: {scale['steps']} steps of "
        f"{scale['batch_size']} crops of {size}, the pictures of the benchmark that no "
        "curve was drawn of, one view. Chance is the damaged share, some 0.09."
    )
    return "\n".join([*lines, "", note, ""])


def to_svg(found: Mapping[str, Any]) -> str:
    """Draws mean average precision over the steps, a panel for each fraction.

    Args:
      found: the content of `finders.json`.

    Returns:
      An SVG file, the same for the same results.
    """
    with matplotlib.rc_context({"svg.hashsalt": "finders", "font.size": 9}):
        size = (3.4 * len(FRACTIONS), 2.6)
        drawing = figure.Figure(figsize=size, layout="constrained")
        axes = drawing.subplots(1, len(FRACTIONS), sharey=True, squeeze=False)[0]
        for panel, fraction in zip(axes, FRACTIONS, strict=True):
            for cell in found["cells"]:
                if cell["fraction"] == fraction:
                    look = {"color": _COLORS[cell["start"]], "marker": "o"}
                    steps, scores = zip(*cell["curve"], strict=True)
                    panel.plot(steps, scores, label=_NAMES[cell["start"]], **look)
            panel.set_title(f"{fraction:.0%} of the pictures")
            panel.set_xlabel("steps")
            panel.spines[["top", "right"]].set_visible(False)
            panel.grid(axis="y", color="0.9")
        axes[0].set_ylabel("average precision")
        axes[0].legend(fontsize=7, frameon=False)
        file = io.StringIO()
        drawing.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def compare(options: Options) -> dict[str, Any]:
    """Does all runs, or reads them.

    Args:
      options: of the experiment.

    Returns:
      The content of `finders.json`.

    Raises:
      InputError: for bad options or data.
    """
    finder_quality.check(options.bench)
    folder = pathlib.Path(options.results or tables.FOLDER / "results")
    base = run_options(options, "imagenet", 0, pathlib.Path(options.workdir))
    material, described = pretrain_masks.load(base)
    if len(material.pictures) < 1 / FRACTIONS[1]:
        raise errors.InputError(
            f"--clean={options.clean}: {len(material.pictures)} pictures; give 10 or "
            "more"
        )
    cells = [(s, f, n) for n in range(options.seeds) for s in STARTS for f in FRACTIONS]
    runs = [run_one(options, material, described, *cell) for cell in cells]
    names = ("steps", "batch_size", "image_size", "learning_rate", "seeds")
    found = {
        "scale": {name: getattr(options, name) for name in names},
        "encoder": pretrained.read_card(
            pathlib.Path(options.encoder).with_suffix(".json")
        ).get("origin", ""),
        "fingerprint": described["fingerprint"],
        "cells": cells_of(runs),
        "runs": runs,
    }
    files.write_text(folder / "finders.json", json.dumps(found, indent=1) + "\n")
    return found


def main(options: Options) -> None:
    """Entry point."""
    backend.keep_freed_memory()
    backend.cache_compilations()
    found = compare(options)
    folder = pathlib.Path(options.results or tables.FOLDER / "results")
    files.write_text(folder / "finders.svg", to_svg(found))
    print(to_markdown(found))


if __name__ == "__main__":
    cli.run(main, Options)
