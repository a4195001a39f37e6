"""Damage of old prints, all kinds of it, in the order in which it happens.

    painted, mask = random_print_damage(key, image, severity=1.0)

or, for a bank of layers that is drawn once and laid over many pictures,

    dirt, mask = random_print_layer(key, (256, 256), severity=1.0)
    painted = image * (1 - mask[..., None]) + dirt
"""

import jax
import jax.numpy as jnp
from jax import lax

from restoration.damage import ageing, cracks, fields, flakes, folds
from restoration.damage.paint import Painted

# From what the emulsion does by itself to what was stuck on last.
KINDS = {
    "silvering": ageing.random_silvering,
    "foxing": ageing.random_foxing,
    "tidemarks": ageing.random_tidemarks,
    "mould": ageing.random_mould,
    "fingerprints": ageing.random_fingerprints,
    "craquelure": cracks.random_craquelure,
    "flakes": flakes.random_flakes,
    "scuffs": cracks.random_scuffs,
    "cracks": cracks.random_cracks,
    "long_cracks": cracks.random_long_cracks,
    "folds": folds.random_folds,
    "tears": folds.random_tears,
    "worn_edges": folds.random_worn_edges,
    "tape": ageing.random_tape,
}

PRINT = tuple(KINDS)

# What does not look at the picture, so that it can be drawn before there is one.
LAYERED = tuple(name for name in KINDS if name != "silvering")

# Of prints of severity 1, the share that a kind befalls.
CHANCE = {
    "silvering": 0.12,
    "foxing": 0.2,
    "tidemarks": 0.2,
    "mould": 0.15,
    "fingerprints": 0.15,
    "craquelure": 0.25,
    "flakes": 0.3,
    "scuffs": 0.5,
    "cracks": 0.6,
    "long_cracks": 0.35,
    "folds": 0.4,
    "tears": 0.2,
    "worn_edges": 0.3,
    "tape": 0.1,
}


def random_print_damage(
    key: jax.Array,
    image: jax.Array,
    *,
    severity: jax.typing.ArrayLike,
    kinds: tuple[str, ...] = PRINT,
) -> Painted:
    """Damages a print: some kinds, each as `CHANCE` has it.

    A kind that does not befall it costs nothing, unless this is vmapped: then all are
    drawn for every picture. `lax.map` draws picture after picture.

    Args:
      key: PRNG key; what one kind draws does not depend on the other kinds.
      image: (H, W, 3) in [0, 1].
      severity: 0 none, 1 an old print; may be traced.
      kinds: static names of `KINDS`.

    Returns:
      The picture and the (H, W) opacity of all that was painted over.
    """
    unknown = set(kinds) - set(KINDS)
    if unknown:
        raise ValueError(f"unknown kinds of damage: {sorted(unknown)}")
    *keys, common = fields.split(key, len(KINDS) + 1)
    keys = dict(zip(KINDS, keys, strict=True))
    chance = dict(zip(KINDS, fields.uniform(common, (len(KINDS),)), strict=True))
    severity = fields.limited(severity)
    clear = jnp.ones(image.shape[:2])
    for name, cover in KINDS.items():
        if name not in kinds:
            continue

        def befall(key, image, cover=cover):
            return cover(key, image, severity=severity)

        def spare(key, image):
            return image, jnp.zeros(image.shape[:2])

        often = 1 - (1 - CHANCE[name]) ** severity
        befallen = chance[name] < often
        image, mask = lax.cond(befallen, befall, spare, keys[name], image)
        clear = clear * (1 - mask)
    return image, 1 - clear


def random_print_layer(
    key: jax.Array,
    shape: fields.Shape,
    *,
    severity: jax.typing.ArrayLike,
    kinds: tuple[str, ...] = LAYERED,
) -> tuple[jax.Array, jax.Array]:
    """Draws damage of a print on black, to be laid over any picture x.

    x * (1 - mask) + dirt is what `random_print_damage` makes of x with the same key and
    kinds, but for silvering, which looks at the picture.

    Args:
      key: PRNG key.
      shape: (H, W).
      severity: 0 none, 1 an old print; may be traced.
      kinds: static names of `KINDS`.

    Returns:
      The dirt (H, W, 3), which is color times opacity, and its mask (H, W).
    """
    black = jnp.zeros((*shape, 3))
    return random_print_damage(key, black, severity=severity, kinds=kinds)
