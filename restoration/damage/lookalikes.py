"""What belongs into a picture and looks like damage: stars, wires, lettering, lace.

A network that learns to find damage has to see these on spotless pictures too, or it
takes them away. The convention is that of `restoration.damage`: key first, image
second, severity 0 changes no bit. All return the image alone: they are no damage, so
that the mask stays 0, and the picture with them on is what a network is to leave as it
is. On a grey picture they are grey.
"""

import jax
import jax.numpy as jnp
from jax import lax

from restoration.damage import clothes, faces, fields, lettering, outdoors
from restoration.damage.fields import limited

KINDS = {
    "stars": outdoors.random_stars,
    "snow": outdoors.random_snow,
    "sequins": clothes.random_sequins,
    "polka_dots": clothes.random_polka_dots,
    "buttons": clothes.random_buttons,
    "eyes": faces.random_eyes,
    "wires": outdoors.random_wires,
    "branches": outdoors.random_branches,
    "lettering": lettering.random_lettering,
    "hair": faces.random_hair,
    "lace": clothes.random_lace,
    "spectacles": faces.random_spectacles,
    "bright_shapes": clothes.random_bright_shapes,
    "glints": outdoors.random_glints,
}

# How often each is drawn, of all that are drawn together: seldom what differs from
# damage by its surroundings alone.
SHARE = {
    "stars": 0.1,
    "snow": 0.05,
    "sequins": 0.08,
    "polka_dots": 0.1,
    "buttons": 0.08,
    "eyes": 0.06,
    "wires": 0.1,
    "branches": 0.06,
    "lettering": 0.1,
    "hair": 0.04,
    "lace": 0.08,
    "spectacles": 0.05,
    "bright_shapes": 0.07,
    "glints": 0.03,
}


def random_lookalikes(
    key: jax.Array,
    image: jax.Array,
    *,
    severity: jax.typing.ArrayLike,
    kinds: tuple[str, ...] = tuple(KINDS),
    number: int = 2,
) -> jax.Array:
    """Draws some kinds of what looks like damage and belongs there, as `SHARE` has it.

    Only the kinds that are drawn cost anything, unless it is vmapped: use `lax.map`.

    Args:
      key: PRNG key.
      image: (H, W, 3) in [0, 1].
      severity: 0 none, 1 as each kind says.
      kinds: static names of `KINDS`.
      number: static, how many kinds are drawn; the same may come again.

    Returns:
      The picture.
    """
    unknown = set(kinds) - set(KINDS)
    if unknown:
        raise ValueError(f"unknown lookalikes: {sorted(unknown)}")
    keys = fields.split(key, number + 1)
    share = jnp.cumsum(jnp.array([SHARE[name] for name in kinds]))
    chance = fields.uniform(keys[0], (number,)) * share[-1]
    which = jnp.minimum(jnp.searchsorted(share, chance, side="right"), len(kinds) - 1)
    branches = [
        lambda key, image, severity, kind=KINDS[name]: kind(
            key, image, severity=severity
        )
        for name in kinds
    ]
    severity = limited(severity)

    def draw_one(image, given):
        index, key = given
        return lax.switch(index, branches, key, image, severity), None

    return lax.scan(draw_one, image, (which, keys[1:]))[0]
