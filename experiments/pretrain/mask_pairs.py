"""Damaged crops with their true masks, for the finder and the filler: drawn on a CPU.

A network that runs on a CPU leaves no time for drawing damage on it too. So damage is
drawn once, by `restoration.damage` and by scanning (`render` and `Material`), and each
pair composes it anew with NumPy and OpenCV: which, where, how large, turned, flipped,
in which color and how opaque. A pair takes some 10 ms.

All of a pair follows from the seed, the step and its index in the batch.
"""

import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from restoration.models import filler

# Scanned kinds: how many are expected on 512×512 pixels at severity 1, and the least
# and the greatest scale.
SCANNED = {
    "dots": (6.0, 0.15, 0.5),
    "spots": (6.0, 0.1, 0.4),
    "hair-short": (3.0, 0.15, 0.5),
    "hair": (2.0, 0.3, 0.8),
    "lint": (2.0, 0.2, 0.5),
    "dirt": (1.5, 0.4, 1.0),
    "smut": (0.7, 0.3, 0.8),
    "sprinkles": (0.6, 0.5, 1.2),
    "scratches": (1.2, 0.6, 1.6),
    "stain": (0.6, 0.4, 1.0),
}

# A crop is shown larger or smaller by these factors.
_SCALES = (0.35, 1.3)

# How much damage there is, and how often. Half of the damaged pairs have a speck or a
# few: a finder that sees much damage or none learns to judge the whole picture.
_SEVERITIES = {0.06: 0.15, 0.12: 0.15, 0.25: 0.2, 0.5: 0.2, 1: 0.18, 2: 0.12}

# Below this side a crop gets as much as one of this side.
_LEAST_SIDE = 256

# Share of the scanned dirt that much of the picture shows through.
_TRANSLUCENT = 0.35

# A change that is smaller, in white, is not or hardly seen.
_SEEN = 0.04


class Recipe(NamedTuple):
    """How pairs are drawn.

    Attributes:
      image_size: side of the crops, pixels.
      clean_share: of the pairs without damage.
      drawn_share: of the damaged pairs that get layers of `Material.drawn` too.
      belonging_share: of the pairs that are cut of `Material.belonging`, where it has
        any.
      hard_share: of the pairs that are cut around `Material.hard`. They are damaged as
        often as others: a picture that always stayed clean would be known again.
      grey_share: of the pairs that are grey.
      toned_share: of the pairs that are faded and tinted.
      soft_share: of the pairs that are blurred, damage and all.
      unsharp_share: of the pairs whose picture is blurred below the damage.
      rods_share: of the pairs with posts, canes, cables or railings that belong there.
      joined_share: of the pairs whose picture ends at a straight line, where another
        begins or a print's border.
      scratches_share: of the damaged pairs with fine scratches, however little damage
        they have otherwise.
      holes_share: of the damaged pairs with opaque strokes too, some of them wide.
      fills: whether a pair holds the mask as a filler would be given it.
      found_share: of the pairs whose mask is what a finder finds, right or wrong.
    """

    image_size: int = 256
    clean_share: float = 0.15
    drawn_share: float = 0.5
    belonging_share: float = 0.25
    hard_share: float = 0.0
    grey_share: float = 0.3
    toned_share: float = 0.4
    soft_share: float = 0.4
    unsharp_share: float = 0.25
    rods_share: float = 0.25
    joined_share: float = 0.2
    scratches_share: float = 0.25
    holes_share: float = 0.0
    fills: bool = False
    found_share: float = 0.0


class Material(NamedTuple):
    """What pairs are drawn from.

    Attributes:
      pictures: clean, uint8 (height, width, 3) each.
      scanned: the opacity of scanned dirt by its kind, each a list of pyramids:
        uint8 (height, width) at full, half, quarter and an eighth of the size.
      drawn: damage by kind, uint8 (count, side, side, 4): color times opacity, then
        opacity; "creases", "missing" and so on.
      belonging: clean pictures, uint8 (side, side, 3) each, with specks, lines and
        bright shapes that belong to them.
      hard: (number of the picture, row, column) of what a finder took for damage.
    """

    pictures: Sequence[np.ndarray]
    scanned: Mapping[str, Sequence[Sequence[np.ndarray]]]
    drawn: Mapping[str, np.ndarray]
    belonging: Sequence[np.ndarray] = ()
    hard: Sequence[tuple[int, int, int]] = ()


