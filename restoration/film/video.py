"""Films in, through PyAV: frames as 8-bit RGB or as small grey pictures.

Nothing else touches film files. A film is decoded frame by frame, so its length
does not matter; frames are numbered from 0 in the order in which they are shown.
A frame is delivered as a projector would show it: turned as the file's header
says, with square pixels, and in full-range sRGB values whatever the file holds.
"""

import dataclasses
import fractions
import importlib.metadata
import os
import pathlib
import re
from collections.abc import Iterable, Iterator

import numpy as np
from etils import epy

from restoration.base import errors

with epy.lazy_imports():
    import av
    from av.video import reformatter

# The first version that lets swscale round exactly.
_PYAV = 18

# Films without a color matrix in the header: SD is BT.601 and HD is BT.709, as
# players take it.
_LARGEST_SD = (1279, 576)

# Numbers of ITU-T H.273: no matrix given; transfer curves of HDR.
_NO_MATRIX = 2
_HDR_CURVES = {16: "PQ", 18: "HLG"}


@dataclasses.dataclass(frozen=True)
class Film:
    """What the header and the first frame of a film say.

    Attributes:
      path: the file.
      height: of the delivered frames, pixels.
      width: of the delivered frames, pixels.
      rate: frames a second, on average; 0 where the header does not say.
      length: number of frames by the header, 0 where it does not tell.
      square: whether frames are delivered with square pixels.
      warnings: what is doubtful about it, a line each.
    """

    path: pathlib.Path
    height: int
    width: int
    rate: float
    length: int
    square: bool
    warnings: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Frame:
    """One decoded frame, not yet converted.

    Attributes:
      number: from 0, in the order of showing.
      seconds: when it is shown.
      film: the film it belongs to.
      picture: PyAV's frame.
    """

    number: int
    seconds: float
    film: Film
    picture: "av.VideoFrame"


def require_pyav() -> None:
    """Raises InputError with the way to install PyAV where it is missing or old."""
    try:
        found = importlib.metadata.version("av")
    except importlib.metadata.PackageNotFoundError:
        found = ""
    if not found or int(found.split(".")[0]) < _PYAV:
        raise errors.InputError(
            f"reading films needs PyAV {_PYAV} or newer, {found or 'none'} is "
            f'installed: pip install "av>={_PYAV}"'
        )


def _lenient() -> dict[str, str]:
    """Returns options that let tags be no UTF-8; PyAV 19 needs and knows none."""
    major = int(importlib.metadata.version("av").split(".")[0])
    return {"metadata_errors": "replace"} if major < 19 else {}


def open_film(path: str | os.PathLike) -> "av.container.InputContainer":
    """Opens a film.

    Raises:
      InputError: for a file that is missing, no film or without pictures.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise errors.InputError(f"{path}: no such file")
    try:
        # A playlist must not fetch anything; a colon in the name is no protocol.
        container = av.open(
            f"file:{path}",
            options={"protocol_whitelist": "file"},
            **_lenient(),
        )
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    if not container.streams.video:
        container.close()
        raise errors.InputError(f"{path}: holds no picture track; check -i")
    return container


def _unreadable(path: str | os.PathLike, error: Exception) -> errors.InputError:
    reason = " ".join((getattr(error, "strerror", "") or str(error)).split())[:160]
    return errors.InputError(
        f"{path}: not a readable film ({reason}); replace or remove it"
    )


def _pixel_aspect(stream: "av.VideoStream") -> fractions.Fraction:
    return stream.sample_aspect_ratio or fractions.Fraction(1)


def _shown_size(
    picture: "av.VideoFrame", aspect: fractions.Fraction
) -> tuple[int, int]:
    """Returns (height, width) before turning; the squeezed side is stretched."""
    height, width = picture.height, picture.width
    if aspect > 1:
        width = round(width * aspect)
    elif aspect < 1:
        height = round(height / aspect)
    return height, width


def _turns(picture: "av.VideoFrame") -> int:
    """Returns by how many quarters the frame is turned, anticlockwise."""
    return round(picture.rotation / 90) % 4


def describe(path: str | os.PathLike, *, square: bool = True) -> Film:
    """Reads a film's header and its first frame.

    Args:
      path: a film file.
      square: whether frames will be delivered with square pixels: the side along
        which they are squeezed is stretched. Otherwise as they are stored.

    Returns:
      What they say.

    Raises:
      InputError: for a file that is missing or no film.
    """
    path = pathlib.Path(path)
    with open_film(path) as container:
        stream = container.streams.best("video")
        try:
            picture = next(container.decode(stream))
        except StopIteration:
            raise errors.InputError(f"{path}: no frame in it; replace it") from None
        except av.error.FFmpegError as error:
            raise _unreadable(path, error) from None
        aspect = _pixel_aspect(stream)
        height, width = _shown_size(picture, aspect if square else 1)
        if _turns(picture) % 2:
            height, width = width, height
        return Film(
            path=path,
            height=height,
            width=width,
            rate=float(stream.average_rate or stream.guessed_rate or 0),
            length=stream.frames or length_of(stream),
            square=square,
            warnings=tuple(_doubts(path, picture, aspect, square)),
        )


def _doubts(
    path: pathlib.Path,
    picture: "av.VideoFrame",
    aspect: fractions.Fraction,
    square: bool,
) -> Iterator[str]:
    if picture.interlaced_frame:
        yield (
            f"{path}: interlaced; moving edges are combed. Deinterlace it first "
            "(ffmpeg -vf bwdif)"
        )
    if aspect != 1:
        shown = "stretched to square ones" if square else "kept as they are stored"
        yield f"{path}: pixels of {aspect.numerator}:{aspect.denominator}, {shown}"
    if int(picture.color_trc) in _HDR_CURVES:
        curve = _HDR_CURVES[int(picture.color_trc)]
        yield f"{path}: HDR ({curve}); brightness is not converted to that of sRGB"


def _seconds(stream: "av.VideoStream") -> float:
    """Returns how long the picture track is by the header; 0 where unknown."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    # Matroska has it in a tag, as 00:00:05.480000000.
    written = re.fullmatch(
        r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", "")
    )
    if not written:
        return 0.0
    return 3600 * int(written[1]) + 60 * int(written[2]) + float(written[3])


