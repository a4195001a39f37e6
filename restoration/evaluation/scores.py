"""Metrics of single images: their CSV file, and the choice of examples to show."""

import csv
import dataclasses
import io
import math
import statistics
from collections.abc import Iterable, Mapping

from restoration.base import errors

# The order of the metrics in tables, CSV and JSON.
METRICS = ("mse", "psnr", "ssim")

_COLUMNS = {
    f"{side}_{metric}": (side, metric)
    for side in ("input", "restored")
    for metric in METRICS
}


@dataclasses.dataclass(frozen=True)
class Score:
    """The metrics of one image: of its input, and of the restored image."""

    name: str
    input: Mapping[str, float]
    restored: Mapping[str, float]

    @property
    def gain(self) -> float:
        """PSNR gained in dB; minus infinity if the restored PSNR is not a number."""
        before, after = self.input["psnr"], self.restored["psnr"]
        if before == after:
            return 0.0  # both may be infinite
        return -math.inf if math.isnan(after) else after - before


def choose_cases(scores: Iterable[Score], count: int) -> dict[str, list[Score]]:
    """Chooses the worst, typical and best images by PSNR gained.

    Args:
      scores: the metrics of the images to choose from.
      count: images of each kind; fewer if the kinds would overlap.

    Returns:
      The lists "worst" (worst first), "typical" (nearest the median first) and
      "best" (best first). No image is in two of them.
    """
    ordered = sorted(scores, key=lambda score: (score.gain, score.name))
    if not ordered or not count:
        return {"worst": [], "typical": [], "best": []}
    median = statistics.median(score.gain for score in ordered)
    ends = min(count, max(1, len(ordered) // 3))
    worst, rest = ordered[:ends], ordered[ends:]
    best = rest[-ends:][::-1]
    between = rest[: len(rest) - len(best)]
    between.sort(key=lambda score: (abs(score.gain - median), score.name))
    return {"worst": worst, "typical": between[:count], "best": best}


def to_csv(scores: Iterable[Score]) -> str:
    """Returns a CSV table with one row per image."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", *_COLUMNS])
    for score in scores:
        values = (getattr(score, side)[metric] for side, metric in _COLUMNS.values())
        writer.writerow([score.name, *(f"{value:.8g}" for value in values)])
    return text.getvalue()


def from_csv(text: str, *, source: str, remedy: str) -> list[Score]:
    """Reads what `to_csv` wrote.

    Args:
      text: the table; its columns may have another order.
      source: the file's name, for the error.
      remedy: what to do about a malformed file, for the error.

    Returns:
      The scores in the file's order.

    Raises:
      InputError: if a column is missing or a value is not a number.
    """
    rows = csv.DictReader(io.StringIO(text))
    missing = [c for c in ("name", *_COLUMNS) if c not in (rows.fieldnames or ())]
    if missing:
        raise errors.InputError(f"{source}: no column {', '.join(missing)}; {remedy}")
    scores = []
    for row in rows:
        values: dict[str, dict[str, float]] = {"input": {}, "restored": {}}
        for column, (side, metric) in _COLUMNS.items():
            try:
                values[side][metric] = float(row[column])
            except (TypeError, ValueError):
                raise errors.InputError(
                    f"{source}, line {rows.line_num}: {column} is {row[column]!r}, "
                    f"not a number; {remedy}"
                ) from None
        scores.append(Score(row["name"], **values))
    return scores
