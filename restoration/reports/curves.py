"""Curves of a training run."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import markupsafe

from restoration.reports import charts, numbers, run_files

# A training curve with more points is drawn as the means of equal parts.
MOST_POINTS = 300


def _thin(
    points: Sequence[tuple[float, float]],
) -> tuple[list[tuple[float, float]], int]:
    """Returns at most MOST_POINTS means of equal parts, and the parts' length."""
    length = max(1, math.ceil(len(points) / MOST_POINTS))
    parts = [points[i : i + length] for i in range(0, len(points), length)]
    return [
        (statistics.fmean(x for x, _ in part), statistics.fmean(y for _, y in part))
        for part in parts
    ], length


def curves(
    metrics: Mapping[str, Sequence[Mapping[str, Any]]], loss_name: str
) -> dict[str, Any]:
    """Returns the charts of a run, their legend and the table of validation values.

    Args:
      metrics: records by split, from `run_files.read_metrics`.
      loss_name: for the label of the loss.

    Returns:
      Context of the template.
    """
    records = {s: metrics[s] for s in ("train", "validation") if metrics.get(s)}
    everything = [record for found in records.values() for record in found]
    by_epoch = all(run_files.finite(record.get("epoch")) for record in everything)
    over = "epoch" if by_epoch else "step"
    kinds = {
        "loss": (f"Loss ({loss_name})" if loss_name else "Loss", numbers.brief, True),
        "psnr": ("PSNR, dB", lambda y: f"{numbers.fixed(y, 2)} dB", False),
        "ssim": ("SSIM, 1 = identical", lambda y: numbers.fixed(y, 3), False),
    }
    drawings, longest = [], 1
    for key, (y_label, write, lower_is_better) in kinds.items():
        lines = {}
        for split, found in records.items():
            points = [
                (float(record[over]), float(record[key]))
                for record in found
                if run_files.finite(record.get(over))
                and run_files.finite(record.get(key))
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
            "epoch": lambda value: numbers.short(round(value, 2)),
            "step": lambda value: numbers.fixed(value, 0),
            "loss": numbers.short,
            "psnr": lambda value: numbers.fixed(value, 2),
            "ssim": lambda value: numbers.fixed(value, 4),
        }
        history = {
            "columns": ["Epoch", "Step", "Loss", "PSNR, dB", "SSIM"],
            "rows": [
                [
                    write(record[key]) if run_files.finite(record.get(key)) else "n/a"
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
