"""Restores old photographs and film frames with neural networks, in JAX.

    import restoration
    restored = restoration.restore_image(image)

JAX is imported only when one of these functions is asked for.
"""

from typing import Any

__all__ = ["load_model", "restore_image"]


def __getattr__(name: str) -> Any:
    """Returns a function of the Python interface."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from restoration.inference import array

    return getattr(array, name)
