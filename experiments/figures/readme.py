"""Writes the result tables of the documents, and the demo's picture.

    python -m experiments.figures.readme

The tables come from the JSON files that the experiments wrote; the picture,
`docs/demo.png`, from the folder that `make demo` wrote, when it is there.
"""

import dataclasses
import json
import math
import pathlib
import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from experiments.benchmark import interleaved, masks
from experiments.pretrain import ablations, quality
from experiments.tables import findings, tables
from experiments.transfer import finders, reproduce, transfer_report
from restoration import models
from restoration.base import cli, config, errors, files
from restoration.evaluation import scores
from restoration.images import frames
from restoration.models import __main__ as models_command


@dataclasses.dataclass(frozen=True)
class ReadmeOptions:
    """Options of `python -m experiments.figures.readme`."""

    files: tuple[str, ...] = config.option(
        ("README.md", "docs"),
        help="Markdown files, and folders of them, to update",
        positional=True,
    )
    demo: str = config.option("demo", help="folder that `make demo` wrote")
    picture: str = config.option("docs/demo.png", help="picture to write")


def results_table() -> str:
    """Returns the scores of the demo's network as Markdown."""
    card = _measured("demo")
    lines = [
        "| split | images | | MSE | PSNR (dB) | SSIM |",
        "|---|--:|---|--:|--:|--:|",
    ]
    for split, figures in card["figures"].items():
        for side in ("input", "restored"):
            mse, psnr, ssim = (figures[side][metric] for metric in scores.METRICS)
            lines.append(
                f"| {split} | {figures['count']} | {side} | {mse:.5f} | {psnr:.2f} "
                f"| {ssim:.4f} |"
            )
    return "\n".join([*lines, "", f"Protocol: {card['protocol']}.", ""])


def report_table() -> str:
    """Returns the seed report's test scores beside ours as Markdown.

    Of the largest scale that was run; rows of it that are missing are shown as such.
    """
    rows = tables.shown()
    if not rows:
        return "Not run yet: `python -m experiments.tables --scale quick`.\n"
    lines = [
        "| table | model | epochs | pairs | PSNR (dB), report | input | ours "
        "| Keras twin |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for wanted, result in rows:
        row = wanted.row
        head = f"| {row.table} | {row.model} | {wanted.run.epochs} | {wanted.pairs:,} "
        if result:
            (line,) = (one for one in tables.lines_of([result])
                       if one["split"] == "test")  # fmt: skip
            whose = ("seed", "input", "ours", "twin")
            shown = [tables.written(line, "psnr", who) for who in whose]
        else:
            seed = tables.seed_numbers()[row.table, row.fraction, "test"]["psnr"]
            shown = [f"{seed:.2f}", "–", "not run", "–"]
        lines.append(f"{head}| {' | '.join(shown)} |")
    results = [result for _, result in rows if result]
    return "\n".join([*lines, "", tables.scale_note(results), ""])


def ten_seeds_table() -> str:
    """Returns Keras's and our test PSNR over ten seeds as Markdown."""
    folder = tables.FOLDER / "results" / "quick" / "ten_seeds"
    results = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(folder.glob("*.json"))
    ]
    if not results:
        return "Not run yet.\n"
    lines = ["| pairs | runs | ours, dB | Keras twin, dB |", "|--:|--:|--:|--:|"]
    tests = [line for line in tables.lines_of(results) if line["split"] == "test"]
    for line in sorted(tests, key=lambda line: line["pairs"]):
        shown = (tables.written(line, "psnr", who) for who in ("ours", "twin"))
        lines.append(f"| {line['pairs']} | {line['runs']} | {' | '.join(shown)} |")
    return "\n".join([*lines, ""])


def findings_table() -> str:
    """Returns the findings of `experiments.tables.findings` as Markdown."""
    names = ("findings", "cpu/findings", "quick/findings")
    found = next(filter(None, map(_measured, names)), None)
    return findings.to_markdown(found) if found else "Not run yet.\n"


def ablations_table() -> str:
    """Returns the effect of each part of the pretraining recipe as Markdown."""
    names = ("ablations", "two_seeds/ablations", "optimizers/ablations")
    texts = map(ablations.to_markdown, filter(None, map(_measured, names)))
    return "\n".join(texts) or "Not run yet.\n"


