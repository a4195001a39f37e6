"""Measures what restoring costs as work grows: pictures in a batch, frames of a film.

    python -m experiments.benchmark growth

The command that people type, file to file, with programs on disk: 1, 10 and 100
photographs of half a megapixel, and films of 100, 1,000 and 10,000 small frames, in
seconds and peak memory. Large pictures are measured by `benchmark restore`.

What is measured is written at once, and not measured again.
"""

import functools
import json
import pathlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import av
import numpy as np
import skimage
from PIL import Image, ImageOps

from experiments.benchmark import start
from restoration.base import files

_PICTURES, _QUICK_PICTURES = (1, 10, 100), (1, 3)

_FRAMES, _QUICK_FRAMES = (100, 1_000, 10_000), (10, 30)

# Sides of a film's frames.
_WIDTH, _HEIGHT = 256, 192

# Films of other sizes: width, height and frames.
_SIZES = ((720, 576, 200), (3840, 2160, 12))
_QUICK_SIZES = ((96, 64, 8),)

# Frames and pictures of what is restored first, so that its programs are on disk.
_FEW = {"sizes": 4, "pictures": 1, "frames": 4}

# Writes so many pictures or frames, and says where.
Writer = Callable[[pathlib.Path, int], pathlib.Path]

# Frames of a shot, and specks of a frame.
_SHOT, _SPECKS = 60, 6


def _shown(count: int, width: int, height: int) -> Iterator[np.ndarray]:
    """Yields frames that pan over photographs, with specks that last a frame each."""
    folder = pathlib.Path(skimage.__file__).parent / "data"
    scenes = []
    for name in ("astronaut.png", "coffee.png", "chelsea.png"):
        picture = Image.open(folder / name).convert("L")
        room = (width + _SHOT, height + _SHOT)
        scenes.append(np.asarray(ImageOps.fit(picture, room)))
    rng = np.random.default_rng(0)
    for number in range(count):
        shot, turn = divmod(number, _SHOT)
        scene = scenes[shot % len(scenes)]
        frame = scene[turn // 2 : turn // 2 + height, turn : turn + width].copy()
        for row, column in rng.integers(8, (height - 8, width - 8), (_SPECKS, 2)):
            size = rng.integers(2, 5)
            frame[row : row + size, column : column + size] = rng.choice([10, 245])
        yield frame


def film(path: pathlib.Path, count: int, width: int, height: int) -> pathlib.Path:
    """Writes a film of so many frames; returns its path."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("ffv1", rate=24)
        stream.width, stream.height, stream.pix_fmt = width, height, "gray"
        for frame in _shown(count, width, height):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="gray")))
        out.mux(stream.encode())
    return path


def _pictures(folder: pathlib.Path, count: int) -> pathlib.Path:
    """Writes so many photographs; returns their folder."""
    folder.mkdir()
    for number in range(count):
        start.photograph(folder / f"{number:03d}.jpg")
    return folder


def measure(quick: bool, out: pathlib.Path) -> dict[str, Any]:
    """Measures pictures and films.

    Args:
      quick: few and short ones, as a test.
      out: the file of the results; what it holds of the same kind is kept.

    Returns:
      "pictures" and "frames": for each count "seconds" and "peak_bytes"; "sizes": for
      each width and height the same, and "frames".
    """
    found: dict[str, Any] = {"sizes": {}, "pictures": {}, "frames": {}}
    if out.is_file():
        before = json.loads(out.read_text(encoding="utf-8"))
        if before.get("quick") == quick:
            found = {name: before.get(name, {}) for name in found}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        environment = start.environment(folder / "cache")

        def restored(source: pathlib.Path) -> dict[str, float]:
            seconds, peak = start.run(
                [
                    sys.executable, "-m", "restoration.restore", "-i", str(source),
                    "-o", str(folder / "out"), "--overwrite", "--device=cpu",
                ],
                environment,
            )  # fmt: skip
            return {"seconds": round(seconds, 2), "peak_bytes": peak}

        def measured(kind: str, name: str, write: Writer, count: int, more: dict):
            if name in found[kind]:
                return
            # Shapes of their own are compiled before.
            restored(write(folder / f"few_{kind}_{name}.mkv", _FEW[kind]))
            source = write(folder / f"{kind}_{name}.mkv", count)
            found[kind][name] = restored(source) | more
            result = {"benchmark": "growth", "quick": quick} | found
            files.write_text(out, json.dumps(result, indent=1) + "\n")

        for width, height, count in _QUICK_SIZES if quick else _SIZES:
            write = functools.partial(film, width=width, height=height)
            more = {"frames": count}
            measured("sizes", f"{width}×{height}", write, count, more)
        for count in _QUICK_PICTURES if quick else _PICTURES:
            measured("pictures", str(count), _pictures, count, {})
        for count in _QUICK_FRAMES if quick else _FRAMES:
            write = functools.partial(film, width=_WIDTH, height=_HEIGHT)
            measured("frames", str(count), write, count, {})
    return found
