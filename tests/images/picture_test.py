"""Restored files have all that their sources have but the damage."""

import io
import json
import pathlib
import shutil
import struct
import subprocess

import numpy as np
import pytest
import pyvips
import tifffile
from PIL import Image, ImageCms

from restoration.base import errors
from restoration.images import encode, frames, picture
from tests import files

EXIF_TAGS = {
    0x010F: "Maker",
    0x0110: "Model 7",
    0x0112: 6,
    0x0132: "1977:05:25 12:00:00",
}


@pytest.fixture(scope="module")
def photo(photographs):
    return frames.to_uint8(photographs["coffee"][100:220, 150:310])


def exif_of(lens="A lens"):
    exif = Image.Exif()
    for tag, value in EXIF_TAGS.items():
        exif[tag] = value
    exif.get_ifd(0x8769)[0xA434] = lens
    exif.get_ifd(0x8825)[0x0001] = "N"
    return exif


def wide_profile():
    """A profile with other primaries than sRGB: libvips' own Display P3."""
    image = pyvips.Image.black(2, 2, bands=3).copy(interpretation="srgb")
    image = image.icc_transform("p3", input_profile="srgb")
    return image.get("icc-profile-data")


def stored(path, page=0):
    found = picture.inspect(path)
    return np.concatenate(list(picture.rows(found, found.pages[page])))


# Pixels.


KINDS = {
    "grey8.png": lambda rgb: rgb[..., 0],
    "rgb16.png": lambda rgb: rgb.astype(np.uint16) * 257 + 3,
    "grey16.tif": lambda rgb: rgb[..., 0].astype(np.uint16) * 256 + 77,
    "rgb16.tif": lambda rgb: rgb.astype(np.uint16) * 255 + 9,
    "float.tif": lambda rgb: (rgb / 200).astype(np.float32),
    "rgb8.bmp": lambda rgb: rgb,
    "lossless.webp": lambda rgb: rgb,
    "rgb8.tiff": lambda rgb: rgb,
}


def make(path, values):
    if path.suffix.startswith(".tif"):
        photometric = "rgb" if values.ndim == 3 else "minisblack"
        tifffile.imwrite(path, values, photometric=photometric, metadata=None)
    elif values.dtype == np.uint16:
        grey = "rgb16" if values.ndim == 3 else "grey16"
        image = pyvips.Image.new_from_array(values)
        image.copy(interpretation=grey).pngsave(str(path))
    elif path.suffix == ".webp":
        Image.fromarray(values).save(path, lossless=True)
    else:
        Image.fromarray(values).save(path)


@pytest.mark.parametrize("name", KINDS)
def test_depth_channels_and_size_stay(tmp_path, photo, name):
    values = KINDS[name](photo)
    make(tmp_path / name, values)
    files.restore(tmp_path / name, tmp_path / "out" / name)
    source, result = (picture.inspect(tmp_path / p / name) for p in (".", "out"))
    before, after = source.pages[0], result.pages[0]
    for field in ("width", "height", "bands", "dtype", "colors"):
        assert getattr(before, field) == getattr(after, field)
    assert result.format == source.format
    seen, written = stored(tmp_path / name), stored(tmp_path / "out" / name)
    inside = np.clip(seen / before.scale, 0, 1)
    expected = seen / before.scale - 0.2 * inside
    tolerance = 0.51 / before.scale if before.scale > 1 else 1e-6
    np.testing.assert_allclose(written / before.scale, expected, atol=tolerance)


@pytest.mark.parametrize("name", KINDS)
def test_strength_0_gives_back_the_pixels(tmp_path, photo, name):
    values = KINDS[name](photo)
    make(tmp_path / name, values)
    options = {"strength": 0.0, "difference": True}  # else the file is copied
    files.restore(tmp_path / name, tmp_path / "out" / name, **options)
    np.testing.assert_array_equal(
        stored(tmp_path / name), stored(tmp_path / "out" / name)
    )
    difference = frames.read(
        tmp_path / "out" / f"{pathlib.Path(name).stem}_difference.png"
    )
    np.testing.assert_allclose(difference, 128 / 255, atol=1e-6)


def test_strength_0_copies_a_jpeg(tmp_path, photo):
    Image.fromarray(photo).save(tmp_path / "a.jpg", quality=60)
    files.restore(tmp_path / "a.jpg", tmp_path / "b.jpg", strength=0.0)
    assert (tmp_path / "a.jpg").read_bytes() == (tmp_path / "b.jpg").read_bytes()


