"""Pairs with masks, losses, a run in parts, and what is measured of a finder."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("cv2", reason="needs opencv-python-headless")

from experiments.pretrain import (
    finder_quality,
    hard_crops,
    mask_bank,
    mask_pairs,
    pretrain_masks,
)
from restoration import damage
from restoration.base import errors
from restoration.damage import prints


def material(**more):
    rng = np.random.default_rng(0)
    pictures = [rng.integers(60, 190, (120, 150, 3), np.uint8) for _ in range(2)]
    blot = np.zeros((40, 40), np.uint8)
    blot[10:30, 10:30] = 255
    scanned = {"spots": [mask_pairs.pyramid(blot)], "dirt": [mask_pairs.pyramid(blot)]}
    crack = np.zeros((1, 120, 120, 4), np.uint8)
    crack[:, 58:62] = 255
    return mask_pairs.Material(pictures, scanned, {"cracks": crack}, (), **more)


RECIPE = mask_pairs.Recipe(image_size=64, clean_share=0.0, fills=True, holes_share=0.5)


def test_pairs_follow_from_seed_and_step():
    draw = {"seed": 3, "count": 2}
    first = mask_pairs.draw_batch(material(), RECIPE, step=5, **draw)
    again = mask_pairs.draw_batch(material(), RECIPE, step=5, **draw)
    other = mask_pairs.draw_batch(material(), RECIPE, step=6, **draw)
    for name, array in first.items():
        np.testing.assert_array_equal(array, again[name])
        assert array.dtype == np.uint8 and array.shape[:3] == (2, 64, 64)
    assert (first["input"] != other["input"]).any()


def test_clean_pairs_have_no_mask_and_damage_lies_below_it():
    clean = RECIPE._replace(clean_share=1.0, fills=False)
    batch = mask_pairs.draw_batch(material(), clean, seed=0, step=0, count=4)
    assert not batch["mask"].any() and not batch["seen"].any()

    plain = RECIPE._replace(toned_share=0.0, soft_share=0.0, grey_share=0.0)
    batch = mask_pairs.draw_batch(material(), plain, seed=0, step=1, count=8)
    difference = np.abs(batch["input"].astype(int) - batch["output"]).mean(-1)
    inside = batch["mask"][..., 0] > 200
    outside = batch["mask"][..., 0] == 0
    assert inside.any() and outside.any()
    # Outside there are grain and JPEG alone.
    assert difference[inside].mean() > 3 * difference[outside].mean()


def test_what_a_filler_is_given_covers_the_damage():
    covered = []
    for step in range(6):
        batch = mask_pairs.draw_batch(material(), RECIPE, seed=1, step=step, count=2)
        dense = batch["mask"] > 128
        covered.append((batch["given"][dense] > 0).mean() if dense.any() else 1.0)
    assert min(covered) > 0.99


def test_hard_crops_show_the_place_and_stay_clean():
    pictures = [np.full((200, 200, 3), 80, np.uint8)]
    pictures[0][90:110, 140:160] = 250
    hard = material()._replace(pictures=pictures, hard=[(0, 100, 150)])
    recipe = RECIPE._replace(hard_share=1.0, toned_share=0.0, soft_share=0.0)
    batch = mask_pairs.draw_batch(hard, recipe, seed=0, step=0, count=6)
    assert not batch["mask"].any()
    assert (batch["output"].max((1, 2, 3)) > 240).all()


def test_layers_lie_over_each_other_as_paint_does():
    layers = mask_pairs._Layers(4)
    whole = (slice(None), slice(None))
    half = np.full((4, 4), 0.5, np.float32)
    layers.lay(whole, half, np.float32([1, 0, 0]))
    layers.lay(whole, half, np.float32([0, 1, 0]))
    np.testing.assert_allclose(layers.opacity, 0.75)
    image = np.ones((4, 4, 3), np.float32)
    np.testing.assert_allclose(layers.over(image)[0, 0], [0.5, 0.75, 0.25])


def test_average_precision_of_a_worked_example():
    # Ranked: hit, miss, hit, miss: precision 1 at half the recall, 2/3 at all of it.
    truth = np.array([True, False, True, False])
    score = np.array([0.9, 0.8, 0.7, 0.1])
    expected = 0.5 * 1 + 0.5 * 2 / 3
    assert finder_quality.average_precision(truth, score) == pytest.approx(expected)
    # Ties are one threshold: all four at once.
    assert finder_quality.average_precision(truth, np.ones(4)) == pytest.approx(0.5)


def test_places_are_the_worst_and_apart():
    found = np.zeros((300, 300), np.float32)
    found[40:60, 40:60], found[200:230, 200:230] = 0.8, 0.9
    rows = hard_crops.places(found, 0.5)
    assert len(rows) == 2 and rows[0][0] > rows[1][0]
    assert np.hypot(rows[0][1] - 215, rows[0][2] - 215) < 20
    assert hard_crops.places(found, 0.95) == []


def test_the_loss_falls_as_what_is_found_nears_the_truth():
    opacity = jnp.zeros((1, 8, 8, 1)).at[:, 2:5, 2:5].set(1.0)
    seen = jnp.ones_like(opacity)
    right, wrong = 8 * (2 * opacity - 1), 8 * (1 - 2 * opacity)
    losses = [
        float(pretrain_masks._found_loss(logits, opacity, seen))
        for logits in (right, jnp.zeros_like(right), wrong)
    ]
    assert losses[0] < 0.01 < losses[1] < losses[2]
    # What is not seen weighs less.
    unseen = pretrain_masks._found_loss(wrong, opacity, 0 * seen)
    assert float(unseen) < losses[2]


def test_the_encoder_learns_more_slowly():
    options = pretrain_masks.Options(
        network="finder",
        clean="",
        overlays="",
        workdir="",
        encoder="some.safetensors",
        warmup_steps=0,
        weight_decay=0.0,
        clip_norm=1e6,
    )
    leaf = jnp.ones((3, 3))
    parameters = {"params": {"encoder": {"kernel": leaf}, "head": {"kernel": leaf}}}
    optimizer = pretrain_masks.make_optimizer(options)
    updates, _ = optimizer.update(parameters, optimizer.init(parameters), parameters)
    rates = [-float(updates["params"][n]["kernel"][0, 0]) for n in ("encoder", "head")]
    np.testing.assert_allclose(rates, [4e-4, 1.5e-3], rtol=1e-3)


def test_a_kind_is_rendered_on_black():
    layers = mask_bank.render(
        lambda key, image, *, severity: damage.random_spots(key, image, severity=8.0),
        key=jax.random.key(0),
        count=2,
        side=64,
    )
    assert layers.dtype == np.uint8 and layers.shape[1:] == (64, 64, 4)
    # Color times opacity is never more than opacity.
    assert (layers[..., :3] <= layers[..., 3:].astype(int) + 1).all()


def test_all_kinds_that_do_not_look_at_the_picture_are_rendered():
    assert set(prints.LAYERED) <= set(mask_bank.covers())


def test_another_run_in_the_workdir_is_refused(tmp_path):
    options = pretrain_masks.Options(
        network="finder", clean="", overlays="", workdir=str(tmp_path)
    )
    pretrain_masks._claim(options)
    pretrain_masks._claim(options)
    with pytest.raises(errors.InputError, match="another run"):
        pretrain_masks._claim(
            pretrain_masks.Options(
                network="filler", clean="", overlays="", workdir=str(tmp_path)
            )
        )


def write_material(folder: pathlib.Path) -> dict[str, str]:
    import cv2

    rng = np.random.default_rng(0)
    for name in ("clean", "scans/spots"):
        (folder / name).mkdir(parents=True)
    for number in range(2):
        image = cv2.GaussianBlur(rng.integers(0, 256, (96, 96, 3), np.uint8), (0, 0), 4)
        cv2.imwrite(str(folder / f"clean/{number}.png"), image)
    spot = np.zeros((40, 40, 4), np.uint8)
    spot[10:30, 10:30] = 255
    cv2.imwrite(str(folder / "scans/spots/1.png"), spot)
    return {"clean": str(folder / "clean"), "overlays": str(folder / "scans")}


@pytest.mark.slow
@pytest.mark.parametrize("network", ["finder", "filler"])
def test_a_run_in_parts_ends_as_a_run_at_once(network, tmp_path):
    paths = write_material(tmp_path)

    def run(workdir, steps):
        options = pretrain_masks.Options(
            network=network,
            workdir=str(tmp_path / workdir),
            sources="all",
            steps=steps,
            decay_from=100,
            batch_size=2,
            image_size=64,
            **paths,
        )
        path, done = pretrain_masks.train(options)
        assert done == steps
        return path

    run("parts", 1)
    parts, whole = run("parts", 3), run("whole", 3)
    assert parts.read_bytes() == whole.read_bytes()
    card = json.loads(parts.with_suffix(".json").read_text())
    assert card["steps"] == 3 and card["pairs seen"] == 6
