"""What real files do: kinds of inputs by what they hold, and what comes out of them."""

import base64
import io
import os
import struct
import zlib

import numpy as np
import pillow_heif
import pytest
import pyvips
import tifffile
from PIL import Image, ImageOps

from restoration.base import errors
from restoration.images import (
    colorimetry,
    contents,
    dpx,
    infrared,
    picture,
    pnm,
    ranges,
)
from restoration.images.metadata import dependent, jpeg, png, tiff
from tests import files
from tests.images import samples


@pytest.fixture(scope="module")
def photo(photographs):
    return np.rint(255 * photographs["coffee"][100:164, 150:246]).astype(np.uint8)


# 1: upright exactly once.


@pytest.mark.parametrize("turn", [3, 6, 8])
@pytest.mark.parametrize("ext", ["auto", "jpg", "png", "tif", "webp"])
def test_heic_comes_out_upright_once(tmp_path, photo, turn, ext):
    exif = Image.Exif()
    exif[0x0112] = turn
    image = pillow_heif.from_pillow(Image.fromarray(photo))
    image.save(tmp_path / "a.heic", exif=exif.tobytes(), quality=95)
    # As cameras write it: turned by the container and marked by EXIF as well.
    known = pillow_heif.open_heif(tmp_path / "a.heic")
    target = tmp_path / f"b.{'heic' if ext == 'auto' else ext}"
    files.restore(tmp_path / "a.heic", target, ext=ext)
    upright = np.asarray(known)
    if ext == "auto":
        written = np.asarray(pillow_heif.open_heif(target))
        assert (
            b"\x01\x12\x00\x03\x00\x00\x00\x01\x00\x01"
            in (pillow_heif.open_heif(target).info["exif"] or b"")
            or not pillow_heif.open_heif(target).info["exif"]
        )
    else:
        written = np.asarray(ImageOps.exif_transpose(Image.open(target)))
    assert written.shape == upright.shape
    assert np.abs(written - 0.8 * upright).mean() < 6


def test_orientation_1_is_written_where_it_lies():
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    data = exif.tobytes().removeprefix(b"Exif\0\0")
    packet = b'<x tiff:Orientation="8"/><tiff:Orientation>6</tiff:Orientation>'
    fixed, xmp = dependent.upright(data, packet)
    assert len(fixed) == len(data)
    again = Image.Exif()
    again.load(fixed)
    assert again[0x0112] == 1 and again[0x010F] == "Maker"
    assert xmp == b'<x tiff:Orientation="1"/><tiff:Orientation>1</tiff:Orientation>'


# 2: raw files are no pictures yet.


def write_raw(path, photo, **page):
    with tifffile.TiffWriter(path) as file:
        file.write(photo[::4, ::4], photometric="rgb", subifds=1, **page)
        file.write(photo[..., 0].astype(np.uint16), photometric="minisblack")


@pytest.mark.parametrize("name", ["a.dng", "a.nef", "a.tif"])
def test_a_preview_is_not_taken_for_the_raw_picture(tmp_path, photo, name):
    write_raw(tmp_path / name, photo)
    line = samples.failing(tmp_path / name, tmp_path / "out" / name)
    assert "a preview of a larger picture" in line and "dcraw -T" in line
    assert "\n" not in line


def test_raw_by_its_tags(tmp_path, photo):
    short = lambda value: tiff.Entry(3, struct.pack("=H", value))  # noqa: E731
    plain = {256: short(8), 257: short(8), 262: short(2)}
    assert not contents.raw_reason([plain])
    for photometric in (32803, 34892):
        assert contents.raw_reason([plain | {262: short(photometric)}])
    assert contents.raw_reason([plain | {254: short(1)}])
    assert contents.raw_reason([plain | {259: short(34713)}])
    assert contents.raw_reason([plain | {50706: tiff.Entry(1, b"\1\4\0\0")}])
    assert not contents.raw_reason([plain | {254: short(1)}, plain])
    tifffile.imwrite(tmp_path / "thumb.tif", photo, photometric="rgb", subfiletype=1)
    assert "a thumbnail" in samples.failing(tmp_path / "thumb.tif", tmp_path / "o.tif")


# 3, 4: what depends on the old pixels.

GAIN = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description '
    b'xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" '
    b'xmlns:Container="http://ns.google.com/photos/1.0/container/" '
    b'hdrgm:Version="1.0" dc:title="kept"><Container:Directory><rdf:Seq>'
    b'<rdf:li><Container:Item Item:Semantic="Primary"/></rdf:li>'
    b'<rdf:li><Container:Item Item:Semantic="GainMap" Item:Length="9"/></rdf:li>'
    b"</rdf:Seq></Container:Directory></rdf:Description></x:xmpmeta>"
)
MOTION = (
    b'<x xmlns:GCamera="http://ns.google.com/photos/1.0/camera/" '
    b'GCamera:MotionPhoto="1" GCamera:MicroVideoOffset="44" dc:title="kept"/>'
)
VIDEO = struct.pack(">I", 20) + b"ftypmp42" + bytes(range(32))


