"""Infrared in film scans: which channel or page it is.

Scanners that look for dust add the film's infrared to the picture: SilverFast as a
grey page behind it, VueScan and others as a fourth sample, marked as unspecified, not
marked at all, or wrongly as transparency. Dyes are clear to infrared, so that it is
light, noisy as a sensor is, and dark only where there is dirt.
"""

import re

import numpy as np

# Values in between count as neither opaque nor transparent, as parts of white.
_CLEAR, _OPAQUE = 0.01, 0.99

# Least median of second differences along rows that is a sensor's noise. Soft masks and
# gradients are smooth.
_NOISE = 0.0015

# A grey page of infrared is light and flat, and does not show the picture.
_LIGHT, _CONTRAST, _ALIKE = 0.4, 0.2, 0.6

_NAMED = re.compile(rb"\binfra-?red\b|(?<![A-Za-z])IR(?![A-Za-z])", re.IGNORECASE)


def is_named(*texts: bytes) -> bool:
    """Returns whether a page's own texts call it infrared."""
    return any(_NAMED.search(text) for text in texts)


def is_channel(values: np.ndarray) -> bool:
    """Returns whether a channel's values look like infrared, not like transparency.

    Transparency is complete or none in most of a picture, or smooth.

    Args:
      values: float (height, width) in [0, 1], neighbours of the picture.
    """
    between = (values > _CLEAR) & (values < _OPAQUE)
    if between.mean() < 0.5 or values.shape[1] < 3:
        return False
    bends = np.abs(np.diff(values, 2, axis=1))[between[:, 1:-1]]
    # A smooth ramp that was rounded bends by one step of its integers.
    step = np.diff(np.unique(values)).min(initial=1)
    return bool(bends.size and np.median(bends) > max(_NOISE, 1.01 * step))


def is_page(values: np.ndarray, picture: np.ndarray) -> bool:
    """Returns whether a grey page looks like the infrared of a color page before it.

    Args:
      values: float (height, width) in [0, 1] of the page.
      picture: float of the same shape, the color page's lightness.
    """
    if np.median(values) < _LIGHT or values.std() > _CONTRAST:
        return False
    deviations = values.std() * picture.std()
    if deviations < 1e-6:
        return False
    covariance = ((values - values.mean()) * (picture - picture.mean())).mean()
    return abs(covariance / deviations) < _ALIKE
