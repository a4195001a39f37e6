"""Measures what restoring costs as work grows: pictures in a batch, frames of a film.

    python -m experiments.benchmark growth

The command that people type, file to file, with programs on disk: 1, 10 and 100
photographs of half a megapixel, and films of 100, 1,000 and 10,000 small frames, in
seconds and peak memory. Large pictures are measured by `benchmark restore`.

What is measured is written at once, and not measured again.
"""

import json
import pathlib
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import av
import numpy as np
import skimage
from PIL import Image

from experiments.benchmark import start
from restoration.base import files

_PICTURES, _QUICK_PICTURES = (1, 10, 100), (1, 3)

_FRAMES, _QUICK_FRAMES = (100, 1_000, 10_000), (10, 30)

# Sides of a film's frames.
_WIDTH, _HEIGHT = 256, 192

# Frames of a shot, and specks of a frame.
_SHOT, _SPECKS = 60, 6


def _shown(count: int) -> Iterator[np.ndarray]:
    """Yields frames that pan over photographs, with specks that last a frame each."""
    folder = pathlib.Path(skimage.__file__).parent / "data"
    names = ("astronaut.png", "coffee.png", "chelsea.png")
    scenes = [np.asarray(Image.open(folder / name).convert("L")) for name in names]
    rng = np.random.default_rng(0)
    for number in range(count):
        shot, turn = divmod(number, _SHOT)
        scene = scenes[shot % len(scenes)]
        left, top = turn, min(turn // 2, scene.shape[0] - _HEIGHT)
        frame = scene[top : top + _HEIGHT, left : left + _WIDTH].copy()
        for row, column in rng.integers(8, (_HEIGHT - 8, _WIDTH - 8), (_SPECKS, 2)):
            size = rng.integers(2, 5)
            frame[row : row + size, column : column + size] = rng.choice([10, 245])
        yield frame


def film(path: pathlib.Path, count: int) -> None:
    """Writes a film of so many frames."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("ffv1", rate=24)
        stream.width, stream.height, stream.pix_fmt = _WIDTH, _HEIGHT, "gray"
        for frame in _shown(count):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="gray")))
        out.mux(stream.encode())


def measure(quick: bool, out: pathlib.Path) -> dict[str, Any]:
    """Measures pictures and films.

    Args:
      quick: few and short ones, as a test.
      out: the file of the results; what it holds of the same kind is kept.

    Returns:
      "pictures" and "frames": for each count "seconds" and "peak_bytes".
    """
    found: dict[str, Any] = {"pictures": {}, "frames": {}}
    if out.is_file():
        before = json.loads(out.read_text(encoding="utf-8"))
        if before.get("quick") == quick:
            found = {name: before[name] for name in found}
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

        def kept(kind: str, count: int, source: pathlib.Path) -> None:
            found[kind][str(count)] = restored(source)
            result = {"benchmark": "growth", "quick": quick} | found
            files.write_text(out, json.dumps(result, indent=1) + "\n")

        for count in _QUICK_PICTURES if quick else _PICTURES:
            if str(count) in found["pictures"]:
                continue
            source = folder / f"pictures{count}"
            source.mkdir()
            for number in range(count):
                start.photograph(source / f"{number:03d}.jpg")
            if not found["pictures"]:
                restored(source)  # compiles
            kept("pictures", count, source)
        for count in _QUICK_FRAMES if quick else _FRAMES:
            if str(count) in found["frames"]:
                continue
            source = folder / f"{count}.mkv"
            film(source, count)
            if not found["frames"]:
                restored(source)  # compiles
            kept("frames", count, source)
    return found
