"""Checks one file or one pair of a paired folder; changes nothing.

Every file is read once and decoded once by each decoder. A pair gives a record of about
150 bytes, by which `audit` compares it with all other pairs.
"""

import contextlib
import functools
import hashlib
import io
import math
import os
import stat
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageFile

from restoration.audit import finding, listing
from restoration.base import errors
from restoration.images import similarity

# The formats that Pillow may decode, and their suffixes. Some of its other decoders
# start programs. MPO is a JPEG file with further images.
_FORMATS = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg"),
    "MPO": (".jpg", ".jpeg"),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "GIF": (),
}
# Pillow opens MPO files as JPEG.
_OPENED = tuple(name for name in _FORMATS if name != "MPO")
# Pillow's default limit of pixels. Pillow refuses more than twice this number.
_MANY_PIXELS = 1024**3 // 12
_TRAINED = ("PNG", "JPEG", "MPO", "BMP")
_BROKEN = {"undecodable", "truncated", "bomb"}

# A pair is dissimilar if the correlation of its 32×32 luma and the sharpness of the
# phase correlation's peak are both lower, and both images have more contrast.
_ALIKE_CORRELATION = 0.5
_ALIKE_SHARPNESS = 10.0
_LEAST_CONTRAST = 8.0
# A peak with at least this sharpness gives the shift to half a pixel.
SURE_SHARPNESS = 20.0
# Smallest side of images that are compared, and smallest shift reported, in pixels.
_LEAST_SIDE = 64
_LEAST_SHIFT = 1.5

RECORD = np.dtype(
    [
        # 128-bit digests of the pixels of input and output.
        ("digests", np.uint64, (2, 2)),
        # Hash and 8×8 luma of the output, the image without damage.
        ("hash", np.uint64, 2),
        ("thumbnail", np.uint8, 64),
        ("change", np.float32, len(similarity.CHARACTER)),
        ("blank", np.bool_, 2),
        ("sound", np.bool_),
    ]
)


class Look(NamedTuple):
    """A decoded file.

    Attributes:
      findings: (reason, detail) of each finding.
      image: RGB; None if the file cannot be decoded.
    """

    findings: tuple[tuple[str, str], ...]
    image: Image.Image | None = None


class Report(NamedTuple):
    """The result of checking one unit. Small, since there may be a million.

    Attributes:
      findings: on its files.
      pair: the two files that were compared, or None.
      record: their RECORD as bytes, or b"".
      misfit: 8×8 luma of the input of a dissimilar pair, or b"".
    """

    findings: tuple[finding.Finding, ...]
    pair: listing.Unit | None = None
    record: bytes = b""
    misfit: bytes = b""


@functools.cache
def import_tensorflow() -> Any:
    """Imports TensorFlow without its messages, for the CPU, with one thread."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Its message about oneDNN ignores the log level; decoding does not need oneDNN.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    try:
        import tensorflow as tf
    except ImportError as error:
        raise errors.InputError(
            f"TensorFlow cannot be imported ({error}); install it, or check only with "
            "Pillow: --notensorflow"
        ) from None
    tf.config.set_visible_devices([], "GPU")
    with contextlib.suppress(RuntimeError):  # this process has used it before
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    return tf


def _one_line(error: BaseException) -> str:
    text = str(error).split("}} ")[-1].partition(" [Op:")[0]
    return " ".join(text.split())[:160] or type(error).__name__


def _read(path: str) -> bytes:
    """Reads a regular file; refuses links, and pipes, which could block."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError("not a regular file")
        return file.read()


def _ends_early(data: bytes, message: str) -> bool:
    """Returns whether a file that cannot be decoded is cut off."""
    if data.startswith(b"\x89PNG"):
        return b"IEND" not in data[-65536:]
    if data.startswith(b"\xff\xd8"):
        return b"\xff\xd9" not in data[-65536:] or "truncated" in message
    return "truncated" in message.lower()


def _to_rgb(image: Image.Image) -> Image.Image:
    """Converts a loaded image to 8-bit RGB without transparency."""
    if image.mode.startswith(("I", "F")):
        # Pillow would clip 16 bits at 255 instead of scaling them.
        values = np.nan_to_num(np.asarray(image, np.float32))
        top = next(
            (top for top in (1.0, 255.0, 65535.0) if values.max(initial=0) <= top),
            float(values.max(initial=1)),
        )
        if image.mode.startswith("I"):
            top = max(top, 65535.0)
        image = Image.fromarray((np.clip(values / top, 0, 1) * 255).astype(np.uint8))
    return image if image.mode == "RGB" else image.convert("RGB")