def pyramid(opacity: np.ndarray) -> list[np.ndarray]:
    """Returns a picture at full, half, quarter and an eighth of its size."""
    levels = [np.ascontiguousarray(opacity)]
    for _ in range(3):
        height, width = (max(1, side // 2) for side in levels[-1].shape[:2])
        levels.append(
            cv2.resize(levels[-1], (width, height), interpolation=cv2.INTER_AREA)
        )
    return levels


def read_scanned(folder: pathlib.Path) -> dict[str, list[list[np.ndarray]]]:
    """Reads scanned dirt: a folder for each kind, RGBA PNG, the alpha its opacity."""
    found: dict[str, list[list[np.ndarray]]] = {}
    for kind in SCANNED:
        for path in sorted((folder / kind).glob("*.png")):
            image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            found.setdefault(kind, []).append(pyramid(image[..., 3]))
    return found


def _turned(
    levels: Sequence[np.ndarray],
    rng: np.random.Generator,
    size: int,
    scale: float,
    center: tuple[float, float],
) -> tuple[slice, slice, np.ndarray] | None:
    """Turns, flips and scales a picture and puts it somewhere; the part inside."""
    level = int(np.clip(np.floor(-np.log2(scale)), 0, len(levels) - 1))
    source, scale = levels[level], scale * 2**level
    height, width = source.shape[:2]
    angle = np.deg2rad(rng.uniform(0, 360))
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    flip = 1 if rng.random() < 0.5 else -1
    reach = 0.5 * scale * np.hypot(height, width) + 1
    (x, y) = center
    left, right = max(0, int(x - reach)), min(size, int(x + reach) + 1)
    top, bottom = max(0, int(y - reach)), min(size, int(y + reach) + 1)
    if left >= right or top >= bottom:
        return None
    matrix = np.array([[cos * flip, -sin, 0], [sin * flip, cos, 0]])
    matrix[:, 2] = [x - left, y - top]
    matrix[:, 2] -= matrix[:, :2] @ [(width - 1) / 2, (height - 1) / 2]
    part = cv2.warpAffine(source, matrix, (right - left, bottom - top))
    return slice(top, bottom), slice(left, right), part


def _three(plane: np.ndarray) -> np.ndarray:
    """Returns a plane three times, (h, w, 3): NumPy broadcasts this slowly."""
    return cv2.merge([plane, plane, plane])


class _Layers:
    """What lies over a crop: color times opacity, and opacity, of all so far."""

    def __init__(self, size: int):
        self.color = np.zeros((size, size, 3), np.float32)
        self.opacity = np.zeros((size, size), np.float32)

    def lay(
        self, where: tuple[slice, slice], opacity: np.ndarray, color: np.ndarray
    ) -> None:
        """Lays a color, (3,) or times opacity (h, w, 3), over what lies there."""
        clear = 1 - opacity
        if color.ndim == 1:
            color = cv2.merge([opacity * np.float32(value) for value in color])
        self.color[where] *= _three(clear)
        self.color[where] += color
        self.opacity[where] *= clear
        self.opacity[where] += opacity

    def over(self, image: np.ndarray) -> np.ndarray:
        """Returns an image with all of it laid over."""
        return image * _three(1 - self.opacity) + self.color


def _color(rng: np.random.Generator, bright: float) -> np.ndarray:
    tone = rng.uniform(0.7, 1) if rng.random() < bright else rng.uniform(0, 0.25)
    if rng.random() < 0.08:
        tone = rng.uniform(0, 1)
    return tone * np.float32([1, rng.uniform(0.93, 1), rng.uniform(0.85, 1)])


def _lay_scanned(
    rng: np.random.Generator, layers: _Layers, material: Material, severity: float
) -> None:
    size = layers.opacity.shape[0]
    area = (max(size, _LEAST_SIDE) / 512) ** 2
    bright = rng.choice([0.1, 0.6, 0.95])
    for kind, (rate, low, high) in SCANNED.items():
        sprites = material.scanned.get(kind, ())
        for _ in range(rng.poisson(1.3 * rate * severity * area) if sprites else 0):
            levels = sprites[rng.integers(len(sprites))]
            shape = levels[0].shape
            scale = rng.uniform(low, high) * max(shape) / shape[0]
            center = tuple(rng.uniform(-0.1, 1.1, 2) * size)
            found = _turned(levels, rng, size, scale, center)
            if found is None:
                continue
            rows, columns, part = found
            thin = kind == "stain" or rng.random() < _TRANSLUCENT
            opaque = rng.uniform(0.2, 0.8) if thin else rng.uniform(0.7, 1)
            opacity = np.minimum(part * np.float32(rng.uniform(0.6, 1.3) / 255), 1)
            layers.lay((rows, columns), opacity * np.float32(opaque),
                       _color(rng, bright))  # fmt: skip


def _lay_running_scratches(rng: np.random.Generator, layers: _Layers) -> None:
    size = layers.opacity.shape[0]
    whole = (slice(None), slice(None))
    row = np.arange(size, dtype=np.float32)
    for _ in range(rng.integers(1, 4)):
        column = rng.uniform(0, size) + rng.uniform(-0.02, 0.02) * row
        column += rng.uniform(0, 1.5) * np.sin(row / rng.uniform(20, 80))
        away = (row[None] - column[:, None].astype(np.float32)) / rng.uniform(0.5, 1.6)
        opacity = np.exp(-0.5 * away**2) * np.float32(rng.uniform(0.3, 0.9))
        broken = np.repeat(rng.random(size // 8 + 1) < rng.uniform(0.7, 1), 8)[:size]
        opacity *= broken[:, None]
        opacity[opacity < 1 / 255] = 0
        if rng.random() < 0.3:
            opacity = np.ascontiguousarray(opacity.T)
        color = np.float32(rng.choice([0.95, 0.05])) * np.ones(3, np.float32)
        layers.lay(whole, opacity, color)


def _lay_fine_scratches(rng: np.random.Generator, layers: _Layers) -> None:
    """Lays scratches about a pixel wide, mostly bright and in one direction."""
    size = layers.opacity.shape[0]
    angle, spread = rng.uniform(0, np.pi), rng.choice([0.1, 0.6])
    bright = rng.random() < 0.8
    for _ in range(rng.integers(1, 9)):
        along = angle + rng.normal(0, spread)
        bend = rng.normal(0, 0.1) + rng.normal(0, 0.05, 12).cumsum()
        turned = along + bend
        steps = np.stack([np.cos(turned), np.sin(turned)], -1)
        steps *= rng.uniform(0.1, 1.0) * size / len(steps)
        points = rng.uniform(0, 1, 2) * size + np.cumsum(steps - steps.mean(0) / 2, 0)
        line = np.zeros((size, size), np.uint8)
        cv2.polylines(line, [np.int32(points * 16)], False, 255, 1, cv2.LINE_AA, 4)
        opacity = line.astype(np.float32) / 255
        if rng.random() < 0.7:
            opacity = cv2.GaussianBlur(opacity, (0, 0), rng.uniform(0.3, 0.8))
        opacity = np.minimum(opacity * np.float32(rng.uniform(0.5, 1.8)), 1)
        opacity[opacity < 1 / 255] = 0
        tone = rng.uniform(0.75, 1) if bright else rng.uniform(0, 0.2)
        color = np.float32(tone) * np.ones(3, np.float32)
        layers.lay((slice(None), slice(None)), opacity, color)


def _lay_rendered(
    rng: np.random.Generator,
    layers: _Layers,
    bank: Mapping[str, np.ndarray],
    count: int,
    scales: tuple[float, float],
    least_opacity: float,
) -> None:
    """Lays so many rendered pieces over a crop, each from a kind of its own."""
    size = layers.opacity.shape[0]
    kinds = list(bank)
    for kind in rng.permutation(kinds)[:count]:
        pieces = bank[kind]
        piece = pieces[rng.integers(len(pieces))]
        side = piece.shape[0]
        # Large enough to cover the crop, whatever the turn.
        scale = rng.uniform(*scales)
        room = max(0.0, (side * scale - 1.42 * size) / 2)
        center = tuple(size / 2 + rng.uniform(-room, room, 2))
        found = _turned([piece], rng, size, scale, center)
        if found is None:
            continue
        rows, columns, part = found
        part = part.astype(np.float32) / 255
        opaque = np.float32(rng.uniform(least_opacity, 1))
        opacity = part[..., 3] * opaque
        layers.lay((rows, columns), opacity, part[..., :3] * opaque)


def _lay_holes(rng: np.random.Generator, layers: _Layers) -> None:
    """Lays opaque strokes over a crop, up to an eighth of it wide."""
    size = layers.opacity.shape[0]
    for _ in range(rng.integers(1, 4)):
        points = rng.uniform(-0.1, 1.1, (1, 2)) * size
        steps = rng.normal(0, rng.uniform(0.03, 0.2) * size, (rng.integers(1, 7), 2))
        points = np.concatenate([points, points + np.cumsum(steps, axis=0)])
        hole = np.zeros((size, size), np.uint8)
        thickness = max(1, int(np.exp(rng.uniform(0, np.log(size / 8)))))
        cv2.polylines(
            hole, [np.int32(points * 16)], False, 255, thickness, cv2.LINE_AA, 4
        )
        opacity = hole.astype(np.float32) / 255
        layers.lay((slice(None), slice(None)), opacity, _color(rng, 0.6))


def _given(rng: np.random.Generator, opacity: np.ndarray) -> np.ndarray:
    """Returns the mask as somebody gives it who knows the damage: 1 or 0, or wider."""
    given = (opacity > rng.uniform(0.0, 0.3)).astype(np.float32)
    wider = int(rng.integers(0, 4))
    return cv2.dilate(given, np.ones((2 * wider + 1,) * 2, np.uint8))


def found_mask(probability: np.ndarray, threshold: float) -> np.ndarray:
    """Returns the mask that a finder gives a filler.

    Args:
      probability: float (height, width) of damage.
      threshold: from which probability on something counts.

    Returns:
      float32 of the same shape: `filler.certainty`, 0 where nothing counts.
    """
    grown = cv2.dilate(probability, np.ones((3, 3), np.uint8))
    return np.float32(filler.certainty(grown) * (grown >= threshold))


def _crop(
    rng: np.random.Generator, material: Material, recipe: Recipe, hard: bool
) -> np.ndarray:
    """Returns a clean crop, float32 (size, size, 3) in [0, 1]."""
    size = recipe.image_size
    if hard:
        number, row, column = material.hard[rng.integers(len(material.hard))]
        picture = material.pictures[number]
    else:
        belonging = len(material.belonging) and rng.random() < recipe.belonging_share
        pictures = material.belonging if belonging else material.pictures
        picture = pictures[int(rng.integers(len(pictures)))]
    height, width = picture.shape[:2]
    scale = np.exp(rng.uniform(*np.log(_SCALES)))
    side = min(int(size / scale), height, width)
    if hard:
        around = rng.integers(side // 8, side - side // 8, 2)
        top = int(np.clip(row - around[0], 0, height - side))
        left = int(np.clip(column - around[1], 0, width - side))
    else:
        top = int(rng.integers(0, height - side + 1))
        left = int(rng.integers(0, width - side + 1))
    crop = picture[top : top + side, left : left + side]
    if side != size:
        how = cv2.INTER_AREA if side > size else cv2.INTER_CUBIC
        crop = cv2.resize(crop, (size, size), interpolation=how)
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    if rng.random() < 0.15:
        crop = crop[::-1]
    if rng.random() < 0.15:
        crop = crop.transpose(1, 0, 2)
    crop = np.ascontiguousarray(crop).astype(np.float32) / 255
    if rng.random() < 0.5:
        crop = _exposed(rng, crop)
    return crop


def _exposed(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Returns a picture as if it had been exposed and balanced otherwise."""
    image = cv2.pow(image, float(np.exp(rng.uniform(-0.5, 0.5))))
    gains = rng.uniform(0.7, 1.15) * rng.uniform(0.85, 1.15, 3)
    return np.clip(image * np.float32(gains), 0, 1)


def _join(
    rng: np.random.Generator, image: np.ndarray, other: np.ndarray | None
) -> np.ndarray:
    """Returns a picture that ends at a line, where another begins, or a border."""
    size = image.shape[0]
    angle = rng.choice([0, 90, 180, 270]) + rng.normal(0, 2)
    if other is not None and rng.random() < 0.5:
        angle = rng.uniform(0, 360)
    across = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    place = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    away = place[None] * np.float32(across[0]) + place[:, None] * np.float32(across[1])
    if other is None:  # paper, or the dark around a slide
        low, high = (0.0, 0.2) if rng.random() < 0.4 else (0.6, 1.0)
        paper = rng.uniform(low, high) * np.float32([1, *rng.uniform(0.8, 1, 2)])
        other = np.broadcast_to(np.sort(paper)[::-1], image.shape)
    share = np.clip((away - rng.uniform(-0.1, 0.45)) * size / rng.uniform(1, 3), 0, 1)
    share = _three(share.astype(np.float32))
    return image * (1 - share) + other * share


def _with_rods(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Returns a picture with straight things that belong there: posts, canes, railings.

    Unlike a running scratch they are as wide as things are, have ends or stand beside
    each other, and hide what is behind them wholly.
    """
    size = image.shape[0]
    turned = rng.choice([0.0, 90.0, rng.uniform(0, 180)], p=[0.65, 0.15, 0.2])
    angle = np.deg2rad(turned + rng.normal(0, 4))
    along = np.array([np.sin(angle), np.cos(angle)])
    across = np.array([along[1], -along[0]])
    wide = float(np.exp(rng.uniform(np.log(1.5), np.log(10))))
    length = rng.uniform(0.15, 1.3) * size
    start = rng.uniform(-0.1, 1.0, 2) * size - along * length * rng.uniform(0, 0.5)
    taper, count, apart = rng.uniform(0.5, 1.0), 1, 0.0
    if rng.random() < 0.4:  # a railing
        count, apart = int(rng.integers(3, 16)), wide * rng.uniform(2.5, 10)
    elif rng.random() < 0.4:  # some posts
        count, apart = int(rng.integers(2, 5)), rng.uniform(0.1, 0.4) * size
    cover = np.zeros((size, size), np.uint8)

    def drawn(one: np.ndarray, other: np.ndarray, at_one: float, at_other: float):
        side = np.array([(other - one)[1], -(other - one)[0]])
        side = side / (np.linalg.norm(side) + 1e-6) / 2
        corners = [one - side * at_one, one + side * at_one,
                   other + side * at_other, other - side * at_other]  # fmt: skip
        cv2.fillPoly(cover, [np.int32(np.array(corners) * 16)], 255, cv2.LINE_AA, 4)

    for number in range(count):
        top = start + across * apart * number + rng.normal(0, 0.02, 2) * apart
        drawn(top, top + along * length, wide, wide * taper)
    if count > 2 and rng.random() < 0.6:  # its rail
        end = start + across * apart * (count - 1)
        drawn(start - across * wide, end + across * wide, 1.5 * wide, 1.5 * wide)
    opacity = cv2.GaussianBlur(cover.astype(np.float32) / 255, (0, 0), 0.6)
    tone = rng.choice([rng.uniform(0, 0.25), rng.uniform(0.65, 1), rng.uniform(0, 1)],
                      p=[0.55, 0.3, 0.15])  # fmt: skip
    color = np.float32([tone, tone * rng.uniform(0.85, 1), tone * rng.uniform(0.7, 1)])
    # One side lies in the light.
    light = cv2.GaussianBlur(opacity, (0, 0), max(0.8, wide / 3))
    shade = 1 + rng.uniform(0, 2) * cv2.Sobel(light, cv2.CV_32F, 1, 0)
    painted = np.clip(_three(shade) * color, 0, 1)
    return image * (1 - _three(opacity)) + painted * _three(opacity)


def _tone(rng: np.random.Generator) -> Any:
    """Returns a function that fades and tints images, always alike."""
    saturation, gamma = rng.uniform(0, 0.9), rng.uniform(0.8, 1.25)
    low, high = rng.uniform(0.02, 0.16), rng.uniform(0.75, 0.97)
    tint = rng.uniform(1, 1.08), rng.uniform(0.95, 1.03), rng.uniform(0.72, 1.0)

    def toned(image: np.ndarray) -> np.ndarray:
        grey = _three(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))
        image = cv2.addWeighted(image, saturation, grey, 1 - saturation, 0)
        image = cv2.pow(np.clip(image, 0, 1), gamma)
        planes = zip(cv2.split(image), tint, strict=True)
        return cv2.merge(
            [plane * (color * (high - low)) + color * low for plane, color in planes]
        )

    return toned


def draw_pair(
    rng: np.random.Generator, material: Material, recipe: Recipe
) -> dict[str, np.ndarray]:
    """Draws a pair.

    Args:
      rng: of this pair.
      material: what from.
      recipe: how.

    Returns:
      "input": uint8 (size, size, 3), damaged; "output": the same without damage,
      grain and JPEG, faded and blurred alike; "mask": uint8 (size, size, 1), the
      opacity of the damage; "seen": uint8 (size, size, 1), 255 where the damage
      changes the picture visibly, less where less. With `recipe.fills` "given" too:
      uint8 (size, size, 1), the mask as a filler is given it.
    """
    size = recipe.image_size
    hard = bool(material.hard) and rng.random() < recipe.hard_share
    image = _crop(rng, material, recipe, hard)
    if rng.random() < recipe.joined_share:
        paper = rng.random() < 0.5
        other = None if paper else _crop(rng, material, recipe, False)
        image = _join(rng, image, other)
    if rng.random() < recipe.rods_share:
        image = _with_rods(rng, image)
    if rng.random() < recipe.grey_share:
        image = _three(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))
    if rng.random() < recipe.unsharp_share:
        image = cv2.GaussianBlur(image, (0, 0), np.exp(rng.uniform(-0.7, 1.2)))

    layers = _Layers(size)
    if rng.random() >= recipe.clean_share:
        severity = rng.choice(list(_SEVERITIES), p=list(_SEVERITIES.values()))
        drawn = bool(material.drawn) and rng.random() < recipe.drawn_share
        if not drawn or rng.random() < 0.5:
            _lay_scanned(rng, layers, material, severity)
        if rng.random() < np.clip(0.45 * severity, 0.1, 0.45):
            _lay_running_scratches(rng, layers)
        if rng.random() < recipe.scratches_share:
            _lay_fine_scratches(rng, layers)
        if drawn:
            count = 1 if severity < 0.25 else int(rng.integers(1, 4))
            _lay_rendered(rng, layers, material.drawn, count, (0.67, 1.5), 0.5)
        if rng.random() < recipe.holes_share:
            _lay_holes(rng, layers)

    whole, damaged = image, layers.over(image)
    toned = rng.random() < recipe.toned_share
    if toned:
        tone = _tone(rng)
        if rng.random() < 0.5:  # damaged, and then faded
            whole, damaged = tone(whole), tone(damaged)
        else:
            whole = tone(whole)
            damaged = layers.over(whole)
    opacity = layers.opacity
    if rng.random() < recipe.soft_share:
        blur = functools.partial(
            cv2.GaussianBlur, ksize=(0, 0), sigmaX=rng.uniform(0.4, 1.4)
        )
        whole, damaged, opacity = blur(whole), blur(damaged), blur(opacity)
    red, green, blue = cv2.split(cv2.absdiff(damaged, whole))
    change = cv2.max(cv2.max(red, green), blue)

    damaged = _to_uint8(damaged + _grain(rng, damaged))
    if rng.random() < (0.8 if toned else 0.2):
        how = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(55, 96))]
        coded = cv2.imencode(".jpg", damaged[..., ::-1], how)[1]
        damaged = cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1]
    pair = {
        "input": damaged,
        "output": _to_uint8(whole),
        "mask": _to_uint8(opacity)[..., None],
        "seen": _to_uint8(change / _SEEN)[..., None],
    }
    if recipe.fills:
        pair["given"] = _to_uint8(_given(rng, opacity))[..., None]
    return pair


def _grain(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Returns grain for an image, some of it in color, often less at either end."""
    size = image.shape[0]
    grain = _three(rng.standard_normal((size, size), np.float32))
    if rng.random() < 0.5:
        own = rng.standard_normal((size, size, 3), np.float32)
        grain = cv2.addWeighted(grain, 1, own, rng.uniform(0, 0.7), 0)
    if rng.random() < 0.7:
        grain = cv2.GaussianBlur(grain, (0, 0), rng.uniform(0.4, 0.9))
    grain *= np.float32(rng.uniform(0, 0.04) / (grain.std() + 1e-6))
    if rng.random() < 0.5:
        luma = _three(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))
        grain *= 0.4 + 2.4 * np.clip(luma * (1 - luma), 0, 0.25)
    return grain


def _to_uint8(image: np.ndarray) -> np.ndarray:
    return cv2.convertScaleAbs(np.maximum(image, 0), alpha=255)


def draw_batch(
    material: Material,
    recipe: Recipe,
    *,
    seed: int,
    step: int,
    count: int,
    find: Callable[[np.ndarray], np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """Draws the pairs of a step.

    Args:
      material: what from.
      recipe: how.
      seed: of the run.
      step: its number.
      count: of the pairs.
      find: of damaged crops, uint8 (count, size, size, 3), the probability of damage,
        float32 (count, size, size), for `Recipe.found_share`.

    Returns:
      What `draw_pair` returns, stacked.
    """
    generators = [np.random.default_rng([seed, step, index]) for index in range(count)]
    pairs = [draw_pair(rng, material, recipe) for rng in generators]
    batch = {name: np.stack([pair[name] for pair in pairs]) for name in pairs[0]}
    if find and recipe.found_share:
        probability = find(batch["input"])
        for index, rng in enumerate(generators):
            # Nobody gives a mask of what has no damage.
            if rng.random() < recipe.found_share or not batch["mask"][index].any():
                mask = found_mask(probability[index], rng.uniform(0.2, 0.85))
                batch["given"][index, ..., 0] = _to_uint8(mask)
    return batch
