"""Training pairs drawn anew on the device: a crop of a clean picture, and damage.

All of a pair follows from a key. Half of the crops are pieces as they are, the
others are scaled; all are turned and flipped. Then they are damaged: some as film, by
what lands on it and its grain, the others as prints, by what else befalls these. What
no network could undo from one picture alone, a film's weaving and flickering, is left
out, or it would learn to blur; so is what fades a whole picture, which
`restoration.inference.grade` undoes before a network sees a crop of it. Last, some
are scanned softly, both sides alike. What is drawn is a little larger than a crop,
which is cut out of it anywhere, so that the squares of JPEG do not always begin where
it does.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from restoration import damage
from restoration.base import errors
from restoration.base.luma import BT601
from restoration.damage import compose, fields, overlays
from restoration.data import arrays, captions, clean_pictures, draw_config, sampling

# What no network could undo from a crop of one picture alone.
_NEVER = ("weave", "flicker", "contrast", "fading", "cast")

# How crops are toned that stay clean, and how severely at most.
_TONES, _TONED = ("contrast", "fading", "cast"), 2.0

# Of a soft scan: the sigma of its blur, pixels, and how severe its JPEG is.
_SOFT, _COMPRESSED = (0.35, 1.8), 1.0

# A scaled crop shows pieces at so many times their size.
_SCALE = (0.5, 1.2)

# The side of JPEG's squares, pixels; one less is drawn beyond a crop.
_JPEG_SIDE = 8

# What a grey value is made of, as in Rec. 601.
_LUMA = BT601


class Recipe(NamedTuple):
    """How pairs are drawn.

    Attributes:
      image_size: side of the crops, pixels.
      severity: the greatest; it is drawn between 0 and this, lesser ones more often.
      photo_share: of the pairs damaged as prints, the others as film.
      clean_share: of the pairs that stay clean, so that clean pictures stay so; a soft
        scan's JPEG is all that they may get.
      spotless_share: of the pairs on which nothing landed, drawn or scanned: they
        have grain, blur and JPEG's traces alone. Without them a network learns that
        where there is grain there are stains, and finds some.
      grey_share: of the pairs that are grey.
      toned_share: of the pairs whose clean crop is already pale, tinted or flat, as old
        photographs are that nothing landed on: not a network's to undo.
      soft_share: of the pairs whose two sides are blurred alike once damaged, as
        by a scan or a transfer that is softer than its pixels. Without them a network
        knows dirt by its being sharper than the picture, and leaves all of it on a
        film that was copied.
      overlay_share: of the pairs that get scanned dirt too, where there is any.
      opacity: all that covers a pair is so many times as opaque, at most, a factor
        drawn anew from 1 up. Without it what hides the picture is rare, since many
        opacities are multiplied, and a network leaves it as a part of the picture.
      film: kinds of damage, of `damage.KINDS`, that befall films.
      photo: kinds that befall prints.
    """

    image_size: int
    severity: float
    photo_share: float
    clean_share: float
    spotless_share: float
    grey_share: float
    toned_share: float
    soft_share: float
    overlay_share: float
    opacity: float
    film: tuple[str, ...]
    photo: tuple[str, ...]


def kinds_of(group: tuple[str, ...], leave_out: str = "") -> tuple[str, ...]:
    """Returns the kinds of damage to draw.

    Args:
      group: `damage.FILM` or `damage.PHOTO`.
      leave_out: further kinds that are not drawn, with commas between.

    Returns:
      Names of `damage.KINDS`.

    Raises:
      InputError: for a name that is none.
    """
    given = tuple(name for name in leave_out.split(",") if name)
    unknown = sorted(set(given) - set(damage.KINDS))
    if unknown:
        raise errors.InputError(
            f"--leave_out={unknown[0]}: choose of {', '.join(damage.KINDS)}"
        )
    return tuple(name for name in group if name not in (*_NEVER, *given))


class Material(NamedTuple):
    """What pairs are drawn from.

    Attributes:
      pieces: uint8 (count, side, side, 3), clean.
      masks: uint8 (count, side, side), scanned dirt; count may be 0.
    """

    pieces: Any
    masks: Any


class Data(NamedTuple):
    """What a run draws its pairs from, and what identifies it.

    Attributes:
      material: for the training pairs, on the host.
      held_out: the same of the pictures kept for validation.
      described: "fingerprint", a SHA-256 of the pictures and scans; "pairs", the
        pieces of each split; "pictures" and "overlays", their numbers.
    """

    material: Material
    held_out: Material
    described: dict[str, Any]


def recipe_of(options: draw_config.DrawConfig) -> Recipe:
    """Returns how the options of a run want pairs drawn.

    Args:
      options: they have `image_size` too.

    Raises:
      InputError: for kinds of damage to leave out that are none.
    """
    names = [name for name in Recipe._fields if hasattr(options, name)]
    return Recipe(
        film=kinds_of(damage.FILM, options.leave_out),
        photo=kinds_of(damage.PHOTO, options.leave_out),
        **{name: getattr(options, name) for name in names},
    )


def load(
    options: draw_config.DrawConfig, pictures: clean_pictures.Files | None = None
) -> Data:
    """Reads and cuts clean pictures, and reads scanned dirt.

    Args:
      options: they have `seed` too.
      pictures: the clean pictures; by default all of `options.clean`.

    Returns:
      What to draw from.

    Raises:
      InputError: for folders without usable pictures.
    """
    if pictures is None:
        pictures = clean_pictures.read_files(
            options.clean, inside=clean_pictures.PICTURES
        )
    train, held = clean_pictures.hold_out(pictures, options.held_out)
    scans, masks = clean_pictures.read_overlays(options.overlays)
    pieces = clean_pictures.cut(train, options.piece_size)
    pieces = captions.write_on(pieces, options.writing_share, options.seed)
    kept = clean_pictures.cut(held, options.piece_size)
    described = {
        "fingerprint": clean_pictures.digest(pictures, scans),
        "pairs": {"train": len(pieces), "validation": len(kept)},
        "pictures": {"train": len(train), "validation": len(held)},
        "overlays": len(masks),
    }
    return Data(Material(pieces, masks), Material(kept, masks), described)


def draw_clean(key: jax.Array, pieces: jax.Array, recipe: Recipe) -> jax.Array:
    """Draws a clean crop.

    Args:
      key: PRNG key.
      pieces: uint8 (count, side, side, 3), side no less than the crop's.
      recipe: `image_size` and `grey_share` are read.

    Returns:
      float32 (image_size, image_size, 3) in [0, 1].
    """
    pieces = jnp.asarray(pieces)
    size, side = recipe.image_size, pieces.shape[1]
    names = ("which", "row", "column", "scaled", "scale", "turn", "flip", "grey")
    (one,) = fields.draw(key, ((), {name: (0, 1) for name in names}))
    piece = pieces[(one.which * len(pieces)).astype(jnp.int32)]
    # No less than what shows the whole piece.
    low, high = max(_SCALE[0], size / side), max(_SCALE[1], size / side)
    whole = max(1.0, size / side)
    scale = jnp.where(one.scaled < 0.5, whole, low + (high - low) * one.scale)
    start = jnp.stack([one.row, one.column]) * jnp.maximum(side - size / scale, 0)
    start = jnp.where(scale == 1, jnp.floor(start), start)
    crop = jax.image.scale_and_translate(
        piece.astype(jnp.float32) / 255,
        (size, size, 3),
        (0, 1),
        jnp.stack([scale, scale]),
        -start * scale,
        method="cubic",
    )
    crop = jnp.where(one.turn < 0.5, crop, crop.transpose(1, 0, 2))
    crop = jnp.where(one.flip < 0.5, crop, crop[:, ::-1])
    # With the turn, flipping left to right and top to bottom gives all eight ways.
    crop = jnp.where(jnp.mod(one.flip, 0.5) < 0.25, crop, crop[::-1])
    luma = (crop * jnp.array(_LUMA)).sum(-1, keepdims=True)
    return jnp.clip(jnp.where(one.grey < recipe.grey_share, luma, crop), 0, 1)


def draw_tone(key: jax.Array, clean: jax.Array, recipe: Recipe) -> jax.Array:
    """Fades and tints some of the clean crops; damage comes later.

    Args:
      key: PRNG key.
      clean: (H, W, 3) in [0, 1].
      recipe: `toned_share` is read.

    Returns:
      The crop, toned or as it was.
    """
    keys = fields.split(key, 2)
    (one,) = fields.draw(keys[0], ((), {"toned": (0, 1), "severity": (0, _TONED)}))
    severity = jnp.where(one.toned < recipe.toned_share, one.severity, 0.0)
    toned, _ = damage.damage(keys[1], clean, severity=severity, kinds=_TONES)
    return toned


def draw_dirt(
    key: jax.Array,
    masks: jax.Array,
    recipe: Recipe,
    severity: jax.Array,
    opacity: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Draws scanned dirt on black, for some of the pairs.

    Args:
      key: PRNG key.
      masks: see `Material`.
      recipe: `image_size` and `overlay_share` are read.
      severity: of the pair.
      opacity: of the pair, see `compose.denser`.

    Returns:
      The dirt (H, W, 3), which is color times opacity, and its opacity (H, W).
    """
    black = jnp.zeros((recipe.image_size, recipe.image_size, 3))
    if not len(masks):
        return black, black[..., 0]
    keys = fields.split(key, 2)
    laid = fields.uniform(keys[0], ()) < recipe.overlay_share
    dirt, mask = overlays.random_overlays(
        keys[1], black, masks, severity=jnp.where(laid, severity, 0.0)
    )
    return compose.denser(dirt, mask, opacity)