def _is_deep(image: Image.Image, data: bytes) -> bool:
    """Returns whether an image has more than 8 bits per channel."""
    if image.format == "PNG":
        return data[24] == 16
    if image.format == "TIFF":
        return max(image.tag_v2.get(258, (1,))) > 8
    return image.mode.startswith(("I", "F"))


def _properties(image: Image.Image, path: str, data: bytes) -> Iterator[tuple]:
    """Yields (reason, detail) for each unusual property of a decoded image."""
    suffix = os.path.splitext(path)[1].lower()
    name = {"MPO": "JPEG"}.get(image.format, image.format)
    if suffix not in _FORMATS[image.format]:
        yield "extension", f"contains {name}"
    if image.format not in _TRAINED:
        yield "format", name
    try:
        count = getattr(image, "n_frames", 1)
    except Exception:
        # A later page is damaged; only the first is used.
        count = 1
    if count > 1:
        paged = image.format in ("TIFF", "MPO")
        yield (
            ("multi_page", f"{count} pages")
            if paged
            else ("animated", f"{count} frames")
        )
        image.seek(0)
    if image.mode == "CMYK":
        yield "cmyk", name
    if _is_deep(image, data):
        yield "16_bit", f"{name}, Pillow's mode {image.mode}"
    if image.has_transparency_data:
        lowest = image.convert("RGBA").getchannel("A").getextrema()[0]
        yield "transparent", "opaque everywhere" if lowest == 255 else "in part"


@contextlib.contextmanager
def _strict_pillow() -> Iterator[None]:
    """Makes Pillow refuse truncated and huge files, whatever the caller has set."""
    before = ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS
    ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = False, _MANY_PIXELS
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = before


def look(root: str, path: str, *, tensorflow: bool) -> Look:
    """Reads a file and decodes it with each decoder.

    Args:
      root: the data folder.
      path: of the file, relative to root.
      tensorflow: whether to decode with TensorFlow as well as with Pillow.

    Returns:
      The findings, and the image as RGB.
    """
    full = os.path.join(root, path)
    if listing.is_link(full):
        return Look((("link", f"a link to {os.readlink(full)}"),))
    try:
        data = _read(full)
    except OSError as error:
        return Look((("unreadable", error.strerror or str(error)),))
    if not data:
        return Look((("truncated", "the file is empty"),))
    try:
        with _strict_pillow(), warnings.catch_warnings():
            # Pillow's warnings are about files that it can read.
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=_OPENED)
            image.load()
            findings = tuple(_properties(image, path, data))
            rgb = _to_rgb(image)
    except Image.DecompressionBombError as error:
        return Look((("bomb", _one_line(error).partition(", could")[0]),))
    except Exception as error:
        # Decoders raise any error on damaged files, such as SyntaxError.
        if isinstance(error, Image.UnidentifiedImageError):
            return Look((("undecodable", "Pillow: not a known image format"),))
        reason = "truncated" if _ends_early(data, str(error)) else "undecodable"
        return Look(((reason, f"Pillow: {_one_line(error)}"),))
    if tensorflow and image.format in (*_TRAINED, "GIF"):
        try:
            import_tensorflow().raw_ops.DecodeImage(
                contents=data, expand_animations=False
            )
        except errors.InputError:
            raise
        except Exception as error:
            reason = "truncated" if _ends_early(data, str(error)) else "undecodable"
            return Look(((reason, f"TensorFlow: {_one_line(error)}"),))
    return Look(findings, rgb)


def _digest(image: Image.Image) -> tuple[int, int]:
    """Returns a 128-bit digest of the pixels, whatever the file's format."""
    found = hashlib.sha256(repr(image.size).encode())
    found.update(image.tobytes())
    value = found.digest()
    return int.from_bytes(value[:8], "big"), int.from_bytes(value[8:16], "big")