def test_phone_jpeg_with_a_gain_map(tmp_path, photo):
    xmp = (0xE1, b"http://ns.adobe.com/xap/1.0/\0" + GAIN)
    index = (0xE2, b"MPF\0" + bytes(60))
    data = samples.jpeg_with(
        samples.encoded(photo), xmp, index, behind=samples.encoded(photo[::4, ::4])
    )
    (tmp_path / "a.jpg").write_bytes(data)
    done = files.restore(tmp_path / "a.jpg", tmp_path / "b.jpg")
    assert done.notes == (f"left out: {dependent.GAIN_MAP}",)
    written = (tmp_path / "b.jpg").read_bytes()
    assert jpeg.layout(written).end == len(written)
    assert b"MPF\0" not in written and b"GainMap" not in written
    assert b'dc:title="kept"' in written and b"hdrgm:Version" not in written


def test_thumbnails_show_the_new_picture(tmp_path, photo):
    small = samples.encoded(photo[::2, ::2], quality=95)
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    exif.get_ifd(0x8769)[0x927C] = b"note" + small + b"end"
    block = exif.tobytes()
    resource = struct.pack(">4sHHI", b"8BIM", 0x040C, 0, 28 + len(small))
    resource += bytes(28) + small + b"\0" * (len(small) % 2)
    photoshop = (
        b"Photoshop 3.0\0"
        + resource
        + struct.pack(">4sHHI4s", b"8BIM", 0x0404, 0, 4, b"IPTC")
    )
    xmp = b"http://ns.adobe.com/xap/1.0/\0<x>" + base64.b64encode(small) + b"</x>"
    data = samples.jpeg_with(
        samples.encoded(photo), (0xE1, block), (0xED, photoshop), (0xE1, xmp)
    )
    (tmp_path / "a.jpg").write_bytes(data)
    done = files.restore(tmp_path / "a.jpg", tmp_path / "b.jpg")
    assert not done.notes
    before, after = jpeg.read(tmp_path / "a.jpg"), jpeg.read(tmp_path / "b.jpg")
    assert len(before.exif) == len(after.exif) and after.iptc == b"IPTC"
    ((start, end, width, height),) = dependent.jpegs(before.exif)
    assert (width, height) == (48, 32)
    assert after.exif[:start] == before.exif[:start]
    assert after.exif[end:] == before.exif[end:]
    for block in (after.exif, (tmp_path / "b.jpg").read_bytes()[1000:]):
        for start, end, _, _ in dependent.jpegs(block):
            thumbnail = np.asarray(Image.open(io.BytesIO(block[start:end])))
            assert abs(thumbnail.mean() - 0.8 * photo.mean()) < 4
    inside = base64.b64decode(after.xmp[3:-4].strip())
    assert (
        abs(np.asarray(Image.open(io.BytesIO(inside))).mean() - 0.8 * photo.mean()) < 4
    )


def test_an_uncompressed_thumbnail_is_dropped_and_named():
    head = b"II*\0" + struct.pack("<I", 8)
    first = struct.pack("<HHHII", 1, 0x0112, 3, 1, 1) + struct.pack("<I", 26)
    tags = [(259, 3, 1, 1), (273, 4, 1, 68), (279, 4, 1, 6)]
    second = struct.pack("<H", 3) + b"".join(struct.pack("<HHII", *t) for t in tags)
    exif = head + first + second + bytes(4) + b"PIXELS"
    fixed, dropped = dependent.renew_exif(exif, dependent.no_preview)
    assert dropped == [dependent.THUMBNAIL] and len(fixed) == len(exif)
    assert b"PIXELS" not in fixed and fixed[22:26] == bytes(4)
    assert fixed[:22] == exif[:22]


