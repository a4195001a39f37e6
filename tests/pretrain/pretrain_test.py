"""Pretraining: what may be used, pairs drawn on the device, runs in parts, scores."""

import dataclasses
import io
import json
import subprocess
import sys

import jax
import numpy as np
import pytest
import scipy.ndimage
import skimage.metrics
from PIL import Image

from experiments.pretrain import pretrain, quality, sources
from restoration import damage, models
from restoration.base import errors, files
from restoration.damage import overlays
from restoration.data import captions, clean_pictures, drawn_pairs
from restoration.images import frames
from restoration.inference import engine
from restoration.models import pretrained
from restoration.training import repeat, run, trained

RECIPE = drawn_pairs.Recipe(
    image_size=32,
    severity=1.0,
    photo_share=0.5,
    clean_share=0.0,
    spotless_share=0.0,
    grey_share=0.0,
    toned_share=0.0,
    soft_share=0.0,
    overlay_share=1.0,
    opacity=1.0,
    film=("grain",),
    photo=("grain", "cast"),
)

# All but these few, which compile in seconds.
LEAVE_OUT = ",".join(sorted(set(damage.KINDS) - set(RECIPE.photo)))


def png(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "png")
    return file.getvalue()


@pytest.fixture(scope="session")
def clean_folder(tmp_path_factory, photographs):
    """Eight stills and a shot of three frames."""
    folder = tmp_path_factory.mktemp("clean")
    images = list(photographs.values())
    for number in range(8):
        crop = images[number % 4][40 : 40 + 64, 30 * number : 30 * number + 72]
        frames.write(folder / "stills" / f"still{chr(97 + number)}.png", crop)
    for number in range(3):
        crop = images[0][100:164, 100 + 4 * number : 164 + 4 * number]
        frames.write(folder / "shots" / f"walk_{number:03d}.png", crop)
    return folder


