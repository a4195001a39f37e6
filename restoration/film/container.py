"""Films in and out, whole: every frame's planes and times, and all that goes with them.

A film is read frame by frame as it is stored (`Source`, `read`), restored frames are
encoded in parts (`write_part`), and parts are joined with the source's sound,
subtitles, chapters and tags, which are copied bit for bit (`join`). A folder of
numbered pictures is read and written alike. All of it through PyAV, that is FFmpeg.
"""

import contextlib
import dataclasses
import fractions
import heapq
import io
import pathlib
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from etils import epy

from restoration.base import errors, files
from restoration.film import stills, video

with epy.lazy_imports():
    import av
    from av.video import reformatter

# Files that are films.
SUFFIXES = (
    ".mkv", ".mp4", ".mov", ".avi", ".webm", ".mxf", ".m4v", ".mpg", ".mpeg", ".ts",
    ".m2ts", ".vob", ".dv", ".ogv", ".wmv", ".flv", ".m2v",
)  # fmt: skip

# Pictures of a sequence.
PICTURES = (".png", ".tif", ".tiff", ".dpx")

# Codecs that keep every bit.
_LOSSLESS = (
    "ffv1", "ffvhuff", "huffyuv", "utvideo", "magicyuv", "rawvideo", "v210", "v308",
    "v408", "v410", "r210", "qtrle", "png", "dpx", "tiff", "bmp", "zlib",
)  # fmt: skip

# `--codec`, the encoder and its settings. Parts are joined, so no frame may refer to
# frames of another part, nor be stored before ones that are shown earlier.
CODECS = {
    "ffv1": ("ffv1", {"level": "3", "g": "1", "slicecrc": "1", "slices": "4"}),
    "h264": (
        "libx264",
        {"crf": "14", "preset": "medium", "bf": "0", "x264-params": "force-cfr=1"},
    ),
    "h265": (
        "libx265",
        {"crf": "15", "preset": "medium", "x265-params": "bframes=0:log-level=error"},
    ),
    "prores": ("prores_ks", {"profile": "3", "vendor": "apl0"}),
}

# The files that each codec goes into; the first where the source's own cannot be.
_FILES = {
    "ffv1": (".mkv",),
    "h264": (".mp4", ".mov", ".mkv", ".m4v"),
    "h265": (".mp4", ".mov", ".mkv", ".m4v"),
    "prores": (".mov", ".mkv"),
}

# Formats whose samples are not stored a plane each, and their planar likes.
_PLANAR = {
    "rgb24": "gbrp", "bgr24": "gbrp", "bgr0": "gbrp", "rgb0": "gbrp", "0rgb": "gbrp",
    "0bgr": "gbrp", "pal8": "gbrp", "rgba": "gbrap", "bgra": "gbrap", "argb": "gbrap",
    "abgr": "gbrap", "rgb48le": "gbrp16le", "rgb48be": "gbrp16le",
    "rgba64le": "gbrap16le", "rgba64be": "gbrap16le", "nv12": "yuv420p",
    "nv21": "yuv420p", "nv16": "yuv422p", "yuyv422": "yuv422p", "uyvy422": "yuv422p",
    "p010le": "yuv420p10le", "p210le": "yuv422p10le", "monob": "gray", "monow": "gray",
    "ya8": "gray", "x2rgb10le": "gbrp10le",
}  # fmt: skip

# Formats that some encoders write in place of planes that they do not take.
_PACKED = {
    "gbrp": ("bgr0", "rgb24", "rgb48be", "rgb48le"),
    "gbrap": ("bgra", "rgba"),
    "gbrp16le": ("rgb48le", "rgb48be"),
    "gbrap16le": ("rgba64le", "rgba64be"),
    "gray16le": ("gray16be",),
    "gbrp10le": ("gbrp10be",),
    "gbrp12le": ("gbrp12be",),
}


