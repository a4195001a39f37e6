"""Measures training steps of the finder and the filler on a CPU, beside PyTorch.

    python -m experiments.benchmark masks

Ours is what `experiments.pretrain.pretrain_masks` does with its recipes: loss, AdamW,
clipped gradients, averaged weights. PyTorch does the same with the same networks
(`torch_models`): as it comes, in channels_last memory, and compiled in that memory. Its
window of the finder stands still, which costs the same, so that it compiles once. All
begin with the shipped weights and compute in float32. With `--other_python` ours runs
in another Python too, which may have another JAX.

Each is measured with one batch again and again, and with batches that a thread draws
ahead, as in training: the calls include what of the drawing they wait for, and what it
takes from them where cores are few. Drawing alone is measured too. Pairs are drawn of
scikit-image's photographs and of random strokes as large as scanned and rendered
damage. Programs run alternately; PyTorch is optional.

Run as a program, this module serves the cases of one of them, see `interleaved`.
"""

import functools
import importlib.util
import itertools
import os
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from etils import epy

from experiments.benchmark import interleaved
from restoration.training import provenance

with epy.lazy_imports():
    import cv2
    import jax
    import jax.numpy as jnp
    import skimage

    from experiments.pretrain import mask_pairs, pretrain, pretrain_masks
    from restoration.devices import backend, sharding
    from restoration.models import pretrained
    from restoration.training import feed, optim, step

NETWORKS = ("finder", "filler")
OURS = "ours"
TORCH = ("PyTorch", "PyTorch, channels_last", "PyTorch, compiled")

# What is measured of a network: the step, the step with its batches drawn ahead, and
# drawing alone.
STEP, FED, DRAWING = "step", "with drawing", "drawing"

_ROUNDS, _SECONDS = 3, 8.0
_QUICK_ROUNDS, _QUICK_SECONDS = 1, 0.1
_QUICK_BATCH, _QUICK_SIDE = 2, 64

# Sides of scanned damage and of the layers of drawn damage, pixels, how many there are
# of a kind, and the kinds of layers.
_SCAN, _LAYER, _COUNT, _LAYERS = 400, 384, 4, 6

_PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")

_NO_STEPS = 1 << 30