def draw_degraded(
    key: jax.Array,
    clean: jax.Array,
    dirt: tuple[jax.Array, jax.Array],
    severity: jax.Array,
    dirtiness: jax.Array,
    opacity: jax.Array,
    kinds: tuple[str, ...],
) -> jax.Array:
    """Wears a clean crop.

    Args:
      key: PRNG key.
      clean: (H, W, 3) in [0, 1].
      dirt: from `draw_dirt`; it fell before the print faded, or after.
      severity: of the pair.
      dirtiness: 0 where nothing is drawn that lands on it, else 1.
      opacity: what the opacity of what is drawn is multiplied by.
      kinds: static, of `damage.KINDS`.

    Returns:
      The damaged crop.
    """
    keys, (fallen, mask) = fields.split(key, 2), dirt

    def dirtied(image: jax.Array) -> jax.Array:
        return jnp.clip(image * (1 - mask[..., None]) + fallen, 0, 1)

    first = fields.uniform(keys[0], ()) < 0.5
    degraded = jnp.where(first, dirtied(clean), clean)
    degraded, _ = damage.damage(
        keys[1],
        degraded,
        severity=severity,
        kinds=kinds,
        dirtiness=dirtiness,
        opacity=opacity,
    )
    return jnp.where(first, degraded, dirtied(degraded))