@dataclasses.dataclass(frozen=True)
class Source:
    """What is known of a film before its frames are.

    Attributes:
      path: the file, or the folder of a sequence.
      pictures: the files of a sequence, in order; none for a file.
      codec: FFmpeg's name of it.
      format: the pixels' format, FFmpeg's name.
      planar: the format in which planes are delivered.
      layout: how these are to be read.
      height: pixels, as stored.
      width: the same.
      rate: frames a second on average; None where unknown.
      time_base: unit of times, seconds.
      aspect: of a pixel, width by height; None where unknown.
      matrix: nine integers of FFmpeg's display matrix, which turns or mirrors frames
        when they are shown; empty without one.
      colors: FFmpeg's numbers of range, primaries, transfer and matrix.
      length: frames by the header; 0 where it does not say.
      end: when the last frame ends, by the header, in units; 0 where it does not say.
      interlaced: whether the first frame is marked as interlaced.
    """

    path: pathlib.Path
    pictures: tuple[pathlib.Path, ...]
    codec: str
    format: str
    planar: str
    layout: stills.Layout
    height: int
    width: int
    rate: fractions.Fraction | None
    time_base: fractions.Fraction
    aspect: fractions.Fraction | None
    matrix: tuple[int, ...]
    colors: tuple[int, int, int, int]
    length: int
    end: int
    interlaced: bool

    @property
    def lossless(self) -> bool:
        """Whether the film's codec keeps every bit."""
        return self.codec in _LOSSLESS


@dataclasses.dataclass(frozen=True)
class Picture:
    """A decoded frame.

    Attributes:
      number: from 0, in the order of showing.
      planes: uint8 or uint16 (height, width) each; where the decoder failed, those of
        the frame before.
      time: when it is shown, in units of the source's time base.
      duration: for how long, or 0.
      repeated: whether it is the frame before, as it could not be decoded.
    """

    number: int
    planes: tuple[np.ndarray, ...]
    time: int
    duration: int
    repeated: bool


def is_film(name: str) -> bool:
    """Returns whether a file's name is that of a film."""
    path = pathlib.PurePath(name)
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def sequence(folder: pathlib.Path) -> tuple[pathlib.Path, ...]:
    """Returns the numbered pictures of a folder, in order of their numbers.

    Raises:
      InputError: where there are none, or of several kinds.
    """
    found: dict[str, list[tuple[int, pathlib.Path]]] = {}
    for path in sorted(folder.iterdir()):
        number = re.search(r"(\d+)$", path.stem)
        if path.suffix.lower() in PICTURES and number and path.name[0] != ".":
            found.setdefault(path.suffix.lower(), []).append((int(number[1]), path))
    if not found:
        raise errors.InputError(
            f"{folder}: no numbered pictures ({', '.join(PICTURES)}); --sequence takes "
            "a folder of the frames of one film"
        )
    if len(found) > 1:
        raise errors.InputError(
            f"{folder}: pictures of several kinds ({', '.join(sorted(found))}); "
            "keep the frames of one film in a folder"
        )
    (numbered,) = found.values()
    return tuple(path for _, path in sorted(numbered))


def _planar(form: "av.VideoFormat", path: pathlib.Path) -> tuple[str, stills.Layout]:
    """Returns the format in which planes are delivered, and how to read them."""
    name = _PLANAR.get(form.name, form.name).replace("yuvj", "yuv")
    if name.endswith("be"):
        name = name.removesuffix("be") + "le"
    planar = av.VideoFormat(name)
    parts = planar.components
    bits = parts[0].bits
    known = re.match(r"(yuv\d+p|yuva\d+p|gbra?p|gray)\d*(le)?$", name)
    if not known or bits > 16:
        raise errors.InputError(
            f"{path}: pixels of {form.name} are not known; convert the film first, for "
            "instance to yuv422p10le"
        )
    colors = "rgb" if name.startswith("gb") else name[:3].replace("gra", "gray")
    alpha = name.startswith(("yuva", "gbra"))
    full = form.name.startswith("yuvj") or colors == "gray"
    return name, stills.Layout(bits, colors, alpha, full)


def _matrix(frame: "av.VideoFrame") -> tuple[int, ...]:
    try:
        found = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV 18 does not know all kinds of side data
        turn = np.deg2rad(frame.rotation)
        cos, sin = (round(float(f(turn)) * 65536) for f in (np.cos, np.sin))
        return (cos, -sin, 0, sin, cos, 0, 0, 0, 1 << 30) if frame.rotation else ()
    return tuple(np.frombuffer(bytes(found), np.int32).tolist()) if found else ()


