"""From an infrared scan of film to a mask of what lies on it.

The dyes of color film let infrared light pass, dust, hairs and scratches do not: in
the infrared scan they are dark on an even ground. That is what scanners' own dust
removal rests on (Edgar, "Digital ICE", US patent 5,266,805). Silver of black-and-white
film and the dyes of Kodachrome stop infrared light as they stop visible light; there
the scan follows the picture and says nothing of dust.

The scan is registered to the picture by a translation, what of the picture shines
through it is taken out by a straight line on the picture's log luma, and it is held
against its own median and spread. All works on rows, so that a page of any size fits.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from restoration.inference import layout, rows, tiling
from restoration.models import nafnet

# Every so many-th pixel is looked at, so that about so many are.
_SAMPLES = 1 << 18

# Windows of so many pixels a side are registered, no farther than so many pixels; what
# is found has to stand out of the rest of the correlation by so many times its spread.
_WINDOW, _FARTHEST, _CERTAIN = 512, 24, 8.0

# A scan follows the picture where a line through its log luma explains this share of
# the variance, and what it explains spreads by more than this part of the median.
_EXPLAINED, _SPREAD = 0.5, 0.05

# Damage stops at least this part of the light, and more than so many times as much as
# the scan's noise, by its median absolute deviation, does.
_DARK, _NOISE = 0.12, 6.0

# Damage is a little wider than where it is certain.
_GROWN = 1

_SMALLEST = 1 / 255


@dataclasses.dataclass(frozen=True)
class Fit:
    """How an infrared scan lies to its picture.

    Attributes:
      shift: pixels, down and across, from a picture's pixel to the scan's.
      constant: the scan where the picture is white, of 1.
      slope: what is added a unit of the picture's natural log luma.
      limit: the part of that below which a pixel is damaged.
      follows: whether the scan follows the picture and says nothing of damage.
    """

    shift: tuple[int, int]
    constant: float
    slope: float
    limit: float
    follows: bool


def _log(luma: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(luma, np.float32(_SMALLEST)))


def register(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[int, int]:
    """Returns by how much infrared windows are shifted against luma, phase correlated.

    What shows in both is dust, dark in one and dark or light in the other, and edges;
    so the strongest correlation counts, of either sign (Kuglin and Hines 1975).

    Args:
      pairs: luma and infrared windows, float (height, width), each pair of one size.

    Returns:
      Pixels down and across; 0, 0 where nothing stands out.
    """
    total: np.ndarray | float = 0.0
    for luma, infrared in pairs:
        height, width = luma.shape
        fade = np.hanning(height)[:, None] * np.hanning(width)[None]
        first, second = (
            np.fft.rfft2((window - np.median(window)) * fade)
            for window in (luma, infrared)
        )
        cross = np.conj(first) * second
        total = total + cross / np.maximum(np.abs(cross), 1e-12)
    correlation = np.abs(np.fft.irfft2(total, s=pairs[0][0].shape))
    height, width = correlation.shape
    far_down, far_across = (min(_FARTHEST, (side - 1) // 2) for side in (height, width))
    down, across = (np.arange(-far, far + 1) for far in (far_down, far_across))
    near = correlation[down[:, None] % height, across[None] % width]
    row, column = np.unravel_index(np.argmax(near), near.shape)
    if near[row, column] <= _CERTAIN * correlation.std():
        return 0, 0
    return int(down[row]), int(across[column])


def _line(log_luma: np.ndarray, infrared: np.ndarray) -> tuple[float, float]:
    """Returns constant and slope of a line that damage does not move."""
    kept = np.ones(len(infrared), bool)
    for _ in range(4):
        slope, constant = np.polyfit(log_luma[kept], infrared[kept], 1)
        rest = infrared - (constant + slope * log_luma)
        spread = 1.4826 * np.median(np.abs(rest[kept] - np.median(rest[kept])))
        kept = np.abs(rest - np.median(rest[kept])) <= 3 * spread + 1e-6
        if kept.sum() < 16:
            break
    return float(constant), float(slope)


def fit(luma: np.ndarray, infrared: np.ndarray, shift: tuple[int, int] = (0, 0)) -> Fit:
    """Holds an infrared scan against its picture.

    Args:
      luma: float (n,) in [0, 1], pixels from all of the picture.
      infrared: of the same pixels.
      shift: from `register`.

    Returns:
      How they lie to each other.
    """
    log_luma = _log(luma.astype(np.float64))
    varied = np.ptp(log_luma) > 1e-3
    constant, slope = float(np.median(infrared)), 0.0
    if varied:
        constant, slope = _line(log_luma, infrared.astype(np.float64))
    expected = np.maximum(constant + slope * log_luma, _SMALLEST)
    ratio = infrared / expected
    middle = float(np.median(ratio))
    spread = 1.4826 * float(np.median(np.abs(ratio - middle)))
    whole = np.abs(ratio - middle) <= 3 * spread + 1e-6
    follows = False
    if varied and slope and whole.sum() > 1:
        explained = np.var(expected[whole]) / max(np.var(infrared[whole]), 1e-12)
        moved = np.std(expected[whole]) / max(float(np.median(infrared)), _SMALLEST)
        follows = bool(min(explained, 1.0) > _EXPLAINED and moved > _SPREAD)
    limit = middle * (1 - max(_DARK, _NOISE * spread))
    return Fit(shift, constant, slope, max(limit, 0.0), follows)


def damaged(fitted: Fit, luma: np.ndarray, infrared: np.ndarray) -> np.ndarray:
    """Returns where an infrared scan, already shifted, shows damage; bool."""
    expected = np.maximum(fitted.constant + fitted.slope * _log(luma), _SMALLEST)
    return infrared < fitted.limit * expected


def shifted(
    read: rows.Read, size: tuple[int, int], shift: tuple[int, int]
) -> Iterator[np.ndarray]:
    """Yields rows moved so that a picture's pixel is at its own position.

    Args:
      read: gives rows (rows, width, channels).
      size: height and width.
      shift: as `Fit.shift`. Beyond borders the outermost pixels are repeated.
    """
    height, width = size
    down, across = shift
    columns = np.clip(np.arange(width) + across, 0, width - 1)
    top = last = None
    for block in read():
        first = 0 if top is None else top
        if last is None and down < 0:
            for _ in range(min(-down, height)):
                yield block[:1, columns]
        begin = max(down - first, 0)
        end = min(len(block), height + min(down, 0) - first)
        if begin < end:
            yield block[begin:end, columns]
        top, last = first + len(block), block[-1:]
    for _ in range(min(max(down, 0), height) if last is not None else 0):
        yield last[:, columns]


class _Growing:
    """What tiling needs to know."""

    halo, stride = _GROWN, 1


_GRID = layout.make_grid(_Growing, tile=(1024, 1024), overlap=1)


@jax.jit
def _grown(tiles: np.ndarray) -> jnp.ndarray:
    wide = nafnet.over_square(tiles, _GROWN, jnp.maximum, 0.0)
    return wide[:, *_GRID.inner]


def _windows(size: tuple[int, int]) -> tuple[tuple[int, int], list[tuple[int, int]]]:
    """Returns the windows' height and width, and where they begin."""
    side = tuple(min(_WINDOW, length) for length in size)
    tops, lefts = (
        sorted({(length - part) * step // 2 for step in range(3)})
        for length, part in zip(size, side, strict=True)
    )
    return side, [(top, left) for top in tops for left in lefts]


def _seen(
    luma: rows.Read, infrared: rows.Read, size: tuple[int, int]
) -> tuple[list[tuple[np.ndarray, np.ndarray]], np.ndarray, np.ndarray]:
    """Returns windows of both, and pixels of both from all of the page."""
    height, width = size
    side, corners = _windows(size)
    windows = [np.zeros((*side, 2), np.float32) for _ in corners]
    every = max(1, round((height * width / _SAMPLES) ** 0.5))
    sampled, top = [], 0
    for block in rows.beside(luma(), infrared()):
        sampled.append(block[-top % every :: every, ::every].reshape(-1, 2))
        for window, (first, left) in zip(windows, corners, strict=True):
            begin, end = max(first, top), min(first + side[0], top + len(block))
            if begin < end:
                part = block[begin - top : end - top, left : left + side[1]]
                window[begin - first : end - first] = part
        top += len(block)
    points = np.concatenate(sampled)
    return [(w[..., 0], w[..., 1]) for w in windows], points[:, 0], points[:, 1]


def make(
    luma: rows.Read, infrared: rows.Read, size: tuple[int, int]
) -> tuple[rows.Read | None, str]:
    """Makes a mask of an infrared scan.

    Args:
      luma: gives the picture's rows, float32 (rows, width, 1) in [0, 1].
      infrared: gives the scan's.
      size: height and width of both.

    Returns:
      What gives the mask's rows, uint8 (rows, width, 1), 255 where damaged; None with
      a note where the scan follows the picture.
    """
    windows, seen, by_infrared = _seen(luma, infrared, size)
    shift = register(windows)
    # Some samples are off by the shift; dust is so alike in all, and is no part of what
    # the line is fitted to.
    fitted = fit(seen, by_infrared, shift)
    if fitted.follows:
        return None, (
            "infrared was ignored: it follows the picture, as on silver "
            "black-and-white film and Kodachrome"
        )

    def marks() -> Iterator[np.ndarray]:
        moved = shifted(infrared, size, shift)
        for both in rows.beside(luma(), moved):
            found = damaged(fitted, both[..., :1], both[..., 1:])
            yield found.astype(np.float32)

    def mask() -> Iterator[np.ndarray]:
        for grown in tiling.restore_strips(_grown, marks(), _GRID, size):
            yield np.where(grown >= 0.5, np.uint8(255), np.uint8(0))

    return mask, ""
