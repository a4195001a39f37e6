"""The grade of a whole picture: how it is looked at, estimated, applied and trained."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from experiments.pretrain import pretrain, pretrain_grade
from restoration import damage
from restoration.data import clean_pictures
from restoration.images import frames
from restoration.inference import batch, grade
from restoration.models import pretrained
from restoration.models.grader import CELLS, NAME, Cells, Grader


def blocks_of(image, rows=None, weights=None):
    rows = rows or len(image)
    for top in range(0, len(image), rows):
        part = slice(top, top + rows)
        yield image[part], None if weights is None else weights[part]


def cells_of(image):
    return grade.look(blocks_of(image), image.shape[:2])


@pytest.fixture(scope="module")
def grader():
    return pretrained.load_grader()[0]


@pytest.fixture(scope="module")
def faded(photographs):
    """A healthy photograph and what is left of it: grey black, dull, warm."""
    image = photographs["astronaut"]
    degraded = damage.fading(image, black=0.15, white=0.8, saturation=0.7)
    gain, gamma = np.array([1, 0.9, 0.7]), np.ones(3)
    return image, np.asarray(damage.cast(degraded, gain=gain, gamma=gamma))


def test_cells_are_the_means_that_pillow_gives():
    image = np.random.default_rng(0).random((192, 128, 3), np.float32)
    planes = [
        Image.fromarray(plane).resize((64, 64), Image.Resampling.BOX)
        for plane in image.transpose(2, 0, 1)
    ]
    cells = cells_of(image)
    expected = np.stack([np.asarray(plane) for plane in planes], -1).reshape(-1, 3)
    np.testing.assert_allclose(cells.colors, expected, atol=1e-6)
    np.testing.assert_allclose(cells.weights, 1 / 64**2, rtol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (50, 70), (131, 257)])
def test_cells_do_not_depend_on_how_rows_come(size):
    random = np.random.default_rng(1)
    image, weights = random.random((*size, 3)), random.random((*size, 1))
    whole = grade.look(blocks_of(image, weights=weights), size)
    parts = grade.look(blocks_of(image, 7, weights), size)
    np.testing.assert_allclose(whole.colors, parts.colors, atol=1e-6)
    np.testing.assert_allclose(whole.weights, parts.weights, atol=1e-7)
    mean = (image * weights).sum((0, 1)) / weights.sum()
    seen = (whole.colors * whole.weights[:, None]).sum(0)
    np.testing.assert_allclose(seen, mean, atol=1e-5)


def test_what_counts_nothing_is_not_seen(grader):
    image = np.zeros((64, 64, 3), np.float32)
    image[:32] = 0.4
    weights = np.zeros((64, 64, 1), np.float32)
    weights[:32] = 1
    cells = grade.look(blocks_of(image, weights=weights), (64, 64))
    assert set(cells.colors[cells.weights > 0].ravel()) == {np.float32(0.4)}
    nothing = grade.look(blocks_of(image, weights=0 * weights), (64, 64))
    assert grade.estimate(grader, nothing) is None


def test_untrained_it_is_the_identity():
    cells = Cells(*(np.ones(x.shape) for x in cells_of(np.ones((64, 64, 3)))))
    batch = jax.tree.map(lambda x: x[None], cells)
    model = Grader()
    found = model.apply(model.init(jax.random.key(0), batch), batch)
    assert not np.any(found)


def test_polynomials_are_evaluated_for_each_picture():
    random = np.random.default_rng(2)
    colors, polynomials = random.random((2, 5, 3)), random.random((2, 7, 3))
    changed = grade.apply(colors, polynomials)
    for picture, (of, by) in enumerate(zip(colors, polynomials, strict=True)):
        for pixel, (r, g, b) in enumerate(of):
            terms = np.array([r, g, b, r * r, g * g, b * b, 1])
            np.testing.assert_allclose(changed[picture, pixel], of[pixel] + terms @ by)


def test_a_faded_picture_regains_its_tone(grader, faded):
    image, degraded = faded
    polynomials = grade.estimate(grader, cells_of(degraded))
    graded = grade.make_prepare(lambda values: values, polynomials)(degraded)
    before, after = (np.square(x - image).mean() for x in (degraded, graded))
    assert after < before / 2


def test_healthy_pictures_keep_their_very_pixels(grader, photographs):
    kept = [
        grade.estimate(grader, cells_of(image)) is None
        for image in photographs.values()
    ]
    assert sum(kept) >= len(kept) / 2

    def prepare(values):
        return values

    assert grade.make_prepare(prepare, None) is prepare


def test_grey_stays_grey_whatever_the_network_says(grader, faded, monkeypatch):
    said = np.random.default_rng(3).uniform(-0.3, 0.3, (1, 7, 3)).astype(np.float32)
    monkeypatch.setattr(grade, "_estimate", lambda *_: said)
    luma = np.repeat(faded[1].mean(-1, keepdims=True), 3, -1)
    for image, colorful in ((luma, False), (faded[1], True)):
        graded = grade.apply(image, grade.estimate(grader, cells_of(image)))
        new = np.ptp(graded, axis=-1).max() - np.ptp(image, axis=-1).max()
        assert (abs(new) > 0.01) == colorful


def test_small_grades_are_applied_in_part(grader, faded, monkeypatch):
    def found(shift):
        said = np.zeros((1, 7, 3), np.float32)
        said[0, 6] = shift / 255
        monkeypatch.setattr(grade, "_estimate", lambda *_: said)
        polynomials = grade.estimate(grader, cells_of(0.25 + faded[1] / 2))
        return None if polynomials is None else 255 * polynomials[6]

    assert found(5) is None
    np.testing.assert_allclose(found(9), 4.5, rtol=1e-3)
    np.testing.assert_allclose(found(20), 20, rtol=1e-3)


def restored(folder, out, **changes):
    values = {"input": (str(folder),), "output": str(out), "suffix": ""}
    # Without the finder, which takes long and has tests of its own.
    values |= {"model": "basic", "blind": False}
    (result,) = batch.restore(batch.RestoreOptions(**(values | changes)))
    assert not result.error
    return frames.read(result.output), result


def test_restore_grades_unless_color_is_to_stay(faded, tmp_path):
    image, degraded = faded
    frames.write(tmp_path / "in" / "a.png", degraded)
    graded, result = restored(tmp_path / "in", tmp_path / "graded")
    kept, plain = restored(tmp_path / "in", tmp_path / "kept", keep_color=True)
    assert any("graded" in note for note in result.notes)
    assert not any("graded" in note for note in plain.notes)
    before, after = (np.square(x - image).mean() for x in (degraded, graded))
    assert after < 0.7 * before
    assert abs(kept.mean() - degraded.mean()) < 0.005


def test_inside_a_mask_nothing_is_graded(faded, tmp_path):
    _, degraded = faded
    frames.write(tmp_path / "in" / "a.png", degraded)
    frames.write(tmp_path / "masks" / "a.png", np.ones_like(degraded))
    masked, result = restored(
        tmp_path / "in", tmp_path / "out", keep=str(tmp_path / "masks")
    )
    assert not any("graded" in note for note in result.notes)
    assert abs(masked.mean() - degraded.mean()) < 0.02


def test_a_grade_is_a_difference(faded, tmp_path):
    frames.write(tmp_path / "in" / "a.png", faded[1])
    restored(tmp_path / "in", tmp_path / "out", difference=True)
    changed = frames.read(tmp_path / "out" / "a_difference.png")
    assert np.abs(changed - 0.5).mean() > 0.02


def test_large_pictures_are_looked_at_sparsely():
    assert grade.stride((1000, 9000)) == 1
    assert grade.stride((4096, 5000)) == 4


@pytest.mark.slow
def test_dirt_lies_where_its_opacity_says():
    masks = np.zeros((0, 1, 1), np.uint8)
    dirt = pretrain_grade.draw_dirt(jax.random.key(0), masks, 64)
    assert dirt.shape[1:] == (CELLS, CELLS, 4)
    color, opacity = dirt[..., :3].astype(float), dirt[..., 3:].astype(float)
    assert (color <= opacity + 2e-3).all() and 0.01 < opacity.mean() < 0.3


@pytest.mark.slow
def test_training_learns(tmp_path, photographs):
    for name, image in photographs.items():
        frames.write(tmp_path / "clean" / f"{name}.png", image)
    out = tmp_path / "grade.safetensors"
    options = pretrain_grade.GradeOptions(
        clean=str(tmp_path / "clean"),
        out=str(out),
        workdir=str(tmp_path / "run"),
        sources="all",
        **(pretrain.read_recipe("grade") | {"steps": 150}),
    )
    pretrain_grade.main(options)
    name, parameters = pretrained.load(out)
    card = json.loads(out.with_suffix(".json").read_text())
    assert name == NAME
    assert card["training data"]["held out for validation"] == 1
    assert np.isfinite(list(card["figures"]["validation"].values())).all()
    # From so few photographs it learns these alone.
    files = clean_pictures.read_files(options.clean, inside="")
    learned, _ = clean_pictures.hold_out(files, options.held_out)
    masks = np.zeros((0, 1, 1), np.uint8)
    material = pretrain_grade.Material(
        pretrain_grade.crops(learned, options.seed),
        pretrain_grade.draw_dirt(jax.random.key(options.seed), masks, 64),
    )
    figures = pretrain_grade.validate(parameters, material)
    assert figures["psnr"] > figures["input_psnr"] + 1
    assert figures["healthy_psnr"] > 30


def test_crops_begin_with_the_whole_picture(photographs, tmp_path):
    image = photographs["coffee"][:384, :576]
    frames.write(tmp_path / "a.png", image)
    files = clean_pictures.read_files(str(tmp_path), inside="")
    found = pretrain_grade.crops(files, seed=0)
    whole = cells_of(image).colors.reshape(64, 64, 3)
    np.testing.assert_allclose(found[0] / 255, whole, atol=1 / 255)
    again = pretrain_grade.crops(files, seed=0)
    np.testing.assert_array_equal(found, again)
