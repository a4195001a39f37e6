"""Scores shipped weights on a benchmark and on clean pictures, through `restore`.

    python -m experiments.pretrain.quality --bench BENCH --clean CLEAN

`BENCH` holds a folder for each track, each with `input/` (damaged), `output/`
(clean) and, if there is one, `mask/` (the opacity of what was laid over). Restored
blind, every picture is held against its clean one. `--soft_track` scores a track once
more with both of its sides blurred, as the scan of a soft print is: dirt is then no
sharper than the picture. Clean pictures, and pictures that were restored before, should
come out as they went in, and with grain, blur and JPEG drawn on them, on which nothing
landed, nothing wide should be changed. With a finder, a track with masks is scored once
more with its true masks given in place of what is found, and the finder's average
precision is measured. Of healthy pictures made to look old, and of `--specks`, pictures
full of specks that belong there, the table says what was falsely taken (`harm`). All
figures go to one JSON file; what other weights gave stays there while they are shipped.
"""

import dataclasses
import functools
import hashlib
import json
import pathlib
import statistics
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import tqdm
from etils import epy
from scipy import ndimage

from restoration.base import cli, config, errors, files
from restoration.devices import backend
from restoration.images import frames
from restoration.inference import batch

with epy.lazy_imports():
    import jax

    from experiments.pretrain import finder_quality, harm
    from restoration import damage
    from restoration.evaluation import metrics
    from restoration.inference import engine, restore_file
    from restoration.models import pretrained

RESULTS = pathlib.Path(__file__).parents[1] / "results" / "quality.json"

# A pixel is damaged where so much of it, or more, was laid over.
_DAMAGED = 0.02

# Fewer damaged, or intact, pixels than this share of a picture are no measure.
_LEAST_SHARE = 0.001

# The blur of a soft scan, sigma in pixels, and what the names of such tracks end in.
_SOFT, _SOFTENED = 1.0, " soft"

# Spotless pictures: what is drawn on clean ones at severity 1, and the blur after it.
_SPOTLESS = {
    "grain": (("grain", "blur", "jpeg"), 0.0),
    "soft grain": (("grain",), _SOFT),
}

# In a smudge the change, as the mean over a square of so many pixels, is larger.
_SMUDGE_SIDE, _SMUDGE = 15, 0.04

# What the names of rows measured with --keep_color end in.
_KEPT = " --keep_color"


@dataclasses.dataclass(frozen=True)
class QualityOptions:
    """Options of `python -m experiments.pretrain.quality`."""

    bench: str = config.option("", help="folder of tracks: TRACK/input, output, mask")
    clean: str = config.option("", help="folder of clean pictures")
    specks: str = config.option(
        "", help="folder of pictures with bright specks that belong there"
    )
    soft_track: str = config.option(
        "", help="a track to score as a soft scan too, both sides blurred by a pixel"
    )
    models: tuple[str, ...] = config.option(
        (), help="shipped models; by default all; repeatable", short="n"
    )
    weights: str = config.option("", help="a weights file to score instead")
    label: str = config.option("", help="its name in the results")
    device: str = config.option(
        "auto", help="where to compute", choices=("auto", "cpu", "gpu", "tpu")
    )
    keep_color: bool = config.option(
        False, help="as `restore --keep_color` does, in a row of its own"
    )
    cards: bool = config.option(False, help="write the figures into the cards too")
    out: str = config.option(str(RESULTS), help="JSON file, added to", short="o")

    def __post_init__(self):
        """Checks choices."""
        config.check(self)
        if not (self.bench or self.clean or self.specks):
            raise errors.InputError(
                "--bench, --clean or --specks is required: what to score on"
            )
        if bool(self.weights) != bool(self.label):
            raise errors.InputError("give --weights and --label, or neither")
        if self.keep_color and self.cards:
            raise errors.InputError("--cards is for figures without --keep_color")
        if self.soft_track and not self.bench:
            raise errors.InputError("--soft_track is a track of --bench; give both")