def _open(path: pathlib.Path) -> "av.container.InputContainer":
    return video.open_film(path)


def inspect(path: pathlib.Path, *, rate: fractions.Fraction | None = None) -> Source:
    """Reads what a film's header and first frame say.

    Args:
      path: a file, or a folder of numbered pictures.
      rate: of a folder's frames, a second.

    Raises:
      InputError: for what is missing, no film, without a frame or of unknown pixels.
    """
    pictures = sequence(path) if path.is_dir() else ()
    with _open(pictures[0] if pictures else path) as container:
        stream = container.streams.best("video")
        if stream is None:
            raise errors.InputError(f"{path}: holds no picture track; check -i")
        first = next(_decoded(container, stream), None)
        if first is None or first[0] is None:
            raise errors.InputError(
                f"{path}: no frame can be decoded ({stream.codec_context.name}); "
                "replace the file"
            )
        frame = first[0]
        planar, layout = _planar(frame.format, path)
        color_range = int(frame.color_range)
        if frame.format.name.startswith("yuvj"):
            color_range = 2
        if color_range == 2:
            layout = dataclasses.replace(layout, full=True)
        unit = fractions.Fraction(stream.time_base or fractions.Fraction(1, 1000))
        if pictures:
            unit = 1 / (rate or fractions.Fraction(24))
        return Source(
            path=path,
            pictures=pictures,
            codec=stream.codec_context.name,
            format=frame.format.name,
            planar=planar,
            layout=layout,
            height=frame.height,
            width=frame.width,
            rate=1 / unit if pictures else stream.average_rate or stream.guessed_rate,
            time_base=unit,
            aspect=stream.sample_aspect_ratio or None,
            matrix=_matrix(frame),
            colors=(
                color_range,
                int(frame.color_primaries),
                int(frame.color_trc),
                int(frame.colorspace),
            ),
            length=len(pictures) or stream.frames or video.length_of(stream),
            end=0 if pictures else (stream.start_time or 0) + (stream.duration or 0),
            interlaced=frame.interlaced_frame,
        )


# Frames that a decoder may hold back.
_HELD = 32

_Decoded = tuple["av.VideoFrame | None", int | None]


def _decoded(
    container: "av.container.InputContainer", stream: "av.VideoStream"
) -> Iterator[_Decoded]:
    """Yields (frame, None), or (None, time) for a packet that cannot be decoded."""
    stream.thread_type = "AUTO"
    try:
        for packet in container.demux(stream):
            # What the decoder still holds at the end may fail a few times too.
            for _ in range(_HELD if not packet.size else 1):
                try:
                    frames = packet.decode()
                except av.error.EOFError:
                    return
                except (av.error.FFmpegError, ValueError):
                    if packet.size:
                        yield None, packet.pts
                    continue
                for frame in frames:
                    yield frame, None
    except av.error.FFmpegError:  # the file ends in the middle of something
        return


def planes_of(frame: "av.VideoFrame", planar: str) -> tuple[np.ndarray, ...]:
    """Returns copies of a frame's planes, in a planar format."""
    if frame.format.name.replace("yuvj", "yuv") != planar:
        frame = frame.reformat(format=planar, threads=1)
    deep = frame.format.components[0].bits > 8
    planes = []
    for plane in frame.planes:
        values = np.frombuffer(plane, np.uint16 if deep else np.uint8)
        row = plane.line_size // values.itemsize
        values = values[: plane.height * row].reshape(plane.height, row)
        planes.append(values[:, : plane.width].copy())
    return tuple(planes)


def _deinterlacing(
    frames: Iterator[_Decoded], stream: "av.VideoStream"
) -> Iterator[_Decoded]:
    """Makes whole frames of fields, one a frame (FFmpeg's bwdif)."""
    graph, buffer, sink = None, None, None

    def pulled() -> Iterator[_Decoded]:
        while True:
            try:
                yield sink.pull(), None
            except (av.error.BlockingIOError, av.error.EOFError):
                return

    for frame, missing in frames:
        if frame is None:
            yield None, missing
            continue
        if graph is None:
            graph = av.filter.Graph()
            buffer = graph.add_buffer(
                width=frame.width,
                height=frame.height,
                format=frame.format,
                time_base=stream.time_base,
            )
            bwdif = graph.add("bwdif", "mode=send_frame:parity=auto:deint=all")
            sink = graph.add("buffersink")
            graph.link_nodes(buffer, bwdif, sink).configure()
        buffer.push(frame)
        yield from pulled()
    if graph is not None:
        buffer.push(None)
        yield from pulled()


