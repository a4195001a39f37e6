"""Small numbers that stand for an image: likeness, shift, sharpness, hashes.

Pure functions behind the audit. Luma is float32 (height, width), 0 to 255.
"""

import functools
import math

import numpy as np
from PIL import Image

# Images are compared at this size at most: phase correlation still finds some
# tenths of a pixel there, and costs as little as decoding a small PNG.
WORKING_SIDE = 160

# Grain is measured in a crop of this size, at its own scale.
_CROP = 160

# A 128-bit hash is cut into bands; two hashes that differ in fewer bits than
# there are bands share one of them (pigeonhole), so only those are compared.
_BANDS = ((0, 21), (21, 21), (42, 22))

# How many neighbours each entry of a sorted band is compared with: bounds the
# work where thousands of frames of one scene share a band.
_REACH = 32

# Bits of 128 and correlation of 8x8 thumbnails for a near duplicate. Among 480
# photographs the closest two of different scenes differ in 13 bits and correlate
# by 0.90; a copy scaled by a half, faded and saved as JPEG at quality 50 differs
# in 8 bits at most 99 times in 100, and correlates by 0.997.
_NEAR_BITS = 8
_NEAR_CORRELATION = 0.985

# What `character` measures.
CHARACTER = ("noise", "fine noise", "detail", "contrast", "color")


def grey(image: Image.Image) -> Image.Image:
    """Returns an RGB image as grey, scaled down to WORKING_SIDE where larger."""
    wide, high = image.size
    size = min(wide, WORKING_SIDE), min(high, WORKING_SIDE)
    image = image.convert("L")
    return image if size == image.size else image.resize(size, Image.BOX)


def luma(grey_image: Image.Image, size: tuple[int, int] | None = None) -> np.ndarray:
    """Returns a grey image as luma, averaged down to (width, height) if given."""
    if size:
        grey_image = grey_image.resize(size, Image.BOX)
    return np.asarray(grey_image, np.float32)


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Returns Pearson's correlation of two arrays; 0 where one is constant."""
    first, second = first - first.mean(), second - second.mean()
    scale = float(np.sqrt((first * first).sum() * (second * second).sum()))
    return float((first * second).sum()) / scale if scale > 1e-6 else 0.0


def dhash(grey_image: Image.Image) -> tuple[int, int]:
    """Returns 64 bits of brighter-than-the-left and 64 of brighter-than-above."""
    across = luma(grey_image, (9, 8))
    down = luma(grey_image, (8, 9))
    bits = across[:, 1:] > across[:, :-1], down[1:] > down[:-1]
    return tuple(int.from_bytes(np.packbits(b).tobytes(), "big") for b in bits)