def transfer_table() -> str:
    """Returns the effect of other initial weights as Markdown."""
    names = ("transfer", "low_rate/transfer", "efficientnet/transfer")
    found = [_measured(name) for name in names]
    texts = map(transfer_report.to_markdown, filter(None, found))
    return "\n".join(texts) or "Not run yet.\n"


def finders_table() -> str:
    """Returns what a classifier's encoder brings to finding damage as Markdown."""
    found = _measured("finders")
    return finders.to_markdown(found) if found else "Not run yet.\n"


def reproduce_table() -> str:
    """Returns the scores of our DnCNN and the published one as Markdown."""
    found = _measured("reproduce")
    return reproduce.to_markdown(found) if found else "Not run yet.\n"


def overlays_table() -> str:
    """Returns the effect of scanned dirt in training as Markdown."""
    return quality.table(quality.RESULTS.parent / "overlays" / "quality.json")


def _measured(name: str) -> dict | None:
    """Returns the results of a benchmark; None if it was not run."""
    path = tables.FOLDER / "results" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


# What takes most of a run's time, from profiles of one core.
_BOUNDS = {
    "`clean --dry_run`": "decoding twice (Pillow, TensorFlow); at first starting them",
    "`prepare`: TFRecord, pixels": "decoding with libvips",
    "`prepare`: TFRecord, files": "decoding with libvips, as a check",
    "`prepare`: ArrayRecord, pixels": "compressing",
    "`prepare`: npy": "decoding with libvips",
    "training batches: folder, PNG": "decoding, on both cores",
    "training batches: TFRecord, pixels": "copies and checksums under Python's lock",
    "training batches: TFRecord, files": "decoding, and a call into Python a pair",
    "training batches: ArrayRecord, pixels": "decompressing",
    "training batches: npy": "copying rows",
}


def data_table() -> str:
    """Returns the results of `experiments.benchmark data` as Markdown."""
    found = _measured("data")
    tenth, whole = sorted(found["runs"], key=int)
    runs = found["runs"]

    def row(name: str, of: Callable[[dict], dict | None]) -> str:
        cells = [of(runs[tenth]), of(runs[whole])]
        shown = [
            part
            for cell in cells
            for part in (
                (f"{cell['pairs_per_second']:,.0f}", f"{cell['peak_mb']:,}")
                if cell
                else ("–", "–")
            )
        ]
        cores = (cells[1] or cells[0])["cores"]
        return (
            f"| {name} | {shown[0]} | {shown[2]} | {cores} | {shown[1]} | {shown[3]} "
            f"| {_BOUNDS[name]} |"
        )

    lines = [
        f"| | pairs/s of {int(tenth):,} | of {int(whole):,} | cores used "
        f"| MB at {int(tenth):,} | at {int(whole):,} | bound by |",
        "|---|--:|--:|--:|--:|--:|---|",
        row("`clean --dry_run`", lambda run: run["clean"]),
    ]
    for kind, label in (
        ("prepare", "`prepare`: {}"),
        ("pipeline", "training batches: {}"),
    ):
        for form in runs[tenth][kind]:
            lines.append(
                row(
                    label.format(form),
                    lambda run, kind=kind, form=form: run[kind].get(form),
                )
            )
    machine, decode = found["machine"], found["decode_ms"]
    note = (
        f"{machine['cores']} cores ({machine['processor']}); pairs of 256×256 PNG; "
        f"training batches of {found['batch']} crops of {found['crop']}×"
        f"{found['crop']}, page cache warm; memory is what no file backs. To decode "
        f"one file takes Pillow {decode['pillow']} ms, libvips {decode['libvips']} ms, "
        f"TensorFlow {decode['tensorflow']} ms of one core."
    )
    return "\n".join([*lines, "", note, ""])