def test_content_credentials_are_dropped_and_named(tmp_path, photo):
    box = b"JP\0\1\0\0\0\1" + struct.pack(">I", 40) + b"jumb\0\0\0\x20jumdc2pa"
    rest = b"JP\0\1\0\0\0\2" + struct.pack(">I", 40) + b"jumb" + b"more of c2pa"
    other = b"JP\0\2\0\0\0\1" + struct.pack(">I", 40) + b"jumb\0\0\0\x20jumdjson"
    data = samples.jpeg_with(
        samples.encoded(photo), (0xEB, box), (0xEB, rest), (0xEB, other)
    )
    (tmp_path / "a.jpg").write_bytes(data)
    done = files.restore(tmp_path / "a.jpg", tmp_path / "b.jpg")
    assert done.notes == (f"left out: {dependent.CREDENTIALS}",)
    written = (tmp_path / "b.jpg").read_bytes()
    assert b"c2pa" not in written and other in written

    # PNG says by a name's case what depends on the pixels.
    chunk = lambda name, data: (  # noqa: E731
        struct.pack(">I", len(data)) + name + data
        + struct.pack(">I", zlib.crc32(name + data))
    )  # fmt: skip
    plain = samples.encoded(photo, "PNG")
    extra = chunk(b"caBX", b"c2pa") + chunk(b"mkBS", b"layer") + chunk(b"saFe", b"ok")
    (tmp_path / "a.png").write_bytes(plain[:33] + extra + plain[33:])
    done = files.restore(tmp_path / "a.png", tmp_path / "b.png")
    assert dependent.CREDENTIALS in done.notes[0] and "mkBS" in done.notes[0]
    written = (tmp_path / "b.png").read_bytes()
    assert b"saFe" in written and b"mkBS" not in written and b"caBX" not in written


def test_layers_in_private_tags_are_dropped_and_named(tmp_path, photo):
    tags = [(37724, 7, 6, b"LAYERS", True), (65000, 7, 5, b"other", True)]
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, photo, photometric="rgb", extratags=tags)
    done = files.restore(path, tmp_path / "b.tif")
    assert done.notes == (f"left out: {dependent.LAYERS}",)
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        assert 37724 not in file.pages[0].tags
        assert file.pages[0].tags[65000].value == b"other"


@pytest.mark.parametrize("ext", ["jpg", "png"])
def test_a_motion_photo_keeps_its_video_or_says_so(tmp_path, photo, ext):
    xmp = (0xE1, b"http://ns.adobe.com/xap/1.0/\0" + MOTION)
    (tmp_path / "a.jpg").write_bytes(
        samples.jpeg_with(samples.encoded(photo), xmp, behind=VIDEO)
    )
    done = files.restore(tmp_path / "a.jpg", tmp_path / f"b.{ext}", ext=ext)
    written = (tmp_path / f"b.{ext}").read_bytes()
    if ext == "jpg":
        # Offsets count from the file's end.
        assert written[-44:] == VIDEO and b"MotionPhoto" in written and not done.notes
    else:
        assert VIDEO not in written and b"MotionPhoto" not in written
        assert done.notes == (f"left out: {dependent.VIDEO}",)
    assert b'dc:title="kept"' in written


# 5: infrared.


@pytest.mark.parametrize("extra", [None, "unspecified", "unassalpha", "assocalpha"])
def test_infrared_of_a_fourth_channel_stays_bit_for_bit(tmp_path, photo, extra):
    colors, light = samples.film(photo)
    values = np.concatenate([colors, light[..., None]], -1)
    path = tmp_path / "a.tif"
    options = {"extrasamples": [extra or "unspecified"], "planarconfig": "contig"}
    tifffile.imwrite(path, values, photometric="rgb", **options)
    if not extra:  # another tag instead
        data = path.read_bytes()
        path.write_bytes(data.replace(b"\x52\x01\x03\0", b"\x59\x01\x03\0", 1))
    page = picture.inspect(path).pages[0]
    assert page.infrared == 3 and not page.alpha
    done = files.restore(path, tmp_path / "b.tif")
    assert "channel 4" in done.notes[0] and "infrared by its values" in done.notes[0]
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        written, tag = file.asarray(), file.pages[0].tags[338].value
    assert tag[0] == {"unassalpha": 2, "assocalpha": 1}.get(extra, 0)
    np.testing.assert_array_equal(written[..., 3], light)
    assert np.abs(written[..., :3] - 0.8 * colors).max() <= 0.5
    for ext in ("png", "webp", "jpg"):
        line = samples.failing(path, tmp_path / f"c.{ext}", ext=ext)
        assert "infrared" in line and "--ext tif" in line


def test_transparency_is_not_taken_for_infrared(photo):
    noise = np.random.default_rng(0).random((60, 80))
    soft = np.linspace(0, 1, 80)[None].repeat(60, 0)
    cut = (noise > 0.5).astype(np.float32)
    assert not infrared.is_channel(soft)
    assert not infrared.is_channel(cut)
    assert not infrared.is_channel(np.full((60, 80), 0.5))
    assert infrared.is_channel(samples.film(photo)[1] / 65535)