def character(image: Image.Image) -> np.ndarray:
    """Measures what wear changes: see CHARACTER; logarithms of levels.

    Args:
      image: an RGB image.

    Returns:
      One float32 number for each name in CHARACTER.
    """
    wide, high = image.size
    left, top = max(0, (wide - _CROP) // 2), max(0, (high - _CROP) // 2)
    box = left, top, left + min(wide, _CROP), top + min(high, _CROP)
    crop = luma(image.crop(box).convert("L"))
    if min(crop.shape) < 3:
        return np.zeros(len(CHARACTER), np.float32)
    # The second difference in both directions: blind to edges and slopes.
    rows = crop[:, :-2] - 2 * crop[:, 1:-1] + crop[:, 2:]
    noise = np.abs(rows[:-2] - 2 * rows[1:-1] + rows[2:])
    small = np.asarray(image.resize((32, 32), Image.BOX), np.float32)
    return np.log(
        np.array(
            [
                noise.mean() + 0.5,
                np.median(noise[::3, ::3]) + 0.5,
                np.abs(np.diff(crop, axis=1)).mean() + 0.5,
                small.mean(-1).std() + 1,
                (small.max(-1) - small.min(-1)).mean() + 2,
            ],
            np.float32,
        )
    )


@functools.lru_cache(maxsize=16)
def _window(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Returns a Hann window and the band of frequencies that survive wear."""
    hann = np.outer(np.hanning(shape[0] + 2)[1:-1], np.hanning(shape[1] + 2)[1:-1])
    squared = (
        np.fft.fftfreq(shape[0])[:, None] ** 2 + np.fft.rfftfreq(shape[1])[None] ** 2
    )
    # Fading and stains lie below the band, grain and dust above it.
    band = np.exp(-squared / (2 * 0.12**2)) - np.exp(-squared / (2 * 0.02**2))
    # Scratches run down the frame; their energy lies where nothing varies downward.
    band[np.abs(np.fft.fftfreq(shape[0], 1 / shape[0])) < 2.5] = 0
    return hann.astype(np.float32), (band**2).astype(np.float32)


def shift(first: np.ndarray, second: np.ndarray) -> tuple[float, float, float]:
    """Finds how far the second luma must move to lie on the first.

    Phase correlation: only the positions of edges count, not how dark or faded
    they are.

    Args:
      first: luma.
      second: luma of the same shape.

    Returns:
      (right, down, sharpness): pixels to the right and down, and the height of
      the correlation's peak over its standard deviation, as for an image of
      WORKING_SIDE squared: 15 and more for two versions of one picture, 5 to
      9 for different ones.
    """
    window, band = _window(first.shape)
    cross = np.fft.rfft2((first - first.mean()) * window) * np.conj(
        np.fft.rfft2((second - second.mean()) * window)
    )
    magnitude = np.abs(cross)
    surface = np.fft.irfft2(
        cross / (magnitude + 1e-3 * magnitude.max() + 1e-9) * band, s=first.shape
    )
    peak = np.unravel_index(np.argmax(surface), surface.shape)
    offsets = []
    for axis, size in enumerate(surface.shape):
        line = np.take(surface, peak[1 - axis], axis=1 - axis)
        here = peak[axis]
        before, top, after = line[here - 1], line[here], line[(here + 1) % size]
        bend = before - 2 * top + after
        exact = here + (0.5 * (before - after) / bend if bend else 0.0)
        offsets.append(float(exact - size if exact > size / 2 else exact))
    down, right = offsets
    # The peak of a true match grows with the number of pixels that agree.
    scale = WORKING_SIDE / math.sqrt(first.size)
    return right, down, float(surface[peak] / (surface.std() + 1e-9)) * scale


def near(
    hashes: np.ndarray, thumbnails: np.ndarray, labels: np.ndarray
) -> list[tuple[int, int]]:
    """Finds near copies among images with different labels.

    Args:
      hashes: uint64 (n, 2), from `dhash`.
      thumbnails: uint8 (n, 64), luma of 8x8.
      labels: integers (n,); images with the same label are not compared.

    Returns:
      (i, j) with i < j, in order.
    """
    found = set()
    for word, (start, width) in ((w, band) for w in (0, 1) for band in _BANDS):
        keys = (hashes[:, word] >> np.uint64(start)) & np.uint64((1 << width) - 1)
        order = np.lexsort((hashes[:, 1], hashes[:, 0], keys))
        for step in range(1, min(_REACH, len(order) - 1) + 1):
            one, other = order[:-step], order[step:]
            same = keys[one] == keys[other]
            if not same.any():
                break
            same &= labels[one] != labels[other]
            one, other = one[same], other[same]
            bits = np.bitwise_count(hashes[one] ^ hashes[other]).sum(1, dtype=np.int64)
            close = bits <= _NEAR_BITS
            found.update(zip(one[close].tolist(), other[close].tolist(), strict=True))
    return [
        (i, j)
        for i, j in sorted({(min(pair), max(pair)) for pair in found})
        if correlation(thumbnails[i].astype(np.float32), thumbnails[j])
        >= _NEAR_CORRELATION
    ]


def exchanged(differences: np.ndarray) -> np.ndarray:
    """Finds pairs whose two images seem to have changed places.

    One pair alone cannot tell: wear may add grain or blur it away. But where
    nearly all pairs of a set agree on what wear does, the few in which every
    such difference points the other way, as strongly, stand out.

    Args:
      differences: (n, len(CHARACTER)), input minus output of sound pairs.

    Returns:
      bool (n,); all False where the set is small or does not agree.
    """
    none = np.zeros(len(differences), bool)
    if len(differences) < 20:
        return none
    typical = np.median(differences, axis=0)
    agreeing = (np.sign(differences) == np.sign(typical)).mean(axis=0)
    # 10 %: the least effect of wear that is more than chance.
    steady = (agreeing >= 0.9) & (np.abs(typical) >= 0.1)
    if not steady.any():
        return none
    scores = differences[:, steady] / typical[steady]
    suspects = (scores < 0).all(axis=1) & (scores.mean(axis=1) <= -0.5)
    rest = scores.mean(axis=1)[~suspects]
    # The others must keep clear of zero, or the suspects are just their tail.
    clear = np.quantile(rest, 0.02) > 0 and suspects.mean() <= 0.1
    return suspects if clear else none