@pytest.fixture(scope="session")
def overlay_folder(tmp_path_factory):
    """Two scans of dirt: a blot and a hair."""
    folder = tmp_path_factory.mktemp("dirt")
    rows, columns = np.ogrid[:60, :80]
    blot = (np.hypot(rows - 30, columns - 40) < 15) * 255
    hair = (np.abs(rows - 20 - columns // 4) < 2) * 200
    for name, alpha in (("blot", blot), ("hair", hair)):
        rgba = np.full((60, 80, 4), 255, np.uint8)
        rgba[..., 3] = alpha
        Image.fromarray(rgba).save(folder / f"{name}.png")
    return folder


def small_options(clean_folder, workdir, **changes):
    values = pretrain.read_recipe("film") | {
        "model": "basic",
        "clean": str(clean_folder),
        "workdir": str(workdir),
        "sources": "all",
        "steps": 4,
        "batch_size": 4,
        "image_size": 32,
        "piece_size": 48,
        "warmup_steps": 1,
        "log_every": 2,
        "evaluations": 2,
        "held_out": 0.2,
        "leave_out": LEAVE_OUT,
    }
    return pretrain.PretrainOptions(**(values | changes))


def load(options):
    return drawn_pairs.load(options, pretrain.find_pictures(options)[0])


# --- Which pictures, and their pieces ---------------------------------------


def test_only_listed_pictures_are_used(clean_folder, tmp_path):
    listed = tmp_path / "sources.json"
    row = {"pattern": "shots/*", "name": "a walk", "licence": "CC0"}
    listed.write_text(json.dumps([row]))
    origins = sources.read_sources(str(listed))
    found = sources.find(str(clean_folder), origins)
    assert list(found) == [f"shots/walk_00{n}.png" for n in range(3)]
    assert sources.counts(list(found), origins) == [
        {"name": "a walk", "licence": "CC0", "pictures": 3}
    ]
    with pytest.raises(errors.InputError, match="--sources=all"):
        absent = sources.Source("other/*", "", "")
        sources.find(str(clean_folder), (absent,))


def test_the_committed_list_names_licences():
    origins = sources.read_sources(sources.SOURCES)
    assert all(origin.licence and origin.name for origin in origins)
    names = ["bsds500/2092.jpg", "film_frames/bikes_0002.png", "cid22/1.jpg"]
    found = sources.counts(names, origins)
    assert [row["pictures"] for row in found] == [1]


def test_wheel_photographs_are_added(clean_folder):
    source = sources.Source("scikit-image/*", "wheel", "its README")
    files = sources.find(str(clean_folder), (source,))
    assert "scikit-image/astronaut.png" in files
    assert all(name.startswith("scikit-image/") for name in files)


def test_missing_wheel_is_told(clean_folder, monkeypatch):
    source = sources.Source("scikit-image/*", "wheel", "its README")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(errors.InputError, match=r"pip install '\.\[dev\]'"):
        sources.find(str(clean_folder), (source,))


def test_packed_file_gives_what_the_folder_does(clean_folder, overlay_folder, tmp_path):
    packed = str(tmp_path / "all.zip")
    options = small_options(
        clean_folder, tmp_path, overlays=str(overlay_folder), pack=packed
    )
    pretrain.pack(options)
    carried = dataclasses.replace(options, clean=packed, overlays=packed, pack="")
    here, there = load(options), load(carried)
    jax.tree.map(np.testing.assert_array_equal, here.material, there.material)
    jax.tree.map(np.testing.assert_array_equal, here.held_out, there.held_out)
    assert here.described == there.described


def test_pieces_cover_every_pixel():
    image = np.arange(70 * 101 * 3).reshape(70, 101, 3) % 251
    pieces = clean_pictures.cut({"a": png(image.astype(np.uint8))}, 32)
    seen = np.zeros((70, 101), bool)
    for piece in pieces:
        for top, left in zip(*np.nonzero(image[..., 0] == piece[0, 0, 0]), strict=True):
            part = image[top : top + 32, left : left + 32]
            if part.shape == piece.shape and (part == piece).all():
                seen[top : top + 32, left : left + 32] = True
    assert seen.all()


def test_small_pictures_are_continued_by_reflection():
    image = np.random.default_rng(0).integers(0, 255, (20, 40, 3), np.uint8)
    (piece,) = clean_pictures.cut({"a": png(image)}, 40)
    np.testing.assert_array_equal(piece[:20], image)
    np.testing.assert_array_equal(piece[20:], image[::-1])


def test_a_share_of_the_pieces_bears_writing():
    grey = np.full((200, 96, 96, 3), 128, np.uint8)
    written = captions.write_on(grey, 0.3, seed=1)
    assert written.shape == grey.shape and written.dtype == np.uint8
    changed = (written != grey).any((1, 2, 3))
    # Some captions lie outside of their piece.
    assert 0.2 < changed.mean() <= 0.36
    # Ink and paper are lighter or darker than what they stand on, not noise all over.
    spread = np.abs(written[changed].astype(int) - 128).max((1, 2, 3))
    assert (spread > 25).all()
    np.testing.assert_array_equal(captions.write_on(grey, 0.3, seed=1), written)
    assert (captions.write_on(grey, 0.3, seed=2) != written).any()
    np.testing.assert_array_equal(captions.write_on(grey, 0.0, seed=1), grey)


def test_held_out_pictures_bear_no_writing(clean_folder, tmp_path):
    plain = load(small_options(clean_folder, tmp_path, writing_share=0.0))
    written = load(small_options(clean_folder, tmp_path, writing_share=1.0))
    jax.tree.map(np.testing.assert_array_equal, plain.held_out, written.held_out)
    assert (plain.material.pieces != written.material.pieces).any()


def test_frames_of_a_shot_stay_together(clean_folder):
    files = clean_pictures.read_files(str(clean_folder), inside="")
    for share in (0.1, 0.3, 0.6):
        train, held = clean_pictures.hold_out(files, share)
        assert sorted([*train, *held]) == sorted(files)
        assert held
        of_the_shot = [name for name in held if name.startswith("shots")]
        assert len(of_the_shot) in (0, 3)


def test_linked_folders_are_read_once_each(clean_folder, tmp_path):
    (tmp_path / "set").symlink_to(clean_folder)
    (tmp_path / "around").symlink_to(tmp_path)
    files = clean_pictures.read_files(str(tmp_path), inside="")
    plain = clean_pictures.read_files(str(clean_folder), inside="")
    assert files == {f"set/{name}": file for name, file in plain.items()}


def test_opaque_overlays_are_refused(clean_folder):
    files = clean_pictures.read_files(str(clean_folder), inside="")
    with pytest.raises(errors.InputError, match="opaque everywhere"):
        clean_pictures.masks(files)


# --- Overlays ----------------------------------------------------------------


@pytest.fixture(scope="module")
def masks(overlay_folder):
    return clean_pictures.masks(
        clean_pictures.read_files(str(overlay_folder), inside="")
    )


def test_masks_are_the_alpha_channels(masks):
    assert masks.shape == (2, 80, 80)
    assert masks[0, 10 + 30, 40] == 255
    assert masks[0, :10].max() == 0
    assert masks[1].max() == 200


@pytest.fixture(scope="module")
def lay():
    return jax.jit(overlays.random_overlays)


def test_overlays_change_only_what_they_cover(lay, masks, photographs):
    image = photographs["coffee"][:64, :96]
    covered = []
    for seed in range(6):
        degraded, mask = lay(jax.random.key(seed), image, masks, severity=2.0)
        assert degraded.min() >= 0
        assert degraded.max() <= 1
        clear = np.asarray(mask) == 0
        np.testing.assert_array_equal(np.asarray(degraded)[clear], image[clear])
        covered.append(1 - clear.mean())
    assert 0.005 < np.mean(covered) < 0.9


def test_no_severity_no_overlays(lay, masks, photographs):
    image = photographs["coffee"][:64, :96]
    degraded, mask = lay(jax.random.key(1), image, masks, severity=0.0)
    np.testing.assert_array_equal(degraded, image)
    assert not np.any(mask)


def test_a_full_mask_covers_an_even_square(lay, photographs):
    full = np.full((2, 80, 80), 255, np.uint8)
    image = np.full((64, 96, 3), 0.5, np.float32)
    seen = 0
    for seed in range(12):
        degraded, mask = map(
            np.asarray, lay(jax.random.key(seed), image, full, severity=1.0)
        )
        if not mask.any():
            continue
        seen += 1
        # Inside, each overlap of masks has one opacity and one color.
        values, counts = np.unique(mask.round(4), return_counts=True)
        inside = values[np.argmax(np.where(values > 0, counts, 0))]
        assert np.ptp(degraded[np.abs(mask - inside) < 1e-4], axis=0).max() < 0.01
    assert seen >= 6


# --- Pairs -------------------------------------------------------------------


@pytest.fixture(scope="module")
def material(masks, photographs):
    pieces = [frames.to_uint8(image[:48, :48]) for image in photographs.values()]
    return drawn_pairs.Material(np.stack(pieces), masks)


@pytest.fixture(scope="module")
def draw():
    return jax.jit(drawn_pairs.draw_pairs, static_argnums=(2, 3))


def test_pairs_follow_from_the_key(draw, material):
    first = draw(jax.random.key(5), material, RECIPE, 4)
    second = draw(jax.random.key(5), material, RECIPE, 4)
    other = draw(jax.random.key(6), material, RECIPE, 4)
    jax.tree.map(np.testing.assert_array_equal, first, second)
    assert np.abs(first["output"] - other["output"]).mean() > 0.01
    for images in first.values():
        assert images.shape == (4, 32, 32, 3)
        assert images.min() >= 0
        assert images.max() <= 1
    assert np.abs(first["input"] - first["output"]).mean(axis=(1, 2, 3)).max() > 0.01


def test_what_cannot_be_undone_is_not_drawn():
    found = drawn_pairs.kinds_of(damage.PHOTO, "jpeg,missing")
    gone = {"weave", "flicker", "contrast", "fading", "cast", "jpeg", "missing"}
    assert set(found) == set(damage.PHOTO) - gone
    with pytest.raises(errors.InputError, match="--leave_out=rust"):
        drawn_pairs.kinds_of(damage.FILM, "rust")


def test_clean_pairs_stay_clean(draw, material):
    recipe = RECIPE._replace(clean_share=1.0)
    pairs = draw(jax.random.key(7), material, recipe, 4)
    np.testing.assert_array_equal(pairs["input"], pairs["output"])


@pytest.mark.slow
def test_nothing_lands_on_spotless_pairs(draw, material):
    """They get the grain that they had, and neither dust nor scanned dirt."""
    key, film = jax.random.key(5), ("dust", "grain")
    recipe = RECIPE._replace(photo_share=0.0, film=film, spotless_share=1.0)
    bare = recipe._replace(film=("grain",), overlay_share=0.0, spotless_share=0.0)
    spotless, grainy, dusty = (
        draw(key, material, r, 4)["input"]
        for r in (recipe, bare, recipe._replace(spotless_share=0.0))
    )
    np.testing.assert_allclose(spotless, grainy, atol=1e-6)
    assert np.abs(dusty - grainy).max() > 0.1


@pytest.mark.slow
def test_pairs_are_covered_more_opaquely(draw, material):
    """By a factor of each pair; what covers nothing, and clean sides, stay."""
    key, recipe = (
        jax.random.key(5),
        RECIPE._replace(photo_share=0.0, film=(), severity=8.0),
    )
    plain, dense = (
        jax.tree.map(np.asarray, draw(key, material, recipe._replace(opacity=x), 48))
        for x in (1.0, 4.0)
    )
    np.testing.assert_array_equal(plain["output"], dense["output"])
    changed = [np.abs(pairs["input"] - pairs["output"]) for pairs in (plain, dense)]
    # Where either shows nothing, rounding decides whether the other does.
    np.testing.assert_array_equal(changed[0] > 1e-5, changed[1] > 1e-5)
    ratio = [d.sum() / p.sum() for p, d in zip(*changed, strict=True) if p.sum()]
    assert min(ratio) >= 1 and max(ratio) < 4 and len({round(x, 2) for x in ratio}) > 3


def test_severities_are_scaled(draw, material):
    key = jax.random.key(5)
    whole, none = (draw(key, material, RECIPE, 4, scale=scale) for scale in (1.0, 0.0))
    np.testing.assert_array_equal(none["input"], none["output"])
    np.testing.assert_array_equal(whole["output"], none["output"])
    plain = draw(key, material, RECIPE, 4)
    np.testing.assert_array_equal(whole["input"], plain["input"])


def test_unscaled_crops_are_pieces_of_the_picture(material):
    """Half of the crops are, in one of the eight ways to turn and flip them."""
    piece = material.pieces[:1]
    image = piece[0].astype(np.float32) / 255
    turned = [np.rot90(view, n) for view in (image, image[:, ::-1]) for n in range(4)]
    crop = jax.jit(lambda key: drawn_pairs.draw_clean(key, piece, RECIPE))
    found = np.zeros(8, int)
    for seed in range(40):
        drawn = np.asarray(crop(jax.random.key(seed)))
        for way, view in enumerate(turned):
            windows = np.lib.stride_tricks.sliding_window_view(view, (32, 32), (0, 1))
            difference = np.abs(windows.transpose(0, 1, 3, 4, 2) - drawn)
            found[way] += difference.max(axis=(2, 3, 4)).min() < 1e-4
    assert 10 <= found.sum() <= 30
    assert np.count_nonzero(found) >= 6


def test_grey_pairs_are_grey(material):
    recipe = RECIPE._replace(grey_share=1.0)
    draw = jax.jit(lambda key: drawn_pairs.draw_clean(key, material.pieces, recipe))
    crop = draw(jax.random.key(1))
    np.testing.assert_allclose(crop, crop[..., :1] + np.zeros(3), atol=1e-6)


@pytest.mark.slow
def test_toned_pairs_are_toned_on_both_sides(material):
    def drawn(**changes):
        recipe = RECIPE._replace(severity=0.0, **changes)
        pairs = jax.jit(lambda key: drawn_pairs.draw_pairs(key, material, recipe, 8))(
            jax.random.key(1)
        )
        return np.asarray(pairs["input"]), np.asarray(pairs["output"])

    degraded, toned = drawn(toned_share=1.0)
    _, plain = drawn(toned_share=0.0)
    _, some = drawn(toned_share=0.5)
    np.testing.assert_array_equal(degraded, toned)
    assert (np.abs(toned - plain).mean((1, 2, 3)) > 0.002).all()
    changed = np.abs(some - plain).max((1, 2, 3)) > 0
    assert 0 < changed.sum() < 8
    np.testing.assert_array_equal(some[changed], toned[changed])


@pytest.mark.slow
def test_soft_pairs_are_as_soft_on_both_sides(material):
    def drawn(soft_share):
        recipe = RECIPE._replace(severity=0.0, soft_share=soft_share)
        pairs = jax.jit(lambda key: drawn_pairs.draw_pairs(key, material, recipe, 16))(
            jax.random.key(1)
        )
        return np.asarray(pairs["input"]), np.asarray(pairs["output"])

    def sharpness(images):
        return np.abs(np.diff(images, axis=1)).mean((1, 2, 3))

    degraded, soft = drawn(1.0)
    _, plain = drawn(0.0)
    _, some = drawn(0.5)
    assert (sharpness(soft) < 0.99 * sharpness(plain)).all()
    # Half of the worn ones are compressed besides, and nothing else.
    differ = np.abs(degraded - soft).max((1, 2, 3)) > 0
    assert 0 < differ.sum() < 16
    assert np.abs(degraded - soft).mean() < 0.02
    changed = np.abs(some - plain).max((1, 2, 3)) > 0
    assert 0 < changed.sum() < 16
    np.testing.assert_array_equal(some[changed], soft[changed])


@pytest.mark.slow
def test_crops_are_cut_anywhere_from_both_sides_alike(material, monkeypatch):
    """So that the squares of JPEG begin at any of 8 by 8 places of a crop."""
    places = np.stack([*np.mgrid[:39, :39], np.zeros((39, 39))], -1).astype(np.float32)
    monkeypatch.setattr(drawn_pairs, "draw_clean", lambda *_: places / np.float32(64))
    recipe = RECIPE._replace(clean_share=1.0)
    pairs = drawn_pairs.draw_pairs(jax.random.key(6), material, recipe, 600)
    inputs, outputs = (np.asarray(pairs[side]) * 64 for side in ("input", "output"))
    assert inputs.shape == (600, 32, 32, 3)
    np.testing.assert_array_equal(outputs, inputs)
    starts = inputs[:, 0, 0, :2].astype(int)
    assert {tuple(start) for start in starts} == set(np.ndindex(8, 8))
    np.testing.assert_array_equal(inputs - inputs[:, :1, :1], [places[:32, :32]] * 600)


# --- Runs --------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_run_in_parts_is_the_same_run(optimizer, clean_folder, tmp_path, monkeypatch):
    whole, parts = (
        small_options(clean_folder, tmp_path / name, optimizer=optimizer)
        for name in ("whole", "parts")
    )
    path, done = pretrain.pretrain(whole)
    assert done.step == done.total_steps == 4

    asked = iter([False, False, True])
    with monkeypatch.context() as patch:
        patch.setattr(run.processes, "make_any", lambda: lambda here: next(asked))
        assert pretrain.pretrain(parts)[1].step == 2
    again, done = pretrain.pretrain(parts)
    assert done.step == 4
    assert path.read_bytes() == again.read_bytes()
    assert repeat.compare(whole.workdir, parts.workdir) == []

    card = json.loads(path.with_suffix(".json").read_text())
    assert card["complete"]
    assert card["pairs seen"] == 16
    assert "--steps=4" in card["command"] and "--loss" not in card["command"]
    name, parameters = pretrained.load(path)
    assert name == "basic"
    assert models.count_parameters(parameters) == 29_507
    # What reads the weights of a run of restoration.train reads these too.
    assert trained.load_trained(parts.workdir)[0] == pretrain.train_options(parts)

    with pytest.raises(errors.InputError, match="another run"):
        pretrain.pretrain(dataclasses.replace(parts, learning_rate=0.5))
    with pytest.raises(errors.InputError, match="other pictures"):
        other = str(clean_folder / "stills")
        pretrain.pretrain(dataclasses.replace(parts, clean=other))


def test_the_card_tells_what_a_run_began_with(clean_folder, tmp_path):
    start, workdir = tmp_path / "first.safetensors", tmp_path / "run"
    card = {"command": "the first", "pairs seen": 16, "figures": {"film_psnr": 1.0}}
    pretrained.save(start, "basic", basic_parameters(), card)
    digest = pretrained.read_card(start.with_suffix(".json"))["sha256"]
    options = small_options(clean_folder, workdir, start=str(start))
    told = {"command": "the first", "pairs seen": 16, "sha256": digest}
    assert noted(options) == told
    pretrained.save(start, "basic", basic_parameters(), {"command": "the second"})

    done = run.Result(4, 4, 1.0, figures=FIGURES, parameters=basic_parameters())
    path = pretrain.export(options, done, {}, lambda parameters: FIGURES)
    found = pretrained.read_card(path.with_suffix(".json"))
    assert found["began with"] == told
    assert found["recipe"]["start"] == "first.safetensors"
    assert "--start=first.safetensors" in found["command"]
    with pytest.raises(errors.InputError, match=r"none\.safetensors"):
        other = dataclasses.replace(
            options, start="none.safetensors", workdir=str(tmp_path / "other")
        )
        noted(other)
    assert not (tmp_path / "other").exists()


def noted(options):
    return pretrain.note_start(
        options.workdir, lambda: pretrain.describe_start(options)
    )


FIGURES = {"film_psnr": 1.0, "photo_psnr": 1.0}


@pytest.mark.slow
def test_neither_tensorflow_nor_libvips_is_needed(clean_folder, tmp_path):
    # The options of the run above, so that what it compiled is found again.
    options = small_options(clean_folder, tmp_path / "run")
    code = f"""
import sys
sys.modules["tensorflow"] = sys.modules["pyvips"] = None  # importing fails
from experiments.pretrain import pretrain
options = pretrain.PretrainOptions(**{dataclasses.asdict(options)!r})
print(pretrain.pretrain(options)[1].step)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout.strip() == "4", run.stderr


# --- Weights -----------------------------------------------------------------


def basic_parameters():
    generator = np.random.default_rng(0)
    like = models.abstract_parameters(models.get_model("basic"))
    return jax.tree.map(
        lambda leaf: generator.standard_normal(leaf.shape).astype(np.float32), like
    )


def test_weights_in_16_bits_are_read_as_float32(tmp_path):
    parameters = basic_parameters()
    sizes = {}
    for dtype in (np.float32, np.float16):
        path = tmp_path / f"{np.dtype(dtype).name}.safetensors"
        pretrained.save(path, "basic", parameters, {}, dtype=dtype)
        sizes[dtype] = path.stat().st_size
        _, read = pretrained.load(path)
        expected = jax.tree.map(lambda leaf: np.asarray(leaf, dtype), parameters)  # noqa: B023
        for got, want in zip(
            jax.tree.leaves(read), jax.tree.leaves(expected), strict=True
        ):
            assert got.dtype == np.float32
            np.testing.assert_array_equal(got, want.astype(np.float32))
    assert sizes[np.float16] < 0.55 * sizes[np.float32]


def test_shipped_weights_are_checked_by_name(tmp_path, monkeypatch):
    parameters = basic_parameters()
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path)
    path = tmp_path / "advanced.safetensors"
    pretrained.save(path, "basic", parameters, {})
    with pytest.raises(errors.InputError, match="weights of basic"):
        pretrained.load_shipped("advanced")
    pretrained.save(path, "basic", parameters, {}, dtype=np.float64)
    with pytest.raises(errors.InputError, match="F64"):
        pretrained.load_shipped("advanced")
    path.with_suffix(".json").unlink()
    with pytest.raises(errors.InputError, match="not a card"):
        pretrained.load_shipped("advanced")


# --- Quality -----------------------------------------------------------------


@pytest.fixture(scope="module")
def scored(tmp_path_factory, photographs):
    """A benchmark of two pictures, scored with the shipped basic weights alone."""

    def alone(*names):
        # The finder would take minutes, and harm_test has one.
        return dataclasses.replace(load(*names), finder=None, filler=None)

    load = engine.load_weights
    folder = tmp_path_factory.mktemp("bench")
    generator = np.random.default_rng(0)
    for name in ("coffee", "rocket"):
        clean = photographs[name][:90, :120]
        mask = np.zeros((90, 120), np.float32)
        mask[20:40, 30:60] = 1
        degraded = np.clip(clean + generator.normal(0, 0.05, clean.shape), 0, 1)
        degraded[mask > 0] = 0.9
        for part, image in (("input", degraded), ("output", clean), ("mask", mask)):
            frames.write(folder / "bench" / "film" / part / f"{name}.png", image)
        frames.write(folder / "clean" / f"{name}.png", clean)
    out = folder / "quality.json"
    options = quality.QualityOptions(
        bench=str(folder / "bench"),
        clean=str(folder / "clean"),
        models=("basic",),
        out=str(out),
        device="cpu",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "load_weights", alone)
        quality.main(options)
    return folder, json.loads(out.read_text())


def test_scores_are_those_of_scikit_image(scored):
    """The same definitions as `skimage.metrics` in the window of the 2004 paper."""
    folder, found = scored
    track = found["weights"]["basic"]["tracks"]["film"]
    rows = []
    for name in ("coffee", "rocket"):
        degraded, clean = (
            frames.read(folder / "bench" / "film" / part / f"{name}.png")
            for part in ("input", "output")
        )
        rows.append(
            (
                skimage.metrics.peak_signal_noise_ratio(clean, degraded, data_range=1),
                skimage.metrics.structural_similarity(
                    clean,
                    degraded,
                    data_range=1,
                    channel_axis=-1,
                    gaussian_weights=True,
                    sigma=1.5,
                    use_sample_covariance=False,
                ),
            )
        )
        assert track["pictures"][name][0] == pytest.approx(rows[-1][0], abs=1e-3)
    psnr, ssim = np.mean(rows, axis=0)
    assert track["input"]["psnr"] == pytest.approx(psnr, abs=1e-3)
    assert track["input"]["ssim"] == pytest.approx(ssim, abs=1e-3)


def test_parts_of_the_mask_are_scored_apart(scored):
    figures = scored[1]["weights"]["basic"]["tracks"]["film"]["input"]
    assert figures["damaged_psnr"] < figures["psnr"] < figures["intact_psnr"]
    assert figures["intact_psnr"] == pytest.approx(26.0, abs=0.5)  # noise of 0.05


def test_clean_and_repeated_pictures_are_scored(scored):
    row = scored[1]["weights"]["basic"]
    assert row["clean"]["count"] == 2
    assert row["clean"]["restored"]["psnr"] > 15
    assert row["tracks"]["film"]["again"]["psnr"] > 15


def test_table_has_a_row_for_doing_nothing_and_each_model(scored):
    lines = quality.table(scored[0] / "quality.json").splitlines()
    assert lines[2].startswith("| do nothing | ")
    assert lines[3].startswith("| `basic` | ")


def test_doing_nothing_is_told_of_each_track(scored, tmp_path):
    """Also of one that only later weights were scored on."""
    found = json.loads(json.dumps(scored[1]))
    tracks = found["weights"]["basic"]["tracks"]
    found["weights"]["later"] = {"sha256": "", "tracks": {"prints": tracks["film"]}}
    path = tmp_path / "quality.json"
    files.write_text(path, json.dumps(found))
    nothing, basic = quality.table(path).splitlines()[2:4]
    assert nothing.count("–") == 4 and basic.count("–") == 2


@pytest.mark.slow
def test_kept_colors_have_a_row_of_their_own(scored, tmp_path):
    out = tmp_path / "quality.json"
    files.write_text(out, json.dumps(scored[1]))
    bench = str(scored[0] / "bench")
    quality.main(
        quality.QualityOptions(
            bench=bench, models=("basic",), keep_color=True, out=str(out), device="cpu"
        )
    )
    found = quality.read_results(out)["weights"]
    assert list(found) == ["basic", "basic --keep_color"]
    graded, kept = (row["tracks"]["film"]["restored"] for row in found.values())
    assert kept["ssim"] != graded["ssim"]
    assert kept["intact_psnr"] != graded["intact_psnr"]
    with pytest.raises(errors.InputError, match="--cards"):
        quality.QualityOptions(bench=bench, keep_color=True, cards=True)


@pytest.mark.slow
def test_a_soft_track_is_blurred_on_both_sides(scored, tmp_path):
    """As `scipy.ndimage` blurs; the flat mask's edge is as soft as the picture."""
    track = scored[0] / "bench" / "film"
    soft = quality.soften(track, tmp_path / "soft")
    for side in ("input", "output"):
        sharp, blurred = (
            frames.read(folder / side / "rocket.png") for folder in (track, soft)
        )
        sigma = (quality._SOFT, quality._SOFT, 0)
        want = scipy.ndimage.gaussian_filter(sharp, sigma, mode="nearest", radius=6)
        np.testing.assert_allclose(blurred, want, atol=1 / 255)
    out = tmp_path / "quality.json"
    quality.main(
        quality.QualityOptions(
            bench=str(track.parent),
            soft_track="film",
            models=("basic",),
            out=str(out),
            device="cpu",
        )
    )
    tracks = quality.read_results(out)["weights"]["basic"]["tracks"]
    assert tracks["film soft"]["count"] == tracks["film"]["count"]
    assert "damaged_psnr" not in tracks["film soft"]["input"]
    with pytest.raises(errors.InputError, match="prints: no input"):
        quality.soften(track.parent / "prints", tmp_path / "none")


def test_smudges_are_wide_changes(scored):
    """Not fine ones, however large; a square that changed counts whole or nearly so."""
    generator = np.random.default_rng(0)
    before = generator.uniform(0.2, 0.8, (100, 100, 3)).astype(np.float32)
    rough = before + generator.choice([-0.2, 0.2], before.shape).astype(np.float32)
    assert quality.smudged(before, rough) < 1
    stained = before.copy()
    stained[30:70, 30:70, 2] += 0.1
    assert quality.smudged(before, stained) == pytest.approx(16, abs=2)
    assert quality.smudged(before, before + np.float32(0.03)) == 0
    found = scored[1]["weights"]["basic"]["smudges"]
    assert found["count"] == 2
    for column, name in enumerate(("grain", "soft grain")):
        values = [row[column] for row in found["pictures"].values()]
        assert found[name] == pytest.approx(np.mean(values), abs=1e-3)


def test_a_row_of_before_smudges_were_scored_stays(scored, tmp_path):
    found = json.loads(json.dumps(scored[1]))
    del found["weights"]["basic"]["smudges"]
    path = tmp_path / "quality.json"
    files.write_text(path, json.dumps(found))
    assert quality.table(path).splitlines()[3].endswith(" | – | – |")


@pytest.mark.slow
def test_spotless_pictures_have_grain_and_no_cover(scored, tmp_path):
    """Every second one is grey; in a soft scan pixel and neighbour differ less."""
    clean, rough = scored[0] / "clean", {}
    target = frames.read(clean / "coffee.png")
    for name in ("grain", "soft grain"):
        quality.draw_spotless(clean, tmp_path / name, name)
        coffee, rocket = (
            frames.read(tmp_path / name / f"{picture}.png")
            for picture in ("coffee", "rocket")
        )
        assert 0.005 < np.abs(coffee - target).mean() < 0.1
        assert quality.smudged(target, coffee) < 5
        assert np.ptp(rocket, axis=-1).mean() < 0.5 * np.ptp(coffee, axis=-1).mean()
        rough[name] = np.abs(np.diff(coffee, axis=0)).mean()
    sharp, _ = damage.damage(jax.random.key(0), target, severity=1.0, kinds=("grain",))
    assert rough["soft grain"] < 0.7 * np.abs(np.diff(sharp, axis=0)).mean()


def test_results_of_replaced_weights_are_dropped(scored, tmp_path):
    found = scored[1]
    found["weights"]["basic"]["sha256"] = "0" * 64
    path = tmp_path / "quality.json"
    files.write_text(path, json.dumps(found))
    assert quality.read_results(path)["weights"] == {}
