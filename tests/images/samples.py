"""Small files that tests of inputs make, and what they look at."""

import io
import pathlib
import struct
import zlib

import numpy as np
from PIL import Image

from restoration.images import color, picture
from restoration.inference import jobs, restore_file
from tests import files


def seen(path, page=0):
    """Returns a file's colors as they are shown, float RGB of sRGB."""
    found = picture.inspect(path)
    to_model, _, _ = color.make_color(found.pages[page])
    return np.concatenate(
        [to_model(rows) for rows in picture.rows(found, found.pages[page])]
    )


def failing(source, target, **settings):
    job = jobs.Job(source, target, pathlib.PurePosixPath(source.name))
    done = restore_file.restore_file(
        job, files.fake_engine(files.darker), restore_file.Settings(**settings)
    )
    assert done.error and not target.exists()
    return done.error


def encoded(photo, kind="JPEG", **options):
    file = io.BytesIO()
    Image.fromarray(photo).save(file, kind, **options)
    return file.getvalue()


def segment(marker, data):
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def jpeg_with(data, *segments, behind=b""):
    return data[:2] + b"".join(segment(*s) for s in segments) + data[2:] + behind


def film(photo):
    """Returns 16-bit RGB, and infrared: light and noisy, dark where there is dirt."""
    generator = np.random.default_rng(0)
    light = 0.8 + 0.01 * generator.standard_normal(photo.shape[:2])
    light[10:14, 20:50] = 0
    return photo.astype(np.uint16) * 256, np.rint(65535 * light).astype(np.uint16)


def png_with(photo, path, **chunks):
    data = encoded(photo, "PNG")
    extra = b""
    for name, content in chunks.items():
        body = name.encode() + content
        crc = struct.pack(">I", zlib.crc32(body))
        extra += struct.pack(">I", len(content)) + body + crc
    path.write_bytes(data[:33] + extra + data[33:])


ADOBE = struct.pack(
    ">8I", 31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000
)  # white, red, green, blue


def dpx_file(values, *, bits, order=">", transfer=6, descriptor=50):
    height, width, _ = values.shape
    head = bytearray(2048)
    head[:4] = b"SDPX" if order == ">" else b"XPDS"
    struct.pack_into(f"{order}I8sI", head, 4, 2048, b"V2.0", 0)
    struct.pack_into(f"{order}HHII", head, 768, 0, 1, width, height)
    head[800:804] = bytes([descriptor, transfer, 0, bits])
    packing = 1 if bits in (10, 12) else 0
    struct.pack_into(f"{order}HHIII", head, 804, packing, 0, 2048, 0, 0)
    head[1500:1505] = b"notes"
    flat = values.reshape(height, -1).astype(np.uint32)
    if bits == 10:
        flat = np.pad(flat, ((0, 0), (0, -flat.shape[1] % 3))).reshape(height, -1, 3)
        words = flat[..., 0] << 22 | flat[..., 1] << 12 | flat[..., 2] << 2
        return bytes(head) + words.astype(f"{order}u4").tobytes()
    if bits == 8:
        return bytes(head) + flat.astype(np.uint8).tobytes()
    return bytes(head) + (flat << (16 - bits)).astype(f"{order}u2").tobytes()
