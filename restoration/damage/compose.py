"""All kinds of damage on one picture, in the order in which they happen."""

import jax
import jax.numpy as jnp
from jax import lax

from restoration.damage import dirt, fields, hairs, scratches, stains, tone

# What time does to the print.
_PRINT = {
    "blur": tone.random_blur,
    "contrast": tone.random_contrast,
    "fading": tone.random_fading,
    "cast": tone.random_cast,
}

# What the projector does with it.
_GATE = {
    "flicker": tone.random_flicker,
    "weave": tone.random_weave,
}

# What lands on it.
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

# What the last film or the scan adds.
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


def _dirt(keys, image, *, severity, kinds):
    """Draws all that lands on the print, on black.

    Laid over a picture x this gives x * (1 - mask) + dirt, before or after the
    picture fades. Every kind is drawn by itself, and a scan lays them over each
    other, because XLA's CPU backend would otherwise fuse them all into one loop
    and compute each kind anew for every later one.

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
    """Makes what covers a picture more opaque, its color kept.

    Args:
      dirt: (H, W, 3), color times opacity.
      mask: (H, W), the opacity in [0, 1].
      factor: what opacity is multiplied by, to 1 at most; at 1 no bit changes.

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
) -> tuple[jax.Array, jax.Array]:
    """Damages a picture.

    Args:
      key: PRNG key; the same key draws the same damage on any device, and what
        one kind draws does not depend on the other kinds.
      image: (H, W, 3) in [0, 1].
      severity: one number, may be traced: 0 none, 0.5 a worn film, 1 a
        neglected print; all counts and strengths grow with it, up to 8.
      kinds: static names of `KINDS`, such as `FILM` or `PHOTO`.
      dirtiness: what the severity is multiplied by for all that lands on the
        picture; may be traced. At 0 it fades, blurs and gets grain, uncovered.
      opacity: what the opacity of all that lands on it is multiplied by, to 1 at most.

    Returns:
      The damaged picture and the (H, W) opacity of all that was painted over.
    """
    unknown = set(kinds) - set(KINDS)
    if unknown:
        raise ValueError(f"unknown kinds of damage: {sorted(unknown)}")
    *keys, common = fields.split(key, len(KINDS) + 1)
    keys = dict(zip(KINDS, keys, strict=True))
    severity = fields.limited(severity)

    (one,) = fields.draw(common, ((), {"dirty": (0, 1), "order": (0, 1)}))
    # Where there is one kind of dirt, there is more of the others.
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

    # Half of the pictures faded before they got dirty, the others with the dirt.
    faded_first = one.order < 0.5
    image = change(_GATE, image)
    image = change(_PRINT, jnp.where(faded_first, image, dirtied(image)))
    image = change(_SCAN, jnp.where(faded_first, dirtied(image), image))
    return image, mask
