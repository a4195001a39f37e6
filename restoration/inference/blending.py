"""What of a restored picture goes into the values that are written.

All works on rows: stored values (rows, width, bands), and RGB of sRGB in [0, 1]
before and after, float32 (rows, width, 3).
"""

import numpy as np

from restoration.images.picture import Page


def visible(page: Page, values: np.ndarray) -> np.ndarray | None:
    """Returns the opacity of each pixel, float32 (rows, width, 1), or None."""
    if not page.alpha:
        return None
    alpha = values[..., page.colors, None].astype(np.float32)
    return alpha / np.float32(page.opacity)


def apply_change(
    page: Page, values: np.ndarray, change: np.ndarray, weight: np.ndarray | float
) -> np.ndarray:
    """Returns stored values with a part of a change in their colors.

    Where the change or its weight is 0, and under full transparency, values stay
    exactly as they are; so do channels that are no colors.

    Args:
      page: of what kind the values are.
      values: stored values.
      change: what is added to the colors, as a part of white.
      weight: how much of it, for all pixels or (rows, width, 1).

    Returns:
      An array like `values`.
    """
    colors = values[..., : page.colors]
    change = change.astype(np.float32) * weight
    opacity = visible(page, values)
    if opacity is not None:
        change = change * (opacity if page.premultiplied else opacity > 0)
    span = np.float32(page.scale - page.black)
    change = change * (-span if page.inverted else span)
    if page.dtype.startswith("float"):
        changed = np.where(change == 0, colors, colors + change)
    else:
        changed = colors + change
        changed = np.rint(np.clip(changed, 0, page.scale))
    result = values.copy()
    result[..., : page.colors] = changed
    return result


def difference(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Returns what was changed as uint8 RGB: grey where nothing, lighter where lit."""
    return np.rint(127.5 + 127.5 * np.clip(after - before, -1, 1)).astype(np.uint8)