def length_of(stream: "av.VideoStream") -> int:
    """Returns a track's number of frames by its duration; 0 where unknown."""
    return round(_seconds(stream) * float(stream.average_rate or 0))


def decode(film: Film) -> Iterator[Frame]:
    """Yields the frames of a film, one at a time.

    Frames that the decoder could only patch up are passed over; they keep their
    number.

    Args:
      film: from `describe`.

    Yields:
      The frames, in the order of showing.

    Raises:
      InputError: after the last good frame of a film that is broken, ends early,
        or changes its size; after the last frame where some were passed over.
    """
    damaged, number, last, ends = 0, 0, 0.0, 0.0
    with open_film(film.path) as container:
        stream = container.streams.best("video")
        stream.thread_type = "AUTO"
        counted, long = stream.frames, _seconds(stream)
        first = float(stream.start_time * stream.time_base) if stream.start_time else 0
        shape = None
        try:
            for picture in container.decode(stream):
                shape = shape or (picture.height, picture.width)
                if (picture.height, picture.width) != shape:
                    raise errors.InputError(
                        f"{film.path}: {shape[1]}×{shape[0]} becomes "
                        f"{picture.width}×{picture.height} at frame {number}; "
                        "cut the film there"
                    )
                last = picture.time if picture.time is not None else last
                ends = last + float((picture.duration or 0) * (picture.time_base or 0))
                if picture.is_corrupt:
                    damaged += 1
                else:
                    yield Frame(number, last, film, picture)
                number += 1
        except av.error.FFmpegError as error:
            raise errors.InputError(
                f"{film.path}: broken after {number} frames "
                f"({error.strerror}); these were used"
            ) from None
    # With some grace: headers round, and some count the first frame's delay.
    early = counted > number if counted else ends - first + 0.25 < long
    if early:
        whole = counted or round(long * film.rate)
        raise errors.InputError(
            f"{film.path}: ends after {number} of {whole} frames; these were used"
        )
    if damaged:
        raise errors.InputError(
            f"{film.path}: {damaged} of {number} frames are damaged and were passed "
            "over"
        )


def pick(film: Film, numbers: Iterable[int]) -> Iterator[Frame]:
    """Yields the frames of the given numbers, in the order of showing.

    Args:
      film: from `describe`.
      numbers: which; the rest is decoded but not yielded.

    Yields:
      The frames; those that are damaged are passed over.
    """
    wanted = set(numbers)
    if not wanted:
        return
    last = max(wanted)
    for frame in decode(film):
        if frame.number in wanted:
            yield frame
        if frame.number >= last:
            return


def _convert(
    frame: Frame, form: str, size: tuple[int, int], scaling: int
) -> np.ndarray:
    """Converts a frame to full range and (height, width), and turns it."""
    picture = frame.picture
    if _turns(picture) % 2:
        size = size[::-1]
    matrix = int(picture.colorspace)
    if matrix == _NO_MATRIX:
        wide, high = _LARGEST_SD
        known = reformatter.Colorspace
        small = picture.width <= wide and picture.height <= high
        matrix = known.ITU601 if small else known.ITU709
    flags = reformatter.Interpolation
    converted = reformatter.VideoReformatter().reformat(
        picture,
        width=size[1],
        height=size[0],
        format=form,
        src_colorspace=matrix,
        dst_colorspace=matrix,
        interpolation=scaling
        | flags.ACCURATE_RND
        | flags.FULL_CHR_H_INT
        | flags.FULL_CHR_H_INP,
        src_color_range=picture.color_range,
        dst_color_range=reformatter.ColorRange.JPEG,
        threads=1,
    )
    return np.rot90(converted.to_ndarray(), _turns(picture))


def to_rgb(frame: Frame) -> np.ndarray:
    """Returns a frame as uint8 (height, width, 3), full-range RGB."""
    size = frame.film.height, frame.film.width
    return _convert(frame, "rgb24", size, reformatter.Interpolation.LANCZOS)


def to_grey(frame: Frame, size: tuple[int, int]) -> np.ndarray:
    """Returns a frame's luma as uint8, averaged down to (height, width)."""
    return _convert(frame, "gray", size, reformatter.Interpolation.AREA)