def read(source: Source, *, deinterlace: bool = False) -> Iterator[Picture]:
    """Yields all frames of a film, in the order of showing.

    A frame that cannot be decoded is the one before again, as players show it.

    Args:
      source: from `inspect`.
      deinterlace: whether frames are made of their fields.

    Raises:
      InputError: where the size or the pixels' format changes on the way.
    """
    if source.pictures:
        yield from _read_pictures(source)
        return
    number, previous, last = 0, None, None
    step = 1
    if source.rate:
        step = max(1, round(1 / (source.rate * source.time_base)))
    missing: list[int] = []
    with _open(source.path) as container:
        stream = container.streams.best("video")
        frames = _decoded(container, stream)
        if deinterlace:
            frames = _deinterlacing(frames, stream)
        for frame, lost in frames:
            if frame is None:
                missing.append(lost if lost is not None else -1)
                continue
            _check_same(source, frame, number)
            time = frame.pts
            if time is not None and frame.time_base != source.time_base:
                time = round(time * frame.time_base / source.time_base)  # of a filter
            if time is None or (last is not None and time <= last):
                time = 0 if last is None else last + step
            for lost in sorted(missing):
                if previous is not None and (last is None or last < lost < time):
                    yield Picture(number, previous, lost, 0, True)
                    number, last = number + 1, lost
            missing = [t for t in missing if t >= time]
            broken = frame.is_corrupt and previous is not None
            planes = previous if broken else planes_of(frame, source.planar)
            yield Picture(number, planes, time, frame.duration or 0, bool(broken))
            number, previous, last = number + 1, planes, time
        for lost in sorted(missing):
            if previous is not None and last is not None:
                time = lost if lost > last else last + step
                yield Picture(number, previous, time, 0, True)
                number, last = number + 1, time


def _check_same(source: Source, frame: "av.VideoFrame", number: int) -> None:
    if (frame.width, frame.height) != (source.width, source.height):
        raise errors.InputError(
            f"{source.path}: {source.width}×{source.height} becomes "
            f"{frame.width}×{frame.height} at frame {number}; cut the film there"
        )
    if frame.format.name != source.format:
        raise errors.InputError(
            f"{source.path}: pixels of {source.format} become {frame.format.name} at "
            f"frame {number}; cut the film there"
        )


def _read_pictures(source: Source) -> Iterator[Picture]:
    previous = None
    for number, path in enumerate(source.pictures):
        try:
            with _open(path) as container:
                stream = container.streams.best("video")
                frame, _ = next(_decoded(container, stream), (None, None))
        except errors.InputError:
            frame = None
        if frame is None:
            if previous is None:
                raise errors.InputError(f"{path}: cannot be read; replace it") from None
            yield Picture(number, previous, number, 1, True)
            continue
        _check_same(dataclasses.replace(source, path=path), frame, number)
        previous = planes_of(frame, source.planar)
        yield Picture(number, previous, number, 1, False)


# Out.


@dataclasses.dataclass(frozen=True)
class Encoding:
    """How a film is written.

    Attributes:
      codec: FFmpeg's name of the encoder.
      settings: of the encoder.
      format: of the pixels that it takes.
      suffix: of the result's file.
      notes: what is not kept, a line each.
    """

    codec: str
    settings: tuple[tuple[str, str], ...]
    format: str
    suffix: str
    notes: tuple[str, ...] = ()


