"""Variants of formats: each is right, or refused in one line that does not blame it."""

import os
import struct
import zlib

import numpy as np
import pytest
import pyvips
import tifffile
from PIL import Image, ImageOps

from restoration.images import bmp, colorimetry, frames, infrared, picture, ranges
from restoration.images.metadata import dependent, png, tiff
from restoration.inference import batch
from tests import files
from tests.images import samples


@pytest.fixture(scope="module")
def photo(photographs):
    return np.rint(255 * photographs["coffee"][100:164, 150:246]).astype(np.uint8)


def same(tiles):
    return tiles


# Orientation.


@pytest.mark.parametrize("turn", [2, 3, 6, 7])
@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "tif"])
def test_pictures_are_upright_in_every_format(tmp_path, photo, turn, kind):
    exif = Image.Exif()
    exif[0x0112] = turn
    source = tmp_path / f"a.{kind}"
    Image.fromarray(photo).save(source, exif=exif.tobytes())
    upright = np.asarray(ImageOps.exif_transpose(Image.open(source)).convert("RGB"))
    for ext in ("jpg", "png", "tif", "webp"):
        target = tmp_path / f"b.{ext}"
        files.restore(source, target, ext=ext, change=same, strip_metadata=ext == "png")
        written = ImageOps.exif_transpose(Image.open(target)).convert("RGB")
        assert written.size == upright.shape[1::-1]
        assert np.abs(np.asarray(written).astype(int) - upright).mean() < 4


# How lines of DPX's orientations 0 to 7 lie in the file.
TURNED = (
    lambda x: x,
    lambda x: x[:, ::-1],
    lambda x: x[::-1],
    lambda x: x[::-1, ::-1],
    lambda x: x.transpose(1, 0, 2),
    lambda x: x.transpose(1, 0, 2)[::-1],
    lambda x: x.transpose(1, 0, 2)[:, ::-1],
    lambda x: x.transpose(1, 0, 2)[::-1, ::-1],
)


@pytest.mark.parametrize("number", range(8))
def test_dpx_is_turned_once(tmp_path, photo, number):
    upright = photo.astype(np.uint32) * 4
    data = bytearray(samples.dpx_file(TURNED[number](upright), bits=10))
    struct.pack_into(">H", data, 768, number)
    (tmp_path / "a.dpx").write_bytes(data)
    files.restore(tmp_path / "a.dpx", tmp_path / "b.png", ext="png", change=same)
    written = pyvips.Image.new_from_file(str(tmp_path / "b.png")).autorot().numpy()
    np.testing.assert_allclose(written / 65535, upright / 1023, atol=1e-4)
    files.restore(tmp_path / "a.dpx", tmp_path / "b.dpx", change=same)
    assert (tmp_path / "b.dpx").read_bytes() == data


# TIFF.


def test_alpha_multiplied_into_colors_is_divided_out_elsewhere(tmp_path, photo):
    alpha = np.linspace(10, 255, 96)[None].repeat(64, 0).astype(np.uint8)
    stored = np.rint(photo * (alpha[..., None] / 255)).astype(np.uint8)
    values = np.dstack([stored, alpha])
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values, photometric="rgb", extrasamples=["assocalpha"])
    before = samples.seen(path)
    for ext in ("png", "webp"):
        files.restore(path, tmp_path / f"b.{ext}", ext=ext, change=same)
        after = samples.seen(tmp_path / f"b.{ext}")
        np.testing.assert_allclose(after, before, atol=0.003)