def _strokes(rng: np.random.Generator, side: int) -> np.ndarray:
    """Returns the opacity of some strokes, uint8 (side, side)."""
    opacity = np.zeros((side, side), np.uint8)
    for _ in range(3):
        points = rng.uniform(0.2, 0.8, 2) + rng.normal(0, 0.05, (8, 2)).cumsum(0)
        thickness = int(rng.integers(1, side // 10))
        cv2.polylines(
            opacity, [np.int32(points * side)], False, 255, thickness, cv2.LINE_AA
        )
    return opacity


def material() -> "mask_pairs.Material":
    """Returns what pairs are drawn of: photographs, and strokes in place of scans."""
    rng = np.random.default_rng(0)
    folder = pathlib.Path(skimage.__file__).parent / "data"
    pictures = [cv2.imread(str(folder / name))[..., ::-1] for name in _PHOTOGRAPHS]
    scanned = {
        kind: [mask_pairs.pyramid(_strokes(rng, _SCAN)) for _ in range(_COUNT)]
        for kind in mask_pairs.SCANNED
    }
    drawn = {
        f"strokes {number}": np.stack(
            [np.repeat(_strokes(rng, _LAYER)[..., None], 4, -1) for _ in range(_COUNT)]
        )
        for number in range(_LAYERS)
    }
    belonging = [picture[:_LAYER, :_LAYER] for picture in pictures]
    return mask_pairs.Material(pictures, scanned, drawn, belonging)


def recipe(name: str, quick: bool) -> "pretrain_masks.Options":
    """Returns the options of a network's training."""
    found = pretrain.read_recipe(name)
    if quick:
        found |= {"batch_size": _QUICK_BATCH, "image_size": _QUICK_SIDE}
    return pretrain_masks.Options(**found, clean="", overlays="", workdir="")


def _drawing(options: "pretrain_masks.Options") -> interleaved.Case:
    """Returns drawing alone, in the thread that asks."""
    numbers, drawn = itertools.count(), material()

    def call() -> Any:
        return pretrain_masks.draw_batch(options, drawn, next(numbers))

    return interleaved.Case(call, lambda _: None, options.batch_size, {})


def _batches(options: "pretrain_masks.Options", kind: str) -> "feed.HostBatches":
    draw = functools.partial(pretrain_masks.draw_batch, options, material())
    if kind == FED:
        return feed.draw_ahead(draw)[0]
    batch = draw(0)
    return lambda start, total: itertools.repeat(batch, total - start)


def _ours(options: "pretrain_masks.Options") -> Callable:
    """Returns our step as a run of `pretrain_masks` does it."""
    module, parameters, _ = pretrained.load_part(options.model)
    finds = options.model == "finder"
    optimizer = optim.make_optimizer(
        options, options.steps, pretrain_masks.encoder_rates(options) if finds else None
    )
    train_step = step.make_train_step(
        module,
        optimizer,
        pretrain_masks.finder_loss if finds else pretrain_masks.filler_loss,
        ema_decay=options.ema_decay,
        accumulate=options.accumulate,
    )
    mesh, given = sharding.make_mesh(), []
    make_run = feed.streamed_run(options, lambda start, total: iter(given.pop, None))
    advance = make_run(train_step=train_step, mesh=mesh, start=0, total=_NO_STEPS)
    parameters = jax.tree.map(jnp.asarray, parameters)
    first = step.state_of(parameters, optimizer, ema=True)
    held = [sharding.replicate(first, mesh)]

    def do(batch: dict[str, np.ndarray]) -> Any:
        given.append(batch)
        held[0], values, _ = advance(held[0], limit=1)
        return values

    return do


def _torch(options: "pretrain_masks.Options", program: str) -> Callable:
    """Returns PyTorch's step."""
    import torch

    from experiments.benchmark import torch_losses, torch_models

    plain = program == TORCH[0]
    layout = torch.contiguous_format if plain else torch.channels_last
    _, parameters, _ = pretrained.load_part(options.model)
    torch_model = torch_models.build(options.model)
    torch_models.copy_weights(torch_model, options.model, parameters)
    torch_model = torch_model.to(memory_format=layout)
    optimizer = torch.optim.AdamW(
        _groups(torch_model, options),
        lr=options.learning_rate,
        betas=(0.9, options.beta2),
        fused=True,
    )
    average = torch.optim.swa_utils.AveragedModel(
        torch_model,
        multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(options.ema_decay),
    )
    if options.model == "finder":
        quarter = options.image_size // 4
        window = (quarter, quarter, 2 * quarter)
        loss = functools.partial(torch_losses.finder_loss, window=window)
    else:
        loss = torch_losses.filler_loss

    def compute(batch: dict[str, Any]) -> Any:
        return loss(torch_model, {name: rows / 255 for name, rows in batch.items()})

    if program == TORCH[2]:
        compute = torch.compile(compute, dynamic=False)

    def do(rows: dict[str, np.ndarray]) -> Any:
        batch = {
            name: torch.from_numpy(part).permute(0, 3, 1, 2)
            for name, part in rows.items()
        }
        if plain:
            batch = {name: rows.contiguous() for name, rows in batch.items()}
        optimizer.zero_grad(set_to_none=True)
        value = compute(batch)
        value.backward()
        torch.nn.utils.clip_grad_norm_(torch_model.parameters(), options.clip_norm)
        optimizer.step()
        average.update_parameters(torch_model)
        return value

    return do


def _groups(torch_model: Any, options: "pretrain_masks.Options") -> list[dict]:
    """Returns AdamW's groups: kernels alone decay, an encoder has its own rate."""
    groups: dict[tuple[bool, bool], list] = {}
    for name, parameter in torch_model.named_parameters():
        kernel = name.endswith("weight") and parameter.ndim > 1
        groups.setdefault((name.startswith("encoder."), kernel), []).append(parameter)
    return [
        {
            "params": members,
            "lr": options.encoder_rate if inside else options.learning_rate,
            "weight_decay": options.weight_decay if kernels else 0.0,
        }
        for (inside, kernels), members in groups.items()
    ]


@functools.cache
def _step(options: "pretrain_masks.Options", program: str) -> Callable:
    """Returns a program's step, (batch) -> values; it compiles once for all cases."""
    return _torch(options, program) if program in TORCH else _ours(options)


def _training(
    options: "pretrain_masks.Options", kind: str, program: str
) -> interleaved.Case:
    waiting, do = _batches(options, kind)(0, _NO_STEPS), _step(options, program)
    wait = (lambda _: None) if program in TORCH else jax.block_until_ready
    return interleaved.Case(lambda: do(next(waiting)), wait, options.batch_size, {})


def _makers(program: str, quick: bool) -> Iterator[tuple[str, Callable]]:
    """Yields the makers of a program's cases."""
    for name in NETWORKS:
        options = recipe(name, quick)
        for kind in (STEP, FED):
            case = functools.partial(_training, options, kind, program)
            yield f"{name}, {kind}", case
        if program not in TORCH:
            yield f"{name}, {DRAWING}", functools.partial(_drawing, options)


def row(
    rows: dict[str, dict[str, dict[str, Any]]], options: "pretrain_masks.Options"
) -> dict[str, Any]:
    """Returns the JSON file's entry for a network.

    Args:
      rows: by what was measured and by program, from `interleaved.measure`.
      options: of the network's training.

    Returns:
      "pairs_per_second" by what was measured and by program; "ratio_to_torch" for the
      step and the step with drawing, ours over the fastest of PyTorch's, where that
      was measured; "drawing_share", seconds of drawing over those of our step;
      "rounds"; and "errors", if any.
    """
    good = {
        kind: {p: one for p, one in cases.items() if "error" not in one}
        for kind, cases in rows.items()
    }
    speeds = {
        kind: {p: round(one["per_second"], 3) for p, one in cases.items()}
        for kind, cases in good.items()
    }
    errors = {
        f"{kind}, {p}": one["error"]
        for kind, cases in rows.items()
        for p, one in cases.items()
        if "error" in one
    }
    ratios = {}
    for kind in (STEP, FED):
        theirs = [speed for p, speed in speeds[kind].items() if p in TORCH]
        if theirs and OURS in speeds[kind]:
            ratios[kind] = round(speeds[kind][OURS] / max(theirs), 3)
    found = {
        "batch": options.batch_size,
        "side": options.image_size,
        "pairs_per_second": speeds,
        "ratio_to_torch": ratios,
    }
    if OURS in speeds[STEP] and OURS in speeds[DRAWING]:
        share = speeds[STEP][OURS] / speeds[DRAWING][OURS]
        found["drawing_share"] = round(share, 4)
    found["rounds"] = {
        kind: {p: one["rounds"] for p, one in cases.items()}
        for kind, cases in good.items()
    }
    return found | ({"errors": errors} if errors else {})


def measure(quick: bool, other_python: str = "") -> dict[str, Any]:
    """Measures both networks.

    Args:
      quick: two small pairs a step and one short round, as a test; XLA does not
        optimize, and PyTorch does not compile.
      other_python: a Python with another JAX, to measure ours in too; "": none.

    Returns:
      "networks": see `row`; "torch": its version, if it is installed; "other_jax",
      the version of the other Python's JAX, or "".

    Raises:
      InputError: if the other Python has no JAX.
      RuntimeError: if a program does not start.
    """
    other_jax = interleaved.jax_version(other_python) if other_python else ""
    programs = [OURS]
    if importlib.util.find_spec("torch"):
        programs += TORCH[:2] if quick else TORCH
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    if quick:
        unoptimized = "--xla_backend_optimization_level=0"
        environment["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {unoptimized}"
    arguments = ["quick"] if quick else []
    measured = interleaved.measure_and_stop(
        {
            program: interleaved.start(
                "experiments.benchmark.masks",
                [program, *arguments],
                environment,
                python,
            )
            for program, python in interleaved.pythons(programs, other_python).items()
        },
        rounds=_QUICK_ROUNDS if quick else _ROUNDS,
        seconds=_QUICK_SECONDS if quick else _SECONDS,
    )
    for program, found in measured.pop("start", {}).items():
        raise RuntimeError(f"{program}: {found['error']}")
    networks = {}
    for name in NETWORKS:
        cases = {kind: measured[f"{name}, {kind}"] for kind in (STEP, FED, DRAWING)}
        networks[name] = row(cases, recipe(name, quick))
    versions = provenance.packages(("torch",))
    return {
        "torch": versions.get("torch"),
        "other_jax": other_jax,
        "networks": networks,
    }


def _serve(program: str, quick: bool) -> None:
    cv2.setNumThreads(1)
    if program not in TORCH:
        backend.keep_freed_memory()
        backend.cache_compilations()
    interleaved.serve(dict(_makers(program, quick)))


if __name__ == "__main__":
    _serve(sys.argv[1], "quick" in sys.argv[2:])
