"""Directories and tags of TIFF files, BigTIFF too; EXIF blocks are such files.

libvips writes the pixels of each page; what else a page of the source says is
added to its directory, which is written anew at the end of the file.
"""

import dataclasses
import io
import os
import struct
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import BinaryIO

from restoration.images.metadata import blocks, dependent

# Bytes of one value of each type, and how many of them are swapped at once.
_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8,
          13: 4, 16: 8, 17: 8, 18: 8}  # fmt: skip
_SWAPPED = {**_BYTES, 5: 4, 10: 4}
_CODES = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
_LONG, _LONG8 = 4, 16

SUBFILE, COMPRESSION, PREDICTOR, EXTRA_SAMPLES = 254, 259, 317, 338
ORIENTATION, TILE_WIDTH, TILE_LENGTH, SUB_IFDS, JPEG_TABLES = 274, 322, 323, 330, 347
XMP, IPTC, PHOTOSHOP, ICC, EXIF, GPS = 700, 33723, 34377, 34675, 34665, 34853
_INTEROPERABILITY = 40965
_NESTED = {EXIF, GPS, _INTEROPERABILITY, SUB_IFDS}
_OFFSETS = {273, 324}

# Tags that say how pixels are stored: the writer's business alone. Those from 512
# are of old JPEG, 33421 and up of raw sensors.
_STORAGE = {
    SUBFILE, 255, 256, 257, 258, COMPRESSION, 262, 263, 266, 273, 277, 278, 279,
    280, 281, 284, 288, 289, 290, 291, 292, 293, PREDICTOR, 320,
    TILE_WIDTH, TILE_LENGTH, 324, 325, SUB_IFDS, *range(332, 338), EXTRA_SAMPLES,
    339, 340, 341, 342,
    JPEG_TABLES, *range(512, 522), 529, 530, 531, 532, 33421, 33422, 50838, 50839,
}  # fmt: skip

_RESOLUTION = {282, 283, 296}

# Guards against what a damaged file may claim.
_MOST_DIRECTORIES, _MOST_BYTES = 10_000, 1 << 28


@dataclasses.dataclass(frozen=True)
class Entry:
    """A tag's value.

    Attributes:
      kind: TIFF's number of its type.
      data: its bytes, in the machine's order.
      children: the directories that it points to.
      offset: where the bytes lie in the file that they were read from.
    """

    kind: int
    data: bytes
    children: tuple["Directory", ...] = ()
    offset: int = 0

    @property
    def values(self) -> tuple[int, ...]:
        """The value as integers; empty for other types."""
        code = _CODES.get(self.kind)
        count = len(self.data) // _BYTES[self.kind]
        return struct.unpack(f"={count}{code}", self.data) if code else ()


Directory = dict[int, Entry]


@dataclasses.dataclass(frozen=True)
class Form:
    """How a file writes numbers: `<` or `>`, and whether it is a BigTIFF."""

    order: str
    big: bool

    def unpack(self, code: str, data: bytes) -> tuple[int, ...]:
        """Reads integers in the file's order."""
        return struct.unpack(self.order + code, data)


def _swap(data: bytes, size: int) -> bytes:
    swapped = bytearray(len(data))
    for offset in range(size):
        swapped[offset::size] = data[size - 1 - offset :: size]
    return bytes(swapped)


def _native(data: bytes, kind: int, order: str) -> bytes:
    """Returns values of a file's byte order in the machine's, and the reverse."""
    same = (order == "<") == (sys.byteorder == "little")
    return data if same or _SWAPPED[kind] == 1 else _swap(data, _SWAPPED[kind])


def form_of(file: BinaryIO) -> Form:
    """Reads the start of a file, leaving it at the first directory's offset."""
    mark = blocks.take(file, 4)
    order = {b"II": "<", b"MM": ">"}.get(mark[:2])
    number = struct.unpack(f"{order or '<'}H", mark[2:])[0]
    if not order or number not in (42, 43):
        raise blocks.MalformedError("not a TIFF structure")
    if number == 43:
        blocks.take(file, 4)
    return Form(order, number == 43)


def _offset(file: BinaryIO, form: Form) -> int:
    code = "Q" if form.big else "I"
    return form.unpack(code, blocks.take(file, 8 if form.big else 4))[0]


def _read_entry(file: BinaryIO, form: Form, seen: set[int]) -> tuple[int, Entry] | None:
    code, kind = form.unpack("HH", blocks.take(file, 4))
    count = _offset(file, form)
    room = 8 if form.big else 4
    inline = blocks.take(file, room)
    size = count * _BYTES.get(kind, 0)
    if not 0 < size <= _MOST_BYTES:
        return None
    after = file.tell()
    offset = after - room
    if size > room:
        (offset,) = form.unpack("Q" if form.big else "I", inline)
        file.seek(offset)
        inline = file.read(size)
    data = _native(inline[:size], kind, form.order)
    entry = Entry(kind, data, offset=offset) if len(data) == size else None
    if entry and code in _NESTED:
        children = (_read_directory(file, form, at, seen) for at in entry.values)
        entry = Entry(kind, b"", tuple(child[0] for child in children if child[0]))
    file.seek(after)
    return (code, entry) if entry else None