def test_smooth_transparency_of_8_bits_is_no_infrared():
    ramp = np.rint(np.linspace(0, 255, 96))[None].repeat(64, 0) / 255
    assert not infrared.is_channel(ramp)


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_a_page_that_is_named_infrared_stays(tmp_path, photo, grey, first):
    colors, light = samples.film(photo)
    colors = colors[..., 1] if grey else colors
    light = light[::2, ::2]  # of another size, too
    kinds = "minisblack" if grey else "rgb", "minisblack"
    pages = [(colors, kinds[0], "scan"), (light, kinds[1], "IR channel")]
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for values, kind, name in pages[::-1] if first else pages:
            file.write(values, photometric=kind, description=name, metadata=None)
    files.restore(tmp_path / "a.tif", tmp_path / "b.tif")
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        written = [page.asarray() for page in file.pages][:: -1 if first else 1]
    np.testing.assert_array_equal(written[1], light)
    assert np.abs(written[0] - 0.8 * colors).max() <= 0.5


@pytest.mark.parametrize(
    ("values", "options", "reason"),
    [("float64", {}, "values of 64 bits"), ("int16", {}, "signed integers"),
     ("uint32", {}, "integers of 32 bits"),
     ("uint8", {"photometric": "cielab"}, "CIELab colors")],
)  # fmt: skip
def test_tiff_values_that_are_not_read_are_not_blamed(
    tmp_path, photo, values, options, reason
):
    options = {"photometric": "rgb"} | options
    tifffile.imwrite(tmp_path / "a.tif", photo.astype(values), **options)
    line = samples.failing(tmp_path / "a.tif", tmp_path / "b.tif")
    assert f"{reason}: whole, but not of a kind that is restored" in line


@pytest.mark.parametrize("number", [34887, 12345])  # LERC, and nothing
def test_compressions_that_are_not_built_in_are_not_blamed(tmp_path, photo, number):
    tifffile.imwrite(tmp_path / "a.tif", photo, photometric="rgb")
    data = (tmp_path / "a.tif").read_bytes()
    plain, other = (struct.pack("<HHIH", 259, 3, 1, n) for n in (1, number))
    assert data.count(plain) == 1
    (tmp_path / "a.tif").write_bytes(data.replace(plain, other))
    line = samples.failing(tmp_path / "a.tif", tmp_path / "b.tif")
    if "LERC" in line or number == 12345:  # some libvips read LERC
        assert "compression" in line and "whole, but not of a kind" in line


def test_infrared_behind_transparency_stays(tmp_path, photo):
    colors, infrared = samples.film(photo)
    alpha = np.full_like(infrared, 65535)
    values = np.dstack([colors, alpha, infrared])
    tifffile.imwrite(
        tmp_path / "a.tif", values, photometric="rgb", planarconfig="contig",
        extrasamples=["unassalpha", "unspecified"],
    )  # fmt: skip
    done = files.restore(tmp_path / "a.tif", tmp_path / "b.tif")
    assert "channel 5 (infrared by its values)" in done.notes[0]
    written = tifffile.imread(tmp_path / "b.tif")
    np.testing.assert_array_equal(written[..., 3:], values[..., 3:])
    assert (written[..., :3] < 0.85 * values[..., :3] + 2).all()
    error = samples.failing(tmp_path / "a.tif", tmp_path / "b.png", ext="png")
    assert "infrared" in error and error.endswith("choose --ext tif")


@pytest.mark.filterwarnings("error")
def test_what_is_no_number_is_black_where_it_cannot_be_kept(tmp_path, photo):
    values = photo.astype(np.float32) / 255
    values[3, 4] = np.nan
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb")
    files.restore(tmp_path / "a.tif", tmp_path / "b.png", ext="png")
    written = frames.read(tmp_path / "b.png")
    assert (written[3, 4] == 0).all() and written[3, 5].any()


def test_a_picture_in_a_sub_directory_is_named(tmp_path, photo):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(photo, photometric="rgb", subifds=1)
        file.write(photo[::5, ::5], photometric="rgb")
    done = files.restore(tmp_path / "a.tif", tmp_path / "b.tif")
    assert done.notes == ("a picture in a sub-directory was left out",)


# Floats.


