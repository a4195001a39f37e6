"""The page of `restore --compare`: each picture before and after, with a slider."""

import pathlib
from collections.abc import Sequence

import numpy as np
import pyvips

from restoration.base import errors, files
from restoration.images import metadata, picture
from restoration.inference.restore_file import Restored
from restoration.reports import gallery

# Number of pictures on the page, which keeps its file small, and their longest side.
MOST = 60
_SIDE = 1200


def _thumbnail(path: pathlib.Path) -> pyvips.Image:
    options = {"size": "down", "export_profile": "srgb"}
    found = picture.inspect(path)
    if found.format in metadata.FORMATS:
        return pyvips.Image.thumbnail(str(path), _SIDE, **options)
    values = np.concatenate(list(picture.rows(found, found.pages[0])))
    return pyvips.Image.new_from_array(values).thumbnail_image(_SIDE, **options)


def _shown(path: pathlib.Path) -> np.ndarray:
    """Returns a picture for the page: upright, small, in sRGB, on white."""
    image = _thumbnail(path)
    if image.hasalpha():
        image = image.flatten(background=255)
    values = image.colourspace("srgb").cast("uchar").numpy()
    values = values.reshape(image.height, image.width, -1)[..., :3]
    return np.broadcast_to(values, (*values.shape[:2], 3)).astype(np.float32) / 255


def write(path: pathlib.Path, results: Sequence[Restored]) -> list[str]:
    """Writes a page of the first restored pictures.

    Args:
      path: the page.
      results: of all pictures; those that failed are left out.

    Returns:
      Lines to print about pictures that are not on the page.
    """
    done = [result for result in results if not result.error and not result.skipped]
    rows, notes = [], []
    for result in done[:MOST]:
        try:
            pair = _shown(result.input), _shown(result.output)
        except (pyvips.Error, errors.InputError):
            notes.append(f"{result.input}: not on the page, since it cannot be shown")
            continue
        caption = "; ".join(result.notes)
        rows.append(gallery.Comparison(result.input.name, *pair, caption))
    if len(done) > MOST:
        notes.append(f"the first {MOST} of {len(done)} pictures are on {path}")
    if rows:
        files.write_text(path, gallery.compare_page(rows, "Before and after"))
    return notes