def _fitting(source: Source, codec: "av.Codec") -> tuple[str, tuple[str, ...]]:
    """Returns the format that an encoder takes of a source's pixels, and notes."""
    formats = [form.name for form in codec.video_formats or ()]
    wanted = [source.format, source.planar, *_PACKED.get(source.planar, ())]
    for name in wanted:
        if name in formats and not (name == "gray" and codec.name == "libx264"):
            return name, ()
    bits = source.layout.bits
    chroma = re.match(r"yuva?j?(\d+)p", source.planar)
    shape = chroma[1] if chroma else "444" if source.layout.colors == "rgb" else "420"
    for name in (f"yuv{shape}p{bits}le", f"yuv{shape}p", f"yuv{shape}p10le"):
        if name == f"yuv{shape}p" and bits > 8:
            continue
        if name in formats:
            return name, (f"pixels of {source.format} are written as {name}",)
    for name in ("yuv444p10le", "yuv422p10le", "yuv420p10le", "yuv420p"):
        if name in formats:
            return name, (f"pixels of {source.format} are written as {name}",)
    raise errors.InputError(
        f"{source.path}: {codec.name} takes no pixels of {source.format}; --codec ffv1"
    )


def encoding(source: Source, codec: str) -> Encoding:
    """Returns how a film is written.

    Args:
      source: the film.
      codec: "auto" or of `CODECS`; auto is FFV1 where the source keeps every bit,
        else H.264 of high quality; a sequence stays what it is.

    Raises:
      InputError: where FFmpeg lacks the encoder.
    """
    if source.pictures and codec == "auto":
        name = {"png": "png", "dpx": "dpx"}.get(source.codec, "tiff")
        form, notes = _fitting(source, av.Codec(name, "w"))
        return Encoding(name, (), form, source.pictures[0].suffix, notes)
    if codec == "auto":
        codec = "ffv1" if source.lossless else "h264"
    name, settings = CODECS[codec]
    try:
        encoder = av.Codec(name, "w")
    except av.codec.codec.UnknownCodecError:
        raise errors.InputError(
            f"{source.path}: this FFmpeg has no encoder {name}; choose another --codec "
            f"of {', '.join(CODECS)}"
        ) from None
    form, notes = _fitting(source, encoder)
    own = source.path.suffix.lower()
    files = _FILES[codec]
    # What another file than these holds, only Matroska is sure to hold too.
    suffix = own if own in files else ".mkv" if ".mkv" in files else files[0]
    if source.pictures:
        suffix = files[0]
    return Encoding(name, tuple(settings.items()), form, suffix, notes)


def mask_encoding() -> Encoding:
    """Returns how a film of masks is written: FFV1, grey, 8 bits."""
    name, settings = CODECS["ffv1"]
    return Encoding(name, tuple(settings.items()), "gray", ".mkv")


def frame_of(planes: Sequence[np.ndarray], planar: str) -> "av.VideoFrame":
    """Returns a PyAV frame of planes."""
    height, width = planes[0].shape
    frame = av.VideoFrame(width, height, planar)
    for values, plane in zip(planes, frame.planes, strict=True):
        row = plane.line_size // values.itemsize
        rows = np.frombuffer(plane, values.dtype)[: plane.height * row]
        rows.reshape(plane.height, row)[:, : plane.width] = values
    return frame


def _prepared(
    source: Source, used: Encoding, picture: Picture, planar: str
) -> "av.VideoFrame":
    frame = frame_of(picture.planes, planar)
    frame.color_range = source.colors[0]
    frame.color_primaries = source.colors[1]
    frame.color_trc = source.colors[2]
    frame.colorspace = source.colors[3]
    if used.format != planar:
        exact = planar in _PACKED and used.format in _PACKED[planar]
        if exact or planar == "gray":
            frame = frame.reformat(format=used.format, threads=1)
        else:
            flags = reformatter.Interpolation
            frame = frame.reformat(
                format=used.format,
                interpolation=flags.BICUBIC | flags.ACCURATE_RND,
                threads=1,
            )
    frame.pts, frame.time_base = picture.time, source.time_base
    if picture.duration:
        frame.duration = picture.duration
    return frame


@contextlib.contextmanager
def _one_line(path: pathlib.Path) -> Iterator[None]:
    """Turns what FFmpeg says while writing into one line."""
    try:
        yield
    except errors.InputError:
        raise
    except Exception as error:
        known = isinstance(error, (av.error.FFmpegError, OSError))
        if files.is_full(error):
            raise errors.InputError(
                f"{path.parent}: no space left on the disk; make room and run the same "
                "command again: finished shots are kept"
            ) from None
        if not known:
            raise
        reason = " ".join(str(error).split())[:160]
        raise errors.InputError(f"{path}: cannot be written ({reason})") from None