@pytest.mark.parametrize("span", [(-1.0, 1.0), (-128.0, 127.0), (-3.0, 5.0)])
@pytest.mark.parametrize("tagged", [False, True])
def test_signed_floats_are_restored_in_their_range(tmp_path, photo, span, tagged):
    black, white = span
    values = black + (white - black) * np.linspace(0, 1, 64 * 96 * 3)
    values = values.reshape(64, 96, 3)[:, ::-1].astype(np.float32)
    tags = [(340, 11, 3, (black,) * 3, True), (341, 11, 3, (white,) * 3, True)]
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values, photometric="rgb", extratags=tags if tagged else ())
    done = files.restore(path, tmp_path / "b.tif")
    assert done.notes[0].startswith(f"black is {black:g} and white {white:g}")
    written = tifffile.imread(tmp_path / "b.tif")
    part = (values - black) / (white - black)
    np.testing.assert_allclose(
        written, black + 0.8 * part * (white - black), atol=1e-5 * (white - black)
    )
    files.restore(path, tmp_path / "b.png", ext="png")
    deep = pyvips.Image.pngload(str(tmp_path / "b.png")).numpy()
    np.testing.assert_allclose(deep / 65535, 0.8 * part, atol=1e-4)


def test_what_lies_a_little_below_0_is_no_range():
    values = np.linspace(-0.05, 1, 100, dtype=np.float32)
    assert ranges.of_values([values]) == ranges.USUAL
    directory = {341: tiff.Entry(11, struct.pack("=f", 0.87))}
    assert ranges.of_tags(directory) == ranges.USUAL  # the largest that occurs


def test_alpha_has_a_range_of_its_own(tmp_path, photo):
    alpha = np.full((64, 96, 1), 1, np.float32)
    values = np.concatenate([photo + np.float32(0.25), alpha], -1)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values, photometric="rgb", extrasamples=["unassalpha"])
    files.restore(path, tmp_path / "b.png", ext="png")
    deep = pyvips.Image.pngload(str(tmp_path / "b.png")).numpy()
    assert (deep[..., 3] == 65535).all()


# Color.


def test_cicp_overrules_a_profile(tmp_path, photo):
    srgb = colorimetry.to_icc(colorimetry.Colorimetry(), 3)
    chunks = {"cICP": bytes([12, 13, 0, 1]), "iCCP": b"x\0\0" + zlib.compress(srgb)}
    samples.png_with(photo, tmp_path / "a.png", **chunks)
    page = picture.inspect(tmp_path / "a.png").pages[0]
    assert page.colorimetry.primaries == colorimetry.PRIMARIES[12]
    for strip in (False, True):
        files.restore(tmp_path / "a.png", tmp_path / f"{strip}.png",
                      strip_metadata=strip)  # fmt: skip
        written = dict(png.color_chunks(tmp_path / f"{strip}.png"))
        assert written[b"cICP"] == chunks["cICP"]


def test_the_narrow_range_of_video(tmp_path, photo):
    narrow = (16 + photo * (219 / 255)).round().astype(np.uint8)
    samples.png_with(narrow, tmp_path / "a.png", cICP=bytes([1, 1, 0, 0]))
    np.testing.assert_allclose(
        samples.seen(tmp_path / "a.png"), photo / 255, atol=0.005
    )
    for ext in ("png", "tif"):
        files.restore(tmp_path / "a.png", tmp_path / f"b.{ext}", ext=ext)
        shown = samples.seen(tmp_path / f"b.{ext}")
        assert np.abs(shown - 0.8 * photo / 255).mean() < 0.01


@pytest.mark.parametrize(
    "chunks",
    [{"gAMA": struct.pack(">I", 1)}, {"gAMA": struct.pack(">I", 4000000)},
     {"gAMA": b"\0\1"}, {"cHRM": bytes(32)}, {"cICP": bytes([240, 13, 0, 1])},
     {"sRGB": b"\0"}],
)  # fmt: skip
def test_chunks_without_meaning_are_kept_and_change_nothing(tmp_path, photo, chunks):
    samples.png_with(photo, tmp_path / "a.png", **chunks)
    np.testing.assert_allclose(samples.seen(tmp_path / "a.png"), photo / 255, atol=1e-6)
    files.restore(tmp_path / "a.png", tmp_path / "b.png")
    written = dict(png.color_chunks(tmp_path / "b.png"))
    assert written == {name.encode(): data for name, data in chunks.items()}