def draw_scan(
    key: jax.Array, degraded: jax.Array, clean: jax.Array, recipe: Recipe
) -> tuple[jax.Array, jax.Array]:
    """Scans some pairs softly: both sides blurred; half of the inputs compressed.

    Args:
      key: PRNG key.
      degraded: (H, W, 3) in [0, 1].
      clean: of the same shape.
      recipe: `soft_share` is read.

    Returns:
      The damaged and the clean crop, softened or as they were.
    """
    keys = fields.split(key, 2)
    (one,) = fields.draw(
        keys[0], ((), {"soft": (0, 1), "sigma": (0, 1), "compressed": (0, 1)})
    )
    soft = one.soft < recipe.soft_share
    sigma = _SOFT[0] * (_SOFT[1] / _SOFT[0]) ** one.sigma
    degraded, clean = (
        jnp.where(soft, damage.blur(side, sigma=sigma), side)
        for side in (degraded, clean)
    )
    compressed = soft & (one.compressed < 0.5)
    severity = jnp.where(compressed, _COMPRESSED, 0.0)
    return damage.random_jpeg(keys[1], degraded, severity=severity), clean


def draw_severity(key: jax.Array, recipe: Recipe) -> jax.Array:
    """Draws the severity of a pair: 0 for clean ones, else lesser ones more often."""
    (one,) = fields.draw(key, ((), {"clean": (0, 1), "severity": (0, 1)}))
    severity = recipe.severity * one.severity**1.5
    return jnp.where(one.clean < recipe.clean_share, 0.0, severity)