def _read_directory(
    file: BinaryIO, form: Form, offset: int, seen: set[int]
) -> tuple[Directory, int]:
    """Returns a directory and where the next one is, 0 for none."""
    if offset in seen or len(seen) > _MOST_DIRECTORIES:
        return {}, 0
    seen.add(offset)
    file.seek(offset)
    code, size = ("Q", 8) if form.big else ("H", 2)
    head = file.read(size)
    if len(head) < size:
        return {}, 0
    (count,) = form.unpack(code, head)
    if count > 65535:
        raise blocks.MalformedError("a directory of too many tags")
    found = (_read_entry(file, form, seen) for _ in range(count))
    directory = dict(entry for entry in found if entry)
    rest = file.read(8 if form.big else 4)
    whole = len(rest) == (8 if form.big else 4)
    return directory, form.unpack("Q" if form.big else "I", rest)[0] if whole else 0


def directories(file: BinaryIO) -> list[Directory]:
    """Returns the directories of a TIFF file or EXIF block, in order.

    Args:
      file: open for reading, at the start of the structure.

    Returns:
      One dictionary from tag to entry a page; nested ones are inside theirs.

    Raises:
      MalformedError: when it is no such file.
    """
    form, seen, found = form_of(file), set(), []
    offset = _offset(file, form)
    while offset:
        directory, offset = _read_directory(file, form, offset, seen)
        if not directory:
            break
        found.append(directory)
    return found


def _aligned_end(file: BinaryIO) -> int:
    offset = file.seek(0, os.SEEK_END)
    file.write(b"\0" * (offset % 2))
    return file.seek(0, os.SEEK_END)


def _write_directory(file: BinaryIO, form: Form, directory: Directory) -> int:
    """Appends a directory and what it points to; returns where it lies.

    The next directory's offset is its last word, written as 0.
    """
    room, code = (8, "Q") if form.big else (4, "I")
    entries = []
    for tag, entry in sorted(directory.items()):
        kind, data = entry.kind, entry.data
        if entry.children:
            offsets = [_write_directory(file, form, child) for child in entry.children]
            kind = _LONG8 if form.big else _LONG
            data = struct.pack(f"={len(offsets)}{code}", *offsets)
        count = len(data) // _BYTES[kind]
        data = _native(data, kind, form.order)
        if len(data) > room:
            offset = _aligned_end(file)
            file.write(data)
            data = struct.pack(form.order + code, offset)
        head = struct.pack(f"{form.order}HH{code}", tag, kind, count)
        entries.append(head + data.ljust(room, b"\0"))
    offset = _aligned_end(file)
    file.write(struct.pack(form.order + ("Q" if form.big else "H"), len(entries)))
    file.write(b"".join(entries) + b"\0" * room)
    return offset


def _write_chain(file: BinaryIO, form: Form, chain: Sequence[Directory]) -> None:
    """Appends directories, each pointing to the next, the header to the first."""
    code = form.order + ("Q" if form.big else "I")
    pointer = 8 if form.big else 4
    for directory in chain:
        offset = _write_directory(file, form, directory)
        end = file.tell() - (8 if form.big else 4)
        file.seek(pointer)
        file.write(struct.pack(code, offset))
        pointer = end


def start(file: BinaryIO, directory: Directory) -> None:
    """Writes a BigTIFF's header and only directory into an empty file."""
    order = "<" if sys.byteorder == "little" else ">"
    mark = b"II" if order == "<" else b"MM"
    file.write(mark + struct.pack(f"{order}HHHQ", 43, 8, 0, 0))
    _write_chain(file, Form(order, True), [directory])


def to_bytes(directory: Directory) -> bytes:
    """Returns a directory as an EXIF block."""
    file = io.BytesIO()
    file.write(b"II*\0\0\0\0\0")
    _write_chain(file, Form("<", False), [directory])
    return file.getvalue()


def _moved(directory: Directory, by: int, big: bool) -> Directory:
    """Returns a directory whose pixels lie `by` bytes further on."""
    result = {}
    for tag, entry in directory.items():
        if entry.children:
            children = tuple(_moved(child, by, big) for child in entry.children)
            entry = dataclasses.replace(entry, children=children)
        elif tag in _OFFSETS:
            offsets = [offset + by for offset in entry.values]
            code, kind = ("Q", _LONG8) if big else ("I", _LONG)
            entry = Entry(kind, struct.pack(f"={len(offsets)}{code}", *offsets))
        result[tag] = entry
    return result


def described(directory: Directory, *, profile: bool = True) -> Directory:
    """Returns what a directory says besides how its pixels are stored."""
    left = _STORAGE if profile else {*_STORAGE, ICC}
    return {tag: entry for tag, entry in directory.items() if tag not in left}