def test_strength_blends_linearly(tmp_path, photo):
    Image.fromarray(photo).save(tmp_path / "a.png")
    results = []
    for strength in (0.5, 1.0):
        target = tmp_path / f"{strength}.png"
        files.restore(tmp_path / "a.png", target, strength=strength)
        results.append(stored(target).astype(float) - photo)
    np.testing.assert_allclose(2 * results[0], results[1], atol=1.51)


def test_grey_stored_as_rgb_stays_grey(tmp_path, photo):
    """A model that finds color gives none to a picture that has none."""
    weights = np.array([0.299, 0.587, 0.114])
    tint = np.array([0.9, 0.7, 0.5], np.float32)
    grey = np.repeat((photo @ weights).round().astype(np.uint8)[..., None], 3, -1)
    for name, image in {"grey": grey, "color": photo}.items():
        source, target = tmp_path / f"{name}.png", tmp_path / f"{name}_done.png"
        Image.fromarray(image).save(source)
        files.restore(source, target, change=lambda tiles: tiles * tint)
        expected = image * tint
        if name == "grey":
            expected = np.repeat((expected @ weights)[..., None], 3, -1)
        np.testing.assert_allclose(stored(target), expected, atol=0.51)


def test_colored_specks_of_grey_pictures_can_go(tmp_path):
    image = np.full((200, 200, 3), 128, np.uint8)
    image[100, 100] = 150, 128, 128
    Image.fromarray(image).save(tmp_path / "a.png")
    files.restore(
        tmp_path / "a.png",
        tmp_path / "b.png",
        change=lambda tiles: np.full_like(tiles, 128 / 255),
    )
    np.testing.assert_array_equal(stored(tmp_path / "b.png"), 128)


# Transparency.


@pytest.mark.parametrize("kind", ["png", "webp", "tif", "premultiplied", "deep"])
def test_alpha_stays_and_nothing_hidden_leaks(tmp_path, photo, kind):
    generator = np.random.default_rng(1)
    alpha = np.full(photo.shape[:2], 255, np.uint8)
    alpha[30:70, 40:100] = 0
    alpha[:, 120:140] = generator.integers(1, 255, (120, 20))
    suffix = {"premultiplied": "tif", "deep": "tif"}.get(kind, kind)
    results = []
    for hidden in (0, 255):
        rgba = np.dstack([photo, alpha])
        if kind == "premultiplied":
            rgba[..., :3] = np.rint(rgba[..., :3] / 255.0 * alpha[..., None])
            options = {"extrasamples": ["ASSOCALPHA"]}
        else:
            rgba[..., :3][alpha == 0] = hidden
            options = {"extrasamples": ["UNASSALPHA"]}
        source, target = (
            tmp_path / f"{hidden}.{suffix}",
            tmp_path / f"o{hidden}.{suffix}",
        )
        if kind == "deep":
            rgba = rgba.astype(np.uint16) * 257
        if suffix == "tif":
            tifffile.imwrite(source, rgba, photometric="rgb", metadata=None, **options)
        elif kind == "webp":
            Image.fromarray(rgba).save(source, lossless=True, exact=True)
        else:
            Image.fromarray(rgba).save(source)
        # A model that would spread what it sees: a mean over 7 pixels.
        files.restore(source, target, change=spreading)
        if suffix == "tif":
            raw = tifffile.imread(target)
            tag = tifffile.TiffFile(target).pages[0].extrasamples
            assert tag == (1,) if kind == "premultiplied" else tag == (2,)
        else:
            raw = np.asarray(Image.open(target))
        np.testing.assert_array_equal(raw[..., 3], rgba[..., 3])
        np.testing.assert_array_equal(raw[alpha == 0], rgba[alpha == 0])
        assert not np.array_equal(raw[alpha == 255], rgba[alpha == 255])
        results.append(raw)
    np.testing.assert_array_equal(results[0][alpha > 0], results[1][alpha > 0])


def spreading(tiles):
    total = sum(np.roll(tiles, shift, axis=2) for shift in range(-3, 4))
    return total / np.float32(7)


# Color.