@pytest.mark.parametrize(
    "marked", [{}, {"description": "Infrared"}, {"subfiletype": 2}]
)
def test_an_infrared_page_stays_bit_for_bit(tmp_path, photo, marked):
    colors, light = samples.film(photo)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(colors, photometric="rgb", metadata=None)
        file.write(light, photometric="minisblack", metadata=None, **marked)
    data = (tmp_path / "a.tif").read_bytes()  # 2, a page, becomes 4, a mask
    mask = [b"\xfe\0\4\0\1\0\0\0" + bytes([kind]) for kind in (2, 4)]
    (tmp_path / "a.tif").write_bytes(data.replace(*mask))
    found = picture.inspect(tmp_path / "a.tif")
    assert [page.role for page in found.pages] == ["picture", "infrared"]
    assert ("by its values" in found.notes[0]) == (not marked)
    files.restore(tmp_path / "a.tif", tmp_path / "b.tif")
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        assert np.abs(file.pages[0].asarray() - 0.8 * colors).max() <= 0.5
        np.testing.assert_array_equal(file.pages[1].asarray(), light)
    read = picture.infrared_of(found, 0)
    np.testing.assert_allclose(np.concatenate(list(read()))[..., 0], light / 65535)


def test_a_grey_page_of_a_document_is_restored(tmp_path, photo):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(photo, photometric="rgb")
        file.write(photo[..., 1], photometric="minisblack")
    files.restore(tmp_path / "a.tif", tmp_path / "b.tif")
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        written = file.pages[1].asarray()
    assert np.abs(written - 0.8 * photo[..., 1]).max() <= 1


# 6: color without a profile.


@pytest.mark.parametrize(
    ("chunks", "known"),
    [
        ({"gAMA": struct.pack(">I", 45470), "cHRM": samples.ADOBE},
         colorimetry.Colorimetry(colorimetry.ADOBE_RGB, 100000 / 45470)),
        ({"gAMA": struct.pack(">I", 100000)},
         colorimetry.Colorimetry(colorimetry.SRGB, 1.0)),
        ({"cICP": bytes([9, 16, 0, 1])}, colorimetry.from_code((9, 16, 0, 1))),
        ({"cICP": bytes([12, 13, 0, 1]), "gAMA": struct.pack(">I", 100000)},
         colorimetry.from_code((12, 13, 0, 1))),
    ],
)  # fmt: skip
def test_png_chunks_say_what_colors_mean(tmp_path, photo, chunks, known):
    path = tmp_path / "a.png"
    samples.png_with(photo, path, **chunks)
    assert picture.inspect(path).pages[0].colorimetry == known
    expected = colorimetry.converter(known, colorimetry.Colorimetry(), 3)(photo / 255)
    np.testing.assert_allclose(samples.seen(path), expected, atol=1e-5)
    files.restore(path, tmp_path / "b.png")
    assert dict(png.color_chunks(tmp_path / "b.png")) == {
        name.encode(): data for name, data in chunks.items()
    }
    files.restore(path, tmp_path / "s.png", strip_metadata=True)
    assert png.color_chunks(tmp_path / "s.png")
    files.restore(path, tmp_path / "b.tif", ext="tif")
    shown, converted = (
        samples.seen(tmp_path / "b.png"),
        samples.seen(tmp_path / "b.tif"),
    )
    # Lighter than white a profile cannot say.
    in_range = (shown < 0.99).all(-1)
    limit = 0.25 if known.transfer == "pq" else 0.01
    assert np.abs(shown - converted)[in_range].max() < limit


def test_gamma_and_primaries_of_srgb_are_nothing_special(tmp_path, photo):
    srgb = struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
    gamma = struct.pack(">I", 45455)
    samples.png_with(photo, tmp_path / "a.png", gAMA=gamma, cHRM=srgb)
    assert picture.inspect(tmp_path / "a.png").pages[0].colorimetry is None
    samples.png_with(
        photo, tmp_path / "b.png", gAMA=struct.pack(">I", 100000), sRGB=b"\0"
    )
    assert picture.inspect(tmp_path / "b.png").pages[0].colorimetry is None


@pytest.mark.parametrize("strip", [False, True])
def test_tiff_tags_say_what_colors_mean(tmp_path, photo, strip):
    table = np.rint(65535 * np.linspace(0, 1, 256) ** 1.8).astype(int).tolist()
    white = (3127, 10000, 3290, 10000)
    primaries = (64, 100, 33, 100, 21, 100, 71, 100, 15, 100, 6, 100)
    tags = [(301, 3, 256, table, True), (318, 5, 2, white, True),
            (319, 5, 6, primaries, True)]  # fmt: skip
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, photo, photometric="rgb", extratags=tags)
    known = colorimetry.Colorimetry(colorimetry.ADOBE_RGB, 1.8)
    to_srgb = colorimetry.converter(known, colorimetry.Colorimetry(), 3)
    np.testing.assert_allclose(samples.seen(path), to_srgb(photo / 255), atol=2e-3)
    files.restore(path, tmp_path / "b.tif", strip_metadata=strip)
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        written = file.pages[0].tags
        assert list(written[301].value) == table
        assert written[318].value == white and written[319].value == primaries
    files.restore(path, tmp_path / "b.png", ext="png", strip_metadata=strip)
    shown = samples.seen(tmp_path / "b.tif")
    assert np.abs(shown - samples.seen(tmp_path / "b.png")).max() < 0.01