@pytest.mark.parametrize("profile", [False, True])
def test_grey_in_webp_has_a_profile_of_rgb(tmp_path, photo, profile):
    linear = colorimetry.Colorimetry(transfer=1.0)
    icc = b"x\0\0" + zlib.compress(colorimetry.to_icc(linear, 1))
    chunks = {"iCCP": icc} if profile else {"gAMA": struct.pack(">I", 100000)}
    samples.png_with(photo[..., 1], tmp_path / "a.png", **chunks)
    files.restore(tmp_path / "a.png", tmp_path / "b.webp", ext="webp", change=same)
    before, after = (samples.seen(tmp_path / name) for name in ("a.png", "b.webp"))
    np.testing.assert_allclose(after, before, atol=0.02)


# JPEG.


def test_jpeg_data_that_misses_pixels_is_refused_though_it_ends(tmp_path, photo):
    data = samples.encoded(photo, quality=90)
    for cut in (20, 400):
        (tmp_path / "a.jpg").write_bytes(data[: -2 - cut] + b"\xff\xd9")
        line = samples.failing(tmp_path / "a.jpg", tmp_path / "b.jpg")
        assert "pixels are missing" in line
    for garbage in (b"text" * 9, bytes(40), b"\xff" * 7, b"a\xff\x3ab", b"\xff\xd3"):
        (tmp_path / "a.jpg").write_bytes(data[:-2] + garbage + b"\xff\xd9")
        files.restore(tmp_path / "a.jpg", tmp_path / "b.jpg", overwrite=True)


def test_what_libjpeg_warns_of_besides_its_data_is_no_damage(tmp_path, photo):
    data = bytearray(samples.encoded(photo))
    data[11] = 5  # a revision of JFIF that does not exist
    (tmp_path / "a.jpg").write_bytes(data)
    assert not files.restore(tmp_path / "a.jpg", tmp_path / "b.jpg").notes


def test_what_lies_behind_a_jpeg_is_kept_or_named(tmp_path, photo):
    data = samples.encoded(photo)
    small = samples.encoded(photo[::2, ::2])
    cases = {
        b"private": ((), (dependent.OTHER_DATA,)),
        small: ((dependent.BEHIND,), (dependent.BEHIND,)),
        b"head" + small + b"SEFT": ((dependent.BEHIND,), (dependent.BEHIND,)),
    }
    for number, (rest, (own, other)) in enumerate(cases.items()):
        path = tmp_path / f"{number}.jpg"
        path.write_bytes(data + rest)
        done = files.restore(path, tmp_path / f"{number}_.jpg")
        assert done.notes == tuple(f"left out: {name}" for name in own)
        assert (tmp_path / f"{number}_.jpg").read_bytes().endswith(rest) == (not own)
        done = files.restore(path, tmp_path / f"{number}.png", ext="png")
        assert done.notes == tuple(f"left out: {name}" for name in other)


# BMP, TGA, PNM.


def bmp_file(values, header, *, compression=0, behind=b""):
    """Returns a BMP file of BGR or BGRA values, with the rest of a long header."""
    height, width, bands = values.shape
    pixels = b"".join(row.tobytes() + bytes(-row.size % 4) for row in values[::-1])
    start = struct.pack(
        "<IiiHHIIiiII", 40 + len(header), width, height, 1, 8 * bands, compression,
        len(pixels), 11811, 11811, 0, 0,
    )  # fmt: skip
    offset = 14 + len(start) + len(header)
    size = offset + len(pixels) + len(behind)
    return (
        struct.pack("<2sIHHI", b"BM", size, 0, 0, offset)
        + start + header + pixels + behind
    )  # fmt: skip