def test_colors_reach_the_model_as_srgb_and_return(tmp_path):
    profile = wide_profile()
    values = np.array([[[200, 60, 40], [30, 90, 160], [128, 128, 128]]], np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png", icc_profile=profile)
    seen = []

    def look(tiles):
        seen.append(tiles[0, tiles.shape[1] // 2, :, :])
        return tiles

    files.restore(tmp_path / "a.png", tmp_path / "b.png", change=look)
    # Little CMS through Pillow is the reference.
    expected = ImageCms.profileToProfile(
        Image.fromarray(values),
        ImageCms.ImageCmsProfile(io.BytesIO(profile)),
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
    )
    shown = {tuple(np.rint(255 * color).astype(int)) for color in seen[0]}
    for color in np.asarray(expected)[0].astype(int):
        assert min(np.abs(np.subtract(color, other)).max() for other in shown) <= 1
    # What a model leaves alone survives exactly, though sRGB holds fewer colors.
    np.testing.assert_array_equal(stored(tmp_path / "b.png"), values)
    with Image.open(tmp_path / "b.png") as written:
        assert written.info["icc_profile"] == profile


def test_restored_colors_are_those_of_the_profile(tmp_path):
    profile = wide_profile()
    values = np.full((20, 20, 3), (120, 90, 70), np.uint16) * 257
    image = pyvips.Image.new_from_array(values).copy(interpretation="rgb16")
    image.set_type(pyvips.GValue.blob_type, "icc-profile-data", profile)
    image.pngsave(str(tmp_path / "a.png"))
    files.restore(tmp_path / "a.png", tmp_path / "b.png")

    def in_srgb(path):
        shown = pyvips.Image.new_from_file(str(path))
        return shown.icc_transform("srgb", embedded=True, depth=16).numpy()[5, 5]

    before, after = in_srgb(tmp_path / "a.png"), in_srgb(tmp_path / "b.png")
    np.testing.assert_allclose(after, 0.8 * before, atol=40)  # of 65535


def grey_profile(gamma):
    """A profile of grey values with a gamma, as scanners' programs embed them."""

    def tag(kind, data):
        return kind + bytes(4) + data

    def xyz(*values):
        return b"".join(round(v * 65536).to_bytes(4, "big") for v in values)

    text = b"grey"
    tags = {
        b"desc": tag(b"desc", struct.pack(">I", 5) + text + bytes(1 + 8 + 3 + 67)),
        b"cprt": tag(b"text", b"none\0"),
        b"wtpt": tag(b"XYZ ", xyz(0.9642, 1.0, 0.8249)),
        b"kTRC": tag(b"curv", struct.pack(">IH", 1, round(gamma * 256))),
    }
    place, index, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        index += name + struct.pack(">II", place + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    size = place + len(body)
    head = struct.pack(
        ">I4sI4s4s4s", size, b"none", 0x02400000, b"mntr", b"GRAY", b"XYZ "
    )
    head += struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    head += xyz(0.9642, 1.0, 0.8249)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + index + body


@pytest.mark.parametrize("gamma", [1.8, 2.2])
def test_grey_in_a_profile_is_seen_and_written_as_such(tmp_path, gamma):
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    profile = grey_profile(gamma)
    Image.fromarray(values).save(tmp_path / "a.png", icc_profile=profile)
    seen = []

    def lighter(tiles):
        seen.append(tiles)
        return np.clip(tiles + np.float32(0.1), 0, 1)

    done = files.restore(tmp_path / "a.png", tmp_path / "b.png", change=lighter)
    assert done.notes == ()

    def encoded(linear):  # of IEC 61966-2-1
        return np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055,
                        12.92 * linear)  # fmt: skip

    def decoded(value):
        return np.where(
            value > 0.04045, ((value + 0.055) / 1.055) ** 2.4, value / 12.92
        )

    srgb = encoded((values / 255) ** gamma)
    tile = seen[0][0, 12 : 12 + 16, 12 : 12 + 16]
    np.testing.assert_allclose(tile, srgb[..., None].repeat(3, -1), atol=0.006)
    with Image.open(tmp_path / "b.png") as written:
        assert written.mode == "L" and written.info["icc_profile"] == profile
        result = np.asarray(written) / 255
    expected = decoded(np.clip(srgb + 0.1, 0, 1)) ** (1 / gamma)
    np.testing.assert_allclose(result, expected, atol=0.01)


def test_a_profile_of_the_wrong_kind_is_kept_and_told(tmp_path, photo):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(photo[..., 0]).save(tmp_path / "a.tif", icc_profile=profile)
    done = files.restore(tmp_path / "a.tif", tmp_path / "b.tif")
    assert "could not be used" in " ".join(done.notes)
    with Image.open(tmp_path / "b.tif") as written:
        assert written.mode == "L" and written.info["icc_profile"] == profile


def test_cmyk_is_converted_and_said_so(tmp_path, photo):
    for name in ("a.jpg", "a.tif"):
        Image.fromarray(photo).convert("CMYK").save(tmp_path / name)
        done = files.restore(tmp_path / name, tmp_path / "out" / name)
        assert "CMYK was converted to RGB (sRGB)" in done.notes
        with Image.open(tmp_path / "out" / name) as written:
            assert written.mode == "RGB"


# Metadata.


def all_tags(path):
    """Returns what exiftool finds besides the file's own and the encoding's data."""
    options = ("-j", "-G1", "-a", "-n", "-e")
    found = json.loads(files.tool("exiftool", *options, path))[0]
    apart = ("System:", "File:", "ExifTool:", "SourceFile", "PNG:Filter", "RIFF:",
             "VP8", "JFIF:Version", "PNG:Compression", "PNG:Interlace",
             "PNG:BackgroundColor")  # fmt: skip
    storage = ("StripOffsets", "StripByteCounts", "RowsPerStrip", "TileOffsets",
               "TileByteCounts", "Compression", "PhotometricInterpretation",
               "SubfileType", "Predictor", "SampleFormat", "PlanarConfiguration",
               "FillOrder", "JPEGTables", "YCbCrPositioning",
               "ThumbnailOffset")  # fmt: skip
    return {
        key: value
        for key, value in found.items()
        if not key.startswith(apart) and not key.endswith(storage)
    }


@files.needs_exiftool
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_metadata_that_exiftool_wrote_is_all_there(tmp_path, photo, suffix):
    source, target = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    Image.fromarray(photo).save(source, icc_profile=wide_profile(), dpi=(300, 300))
    iptc = ["-IPTC:Keywords=film", "-IPTC:Caption-Abstract=Ein Bild"]
    files.tool(
        "exiftool", "-overwrite_original", "-Make=Maker", "-Model=Model 7",
        "-Orientation#=6", "-DateTimeOriginal=1977:05:25 12:00:00", "-LensModel=A lens",
        "-GPSLatitude=52.5", "-GPSLatitudeRef=N", "-GPSAltitude=34", "-ISO=400",
        "-XMP-dc:Title=Title", "-XMP-dc:Creator=Someone", "-Copyright=(c) Someone",
        "-UserComment=comment", *(iptc if suffix in ("jpg", "tif") else []), source,
    )  # fmt: skip
    before = all_tags(source)
    assert before["ExifIFD:LensModel"] == "A lens"
    files.restore(source, target)
    assert all_tags(target) == before
    with Image.open(source) as a, Image.open(target) as b:
        assert a.size == b.size
        assert b.info["icc_profile"] == a.info["icc_profile"]


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_metadata_without_witnesses(tmp_path, photo, suffix):
    source, target = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    Image.fromarray(photo).save(source, exif=exif_of().tobytes())
    files.restore(source, target)
    with Image.open(target) as written:
        exif = written.getexif()
        assert {tag: exif[tag] for tag in EXIF_TAGS} == EXIF_TAGS
        assert exif.get_ifd(0x8769)[0xA434] == "A lens"
        assert exif.get_ifd(0x8825)[0x0001] == "N"


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("ext", ["jpg", "png", "webp", "tif"])
def test_metadata_goes_to_other_formats(tmp_path, photo, suffix, ext):
    source, target = tmp_path / f"a.{suffix}", tmp_path / f"b.{ext}"
    profile = wide_profile()
    Image.fromarray(photo).save(source, exif=exif_of().tobytes(), icc_profile=profile)
    files.restore(source, target, ext=ext)
    with Image.open(target) as written:
        exif = written.getexif()
        assert {tag: exif[tag] for tag in EXIF_TAGS} == EXIF_TAGS
        assert exif.get_ifd(0x8769)[0xA434] == "A lens"
        assert written.info["icc_profile"] == profile


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_stripped_files_keep_what_shows_them_right(tmp_path, photo, suffix):
    source, target = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    profile = wide_profile()
    Image.fromarray(photo).save(source, exif=exif_of().tobytes(), icc_profile=profile)
    files.restore(source, target, strip_metadata=True)
    assert b"A lens" not in target.read_bytes()
    with Image.open(target) as written:
        assert written.getexif()[0x0112] == 6
        assert 0x010F not in written.getexif()
        assert written.info["icc_profile"] == profile


def test_jpeg_segments_stay_byte_by_byte(tmp_path, photo):
    Image.fromarray(photo).save(tmp_path / "a.jpg", comment=b"a comment")
    data = (tmp_path / "a.jpg").read_bytes()
    own = b"\xff\xe9\x00\x0fof no standard"[:17]
    own = own[:2] + (len(own) - 2).to_bytes(2, "big") + own[4:]
    (tmp_path / "a.jpg").write_bytes(data[:2] + own + data[2:])
    files.restore(tmp_path / "a.jpg", tmp_path / "b.jpg")
    written = (tmp_path / "b.jpg").read_bytes()
    assert own in written and b"a comment" in written


# Encodings.


@pytest.mark.parametrize("quality", [30, 80, 92, 99, 100])
@pytest.mark.parametrize("sampling", [0, 2])
def test_jpeg_is_no_coarser_than_its_source(tmp_path, photo, quality, sampling):
    source, target = tmp_path / "a.jpg", tmp_path / "b.jpg"
    Image.fromarray(photo).save(source, quality=quality, subsampling=sampling)
    files.restore(source, target)
    with Image.open(source) as a, Image.open(target) as b:
        for number, table in b.quantization.items():
            assert all(
                new <= old
                for new, old in zip(table, a.quantization[number], strict=True)
            )
        assert [c[1:3] for c in b.layer] == [c[1:3] for c in a.layer]


def test_quality_is_the_lowest_that_will_do():
    for quality in (90, 93, 97):
        tables = encode._tables(quality)
        assert encode.quality_for(tables, 90) == quality
    assert encode.quality_for([bytes([1] * 64)], 90) == 100


COMPRESSIONS = {"none": 1, "lzw": 5, "deflate": 8, "packbits": 32773, "jpeg": 7}


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_tiff_keeps_its_compression_tiles_and_pyramid(tmp_path, photo, name):
    image = pyvips.Image.new_from_array(np.tile(photo, (4, 4, 1)))
    for layout in ({}, {"tile": True, "tile_width": 128, "tile_height": 64},
                   {"tile": True, "pyramid": True},
                   {"tile": True, "pyramid": True, "subifd": True}):  # fmt: skip
        source, target = tmp_path / "a.tif", tmp_path / "b.tif"
        image.tiffsave(str(source), compression=name, bigtiff=bool(layout), **layout)
        files.restore(source, target, overwrite=True)
        with tifffile.TiffFile(source) as a, tifffile.TiffFile(target) as b:
            assert b.is_bigtiff == a.is_bigtiff
            assert len(a.pages) == len(b.pages)
            for old, new in zip(a.pages, b.pages, strict=True):
                assert new.compression == old.compression == COMPRESSIONS[name]
                assert new.shape == old.shape and new.tile == old.tile
                assert len(new.subifds or ()) == len(old.subifds or ())
            if layout.get("pyramid"):  # smaller pages are of the restored picture
                # libvips decodes: tifffile alone knows neither LZW nor JPEG.
                below = {"subifd": 0} if layout.get("subifd") else {"page": 1}
                whole, small = (
                    pyvips.Image.new_from_file(str(target), **page)
                    .numpy()
                    .astype(float)
                    for page in ({}, below)
                )
                high, wide = small.shape[:2]
                means = whole[: 2 * high, : 2 * wide].reshape(high, 2, wide, 2, 3)
                assert np.abs(means.mean((1, 3)) - small).mean() < 2


def test_every_page_of_a_tiff_is_restored_with_its_tags(tmp_path, photo):
    pages = [photo, photo[:50, :70, 0], photo[:31].astype(np.uint16) * 257]
    with tifffile.TiffWriter(tmp_path / "a.tif", byteorder=">") as writer:
        for number, values in enumerate(pages):
            writer.write(
                values, photometric="rgb" if values.ndim == 3 else "minisblack",
                description=f"page {number}", metadata=None, resolution=(300, 200),
            )  # fmt: skip
    files.restore(tmp_path / "a.tif", tmp_path / "b.tif")
    with tifffile.TiffFile(tmp_path / "b.tif") as written:
        assert len(written.pages) == 3
        for number, (page, values) in enumerate(zip(written.pages, pages, strict=True)):
            assert page.description == f"page {number}"
            assert page.dtype == values.dtype and page.shape == values.shape
            assert page.tags[282].value == (300, 1)
            np.testing.assert_allclose(
                page.asarray(), 0.8 * values, atol=0.51, rtol=1e-6
            )


def test_webp_stays_lossless_or_lossy(tmp_path, photo):
    for lossless in (True, False):
        Image.fromarray(photo).save(tmp_path / "a.webp", lossless=lossless)
        files.restore(tmp_path / "a.webp", tmp_path / "b.webp", overwrite=True)
        data = (tmp_path / "b.webp").read_bytes()
        assert (b"VP8L" in data[:64]) == lossless


def test_alpha_is_not_dropped_for_a_format_without(tmp_path, photo):
    rgba = np.dstack([photo, photo[..., 0]])
    Image.fromarray(rgba).save(tmp_path / "a.png")
    with pytest.raises(AssertionError, match="choose --ext tif or png"):
        files.restore(tmp_path / "a.png", tmp_path / "b.jpg", ext="jpg")


def is_imagemagick(program):
    """Whether a program is ImageMagick's; Windows has another one of this name."""
    if not shutil.which(program):
        return False
    said = subprocess.run([program, "-version"], capture_output=True, text=True)
    return "ImageMagick" in said.stdout


@pytest.mark.skipif(not is_imagemagick("convert"), reason="ImageMagick is missing")
@pytest.mark.parametrize(
    ("name", "options"),
    [("a.png", ["-depth", "16"]), ("a.tif", ["-depth", "16", "-compress", "LZW"]),
     ("a.jpg", ["-quality", "85", "-interlace", "JPEG"]),
     ("a.tif", ["-colorspace", "Gray"]), ("a.png", ["-interlace", "PNG"]),
     ("a.webp", ["-quality", "80"])],
)  # fmt: skip
def test_files_of_imagemagick(tmp_path, photo, name, options):
    Image.fromarray(photo).save(tmp_path / "photo.png")
    files.tool("convert", tmp_path / "photo.png", *options, tmp_path / name)
    files.restore(tmp_path / name, tmp_path / f"b{name}")
    before, after = (
        picture.inspect(tmp_path / name),
        picture.inspect(tmp_path / f"b{name}"),
    )
    for field in ("width", "height", "bands", "dtype"):
        assert getattr(before.pages[0], field) == getattr(after.pages[0], field)


@pytest.mark.parametrize("suffix", [".jp2", ".heic"])
def test_optional_formats(tmp_path, photo, suffix):
    source, target = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    if suffix == ".jp2":
        pytest.importorskip("imagecodecs")
        Image.fromarray(photo).save(source, irreversible=False)
    else:
        heif = pytest.importorskip("pillow_heif")
        upright = exif_of()
        upright[0x0112] = 1
        heif.from_pillow(Image.fromarray(photo)).save(
            source, quality=90, exif=upright.tobytes(), icc_profile=wide_profile()
        )
    files.restore(source, target)
    before, after = stored(source), stored(target)
    assert before.shape == after.shape
    assert np.abs(0.8 * before - after.astype(float)).mean() < 3
    if suffix == ".heic":
        found = picture.jp2_heic.inspect(target).blocks
        assert b"A lens" in found.exif and found.icc == wide_profile()


def test_size_of_jpeg_2000_is_checked_before_decoding(tmp_path, photo, monkeypatch):
    pytest.importorskip("imagecodecs")
    Image.fromarray(photo).save(tmp_path / "a.jp2")
    monkeypatch.setattr(picture.jp2_heic, "_decode_jp2", None)
    with pytest.raises(errors.InputError, match="pixels"):
        picture.inspect(tmp_path / "a.jp2", max_pixels=photo[..., 0].size - 1)


def test_optional_formats_name_the_package_that_is_missing(tmp_path, monkeypatch):
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))

    class Missing:
        def __getattr__(self, name):
            raise ImportError

    monkeypatch.setattr(picture.jp2_heic, "pillow_heif", Missing())
    with pytest.raises(errors.InputError, match="needs the package pillow-heif"):
        picture.inspect(tmp_path / "a.heic")
