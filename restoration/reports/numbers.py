"""Formats numbers for people."""

import math

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def fixed(value: float, digits: int, sign: bool = False) -> str:
    """Returns a number with `digits` digits after the point, with `sign` also a +."""
    if math.isnan(value):
        return "n/a"
    if math.isinf(value):
        return "−∞" if value < 0 else "+∞" if sign else "∞"
    text = f"{value:{'+' if sign else ''},.{digits}f}"
    return text.replace("-", "−")


def short(value: float) -> str:
    """Returns a number with four digits, very large or small ones as a power of ten."""
    if 1e4 <= abs(value) < 1e7:
        return fixed(value, 0)
    mantissa, _, exponent = f"{value:.4g}".partition("e")
    mantissa = mantissa.replace("-", "−")
    if not exponent:
        return mantissa
    power = "10" + str(int(exponent)).translate(_SUPERSCRIPTS)
    return power if mantissa == "1" else f"{mantissa}×{power}"


def brief(value: float) -> str:
    """Returns a number with three digits."""
    return short(float(f"{value:.3g}"))


def mse(value: float) -> str:
    """Returns a mean squared error with five digits, tiny ones as powers of ten."""
    return short(value) if 0 < value < 1e-4 else fixed(value, 5)


def verdict(gain: float) -> str:
    """Returns "better" for a gain, "worse" for a loss, "" for neither."""
    return "better" if gain > 0 else "worse" if gain < 0 else ""