MASKS = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)


def test_bmp_that_is_not_read_is_not_blamed(tmp_path, photo):
    ten = (photo.astype("<u4") << 2) @ np.array([1 << 20, 1 << 10, 1], "<u4")
    stored = np.ascontiguousarray(ten.astype("<u4")[..., None]).view(np.uint8)
    masks = struct.pack("<III", 0x3FF00000, 0xFFC00, 0x3FF)
    data = bytearray(bmp_file(stored, masks, compression=3))
    struct.pack_into("<I", data, 14, 40)  # the masks lie behind the header
    (tmp_path / "a.bmp").write_bytes(data)
    error = samples.failing(tmp_path / "a.bmp", tmp_path / "b.bmp")
    assert "whole, but not" in error and "bitfields" in error


def test_bmp_keeps_its_transparency(tmp_path, photo):
    alpha = np.full((64, 96, 1), 200, np.uint8)
    data = bmp_file(
        np.concatenate([photo[..., ::-1], alpha], -1),
        MASKS + b"BGRs" + bytes(48), compression=3,
    )  # fmt: skip
    (tmp_path / "a.bmp").write_bytes(data)
    files.restore(tmp_path / "a.bmp", tmp_path / "b.bmp")
    written = np.asarray(Image.open(tmp_path / "b.bmp"))
    assert (written[..., 3] == 200).all()
    assert np.abs(written[..., :3] - 0.8 * photo).max() <= 0.5
    assert bmp.resolution(tmp_path / "b.bmp") == (11.811, 11.811)


def test_bmp_keeps_its_profile(tmp_path, photo):
    adobe = colorimetry.Colorimetry(colorimetry.ADOBE_RGB, 2.2)
    icc = colorimetry.to_icc(adobe, 3)
    place = struct.pack("<IIII", 4, 124 + photo.size, len(icc), 0)
    header = MASKS + struct.pack("<I", 0x4D424544) + bytes(48) + place
    (tmp_path / "a.bmp").write_bytes(bmp_file(photo[..., ::-1], header, behind=icc))
    to_srgb = colorimetry.converter(adobe, colorimetry.Colorimetry(), 3)
    np.testing.assert_allclose(
        samples.seen(tmp_path / "a.bmp"), to_srgb(photo / 255), atol=0.01
    )
    files.restore(tmp_path / "a.bmp", tmp_path / "b.bmp")
    assert bmp.profile(tmp_path / "b.bmp") == icc
    assert np.abs(np.asarray(Image.open(tmp_path / "b.bmp")) - 0.8 * photo).max() < 40
    files.restore(tmp_path / "a.bmp", tmp_path / "b.png", ext="png")
    assert picture.inspect(tmp_path / "b.png").pages[0].profile == icc


def test_bmp_says_its_primaries_and_gammas(tmp_path, photo):
    ends = (0.64, 0.33, 0.03, 0.21, 0.71, 0.08, 0.15, 0.06, 0.79)
    scaled = (0.5767, 0.2974, 0.0270, 0.1855, 0.6273, 0.0707, 0.1882, 0.0753, 0.9911)
    header = MASKS + bytes(4)
    header += struct.pack("<9i", *(round(x * 2**30) for x in scaled))
    header += struct.pack("<3I", *[round(2.2 * 65536)] * 3)
    (tmp_path / "a.bmp").write_bytes(bmp_file(photo[..., ::-1], header))
    known = picture.inspect(tmp_path / "a.bmp").pages[0].colorimetry
    assert known.transfer == pytest.approx(2.2, abs=0.001)
    primaries = [*ends[:2], *ends[3:5], *ends[6:8], 0.3127, 0.329]
    np.testing.assert_allclose(known.primaries, primaries, atol=0.002)
    files.restore(tmp_path / "a.bmp", tmp_path / "b.bmp", change=same)
    before, after = (samples.seen(tmp_path / name) for name in ("a.bmp", "b.bmp"))
    np.testing.assert_allclose(after, before, atol=0.01)


