"""Pairs with masks, losses, a run in parts, and what is measured of a finder."""

import dataclasses
import functools
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags

pytest.importorskip("cv2", reason="needs opencv-python-headless")

from experiments.pretrain import (
    finder_quality,
    hard_crops,
    mask_bank,
    mask_pairs,
    pretrain,
    pretrain_masks,
)
from restoration import damage
from restoration.base import cli, config, errors, files
from restoration.damage import prints
from restoration.models import pretrained
from restoration.training import optim, repeat, run_log, train_config


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


def test_pieces_lie_where_they_say_also_of_pictures_made_old():
    rows, columns = np.mgrid[:900, :500] / 900
    picture = np.stack([rows, columns, rows], -1).astype(np.float32)
    plain, both = (list(hard_crops.pieces(picture, 3, old=o)) for o in (False, True))
    seen = np.zeros(picture.shape[:2], bool)
    for top, left, piece in plain:
        height, width = piece.shape[:2]
        np.testing.assert_array_equal(
            piece, picture[top : top + height, left : left + width]
        )
        seen[top : top + height, left : left + width] = True
    assert seen.all()
    aged = both[len(plain) :]
    assert aged
    for top, left, piece in aged:
        height, width = piece.shape[:2]
        there = picture[top : top + height, left : left + width]
        assert there.shape == piece.shape
        # Fading keeps the order of tones: the ramp lies where it did.
        assert np.corrcoef(piece.mean((1, 2)), there[..., 0].mean(1))[0, 1] > 0.99


def test_hard_crops_show_the_place_and_are_damaged_as_others():
    pictures = [np.full((200, 200, 3), 80, np.uint8)]
    pictures[0][90:110, 140:160] = 250
    hard = material()._replace(pictures=pictures, hard=[(0, 100, 150)])
    recipe = RECIPE._replace(
        hard_share=1.0, toned_share=0.0, soft_share=0.0, rods_share=0.0,
        joined_share=0.0,
    )  # fmt: skip
    batch = mask_pairs.draw_batch(hard, recipe, seed=0, step=0, count=40)
    light = batch["output"].max((1, 2, 3)) - np.median(batch["output"], (1, 2, 3))
    assert (light > 60).all()
    damaged = batch["mask"].any((1, 2, 3))
    assert damaged.any() and not damaged.all()


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


def test_a_pair_without_damage_is_judged_by_its_pixels_alone():
    # One false find costs the same in a pair without damage as beside damage.
    opacity = jnp.zeros((2, 8, 8, 1)).at[0, 2:5, 2:5].set(1.0)
    seen = jnp.ones_like(opacity)
    right = 6 * (2 * opacity - 1)
    losses = [
        float(pretrain_masks._found_loss(right.at[pair, 7, 7].set(6.0), opacity, seen))
        for pair in (0, 1)
    ]
    np.testing.assert_allclose(*losses, rtol=1e-6)


def options_for(workdir, **changes):
    values = pretrain.read_recipe(changes.get("recipe", "finder"))
    values |= {"clean": "C", "overlays": "O", "workdir": str(workdir)}
    return pretrain_masks.Options(**(values | changes))


def test_the_encoder_learns_more_slowly():
    options = options_for("W", warmup_steps=0, weight_decay=0.0, clip_norm=0.0)
    leaf = jnp.ones((3, 3))
    parameters = {"params": {"encoder": {"kernel": leaf}, "head": {"kernel": leaf}}}
    rates = pretrain_masks.encoder_rates(options)
    optimizer = optim.make_optimizer(options, options.steps, rates)
    updates, _ = optimizer.update(parameters, optimizer.init(parameters), parameters)
    found = [-float(updates["params"][n]["kernel"][0, 0]) for n in ("encoder", "head")]
    np.testing.assert_allclose(found, [3e-4, 1.2e-3], rtol=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 80}, "--image_size=80: must be a multiple of 32"),
        ({"learning_rate": 0.0}, "--learning_rate=0"),
        ({"start": "nafnet_s"}, r"--start=nafnet_s: give a \.safetensors file"),
        ({"model": "basic"}, "--model=basic: choose one of finder, filler"),
    ],
)
def test_bad_options_are_told(changes, message):
    with pytest.raises(errors.InputError, match=message):
        options_for("W", **changes)


def test_the_earlier_name_of_the_network_is_told():
    values = flags.FlagValues()
    cli.define_flags(pretrain_masks.Options, values)
    with pytest.raises(errors.InputError, match="--network is now named --model"):
        cli.parse(["command", "--network=finder"], pretrain_masks.Options, values)


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


def small(folder, paths, recipe, **changes):
    sizes = {"batch_size": 2, "image_size": 64, "warmup_steps": 0, "steps": 8}
    often = {"evaluations": 2, "checkpoint_every": 1, "log_every": 2}
    values = paths | sizes | often | {"sources": "all", "recipe": recipe}
    return options_for(folder, **(values | changes))


def test_another_run_in_the_workdir_is_refused(tmp_path):
    paths = write_material(tmp_path)
    before = small(tmp_path / "run", paths, "finder", note="the first part")
    files.write_text(tmp_path / "run" / "config.json", config.to_json(before))
    options = small(tmp_path / "run", paths, "filler")
    with pytest.raises(errors.InputError, match=r"another run \(model finder -> fil"):
        pretrain_masks.train(options)