def test_the_mark_of_adobe_rgb_in_exif(tmp_path, photo):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = 65535
    exif.get_ifd(0x8769)[0xA005] = {1: "R03"}
    path = tmp_path / "a.jpg"
    Image.fromarray(photo).save(path, quality=98, exif=exif)
    known = picture.inspect(path).pages[0].colorimetry
    assert known.primaries == colorimetry.ADOBE_RGB
    files.restore(path, tmp_path / "b.jpg")
    assert picture.inspect(tmp_path / "b.jpg").pages[0].colorimetry == known
    for ext in ("jpg", "png", "tif", "webp"):
        files.restore(path, tmp_path / f"s.{ext}", ext=ext, strip_metadata=True)
        page = picture.inspect(tmp_path / f"s.{ext}").pages[0]
        assert page.profile
        assert (
            np.abs(
                samples.seen(tmp_path / f"s.{ext}") - samples.seen(tmp_path / "b.jpg")
            ).mean()
            < 0.01
        )


def test_nclx_of_heic_stays(tmp_path, photo):
    path = tmp_path / "a.heic"
    image = pillow_heif.from_pillow(Image.fromarray(photo))
    image.save(path, quality=95, color_primaries=12, transfer_characteristics=13,
               matrix_coefficients=6, full_range_flag=1)  # fmt: skip
    assert (
        picture.inspect(path).pages[0].colorimetry.primaries
        == (colorimetry.PRIMARIES[12])
    )
    files.restore(path, tmp_path / "b.heic")
    files.restore(path, tmp_path / "b.png", ext="png")
    written = pillow_heif.open_heif(tmp_path / "b.heic").info["nclx_profile"]
    assert written["color_primaries"] == 12
    assert dict(png.color_chunks(tmp_path / "b.png")) == {
        b"cICP": bytes([12, 13, 0, 1])
    }
    assert (
        np.abs(
            samples.seen(tmp_path / "b.heic") - samples.seen(tmp_path / "b.png")
        ).mean()
        < 0.02
    )


@pytest.mark.parametrize(
    "known",
    [
        colorimetry.Colorimetry(colorimetry.ADOBE_RGB, 563 / 256),
        colorimetry.Colorimetry(colorimetry.PRIMARIES[12], "srgb"),
        colorimetry.Colorimetry(colorimetry.SRGB, 1.0),
        colorimetry.Colorimetry(transfer="cineon"),
    ],
)
def test_profiles_that_are_made_mean_the_same_to_little_cms(tmp_path, known):
    profile = tmp_path / "a.icc"
    profile.write_bytes(colorimetry.to_icc(known, 3))
    values = np.random.default_rng(0).random((8, 8, 3))
    values = 0.3 + 0.3 * values  # light enough for 16 bits, and inside sRGB
    image = pyvips.Image.new_from_array(np.rint(65535 * values).astype(np.uint16))
    image = image.copy(interpretation="rgb16").icc_import(
        input_profile=str(profile), pcs="lab", intent="relative"
    )
    image = image.icc_export(
        output_profile="srgb", pcs="lab", depth=16, intent="relative"
    )
    ours = colorimetry.converter(known, colorimetry.Colorimetry(), 3)(values)
    assert np.abs(image.numpy() / 65535 - ours).max() < 0.004


def test_transfer_functions_invert_and_meet_known_values():
    steps = np.linspace(0, 1, 33)[:, None]
    for transfer in ("srgb", "pq", "hlg", "cineon", 2.2, (tuple(steps[:, 0] ** 2),)):
        light = colorimetry.to_light(steps, transfer)
        inner = slice(4, None)
        back = colorimetry.to_values(light, transfer)
        np.testing.assert_allclose(back[inner], steps[inner], atol=2e-3)
    # BT.2408: 203 cd/m² are 58 % of PQ and 75 % of HLG; Cineon's white is 685.
    for value, transfer in ((0.5807, "pq"), (0.75, "hlg"), (685 / 1023, "cineon")):
        white = colorimetry.to_light(np.array([[value]]), transfer)
        np.testing.assert_allclose(white, 1, atol=0.01)


# 7: ranges of floats.


