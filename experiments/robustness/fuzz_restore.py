"""Gives `restore` damaged image files: none may crash it or leave partial files.

Each format is tried in a process of its own, so that a crash of a decoder is counted
and does not end the run.
"""

import io
import multiprocessing
import os
import pathlib
import struct
import time
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from restoration.inference import engine, jobs, layout, restore_file

FORMATS = ("png", "jpg", "tif", "webp", "bmp")

# Formats of the extra "formats", and those that only `restore` reads.
EXTRA = ("jp2", "heic", "j2k", "ppm", "tga", "dpx")
KINDS = (*FORMATS, *EXTRA)

# Extreme sizes and offsets.
_NUMBERS = (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff")

# Seconds after which a file hangs, and further seconds for imports at the start.
_TIMEOUT = 30
_START = 120


class Outcome(NamedTuple):
    """The outcome of a damaged file.

    Attributes:
      refused: whether there is no result.
      partial: whether other files than the result were left.
      surprised: whether the error was not reported as bad input.
      line: the error, or "".
    """

    refused: bool
    partial: bool
    surprised: bool
    line: str


def identity() -> engine.Engine:
    """Returns an engine that does not change images, since only files are tested."""
    grid = layout.Grid(tile=(64, 64), context=8, overlap=8, stride=4, batch=1)

    def compile_program(grid: layout.Grid) -> engine.Program:
        return lambda tiles: tiles[:, *grid.inner][..., :3]

    return engine.Engine(None, "none", engine.Network(compile_program, [grid]))


def _dpx(values: np.ndarray) -> bytes:
    """Returns a DPX file of 10 bits."""
    height, width, _ = values.shape
    head = bytearray(2048)
    head[:4] = b"SDPX"
    struct.pack_into(">I8s", head, 4, 2048, b"V2.0")
    struct.pack_into(">HHII", head, 768, 0, 1, width, height)
    head[800:804] = bytes([50, 1, 0, 10])
    struct.pack_into(">HHIII", head, 804, 1, 0, 2048, 0, 0)
    wide = values.astype(np.uint32) * 4
    words = wide[..., 0] << 22 | wide[..., 1] << 12 | wide[..., 2] << 2
    return bytes(head) + words.astype(">u4").tobytes()


def _tiff_scans(values: np.ndarray) -> list[bytes]:
    """Returns TIFF files with a fourth sample, and of floats."""
    height, width, _ = values.shape
    noise = np.random.default_rng(1).integers(180, 220, (height, width, 1), np.uint8)
    files = []
    for data, extra in (
        (np.concatenate([values, noise], -1), {338: (3, 1, 0)}),
        (values.astype("<f4"), {339: (3, 1, 3), 341: (11, 1, 0x437F0000)}),
        (values.astype("<f4"), {339: (3, 1, 3)}),
    ):
        tags = {256: (4, 1, width), 257: (4, 1, height), 258: (3, 1, data.itemsize * 8),
                262: (3, 1, 2), 273: (4, 1, 256), 277: (3, 1, data.shape[2]),
                278: (4, 1, height), 279: (4, 1, data.nbytes), **extra}  # fmt: skip
        table = b"".join(struct.pack("<HHII", t, *tags[t]) for t in sorted(tags))
        head = b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + table + bytes(4)
        files.append(head.ljust(256, b"\0") + data.tobytes())
    return files


def _with_metadata(data: bytes) -> bytes:
    """Returns a JPEG file with what depends on its pixels."""
    blocks = (
        (0xE1, b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0" + data),
        (0xE1, b'http://ns.adobe.com/xap/1.0/\0<x hdrgm:Version="1"/>'),
        (0xE2, b"MPF\0" + bytes(40)),
        (0xEB, b"JP\0\1\0\0\0\1\0\0\0\x28jumb....jumdc2pa"),
        (0xED, b"Photoshop 3.0\x008BIM\x04\x0c\0\0\0\0\1\0" + data),
    )
    added = b"".join(
        struct.pack(">BBH", 0xFF, marker, len(block) + 2) + block
        for marker, block in blocks
    )
    return data[:2] + added + data[2:] + b"\0\0\0\x14ftypmp42" + bytes(50)


def originals(kind: str) -> list[bytes]:
    """Returns small intact files of a format, with different encodings."""
    generator = np.random.default_rng(0)
    ramp = np.linspace(0, 255, 48).astype(np.uint8)
    values = np.dstack([np.add.outer(ramp[:40], ramp) // 2] * 3).astype(np.uint8)
    values += generator.integers(0, 8, values.shape, np.uint8)
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    color = Image.fromarray(values)
    variants = {
        "png": [(color, {}), (color.convert("P"), {}), (color.convert("LA"), {})],
        "jpg": [(color, {}), (color, {"progressive": True}), (color.convert("L"), {}),
                (color.convert("CMYK"), {})],
        "tif": [(color, {}), (color, {"compression": "tiff_lzw"}),
                (color, {"compression": "tiff_adobe_deflate"}),
                (color, {"compression": "jpeg"}), (color.convert("RGBA"), {}),
                (color, {"save_all": True, "append_images": [color]})],
        "webp": [(color, {}), (color, {"lossless": True}), (color.convert("RGBA"), {})],
        "bmp": [(color, {}), (color.convert("L"), {})],
    }  # fmt: skip
    variants["jp2"] = [
        (color, {}), (color, {"irreversible": True}), (color.convert("L"), {}),
        (color.convert("RGBA"), {}),
    ]  # fmt: skip
    variants["j2k"] = [
        (color, {"no_jp2": True}),
        (color.convert("L"), {"no_jp2": True}),
    ]
    variants["ppm"] = [(color, {}), (color.convert("L"), {}), (color.convert("1"), {})]
    variants["tga"] = [
        (color, {}), (color, {"compression": "tga_rle"}), (color.convert("RGBA"), {}),
    ]  # fmt: skip
    variants["dpx"] = []
    variants["heic"] = [(color, {"quality": 90}), (color.convert("RGBA"), {})]
    names = {"jpg": "JPEG", "tif": "TIFF", "jp2": "JPEG2000", "j2k": "JPEG2000",
             "heic": "HEIF"}  # fmt: skip
    if kind == "heic":
        import pillow_heif

        pillow_heif.register_heif_opener()
    result = []
    for image, options in variants[kind]:
        file = io.BytesIO()
        plain = kind in ("bmp", "jp2", "j2k", "ppm", "tga")
        given = {} if plain else {"exif": exif.tobytes()}
        image.save(file, names.get(kind, kind.upper()), **given, **options)
        result.append(file.getvalue())
    if kind == "jpg":
        result.append(_with_metadata(result[0]))
    if kind == "dpx":
        result.append(_dpx(values))
    if kind == "tif":
        result += _tiff_scans(values)
    return result


def damaged(data: bytes, generator: np.random.Generator) -> bytes:
    """Returns a file with bytes changed, removed or repeated, or its end cut off."""
    changed = bytearray(data)
    for _ in range(int(generator.integers(1, 6))):
        kind = generator.integers(0, 6)
        # Headers and indexes are mostly near the start and end.
        near = min(len(changed), 512) if generator.random() < 0.6 else len(changed)
        offset = int(generator.integers(0, max(1, near)))
        if generator.random() < 0.2:
            offset = max(0, len(changed) - 1 - offset)
        length = int(generator.integers(1, 40))
        if kind <= 2:
            changed[offset : offset + 1] = generator.bytes(1)
        elif kind == 3:
            changed[offset : offset + 4] = _NUMBERS[generator.integers(3)]
        elif kind == 4:
            del changed[offset : offset + length]
        else:
            changed[offset:offset] = changed[offset : offset + length]
    if generator.random() < 0.2:
        del changed[int(generator.integers(0, len(changed) + 1)) :]
    return bytes(changed)


def try_one(data: bytes, source: pathlib.Path, restorer: engine.Engine) -> Outcome:
    """Restores one file.

    Args:
      data: its content.
      source: its path, in a folder of its own, with the format's suffix.
      restorer: from `identity`.

    Returns:
      The outcome.
    """
    # A small file may claim a large size; then it is refused.
    settings = restore_file.Settings(overwrite=True, max_pixels=4_000_000)
    target = source.parent / "out" / f"{source.stem}_restored{source.suffix}"
    source.write_bytes(data)
    target.unlink(missing_ok=True)
    job = jobs.Job(source, target, pathlib.PurePosixPath(source.name))
    done = restore_file.restore_file(job, restorer, settings)
    left = [] if not target.parent.is_dir() else list(target.parent.iterdir())
    partial = left != ([] if done.error else [target])
    return Outcome(bool(done.error), partial, "please report" in done.error, done.error)


def _try_all(kind: str, rounds: range, seed: int, folder: str, sent: Any) -> None:
    """Restores damaged files and sends each outcome."""
    intact, restorer = originals(kind), identity()
    source = pathlib.Path(folder) / f"damaged.{kind}"
    for number in rounds:
        generator = np.random.default_rng((seed, number))
        data = damaged(intact[number % len(intact)], generator)
        sent.put((number, try_one(data, source, restorer)))


def fuzz(
    kind: str, *, rounds: int, seed: int, folder: str | os.PathLike
) -> dict[str, Any]:
    """Tries damaged files of one format.

    Args:
      kind: of KINDS.
      rounds: number of files.
      seed: of the damage.
      folder: for working files.

    Returns:
      Counts: `restored`, `refused`, and those that must be 0: `crashed` (the process
      died), `hung`, `partial` (other files than the result were left), `surprised`
      (an error that was not reported as bad input), with up to five `examples`.
    """
    counts: dict[str, Any] = dict.fromkeys(
        ("restored", "refused", "crashed", "hung", "partial", "surprised"), 0
    )
    counts["examples"] = []
    context = multiprocessing.get_context("spawn")
    first = 0
    while first < rounds:
        sent = context.Queue()
        process = context.Process(
            target=_try_all, args=(kind, range(first, rounds), seed, str(folder), sent)
        )
        process.start()
        # The first file includes imports.
        waited = time.monotonic() + _START
        while first < rounds:
            try:
                number, outcome = sent.get(timeout=0.5)
            except Exception:  # the queue's own Empty
                late = time.monotonic() - waited > _TIMEOUT
                if process.is_alive() and not late:
                    continue
                if not sent.empty():
                    continue
                counts["hung" if late else "crashed"] += 1
                counts["examples"].append({"number": first, "kind": kind})
                first += 1
                process.kill()
                break
            first, waited = number + 1, time.monotonic()
            counts["refused" if outcome.refused else "restored"] += 1
            counts["partial"] += outcome.partial
            counts["surprised"] += outcome.surprised
            if outcome.partial or outcome.surprised:
                counts["examples"].append({"number": number, "error": outcome.line})
        process.join(timeout=5)
    counts["examples"] = counts["examples"][:5]
    return counts
