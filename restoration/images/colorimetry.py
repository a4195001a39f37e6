"""What a picture's colors mean where no ICC profile says it.

PNG's chunks gAMA, cHRM and cICP, TIFF's tags 301, 318 and 319, nclx of HEIC, and
EXIF's mark of Adobe RGB all say the same two things: the primaries with their white,
and the transfer function. Both directions are computed here in float; `to_icc` says
the same to formats that know profiles alone.

Sources: ITU-T H.273 (code points), BT.2100 and BT.2408 (PQ, HLG, and their white of
203 cd/m²), ICC.1:2022 (profiles), TIFF 6.0 section 20, SMPTE ST 268 (Cineon's curve).
"""

import dataclasses
import struct
from collections.abc import Callable, Sequence

import numpy as np

SRGB = (0.64, 0.33, 0.3, 0.6, 0.15, 0.06, 0.3127, 0.329)
ADOBE_RGB = (0.64, 0.33, 0.21, 0.71, 0.15, 0.06, 0.3127, 0.329)

# Primaries and white by H.273's numbers: x and y of red, green, blue and white.
PRIMARIES = {
    1: SRGB,
    4: (0.67, 0.33, 0.21, 0.71, 0.14, 0.08, 0.31, 0.316),
    5: (0.64, 0.33, 0.29, 0.6, 0.15, 0.06, 0.3127, 0.329),
    6: (0.63, 0.34, 0.31, 0.595, 0.155, 0.07, 0.3127, 0.329),
    7: (0.63, 0.34, 0.31, 0.595, 0.155, 0.07, 0.3127, 0.329),
    8: (0.681, 0.319, 0.243, 0.692, 0.145, 0.049, 0.31, 0.316),
    9: (0.708, 0.292, 0.17, 0.797, 0.131, 0.046, 0.3127, 0.329),
    11: (0.68, 0.32, 0.265, 0.69, 0.15, 0.06, 0.314, 0.351),
    12: (0.68, 0.32, 0.265, 0.69, 0.15, 0.06, 0.3127, 0.329),
    22: (0.63, 0.34, 0.295, 0.605, 0.155, 0.077, 0.3127, 0.329),
}

# Transfer functions by H.273's numbers. Pictures of BT.709 and its like are shown
# as sRGB by browsers and systems, and so they are here.
_TRANSFERS = {
    1: "srgb", 2: "srgb", 4: 2.2, 5: 2.8, 6: "srgb", 8: 1.0, 13: "srgb", 14: "srgb",
    15: "srgb", 16: "pq", 17: 2.6, 18: "hlg",
}  # fmt: skip

_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
_D50 = np.array([63190, 65536, 54061]) / 65536

# The luminance of white in HDR pictures, and the highest of PQ and HLG, cd/m².
_WHITE, _PQ_PEAK, _HLG_PEAK = 203.0, 10000.0, 1000.0

# Black of the narrow range, and how much lighter white is, of 1.
_NARROW_BLACK, _NARROW_SPAN = 16 / 255, 219 / 255

# Entries of a profile's curve.
_CURVE = 4096

Convert = Callable[[np.ndarray], np.ndarray]
Transfer = str | float | tuple[tuple[float, ...], ...]


@dataclasses.dataclass(frozen=True)
class Colorimetry:
    """The meaning of a picture's values.

    Attributes:
      primaries: x and y of red, green, blue and white.
      transfer: a gamma, "srgb", "pq", "hlg", "cineon", or light by value: one table
        for all channels or one each.
      code: H.273's primaries, transfer, matrix and range, where the file gave these.
      narrow: whether black is 16 and white 235 of 255, as in video.
    """

    primaries: tuple[float, ...] = SRGB
    transfer: Transfer = "srgb"
    code: tuple[int, int, int, int] | None = None
    narrow: bool = False


def from_code(code: tuple[int, int, int, int]) -> Colorimetry | None:
    """Returns the meaning of H.273's numbers, None where they are not known."""
    # 2 is unspecified.
    primaries = PRIMARIES.get(1 if code[0] == 2 else code[0])
    transfer = _TRANSFERS.get(code[1])
    if primaries is None or transfer is None:
        return None
    return Colorimetry(primaries, transfer, code)


def _pq(light: np.ndarray) -> np.ndarray:
    power = np.clip(light * _WHITE / _PQ_PEAK, 0, 1) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def _from_pq(values: np.ndarray) -> np.ndarray:
    power = np.clip(values, 0, 1) ** (1 / 78.84375)
    light = np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)
    return light ** (1 / 0.1593017578125) * _PQ_PEAK / _WHITE


_HLG_A, _HLG_B, _HLG_C = 0.17883277, 0.28466892, 0.55991073


def _hlg(light: np.ndarray) -> np.ndarray:
    scene = np.clip(light * _WHITE / _HLG_PEAK, 0, 1) ** (1 / 1.2)
    bright = _HLG_A * np.log(np.maximum(12 * scene - _HLG_B, 1e-9)) + _HLG_C
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), bright)


