"""Combines all kinds of damage on one image, in the order in which they happen."""

import jax
import jax.numpy as jnp
from jax import lax

from restoration.damage import dirt, fields, hairs, scratches, stains, tone

# Aging of the print.
_PRINT = {
    "blur": tone.random_blur,
    "contrast": tone.random_contrast,
    "fading": tone.random_fading,
    "cast": tone.random_cast,
}

# Effects of the projector.
_GATE = {
    "flicker": tone.random_flicker,
    "weave": tone.random_weave,
}

# Damage that covers the print.
_DIRT = {
    "stains": stains.random_stains,
    "creases": scratches.random_creases,
    "cue_marks": stains.random_cue_marks,
    "scratches": scratches.random_scratches,
    "running_scratches": scratches.random_running_scratches,
    "dust": dirt.random_dust,
    "dirt": dirt.random_dirt,
    "spots": dirt.random_spots,
    "lint": hairs.random_lint,
    "hairs": hairs.random_hairs,
    "missing": stains.random_missing,
}

# Effects of the last copy or of the scan.
_SCAN = {
    "grain": tone.random_grain,
    "jpeg": tone.random_jpeg,
}

KINDS = {**_PRINT, **_GATE, **_DIRT, **_SCAN}

FILM = (
    "flicker",
    "weave",
    "stains",
    "cue_marks",
    "scratches",
    "running_scratches",
    "dust",
    "dirt",
    "spots",
    "lint",
    "hairs",
    "grain",
)

PHOTO = (*FILM, "blur", "contrast", "fading", "cast", "creases", "missing", "jpeg")


# What a film has all along a clip, while all else is another in each frame.
LASTING = (*_PRINT, "running_scratches")


def _dirt(keys, image, *, severity, kinds):
    """Draws all damage that covers the print, on black.

    Painted over an image x, this gives x * (1 - mask) + dirt, before or after the image
    fades. Every kind is drawn separately, and a scan combines them. On a CPU, XLA would
    otherwise fuse them into one loop that computes each kind again for every later one.

    Returns:
      The dirt (H, W, 3), which is color times opacity, and its mask (H, W).
    """
    black = jnp.zeros_like(image)
    drawn = [
        cover(keys[name], black, severity=severity)
        for name, cover in _DIRT.items()
        if name in kinds
    ]
    if not drawn:
        return black, black[..., 0]

    def lay(below, above):
        (laid, clear), (color, mask) = below, above
        return (laid * (1 - mask[..., None]) + color, clear * (1 - mask)), None

    layers = jax.tree.map(lambda *layers: jnp.stack(layers), *drawn)
    (laid, clear), _ = lax.scan(lay, (black, jnp.ones(image.shape[:2])), layers)
    return laid, 1 - clear


def denser(
    dirt: jax.Array, mask: jax.Array, factor: jax.typing.ArrayLike
) -> tuple[jax.Array, jax.Array]:
    """Makes dirt more opaque without changing its color.

    Args:
      dirt: (H, W, 3), color times opacity.
      mask: (H, W), the opacity in [0, 1].
      factor: of the opacity, which is limited to 1; a factor of 1 changes no bit.

    Returns:
      The dirt and its mask.
    """
    opaque = jnp.minimum(factor * mask, 1.0)
    ratio = jnp.where(mask > 0, opaque / mask, 1.0)
    return dirt * ratio[..., None], opaque


def damage(
    key: jax.Array,
    image: jax.Array,
    *,
    severity: jax.typing.ArrayLike,
    kinds: tuple[str, ...] = PHOTO,
    dirtiness: jax.typing.ArrayLike = 1.0,
    opacity: jax.typing.ArrayLike = 1.0,
    clip: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Damages an image.

    Args:
      key: PRNG key. The same key draws the same damage on any device; what one kind
        draws does not depend on the other kinds.
      image: (H, W, 3) in [0, 1].
      severity: one number, may be traced: 0 none, 0.5 a worn film, 1 a neglected print.
        All counts and strengths grow with it, up to 8.
      kinds: static names of `KINDS`, such as `FILM` or `PHOTO`.
      dirtiness: factor of the severity for the kinds that cover the image; may be
        traced. At 0 nothing is covered.
      opacity: factor of the opacity of the kinds that cover the image, which is limited
        to 1.
      clip: PRNG key of the clip of which the image is a frame: it draws what lasts
        (`LASTING`: how the print aged, scratches that stand) and how dirty the film is,
        while `key` draws what comes and goes with each frame.

    Returns:
      The damaged image and the (H, W) opacity of all that was painted over it.
    """
    unknown = set(kinds) - set(KINDS)
    if unknown:
        raise ValueError(f"unknown kinds of damage: {sorted(unknown)}")
    *keys, common = fields.split(key, len(KINDS) + 1)
    keys = dict(zip(KINDS, keys, strict=True))
    if clip is not None:
        *of_clip, common = fields.split(clip, len(KINDS) + 1)
        of_clip = dict(zip(KINDS, of_clip, strict=True))
        keys |= {name: of_clip[name] for name in LASTING}
    severity = fields.limited(severity)

    (one,) = fields.draw(common, ((), {"dirty": (0, 1), "order": (0, 1)}))
    # An image with much dirt of one kind has much of the others.
    dirt_severity = dirtiness * severity * fields.spread(one.dirty, octaves=1.5)
    fallen, mask = _dirt(keys, image, severity=dirt_severity, kinds=kinds)
    fallen, mask = denser(fallen, mask, opacity)

    def dirtied(image):
        return jnp.clip(image * (1 - mask[..., None]) + fallen, 0, 1)

    def change(stage, image):
        for name, random_change in stage.items():
            if name in kinds:
                image = random_change(keys[name], image, severity=severity)
        return image

    # Half of the images fade before they get dirty, the others together with the dirt.
    faded_first = one.order < 0.5
    image = change(_GATE, image)
    image = change(_PRINT, jnp.where(faded_first, image, dirtied(image)))
    image = change(_SCAN, jnp.where(faded_first, dirtied(image), image))
    return image, mask
