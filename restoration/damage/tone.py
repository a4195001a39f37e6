"""Kinds of damage that change the whole image; they return only the image."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from restoration.base import luma
from restoration.damage import fields
from restoration.damage.fields import draw, limited, unit

_LUMA = np.array(luma.BT601, np.float32)

# Tables K.1 and K.2 of the JPEG standard (ITU-T T.81, annex K).
_LUMA_TABLE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    np.float32,
)
_CHROMA_TABLE = np.full((8, 8), 99, np.float32)
_CHROMA_TABLE[:4, :4] = [
    [17, 18, 24, 47],
    [18, 21, 26, 66],
    [24, 26, 56, 99],
    [47, 66, 99, 99],
]

# JFIF: full-range YCbCr of BT.601.
_YCBCR = np.array(
    [
        luma.BT601,
        [-0.168736, -0.331264, 0.5],
        [0.5, -0.418688, -0.081312],
    ],
    np.float32,
)

# The orthonormal DCT-II of 8 numbers: row k is the k-th cosine.
_DCT = np.sqrt(2 / 8) * np.cos(
    np.pi * np.arange(8)[:, None] * (2 * np.arange(8) + 1) / 16
)
_DCT[0] /= np.sqrt(2)
_DCT = _DCT.astype(np.float32)


def _luma(image: jax.Array) -> jax.Array:
    """Returns (H, W, 1) luma, as a product, which makes XLA store the image first."""
    return fields.product("hwc,c->hw", image, _LUMA)[..., None]


# --- Exact effects ---------------------------------------------------------


def blur(
    image: jax.Array,
    *,
    sigma: jax.typing.ArrayLike,
    radius: int = 6,
) -> jax.Array:
    """Blurs with a Gaussian, like a lens out of focus or a copy of a copy.

    Args:
      image: (H, W, 3) in [0, 1].
      sigma: in pixels; one number or (rows, columns).
      radius: static reach of the filter in pixels.

    Returns:
      The image; edges are repeated.
    """
    sigma = jnp.broadcast_to(jnp.asarray(sigma, jnp.float32), (2,))
    padded = jnp.pad(image, ((radius, radius), (radius, radius), (0, 0)), mode="edge")
    half = fields.filtered(padded, fields.gaussian(sigma[0], radius), 0)
    return jnp.clip(fields.filtered(half, fields.gaussian(sigma[1], radius), 1), 0, 1)


def fading(
    image: jax.Array,
    *,
    black: jax.typing.ArrayLike,
    white: jax.typing.ArrayLike,
    saturation: jax.typing.ArrayLike,
) -> jax.Array:
    """Fades: black becomes grey, white becomes darker and colors lose saturation.

    Args:
      image: (H, W, 3) in [0, 1].
      black: new value of black, in [0, 1]; one number or (3,).
      white: new value of white, in [0, 1]; one number or (3,).
      saturation: 1 keeps the colors, 0 gives grey.

    Returns:
      The image: black + (white - black) * desaturated.
    """
    grey = _luma(image)
    image = grey + saturation * (image - grey)
    return jnp.clip(black + (white - black) * image, 0, 1)


def cast(image: jax.Array, *, gain: jax.Array, gamma: jax.Array) -> jax.Array:
    """Adds a color cast, like dyes that faded unequally or yellowed gelatin.

    Args:
      image: (H, W, 3) in [0, 1].
      gain: (3,) new value of white.
      gamma: (3,) > 0, exponents that shift the middle tones of each color.

    Returns:
      The image: gain * image ** gamma.
    """
    # The floor keeps the logarithm of black finite; black stays black.
    power = jnp.exp2(gamma * jnp.log2(jnp.maximum(image, 1e-7)))
    return jnp.clip(gain * jnp.where(image > 1e-7, power, 0.0), 0, 1)


def contrast(
    image: jax.Array, *, factor: jax.typing.ArrayLike, pivot: jax.typing.ArrayLike
) -> jax.Array:
    """Scales the contrast: pivot + factor * (image - pivot).

    Args:
      image: (H, W, 3) in [0, 1].
      factor: below 1 less contrast, above 1 more.
      pivot: the tone that does not change, in [0, 1].

    Returns:
      The image.
    """
    return jnp.clip(pivot + factor * (image - pivot), 0, 1)


def flicker(image: jax.Array, *, gain: jax.Array) -> jax.Array:
    """Changes the brightness, like uneven exposure.

    Args:
      image: (H, W, 3) in [0, 1].
      gain: a number or (H, W), the exposure.

    Returns:
      The image: gain * image.
    """
    gain = jnp.asarray(gain)
    return jnp.clip(image * (gain if gain.ndim == 0 else gain[..., None]), 0, 1)


def weave(
    image: jax.Array,
    *,
    down: jax.typing.ArrayLike,
    right: jax.typing.ArrayLike,
    reach: int = 4,
) -> jax.Array:
    """Shifts the image, like a frame in the projector's gate; rows may differ.

    Args:
      image: (H, W, 3) in [0, 1].
      down: shift in pixels, within reach.
      right: shift in pixels, within reach; one number or (H,) for each row.
      reach: static largest shift in pixels.

    Returns:
      The image, interpolated linearly, with repeated edges.
    """
    down = jnp.clip(down, -reach, reach)
    right = jnp.broadcast_to(jnp.clip(right, -reach, reach), image.shape[:1])
    padded = jnp.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    offset = jnp.arange(-reach, reach + 1)
    image = fields.filtered(padded, jnp.maximum(1 - jnp.abs(offset + down), 0), 0)
    across = jnp.maximum(1 - jnp.abs(offset[:, None] + right), 0)[..., None, None]
    return jnp.clip(fields.filtered(image, across, 1), 0, 1)


def grain(
    image: jax.Array,
    *,
    noise: jax.Array,
    strength: jax.typing.ArrayLike,
    floor: jax.typing.ArrayLike,
) -> jax.Array:
    """Adds grain that is strongest in the middle tones.

    Args:
      image: (H, W, 3) in [0, 1].
      noise: (H, W, 3) or (H, W, 1), of variance 1.
      strength: standard deviation at luma 0.5, for pixels in [0, 1].
      floor: share of it in black and white, in [0, 1].

    Returns:
      The image: image + strength * (floor + (1 - floor) * 4 L (1 - L)) * noise.
    """
    level = _luma(image)
    deviation = strength * (floor + (1 - floor) * 4 * level * (1 - level))
    return jnp.clip(image + deviation * noise, 0, 1)


def grain_noise(
    key: jax.Array,
    shape: fields.Shape,
    *,
    sigma: jax.typing.ArrayLike,
    chroma: jax.typing.ArrayLike,
    radius: int = 4,
) -> jax.Array:
    """Draws the noise of grain: correlated in space and between the colors.

    Args:
      key: PRNG key.
      shape: (H, W).
      sigma: of the Gaussian blur in pixels, at most radius / 2.5.
      chroma: share of the variance that is independent for each color, in [0, 1].
      radius: static reach of the filter in pixels.

    Returns:
      (H, W, 3) noise of variance 1; two colors correlate by 1 - chroma.
    """
    noise = fields.fine_noise(key, shape, sigma=sigma, radius=radius, planes=4)
    own, shared = jnp.sqrt(chroma), jnp.sqrt(1 - chroma)
    return jnp.stack([own * noise[c] + shared * noise[3] for c in range(3)], axis=-1)


def jpeg(
    image: jax.Array, *, quality: jax.typing.ArrayLike, subsample: bool = True
) -> jax.Array:
    """Quantizes like JPEG. The lossless entropy coding is not needed.

    Args:
      image: (H, W, 3) in [0, 1].
      quality: 1 to 100, on the scale of the Independent JPEG Group.
      subsample: static; whether the colors have half the resolution (4:2:0).

    Returns:
      The decoded image, not rounded to 8 bits.
    """
    height, width, _ = image.shape
    quality = jnp.clip(quality, 1, 100)
    percent = jnp.where(quality < 50, 5000 / quality, 200 - 2 * quality)
    block = 16 if subsample else 8
    padded = jnp.pad(
        image * 255, ((0, -height % block), (0, -width % block), (0, 0)), mode="edge"
    )
    planes = fields.product("ij,hwj->ihw", _YCBCR, padded)
    tables = [
        jnp.clip(jnp.floor((table * percent + 50) / 100), 1, 255)
        for table in (_LUMA_TABLE, _CHROMA_TABLE)
    ]
    brightness = _quantize(planes[:1] - 128, tables[0]) + 128
    chroma = planes[1:]
    if subsample:
        _, rows, columns = chroma.shape
        chroma = chroma.reshape(2, rows // 2, 2, columns // 2, 2).mean((2, 4))
    chroma = _quantize(chroma, tables[1])
    if subsample:
        chroma = jnp.repeat(jnp.repeat(chroma, 2, axis=1), 2, axis=2)
    # Sums, since XLA is slow on a CPU at a product with such a narrow result.
    pixels = jnp.stack(
        [
            row[0] * brightness[0] + row[1] * chroma[0] + row[2] * chroma[1]
            for row in np.linalg.inv(_YCBCR)
        ],
        axis=-1,
    )
    return jnp.clip(pixels[:height, :width] / 255, 0, 1)


def _quantize(planes: jax.Array, table: jax.Array) -> jax.Array:
    """Rounds DCT coefficients of 8×8 blocks of (P, H, W) to multiples of a table."""
    number, rows, columns = planes.shape
    # One matrix product along each axis; a product for each block is slow.
    blocks = planes.reshape(number * rows // 8, 8, columns // 8, 8)
    wide = fields.product("aibj,vj->aibv", blocks, _DCT)
    coefficients = fields.product("ui,aibv->aubv", _DCT, wide)
    table = table[:, None, :]
    coefficients = jnp.round(coefficients / table) * table
    wide = fields.product("aubv,vj->aubj", coefficients, _DCT)
    return fields.product("ui,aubj->aibj", _DCT, wide).reshape(planes.shape)


# --- Random effects --------------------------------------------------------


def _unless_zero(
    severity: jax.Array, image: jax.Array, changed: jax.Array
) -> jax.Array:
    """Returns `changed`, or exactly `image` at severity 0."""
    return jnp.where(severity > 0, changed, image)


def random_blur(
    key: jax.Array, image: jax.Array, *, severity: jax.typing.ArrayLike
) -> jax.Array:
    """Blurs the image.

    Args:
      key: PRNG key.
      image: (H, W, 3) in [0, 1].
      severity: 0 none, 1 up to about a pixel of blur.

    Returns:
      The image.
    """
    severity, scale = limited(severity), unit(image.shape[:2])
    (one,) = draw(key, ((), {"amount": (0, 1), "uneven": (-0.2, 0.2)}))
    sigma = scale * (1.2 * one.amount + 0.9 * one.amount**6) * jnp.tanh(1.5 * severity)
    sigma = sigma * jnp.exp(jnp.stack([one.uneven, -one.uneven]))
    changed = blur(image, sigma=sigma, radius=math.ceil(4 * scale))
    return _unless_zero(severity, image, changed)


def random_fading(
    key: jax.Array, image: jax.Array, *, severity: jax.typing.ArrayLike
) -> jax.Array:
    """Fades black, white and colors.

    Args:
      key: PRNG key.
      image: (H, W, 3) in [0, 1].
      severity: 0 none, 1 like a print that hung on a wall for years.

    Returns:
      The image.
    """
    severity = limited(severity)
    (one,) = draw(
        key, ((), {"black": (0, 0.14), "white": (0, 0.19), "color": (0, 1.05)})
    )
    amount = 1 - jnp.exp(-0.8 * severity)
    changed = fading(
        image,
        black=amount * one.black,
        white=1 - amount * one.white,
        saturation=1 - jnp.minimum(amount * one.color, 1),
    )
    return _unless_zero(severity, image, changed)


def random_cast(
    key: jax.Array, image: jax.Array, *, severity: jax.typing.ArrayLike
) -> jax.Array:
    """Adds a color cast, mostly towards yellow and red.

    Args:
      key: PRNG key.
      image: (H, W, 3) in [0, 1].
      severity: 0 none, 1 clearly visible.

    Returns:
      The image.
    """
    severity = limited(severity)
    one, dye = draw(
        key,
        ((), {"warm": (-0.2, 1.0), "magenta": (-0.3, 0.4), "amount": (0, 1)}),
        ((3,), {"gamma": (-0.35, 0.35)}),
    )
    amount = (1 - jnp.exp(-0.9 * severity)) * one.amount
    # In stops: yellowing reduces blue most, then green; magenta reduces green.
    loss = jnp.stack(
        [
            jnp.maximum(-0.4 * one.warm, 0) + jnp.maximum(-0.35 * one.magenta, 0),
            0.25 * jnp.abs(one.warm) + jnp.maximum(0.4 * one.magenta, 0),
            jnp.maximum(0.9 * one.warm, 0) + jnp.maximum(-0.35 * one.magenta, 0),
        ]
    )
    changed = cast(
        image, gain=jnp.exp2(-amount * loss), gamma=jnp.exp2(amount * dye.gamma)
    )
    return _unless_zero(severity, image, changed)


def random_contrast(
    key: jax.Array, image: jax.Array, *, severity: jax.typing.ArrayLike
) -> jax.Array:
    """Reduces the contrast, or sometimes increases it, like a hard copy.

    Args:
      key: PRNG key.
      image: (H, W, 3) in [0, 1].
      severity: 0 none, 1 clearly visible.

    Returns:
      The image.
    """
    severity = limited(severity)
    (one,) = draw(key, ((), {"loss": (-0.08, 0.2), "pivot": (0.3, 0.65)}))
    amount = 1 - jnp.exp(-0.6 * severity)
    changed = contrast(image, factor=1 - amount * one.loss, pivot=one.pivot)
    return _unless_zero(severity, image, changed)


def random_flicker(
    key: jax.Array, image: jax.Array, *, severity: jax.typing.ArrayLike
) -> jax.Array:
    """Changes the brightness of the frame, also unevenly.

    Args:
      key: PRNG key.
      image: (H, W, 3) in [0, 1].
      severity: 0 none, 1 up to a sixth of a stop.

    Returns:
      The image.
    """
    shape = image.shape[:2]
    severity, scale = limited(severity), unit(shape)
    keys = fields.split(key, 2)
    (one,) = draw(keys[0], ((), {"frame": (-1, 1), "uneven": (0, 1)}))
    field = fields.smooth_noise(keys[1], shape, cells=(120 * scale,))[0]
    stops = 0.12 * one.frame * jnp.abs(one.frame) + 0.05 * one.uneven**2 * field
    changed = flicker(image, gain=jnp.exp2(jnp.minimum(severity, 4) * stops))
    return _unless_zero(severity, image, changed)


def random_weave(
    key: jax.Array, image: jax.Array, *, severity: jax.typing.ArrayLike
) -> jax.Array:
    """Shifts the frame by a fraction of a pixel, like a worn gate.

    Args:
      key: PRNG key.
      image: (H, W, 3) in [0, 1].
      severity: 0 none, 1 up to about a third of a pixel.

    Returns:
      The image.
    """
    shape = image.shape[:2]
    severity, scale = limited(severity), unit(shape)
    one, knot = draw(
        key,
        ((), {"down": (-1, 1), "right": (-1, 1), "wobble": (0, 1)}),
        ((8,), {"chance": (0, 1)}),
    )
    wave = 0.5 * fields.wave(knot.chance, shape[0])
    amount = 0.35 * scale * severity
    right = one.right * jnp.abs(one.right) + one.wobble**2 * wave
    changed = weave(
        image,
        down=amount * one.down * jnp.abs(one.down),
        right=amount * right,
        reach=math.ceil(3 * scale),
    )
    return _unless_zero(severity, image, changed)


def random_grain(
    key: jax.Array, image: jax.Array, *, severity: jax.typing.ArrayLike
) -> jax.Array:
    """Adds grain, fine or coarse, grey or colored.

    Args:
      key: PRNG key.
      image: (H, W, 3) in [0, 1].
      severity: 0 none, 1 a standard deviation of 2 to 9, of 255.

    Returns:
      The image.
    """
    shape = image.shape[:2]
    severity, scale = limited(severity), unit(shape)
    keys = fields.split(key, 2)
    (one,) = draw(
        keys[0],
        (
            (),
            {
                "strength": (0.2, 1),
                "size": (0, 1),
                "chroma": (-0.15, 0.35),
                "floor": (0.3, 0.9),
            },
        ),
    )
    noise = grain_noise(
        keys[1],
        shape,
        sigma=scale * (0.35 + 0.85 * one.size**2),
        chroma=jnp.maximum(one.chroma, 0),
        radius=math.ceil(3 * scale),
    )
    amount = 1 - jnp.exp(-2.5 * severity) + 0.35 * jnp.minimum(severity, 4)
    changed = grain(
        image, noise=noise, strength=0.033 * amount * one.strength, floor=one.floor
    )
    return _unless_zero(severity, image, changed)


def random_jpeg(
    key: jax.Array, image: jax.Array, *, severity: jax.typing.ArrayLike
) -> jax.Array:
    """Adds artifacts of JPEG compression.

    Args:
      key: PRNG key.
      image: (H, W, 3) in [0, 1].
      severity: 0 none, 1 a quality of 40 at worst.

    Returns:
      The image.
    """
    severity = limited(severity)
    (one,) = draw(key, ((), {"loss": (0, 1)}))
    quality = (
        98
        - 62 * one.loss * (1 - jnp.exp(-1.5 * severity))
        - 5 * jnp.minimum(severity, 4)
    )
    return _unless_zero(severity, image, jpeg(image, quality=quality))
