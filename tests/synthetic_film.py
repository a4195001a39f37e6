"""Small films made from scikit-image's photographs, and their degradation."""

import fractions

import av
import numpy as np
import skimage.data
from PIL import Image

PHOTOGRAPHS = ("astronaut", "coffee", "chelsea", "rocket")


def shot(name, length, size, *, start, end, zoom, sway=0.0):
    """A camera's way over a photograph: uint8 (height, width, 3) frames.

    Start and end are parts (across, down) of the way that the frame can go; zoom is
    the part of the photograph that fits into it, at both ends; the sway goes to and
    fro, so that time and position cannot be confused.
    """
    image = Image.fromarray(getattr(skimage.data, name)()[..., :3])
    fit = min(image.width / size[1], image.height / size[0])
    for index in range(length):
        part = index / max(1, length - 1)
        scale = fit * (zoom[0] + part * (zoom[1] - zoom[0]))
        wide, high = scale * size[1], scale * size[0]
        across, down = (a + part * (b - a) for a, b in zip(start, end, strict=True))
        across += sway * np.sin(index / 3)
        left, top = across * (image.width - wide), down * (image.height - high)
        box = left, top, left + wide, top + high
        yield np.asarray(image.resize(size[::-1], Image.LANCZOS, box=box))


def three_shots(size=(144, 192), lengths=(26, 31, 23)):
    """A film of three shots: a pan, a zoom, a pan with sway."""
    one, two, three = lengths
    return [
        *shot("astronaut", one, size, start=(0, 0.2), end=(0.7, 0.5), zoom=(0.7, 0.7)),
        *shot("coffee", two, size, start=(0.2, 0.2), end=(0.6, 0.9), zoom=(0.9, 0.6)),
        *shot("chelsea", three, size, start=(0.2, 0.3), end=(0.7, 0.6),
              zoom=(0.75, 0.75), sway=0.2),
    ]  # fmt: skip


def reframed(frame, box, size):
    """A part of a frame, (left, top, right, bottom) to fractions, at a new size."""
    image = Image.fromarray(np.ascontiguousarray(frame))
    return np.asarray(image.resize(size[::-1], Image.LANCZOS, box=box))


def degraded(frame, seed, *, grain=6.0, flicker=0.08):
    """Faded, yellowed, flickering, with grain, dirt and scratches."""
    rng = np.random.default_rng(seed)
    brightness = 1 + flicker * rng.standard_normal()
    image = (0.75 * frame + 30) * brightness * np.array([1.05, 1.0, 0.8])
    image += rng.normal(0, grain, (*frame.shape[:2], 1))
    for _ in range(12):
        y, x = rng.integers(0, frame.shape[0]), rng.integers(0, frame.shape[1])
        image[y : y + rng.integers(1, 6), x : x + rng.integers(1, 6)] = rng.choice(
            [10, 245]
        )
    image[:, rng.integers(0, frame.shape[1], 2)] = 225
    return np.clip(image, 0, 255).astype(np.uint8)


def write(path, frames, *, codec="ffv1", rate=25, form=None, times=None, **stream):
    """Encodes RGB frames; `times` in 1/1000 s make the rate variable."""
    with av.open(str(path), "w") as container:
        track = container.add_stream(codec, rate=rate)
        track.height, track.width = frames[0].shape[:2]
        track.pix_fmt = form or {"ffv1": "bgr0", "png": "rgb24"}.get(codec, "yuv420p")
        track.options = stream.pop("options", {})
        rotation = stream.pop("rotation", 0)
        if rotation:
            track.set_display_rotation(rotation)
        for name, value in stream.items():
            setattr(track.codec_context, name, value)
        if times is not None:
            track.time_base = track.codec_context.time_base = fractions.Fraction(
                1, 1000
            )
        for index, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(frame), format="rgb24"
            )
            picture.pts = index if times is None else times[index]
            container.mux(track.encode(picture))
        container.mux(track.encode())
    return path
