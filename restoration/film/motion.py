"""Motion between frames: dense optical flow, and frames seen along it.

Flow is that of OpenCV's Dense Inverse Search (Kroeger et al. 2016, "Fast Optical Flow
using Dense Inverse Search", arXiv 1603.03590), preset 'fast', on 8-bit luma. A flow
from frame t to frame n is float32 (height, width, 2): what frame t shows at (x, y)
lies in frame n at (x, y) + flow, in pixels.
"""

import importlib.util
from collections.abc import Callable, Sequence

import numpy as np
from etils import epy

from restoration.base import errors

with epy.lazy_imports():
    import cv2

# Rows of a list of points that is sampled as a picture: OpenCV's sides are limited.
_ROW = 1024

# The least side of a frame whose motion is measured, pixels: with less, OpenCV 5.0
# reads beyond the frame where the other side is long.
LEAST_SIDE = 32


def require_opencv() -> None:
    """Raises InputError with the way to install OpenCV where it is missing."""
    if importlib.util.find_spec("cv2") is None:
        raise errors.InputError(
            "restoring films needs OpenCV for motion: pip install "
            "opencv-python-headless"
        )


def smoothed(grey: np.ndarray) -> np.ndarray:
    """Returns luma without grain, as motion is measured on: a 3×3 median."""
    return cv2.medianBlur(grey, 3)


def flow(start: np.ndarray, end: np.ndarray, *, fine: bool = False) -> np.ndarray:
    """Measures motion from one frame to another.

    Args:
      start: uint8 (height, width), luma.
      end: of the same shape.
      fine: measure at half the size, not only at a quarter: small things' own motion,
        and that of what lies on the film.

    Returns:
      float32 (height, width, 2), (right, down) in pixels.
    """
    height, width = start.shape
    if min(height, width) < LEAST_SIDE:
        return np.zeros((height, width, 2), np.float32)
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    if fine:
        search.setFinestScale(1)
    return search.calc(start, end, None)


def filled_from_around(
    hidden: np.ndarray, sigma: float = 8.0
) -> Callable[[np.ndarray], np.ndarray]:
    """Returns what replaces motion under a mask by that of its surroundings.

    Dirt spoils the motion that is measured under it.

    Args:
      hidden: bool (height, width).
      sigma: how far is looked, pixels.

    Returns:
      A function of a flow that gives the flow, changed only where `hidden`; where
      nothing is known near, as it was.
    """
    if not hidden.any():
        return lambda field: field
    # At a quarter of the size: what is wanted is smooth.
    height, width = hidden.shape
    size = (max(1, width // 4), max(1, height // 4))

    def around(plane: np.ndarray) -> np.ndarray:
        small = cv2.resize(plane, size, interpolation=cv2.INTER_AREA)
        return cv2.GaussianBlur(small, (0, 0), sigma / 4)

    known = (~hidden).astype(np.uint8)
    rows, columns = np.nonzero(hidden)
    scale = np.float32([size[0] / width, size[1] / height])
    position = (np.stack([columns, rows], -1) + np.float32(0.5)) * scale
    position = position.astype(np.float32) - np.float32(0.5)
    share = sampled(around(known.astype(np.float32)), position, cv2.INTER_LINEAR)
    sound = share > 1e-3
    rows, columns, share = rows[sound], columns[sound], share[sound]
    position = position[sound]

    def filled(field: np.ndarray) -> np.ndarray:
        total = around(cv2.copyTo(field, known))
        result = field.copy()
        for axis in range(2):
            values = sampled(total[..., axis], position, cv2.INTER_LINEAR)
            result[rows, columns, axis] = values / share
        return result

    return filled


def positions(field: np.ndarray) -> np.ndarray:
    """Returns where each pixel lies in the other frame, float32 (height, width, 2)."""
    height, width = field.shape[:2]
    position = field.copy()
    position[..., 0] += np.arange(width, dtype=np.float32)
    position[..., 1] += np.arange(height, dtype=np.float32)[:, None]
    return position


def warped(image: np.ndarray, field: np.ndarray) -> np.ndarray:
    """Returns another frame as it looks from the frame that a flow starts in.

    Args:
      image: (height, width), the frame that the flow leads to.
      field: the flow.

    Returns:
      Of the image's shape and type; beyond its border the border goes on.
    """
    return cv2.remap(
        image,
        positions(field),
        None,
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )


def sampled(
    plane: np.ndarray, position: np.ndarray, how: int | None = None
) -> np.ndarray:
    """Samples a plane.

    Args:
      plane: (height, width).
      position: float32 (n, 2), (x, y) in pixels of the plane.
      how: OpenCV's interpolation; bicubic by default.

    Returns:
      float32 (n,); beyond the border the border goes on.
    """
    count = len(position)
    if not count:
        return np.empty(0, np.float32)
    padded = np.zeros((-(-count // _ROW) * _ROW, 2), np.float32)
    padded[:count] = position
    found = cv2.remap(
        plane,
        padded.reshape(-1, _ROW, 2),
        None,
        cv2.INTER_CUBIC if how is None else how,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return found.reshape(-1)[:count].astype(np.float32)


def spikes(
    grey: np.ndarray,
    references: Sequence[np.ndarray],
    *,
    high: float = 12.0,
    low: float = 5.0,
    agreement: float = 14.0,
) -> np.ndarray:
    """Finds what a frame shows and neither of two references does.

    Storey's spike detector (1985; Kokaram's SDIp), with motion: a pixel counts where it
    is brighter, or darker, than all of the 3×3 pixels around it in both references,
    which must agree; hysteresis joins fainter pixels to those that are sure.

    Args:
      grey: uint8 (height, width).
      references: two frames as they look from this one, uint8.
      high: by how many levels of 255 a pixel lies outside, to be sure.
      low: the same for pixels that touch sure ones.
      agreement: by how much the means of the references may differ there.

    Returns:
      bool (height, width).
    """
    square = np.ones((3, 3), np.uint8)
    one, other = references
    low_end = np.minimum(cv2.erode(one, square), cv2.erode(other, square))
    high_end = np.maximum(cv2.dilate(one, square), cv2.dilate(other, square))
    excess = np.maximum(cv2.subtract(grey, high_end), cv2.subtract(low_end, grey))
    difference = cv2.blur(cv2.absdiff(one, other), (5, 5))
    allowed = difference < agreement
    return grown((excess > high) & allowed, (excess > low) & allowed)


def grown(sure: np.ndarray, possible: np.ndarray) -> np.ndarray:
    """Returns the connected regions of `possible` that hold a pixel of `sure`."""
    count, labels = cv2.connectedComponents(possible.astype(np.uint8), connectivity=8)
    keep = np.zeros(count, bool)
    keep[labels[sure]] = True
    keep[0] = False
    return keep[labels]
