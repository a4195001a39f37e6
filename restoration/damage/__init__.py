"""Damage of photographs and films, as pure functions on arrays.

The convention, for every kind:

* Images are float32 (H, W, 3), RGB in [0, 1], before and after.
* An exact effect, such as `vertical_scratches(image, *, x, width, ...)`, follows its
  parameters. Its random version, `random_running_scratches(key, image, *, severity)`,
  draws them. Key first, image second, options by name.
* Kinds that cover the image (`paint`, `dirt`, `scratches`, `hairs`, `stains`) return
  (image, mask). The mask is (H, W), the opacity in [0, 1] of what was painted; where it
  is 0, the image is unchanged. Kinds that change the whole image (`tone`) return only
  the image.
* Severity 0 or less changes no bit. Severity may be traced. Lengths are in pixels, so
  that a crop is damaged like a part of the image (`fields.unit`).

Everything can be jitted, vmapped and sharded; the same key gives the same image.
"""

from restoration.damage.compose import FILM, KINDS, PHOTO, damage
from restoration.damage.dirt import random_dirt, random_dust, random_spots
from restoration.damage.hairs import random_hairs, random_lint
from restoration.damage.paint import (
    blotches,
    creases,
    cue_mark,
    missing,
    paint,
    specks,
    strokes,
    vertical_scratches,
)
from restoration.damage.scratches import (
    random_creases,
    random_running_scratches,
    random_scratches,
)
from restoration.damage.stains import (
    random_cue_marks,
    random_missing,
    random_stains,
)
from restoration.damage.tone import (
    blur,
    cast,
    contrast,
    fading,
    flicker,
    grain,
    grain_noise,
    jpeg,
    random_blur,
    random_cast,
    random_contrast,
    random_fading,
    random_flicker,
    random_grain,
    random_jpeg,
    random_weave,
    weave,
)

__all__ = [
    "FILM",
    "KINDS",
    "PHOTO",
    "blotches",
    "blur",
    "cast",
    "contrast",
    "creases",
    "cue_mark",
    "damage",
    "fading",
    "flicker",
    "grain",
    "grain_noise",
    "jpeg",
    "missing",
    "paint",
    "random_blur",
    "random_cast",
    "random_contrast",
    "random_creases",
    "random_cue_marks",
    "random_dirt",
    "random_dust",
    "random_fading",
    "random_flicker",
    "random_grain",
    "random_hairs",
    "random_jpeg",
    "random_lint",
    "random_missing",
    "random_running_scratches",
    "random_scratches",
    "random_spots",
    "random_stains",
    "random_weave",
    "specks",
    "strokes",
    "vertical_scratches",
    "weave",
]
