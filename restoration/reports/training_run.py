"""The part of a report on a training run."""

import dataclasses
import datetime
import json
import os
import pathlib
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from restoration.base import config, errors
from restoration.data import draw_config, pairs, sources
from restoration.evaluation import scores
from restoration.reports import (
    curves,
    gallery,
    numbers,
    run_files,
)

# Settings that say nothing where no pairs are drawn.
_OF_DRAWING = {field.name for field in dataclasses.fields(draw_config.DrawConfig)}

PROTOCOL = "PSNR/SSIM: RGB in [0,1], Gaussian 11x11 sigma 1.5, per image, averaged"


@dataclasses.dataclass(frozen=True)
class ReportOptions:
    """Options of `python -m restoration.report`."""

    workdir: str | None = config.option(None, help="folder of the training run")
    data_dir: str | None = config.option(
        None, help="paired folder of the run; default: the one in config.json"
    )
    split: str = config.option(
        "test", help="split of the headline and of the pictures", choices=pairs.SPLITS
    )
    input: str | None = config.option(
        None, short="i", help="folder of pictures to restore and show, with the "
        "workdir's network or the default model; NAME.txt is a picture's caption",
    )  # fmt: skip
    before: str | None = config.option(
        None, help="folder of pictures without targets; NAME.txt is a picture's caption"
    )
    after: str | None = config.option(
        None, help="folder of their restored versions, named NAME or NAME_restored"
    )
    title: str | None = config.option(None, help="heading of the page")
    out: str | None = config.option(
        None, short="o", help="page to write; default: report.html in --workdir or "
        "--after, INPUT_report.html beside --input",
    )  # fmt: skip
    cases: int = config.option(
        4, help="number of worst, of typical and of best pictures", minimum=0
    )

    def __post_init__(self):
        """Checks the limits and choices."""
        config.check(self)
        if self.input and (self.before or self.after):
            raise errors.InputError("give --input, or --before and --after, not both")


