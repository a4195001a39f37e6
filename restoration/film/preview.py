"""A small film that shows another before and after, and what was marked, in step."""

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
from etils import epy

from restoration.film import video

with epy.lazy_imports():
    import av

# The height of each picture at most, pixels.
_HEIGHT = 480


def _shown(frame: "av.VideoFrame", size: tuple[int, int]) -> np.ndarray:
    """Returns a frame as uint8 RGB of (width, height), turned as players turn it."""
    turns = round(frame.rotation / 90) % 4
    width, height = size[::-1] if turns % 2 else size
    small = frame.reformat(width=width, height=height, format="rgb24", threads=1)
    return np.rot90(small.to_ndarray(), turns)


def write(
    path: pathlib.Path,
    before: pathlib.Path,
    after: pathlib.Path,
    mask: pathlib.Path | None,
    *,
    replacing: Callable[[pathlib.Path], Any],
) -> tuple[int, int]:
    """Writes H.264 in MP4, which browsers play.

    Args:
      path: the film to write.
      before: a film.
      after: the film restored; as many frames.
      mask: a film of what was changed, or None.
      replacing: gives a temporary path, see `files.replacing`.

    Returns:
      The film's (width, height).
    """
    paths = [before, after, *([mask] if mask else [])]
    containers = [video.open_film(p) for p in paths]
    try:
        streams = [container.streams.best("video") for container in containers]
        first = streams[0]
        films = [
            container.decode(stream)
            for container, stream in zip(containers, streams, strict=True)
        ]
        size: tuple[int, int] | None = None
        with (
            replacing(path) as temporary,
            av.open(str(temporary), "w", options={"movflags": "+faststart"}) as out,
        ):
            stream = out.add_stream(
                "libx264",
                rate=first.average_rate or 25,
                options={"crf": "20", "preset": "veryfast", "bf": "0"},
            )
            stream.codec_context.time_base = stream.time_base = first.time_base
            for frames in zip(*films, strict=False):
                if size is None:
                    size = _size(frames[0], first)
                    stream.width, stream.height = size[0] * len(paths), size[1]
                    stream.pix_fmt = "yuv420p"
                row = np.concatenate([_shown(frame, size) for frame in frames], 1)
                made = av.VideoFrame.from_ndarray(
                    np.ascontiguousarray(row), format="rgb24"
                )
                made = made.reformat(format="yuv420p", dst_colorspace="ITU709")
                made.pts, made.time_base = frames[0].pts, first.time_base
                out.mux(stream.encode(made))
            out.mux(stream.encode())
        return stream.width, stream.height
    finally:
        for container in containers:
            container.close()


def _size(frame: "av.VideoFrame", stream: "av.VideoStream") -> tuple[int, int]:
    """Returns the (width, height) at which a film is shown, both even."""
    width = frame.width * float(stream.sample_aspect_ratio or 1)
    height = frame.height
    if round(frame.rotation / 90) % 2:
        width, height = height, width
    scale = min(1.0, _HEIGHT / height)
    return max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2)
