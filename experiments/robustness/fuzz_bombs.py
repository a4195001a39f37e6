"""Small image files that claim to be, or decompress to, gigabytes."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

_KINDS = ("png", "jpg", "bmp", "tif")

# The data of a small image.
_PIXELS = b"IDAT", zlib.compress(bytes(16 * 49))


def _png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [b"\x89PNG\r\n\x1a\n"]
    for name, data in ((b"IHDR", header), *chunks, (b"IEND", b"")):
        crc = zlib.crc32(name + data)
        parts += [struct.pack(">I", len(data)), name, data, struct.pack(">I", crc)]
    return b"".join(parts)


def _zeros(count: int) -> bytes:
    """Returns `count` zero bytes, compressed."""
    packer = zlib.compressobj(9)
    block = bytes(1 << 20)
    parts = [packer.compress(block) for _ in range(count >> 20)]
    return b"".join(parts) + packer.flush()


def plain() -> bytes:
    """Returns a small harmless image."""
    return _png(16, 16, _PIXELS)


def claiming(kind: str) -> bytes:
    """Returns a small file whose header claims 65535×65535 pixels.

    Args:
      kind: "png", "jpg", "bmp" or "tif".
    """
    if kind == "png":
        return _png(65535, 65535, (b"IDAT", zlib.compress(bytes(100))))
    file = io.BytesIO()
    image = Image.fromarray(np.zeros((16, 16, 3), np.uint8))
    image.save(file, {"jpg": "JPEG", "bmp": "BMP", "tif": "TIFF"}[kind])
    data = bytearray(file.getvalue())
    if kind == "jpg":
        offset = data.index(b"\xff\xc0") + 5
        data[offset : offset + 4] = struct.pack(">HH", 65535, 65535)
    elif kind == "bmp":
        data[18:26] = struct.pack("<ii", 65535, 65535)
    else:
        for tag in (256, 257):
            offset = data.index(struct.pack("<H", tag), 8) + 2
            data[offset : offset + 10] = struct.pack("<HII", 4, 1, 65535)
    return bytes(data)


def with_profile(count: int) -> bytes:
    """Returns a small image whose color profile decompresses to `count` bytes."""
    return _png(16, 16, (b"iCCP", b"x\0\0" + _zeros(count)), _PIXELS)


def bombs() -> dict[str, bytes]:
    """Returns the files by name."""
    gigabyte = _zeros(1 << 30)
    text = b"XML:com.adobe.xmp\0\1\0\0\0" + gigabyte
    return {
        "widest.png": _png(2**31 - 1, 2**31 - 1, _PIXELS),
        "large.png": _png(30000, 12000, (b"IDAT", gigabyte)),
        "profile.png": with_profile(1 << 30),
        "text.png": _png(16, 16, (b"iTXt", text), _PIXELS),
        **{f"header.{kind}": claiming(kind) for kind in _KINDS},
    }