@pytest.mark.parametrize("white", [255.0, 65535.0])
@pytest.mark.parametrize("tagged", [False, True])
def test_floats_of_integers_are_restored_in_their_range(tmp_path, photo, white, tagged):
    values = (photo * (white / 255)).astype(np.float32) + np.float32(0.25)
    values = np.minimum(values, white).astype(np.float32)
    tags = [(341, 11, 3, (white,) * 3, True)] if tagged else []
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values, photometric="rgb", extratags=tags)
    done = files.restore(path, tmp_path / "b.tif")
    assert done.notes[0].startswith(f"white is {white:g} by")
    written = tifffile.imread(tmp_path / "b.tif")
    np.testing.assert_allclose(written, 0.8 * values, rtol=1e-4, atol=white * 1e-5)
    files.restore(path, tmp_path / "b.png", ext="png")
    deep = pyvips.Image.pngload(str(tmp_path / "b.png")).numpy()
    np.testing.assert_allclose(deep / 65535, 0.8 * values / white, atol=1e-4)


def test_light_above_white_stays():
    def white(values):
        return ranges.of_values([np.asarray(values, np.float32)])[1]

    assert white([0.1, 0.5, 0.9]) == 1
    assert white([0.1, 0.5, 0.9, 40.0]) == 1
    assert white([0.1, 1.5, 3, 2.5]) == 1
    assert white([0, 7, 200, 255]) == 255
    assert white([0.5, 700.5, 20000.5]) == 65535
    assert white([0.5, 1e5, 2e5]) == 2e5
    assert white([np.nan, np.inf, 0.5]) == 1


@pytest.mark.parametrize("white", [1.0, 255.0])
def test_floats_whose_0_is_white_come_out_as_positives(tmp_path, photo, white):
    grey = (photo[..., 0] * (white / 255)).astype(np.float32)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, grey, photometric="miniswhite")
    files.restore(path, tmp_path / "b.tif")
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        assert file.pages[0].photometric == 0
        written = file.asarray()
    expected = 0.8 * (1 - grey / white)
    np.testing.assert_allclose(1 - written / white, expected, atol=1e-5)
    files.restore(path, tmp_path / "b.png", ext="png")
    deep = pyvips.Image.pngload(str(tmp_path / "b.png")).numpy()
    np.testing.assert_allclose(deep / 65535, expected, atol=1e-4)


# 10: resolution.


def test_bmp_keeps_its_resolution(tmp_path, photo):
    for name, dots in (("a", 300), ("b", None)):
        path = tmp_path / f"{name}.bmp"
        Image.fromarray(photo).save(path, **({"dpi": (dots, dots)} if dots else {}))
        if not dots:
            data = bytearray(path.read_bytes())
            data[38:46] = bytes(8)
            path.write_bytes(bytes(data))
        files.restore(path, tmp_path / f"{name}2.bmp")
        written = (tmp_path / f"{name}2.bmp").read_bytes()
        assert written[38:46] == path.read_bytes()[38:46]
        files.restore(path, tmp_path / f"{name}.png", ext="png")
        files.restore(path, tmp_path / f"{name}.jpg", ext="jpg")
        files.restore(path, tmp_path / f"{name}.tif", ext="tif")
        assert png.resolution(tmp_path / f"{name}.png") == (
            (11.811, 11.811) if dots else None
        )
        density = (tmp_path / f"{name}.jpg").read_bytes()[13:18]
        assert density == (b"\1\1\x2c\1\x2c" if dots else b"\0\0\1\0\1")
        with tifffile.TiffFile(tmp_path / f"{name}.tif") as file:
            tags = file.pages[0].tags
            inches = {1: 1, 2: 1, 3: 2.54}[tags[296].value]
            assert (tags[296].value == 1) == (dots is None)
            density = inches * tags[282].value[0] / tags[282].value[1]
            assert round(density, 2) == (dots or 1)


def test_bmp_of_a_palette_or_one_bit_says_what_it_becomes(tmp_path, photo):
    image = Image.fromarray(photo)
    image.quantize(32).save(tmp_path / "p.bmp")
    image.convert("1").save(tmp_path / "1.bmp")
    done = files.restore(tmp_path / "p.bmp", tmp_path / "p2.bmp")
    assert "palette became full colors" in done.notes[0]
    done = files.restore(tmp_path / "1.bmp", tmp_path / "12.bmp")
    assert done.notes == ("1 bit became 8",)
    assert Image.open(tmp_path / "12.bmp").mode == "L"


@pytest.mark.parametrize("ext", ["png", "jpg", "tif"])
def test_no_resolution_is_invented(tmp_path, photo, ext):
    Image.fromarray(photo).save(tmp_path / "a.png")
    target = tmp_path / f"b.{ext}"
    files.restore(tmp_path / "a.png", target, ext=ext)
    assert picture.inspect(target).pages[0].resolution is None


# 12: further formats.