def _from_hlg(values: np.ndarray) -> np.ndarray:
    values = np.clip(values, 0, 1)
    bright = (np.exp((values - _HLG_C) / _HLG_A) + _HLG_B) / 12
    scene = np.where(values <= 0.5, values**2 / 3, bright)
    return scene**1.2 * _HLG_PEAK / _WHITE


# Cineon's 10-bit values of black and white, density per value, and film's gamma.
_CINEON_BLACK, _CINEON_WHITE, _CINEON_STEP = 95, 685, 0.002 / 0.6
_CINEON_FLOOR = 10 ** ((_CINEON_BLACK - _CINEON_WHITE) * _CINEON_STEP)


def _from_cineon(values: np.ndarray) -> np.ndarray:
    light = 10 ** ((values * 1023 - _CINEON_WHITE) * _CINEON_STEP)
    return (light - _CINEON_FLOOR) / (1 - _CINEON_FLOOR)


def _cineon(light: np.ndarray) -> np.ndarray:
    light = np.maximum(light * (1 - _CINEON_FLOOR) + _CINEON_FLOOR, 1e-6)
    return (np.log10(light) / _CINEON_STEP + _CINEON_WHITE) / 1023


def _from_srgb(values: np.ndarray) -> np.ndarray:
    bright = ((np.maximum(values, 0) + 0.055) / 1.055) ** 2.4
    return np.where(values <= 0.04045, values / 12.92, bright)


def _srgb(light: np.ndarray) -> np.ndarray:
    bright = 1.055 * np.maximum(light, 1e-9) ** (1 / 2.4) - 0.055
    return np.where(light <= 0.0031308, light * 12.92, bright)


_CURVES = {
    "srgb": (_from_srgb, _srgb),
    "pq": (_from_pq, _pq),
    "hlg": (_from_hlg, _hlg),
    "cineon": (_from_cineon, _cineon),
}


def _by_table(
    values: np.ndarray, tables: tuple[tuple[float, ...], ...], inverse: bool
) -> np.ndarray:
    channels = []
    for channel in range(values.shape[-1]):
        light = np.maximum.accumulate(tables[min(channel, len(tables) - 1)])
        steps = np.linspace(0, 1, len(light))
        known = (light, steps) if inverse else (steps, light)
        channels.append(np.interp(values[..., channel], *known))
    return np.stack(channels, -1)


def to_light(values: np.ndarray, transfer: Transfer) -> np.ndarray:
    """Returns light, 1 at white, of values in [0, 1]; (..., channels)."""
    if isinstance(transfer, tuple):
        return _by_table(values, transfer, inverse=False)
    if isinstance(transfer, str):
        return _CURVES[transfer][0](values)
    return np.maximum(values, 0) ** transfer


def to_values(light: np.ndarray, transfer: Transfer) -> np.ndarray:
    """Returns values of light, the inverse of `to_light`; (..., channels)."""
    if isinstance(transfer, tuple):
        return _by_table(light, transfer, inverse=True)
    if isinstance(transfer, str):
        return _CURVES[transfer][1](light)
    return np.maximum(light, 0) ** (1 / transfer)


def _xyz(xy: tuple[float, ...]) -> np.ndarray:
    x, y = xy
    return np.array([x / y, 1.0, (1 - x - y) / y])


def _to_d50(primaries: tuple[float, ...]) -> np.ndarray:
    """Returns the matrix from light to XYZ of D50, adapted as Bradford says.

    Raises:
      numpy.linalg.LinAlgError or ZeroDivisionError: for primaries on a line.
    """
    columns = np.stack([_xyz(primaries[first : first + 2]) for first in (0, 2, 4)], -1)
    white = _xyz(primaries[6:])
    matrix = columns * np.linalg.solve(columns, white)
    cones = (_BRADFORD @ _D50) / (_BRADFORD @ white)
    return np.linalg.inv(_BRADFORD) @ np.diag(cones) @ _BRADFORD @ matrix


def is_usable(color: Colorimetry) -> bool:
    """Returns whether colors can be converted there and back."""
    try:
        matrix = _to_d50(color.primaries)
        return bool(np.isfinite(matrix).all() and abs(np.linalg.det(matrix)) > 1e-3)
    except (np.linalg.LinAlgError, ZeroDivisionError):
        return False


def converter(source: Colorimetry, target: Colorimetry, colors: int) -> Convert:
    """Returns what converts values of one meaning to another.

    Args:
      source: of the values that are given.
      target: of those that are returned.
      colors: channels: 1 has a transfer function alone.

    Returns:
      A function of float (..., colors) in [0, 1] to float32 in [0, 1].
    """
    matrix = np.linalg.solve(_to_d50(target.primaries), _to_d50(source.primaries))

    def convert(values: np.ndarray) -> np.ndarray:
        values = values.astype(np.float64)
        if source.narrow:
            values = np.clip((values - _NARROW_BLACK) / _NARROW_SPAN, 0, 1)
        light = to_light(values, source.transfer)
        if colors == 3:
            light = light @ matrix.T
        result = to_values(np.clip(light, 0, None), target.transfer)
        if target.narrow:
            result = _NARROW_BLACK + _NARROW_SPAN * np.clip(result, 0, 1)
        return np.clip(result, 0, 1).astype(np.float32)

    return convert


