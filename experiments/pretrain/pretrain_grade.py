"""Trains the shipped weights of the grade (`restoration.inference.grade`).

    python -m experiments.pretrain.pretrain_grade --clean CLEAN --out FILE

Pictures are seen as `restore` looks at them, averaged over 64×64 cells: clean ones
are dirtied, then flattened, faded and cast, and the network learns to undo the latter
three. Some stay as they are, and some are given a grade of their own, as films are,
that is not to be undone. Minutes on two cores.
"""

import dataclasses
import io
import pathlib
import time
from typing import Any, NamedTuple

import numpy as np
from etils import epy

from experiments.pretrain import pretrain, sources
from restoration.base import cli, config
from restoration.base.luma import BT601
from restoration.data import clean_pictures
from restoration.devices import backend
from restoration.training import train_config

with epy.lazy_imports():
    import jax
    import jax.numpy as jnp
    from PIL import Image

    from restoration import damage
    from restoration.damage import fields, overlays
    from restoration.inference import grade
    from restoration.models import grader, pretrained
    from restoration.training import feed, run

# What a grade undoes, in the order in which it happens.
_TONE = ("contrast", "fading", "cast")

# Nor is this dirt; averaged over cells little of it is seen.
_NO_DIRT = ("flicker", "weave", "blur", "grain", "jpeg")

# Crops of each picture; the first shows all of it, the others a part, of its
# shorter side, in a shape of their own.
_CROPS, _PART, _SHAPE = 24, (0.45, 1.0), 0.4

# Drawings of dirt that pictures are given, of so many pixels a side.
_DIRTY, _SIDE = 1600, 256

# Of the pairs: dirty ones, those of a grade of their own, those left alone, grey ones.
_DIRTY_SHARE, _OWN_SHARE, _HEALTHY_SHARE, _GREY_SHARE = 0.6, 0.2, 0.3, 0.1

# The greatest severities: of what is to be undone, and of a picture's own grade.
_SEVERITY, _OWN_SEVERITY = 2.0, 1.5

# Of the cells, along each side, one of so many is looked at in a step.
_SPARSE = 2

_VALIDATION_PAIRS = 512