def table(split: str, evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the rows of a split's table: metric, input, restored and gain."""
    before, after = evaluation["input"], evaluation["restored"]
    relative = after["mse"] / before["mse"] - 1 if before["mse"] else 0.0
    score = scores.Score(split, before, after)
    row = ("metric", "unit", "input", "restored", "gain", "verdict")
    rows = [
        (
            "PSNR",
            "dB",
            numbers.fixed(before["psnr"], 2),
            numbers.fixed(after["psnr"], 2),
            numbers.fixed(score.gain, 2, sign=True),
            numbers.verdict(score.gain),
        ),
        (
            "SSIM",
            "",
            numbers.fixed(before["ssim"], 4),
            numbers.fixed(after["ssim"], 4),
            numbers.fixed(after["ssim"] - before["ssim"], 4, sign=True),
            numbers.verdict(after["ssim"] - before["ssim"]),
        ),
        (
            "MSE",
            "",
            numbers.mse(before["mse"]),
            numbers.mse(after["mse"]),
            numbers.fixed(100 * relative, 1, sign=True) + " %",
            numbers.verdict(-relative),
        ),
    ]
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
    median, least, most = (
        numbers.fixed(gain, 2, sign=True)
        for gain in (statistics.median(gains), min(gains), max(gains))
    )
    return (
        f"PSNR gained per picture: median {median} dB, from {least} to {most} dB. "
        f"{lost or 'None'} of {len(gains)} became worse than the input."
    )


def _detail(metrics: Mapping[str, float]) -> str:
    psnr, ssim = numbers.fixed(metrics["psnr"], 2), numbers.fixed(metrics["ssim"], 3)
    # No-break spaces: a narrow page breaks the line between the two.
    return f"{psnr}\u00a0dB, SSIM\u00a0{ssim}"


def _pictured(
    options: ReportOptions,
    workdir: pathlib.Path,
    measured: Sequence[scores.Score],
    settings: Mapping[str, Any],
) -> tuple[dict[str, list[scores.Score]], dict[str, list[gallery.Picture]], str]:
    """Chooses the examples; returns them, their three pictures by name, and a note."""
    folder = workdir / "evaluation" / options.split
    restored = {s.name: folder / f"{s.name}.png" for s in measured}
    # Unlike pathlib's, this `isfile` accepts a name that is too long for a file.
    kept = [score for score in measured if os.path.isfile(restored[score.name])]
    chosen = scores.choose_cases(kept, options.cases)
    if not options.cases:
        return chosen, {}, ""
    if not kept:
        return chosen, {}, f"No restored pictures were saved in {folder.name}."
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
        of = f"the {len(kept)} of {everything} that were saved"
    return chosen, files, f"Chosen by PSNR gained, from {of}."


def _pictures(
    opened: sources.Source, member: Any
) -> tuple[gallery.Picture, gallery.Picture]:
    """Returns the degraded and the clean picture of a pair, as files or arrays."""
    if isinstance(member, pairs.Pair):
        return member.input, member.output
    (batch,) = opened.evaluation_batches([member], batch_size=1)
    return tuple(batch[side][0] / np.float32(255) for side in ("input", "output"))


def _setting(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _facts(
    settings: Mapping[str, Any],
    evaluation: Mapping[str, Any],
    path: pathlib.Path,
    metrics: Mapping[str, Sequence[Mapping[str, Any]]],
) -> list[tuple[str, str]]:
    """Returns the facts about the run that its files contain."""
    modified = datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC)
    facts = [("Model", str(evaluation.get("model") or settings.get("model") or "n/a"))]
    parameters = evaluation.get("parameters", settings.get("parameters"))
    if run_files.finite(parameters):
        facts.append(("Parameters", f"{parameters:,}"))
    if run_files.finite(evaluation.get("step")):
        facts.append(("Training steps", f"{evaluation['step']:,}"))
    speeds = [
        record["images_per_second"]
        for record in metrics.get("train", ())
        if run_files.finite(record.get("images_per_second"))
    ]
    if speeds:
        speed = numbers.brief(statistics.median(speeds))
        facts.append(("Training speed", f"{speed} images per second"))
    date = f"{modified.day} {modified:%B %Y}"
    return [*facts, ("Evaluated", str(evaluation.get("date") or date))]


def run_context(
    options: ReportOptions, workdir: pathlib.Path
) -> tuple[
    dict[str, Any], Callable[[Sequence[gallery.Embedded]], None], list[gallery.Picture]
]:
    """Returns the template's context for a run, and its pictures.

    All pictures of a page are embedded together, since they share one budget.

    Args:
      options: of the report.
      workdir: the run's folder.

    Returns:
      The context; a function that adds the embedded pictures to it; and the pictures
      to embed.

    Raises:
      InputError: if a file is missing or malformed; names the remedy.
    """
    settings = run_files.read_object(
        workdir / "config.json", run_files.train_command(workdir)
    )
    metrics = run_files.read_metrics(workdir)
    folder = workdir / "evaluation"
    evaluation = run_files.read_evaluation(workdir, options.split)
    evaluations = {
        split: run_files.read_evaluation(workdir, split)
        for split in pairs.SPLITS
        if (folder / f"{split}.json").exists()
    }
    measured = run_files.read_scores(workdir, options.split)
    chosen, files, note = _pictured(options, workdir, measured, settings)
    total = scores.Score("", evaluation["input"], evaluation["restored"])
    before, after = (numbers.fixed(s["psnr"], 2) for s in (total.input, total.restored))
    gain = numbers.fixed(total.gain, 2, sign=True)
    titles = {"worst": "Worst", "typical": "Typical", "best": "Best"}
    groups = [
        {
            "title": titles[kind],
            "cases": [
                {
                    "name": score.name,
                    "gain": numbers.fixed(score.gain, 2, sign=True),
                    "verdict": numbers.verdict(score.gain),
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
        "tables": [table(split, found) for split, found in evaluations.items()],
        "spread": _spread(measured),
        "cases": groups if files else [],
        "cases_note": note,
        "config": [
            (name, _setting(value))
            for name, value in settings.items()
            if settings.get("clean") or name not in _OF_DRAWING
        ],
        **curves.curves(metrics, str(settings.get("loss", ""))),
    }

    def fill(embedded: Sequence[gallery.Embedded]) -> None:
        images = iter(embedded)
        for group in context["cases"]:
            for case in group["cases"]:
                three = [next(images) for _ in range(3)]
                labels = ("Input", "Restored", "Target")
                case["plates"] = gallery.plates(labels, three, case["details"])

    order = [s.name for group in chosen.values() for s in group] if files else []
    return context, fill, [source for name in order for source in files[name]]
