"""Pictures in a page: embedded as JPEG data, shrunk to a budget, before and after."""

import base64
import dataclasses
import io
import math
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from restoration.images import frames
from restoration.reports import page

# Longest side of a picture on the page, and the size in bytes of all pictures as
# encoded in the page. Above this budget, all large pictures are shrunk.
LARGEST_SIDE = 1200
SMALLEST_SIDE = 240
BUDGET = 9_000_000

Picture = pathlib.Path | np.ndarray


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One picture before and after, as a file or as float RGB in [0, 1]."""

    name: str
    before: Picture
    after: Picture
    caption: str = ""


@dataclasses.dataclass(frozen=True)
class Embedded:
    """A picture as embedded in the page, and its full size in pixels."""

    uri: str
    width: int
    height: int
    full_width: int
    full_height: int

    @property
    def shrunk(self) -> bool:
        """Whether the embedded picture is smaller than the full one."""
        return self.width != self.full_width or self.height != self.full_height


def count(number: Any) -> str:
    """Returns `1 picture` or `1,920 pictures`."""
    text = f"{number:,}" if isinstance(number, int) else str(number)
    return f"{text} {'picture' if number == 1 else 'pictures'}"


def _encode(picture: Picture, longest_side: int) -> Embedded:
    if isinstance(picture, pathlib.Path):
        picture = frames.read(picture)
    image = Image.fromarray(frames.to_uint8(np.asarray(picture)))
    full_width, full_height = image.size
    ratio = longest_side / max(image.size)
    if ratio < 1:
        size = [max(1, round(side * ratio)) for side in image.size]
        image = image.resize(size, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    # Color subsampling would weaken red and blue specks. `optimize` is not used, since
    # Pillow then fails on very noisy images.
    image.save(buffer, "JPEG", quality=90, subsampling=0)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return Embedded(
        f"data:image/jpeg;base64,{data}", *image.size, full_width, full_height
    )


def embed(pictures: Sequence[Picture], budget: int = BUDGET) -> list[Embedded]:
    """Embeds all pictures of a page, shrunk until they fit the budget."""
    side = LARGEST_SIDE
    while True:
        embedded = [_encode(picture, side) for picture in pictures]
        total = sum(len(picture.uri) for picture in embedded)
        if total <= budget or side <= SMALLEST_SIDE:
            return embedded
        side = max(max(picture.width, picture.height) for picture in embedded)
        side = max(SMALLEST_SIDE, int(side * 0.95 * math.sqrt(budget / total)))


def plates(
    labels: Sequence[str], images: Sequence[Embedded], details: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Returns the template's context for pictures side by side.

    Args:
      labels: of the pictures.
      images: from `embed`.
      details: a line for each picture; none by default.

    Returns:
      "label", "image" and "detail" of each.
    """
    details = details or [""] * len(labels)
    return [
        {"label": label, "image": image, "detail": detail}
        for label, image, detail in zip(labels, images, details, strict=True)
    ]


def comparison_rows(
    rows: Sequence[Comparison], embedded: Sequence[Embedded]
) -> list[dict[str, Any]]:
    """Returns the template's context for pictures before and after.

    Args:
      rows: the pictures.
      embedded: `embed` of their `both`.

    Returns:
      "name", "caption" and "plates" of each.
    """
    return [
        {
            "name": row.name,
            "caption": row.caption,
            "plates": plates(("Before", "Restored"), embedded[2 * i : 2 * i + 2]),
        }
        for i, row in enumerate(rows)
    ]


def both(rows: Iterable[Comparison]) -> list[Picture]:
    """Returns the pictures of all rows: before and after of each."""
    return [source for row in rows for source in (row.before, row.after)]


def compare_page(rows: Sequence[Comparison], title: str) -> str:
    """Returns a self-contained HTML page of before/after sliders.

    Args:
      rows: the pictures, in the order of the page.
      title: its heading.

    Returns:
      The page's text.
    """
    shown = comparison_rows(rows, embed(both(rows)))
    return page.render(
        "compare.html.j2",
        title=title,
        script="page.js",
        rows=shown,
        count=count(len(rows)),
    )
