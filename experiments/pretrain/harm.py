"""What a restorer takes away though it belongs there; what `quality` measures of it.

Two kinds of pictures, on which nothing landed: healthy ones made to look old (grey,
sepia, faded, dull; soft, with grain and JPEG), where every wide change is false, and
pictures full of bright specks that belong there, such as stars and snow.
"""

import io
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from scipy import ndimage

from restoration import damage
from restoration.images import frames

# The middle of a picture is taken, at most so many pixels a side.
_SIDE = 480

_KINDS = ("grey", "sepia", "dull", "faded")

# What sepia's white is, and the tone that its black has.
_SEPIA, _SEPIA_BLACK = (1.06, 0.95, 0.74), (0.02, 0.015, 0.0)

# A speck is a bright spot, by what an opening by a square of the first side takes away,
# of at least the second, of 1, and at most the third, pixels. It is kept with at least
# half of its height.
_SPECK_SIDE, _SPECK, _SPECK_AREA, _KEPT = 15, 0.1, 150, 0.5


@jax.jit
def _aged(key: jax.Array, image: jax.Array, how: Mapping[str, Any]) -> jax.Array:
    image = damage.blur(image, sigma=how["sigma"])
    image = damage.fading(
        image, black=how["black"], white=how["white"], saturation=how["saturation"]
    )
    toned = image * jnp.array(_SEPIA) + jnp.array(_SEPIA_BLACK)
    image = jnp.where(how["sepia"], jnp.clip(toned, 0, 1), image)
    noise = damage.grain_noise(key, image.shape[:2], sigma=0.7, chroma=0.0)
    return damage.grain(image, noise=noise, strength=how["grain"], floor=1.0)


def make_old(image: np.ndarray, number: int, *, seed: int) -> np.ndarray:
    """Returns the middle of a healthy picture, made to look old without any damage.

    Args:
      image: float (height, width, 3) in [0, 1].
      number: of the picture; every fourth is grey, sepia, dull or faded.
      seed: of how soft, faded and grainy it becomes.

    Returns:
      float32 of at most 480×480 pixels, as a JPEG file holds it.
    """
    generator = np.random.default_rng([seed, number])
    height, width = (min(_SIDE, side) for side in image.shape[:2])
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    kind = _KINDS[number % len(_KINDS)]
    saturation = {"dull": generator.uniform(0.4, 0.8), "faded": 1.0}.get(kind, 0.0)
    how = {
        "sigma": generator.uniform(0.4, 1.4),
        "black": generator.uniform(0.02, 0.1),
        "white": generator.uniform(0.82, 0.98),
        "grain": generator.uniform(0.005, 0.03),
        "saturation": saturation,
        "sepia": kind == "sepia",
    }
    key = jax.random.fold_in(jax.random.key(seed), number)
    old = _aged(key, image[top : top + height, left : left + width], how)
    file = io.BytesIO()
    quality = int(generator.integers(65, 95))
    Image.fromarray(frames.to_uint8(np.asarray(old))).save(
        file, "JPEG", quality=quality
    )
    return np.asarray(Image.open(file), np.float32) / 255


def write_old(folder: pathlib.Path, target: pathlib.Path, *, seed: int = 4021) -> int:
    """Writes the pictures of a folder made to look old, as PNG; returns how many."""
    names = sorted(frames.list_images(folder))
    for number, name in enumerate(names):
        old = make_old(frames.read(folder / name), number, seed=seed)
        stem = pathlib.PurePosixPath(name).stem
        frames.write(target / f"{number:03d}_{stem}.png", old)
    return len(names)


def specks_kept(before: np.ndarray, after: np.ndarray) -> tuple[int, int]:
    """Counts bright specks, and those that a restorer left with half their height.

    Args:
      before: float (height, width, 3) in [0, 1].
      after: the same restored.

    Returns:
      How many were kept, of how many.
    """
    first, second = (
        luma - ndimage.grey_opening(luma, (_SPECK_SIDE, _SPECK_SIDE))
        for luma in (before.mean(-1), after.mean(-1))
    )
    labels, count = ndimage.label(first > _SPECK)
    if not count:
        return 0, 0
    numbers = np.arange(1, count + 1)
    small = ndimage.sum_labels(np.ones_like(first), labels, numbers) <= _SPECK_AREA
    heights = (ndimage.maximum(x, labels, numbers) for x in (first, second))
    tall, left = heights
    kept = (left >= _KEPT * tall) & small
    return int(kept.sum()), int(small.sum())
