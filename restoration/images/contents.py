"""What a file is, by what it holds: its suffix and any loader's name do not matter."""

import dataclasses
from collections.abc import Sequence

from restoration.images.metadata import tiff

# Photometric interpretations of sensors' values, and compressions of such alone:
# Sony, packed raw, Nikon, Kodak, Pentax (ExifTool's table of TIFF tags).
_SENSOR = {32803, 34892}
_SENSOR_COMPRESSIONS = {32767, 32769, 32770, 32867, 34713, 65000, 65535}
_PHOTOMETRIC, _CFA_PATTERN, _DNG_VERSION = 262, 33422, 50706

DEVELOP = "develop it (darktable, RawTherapee, or dcraw -T -6) and restore the TIFF"


@dataclasses.dataclass(frozen=True)
class Other:
    """A kind of file that is not restored.

    Attributes:
      name: with its article.
      remedy: what its owner can do.
    """

    name: str
    remedy: str = "convert it to TIFF"


_RAW = {
    b"IIRO": "Olympus", b"IIRS": "Olympus", b"MMOR": "Olympus", b"IIU\0": "Panasonic",
    b"FUJIFILMCCD-RAW": "Fujifilm", b"FOVb": "Sigma", b"\0MRM": "Minolta",
    b"IIII": "Phase One", b"MMMM": "Phase One",
}  # fmt: skip

_OTHERS = {
    b"GIF8": Other("a GIF file", "convert it to PNG"),
    b"8BPS": Other("a Photoshop file", "save a flat TIFF of it"),
    b"%PDF": Other("a PDF document", "extract its pictures, e.g. with pdfimages"),
    b"v/1\1": Other("an OpenEXR file"),
    b"#?RADIANCE": Other("a Radiance HDR file"),
    b"#?RGBE": Other("a Radiance HDR file"),
    b"\xff\x0a": Other("a JPEG XL file"),
    b"\0\0\0\x0cJXL ": Other("a JPEG XL file"),
    b"II\xbc\1": Other("a JPEG XR file"),
    b"\0\0\1\0": Other("an icon", "convert it to PNG"),
    b"\x80*_\xd7": Other("a Cineon file"),
    b"PK\3\4": Other("a document or archive", "save its pictures as files"),
    b"\xd0\xcf\x11\xe0": Other("a document", "save its pictures as files"),
    b"\x1aE\xdf\xa3": Other("a video", "extract its frames"),
    b"gimp xcf": Other("a GIMP file", "export a flat TIFF of it"),
    b"\0\0\1\xba": Other("a video", "extract its frames"),
    b"FLV\1": Other("a video", "extract its frames"),
    b"%!PS": Other("a PostScript document", "convert it, e.g. with Ghostscript"),
    b"\xc5\xd0\xd3\xc6": Other("a PostScript document"),
    b"AT&TFORM": Other("a DjVu document", "convert it to TIFF, e.g. with ddjvu"),
    b"P7\n": Other("a PAM file"),
    b"PF\n": Other("a PFM file"),
    b"Pf\n": Other("a PFM file"),
    b"SIMPLE  =": Other("a FITS file"),
    b"DDS ": Other("a DDS texture"),
    b"qoif": Other("a QOI file"),
    b"farbfeld": Other("a farbfeld file"),
    b"BPG\xfb": Other("a BPG file"),
    b"FLIF": Other("a FLIF file"),
    b"\x8aMNG": Other("an MNG animation", "extract its frames"),
    b"\x8bJNG": Other("a JNG file"),
    b"\x01\xda": Other("an SGI file"),
    b"\x59\xa6\x6a\x95": Other("a Sun raster file"),
    b"\xd7\xcd\xc6\x9a": Other("a WMF drawing", "export it as PNG"),
    b"\xff\xd8\xff\xf7": Other("a JPEG-LS file"),
    b"id=ImageMagick": Other("a MIFF file"),
}  # fmt: skip

_BRANDS = {
    b"crx ": Other("a raw file of a Canon camera", DEVELOP),
    b"avif": Other("an AVIF file"),
    b"avis": Other("an animated AVIF file", "extract its frames"),
    b"jpeg": Other("a HEIF file of JPEG pictures"),
    b"avci": Other("a HEIF file of AVC pictures"),
    b"qt  ": Other("a video", "extract its frames"),
}


def other_kind(start: bytes) -> Other | None:
    """Returns the kind of file that the first 32 bytes show, if it is not restored."""
    if start[4:8] == b"ftyp" and b"avif" in start[16:] and b"hei" not in start[16:]:
        return _BRANDS[b"avif"]  # whatever the major brand
    for mark, maker in _RAW.items():
        if start.startswith(mark):
            return Other(f"a raw file of a {maker} camera", DEVELOP)
    if start[6:14] == b"HEAPCCDR" or (start[8:10] == b"CR" and start[:2] == b"II"):
        return Other("a raw file of a Canon camera", DEVELOP)
    for mark, other in _OTHERS.items():
        if start.startswith(mark):
            return other
    if start[:1] == b"\x0a" and start[1:3] in (b"\0\1", b"\2\1", b"\3\1", b"\5\1"):
        return Other("a PCX file")
    if start[4:8] == b"ftyp":
        return _BRANDS.get(start[8:12], Other("a video", "extract its frames"))
    if start[4:8] in (b"moov", b"mdat", b"wide") or start[8:12] == b"AVI ":
        return Other("a video", "extract its frames")
    text = start.lstrip(b"\xef\xbb\xbf \r\n\t")
    if text.startswith((b"<svg", b"<?xml")):
        return Other("an SVG drawing", "export it as PNG")
    return None


def _every(directories: Sequence[tiff.Directory]) -> list[tiff.Directory]:
    """Returns directories and the sub-directories that hold pictures."""
    found = list(directories)
    for directory in directories:
        below = directory.get(tiff.SUB_IFDS)
        found += _every(below.children) if below else []
    return found


def _first(directory: tiff.Directory, tag: int) -> int:
    entry = directory.get(tag)
    return entry.values[0] if entry and entry.values else 0


def _area(directory: tiff.Directory) -> int:
    return _first(directory, 256) * _first(directory, 257)


def is_reduced(directory: tiff.Directory) -> bool:
    """Returns whether a page says that it is a smaller copy of another."""
    # 255 is the older tag; its 2 is the newer one's first bit.
    return bool(_first(directory, tiff.SUBFILE) & 1) or _first(directory, 255) == 2


def raw_reason(directories: Sequence[tiff.Directory]) -> str:
    """Returns why a TIFF file is a camera's raw file, "" where it is none.

    Raw files are TIFF files whose first page is a thumbnail; the sensor's values are
    in a page or sub-directory of their own.
    """
    for directory in _every(directories):
        if _first(directory, _PHOTOMETRIC) in _SENSOR or _CFA_PATTERN in directory:
            return "a sensor's raw values"
        if _first(directory, tiff.COMPRESSION) in _SENSOR_COMPRESSIONS:
            return "a sensor's raw values"
    if any(_DNG_VERSION in directory for directory in directories):
        return "a digital negative (DNG)"
    for directory in directories:
        below = directory.get(tiff.SUB_IFDS)
        children = below.children if below else ()
        if any(_area(child) > _area(directory) for child in children):
            return "a preview of a larger picture inside"
    if directories and all(is_reduced(directory) for directory in directories):
        return "a thumbnail without its picture"
    return ""