_LIMITS = (
    "A flat or tinted picture that was meant so may be graded too: --keep_color leaves "
    "color and tone. Frames of a film are graded one by one."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GradeOptions(train_config.RunConfig):
    """Options of `python -m experiments.pretrain.pretrain_grade`."""

    recipe: str = pretrain.recipe_option("grade", free=True)
    clean: str = config.option(
        help="folder of clean pictures, or a packed file",
        formerly="data_dir",
        free=True,
    )
    workdir: str = config.option(
        "build/grade", help="folder for checkpoints and metrics; resumed", free=True
    )
    out: str = config.option(help="weights file", free=True)
    sources: str = config.option(
        "", help="JSON list of what may be used; see experiments.pretrain", free=True
    )
    overlays: str = config.option(
        "", help="folder of scanned dirt, or a packed file", free=True
    )
    overlays_note: str = config.option("", help="their origin and licence", free=True)
    held_out: float = config.option(
        0.1, help="share of the pictures kept for validation", minimum=0.0, maximum=0.5
    )


class Material(NamedTuple):
    """What pairs are drawn from.

    Attributes:
      crops: uint8 (count, cells, cells, 3), clean.
      dirt: float16 (count, cells, cells, 4), color times opacity, and opacity.
    """

    crops: Any
    dirt: Any


class Pairs(NamedTuple):
    """Pictures seen small, damaged and as they should be.

    Attributes:
      degraded: (batch, cells², 3).
      target: of the same shape.
      intact: (batch, cells²), how much of each cell no dirt hides.
      healthy: (batch,), whether there is nothing to undo.
    """

    degraded: Any
    target: Any
    intact: Any
    healthy: Any


def crops(files: clean_pictures.Files, seed: int) -> np.ndarray:
    """Cuts parts of pictures and averages them over cells, as `grade.look` does.

    Args:
      files: pictures by name.
      seed: of where the parts lie.

    Returns:
      uint8 (pictures * crops, cells, cells, 3).
    """
    random, found = np.random.default_rng(seed), []
    for data in files.values():
        with Image.open(io.BytesIO(data)) as image:
            picture = image.convert("RGB")
        size = np.array(picture.size, float)
        for number in range(_CROPS):
            shape = np.exp(random.uniform(-_SHAPE, _SHAPE) * np.array([0.5, -0.5]))
            part = np.minimum(size, random.uniform(*_PART) * size.min() * shape)
            start = random.uniform(0, size - part)
            box = (*start, *(start + part)) if number else (0, 0, *size)
            cells = (grader.CELLS, grader.CELLS)
            small = picture.resize(cells, Image.Resampling.BOX, box=box)
            found.append(np.asarray(small))
    return np.stack(found)


def draw_dirt(key: Any, masks: np.ndarray, count: int) -> np.ndarray:
    """Draws dirt, and scanned dirt on half of it, averaged over cells.

    Args:
      key: PRNG key.
      masks: uint8 (number, side, side), scanned dirt; the number may be 0.
      count: of drawings, a multiple of 16.

    Returns:
      float16 (count, cells, cells, 4).
    """
    kinds = tuple(kind for kind in damage.PHOTO if kind not in (*_TONE, *_NO_DIRT))
    each = _SIDE // grader.CELLS

    def one(key: Any, masks: Any) -> Any:
        keys = fields.split(key, 3)
        black = jnp.zeros((_SIDE, _SIDE, 3))
        (drawn,) = fields.draw(keys[0], ((), {"severity": (0, 1), "scanned": (0, 1)}))
        severity = _SEVERITY * drawn.severity**1.5
        laid, mask = damage.damage(keys[1], black, severity=severity, kinds=kinds)
        if len(masks):
            scanned = jnp.where(drawn.scanned < 0.5, severity, 0.0)
            laid, over = overlays.random_overlays(
                keys[2], laid, masks, severity=scanned
            )
            mask = 1 - (1 - mask) * (1 - over)
        both = jnp.concatenate([laid, mask[..., None]], -1)
        return both.reshape(grader.CELLS, each, grader.CELLS, each, 4).mean((1, 3))

    draw = jax.jit(lambda keys, masks: jax.lax.map(lambda key: one(key, masks), keys))
    parts = np.split(jax.random.split(key, count), 16)
    return np.concatenate([np.float16(draw(part, masks)) for part in parts])


def _degraded(key: Any, image: Any, severity: Any) -> Any:
    keys = fields.split(key, len(_TONE))
    for key, kind in zip(keys, _TONE, strict=True):
        image = damage.KINDS[kind](key, image, severity=severity)
    return image


def _draw_pair(key: Any, crop: Any, dirt: Any) -> Pairs:
    """Draws one pair, without its batch axis."""
    keys = fields.split(key, 3)
    names = ("severity", "healthy", "grey", "own", "graded", "dirty", "first", "turn")
    (one,) = fields.draw(keys[0], ((), {name: (0, 1) for name in names}))
    crop, dirt = crop.astype(jnp.float32) / 255, dirt.astype(jnp.float32)
    luma = (crop * jnp.array(BT601)).sum(-1, keepdims=True)
    crop = jnp.where(one.grey < _GREY_SHARE, luma, crop)
    own = jnp.where(one.own < _OWN_SHARE, _OWN_SEVERITY * one.graded, 0.0)
    target = _degraded(keys[1], crop, own)
    dirt = jnp.where(one.turn < 0.5, dirt, dirt.transpose(1, 0, 2))
    dirt = dirt * (one.dirty < _DIRTY_SHARE)

    def dirtied(image: Any) -> Any:
        return image * (1 - dirt[..., 3:]) + dirt[..., :3]

    healthy = one.healthy < _HEALTHY_SHARE
    severity = jnp.where(healthy, 0.0, _SEVERITY * one.severity**1.5)
    first = one.first < 0.5
    degraded = _degraded(keys[2], jnp.where(first, dirtied(target), target), severity)
    degraded = jnp.where(first, degraded, dirtied(degraded))
    return Pairs(
        degraded.reshape(-1, 3),
        target.reshape(-1, 3),
        1 - dirt[..., 3].ravel(),
        healthy,
    )


def draw_pairs(key: Any, material: Material, count: int) -> Pairs:
    """Draws pairs; jittable.

    Args:
      key: PRNG key.
      material: on the device.
      count: number of pairs; static.

    Returns:
      The pairs.
    """
    keys = fields.split(key, count + 1)
    which, keys = keys[0], keys[1:]
    each, common = fields.draw(
        which,
        ((count,), {"crop": (0, 1), "dirt": (0, 1)}),
        ((), {"row": (0, _SPARSE), "column": (0, _SPARSE)}),
    )

    def picked(found: Any, chance: Any) -> Any:
        chosen = found[(chance * len(found)).astype(jnp.int32)]
        side = grader.CELLS // _SPARSE
        parts = chosen.reshape(count, side, _SPARSE, side, _SPARSE, -1)
        row, column = (
            corner.astype(jnp.int32) for corner in (common.row, common.column)
        )
        return parts[:, :, row, :, column]

    crop, dirt = picked(material.crops, each.crop), picked(material.dirt, each.dirt)
    return jax.vmap(_draw_pair)(keys, crop, dirt)


def _error(colors: Any, pairs: Pairs) -> Any:
    """Returns the mean squared error of what no dirt hides, (batch,)."""
    squared = jnp.square(colors - pairs.target).mean(-1) * pairs.intact
    return squared.sum(-1) / jnp.maximum(pairs.intact.sum(-1), 1.0)


def _cells(pairs: Pairs) -> "grader.Cells":
    weights = jnp.full(pairs.degraded.shape[:2], 1 / pairs.degraded.shape[1])
    return grader.Cells(pairs.degraded, weights)


def objective(
    model: Any, parameters: Any, batch: Pairs, *, key: Any, microbatch: int
) -> tuple[Any, dict[str, Any]]:
    """What training makes smaller; see `step.Objective`.

    Args:
      model: `grader.Grader`, with dropout.
      parameters: its parameters.
      batch: the pairs.
      key: of the dropout.
      microbatch: not read.

    Returns:
      The mean over the pairs of the root mean squared error, and no further metrics.
    """
    del microbatch
    found = model.apply(parameters, _cells(batch), rngs={"dropout": key})
    error = _error(grade.apply(batch.degraded, found), batch)
    # Of the logarithm, as PSNR has it, it would learn to hardly dare anything.
    return jnp.sqrt(error + 1e-5).mean(), {}


def make_feed(
    options: GradeOptions, material: Material, kept: Material, described: dict
) -> "feed.Feed":
    """Returns what draws the batches of a run.

    Args:
      options: of the run.
      material: for the training pairs.
      kept: of the held-out pictures.
      described: what identifies the pictures; "fingerprint" is in it.
    """
    root = jax.random.fold_in(jax.random.key(options.seed), 1)

    def take(material: Material, number: Any) -> Pairs:
        key = jax.random.fold_in(root, number)
        return draw_pairs(key, material, options.batch_size)

    return feed.Feed(
        count=len(material.crops),
        names=(),
        make_run=feed.resident_run(options, material, take, np.int32),
        make_validate=lambda model: lambda parameters: validate(parameters, kept),
        bad={},
        describe=lambda: described,
        fixed=True,
    )


def validate(parameters: Any, material: Material) -> dict[str, float]:
    """Returns what the grade does to held-out pictures, means in dB.

    Args:
      parameters: of `grader.Grader`.
      material: of the held-out pictures.

    Returns:
      `input_psnr` and `psnr` of damaged ones, of what no dirt hides, and `healthy_psnr`
      of healthy ones against themselves, 60 dB at most.
    """
    draw = jax.jit(draw_pairs, static_argnums=2)
    pairs = draw(jax.random.key(20_770_525), material, _VALIDATION_PAIRS)
    found = jax.jit(grader.Grader().apply)(parameters, _cells(pairs))
    after = jnp.clip(grade.apply(pairs.degraded, found), 0, 1)
    figures = {}
    for name, colors in (("input_psnr", pairs.degraded), ("psnr", after)):
        psnr = -10 * np.log10(np.maximum(_error(colors, pairs), 1e-6))
        figures[name] = round(float(psnr[~pairs.healthy].mean()), 3)
    figures["healthy_psnr"] = round(float(psnr[pairs.healthy].mean()), 3)
    return figures


def train(options: GradeOptions, source: "feed.Feed") -> "run.Result":
    """Trains from random weights, or goes on.

    Args:
      options: of the run.
      source: from `make_feed`.

    Returns:
      How the run ended.
    """
    cells = grader.Cells(
        np.zeros((1, grader.CELLS**2, 3), np.float32),
        np.full((1, grader.CELLS**2), 1 / grader.CELLS**2, np.float32),
    )
    initial = jax.jit(grader.Grader().init)(jax.random.key(options.seed), cells)
    task = run.Task(grader.Grader(dropout=0.2), objective, initial)
    return run.train(options, source, task=task)


def main(options: GradeOptions) -> None:
    """Entry point."""
    start = time.monotonic()
    backend.keep_freed_memory()
    backend.cache_compilations()
    listed = sources.read_sources(options.sources or sources.SOURCES)
    found = sources.find(options.clean, listed)
    learned, held = clean_pictures.hold_out(found, options.held_out)
    scans, masks = clean_pictures.read_overlays(options.overlays)
    dirt = draw_dirt(jax.random.key(options.seed), masks, _DIRTY)
    digest = clean_pictures.digest(found, scans)
    pairs = {"train": len(learned), "validation": len(held)}
    material, kept = (
        Material(crops(part, options.seed), dirt) for part in (learned, held)
    )
    described = {"fingerprint": digest, "pairs": pairs}
    done = train(options, make_feed(options, material, kept, described))
    if done.step < done.total_steps:
        print(
            f"{options.workdir}: step {done.step} of {done.total_steps}; run it again"
        )
        return
    figures = done.figures or validate(done.parameters, kept)
    fields = dataclasses.fields(train_config.RunConfig)
    names = [f.name for f in fields if not f.metadata["free"] or f.name == "steps"]
    card = {
        "training data": {
            "pictures": sources.counts(list(found), listed),
            "sha256": digest,
            "held out for validation": len(held),
            "overlays": options.overlays_note if len(masks) else "none",
        },
        "recipe": {name: getattr(options, name) for name in (*names, "held_out")},
        "kinds of damage": _TONE,
        "command": "python -m experiments.pretrain.pretrain_grade --clean CLEAN "
        + "--overlays OVERLAYS " * bool(options.overlays)
        + "--out restoration/weights/grade.safetensors",
        "machine": f"{jax.devices()[0].device_kind}, JAX {jax.__version__}",
        "seconds of the last part": round(time.monotonic() - start),
        "figures": {"validation": figures},
        "protocol": "colors averaged over 64x64 cells; PSNR of RGB a picture, in dB, "
        "then the mean",
        "limits": _LIMITS,
    }
    path = pathlib.Path(options.out)
    pretrained.save(path, grader.NAME, jax.device_get(done.parameters), card)
    print(f"{path}: {figures}")


if __name__ == "__main__":
    cli.run(main, GradeOptions)