@pytest.mark.parametrize("most", [255, 1023, 65535])
@pytest.mark.parametrize("plain", [False, True])
def test_pnm_is_read_and_written_back(tmp_path, photo, most, plain):
    values = photo.astype(np.uint32) * most // 255
    head = b"P%d\n# scanned\n%d %d\n%d\n" % (3 if plain else 6, 96, 64, most)
    body = (
        " ".join(map(str, values.ravel())).encode() if plain
        else values.astype(">u2" if most > 255 else "u1").tobytes()
    )  # fmt: skip
    path = tmp_path / "a.ppm"
    path.write_bytes(head + body)
    np.testing.assert_array_equal(pnm.read(path), values)
    files.restore(path, tmp_path / "b.ppm")
    written = (tmp_path / "b.ppm").read_bytes()
    assert written.startswith(head.replace(b"P3", b"P6"))
    assert np.abs(pnm.read(tmp_path / "b.ppm") - 0.8 * values).max() <= 0.5
    files.restore(path, tmp_path / "b.png", ext="png")
    shown = samples.seen(tmp_path / "b.png")
    np.testing.assert_allclose(shown, 0.8 * values / most, atol=0.003)


def test_pbm_and_pgm(tmp_path, photo):
    bits = photo[..., 0] > 128
    Image.fromarray(bits).save(tmp_path / "a.pbm")
    np.testing.assert_array_equal(pnm.read(tmp_path / "a.pbm")[..., 0], 255 * bits)
    (tmp_path / "b.pbm").write_bytes(b"P1 3 2\n101\n0 1 0")
    assert pnm.read(tmp_path / "b.pbm")[..., 0].tolist() == [[0, 255, 0], [255, 0, 255]]
    files.restore(tmp_path / "a.pbm", tmp_path / "c.pbm", change=lambda tiles: tiles)
    np.testing.assert_array_equal(pnm.read(tmp_path / "c.pbm")[..., 0], 255 * bits)
    for bad in (
        b"P6 3 2 255\n12",
        b"P5 0 2 255\n",
        b"P2 1 1 9\n10",
        b"P3 1 1 255 a b c",
    ):
        (tmp_path / "bad.ppm").write_bytes(bad)
        with pytest.raises(errors.InputError, match="not a readable image"):
            found = picture.inspect(tmp_path / "bad.ppm")
            list(picture.rows(found, found.pages[0]))


@pytest.mark.parametrize(
    "options", [{}, {"compression": "tga_rle"}, {"orientation": 1}]
)
def test_tga_is_read_and_written_back(tmp_path, photo, options):
    alpha = np.full((*photo.shape[:2], 1), 200, np.uint8)
    for name, values in (("rgb", photo), ("rgba", np.concatenate([photo, alpha], -1))):
        path = tmp_path / f"{name}.tga"
        Image.fromarray(values).save(path, **options)
        files.restore(path, tmp_path / f"{name}2.tga")
        written = (tmp_path / f"{name}2.tga").read_bytes()
        assert written[2] == path.read_bytes()[2]  # compressed or not
        assert written[17] == path.read_bytes()[17]  # which way up
        found = np.asarray(Image.open(tmp_path / f"{name}2.tga"))
        assert np.abs(found[..., :3] - 0.8 * photo).max() <= 0.5
        assert (found[..., 3:] == 200).all()


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("order", ["<", ">"])
def test_dpx_is_read_and_written_back(tmp_path, photo, bits, order):
    white = (1 << bits) - 1
    values = photo.astype(np.uint32) * white // 255
    path = tmp_path / "a.dpx"
    path.write_bytes(samples.dpx_file(values, bits=bits, order=order))
    np.testing.assert_array_equal(dpx.read(path), values)
    files.restore(path, tmp_path / "b.dpx")
    written = (tmp_path / "b.dpx").read_bytes()
    assert written[:2048] == path.read_bytes()[:2048]
    assert len(written) == path.stat().st_size
    assert np.abs(dpx.read(tmp_path / "b.dpx") - 0.8 * values).max() <= 0.5
    files.restore(path, tmp_path / "b.png", ext="png")
    np.testing.assert_allclose(
        samples.seen(tmp_path / "b.png"), 0.8 * values / white, atol=0.003
    )
    files.restore(path, tmp_path / "c.dpx", change=lambda tiles: tiles)
    assert (tmp_path / "c.dpx").read_bytes() == path.read_bytes()


def test_film_densities_in_dpx_are_shown_as_light(tmp_path):
    values = np.full((4, 6, 3), 685, np.uint32)
    values[2:] = 95
    (tmp_path / "a.dpx").write_bytes(samples.dpx_file(values, bits=10, transfer=1))
    shown = samples.seen(tmp_path / "a.dpx")
    np.testing.assert_allclose(shown[:2], 1, atol=0.01)
    np.testing.assert_allclose(shown[2:], 0, atol=0.01)