@dataclasses.dataclass(frozen=True)
class Part:
    """Consecutive frames in a file of their own.

    Attributes:
      path: the file, of the kind that the whole film will be.
      start: what is added to its times, in units of the source's time base.
    """

    path: pathlib.Path
    start: int


def write_part(
    path: pathlib.Path,
    pictures: Iterable[Picture],
    source: Source,
    used: Encoding,
    *,
    planar: str = "",
) -> Part:
    """Encodes some frames into a file of their own, which appears when it is whole.

    Args:
      path: the part's file, of the encoding's suffix.
      pictures: consecutive frames, one at least.
      source: the film whose times and tags they have.
      used: how.
      planar: the format of the pictures' planes, by default the source's.

    Returns:
      The part.

    Raises:
      InputError: for a full disk and what else FFmpeg says.
    """
    temporary = path.with_name(f".{secrets.token_hex(6)}.tmp{path.suffix}")
    start = None
    try:
        with _one_line(path), av.open(str(temporary), "w") as container:
            stream = container.add_stream(
                used.codec, rate=source.rate or 25, options=dict(used.settings)
            )
            context = stream.codec_context
            context.width, context.height = source.width, source.height
            context.pix_fmt = used.format
            context.time_base = stream.time_base = source.time_base
            if source.aspect:
                context.sample_aspect_ratio = source.aspect
            context.thread_type = "SLICE" if used.codec == "ffv1" else "AUTO"
            if not planar:
                context.color_range = source.colors[0]
                context.color_primaries = source.colors[1]
                context.color_trc = source.colors[2]
                context.colorspace = source.colors[3]
            for picture in pictures:
                if start is None:
                    # MP4 rounds a late start; Matroska rounds each time.
                    start = 0 if path.suffix == ".mkv" else picture.time
                shown = dataclasses.replace(picture, time=picture.time - start)
                frame = _prepared(source, used, shown, planar or source.planar)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return Part(path, start or 0)


