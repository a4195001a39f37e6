"""Between the colors of a picture's profile and those that models know, sRGB."""

import tempfile
from collections.abc import Callable

import numpy as np
import pyvips

from restoration.base.luma import BT601
from restoration.images import colorimetry, picture

# What a grey value is made of, as in Rec. 601.
LUMA = np.array(BT601, np.float32)

# Profiles whose colors differ less from sRGB, of 1, are sRGB.
_SAME = 0.004

ToModel = Callable[[np.ndarray], np.ndarray]
Change = Callable[[np.ndarray, np.ndarray], np.ndarray]
_Convert = Callable[[np.ndarray], np.ndarray]


def _image(values: np.ndarray) -> pyvips.Image:
    """Makes of float (height, width, 1 or 3) in [0, 1] an image of 16 bits."""
    deep = np.rint(np.clip(values, 0, 1) * 65535).astype(np.uint16)
    height, width, bands = deep.shape
    image = pyvips.Image.new_from_memory(deep.tobytes(), width, height, bands, "ushort")
    return image.copy(interpretation="rgb16" if bands == 3 else "grey16")


def _values(image: pyvips.Image) -> np.ndarray:
    values = image.numpy().reshape(image.height, image.width, image.bands)
    return values.astype(np.float32) / np.float32(65535)


def _sample(colors: int) -> np.ndarray:
    """Returns colors from all of their space, float (n, n*n or 1, colors)."""
    steps = np.linspace(0, 1, 9, dtype=np.float32)
    grid = np.stack(np.meshgrid(*[steps] * colors, indexing="ij"), -1)
    return grid.reshape(9, -1, colors)


def _converters(profile: bytes, colors: int) -> tuple[_Convert, _Convert] | None:
    """Returns to and from sRGB, float in [0, 1]; None where both are the same.

    Raises:
      pyvips.Error: for a profile that cannot be used in both directions.
    """
    # libvips takes a profile to convert to only as a file.
    file = tempfile.NamedTemporaryFile(suffix=".icc")  # noqa: SIM115
    file.write(profile)
    file.flush()

    def convert(values: np.ndarray, source: str, target: str) -> np.ndarray:
        # In two steps: in one, Little CMS would interpolate in a coarse table.
        between = _image(values).icc_import(
            input_profile=source, pcs="lab", intent="relative"
        )
        return _values(
            between.icc_export(
                output_profile=target, pcs="lab", depth=16, intent="relative"
            )
        )

    def to_srgb(values: np.ndarray) -> np.ndarray:
        return convert(values, file.name, "srgb")

    def from_srgb(values: np.ndarray) -> np.ndarray:
        return convert(values, "srgb", file.name)

    sample = _sample(colors)
    there = to_srgb(sample)
    back = from_srgb(there)
    if there.shape[-1] != 3 or back.shape != sample.shape:
        raise pyvips.Error("a profile of other channels")
    return None if np.abs(there - sample).max() < _SAME else (to_srgb, from_srgb)


def _stated(known: colorimetry.Colorimetry, colors: int) -> tuple[_Convert, _Convert]:
    """Returns to and from sRGB of colors whose meaning is stated without a profile."""
    srgb = colorimetry.Colorimetry()
    to_srgb = colorimetry.converter(known, srgb, colors)
    from_srgb = colorimetry.converter(srgb, known, colors)
    return (
        lambda values: np.broadcast_to(to_srgb(values), (*values.shape[:-1], 3)),
        lambda values: from_srgb(values[..., :colors]),
    )


def _fill_hidden(values: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """Returns colors with the hidden ones grown in from those around them.

    What lies under full transparency may be anything; a model that saw it would
    spread it into visible pixels nearby. Farther in the fill is grey.
    """
    known = (~hidden)[..., None].astype(np.float32)
    filled = values * known
    for _ in range(8):
        if known.all():
            break
        sums, weights = np.zeros_like(filled), np.zeros_like(known)
        padded = np.pad(np.concatenate([filled, known], -1), ((1, 1), (1, 1), (0, 0)))
        height, width = hidden.shape
        for down in range(3):
            for across in range(3):
                part = padded[down : down + height, across : across + width]
                sums += part[..., :-1]
                weights += part[..., -1:]
        grown = (known == 0) & (weights > 0)
        filled = np.where(grown, sums / np.maximum(weights, 1), filled)
        known = np.maximum(known, grown)
    return np.where(known > 0, filled, np.float32(0.5))


def uncolored(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Returns what was restored, without colors that were not there before.

    Args:
      before: float (..., 3), RGB, a picture without color but for small damage.
      after: the same restored.

    Returns:
      float (..., 3): `after` where it has less color than before, elsewhere before,
      as light or dark as `after`.
    """
    lit = before + ((after - before) @ LUMA)[..., None]
    paler = np.ptp(after, -1, keepdims=True) < np.ptp(before, -1, keepdims=True)
    return np.where(paler, after, lit)


def make_color(page: picture.Page) -> tuple[ToModel, Change, list[str]]:
    """Returns how a page's values are shown to a model and changed by it.

    Args:
      page: of what kind the values are.

    Returns:
      `to_model(values)`: float32 RGB of sRGB in [0, 1] of stored values (height,
      width, bands); `change(before, after)`: of such RGB before and after
      restoring, the difference in the stored colors, as a part of white, 0 where
      both are equal; and notes.
    """
    notes, converters = [], None
    if page.profile:
        try:
            converters = _converters(page.profile, page.colors)
        except pyvips.Error:
            notes.append("the color profile is kept, but could not be used: as sRGB")
    elif page.colorimetry:
        converters = _stated(page.colorimetry, page.colors)

    def to_model(values: np.ndarray) -> np.ndarray:
        every = picture.normalized(page, values)
        colors = every[..., : page.colors]
        hidden = None
        if page.alpha:
            alpha = every[..., page.colors]
            hidden = ~(alpha > 0)
            if page.premultiplied:
                colors = colors / np.where(hidden, 1, alpha)[..., None]
        colors = np.clip(np.nan_to_num(colors, nan=0.0), 0, 1)
        if converters:
            colors = converters[0](colors)
        if hidden is not None and hidden.any():
            colors = _fill_hidden(colors, hidden)
        return np.broadcast_to(colors, (*colors.shape[:2], 3))

    def change(before: np.ndarray, after: np.ndarray) -> np.ndarray:
        if page.colors == 1:
            before, after = ((rgb @ LUMA)[..., None] for rgb in (before, after))
        if not converters:
            return after - before
        if page.colors == 1:
            before, after = (np.repeat(grey, 3, -1) for grey in (before, after))
        return converters[1](after) - converters[1](before)

    return to_model, change, notes