@pytest.mark.parametrize("kind", ["bmp", "tga"])
def test_transparency_that_is_0_everywhere_is_none(tmp_path, photo, kind):
    clear = np.concatenate([photo, np.zeros((64, 96, 1), np.uint8)], -1)
    path = tmp_path / f"a.{kind}"
    if kind == "bmp":
        header = MASKS + b"BGRs" + bytes(48)
        data = bmp_file(clear[..., [2, 1, 0, 3]], header, compression=3)
        path.write_bytes(data)
    else:
        Image.fromarray(clear).save(path)
    done = files.restore(path, tmp_path / f"b.{kind}")
    assert done.notes == ("the transparency, 0 everywhere, was left out",)
    written = np.asarray(Image.open(tmp_path / f"b.{kind}"))
    assert written.shape == photo.shape
    assert np.abs(written - 0.8 * photo).max() <= 0.5


@pytest.mark.parametrize("flags", [0, 0x10, 0x20, 0x30])
def test_tga_of_any_origin(tmp_path, photo, flags):
    down, across = (-1 if not flags & 0x20 else 1), (-1 if flags & 0x10 else 1)
    head = struct.pack("<3B5x4H2B", 0, 0, 2, 0, 0, 96, 64, 24, flags)
    pixels = np.ascontiguousarray(photo[::down, ::across, ::-1]).tobytes()
    (tmp_path / "a.tga").write_bytes(head + pixels)
    for ext in ("auto", "png"):
        target = tmp_path / f"b.{'tga' if ext == 'auto' else ext}"
        files.restore(tmp_path / "a.tga", target, ext=ext)
        written = np.asarray(Image.open(target))
        assert np.abs(written - 0.8 * photo).max() <= 0.5


def test_pnm_of_windows_and_of_several_pictures(tmp_path, photo):
    body = photo.tobytes()
    (tmp_path / "a.ppm").write_bytes(b"P6\r\n96 64\r\n255\r\n" + body)
    np.testing.assert_array_equal(
        np.rint(255 * samples.seen(tmp_path / "a.ppm")).astype(np.uint8), photo
    )
    (tmp_path / "b.ppm").write_bytes((b"P6\n96 64\n255\n" + body) * 2)
    done = files.restore(tmp_path / "b.ppm", tmp_path / "c.ppm")
    assert done.notes == (
        "only the first of several pictures in the file was restored",
    )


@pytest.mark.parametrize(
    ("offset", "change", "name"),
    [(804, b"\0\2", "packing 2"), (806, b"\0\1", "run-length"), (800, b"\x34", "kind"),
     (780, b"\0\0\0\1", "signed")],
)  # fmt: skip
def test_dpx_that_is_not_read_is_not_blamed(tmp_path, photo, offset, change, name):
    data = bytearray(samples.dpx_file(photo.astype(np.uint32), bits=10))
    data[offset : offset + len(change)] = change
    (tmp_path / "a.dpx").write_bytes(data)
    line = samples.failing(tmp_path / "a.dpx", tmp_path / "b.dpx")
    assert name in line and "whole, but not of a kind that is restored" in line


def test_names_in_latin_1_below_a_folder(tmp_path, photo):
    below = os.fsencode(tmp_path / "in") + b"/\xfcber/caf\xe9.jpg"
    os.makedirs(os.path.dirname(below))
    with open(below, "wb") as file:
        file.write(samples.jpeg_with(samples.encoded(photo)))
    options = batch.RestoreOptions(
        input=(str(tmp_path / "in"),), output=str(tmp_path / "out"), recursive=True
    )
    (job,) = batch.find_jobs(options)
    files.restore(job.source, job.target)
    assert os.listdir(os.fsencode(tmp_path / "out") + b"/\xfcber") == [
        b"caf\xe9_restored.jpg"
    ]