def write_pictures(
    folder: pathlib.Path,
    pictures: Iterable[Picture],
    source: Source,
    used: Encoding,
    *,
    planar: str = "",
) -> None:
    """Writes frames as pictures by the source's names; each appears when it is whole.

    Raises:
      InputError: for a full disk and what else FFmpeg says.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for picture in pictures:
        path = folder / f"{source.pictures[picture.number].stem}{used.suffix}"
        context = av.CodecContext.create(used.codec, "w")
        context.width, context.height = source.width, source.height
        context.pix_fmt = used.format
        context.time_base = source.time_base
        if used.codec == "tiff":
            context.options = {"compression_algo": "deflate"}
        frame = _prepared(source, used, picture, planar or source.planar)
        temporary = path.with_name(f".{secrets.token_hex(6)}.tmp")
        try:
            with _one_line(path):
                packets = [*context.encode(frame), *context.encode(None)]
                temporary.write_bytes(b"".join(bytes(packet) for packet in packets))
                temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def _part_packets(
    parts: Sequence[Part], unit: fractions.Fraction, duration: int, stream: Any
) -> Iterator[tuple[float, Any, Any]]:
    for number, part in enumerate(parts, 1):
        with av.open(str(part.path)) as container:
            packets = [
                packet
                for packet in container.demux(container.streams.video[0])
                if packet.pts is not None
            ]
            for packet in packets:
                # Frames are stored in the order in which they are shown.
                shift = round(part.start * unit / packet.time_base)
                packet.pts = packet.dts = packet.pts + shift
                if number == len(parts) and packet is packets[-1] and duration:
                    packet.duration = round(duration * unit / packet.time_base)
                yield float(packet.pts * packet.time_base), packet, stream


def _copied_packets(
    container: "av.container.InputContainer", streams: dict[Any, Any]
) -> Iterator[tuple[float, Any, Any]]:
    for packet in container.demux(list(streams)):
        if packet.dts is None and packet.pts is None:
            continue
        time = packet.dts if packet.dts is not None else packet.pts
        yield float(time * packet.time_base), packet, streams[packet.stream]


def join(
    source: Source,
    parts: Sequence[Part],
    duration: int,
    target: pathlib.Path,
    *,
    extras: bool = True,
    replacing: Callable[[pathlib.Path], Any],
) -> list[str]:
    """Joins parts to a film with all that the source has beside its pictures.

    Args:
      source: the film that was restored.
      parts: from `write_part`, in order.
      duration: of the last frame, in units of the source's time base; 0: unknown.
      target: the file to write, which appears when it is whole.
      extras: whether sound, subtitles, chapters and tags are copied.
      replacing: gives a temporary path, see `files.replacing`.

    Returns:
      What could not be copied, a line each.

    Raises:
      InputError: for a full disk and what else FFmpeg says.
    """
    notes: list[str] = []
    with contextlib.ExitStack() as stack:
        stack.enter_context(_one_line(target))
        temporary = stack.enter_context(replacing(target))
        first = stack.enter_context(av.open(str(parts[0].path)))
        # Matroska's numbers are drawn by chance otherwise: the same film comes out as
        # the same bytes.
        matroska = target.suffix == ".mkv"
        options = {"fflags": "+bitexact"} if matroska else {"movflags": "+faststart"}
        # Times go on as they were, also below zero before the first sound.
        out = stack.enter_context(av.open(str(temporary), "w", options=options))
        stream = out.add_stream_from_template(first.streams.video[0])
        stream.time_base = source.time_base
        if source.matrix:
            stream.set_display_matrix(source.matrix)
        feeds = [_part_packets(parts, source.time_base, duration, stream)]
        if extras and not source.pictures:
            container = stack.enter_context(_open(source.path))
            taken, copied = container.streams.best("video"), {}
            stream.metadata.update(_kept(taken.metadata))
            stream.disposition = taken.disposition
            for other in container.streams:
                if other.index == taken.index:
                    continue
                if other.type == "attachment":
                    _attach(out, other, notes)
                    continue
                if not _fits(other, target):
                    # Tracks of chapters and time code are made anew, of tags.
                    if other.type == "data" and target.suffix != ".mkv":
                        continue
                    notes.append(
                        f"track {other.index} ({other.type}) cannot be in "
                        f"{target.suffix} and was left out; --codec ffv1 writes mkv"
                    )
                    continue
                added = out.add_stream_from_template(other)
                added.time_base = other.time_base
                added.metadata.update(_kept(other.metadata))
                added.disposition = other.disposition
                copied[other] = added
            out.metadata.update(_kept(container.metadata))
            if chapters := container.chapters():
                out.set_chapters(chapters)
            if copied:
                feeds.append(_copied_packets(container, copied))
        for _, packet, to in heapq.merge(*feeds, key=lambda item: item[0]):
            packet.stream = to
            out.mux(packet)
        out.close()
    return notes


def _fits(stream: Any, target: pathlib.Path) -> bool:
    """Returns whether a track can be copied to a file of the target's kind."""
    try:
        with av.open(io.BytesIO(), "w", format=_MUXERS[target.suffix]) as trial:
            trial.add_stream_from_template(stream)
            trial.start_encoding()
    except (av.error.FFmpegError, ValueError, TypeError):
        return False
    return True


# FFmpeg's name of what writes a file.
_MUXERS = {".mkv": "matroska", ".mp4": "mp4", ".m4v": "mp4", ".mov": "mov"}

# Tags of a file that its writer makes itself.
_OWN_TAGS = {
    "major_brand", "minor_version", "compatible_brands", "encoder", "duration",
    "vendor_id",
}  # fmt: skip


def _kept(metadata: dict[str, str]) -> dict[str, str]:
    return {k: v for k, v in metadata.items() if k.lower() not in _OWN_TAGS}


def _attach(out: Any, other: Any, notes: list[str]) -> None:
    try:
        out.add_attachment(other.name, other.mimetype, bytes(other.data))
    except (av.error.FFmpegError, ValueError, TypeError, AttributeError):
        notes.append(f"attachment {other.index} could not be copied")