def draw_pairs(
    key: jax.Array,
    material: Material,
    recipe: Recipe,
    count: int,
    *,
    scale: jax.typing.ArrayLike = 1.0,
) -> dict[str, jax.Array]:
    """Draws a batch of pairs; jittable.

    Args:
      key: PRNG key.
      material: on the device.
      recipe: how; static.
      count: number of pairs; static.
      scale: what severities are multiplied by.

    Returns:
      {"input", "output"}: float32 (count, image_size, image_size, 3) in [0, 1], those
      damaged as film first.
    """
    # JPEG's squares begin at the corner of what is drawn. If the crop always did too, a
    # network would learn to see them by where they lie, and take a picture that was
    # compressed for a damaged one.
    size = recipe.image_size
    recipe = recipe._replace(image_size=size + _JPEG_SIDE - 1)
    crops, severities, dirts, harms = fields.split(key, 4 * count).reshape(4, count, 2)
    clean = jax.vmap(lambda key: draw_clean(key, material.pieces, recipe))(crops)
    if recipe.toned_share:
        tone = jax.vmap(
            lambda key, clean: draw_tone(jax.random.fold_in(key, 2), clean, recipe)
        )
        clean = tone(crops, clean)
    severity = jax.vmap(lambda key: draw_severity(key, recipe))(severities)
    severity = scale * severity
    # Folded in, so that whatever the share, all else is drawn alike.
    chances = jax.vmap(
        lambda key, number: fields.uniform(jax.random.fold_in(key, number), ()),
        in_axes=(0, None),
    )
    dirtiness = jnp.where(chances(severities, 1) < recipe.spotless_share, 0.0, 1.0)
    opacity = recipe.opacity ** chances(severities, 4)
    dirt = jax.vmap(
        lambda key, severity, opacity: draw_dirt(
            key, material.masks, recipe, severity, opacity
        )
    )(dirts, dirtiness * severity, opacity)
    films = count - round(recipe.photo_share * count)
    degraded = []
    for part, kinds in (
        (slice(0, films), recipe.film),
        (slice(films, count), recipe.photo),
    ):
        if part.start < part.stop:
            pairs = jax.tree.map(
                lambda x, part=part: x[part],
                (harms, clean, dirt, severity, dirtiness, opacity),
            )
            harm = functools.partial(draw_degraded, kinds=kinds)
            degraded.append(jax.vmap(harm)(*pairs))
    degraded = jnp.concatenate(degraded)
    if recipe.soft_share:
        scan = jax.vmap(
            lambda key, degraded, clean: draw_scan(
                jax.random.fold_in(key, 3), degraded, clean, recipe
            )
        )
        degraded, clean = scan(crops, degraded, clean)
    draws = sampling.Draws(
        index=jnp.arange(count),
        offset=jnp.stack([chances(crops, 4), chances(crops, 5)], axis=-1),
        flip=jnp.zeros((count, 2), bool),
    )
    return arrays.take_crops(arrays.PairArrays(degraded, clean), draws, size)
