"""What the page shows of a film: its first frame, and what its header says."""

import dataclasses
import pathlib

from restoration.base import errors
from restoration.film import container, video
from restoration.images import frames, picture, preview


@dataclasses.dataclass(frozen=True)
class About:
    """What is known of a film before it is restored.

    Attributes:
      frames: by the header; 0 where it does not say.
      rate: frames a second; 0 where unknown.
      interlaced: whether the first frame is marked as interlaced.
    """

    frames: int
    rate: float
    interlaced: bool


def inspect(path: pathlib.Path, *, max_pixels: int) -> About:
    """Reads a film's header and decodes its first frame.

    Raises:
      InputError: for what is no film, without a frame, or with frames too large.
    """
    video.require_pyav()
    with video.open_film(path) as opened:
        context = opened.streams.best("video").codec_context
        width, height = context.width, context.height
    if width * height > max_pixels:
        raise errors.InputError(
            f"{path}: frames of {width}×{height} pixels are more than --max_pixels="
            f"{max_pixels}"
        )
    source = container.inspect(path)
    return About(source.length, float(source.rate or 0), source.interlaced)


def write_levels(path: pathlib.Path, film: pathlib.Path) -> list[tuple[int, int]]:
    """Writes the levels of a film's first frame, as it is shown, to look at.

    Args:
      path: the file to write; see `preview.write_levels`.
      film: the film.

    Returns:
      (width, height) of each level, the largest first.

    Raises:
      InputError: where no frame can be decoded.
    """
    first = next(video.decode(video.describe(film)), None)
    if first is None:
        raise errors.InputError(f"{film}: no frame can be decoded; replace the file")
    still = path.with_name(f"{path.name}.png")
    try:
        frames.write(still, video.to_rgb(first).astype("float32") / 255)
        return preview.write_levels(path, picture.inspect(still))
    finally:
        still.unlink(missing_ok=True)