def scale_table() -> str:
    """Returns the costs of 100 million pairs, estimated from the data benchmark."""
    found = _measured("data")
    tenth, whole = (found["runs"][name] for name in sorted(found["runs"], key=int))
    count = 100_000_000
    raw, files = "TFRecord, pixels", "TFRecord, files"
    made = {raw: whole["prepare"][raw], files: tenth["prepare"][files]}
    size = {form: 1e9 * row["gigabytes"] / row["pairs"] for form, row in made.items()}
    shards = -(-count // (256 * 2**20 // (2 * 3 * 256**2)))

    def core_hours(row: dict[str, float]) -> float:
        return count * row["cores"] / row["pairs_per_second"] / 3600

    lines = [
        "| | measured here | for 100 million pairs |",
        "|---|--:|--:|",
        *(
            f"| storage, {form} | {size[form] / 1e3:.0f} kB a pair "
            f"| {count * size[form] / 1e12:.0f} TB |"
            for form in made
        ),
        f"| shards of 256 MiB of pixels | – | {shards:,} |",
    ]
    for name, row in (("clean", whole["clean"]), (f"prepare, {raw}", made[raw])):
        hours = core_hours(row)
        lines.append(
            f"| `{name}` | {row['pairs_per_second']:.0f} pairs/s on {row['cores']} "
            f"cores | {hours:,.0f} core-hours: {hours / 1000:.1f} h on 1,000 cores |"
        )
    lines += [
        "",
        "| training reads from | pairs of crops/s, one core | cores for 10,000/s "
        "| bytes read for these |",
        "|---|--:|--:|--:|",
    ]
    pair, rows = 2 * 3 * 256**2, 2 * 3 * 256 * found["crop"]
    for form, read in (("folder, PNG", size[files]), (raw, pair), ("npy", rows)):
        measured = whole["pipeline"][form]
        each = measured["pairs_per_second"] / measured["cores"]
        lines.append(
            f"| {form} | {each:,.0f} | {10_000 / each:.0f} | {read / 1e5:.1f} GB/s |"
        )
    return "\n".join([*lines, ""])


def _of_other_jax(found: dict[str, Any]) -> dict[str, str]:
    """Returns the name of our program with another JAX, and its column's head."""
    version = found.get("other_jax")
    return {interleaved.OTHER: f"ours, JAX {version}"} if version else {}


def cpu_table() -> str:
    """Returns the results of `experiments.benchmark cpu` as Markdown."""
    found = _measured("cpu")
    if not found:
        return "Not run yet: `python -m experiments.benchmark cpu`.\n"
    programs = {"ours": "ours", "keras": "Keras", "keras, oneDNN": "Keras, oneDNN"}
    programs |= _of_other_jax(found)
    lines = [
        f"| images/s | {' | '.join(programs.values())} | ours over the faster |",
        "|---|" + (len(programs) + 1) * "--:|",
    ]
    for case, row in found["images_per_second"].items():
        name, what, side = case.split("_")
        what = {"train": "training", "infer": "inference"}[what]
        speeds = " | ".join(f"{row[who]:.1f}" for who in programs)
        lines.append(
            f"| {name}, {what}, {side}×{side} | {speeds} "
            f"| {found['ratio_to_keras'][case]:.2f} |"
        )
    machine = found["machine"]
    note = (
        f"{machine['cores']} cores ({machine['processor']}), "
        f"JAX {machine['packages']['jax']}, batches of {found['batch']}, float32, "
        "medians of rounds in turn, each in a process of its own. TensorFlow "
        "switches its oneDNN kernels on by itself on some processors: Keras and Keras, "
        "oneDNN are the same there."
    )
    return "\n".join([*lines, "", note, ""])


def layers_table() -> str:
    """Returns the times of single convolutions and of the whole as Markdown."""
    found, whole = _measured("layers"), _measured("cpu")
    if not found or not whole:
        return "Not run yet: `python -m experiments.benchmark layers`.\n"
    lines = [
        "| milliseconds a batch | ours: convolutions | of the whole "
        "| Keras, oneDNN: convolutions | of the whole | ours over theirs |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    side, batch = found["side"], found["batch"]
    # The whole tells nothing of layers that another machine, or JAX, was measured on.
    alike = found["machine"] == whole["machine"]
    for name, model in found["models"].items():
        for what, parts in (
            ("infer", ("forward",)), ("train", ("forward", "gradients"))
        ):  # fmt: skip
            speeds = whole["images_per_second"][f"{name}_{what}_{side}"]
            cells, alone = [], []
            for program in ("ours", "keras, oneDNN"):
                alone.append(sum(model["sums"][program][part] for part in parts))
                everything = f"{1000 * batch / speeds[program]:,.0f}" if alike else "–"
                cells.append(f"{alone[-1]:,.0f} | {everything}")
            lines.append(
                f"| {name}, {'inference' if what == 'infer' else 'training'} "
                f"| {' | '.join(cells)} | {alone[0] / alone[1]:.2f} |"
            )
    note = (
        f"{batch} images of {side}×{side}; each convolution alone, ours in the pieces "
        f"that training takes, medians of rounds in turn, "
        f"JAX {found['machine']['packages']['jax']}; the whole is the table above, of "
        "another run, where machine and JAX are the same."
    )
    return "\n".join([*lines, "", note, ""])


def masks_table() -> str:
    """Returns the results of `experiments.benchmark masks` as Markdown."""
    found = _measured("masks")
    if not found:
        return "Not run yet: `python -m experiments.benchmark masks`.\n"
    programs = {masks.OURS: masks.OURS} | _of_other_jax(found)
    programs |= {name: name for name in masks.TORCH}
    lines = [
        f"| pairs/s | {' | '.join(programs.values())} | ours over the fastest "
        "| drawing, of our step |",
        "|---|" + (len(programs) + 2) * "--:|",
    ]
    sizes = []
    for name, network in found["networks"].items():
        side = network["side"]
        sizes.append(f"{network['batch']} of {side}×{side} ({name})")
        for kind in (masks.STEP, masks.FED):
            speeds = network["pairs_per_second"][kind]
            cells = [f"{speeds[p]:.2f}" if p in speeds else "–" for p in programs]
            ratio = network["ratio_to_torch"].get(kind)
            share = network.get("drawing_share") if kind == masks.STEP else None
            cells += ["–" if ratio is None else f"{ratio:.2f}"]
            cells += ["" if share is None else f"{100 * share:.1f} %"]
            lines.append(f"| {name}, {kind} | {' | '.join(cells)} |")
    machine = found["machine"]
    note = (
        f"{machine['cores']} cores ({machine['processor']}), "
        f"JAX {machine['packages']['jax']}, PyTorch {found['torch']}; batches of "
        f"{' and '.join(sizes)}, float32, medians of rounds in turn, each in a process "
        "of its own. With drawing: a thread draws the next batch during a step."
    )
    return "\n".join([*lines, "", note, ""])


def restore_table() -> str:
    """Returns the results of `experiments.benchmark restore` as Markdown."""
    found = _measured("restore")
    if not found:
        return "Not run yet: `python -m experiments.benchmark restore`.\n"
    lines = [
        "| model | tiles, Mpx/s | Keras | TIFF of Mpx | Mpx/s | peak MB |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name, row in found["models"].items():
        speed = row["speed"]
        keras = speed.get("keras_megapixels_per_second")
        head = (
            f"{name} | {speed['megapixels_per_second']:.2f} "
            f"| {f'{keras:.2f}' if keras else '–'}"
        )
        for size in row["memory"]:
            lines.append(
                f"| {head} | {size['megapixels']} "
                f"| {size['megapixels_per_second']:.2f} "
                f"| {size['peak_bytes'] / 1e6:,.0f} |"
            )
            head = " | | "
    machine = found["machine"]
    note = (
        f"{machine['cores']} cores ({machine['processor']}). Tiles: the network alone "
        "on the tiles that `restore` computes; Keras: `predict` of the same network "
        "on the same tiles. TIFF: the whole command, file to file."
    )
    return "\n".join([*lines, "", note, ""])


def start_table() -> str:
    """Returns the results of `experiments.benchmark start` as Markdown."""
    found = _measured("start")
    if not found:
        return "Not run yet: `python -m experiments.benchmark start`.\n"
    first, again = found["first"], found["again"]
    lines = ["| seconds | programs compiled anew | programs on disk |", "|---|--:|--:|"]

    def row(name: str, *values: float) -> None:
        lines.append(f"| {name} | {' | '.join(f'{v:.2f}' for v in values)} |")

    row("`restoration restore photo.jpg`, whole", first["seconds"], again["seconds"])
    row("Python and imports", *2 * [found["imports_seconds"]])
    for event in dict.fromkeys((*first["events"], *again["events"])):
        times = (part["events"].get(event, 0.0) for part in (first, again))
        row(f"{event}, all threads", *times)
    row("one more picture", *2 * [found["picture_seconds"]])
    machine = found["machine"]
    note = (
        f"{machine['cores']} cores ({machine['processor']}), "
        f"JAX {machine['packages']['jax']}, Python {machine['packages']['python']}: a "
        "photograph of 0.5 megapixels found, filled, restored and graded. Threads "
        "compile beside each other, so that their seconds are more than what passes; "
        f"compiling holds loading. `restoration --help`: {found['help_seconds']:.2f} s."
    )
    return "\n".join([*lines, "", note, ""])


def growth_table() -> str:
    """Returns the results of `experiments.benchmark growth` as Markdown."""
    found = _measured("growth")
    if not found:
        return "Not run yet: `python -m experiments.benchmark growth`.\n"
    lines = ["| | seconds | each, s | peak MB |", "|---|--:|--:|--:|"]
    for kind, name in (("pictures", "pictures"), ("frames", "a film's frames")):
        for count, row in found[kind].items():
            each, peak = row["seconds"] / int(count), row["peak_bytes"] / 1e6
            lines.append(
                f"| {name}: {int(count):,} | {row['seconds']:.1f} | {each:.3f} "
                f"| {peak:,.0f} |"
            )
    for size, row in found["sizes"].items():
        each, peak = row["seconds"] / row["frames"], row["peak_bytes"] / 1e6
        lines.append(
            f"| {row['frames']} frames of {size} | {row['seconds']:.1f} | {each:.3f} "
            f"| {peak:,.0f} |"
        )
    note = (
        "Two cores. Pictures of 0.5 megapixels, frames of 256×192 where no size is "
        "named; the whole command, file to file, start and all, programs on disk."
    )
    return "\n".join([*lines, "", note, ""])


def damage_table() -> str:
    """Returns the results of `experiments.benchmark damage` on one core as Markdown."""
    found = _measured("damage")
    if not found:
        return "Not run yet: `python -m experiments.benchmark damage`.\n"
    ours, host = found["one_core"]["ours"], found["one_core"].get("opencv", {})
    lines = [
        "| one core, pictures/s | ours | OpenCV, NumPy | ours over theirs |",
        "|---|--:|--:|--:|",
    ]
    for kind, speed in ours.items():
        theirs = host.get(kind)
        shown = (f"{theirs:,.0f}", f"{speed / theirs:.2f}") if theirs else ("–", "–")
        lines.append(f"| {kind} | {speed:,.0f} | {' | '.join(shown)} |")
    side = f"{found['side']}×{found['side']}"
    note = f"{found['machine']['processor']}; pictures of {side}, one at a time."
    return "\n".join([*lines, "", note, ""])


def film_table() -> str:
    """Returns the results of `experiments.benchmark film` as Markdown."""
    found = _measured("film")
    if not found:
        return "Not run yet: `python -m experiments.benchmark film`.\n"
    lines = [
        "| | whole | inside damage | outside | worst frames, mean | worst of all "
        "| unseen clips | frames/s |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, run in found["runs"].items():
        mean, unseen = run["mean"], run.get("held out", {}).get("psnr")
        cells = [
            "" if name == "clean" and part in ("inside", "outside") else mean[part]
            for part in ("psnr", "inside", "outside", "worst", "worst of all")
        ]
        cells += [unseen, run.get("frames a second")]
        shown = (f"{c:.2f}" if isinstance(c, float) else str(c or "") for c in cells)
        lines.append(f"| {name} | {' | '.join(shown)} |")
    unseen = ", ".join(found["clips the finder never saw"])
    note = (
        f"PSNR in dB, means of {len(found['clips'])} clips, "
        f"{found['frames of each clip']} frames of each. Dirt is found by the "
        f"{found['finder']}. Clips that no network was trained on: {unseen}. "
        f"{found['machine']['processor']}, {found['machine']['cores']} cores; frames a "
        "second of 640×360 and 640×480 together."
    )
    return "\n".join([*lines, "", note, ""])


# Assumed bandwidth of a device in bytes per second and latency in seconds, by number of
# accelerators: 8 in one host, more in several hosts.
_LINKS = {8: (300e9, 3e-6), 64: (50e9, 8e-6), 256: (50e9, 8e-6), 1024: (50e9, 8e-6)}
_STEP_SECONDS = 0.01


def devices_table() -> str:
    """Returns the calculated cost of sharing a training step as Markdown."""
    lines = [
        "| model | gradients a step | " + " | ".join(map(str, _LINKS)) + " devices |",
        "|---|--:|" + "--:|" * len(_LINKS),
    ]
    for name in sorted(models.MODELS):
        count = models.count_parameters(
            models.abstract_parameters(models.get_model(name))
        )
        cells = []
        for devices, (speed, latency) in _LINKS.items():
            moved = 2 * (devices - 1) / devices * 4 * count
            # The latency of a tree grows with the logarithm of the number of devices.
            seconds = moved / speed + 2 * math.log2(devices) * latency
            share = _STEP_SECONDS / (_STEP_SECONDS + seconds)
            cells.append(f"{1e6 * seconds:,.0f} µs, {100 * share:.1f} %")
        lines.append(f"| {name} | {4 * count / 1e6:.2f} MB | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def models_table() -> str:
    """Returns the table of all networks that `restoration models` prints."""
    return models_command.table() + "\n"


# The blocks between <!-- NAME: ... --> and <!-- end of NAME -->.
BLOCKS = {
    "results": results_table,
    "data": data_table,
    "tables": report_table,
    "findings": findings_table,
    "ten_seeds": ten_seeds_table,
    "scale": scale_table,
    "devices": devices_table,
    "cpu": cpu_table,
    "layers": layers_table,
    "masks": masks_table,
    "restore": restore_table,
    "start": start_table,
    "growth": growth_table,
    "damage": damage_table,
    "film": film_table,
    "models": models_table,
    "quality": quality.table,
    "found": quality.mask_table,
    "overlays": overlays_table,
    "ablations": ablations_table,
    "transfer": transfer_table,
    "finders": finders_table,
    "reproduce": reproduce_table,
}


def fill(text: str, name: str, *, source: str) -> str:
    """Returns a README's text with one block written anew.

    Args:
      text: the README.
      name: one of `BLOCKS`.
      source: the file's name, for the error.

    Raises:
      InputError: if the text has no markers for the block.
    """
    marks = re.compile(
        rf"(<!-- {name}: [^>]*-->\n).*?(<!-- end of {name} -->)", re.DOTALL
    )
    if not marks.search(text):
        raise errors.InputError(
            f"{source}: holds no <!-- {name}: ... --> and <!-- end of {name} -->"
        )
    return marks.sub(lambda found: found[1] + BLOCKS[name]() + found[2], text)


def documents(files: Iterable[str]) -> list[pathlib.Path]:
    """Returns Markdown files, and those in folders, in order.

    Raises:
      InputError: for a path that does not exist.
    """
    found = []
    for path in map(pathlib.Path, files):
        if not path.exists():
            raise errors.InputError(f"{path}: no such file or folder")
        found += sorted(path.rglob("*.md")) if path.is_dir() else [path]
    return found


def contact_sheet(demo: pathlib.Path) -> np.ndarray:
    """Returns degraded, restored and target test frames side by side.

    Args:
      demo: folder that `make demo` wrote.

    Returns:
      float (height, width, 3) in [0, 1]: the first frame of every other test clip,
      two clips a row.
    """

    def padded(image: np.ndarray, around: int) -> np.ndarray:
        edges = ((around, around), (around, around), (0, 0))
        return np.pad(image, edges, constant_values=1)

    clips = []
    for degraded in sorted((demo / "test_input").glob("*_000.png"))[::2]:
        restored = demo / "restored" / f"{degraded.stem}_restored.png"
        target = demo / "data" / "output" / degraded.name
        images = [padded(frames.read(path), 1) for path in (degraded, restored, target)]
        clips.append(padded(np.hstack(images), 4))
    even = len(clips) // 2 * 2
    return np.vstack([np.hstack(clips[i : i + 2]) for i in range(0, even, 2)])


def main(options: ReadmeOptions) -> None:
    """Entry point."""
    for path in documents(options.files):
        text = path.read_text(encoding="utf-8")
        names = [name for name in BLOCKS if f"<!-- {name}: " in text]
        for name in names:
            text = fill(text, name, source=str(path))
        if names:
            files.write_text(path, text)
            print(path)
    if pathlib.Path(options.demo).is_dir():
        frames.write(options.picture, contact_sheet(pathlib.Path(options.demo)))
        print(options.picture)


if __name__ == "__main__":
    cli.run(main, ReadmeOptions)
