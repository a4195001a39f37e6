"""Short worn clips for the film finder: moving pictures, and what lies on them.

Clips are grey, 8 bits: what is learned is where a frame differs from its neighbours
though nothing moved there. Motion is that of clean films, or of a camera over a
photograph; thin fast things pass that belong to the picture and are not marked.
"""

import dataclasses
import io
import pathlib
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from PIL import Image

from restoration.base import errors

# Of the films that are read: the most frames, and the most pixels across.
_FRAMES, _WIDTH = 160, 640

# Masks that lie on a frame at severity 1, for a square of 512 pixels, as scanned
# dirt comes, and their sides in parts of the scan's.
_RATES = {
    "dots": (6.0, 0.08, 0.4),
    "spots": (6.0, 0.06, 0.3),
    "hair-short": (2.0, 0.1, 0.4),
    "hair": (1.2, 0.2, 0.6),
    "lint": (1.5, 0.12, 0.4),
    "dirt": (1.0, 0.25, 0.8),
    "smut": (0.6, 0.2, 0.6),
    "sprinkles": (0.5, 0.4, 1.0),
    "stain": (0.3, 0.3, 0.8),
    "scratches": (0.3, 0.2, 0.6),
}


@dataclasses.dataclass(frozen=True)
class Clip:
    """A worn clip.

    Attributes:
      worn: uint8 (frames, side, side).
      clean: float32 of the same shape, 0 to 255, at the worn clip's brightness.
      opacity: uint8 of the same shape, of what lies on it.
    """

    worn: np.ndarray
    clean: np.ndarray
    opacity: np.ndarray


@dataclasses.dataclass(frozen=True)
class Sources:
    """What clips are made of.

    Attributes:
      films: uint8 (frames, height, width), grey.
      photographs: uint8 (height, width), grey.
      scans: by kind, uint8 (height, width) opacities.
    """

    films: list[np.ndarray]
    photographs: list[np.ndarray]
    scans: dict[str, list[np.ndarray]]