def _compare(
    degraded: Image.Image, clean: Image.Image
) -> tuple[tuple[tuple[str, str], ...], bytes, bytes]:
    """Compares the two images of a pair; returns (findings, record, misfit)."""
    if degraded.size != clean.size:
        text = "{}×{} and {}×{} pixels".format(*degraded.size, *clean.size)
        return (("size", text),), b"", b""
    digests = _digest(degraded), _digest(clean)
    greys = similarity.grey(degraded), similarity.grey(clean)
    lumas = [similarity.luma(grey) for grey in greys]
    thumbs = [similarity.luma(grey, (32, 32)) for grey in greys]
    # Grain and scratches of an empty frame disappear in the thumbnail.
    blank = [
        side
        for side, full, thumb in zip(("input", "output"), lumas, thumbs, strict=True)
        if thumb.std() < 2 and full.std() < (20 if side == "input" else 6)
    ]
    findings, misfit = [], b""
    if blank:
        findings.append(("blank", " and ".join(blank)))
    if digests[0] == digests[1]:
        findings.append(("identical", "all pixels"))
    elif not blank and min(degraded.size) >= _LEAST_SIDE:
        likeness = similarity.correlation(*thumbs)
        right, down, sharpness = similarity.shift(*lumas)
        step = degraded.width / lumas[0].shape[1], degraded.height / lumas[0].shape[0]
        right, down = right * step[0], down * step[1]
        if (
            likeness < _ALIKE_CORRELATION
            and sharpness < _ALIKE_SHARPNESS
            and min(thumb.std() for thumb in thumbs) >= _LEAST_CONTRAST
        ):
            findings.append(("dissimilar", f"correlation {likeness:.2f}"))
            misfit = similarity.luma(greys[0], (8, 8)).round().astype(np.uint8)
            misfit = misfit.tobytes()
        elif sharpness >= SURE_SHARPNESS and math.hypot(right, down) >= max(
            _LEAST_SHIFT, 0.75 * max(step)
        ):
            findings.append(
                ("shifted", f"the input by {right:+.1f} px across, {down:+.1f} px down")
            )
    record = np.zeros((), RECORD)
    record["digests"] = digests
    record["hash"] = similarity.dhash(greys[1])
    record["thumbnail"] = similarity.luma(greys[1], (8, 8)).round().ravel()
    record["change"] = similarity.character(degraded) - similarity.character(clean)
    record["blank"] = "input" in blank, "output" in blank
    record["sound"] = not findings
    return tuple(findings), record.tobytes(), misfit


def survey(root: str, unit: listing.Unit, *, tensorflow: bool) -> Report:
    """Checks the files of one stem.

    Args:
      root: the data folder.
      unit: the files.
      tensorflow: whether to decode with TensorFlow as well as with Pillow.

    Returns:
      The findings and, if the files are a pair, its record.
    """
    sides = [
        {path: look(root, path, tensorflow=tensorflow) for path in paths}
        for paths in unit
    ]
    everything = sides[0] | sides[1]
    failed = {
        path
        for path, seen in everything.items()
        if _BROKEN & {reason for reason, _ in seen.findings}
    }
    alone = len(everything) > 2 or not (sides[0] and sides[1])
    found = []
    for side, other, name in (
        (*sides, "output"),
        (*sides[::-1], "input"),
    ):
        for path, seen in side.items():
            partner = "" if alone else next(iter(other))
            found += [
                finding.Finding(path, *seen_finding, partner)
                for seen_finding in seen.findings
            ]
            if not other:
                found.append(finding.Finding(path, "lone", f"no {name} of this name"))
            elif alone and other.keys() <= failed:
                found.append(
                    finding.Finding(
                        path, "lone", f"no {name} of this name can be decoded"
                    )
                )
            if len(side) > 1:
                rest = ", ".join(
                    finding.shown(os.path.basename(p)) for p in side if p != path
                )
                found.append(finding.Finding(path, "ambiguous", f"beside {rest}"))
    # If several files have one stem, a pair needs exactly one that can be decoded.
    usable = [[p for p in side if side[p].image] for side in sides]
    if [len(paths) for paths in usable] != [1, 1]:
        return Report(tuple(found))
    (degraded,), (clean,) = usable
    pair_findings, record, misfit = _compare(
        everything[degraded].image, everything[clean].image
    )
    found += [
        finding.Finding(degraded, r, detail, clean) for r, detail in pair_findings
    ]
    return Report(tuple(found), listing.Unit((degraded,), (clean,)), record, misfit)