def assemble(
    target: str | os.PathLike,
    more: Iterable[str | os.PathLike],
    tags: Sequence[Mapping[int, Entry]],
    *,
    resolution: bool = False,
) -> None:
    """Appends the pages of other TIFF files to one, and sets the tags of each page.

    Args:
      target: the file of the first page, changed in place; BigTIFF if the whole
        needs it.
      more: files of the further pages, in the target's byte order.
      tags: for each page what its first directory says besides how its pixels
        are stored.
      resolution: whether the files' own resolution stays.
    """
    own = _STORAGE | _RESOLUTION if resolution else _STORAGE
    with open(target, "r+b") as file:
        form = form_of(file)
        file.seek(0)
        pages = [directories(file)]
        for path in more:
            base = _aligned_end(file)
            with open(path, "rb") as page:
                found = directories(page)
                page.seek(0)
                blocks.copy_rest(page, file)
            pages.append([_moved(directory, base, form.big) for directory in found])
        for page, added in zip(pages, tags, strict=True):
            kept = {tag: entry for tag, entry in page[0].items() if tag in own}
            page[0] = {**kept, **added}
        _write_chain(file, form, [d for page in pages for d in page])


def read(path: str | os.PathLike) -> blocks.Blocks:
    """Returns the blocks of a TIFF file's first page."""
    with open(path, "rb") as file:
        first = directories(file)[0]
    apart = {XMP, IPTC, ICC, PHOTOSHOP}
    found = {tag: first[tag].data if tag in first else b"" for tag in apart}
    # Of the transfer function EXIF has no room, and a profile says it.
    camera = {t: e for t, e in described(first).items() if t not in {*apart, 301}}
    return blocks.Blocks(to_bytes(camera), found[XMP], found[IPTC], found[ICC])


def tags_of(found: blocks.Blocks) -> Directory:
    """Returns blocks as the tags that a TIFF page keeps them in."""
    tags = {}
    if found.exif:
        read_back = directories(io.BytesIO(found.exif))
        tags = described(read_back[0]) if read_back else {}
    for tag, data in ((XMP, found.xmp), (IPTC, found.iptc), (ICC, found.icc)):
        if data:
            tags[tag] = Entry(7 if tag != XMP else 1, data)
    return tags


def orientation_of(exif: bytes) -> int:
    """Returns EXIF's orientation, 1 where an EXIF block says nothing of it."""
    try:
        found = directories(io.BytesIO(exif)) if exif else []
    except (blocks.MalformedError, struct.error):
        return 1
    values = found[0][ORIENTATION].values if found and ORIENTATION in found[0] else ()
    return values[0] if values else 1


def resolution_of(exif: bytes) -> tuple[float, float] | None:
    """Returns pixels per millimetre by an EXIF block, None where it says nothing."""
    try:
        found = directories(io.BytesIO(exif)) if exif else []
    except (blocks.MalformedError, struct.error):
        return None
    tags = found[0] if found else {}
    unit = tags[296].values[:1] if 296 in tags else ()
    millimetres = {(2,): 25.4, (3,): 10.0}.get(unit)
    values = [struct.unpack("=II", tags[t].data[:8]) for t in (282, 283) if t in tags]
    if not millimetres or len(values) != 2 or not all(a and b for a, b in values):
        return None
    across, down = (above / below / millimetres for above, below in values)
    return across, down


# Private tags of layers: Photoshop's and Sketchbook's.
_LAYERS, _CREDENTIALS = {37724, 50784}, 52545
_BYTE_KINDS = {1, 6, 7}


def renewed(
    directory: Directory, preview: dependent.Preview
) -> tuple[Directory, list[str]]:
    """Returns a page's tags for new pixels, and what was dropped from them."""
    result, dropped = {}, []
    for tag, entry in directory.items():
        if tag in _LAYERS or tag == _CREDENTIALS:
            layers = tag in _LAYERS
            dropped.append(dependent.LAYERS if layers else dependent.CREDENTIALS)
            continue
        if entry.children:
            children = []
            for child in entry.children:
                changed, lost = renewed(child, preview)
                children.append(changed)
                dropped += lost
            entry = dataclasses.replace(entry, children=tuple(children))
        elif entry.kind in _BYTE_KINDS and tag != ICC:
            renew = dependent.renew_xmp if tag == XMP else dependent.renew_jpegs
            data, lost = renew(entry.data, preview)
            dropped += lost
            entry = dataclasses.replace(entry, data=data)
        result[tag] = entry
    return result, dropped


def insert(
    path: str | os.PathLike,
    found: blocks.Blocks,
    *,
    resolution: tuple[float, float] | None = None,
) -> list[str]:
    """Puts blocks into a TIFF file of one page.

    Args:
      path: the file to change.
      found: the blocks.
      resolution: pixels per millimetre, if known: the file's own stays.

    Returns:
      The names of the blocks without room: none.
    """
    tags = {t: e for t, e in tags_of(found).items() if t not in _RESOLUTION}
    if not resolution:  # the tags are required: 1 by 1, of no unit
        one = Entry(5, struct.pack("=II", 1, 1))
        tags |= {282: one, 283: one, 296: Entry(3, struct.pack("=H", 1))}
    assemble(path, (), [tags], resolution=True)
    return []
