"""Reports how two films were aligned: a CSV table, a JSON file and an HTML page.

The page is self-contained, like that of `clean`.
"""

import base64
import csv
import dataclasses
import io
import json
import math
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from restoration.base import errors, files
from restoration.film import footage, remaster, video
from restoration.reports import page

_COLUMNS = (
    "worn_frame", "worn_seconds", "remaster_frame", "remaster_seconds", "shot",
    "likeness", "status", "name",
)  # fmt: skip

# Squares along the shorter side of a chessboard picture.
_SQUARES = 6


def paths(folder: pathlib.Path, degraded: video.Film) -> tuple[pathlib.Path, ...]:
    """Returns the files that `write` writes: page, table and JSON file."""
    name = footage.folder_name(degraded)
    return tuple(folder / f"{name}.alignment.{end}" for end in ("html", "csv", "json"))


def _frames(paired: remaster.Paired) -> Iterator[dict[str, Any]]:
    """Yields a row of the table for each frame of the degraded film."""
    for shot in paired.shots:
        partner = dict(shot.matches)
        numbers = (number for number, _ in shot.matches)
        likeness = dict(zip(numbers, shot.likeness, strict=True))
        for number in range(shot.start, shot.end):
            other = partner.get(number)
            result = paired.results.get(number)
            if other is None:
                status = "unmatched"
            elif result:
                status = "written" if result.name else "dropped"
            else:
                status = "matched" if shot.geometry else "dropped"
            alike = result.likeness if result else likeness.get(number)
            yield {
                "worn_frame": number,
                "worn_seconds": round(float(paired.degraded.seconds[number]), 6),
                "remaster_frame": other,
                "remaster_seconds": None
                if other is None
                else round(float(paired.target.seconds[other]), 6),
                "shot": shot.index + 1,
                "likeness": None if alike is None else round(float(alike), 4),
                "status": status,
                "name": result.name if result else "",
            }


def offsets(shot: remaster.PairedShot) -> list[dict[str, int]]:
    """Returns the parts of a shot that have one offset in time each.

    Args:
      shot: a shot of the degraded film.

    Returns:
      For each part its first degraded frame, the number of matched frames, and the
      offset: how many frames later they come in the remaster.
    """
    found: list[dict[str, int]] = []
    for number, other in shot.matches:
        if not found or found[-1]["offset"] != other - number:
            found.append({"frame": number, "matched": 0, "offset": other - number})
        found[-1]["matched"] += 1
    return found


def _film(seen: footage.Footage) -> dict[str, Any]:
    return {
        "file": seen.film.path.name,
        "width": seen.film.width,
        "height": seen.film.height,
        "frames_per_second": round(seen.film.rate, 4),
        "frames": len(seen.seconds),
        "failure": seen.failure,
    }


def _shot(shot: remaster.PairedShot, paired: remaster.Paired) -> dict[str, Any]:
    """Returns the numbers of one shot."""
    here = [
        result
        for number, result in paired.results.items()
        if shot.start <= number < shot.end
    ]
    return {
        "shot": shot.index + 1,
        "first_frame": shot.start,
        "frames": shot.end - shot.start,
        "matched": len(shot.matches),
        "offsets": offsets(shot),
        "likeness": round(float(np.median(shot.likeness)), 4) if shot.matches else None,
        "geometry": dataclasses.asdict(shot.geometry) if shot.geometry else None,
        "geometry_of": "shot" if shot.own else "film",
        "measured_frames": shot.measured,
        "spread": None if math.isnan(shot.spread) else round(shot.spread, 3),
        "box": shot.box if shot.geometry else None,
        "written": sum(bool(result.name) for result in here),
        "dropped": sum(not result.name for result in here),
    }


def summary(paired: remaster.Paired) -> dict[str, Any]:
    """Returns the content of the JSON file."""
    return {
        "worn": _film(paired.degraded),
        "remaster": _film(paired.target),
        "geometry": "position in the remaster = scale * position in the worn frame + "
        "shift, in pixels from the edge",
        "shots": [_shot(shot, paired) for shot in paired.shots],
    }


def _picture(image: np.ndarray, label: str) -> dict[str, Any]:
    data = io.BytesIO()
    Image.fromarray(image).save(data, "JPEG", quality=82)
    return {
        "label": label,
        "uri": "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode(),
        "width": image.shape[1],
        "height": image.shape[0],
    }


def _mixed(degraded: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """Returns a chessboard of both: continuous edges mean that they are aligned.

    The remaster gets the degraded frame's colors, so that only edges can differ.
    """
    axes = (0, 1)
    gain = degraded.std(axes) / np.maximum(clean.std(axes), 1)
    tinted = (clean - clean.mean(axes)) * gain + degraded.mean(axes)
    side = max(1, min(degraded.shape[:2]) // _SQUARES)
    rows, columns = (np.arange(size) // side for size in degraded.shape[:2])
    even = (rows[:, None] + columns)[..., None] % 2 == 0
    return np.where(even, degraded, np.clip(np.rint(tinted), 0, 255)).astype(np.uint8)


def _cases(paired: remaster.Paired) -> Iterator[dict[str, Any]]:
    """Yields the pairs that the page shows."""
    for number, result in paired.results.items():
        if not result.pictures:
            continue
        degraded, clean = result.pictures
        yield {
            "name": result.name or f"frame {number}, dropped",
            "likeness": result.likeness,
            "plates": [
                _picture(degraded, "worn"),
                _picture(_mixed(degraded, clean), "both"),
                _picture(clean, "remaster"),
            ],
        }


def _runs(paired: remaster.Paired) -> Iterator[dict[str, Any]]:
    """Yields runs of frames with the same status, for the strip on the page."""
    start, before = 0, ""
    for row in _frames(paired):
        status = "kept" if row["status"] in ("written", "matched") else row["status"]
        if status != before:
            if before:
                yield {"start": start, "end": row["worn_frame"], "status": before}
            start, before = row["worn_frame"], status
    yield {"start": start, "end": len(paired.degraded.seconds), "status": before}


def _page(paired: remaster.Paired) -> str:
    numbers = summary(paired)
    total, matched, written = (
        sum(shot[name] for shot in numbers["shots"])
        for name in ("frames", "matched", "written")
    )
    return page.render(
        "alignment.html.j2",
        title=f"{footage.folder_name(paired.degraded.film)} and its remaster",
        styles=("clean.css", "alignment.css"),
        facts=(
            ("pairs written", written),
            ("worn frames matched", matched),
            ("without a counterpart", total - matched),
        ),
        runs=tuple(_runs(paired)),
        cases=tuple(_cases(paired)),
        **numbers,
    )


def write(folder: pathlib.Path, paired: remaster.Paired) -> pathlib.Path:
    """Writes the page, the table of frames and the numbers of shots.

    Args:
      folder: the paired folder.
      paired: the aligned films and their pairs.

    Returns:
      The page's file.

    Raises:
      InputError: if a file cannot be written.
    """
    table = io.StringIO()
    writer = csv.DictWriter(table, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_frames(paired))
    texts = (
        _page(paired),
        table.getvalue(),
        json.dumps(summary(paired), indent=1, allow_nan=False) + "\n",
    )
    targets = paths(folder, paired.degraded.film)
    for target, text in zip(targets, texts, strict=True):
        try:
            files.write_text(target, text)
        except OSError as error:
            raise errors.InputError(
                f"{target}: cannot be written ({error.strerror}); all pairs are "
                "written; make room and run again with --overwrite"
            ) from None
    return targets[0]