def test_a_codestream_of_jpeg_2000(tmp_path, photo):
    imagecodecs = pytest.importorskip("imagecodecs")
    data = imagecodecs.jpeg2k_encode(photo, level=0, reversible=True, codecformat="j2k")
    (tmp_path / "a.j2k").write_bytes(data)
    files.restore(tmp_path / "a.j2k", tmp_path / "b.j2k")
    written = imagecodecs.jpeg2k_decode((tmp_path / "b.j2k").read_bytes())
    assert np.abs(written - 0.8 * photo).max() <= 0.5


@pytest.mark.parametrize(
    ("start", "name"),
    [(b"v/1\1", "OpenEXR"), (b"%PDF-1.4", "PDF"), (b"8BPS", "Photoshop"),
     (b"\0\0\0\x18ftypavif", "AVIF"), (b"\0\0\0\x18ftypcrx ", "Canon"),
     (b"\0\0\0\x18ftypisom", "video"), (b"II*\0\x10\0\0\0CR\2\0", "Canon"),
     (b"FUJIFILMCCD-RAW", "Fujifilm"), (b"\xff\x0a\0\0", "JPEG XL"),
     (b"IIII\x08\0\0\0", "Phase One"), (b"P7\nWIDTH 2", "PAM"), (b"qoif", "QOI"),
     (b"%!PS-Adobe-3.0", "PostScript"), (b"\x0a\5\1\x08", "PCX"),
     (b"\0\0\0\x20ftypmif1\0\0\0\0avifmif1", "AVIF"), (b"FLV\1", "video")],
)  # fmt: skip
def test_other_formats_are_not_blamed(tmp_path, start, name):
    (tmp_path / "a.png").write_bytes(start + bytes(64))
    line = samples.failing(tmp_path / "a.png", tmp_path / "b.png")
    assert name in line and "whole, but not a format that is restored" in line


def test_a_file_of_several_pictures_named_mpo(tmp_path, photo):
    Image.fromarray(photo).save(
        tmp_path / "a.MPO", "MPO", save_all=True,
        append_images=[Image.fromarray(photo[::2, ::2])],
    )  # fmt: skip
    done = files.restore(tmp_path / "a.MPO", tmp_path / "b.MPO")
    assert done.notes == (
        "only the first of several pictures in the file was restored",
    )
    assert Image.open(tmp_path / "b.MPO").size == (96, 64)


# 13: slightly corrupt.


@pytest.mark.parametrize("padding", [b"", b"\0" * 9, b"\xff\xff"])
def test_a_missing_end_marker_loses_nothing(tmp_path, photo, padding):
    data = samples.encoded(photo, quality=90)
    (tmp_path / "whole.jpg").write_bytes(data)
    (tmp_path / "a.jpg").write_bytes(data[:-2] + padding)
    done = files.restore(tmp_path / "a.jpg", tmp_path / "b.jpg")
    assert "end marker was missing" in done.notes[0]
    files.restore(tmp_path / "whole.jpg", tmp_path / "c.jpg")
    same = [np.asarray(Image.open(tmp_path / f"{name}.jpg")) for name in "bc"]
    np.testing.assert_array_equal(*same)
    for cut in (8, 60, 600):
        (tmp_path / "cut.jpg").write_bytes(data[:-cut])
        line = samples.failing(tmp_path / "cut.jpg", tmp_path / "d.jpg")
        assert "not a readable image" in line


def test_stray_bytes_before_a_marker_lose_nothing(tmp_path, photo):
    data = samples.encoded(photo, quality=90)
    place = data.index(b"\xff\xdb")
    broken = data[:place] + b"stray\0bytes" + data[place:]
    (tmp_path / "a.jpg").write_bytes(broken)
    done = files.restore(tmp_path / "a.jpg", tmp_path / "b.jpg")
    assert done.notes == ("11 stray bytes between its markers were left out",)
    (tmp_path / "e.jpg").write_bytes(broken[:-2])
    assert len(files.restore(tmp_path / "e.jpg", tmp_path / "f.jpg").notes) == 2


# 14: names that are no UTF-8.


@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "webp", "bmp", "heic", "ppm"])
def test_names_in_latin_1_stay_the_same_bytes(tmp_path, photo, kind):
    plain = tmp_path / f"a.{kind}"
    if kind == "heic":
        pillow_heif.from_pillow(Image.fromarray(photo)).save(plain)
    else:
        Image.fromarray(photo).save(plain)
    source = plain.rename(tmp_path / os.fsdecode(b"caf\xe9." + kind.encode()))
    target = tmp_path / os.fsdecode(b"\xfcber") / source.name
    files.restore(source, target)
    assert os.listdir(os.fsencode(target.parent)) == [b"caf\xe9." + kind.encode()]
    assert picture.inspect(target).pages[0].width == 96