def test_what_may_change_between_parts():
    before = dataclasses.asdict(options_for("W"))
    free = {
        "steps": 12000, "decay_from": 9000, "drawn_share": 0.4, "clean_share": 0.2,
        "hard_share": 0.3, "belonging_share": 0.1, "bank": "B", "hard": "H",
        "bench": "D", "encoder": "E", "start": "s.safetensors", "minutes": 5.0,
        "note": "n", "clean": "C2", "overlays": "O2",
    }  # fmt: skip
    assert train_config.changes(before, options_for("W2", **free)) == []
    for fixed in ({"batch_size": 4}, {"encoder_rate": 1e-3}, {"seed": 1}):
        assert train_config.changes(before, options_for("W", **fixed))


def test_a_folder_without_a_benchmark_is_told_before_training(tmp_path):
    options = small(tmp_path / "run", write_material(tmp_path), "filler", bench="none")
    with pytest.raises(errors.InputError, match="--bench=none: no film/input"):
        pretrain_masks.train(options)
    assert not (tmp_path / "run").exists()


def test_weights_are_exported_with_their_card_and_begun_with(tmp_path):
    paths = write_material(tmp_path)
    options = small(tmp_path / "run", paths, "filler", learning_rate=1e-3, note="dim")
    material, described = pretrain_masks.load(options)
    task = pretrain_masks.make_task(options, material)
    export = functools.partial(
        pretrain_masks.export, options, described, {"command": "the one before"}
    )
    row = {"step": 100, "split": "train", "images_per_second": 0.5}
    files.write_text(tmp_path / "run" / run_log.NAME, json.dumps(row))
    path = export(step=2, parameters=task.initial, figures={"film_psnr": 3.0})
    card = json.loads(path.with_suffix(".json").read_text())
    assert card["steps"] == 2 and card["pairs seen"] == 4 and not card["complete"]
    assert card["hours"] == pytest.approx(200 / 0.5 / 3600, abs=0.01)
    assert card["figures"] == {"film_psnr": 3.0} and card["note"] == "dim"
    assert card["began with"] == {"command": "the one before"}
    assert "--recipe=filler" in card["command"] and str(tmp_path) not in str(card)
    assert "--learning_rate=0.001" in card["command"]
    assert card["recipe"]["steps"] == 8 and "loss" not in card["recipe"]
    export(step=8, parameters=task.initial, figures={})
    assert json.loads(path.with_suffix(".json").read_text())["complete"]

    # Another run begins with these weights, in 16 bits.
    options = small(tmp_path / "next", paths, "filler", start=str(path))
    begun = pretrain_masks.make_task(options, material).initial
    for stored, kept in zip(
        jax.tree.leaves(begun), jax.tree.leaves(task.initial), strict=True
    ):
        np.testing.assert_array_equal(stored, np.float16(kept).astype(np.float32))
    wrong = small(tmp_path / "next", paths, "finder", start=str(path))
    with pytest.raises(errors.InputError, match="weights of filler, not of finder"):
        pretrain_masks.make_task(wrong, material)


@pytest.mark.slow
@pytest.mark.parametrize("network", ["filler", "finder"])
def test_a_run_that_is_killed_goes_on_to_the_same_bits(network, tmp_path):
    paths = write_material(tmp_path)
    whole, parts = (
        small(tmp_path / name, paths, network) for name in ("whole", "killed")
    )
    assert pretrain_masks.train(whole).step == 8
    command = [sys.executable, "-m", "experiments.pretrain.pretrain_masks"] + [
        f"--{name}={value}" for name, value in dataclasses.asdict(parts).items()
    ]
    # A copy, since a kill may cut a program that is being written.
    compiled = shutil.copytree(os.environ["JAX_COMPILATION_CACHE_DIR"], tmp_path / "c")
    running = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        env=os.environ | {"JAX_COMPILATION_CACHE_DIR": str(compiled)},
    )
    seal = tmp_path / "killed" / "checkpoints" / "2" / "seal.json"
    try:
        while not seal.is_file() and running.poll() is None:
            time.sleep(0.01)
        assert running.poll() is None
    finally:
        running.kill()
        running.wait()
    assert pretrain_masks.train(parts).step == 8
    assert repeat.compare(whole.workdir, parts.workdir) == []
    one, other = map(pretrain_masks.weights_file, (whole, parts))
    assert one.read_bytes() == other.read_bytes()
    assert pretrained.load(other)[0] == network
    rows = run_log.read(tmp_path / "whole" / run_log.NAME)
    assert all(r["drawing_share"] > 0 for r in rows if r["split"] == "train")


def test_fine_scratches_are_thin_lie_anywhere_and_can_be_left_out():
    import cv2

    thick = []
    for seed in range(20):
        layers = mask_pairs._Layers(128)
        mask_pairs._lay_fine_scratches(np.random.default_rng(seed), layers)
        found = layers.opacity > 0.5
        assert layers.opacity.min() >= 0 and layers.opacity.max() <= 1
        # No square of 7 pixels fits into one, but where some cross.
        thick.append(cv2.erode(np.uint8(found), np.ones((7, 7), np.uint8)).any())
    assert np.mean(thick) < 0.2
    recipe = RECIPE._replace(drawn_share=0.0, scratches_share=0.0)
    bare = material()._replace(scanned={})
    with_them = recipe._replace(scratches_share=1.0, clean_share=0.0)
    damaged = [
        mask_pairs.draw_batch(bare, how, seed=0, step=0, count=12)["mask"]
        for how in (recipe, with_them)
    ]
    assert damaged[0].any((1, 2, 3)).mean() < 0.6
    assert damaged[1].any((1, 2, 3)).mean() > 0.9
