"""One self-contained HTML page of a training run, or of before/after pictures.

Everything that the page shows is inside it: pictures as JPEG data, style, script
and curves; its content security policy refuses any request. The same input
files give the same bytes.

  python -m restoration.report --workdir runs/basic
  python -m restoration.report -i photos
  python -m restoration.report --before photos --after photos_restored
"""

import dataclasses
import datetime
import json
import math
import os
import pathlib
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import markupsafe
import numpy as np
from etils import epy

from restoration.base import cli, config, errors, files
from restoration.data import pairs, sources
from restoration.devices import backend
from restoration.evaluation import scores
from restoration.images import frames
from restoration.reports import charts, gallery, page

with epy.lazy_imports():
    from restoration.inference import batch

PROTOCOL = "PSNR/SSIM: RGB in [0,1], Gaussian 11x11 sigma 1.5, per image, averaged"

# A training curve of more points is drawn as the means of equal stretches.
MOST_POINTS = 300

# What a line that is no metrics record raises.
_NOT_A_RECORD = (ValueError, KeyError, TypeError, OverflowError)

# Larger numbers stand in no file that was not tampered with.
_LIMIT = 1e300


@dataclasses.dataclass(frozen=True)
class ReportOptions:
    """What goes on the page, and where it is written."""

    workdir: str | None = config.option(None, help="folder of the training run")
    data_dir: str | None = config.option(
        None, help="paired folder of the run; default: the one in config.json"
    )
    split: str = config.option(
        "test", help="split of the headline and the pictures", choices=pairs.SPLITS
    )
    input: str | None = config.option(
        None, short="i", help="folder of pictures to restore and show, by the "
        "workdir's network or the best shipped model; NAME.txt captions a picture",
    )  # fmt: skip
    before: str | None = config.option(
        None, help="folder of pictures without truth; NAME.txt beside one captions it"
    )
    after: str | None = config.option(
        None, help="their restored versions: same names, or with _restored after them"
    )
    title: str | None = config.option(None, help="heading of the page")
    out: str | None = config.option(
        None, short="o", help="page to write; default: report.html in workdir or "
        "after, INPUT_report.html beside the input",
    )  # fmt: skip
    cases: int = config.option(
        4, help="pictures each of the worst, the typical and the best", minimum=0
    )

    def __post_init__(self):
        """Checks limits and choices."""
        config.check(self)
        if self.input and (self.before or self.after):
            raise errors.InputError("give --input, or --before and --after")


# Reading a run.