def _film(path: pathlib.Path) -> np.ndarray:
    import av

    frames = []
    with av.open(str(path)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number >= _FRAMES:
                break
            grey = frame.to_ndarray(format="gray")
            if grey.shape[1] > _WIDTH:
                high = round(grey.shape[0] * _WIDTH / grey.shape[1])
                grey = cv2.resize(grey, (_WIDTH, high), interpolation=cv2.INTER_AREA)
            frames.append(grey)
    return np.stack(frames)


def read_photographs(files: Mapping[str, bytes]) -> list[np.ndarray]:
    """Reads photographs, uint8 (height, width), grey."""
    return [
        np.asarray(Image.open(io.BytesIO(data)).convert("L")) for data in files.values()
    ]


def read_sources(
    films: Sequence[pathlib.Path], photographs: Mapping[str, bytes], scans: pathlib.Path
) -> Sources:
    """Reads films, photographs and scanned dirt into memory.

    Args:
      films: files.
      photographs: picture files, as `sources.find` gives them.
      scans: folder with a folder of RGBA pictures for each kind of dirt.

    Raises:
      InputError: for a kind of dirt that is not there.
    """
    dirt = {
        kind: [
            np.asarray(Image.open(path).getchannel("A"))
            for path in sorted((scans / kind).glob("*.png"))
        ]
        for kind in _RATES
    }
    for kind, found in dirt.items():
        if not found:
            raise errors.InputError(
                f"--overlays={scans}: no {kind}/*.png; a folder for each of "
                f"{', '.join(_RATES)}"
            )
    return Sources([_film(path) for path in films], read_photographs(photographs), dirt)


def _of_film(rng: np.random.Generator, film: np.ndarray, count: int, side: int):
    """Returns a part of a film, at full size or smaller, at its pace or faster."""
    pace = int(rng.choice([1, 1, 1, 2]))
    if len(film) < count * pace:
        pace = 1
    first = int(rng.integers(0, len(film) - count * pace + 1))
    height, width = film.shape[1:]
    part = min(int(side * rng.choice([1.0, 1.0, 1.4, 2.0])), height, width)
    y = int(rng.integers(0, height - part + 1))
    x = int(rng.integers(0, width - part + 1))
    frames = film[first : first + count * pace : pace, y : y + part, x : x + part]
    if rng.random() < 0.5:
        frames = frames[::-1]
    return [
        cv2.resize(np.ascontiguousarray(f), (side, side), interpolation=cv2.INTER_AREA)
        for f in frames
    ]


def _of_photograph(rng: np.random.Generator, image: np.ndarray, count: int, side: int):
    """Returns a camera's way over a photograph."""
    height, width = image.shape
    scale = rng.uniform(0.6, 1.3)
    speed = rng.normal(0, 1, 2) * rng.choice([0.3, 2.0, 6.0])
    turn, zoom = rng.normal(0, 0.004), rng.normal(0, 0.004)
    centre = np.array([rng.uniform(0, width), rng.uniform(0, height)])
    frames = []
    for number in range(count):
        angle, size = turn * number, scale * (1 + zoom * number)
        cos, sin = np.cos(angle) / size, np.sin(angle) / size
        at = centre + speed * number
        matrix = np.float32(
            [
                [cos, -sin, at[0] - (cos - sin) * side / 2],
                [sin, cos, at[1] - (sin + cos) * side / 2],
            ]
        )
        frames.append(
            cv2.warpAffine(
                image,
                matrix,
                (side, side),
                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_REFLECT_101,
            )
        )
    return frames


def _passing(rng: np.random.Generator, frames: list[np.ndarray]) -> None:
    """Draws something that moves fast through the frames and belongs to them."""
    side = frames[0].shape[0]
    start = rng.uniform(0, side, 2)
    speed = rng.normal(0, 1, 2)
    speed *= rng.uniform(2, 40) / (np.linalg.norm(speed) + 1e-6)
    start = start - speed * rng.uniform(0, len(frames))
    tone, opacity = float(rng.uniform(0, 255)), rng.uniform(0.6, 1)
    length, thick = rng.uniform(2, 50), int(rng.integers(1, 9))
    angle, spin = rng.uniform(0, np.pi), rng.normal(0, 0.15)
    bend = rng.normal(0, 0.3, 2)
    round_one, softness = rng.random() < 0.4, rng.uniform(0, 1.5)
    for number, frame in enumerate(frames):
        shape = np.zeros((side, side), np.uint8)
        at = start + speed * number + bend * number**2
        if round_one:
            centre = tuple(int(v * 16) for v in at)
            radius = int(16 * length / 6)
            cv2.circle(shape, centre, radius, 255, -1, cv2.LINE_AA, 4)
        else:
            now = angle + spin * number
            half = np.array([np.cos(now), np.sin(now)]) * length / 2
            ends = [tuple(int(v * 16) for v in at + s * half) for s in (-1, 1)]
            cv2.line(shape, *ends, 255, thick, cv2.LINE_AA, 4)
        if not shape.any():
            continue
        alpha = shape.astype(np.float32) * np.float32(opacity / 255)
        if softness > 0.3:
            alpha = cv2.GaussianBlur(alpha, (0, 0), softness)
        frames[number] = (frame + alpha * (tone - frame)).astype(np.uint8)


def _lay(image, opacity, alpha, tone, y, x):
    height, width = image.shape
    top, left = max(0, y), max(0, x)
    bottom, right = min(height, y + alpha.shape[0]), min(width, x + alpha.shape[1])
    if bottom <= top or right <= left:
        return
    part = alpha[top - y : bottom - y, left - x : right - x]
    here = (slice(top, bottom), slice(left, right))
    image[here] += part * (tone - image[here])
    opacity[here] = np.maximum(opacity[here], part)


def _dirt(rng, image, opacity, scans, severity):
    """Lays scanned dirt and drawn specks on a frame, float32 in 0 to 255."""
    side = image.shape[0]
    area = side * side / 512**2

    def tone():
        share = rng.uniform(0.75, 1) if rng.random() < 0.6 else rng.uniform(0, 0.2)
        return 255 * share

    for kind, (rate, low, high) in _RATES.items():
        for _ in range(rng.poisson(rate * severity * area)):
            scan = scans[kind][rng.integers(len(scans[kind]))]
            wide = max(6, int(scan.shape[0] * rng.uniform(low, high)))
            small = cv2.resize(scan, (wide, wide), interpolation=cv2.INTER_AREA)
            turn = cv2.getRotationMatrix2D(
                (wide / 2, wide / 2), rng.uniform(0, 360), 1.0
            )
            turned = cv2.warpAffine(small, turn, (wide, wide)).astype(np.float32) / 255
            strong = rng.uniform(0.35, 0.8) if kind == "stain" else rng.uniform(0.7, 1)
            alpha = np.clip(turned * rng.uniform(0.6, 1.3), 0, 1) * np.float32(strong)
            y, x = (int(v) for v in rng.integers(-wide // 2, side, 2))
            _lay(image, opacity, alpha, tone(), y, x)
    for _ in range(rng.poisson(3 * severity * area)):
        shape = np.zeros((24, 24), np.uint8)
        axes = tuple(int(16 * v) for v in rng.uniform(0.5, 5, 2))
        cv2.ellipse(
            shape, (192, 192), axes, rng.uniform(0, 180), 0, 360, 255, -1,
            cv2.LINE_AA, 4,
        )  # fmt: skip
        alpha = shape.astype(np.float32) * np.float32(rng.uniform(0.5, 1) / 255)
        y, x = (int(v) for v in rng.integers(-12, side, 2))
        _lay(image, opacity, alpha, tone(), y, x)


def draw(rng: np.random.Generator, sources: Sources, count: int, side: int) -> Clip:
    """Draws a worn clip.

    Args:
      rng: what decides.
      sources: from `read_sources`.
      count: frames.
      side: of the frames, pixels.
    """
    if rng.random() < 0.6:
        film = sources.films[rng.integers(len(sources.films))]
        frames = _of_film(rng, film, count, side)
    else:
        photograph = sources.photographs[rng.integers(len(sources.photographs))]
        frames = _of_photograph(rng, photograph, count, side)
    for _ in range(rng.poisson(1.0)):
        _passing(rng, frames)
    blur = rng.uniform(0, 1.0) if rng.random() < 0.4 else 0.0
    contrast, lift = rng.uniform(0.6, 1.1), rng.uniform(-20, 20)
    unsteady = rng.random() < 0.4
    grain = 255 * rng.uniform(0.002, 0.03)
    severity = float(rng.choice([0.0, 0.6, 1.0, 1.6, 2.5]))
    lines = []
    if rng.random() < 0.25:
        for _ in range(rng.integers(1, 4)):
            way = rng.uniform(0, side) + np.cumsum(rng.normal(0, 0.25, count))
            lines.append(
                (way, rng.uniform(0.5, 1.4), rng.uniform(0.3, 0.85),
                 float(rng.choice([242, 13])), rng.uniform(-0.02, 0.02))
            )  # fmt: skip
    worn, clean, opacities = [], [], []
    for number, frame in enumerate(frames):
        image = np.clip(
            (frame.astype(np.float32) - 128) * contrast + 128 + lift, 0, 255
        )
        if blur > 0.3:
            image = cv2.GaussianBlur(image, (0, 0), blur)
        if unsteady:
            shift = rng.normal(0, 0.35, 2)
            matrix = np.float32([[1, 0, shift[0]], [0, 1, shift[1]]])
            image = cv2.warpAffine(
                image, matrix, (side, side), borderMode=cv2.BORDER_REPLICATE
            )
            image = image * np.float32(1 + rng.normal(0, 0.025))
        target = np.clip(image, 0, 255)
        image, opacity = target.copy(), np.zeros((side, side), np.float32)
        _dirt(rng, image, opacity, sources.scans, severity)
        for way, wide, strong, shade, drift in lines:
            centre = way[number] + drift * np.arange(side)
            apart = (np.arange(side)[None] - centre[:, None]) / wide
            alpha = np.exp(-0.5 * apart**2).astype(np.float32) * np.float32(strong)
            _lay(image, opacity, alpha, shade, 0, 0)
        noise = rng.normal(size=(side, side)).astype(np.float32)
        noise = cv2.GaussianBlur(noise, (0, 0), 0.6)
        image = image + np.float32(grain) * noise / noise.std()
        worn.append(np.uint8(np.clip(image, 0, 255) + 0.5))
        clean.append(target)
        opacities.append(np.uint8(255 * opacity + 0.5))
    return Clip(np.stack(worn), np.stack(clean), np.stack(opacities))