def restore_folder(
    used: "engine.Engine",
    source: pathlib.Path,
    target: pathlib.Path,
    **more: Any,
) -> list[tuple[pathlib.Path, pathlib.Path]]:
    """Restores a folder as `restore` does, to PNG.

    Args:
      used: what to restore with.
      source: folder of pictures.
      target: folder for the results.
      **more: further options of `batch.RestoreOptions`.

    Returns:
      (picture, result) of each.

    Raises:
      InputError: for a picture that could not be restored.
    """
    options = batch.RestoreOptions(
        input=(str(source),),
        output=str(target),
        suffix="",
        ext="png",
        recursive=True,
        **more,
    )
    settings, done = batch.settings_of(options), []
    jobs = batch.find_jobs(options)
    for job in tqdm.tqdm(jobs, unit="image", desc=source.name):
        result = restore_file.restore_file(job, used, settings)
        if result.error:
            raise errors.InputError(result.error)
        done.append((job.source, job.target))
    return done


def _stem(path: pathlib.Path, folder: pathlib.Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()


def _by_stem(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    paths = (folder / name for name in frames.list_images(folder))
    return {_stem(path, folder): path for path in paths}


def score(image: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """Returns a picture's psnr, dB, and ssim (`restoration.evaluation.metrics`)."""
    found = jax.jit(metrics.all_metrics)(image[None], reference[None])
    return {name: float(found[name][0]) for name in ("psnr", "ssim")}


def _inside(image: np.ndarray, reference: np.ndarray, part: np.ndarray) -> float | None:
    """Returns the PSNR of a part of a picture, None where it is too small."""
    if part.mean() < _LEAST_SHARE:
        return None
    squared = np.square(image[part] - reference[part], dtype=np.float64).mean()
    return min(metrics.PSNR_LIMIT, -10 * float(np.log10(max(squared, 1e-30))))


def _mean(rows: list[Mapping[str, float | None]]) -> dict[str, float]:
    """Returns the mean of each figure over the pictures that have it."""
    found = {}
    for name in rows[0]:
        values = [row[name] for row in rows if row[name] is not None]
        if values:
            found[name] = round(statistics.fmean(values), 4)
    return found


def _picture(
    degraded: np.ndarray,
    restored: np.ndarray,
    truth: np.ndarray,
    mask: np.ndarray | None,
) -> dict[str, dict[str, float | None]]:
    """Returns the figures of one benchmark picture, before and after."""
    rows = {}
    for side, image in (("input", degraded), ("restored", restored)):
        rows[side] = score(image, truth)
        if mask is not None:
            rows[side]["damaged_psnr"] = _inside(image, truth, mask >= _DAMAGED)
            rows[side]["intact_psnr"] = _inside(image, truth, mask < _DAMAGED)
    return rows


def score_track(
    used: "engine.Engine", track: pathlib.Path, scratch: pathlib.Path
) -> dict[str, Any]:
    """Scores one track of a benchmark.

    Args:
      used: what to restore with.
      track: folder with input/, output/ and perhaps mask/.
      scratch: folder for the restored pictures.

    Returns:
      "count"; means of "input" and "restored": psnr and ssim and, with masks, PSNR
      of the damaged and of the intact pixels; "again", the PSNR of pictures restored
      twice against once; "pictures", the PSNR of each before and after.

    Raises:
      InputError: for a picture without its clean one, or of another size.
    """
    clean = _by_stem(track / "output")
    has_masks = (track / "mask").is_dir()
    masks = _by_stem(track / "mask") if has_masks else {}
    once = restore_folder(used, track / "input", scratch / "once")
    again = restore_folder(used, scratch / "once", scratch / "again")
    results = {result: twice for result, twice in again}
    rows, repeated, pictures = [], [], {}
    for source, result in once:
        name = _stem(source, track / "input")
        if name not in clean or (has_masks and name not in masks):
            raise errors.InputError(
                f"{source}: no output or mask of its name; add it or remove the input"
            )
        images = [frames.read(path) for path in (source, result, clean[name])]
        if len({image.shape for image in images}) > 1:
            raise errors.InputError(f"{source}: of another size than {clean[name]}")
        mask = frames.read(masks[name])[..., 0] if has_masks else None
        rows.append(_picture(*images, mask))
        repeated.append(score(frames.read(results[result]), images[1]))
        pictures[name] = [round(rows[-1][s]["psnr"], 3) for s in ("input", "restored")]
    return {
        "count": len(rows),
        **{side: _mean([row[side] for row in rows]) for side in ("input", "restored")},
        "again": _mean(repeated),
        "pictures": pictures,
    }


def average_precision(
    used: "engine.Engine", image: np.ndarray, mask: np.ndarray
) -> float:
    """Returns the average precision of what the finder finds in a picture.

    Args:
      used: with a finder.
      image: float (H, W, 3) in [0, 1].
      mask: bool (H, W), the true damage, some.
    """
    found = used.finder.strips([image], image.shape[:2])
    return finder_quality.average_precision(mask, np.concatenate(list(found))[..., 0])


def score_masks(
    used: "engine.Engine", track: pathlib.Path, scratch: pathlib.Path
) -> dict[str, Any]:
    """Scores a track with its true masks given, and what is found without.

    Args:
      used: with a finder and a filler.
      track: folder with input/, output/ and mask/.
      scratch: folder for masks and restored pictures.

    Returns:
      "given", the mean psnr and ssim with the true masks in place of what is found;
      "average_precision" of the finder, the mean over the pictures with damage.
    """
    clean, masks = _by_stem(track / "output"), _by_stem(track / "mask")
    precisions, rows = [], []
    for name, path in _by_stem(track / "input").items():
        mask = frames.read(masks[name])[..., 0] > finder_quality.DAMAGED / 255
        white = np.repeat(mask[..., None], 3, -1).astype(np.float32)
        frames.write(scratch / "masks" / f"{name}.png", white)
        if mask.any():
            precisions.append(average_precision(used, frames.read(path), mask))
    done = restore_folder(
        used, track / "input", scratch / "given",
        blind=False, damage=str(scratch / "masks"),
    )  # fmt: skip
    for source, result in done:
        target = frames.read(clean[_stem(source, track / "input")])
        rows.append(score(frames.read(result), target))
    return {
        "given": _mean(rows),
        "average_precision": round(statistics.fmean(precisions), 4),
    }


def score_old(
    used: "engine.Engine", folder: pathlib.Path, scratch: pathlib.Path
) -> dict[str, Any]:
    """Scores what is falsely changed in healthy pictures made to look old.

    Args:
      used: what to restore with; it does not grade here.
      folder: of clean pictures.
      scratch: folder for drawn and restored pictures.

    Returns:
      "count"; "false", "worst" and "masked": of the pixels, in %, what was widely
      changed (`smudged`) in the mean and in the worst picture, and what the mask held
      in the mean; "psnr" against the pictures; "pictures", the first of each.
    """
    ungraded = dataclasses.replace(used, grader=None)
    harm.write_old(folder, scratch / "old")
    options = {"save_damage": True} if used.finder else {}
    done = restore_folder(ungraded, scratch / "old", scratch / "restored", **options)
    shares, psnrs, masked = {}, [], []
    for source, result in done:
        before, after = frames.read(source), frames.read(result)
        shares[source.stem] = round(smudged(before, after), 3)
        psnrs.append(score(after, before)["psnr"])
        if used.finder:
            path = result.with_name(f"{result.stem}_damage.png")
            masked.append(100 * float((frames.read(path)[..., 0] > 0.5).mean()))
    return {
        "count": len(done),
        "false": round(statistics.fmean(shares.values()), 4),
        "worst": max(shares.values()),
        "masked": round(statistics.fmean(masked), 4) if masked else None,
        "psnr": round(statistics.fmean(psnrs), 3),
        "pictures": shares,
    }


def score_specks(
    used: "engine.Engine", folder: pathlib.Path, scratch: pathlib.Path
) -> dict[str, Any]:
    """Returns the share of bright specks that are kept: of each picture, and "mean"."""
    shares = {}
    for source, result in restore_folder(used, folder, scratch / "restored"):
        kept, count = harm.specks_kept(frames.read(source), frames.read(result))
        if not count:
            raise errors.InputError(f"{source}: has no bright specks; check --specks")
        shares[_stem(source, folder)] = round(kept / count, 4)
    return {"mean": round(statistics.fmean(shares.values()), 4), **shares}


def soften(track: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
    """Writes a track as soft scans would have it, without its masks.

    Args:
      track: folder with input/ and output/.
      target: folder to write to, as 8-bit PNG.

    Returns:
      The target.

    Raises:
      InputError: where there is no such track.
    """
    if not (track / "input").is_dir():
        raise errors.InputError(f"{track}: no input folder; check --soft_track")
    blur = jax.jit(functools.partial(damage.blur, sigma=_SOFT))
    for side in ("input", "output"):
        for name, path in _by_stem(track / side).items():
            image = np.asarray(blur(frames.read(path)))
            frames.write(target / side / f"{name}.png", image)
    return target


def score_clean(
    used: "engine.Engine", folder: pathlib.Path, scratch: pathlib.Path
) -> dict[str, Any]:
    """Scores how clean pictures are left alone.

    Args:
      used: what to restore with.
      folder: of clean pictures.
      scratch: folder for the restored pictures.

    Returns:
      "count"; means of "restored" against the pictures and of "again", restored
      twice against once; "pictures", the PSNR of each.
    """
    once = restore_folder(used, folder, scratch / "once")
    again = dict(restore_folder(used, scratch / "once", scratch / "again"))
    left, repeated, pictures = [], [], {}
    for source, result in once:
        restored = frames.read(result)
        left.append(score(restored, frames.read(source)))
        repeated.append(score(frames.read(again[result]), restored))
        pictures[_stem(source, folder)] = round(left[-1]["psnr"], 3)
    return {
        "count": len(left),
        "restored": _mean(left),
        "again": _mean(repeated),
        "pictures": pictures,
    }


def draw_spotless(folder: pathlib.Path, target: pathlib.Path, name: str) -> None:
    """Writes clean pictures, every second one grey, with grain and nothing that landed.

    Args:
      folder: of clean pictures.
      target: folder to write to, as 8-bit PNG.
      name: of `_SPOTLESS`.
    """
    kinds, sigma = _SPOTLESS[name]

    @jax.jit
    def degraded(key: Any, image: Any) -> Any:
        image, _ = damage.damage(key, image, severity=1.0, kinds=kinds)
        return damage.blur(image, sigma=sigma) if sigma else image

    for number, (stem, path) in enumerate(sorted(_by_stem(folder).items())):
        image = frames.read(path)
        if number % 2:
            image = np.broadcast_to(image.mean(-1, keepdims=True), image.shape)
        drawn = np.asarray(degraded(jax.random.key(number), image))
        frames.write(target / f"{stem}.png", drawn)


def smudged(before: np.ndarray, after: np.ndarray) -> float:
    """Returns the share of a picture's pixels, in %, that lie in a smudge.

    Args:
      before: (H, W, 3) in [0, 1], on which nothing landed.
      after: the same restored: what is wide in the change is false.
    """
    size = (_SMUDGE_SIDE, _SMUDGE_SIDE, 0)
    wide = ndimage.uniform_filter(after - before, size)
    return 100 * float((np.abs(wide).max(-1) > _SMUDGE).mean())


def score_smudges(
    used: "engine.Engine", folder: pathlib.Path, scratch: pathlib.Path
) -> dict[str, Any]:
    """Scores what a network puts where nothing landed; without the grade.

    Args:
      used: what to restore with.
      folder: of clean pictures.
      scratch: folder for drawn and restored pictures.

    Returns:
      "count"; for each name of `_SPOTLESS` the mean of `smudged`; "pictures", those
      of each.
    """
    ungraded, pictures = dataclasses.replace(used, grader=None), {}
    for name in _SPOTLESS:
        draw_spotless(folder, scratch / name, name)
        done = restore_folder(ungraded, scratch / name, scratch / f"{name} restored")
        for source, result in done:
            share = smudged(frames.read(source), frames.read(result))
            shares = pictures.setdefault(_stem(source, scratch / name), [])
            shares.append(round(share, 3))
    means = np.mean(list(pictures.values()), axis=0)
    named = zip(_SPOTLESS, np.round(means, 3).tolist(), strict=True)
    return {"count": len(pictures), **dict(named), "pictures": pictures}


def _weights(options: QualityOptions) -> dict[str, "engine.Weights"]:
    kept = _KEPT if options.keep_color else ""
    if options.weights:
        name, parameters = pretrained.load(options.weights)
        data = pathlib.Path(options.weights).read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        parts = engine.load_weights("", "")
        found = dataclasses.replace(
            parts, model=name, parameters=parameters, sha256=digest
        )
        return {options.label + kept: found}
    names = options.models or tuple(pretrained.shipped())
    return {name + kept: engine.load_weights(name, "") for name in names}


def measure(options: QualityOptions, weights: "engine.Weights") -> dict[str, Any]:
    """Scores one set of weights.

    Args:
      options: what to score on.
      weights: of a model.

    Returns:
      "model" and "sha256" of the weights; "tracks", a `score_track` each; "clean",
      a `score_clean`; "smudges", a `score_smudges`; "old", a `score_old`; "specks", a
      `score_specks`. A track with masks has the figures of `score_masks` too.

    Raises:
      InputError: for folders that do not fit, and pictures that cannot be restored.
    """
    used = engine.make_engine(
        weights, keep_color=options.keep_color, device=options.device
    )
    found: dict[str, Any] = {"model": weights.model, "sha256": weights.sha256}
    found |= weights.digests()
    with tempfile.TemporaryDirectory() as folder:
        scratch = pathlib.Path(folder)
        if options.bench:
            bench = pathlib.Path(options.bench)
            tracks = sorted(path.parent for path in bench.glob("*/input"))
            if not tracks:
                raise errors.InputError(f"{bench}: no TRACK/input; check --bench")
            if options.soft_track:
                name = options.soft_track + _SOFTENED
                soft = scratch / "_soft" / name
                tracks.append(soften(bench / options.soft_track, soft))
            found["tracks"] = {
                track.name: score_track(used, track, scratch / track.name)
                for track in tracks
            }
            for track in tracks if used.finder and used.filler else ():
                if (track / "mask").is_dir():
                    found["tracks"][track.name] |= score_masks(
                        used, track, scratch / f"_masks {track.name}"
                    )
        if options.clean:
            clean = pathlib.Path(options.clean)
            found["clean"] = score_clean(used, clean, scratch / "_clean")
            found["smudges"] = score_smudges(used, clean, scratch / "_smudges")
            found["old"] = score_old(used, clean, scratch / "_old")
        if options.specks:
            folder = pathlib.Path(options.specks)
            found["specks"] = score_specks(used, folder, scratch / "_specks")
    return found


def read_results(path: pathlib.Path) -> dict[str, Any]:
    """Returns what was measured of weights that are still shipped, or labelled."""
    if not path.is_file():
        return {"weights": {}}
    found = json.loads(path.read_text(encoding="utf-8"))
    for name in list(found["weights"]):
        file = pretrained.FOLDER / f"{name.removesuffix(_KEPT)}.safetensors"
        digest = found["weights"][name]["sha256"]
        if file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() != digest:
            del found["weights"][name]
    return found


def _write_card(name: str, figures: Mapping[str, Any]) -> None:
    """Writes the benchmark's means into the card of shipped weights."""
    path = pretrained.FOLDER / f"{name}.json"
    card = json.loads(path.read_text(encoding="utf-8"))
    means = {
        track: {side: found[side] for side in ("input", "restored", "again")}
        for track, found in figures.get("tracks", {}).items()
    }
    if "clean" in figures:
        means["clean"] = {s: figures["clean"][s] for s in ("restored", "again")}
        means["smudges, % of pixels"] = {n: figures["smudges"][n] for n in _SPOTLESS}
    card["figures"]["benchmark"] = means
    files.write_text(path, json.dumps(card, indent=1) + "\n")


def _alone(row: Mapping[str, Any]) -> str:
    """Returns what a row says where nothing was found and filled."""
    return "" if "finder_sha256" in row else ", network alone"


def table(path: pathlib.Path = RESULTS) -> str:
    """Returns what was measured as a Markdown table."""
    results = read_results(path)
    if not results["weights"]:
        return "Not measured yet: `python -m experiments.pretrain.quality`.\n"
    rows = results["weights"].values()
    tracks = sorted({track for row in rows for track in row.get("tracks", {})})
    heads = [f"{track}: PSNR | SSIM" for track in tracks]
    lines = [
        f"| weights | {' | '.join(heads)} | clean: PSNR | restored again: PSNR | "
        "smudges: grain, % | soft grain, % |",
        "|---|" + "--:|" * (2 * len(tracks) + 4),
    ]

    def line(name: str, side: str, row: Mapping[str, Any]) -> str:
        cells = []
        for track in tracks:
            figures = row.get("tracks", {}).get(track)
            cells += (
                [f"{figures[side]['psnr']:.2f}", f"{figures[side]['ssim']:.3f}"]
                if figures
                else ["–", "–"]
            )
        if side == "restored" and "clean" in row:
            cells += [f"{row['clean'][s]['psnr']:.2f}" for s in ("restored", "again")]
        else:
            cells += ["–"] * 2
        if side == "restored" and "smudges" in row:
            cells += [f"{row['smudges'][name]:.2f}" for name in _SPOTLESS]
        else:
            cells += ["–"] * 2
        return f"| {name} | {' | '.join(cells)} |"

    every = {
        track: row for found in rows for track, row in found.get("tracks", {}).items()
    }
    lines.append(line("do nothing", "input", {"tracks": every}))
    lines += [
        line(f"`{name}`{_alone(row)}", "restored", row)
        for name, row in results["weights"].items()
    ]
    return "\n".join([*lines, "", f"Protocol: {results['protocol']}.", ""])


def mask_table(path: pathlib.Path = RESULTS) -> str:
    """Returns what was measured of masks, and of harm, as a Markdown table."""
    rows = read_results(path)["weights"]
    tracks = ("film", "photo")
    lines = [
        "| weights | true masks given, film: PSNR | SSIM | finder's average precision, "
        "film | photo | healthy made old: falsely changed, mean, % | worst, % | "
        "specks kept, % |",
        "|---|" + "--:|" * 7,
    ]

    def cell(digits: int, row: Mapping[str, Any], *names: str) -> str:
        value: Any = row
        for name in names:
            value = value.get(name) if value else None
        return "–" if value is None else f"{value:.{digits}f}"

    for name, row in rows.items():
        if _alone(row):
            continue
        specks = row.get("specks", {}).get("mean")
        cells = [
            cell(2, row, "tracks", "film", "given", "psnr"),
            cell(3, row, "tracks", "film", "given", "ssim"),
            *(cell(2, row, "tracks", track, "average_precision") for track in tracks),
            cell(2, row, "old", "false"),
            cell(2, row, "old", "worst"),
            "–" if specks is None else f"{100 * specks:.0f}",
        ]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def main(options: QualityOptions) -> None:
    """Entry point: measures, writes the JSON file and prints the table."""
    backend.keep_freed_memory(large=False)
    backend.cache_compilations()
    path = pathlib.Path(options.out)
    for name, weights in _weights(options).items():
        figures = measure(options, weights)
        results = read_results(path)
        results["protocol"] = metrics.PROTOCOL
        results["weights"][name] = figures
        files.write_text(path, json.dumps(results, indent=1) + "\n")
        if options.cards and not options.weights:
            _write_card(name, figures)
    print(table(path), end="")
    print("\n" + mask_table(path), end="")


if __name__ == "__main__":
    cli.run(main, QualityOptions)