def _read(path: pathlib.Path, remedy: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise errors.InputError(f"{path}: not UTF-8 text; {remedy}") from None
    except OSError as error:
        raise errors.InputError(f"{path}: {error.strerror}; {remedy}") from None


def _read_object(path: pathlib.Path, remedy: str) -> dict[str, Any]:
    try:
        values = config.parse(_read(path, remedy))
    except ValueError as error:
        raise errors.InputError(f"{path}: not JSON ({error}); {remedy}") from None
    if not isinstance(values, dict):
        raise errors.InputError(f"{path}: not a JSON object; {remedy}")
    return values


def _number(value: Any, where: str, remedy: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise errors.InputError(
            f"{where} is {value!r}, not a number; {remedy}"
        ) from None


def _train_command(workdir: pathlib.Path) -> str:
    return f"run: python -m restoration.train --workdir {workdir} --data_dir DIR"


def _evaluate_command(workdir: pathlib.Path, split: str) -> str:
    return f"run: python -m restoration.evaluate --workdir {workdir} --split {split}"


def read_metrics(workdir: pathlib.Path) -> dict[str, list[dict[str, Any]]]:
    """Reads the metrics that a run logged.

    Args:
      workdir: the run's folder, with metrics.jsonl.

    Returns:
      Records by split, ordered by step. Of two records of one step the later
      counts: a run that was killed repeats steps when it resumes.

    Raises:
      InputError: for a missing file, and for a line that cannot be read unless
        it is the last, which a kill may have cut.
    """
    path = workdir / "metrics.jsonl"
    remedy = _train_command(workdir)
    try:
        lines = path.read_bytes().rstrip().split(b"\n")
    except OSError as error:
        raise errors.InputError(f"{path}: {error.strerror}; {remedy}") from None
    found: dict[str, dict[float, dict[str, Any]]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = config.parse(line)
            found.setdefault(record["split"], {})[float(record["step"])] = record
        except _NOT_A_RECORD as error:
            if number == len(lines):
                break
            raise errors.InputError(
                f"{path}, line {number}: not a metrics record ({error!r}); "
                "delete that line, or train again in an empty workdir"
            ) from None
    return {
        split: [records[step] for step in sorted(records)]
        for split, records in found.items()
    }


def read_evaluation(workdir: pathlib.Path, split: str) -> dict[str, Any]:
    """Reads the averages over one split, checked to hold every metric."""
    path = workdir / "evaluation" / f"{split}.json"
    remedy = _evaluate_command(workdir, split)
    found = _read_object(path, remedy)
    for key in ("count", "input", "restored"):
        if key not in found:
            raise errors.InputError(f"{path}: no {key!r}; {remedy}")
    for side in ("input", "restored"):
        side_values = found[side] if isinstance(found[side], dict) else {}
        found[side] = {
            metric: _number(side_values.get(metric), f"{path}: {side} {metric}", remedy)
            for metric in scores.METRICS
        }
    return found


def read_scores(workdir: pathlib.Path, split: str) -> list[scores.Score]:
    """Reads the metrics of each picture of one split, in the file's order."""
    path = workdir / "evaluation" / f"{split}.csv"
    remedy = _evaluate_command(workdir, split)
    found = scores.from_csv(_read(path, remedy), source=str(path), remedy=remedy)
    for score in found:
        if not pairs.is_inside(score.name):
            raise errors.InputError(
                f"{path}: the name {score.name!r} leads out of its folder; {remedy}"
            )
    return found


# Numbers in words.

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def _fixed(value: float, digits: int, sign: bool = False) -> str:
    if math.isnan(value):
        return "n/a"
    if math.isinf(value):
        return "−∞" if value < 0 else "+∞" if sign else "∞"
    text = f"{value:{'+' if sign else ''},.{digits}f}"
    return text.replace("-", "−")


def _short(value: float) -> str:
    """Returns a number in four digits, powers of ten written out."""
    if 1e4 <= abs(value) < 1e7:
        return _fixed(value, 0)
    mantissa, _, exponent = f"{value:.4g}".partition("e")
    mantissa = mantissa.replace("-", "−")
    if not exponent:
        return mantissa
    power = "10" + str(int(exponent)).translate(_SUPERSCRIPTS)
    return power if mantissa == "1" else f"{mantissa}×{power}"


def _brief(value: float) -> str:
    return _short(float(f"{value:.3g}"))


def _mse(value: float) -> str:
    return _short(value) if 0 < value < 1e-4 else _fixed(value, 5)


def _verdict(gain: float) -> str:
    return "better" if gain > 0 else "worse" if gain < 0 else ""


def _table(split: str, evaluation: Mapping[str, Any]) -> dict[str, Any]:
    before, after = evaluation["input"], evaluation["restored"]
    relative = after["mse"] / before["mse"] - 1 if before["mse"] else 0.0
    score = scores.Score(split, before, after)
    row = ("metric", "unit", "input", "restored", "gain", "verdict")
    rows = [
        ("PSNR", "dB", _fixed(before["psnr"], 2), _fixed(after["psnr"], 2),
         _fixed(score.gain, 2, sign=True), _verdict(score.gain)),
        ("SSIM", "", _fixed(before["ssim"], 4), _fixed(after["ssim"], 4),
         _fixed(after["ssim"] - before["ssim"], 4, sign=True),
         _verdict(after["ssim"] - before["ssim"])),
        ("MSE", "", _mse(before["mse"]), _mse(after["mse"]),
         _fixed(100 * relative, 1, sign=True) + " %", _verdict(-relative)),
    ]  # fmt: skip
    return {
        "split": split,
        "count": gallery.count(evaluation["count"]),
        "rows": [dict(zip(row, values, strict=True)) for values in rows],
    }


def _spread(measured: Sequence[scores.Score]) -> str:
    gains = [score.gain for score in measured]
    if len(gains) < 2:
        return ""
    lost = sum(gain < 0 for gain in gains)
    return (
        f"PSNR gained, picture by picture: median "
        f"{_fixed(statistics.median(gains), 2, sign=True)} dB, from "
        f"{_fixed(min(gains), 2, sign=True)} to {_fixed(max(gains), 2, sign=True)} dB. "
        f"{lost or 'None'} of {len(gains)} came out worse than the input."
    )


# Curves.


def _thin(
    points: Sequence[tuple[float, float]],
) -> tuple[list[tuple[float, float]], int]:
    """Returns at most MOST_POINTS means of equal stretches, and their length."""
    length = max(1, math.ceil(len(points) / MOST_POINTS))
    stretches = [points[i : i + length] for i in range(0, len(points), length)]
    return [
        (statistics.fmean(x for x, _ in part), statistics.fmean(y for _, y in part))
        for part in stretches
    ], length


def _finite(value: Any) -> bool:
    """Whether a value is a number that a chart or a table can show."""
    return isinstance(value, int | float) and -_LIMIT < value < _LIMIT


def _curves(
    metrics: Mapping[str, Sequence[Mapping[str, Any]]], loss_name: str
) -> dict[str, Any]:
    """Returns the charts, their legend and the table of validation values."""
    records = {s: metrics[s] for s in ("train", "validation") if metrics.get(s)}
    everything = [record for found in records.values() for record in found]
    by_epoch = all(_finite(record.get("epoch")) for record in everything)
    over = "epoch" if by_epoch else "step"
    kinds = {
        "loss": (f"Loss ({loss_name})" if loss_name else "Loss", _brief, True),
        "psnr": ("PSNR, dB", lambda y: f"{_fixed(y, 2)} dB", False),
        "ssim": ("SSIM, 1 = identical", lambda y: _fixed(y, 3), False),
    }
    drawings, longest = [], 1
    for key, (y_label, write, lower_is_better) in kinds.items():
        lines = {}
        for split, found in records.items():
            points = [
                (float(record[over]), float(record[key]))
                for record in found
                if _finite(record.get(over)) and _finite(record.get(key))
            ]
            if split == "train":
                points, length = _thin(points)
                longest = max(longest, length)
            if points:
                lines[split] = points
        if lines:
            drawing = charts.draw(
                lines,
                id=key,
                x_label=f"{over}s",
                y_label=y_label,
                write=write,
                lower_is_better=lower_is_better,
            )
            drawings.append(markupsafe.Markup(drawing))
    history = None
    if records.get("validation"):
        writers = {
            "epoch": lambda value: _short(round(value, 2)),
            "step": lambda value: _fixed(value, 0),
            "loss": _short,
            "psnr": lambda value: _fixed(value, 2),
            "ssim": lambda value: _fixed(value, 4),
        }
        history = {
            "columns": ["Epoch", "Step", "Loss", "PSNR, dB", "SSIM"],
            "rows": [
                [
                    write(record[key]) if _finite(record.get(key)) else "n/a"
                    for key, write in writers.items()
                ]
                for record in records["validation"]
            ],
        }
    return {
        "charts": drawings,
        "lines": list(records),
        "history": history,
        "binned": f"train: means of {longest} records" if longest > 1 else "",
    }


# Pictures.


def _detail(metrics: Mapping[str, float]) -> str:
    psnr, ssim = _fixed(metrics["psnr"], 2), _fixed(metrics["ssim"], 3)
    # No-break spaces: a narrow page breaks between the two.
    return f"{psnr}\u00a0dB, SSIM\u00a0{ssim}"


def _pictured(
    options: ReportOptions,
    workdir: pathlib.Path,
    measured: Sequence[scores.Score],
    settings: Mapping[str, Any],
) -> tuple[dict[str, list[scores.Score]], dict[str, list[gallery.Picture]], str]:
    """Chooses the cases; returns them, their three files by name, and a note."""
    folder = workdir / "evaluation" / options.split
    restored = {s.name: folder / f"{s.name}.png" for s in measured}
    # os.path: a name may be longer than any file's.
    kept = [score for score in measured if os.path.isfile(restored[score.name])]
    chosen = scores.choose_cases(kept, options.cases)
    if not options.cases:
        return chosen, {}, ""
    if not kept:
        return chosen, {}, f"No restored pictures were kept in {folder.name}."
    remedy = "give the paired folder with --data_dir, or --cases=0 for none"
    data_dir = options.data_dir or settings.get("data_dir")
    if not isinstance(data_dir, str) or not data_dir or "\0" in data_dir:
        raise errors.InputError(f"{workdir / 'config.json'}: no 'data_dir'; {remedy}")
    if not pathlib.Path(data_dir).is_dir():
        raise errors.InputError(f"{data_dir}: no such folder; {remedy}")
    opened = sources.open_source(data_dir)
    found = {m.name: m for members in opened.splits.values() for m in members}
    found |= {m.name: m for m in opened.splits[options.split]}
    files = {}
    for score in (score for group in chosen.values() for score in group):
        if score.name not in found:
            raise errors.InputError(f"{data_dir}: no pair {score.name!r}; {remedy}")
        degraded, clean = _pictures(opened, found[score.name])
        files[score.name] = [degraded, restored[score.name], clean]
    everything = f"{len(measured)} {options.split} pictures"
    of = f"all {everything}"
    if len(kept) < len(measured):
        of = f"the {len(kept)} of {everything} that were kept"
    return chosen, files, f"Chosen by PSNR gained, from {of}."


def _pictures(
    opened: sources.Source, member: Any
) -> tuple[gallery.Picture, gallery.Picture]:
    """Returns worn and clean picture of a pair: its files, if it has any."""
    if isinstance(member, pairs.Pair):
        return member.input, member.output
    (batch,) = opened.evaluation_batches([member], batch_size=1)
    return tuple(batch[side][0] / np.float32(255) for side in ("input", "output"))


def _list_pictures(folder: str, flag: str, without: str) -> dict[str, pathlib.Path]:
    """Returns the pictures below a folder by path, less those of a folder in it."""
    root, other = pathlib.Path(folder), pathlib.Path(without).resolve()
    if not root.is_dir():
        raise errors.InputError(f"{root}: no such folder; give another with {flag}")
    inside = other != root.resolve() and other.is_relative_to(root.resolve())
    return {
        name: root / name
        for name in frames.list_images(root)
        if not (inside and (root / name).resolve().is_relative_to(other))
    }


def _possible_stems(stem: str, same_folder: bool) -> list[str]:
    """Returns the stems that a restored picture may come from, likeliest first."""
    if same_folder:
        ending = "_restored"
        return [stem.removesuffix(ending)] if stem.endswith(ending) else []
    ends = [i for i, letter in enumerate(stem) if letter in "_-."]
    return [stem, *(stem[:end] for end in reversed(ends))]


def match_pictures(
    before: str, after: str
) -> tuple[list[gallery.Comparison], list[str]]:
    """Matches restored pictures with those they were made from.

    A restored picture belongs to the picture of the same name without suffix,
    or else to the one with the longest name that begins its own up to a `_`,
    `-` or `.`, as in `street_restored.png`. In one folder for both, only
    `_restored` tells them apart.

    Args:
      before: folder of the originals; a text file of the same name as a
        picture holds its caption.
      after: folder of the restored ones, in the same subfolders.

    Returns:
      The matched pictures, and the names of originals without a restored one.

    Raises:
      InputError: if a folder is missing, nothing matches, or two originals
        have an equal claim.
    """
    originals = _list_pictures(before, "--before", after)
    restored = _list_pictures(after, "--after", before)
    same = pathlib.Path(before).resolve() == pathlib.Path(after).resolve()
    by_stem: dict[str, list[str]] = {}
    for name in originals:
        by_stem.setdefault(name[: name.rindex(".")], []).append(name)
    rows, used = [], set()
    for name, path in restored.items():
        possible = _possible_stems(name[: name.rindex(".")], same)
        stem = next((stem for stem in possible if stem in by_stem), None)
        if stem is None:
            continue
        claims = by_stem[stem]
        if len(claims) > 1:
            claims = [
                claim for claim in claims if claim.endswith(path.suffix)
            ] or claims
        if len(claims) > 1:
            raise errors.InputError(
                f"{path}: may belong to {' or '.join(claims)} in {before}; rename one"
            )
        used |= {claims[0], name} if same else {claims[0]}
        original = originals[claims[0]]
        sidecar = original.with_suffix(".txt")
        remedy = "write it as UTF-8 text, or take it away"
        caption = _read(sidecar, remedy).strip() if sidecar.is_file() else ""
        rows.append(gallery.Comparison(stem, original, path, caption))
    if not rows:
        raise errors.InputError(
            f"{after}: no picture matches one in {before}; restore them with: "
            f"python -m restoration.restore {before} -o {after}"
        )
    return rows, [name for name in originals if name not in used]


# The page.


def _setting(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _facts(
    settings: Mapping[str, Any],
    evaluation: Mapping[str, Any],
    path: pathlib.Path,
    metrics: Mapping[str, Sequence[Mapping[str, Any]]],
) -> list[tuple[str, str]]:
    """Returns what identifies the run, as far as its files tell it."""
    modified = datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC)
    facts = [("Model", str(evaluation.get("model") or settings.get("model") or "n/a"))]
    parameters = evaluation.get("parameters", settings.get("parameters"))
    if _finite(parameters):
        facts.append(("Parameters", f"{parameters:,}"))
    if _finite(evaluation.get("step")):
        facts.append(("Training steps", f"{evaluation['step']:,}"))
    speeds = [
        record["images_per_second"]
        for record in metrics.get("train", ())
        if _finite(record.get("images_per_second"))
    ]
    if speeds:
        speed = _brief(statistics.median(speeds))
        facts.append(("Training speed", f"{speed} pictures a second"))
    date = f"{modified.day} {modified:%B %Y}"
    return [*facts, ("Evaluated", str(evaluation.get("date") or date))]


def _run_context(
    options: ReportOptions, workdir: pathlib.Path
) -> tuple[
    dict[str, Any], Callable[[Sequence[gallery.Embedded]], None], list[gallery.Picture]
]:
    """Returns the run's part of the page, and the pictures that it waits for.

    All pictures of a page share one budget, so they are embedded together; the
    returned function puts them in their places.
    """
    settings = _read_object(workdir / "config.json", _train_command(workdir))
    metrics = read_metrics(workdir)
    folder = workdir / "evaluation"
    evaluation = read_evaluation(workdir, options.split)
    evaluations = {
        split: read_evaluation(workdir, split)
        for split in pairs.SPLITS
        if (folder / f"{split}.json").exists()
    }
    measured = read_scores(workdir, options.split)
    chosen, files, note = _pictured(options, workdir, measured, settings)
    total = scores.Score("", evaluation["input"], evaluation["restored"])
    before, after = (_fixed(s["psnr"], 2) for s in (total.input, total.restored))
    gain = _fixed(total.gain, 2, sign=True)
    titles = {"worst": "Worst", "typical": "Typical", "best": "Best"}
    groups = [
        {
            "title": titles[kind],
            "cases": [
                {
                    "name": score.name,
                    "gain": _fixed(score.gain, 2, sign=True),
                    "verdict": _verdict(score.gain),
                    "details": (_detail(score.input), _detail(score.restored), ""),
                }
                for score in group
            ],
        }
        for kind, group in chosen.items()
        if group
    ]
    protocols = [str(e.get("protocol") or PROTOCOL) for e in evaluations.values()]
    context = {
        "split": options.split,
        "count": gallery.count(evaluation["count"]),
        "headline": f"input PSNR {before} dB -> restored PSNR {after} dB ({gain} dB)",
        "input_psnr": before,
        "restored_psnr": after,
        "gain": gain,
        "facts": _facts(
            settings, evaluation, folder / f"{options.split}.json", metrics
        ),
        "protocols": list(dict.fromkeys(protocols)),
        "tables": [_table(split, found) for split, found in evaluations.items()],
        "spread": _spread(measured),
        "cases": groups if files else [],
        "cases_note": note,
        "config": [(name, _setting(value)) for name, value in settings.items()],
        **_curves(metrics, str(settings.get("loss", ""))),
    }

    def fill(embedded: Sequence[gallery.Embedded]) -> None:
        images = iter(embedded)
        for group in context["cases"]:
            for case in group["cases"]:
                three = [next(images) for _ in range(3)]
                labels = ("Input", "Restored", "Truth")
                case["plates"] = gallery.plates(labels, three, case["details"])

    order = [s.name for group in chosen.values() for s in group] if files else []
    return context, fill, [source for name in order for source in files[name]]


def report(options: ReportOptions) -> pathlib.Path:
    """Writes the page of a training run, of before/after pictures, or of both.

    Args:
      options: what goes on it.

    Returns:
      The page's path.

    Raises:
      InputError: for missing or malformed files, each with its remedy.
    """
    if bool(options.before) != bool(options.after):
        raise errors.InputError("--before and --after go together; give both folders")
    if not (options.workdir or options.after):
        raise errors.InputError(
            "nothing to report; give --input, --workdir, or --before --after"
        )
    run, compared, pictures = None, None, []
    if options.workdir:
        run, fill, pictures = _run_context(options, pathlib.Path(options.workdir))
    rows = []
    if options.before and options.after:
        rows, unmatched = match_pictures(options.before, options.after)
        few = "1 more has" if len(unmatched) == 1 else f"{len(unmatched)} more have"
        left = f"{few} no restored version." if unmatched else ""
        compared = {"note": left, "count": gallery.count(len(rows))}
    embedded = gallery.embed([*pictures, *gallery.both(rows)])
    if run:
        fill(embedded[: len(pictures)])
    if compared:
        compared["rows"] = gallery.comparison_rows(rows, embedded[len(pictures) :])
    default = "Restoration report" if run else "Before and after"
    text = page.render(
        "report.html.j2",
        title=options.title or default,
        script="page.js",
        run=run,
        gallery=compared,
    )
    folder = pathlib.Path(options.workdir or options.after or ".")
    out = pathlib.Path(options.out) if options.out else folder / "report.html"
    files.write_text(out, text)
    return out


def restored_report(options: ReportOptions) -> tuple[pathlib.Path, list[str]]:
    """Restores a folder and writes the page of it.

    Args:
      options: `input` is restored with `workdir`'s network or the best shipped model.

    Returns:
      The page's path, and a line for each picture that could not be restored.

    Raises:
      InputError: for a folder without pictures, or none that could be restored.
    """
    folder = pathlib.Path(options.input or "").resolve()
    if not folder.is_dir():
        raise errors.InputError(f"--input={options.input}: no such folder")
    beside = options.workdir and str(pathlib.Path(options.workdir) / "report.html")
    out = options.out or beside or f"{folder}_report.html"
    with tempfile.TemporaryDirectory() as after:
        results = batch.restore(
            batch.RestoreOptions(
                input=(str(folder),),
                output=after,
                workdir=options.workdir or "",
                recursive=True,
            )
        )
        failed = [result.error for result in results if result.error]
        if len(failed) == len(results):
            raise errors.InputError(failed[0])
        shown = dataclasses.replace(
            options, input=None, before=str(folder), after=after, out=out
        )
        return report(shown), failed


def main(options: ReportOptions) -> int:
    """Writes the page and prints its path; 1 when a picture was not restored."""
    failed: list[str] = []
    if options.input:
        backend.keep_freed_memory(large=False)
        backend.cache_compilations()
        path, failed = restored_report(options)
    else:
        path = report(options)
    for line in failed:
        print(f"error: {line}", file=sys.stderr)
    print(path)
    return int(bool(failed))


if __name__ == "__main__":
    cli.run(main, ReportOptions)