def is_srgb(color: Colorimetry, colors: int = 3) -> bool:
    """Returns whether values mean what they mean in sRGB, within a step of 8 bits.

    PNG's gamma of 1/2.2 is what programs write that mean sRGB.
    """
    if color.narrow:
        return False
    near = np.abs(np.subtract(color.primaries, SRGB)).max() < 0.002
    if colors == 1 or near:
        if isinstance(color.transfer, float) and abs(color.transfer - 2.2) < 0.02:
            return True
        steps = np.linspace(0, 1, 65)[:, None].repeat(colors, -1)
        values = to_values(to_light(steps, color.transfer), "srgb")
        return bool(np.abs(values - steps).max() < 0.004)
    return False


def _fixed(*values: float) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def _curve(color: Colorimetry, channel: int) -> bytes:
    transfer = color.transfer
    if isinstance(transfer, int | float) and not color.narrow:
        return b"para\0\0\0\0\0\0\0\0" + _fixed(transfer)
    if transfer == "srgb" and not color.narrow:
        return b"para\0\0\0\0\0\3\0\0" + _fixed(
            2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045
        )
    if isinstance(transfer, tuple):
        transfer = (transfer[min(channel, len(transfer) - 1)],)
    steps = np.linspace(0, 1, _CURVE)[:, None]
    if color.narrow:
        steps = np.clip((steps - _NARROW_BLACK) / _NARROW_SPAN, 0, 1)
    light = to_light(steps, transfer)[:, 0]
    entries = np.rint(np.clip(light, 0, 1) * 65535).astype(">u2")
    return b"curv\0\0\0\0" + struct.pack(">I", len(entries)) + entries.tobytes()


def _text(text: str) -> bytes:
    data = text.encode("utf-16-be")
    return struct.pack(">4s4xII4sII", b"mluc", 1, 12, b"enUS", len(data), 28) + data


def to_icc(color: Colorimetry, colors: int) -> bytes:
    """Returns an ICC profile, version 4, of the same meaning.

    What is lighter than white (PQ, HLG) is white in it; a `cicp` tag says the whole.

    Args:
      color: the meaning.
      colors: 3 for a profile of RGB, 1 for one of grey.
    """
    if colors == 1:
        return _profile({b"kTRC": _curve(color, 0)}, b"GRAY")
    curves = [_curve(color, channel) for channel in range(3)]
    tags = _rgb_tags(curves, color.primaries)
    if color.code:
        primaries, transfer, _, _ = color.code
        code = bytes([primaries, transfer, 0, not color.narrow])
        tags[b"cicp"] = b"cicp\0\0\0\0" + code
    return _profile(tags, b"RGB ")


def _rgb_tags(
    curves: Sequence[bytes], primaries: tuple[float, ...]
) -> dict[bytes, bytes]:
    matrix, tags = _to_d50(primaries), {}
    for channel, name in enumerate((b"r", b"g", b"b")):
        tags[name + b"TRC"] = curves[channel]
        tags[name + b"XYZ"] = b"XYZ \0\0\0\0" + _fixed(*matrix[:, channel])
    return tags


def grey_as_rgb(profile: bytes) -> bytes:
    """Returns a profile of RGB in which equal values mean what they do in one of grey.

    Args:
      profile: an ICC profile.

    Returns:
      The profile; the same one where it is none of grey, or has no curve.
    """
    if profile[16:20] != b"GRAY":
        return profile
    (count,) = struct.unpack_from(">I", profile, 128)
    for start in range(132, min(132 + 12 * count, len(profile) - 11), 12):
        name, offset, size = struct.unpack_from(">4sII", profile, start)
        if name == b"kTRC":
            curve = profile[offset : offset + size]
            return _profile(_rgb_tags([curve] * 3, SRGB), b"RGB ")
    return profile


def _profile(tags: dict[bytes, bytes], space: bytes) -> bytes:
    """Returns an ICC profile of tags and those that every profile needs."""
    tags = {
        b"desc": _text(f"{space.decode().strip()} of the source"),
        b"cprt": _text("CC0"),
        b"wtpt": b"XYZ \0\0\0\0" + _fixed(*_D50),
        **tags,
    }
    table, data = b"", b""
    start = 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += struct.pack(">4sII", name, start + len(data), len(content))
        data += content + b"\0" * (-len(content) % 4)
    size = start + len(data)
    head = struct.pack(
        ">I4sI4s4s4s12s4s4sI4sIQI12s4s44x",
        size, b"\0\0\0\0", 0x04300000, b"mntr", space,
        b"XYZ ", struct.pack(">6H", 2024, 1, 1, 0, 0, 0), b"acsp", b"\0\0\0\0", 0,
        b"\0\0\0\0", 0, 0, 0, _fixed(*_D50), b"\0\0\0\0",
    )  # fmt: skip
    return head + struct.pack(">I", len(tags)) + table + data
