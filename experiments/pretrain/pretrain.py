"""Trains the weights that the package ships, on clean pictures and drawn damage.

    python -m experiments.pretrain --model nafnet_s --data_dir CLEAN --workdir RUN

The same command goes on where it stopped, exactly, so that with --minutes it can be
run in parts. TensorFlow is not needed, nor libvips. `--pack FILE.zip` puts all that
is needed from a machine's disk into one file, which another takes as `--data_dir`
and `--overlays`.
"""

import contextlib
import dataclasses
import hashlib
import json
import pathlib
import shlex
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tqdm
from etils import epy

from experiments.pretrain import clean_pictures, writing
from restoration.base import config, errors
from restoration.devices import backend
from restoration.training import run_log

with epy.lazy_imports():
    import jax
    import jax.numpy as jnp
    import optax

    from experiments.pretrain import drawn_pairs
    from experiments.tables import runs
    from restoration import damage, models
    from restoration.devices import sharding
    from restoration.evaluation import metrics
    from restoration.models import pretrained
    from restoration.training import checkpoint, losses, optim, step

SOURCES = clean_pictures.SOURCES

# What may change between the parts of a run.
_FREE = ("data_dir", "overlays", "workdir", "pack", "minutes", "log_every",
         "validate_every", "out", "overlays_note", "limits")  # fmt: skip

# Pictures worn for validation of each kind, and computed at once.
_VALIDATION_PAIRS, _VALIDATION_BATCH = 16, 4

# The file of a workdir that tells what its run began with.
_START = "start.json"

# What the card tells of the run whose weights this one began with.
_OF_THE_START = ("training data", "recipe", "kinds of damage", "steps", "complete",
                 "pairs seen", "command", "machine", "sha256", "average of",
                 "began with")  # fmt: skip

# Weights are stored in 16 bits where that costs less on the validation pairs, dB.
_FLOAT16_COST = 0.02

_LIMITS = (
    "Trained on drawn damage and a few hundred pictures of today; faces, text and "
    "large missing parts are not invented, and what a wide stain hides stays hidden."
)


@dataclasses.dataclass(frozen=True)
class PretrainOptions:
    """Options of `python -m experiments.pretrain`."""

    data_dir: str = config.option(help="folder of clean pictures, or a packed file")
    workdir: str = config.option(help="folder for checkpoints and metrics; resumed")
    model: str = config.option("nafnet_s", help="see python -m restoration.models")
    sources: str = config.option(
        "",
        help="JSON list of what may be used, with licences; all: every picture; by "
        "default experiments/pretrain_sources.json",
    )
    overlays: str = config.option(
        "", help="folder of scanned dirt (RGBA, alpha is the mask), or a packed file"
    )
    overlay_share: float = config.option(
        0.5, help="share of the pairs with scanned dirt", minimum=0.0, maximum=1.0
    )
    overlays_note: str = config.option(
        "", help="origin and licence of the overlays, for the card"
    )
    pack: str = config.option("", help="write what is needed to this .zip, and stop")
    start: str = config.option(
        "random",
        help="initial weights: random, carry (autoencoders: shows its input), or a "
        "weights file",
    )
    steps: int = config.option(20_000, help="training steps", minimum=1)
    batch_size: int = config.option(
        16, help="pairs a step, over all devices", minimum=1
    )
    image_size: int = config.option(
        128, help="side of the training crops, pixels", minimum=32
    )
    piece_size: int = config.option(
        320, help="side of the pieces that crops are taken from, pixels", minimum=32
    )
    optimizer: str = config.option(
        "adamw",
        help="see restoration.training.optim",
        choices=("adamw", "muon"),
        later=True,
    )
    learning_rate: float = config.option(1e-3, help="at its highest", minimum=0.0)
    warmup_steps: int = config.option(200, help="of linear warm-up", minimum=0)
    weight_decay: float = config.option(1e-4, help="of kernels", minimum=0.0)
    clip_norm: float = config.option(0.1, help="of the gradient; 0: none", minimum=0.0)
    ema_decay: float = config.option(
        0.999, help="of the averaged weights", minimum=0.0, maximum=0.99999
    )
    loss: str = config.option(
        "psnr",
        help="training loss",
        choices=config.LOSSES,
    )
    ssim_weight: float = config.option(0.0, help="of 1 - SSIM", minimum=0.0)
    severity: float = config.option(
        2.0, help="the greatest; drawn from 0 up", minimum=0.0, maximum=8.0
    )
    severity_rise: float = config.option(
        0.0,
        help="share of the steps over which the greatest severity rises",
        minimum=0.0,
        maximum=1.0,
    )
    leave_out: str = config.option(
        "", help="kinds of damage that are not drawn, with commas between"
    )
    photo_share: float = config.option(
        0.5, help="share of pairs worn as prints, not film", minimum=0.0, maximum=1.0
    )
    clean_share: float = config.option(
        0.08, help="share of pairs that stay clean", minimum=0.0, maximum=1.0
    )
    spotless_share: float = config.option(
        0.25,
        help="share of pairs on which nothing landed, with grain, blur and JPEG alone",
        minimum=0.0,
        maximum=1.0,
    )
    writing_share: float = config.option(
        0.1, help="share of the pictures with captions drawn on", minimum=0.0,
        maximum=1.0,
    )  # fmt: skip
    grey_share: float = config.option(
        0.1, help="share of pairs that are grey", minimum=0.0, maximum=1.0
    )
    toned_share: float = config.option(
        0.3,
        help="share of pairs whose clean side is pale or tinted too, as old prints are",
        minimum=0.0,
        maximum=1.0,
    )
    soft_share: float = config.option(
        0.5,
        help="share of pairs blurred alike on both sides, as a soft scan of film is",
        minimum=0.0,
        maximum=1.0,
    )
    opacity: float = config.option(
        1.0,
        help="what covers a pair is up to so many times as opaque, drawn from 1 up",
        minimum=1.0,
        maximum=8.0,
        later=True,
    )
    held_out: float = config.option(
        0.06, help="share of the pictures kept for validation", minimum=0.0, maximum=0.5
    )
    compute: str = config.option(
        "auto",
        help="auto: bfloat16 on accelerators",
        choices=("auto", "bfloat16", "float32"),
    )
    seed: int = config.option(0, help="of weights, crops and damage", minimum=0)
    minutes: float = config.option(
        0.0, help="stop and save after so long; 0: at the end", minimum=0.0
    )
    accumulate: int = config.option(
        0, help="gradient pieces a batch is split into; 0: by backend", minimum=0
    )
    log_every: int = config.option(
        50, help="steps between log lines; on accelerators one call", minimum=1
    )
    validate_every: int = config.option(
        1000, help="steps between validations and checkpoints", minimum=1
    )
    out: str = config.option("", help="weights file; by default in the workdir")
    limits: str = config.option(_LIMITS, help="what the card tells of limits")

    def __post_init__(self):
        """Checks limits and choices."""
        config.check(self)
        if self.image_size > self.piece_size:
            raise errors.InputError(
                f"--image_size={self.image_size}: larger than "
                f"--piece_size={self.piece_size}"
            )


@dataclasses.dataclass(frozen=True)
class Data:
    """What a run trains on and is measured by.

    Attributes:
      material: for the training pairs, on the host.
      held_out: the same of the pictures kept for validation.
      card: what to tell about them.
    """

    material: "drawn_pairs.Material"
    held_out: "drawn_pairs.Material"
    card: dict[str, Any]


def load(options: PretrainOptions) -> Data:
    """Reads and cuts the pictures, and reads the overlays.

    Raises:
      InputError: for folders without usable pictures.
    """
    sources = clean_pictures.read_sources(options.sources or SOURCES)
    files = clean_pictures.find(options.data_dir, sources)
    train, held = clean_pictures.hold_out(files, options.held_out)
    scans, masks = clean_pictures.read_overlays(options.overlays)
    pieces = clean_pictures.cut(train, options.piece_size)
    pieces = writing.write_on(pieces, options.writing_share, options.seed)
    card = {
        "pictures": clean_pictures.counts(list(files), sources),
        "sha256": clean_pictures.digest(files, scans),
        "held out for validation": len(held),
        "pieces": len(pieces),
        "overlays": f"{len(masks)} pictures: {options.overlays_note}" if len(masks)
        else "none: all damage is drawn by restoration.damage",
    }  # fmt: skip
    kept = clean_pictures.cut(held, options.piece_size)
    return Data(
        drawn_pairs.Material(pieces, masks), drawn_pairs.Material(kept, masks), card
    )


def _recipe(options: PretrainOptions) -> "drawn_pairs.Recipe":
    names = [name for name in drawn_pairs.Recipe._fields if hasattr(options, name)]
    return drawn_pairs.Recipe(
        film=drawn_pairs.kinds_of(damage.FILM, options.leave_out),
        photo=drawn_pairs.kinds_of(damage.PHOTO, options.leave_out),
        **{name: getattr(options, name) for name in names},
    )


def make_optimizer(options: PretrainOptions) -> "optax.GradientTransformation":
    """Returns AdamW or Muon with warm-up and a cosine schedule; biases do not decay."""
    warmup = min(options.warmup_steps, options.steps - 1)
    schedule = optax.warmup_cosine_decay_schedule(
        0.0 if warmup else options.learning_rate,
        options.learning_rate,
        warmup,
        options.steps,
        end_value=1e-3 * options.learning_rate,
    )
    if options.optimizer == "muon":
        parts = [optim.muon(schedule, weight_decay=options.weight_decay)]
    else:
        decay, kernels = options.weight_decay, optim.are_kernels
        parts = [optax.adamw(schedule, b2=0.99, weight_decay=decay, mask=kernels)]
    if options.clip_norm:
        parts.insert(0, optax.clip_by_global_norm(options.clip_norm))
    return optax.chain(*parts)


def compute_dtype(options: PretrainOptions) -> Any:
    """Returns what a run computes in; None is float32."""
    if options.compute == "auto":
        return None if backend.is_cpu() else jnp.bfloat16
    return jnp.bfloat16 if options.compute == "bfloat16" else None


def initial_state(
    options: PretrainOptions, model: Any, optimizer: Any
) -> "step.TrainState":
    """Returns the state that a run begins with, as its `start` has it."""
    ema = bool(options.ema_decay)
    key = jax.random.key(options.seed)
    # Compiled whole: step by step each of its operations would be compiled apart.
    state = jax.jit(lambda key: step.init_state(model, optimizer, key, ema=ema))(key)
    if options.start == "random":
        return state
    if options.start == "carry":
        if options.model not in ("basic", "advanced"):
            raise errors.InputError(
                f"--start=carry: for basic and advanced, not for {options.model}"
            )
        parameters = runs.carry(state.parameters, options.seed)
    else:
        name, parameters = pretrained.load(options.start)
        if name != options.model:
            raise errors.InputError(
                f"--start={options.start}: weights of {name}, not of {options.model}"
            )
    parameters = jax.tree.map(jnp.asarray, parameters)
    average = jax.tree.map(jnp.copy, parameters) if ema else {}
    return state._replace(parameters=parameters, average=average)


def _pieces(options: PretrainOptions) -> int:
    share = options.batch_size // jax.device_count()
    pieces = options.accumulate or backend.pieces(share, options.image_size)
    if share % pieces:
        raise errors.InputError(
            f"--accumulate={pieces}: must divide the batch of each device, {share}"
        )
    return pieces


def make_run(
    options: PretrainOptions, model: Any, optimizer: Any, mesh: Any
) -> Callable[[Any, Any, int], tuple[Any, dict]]:
    """Returns run(state, material, steps), which does so many steps in one call.

    The pairs of a step follow from the seed and its number, inside the step.

    Args:
      options: the run.
      model: Flax module.
      optimizer: optax transformation.
      mesh: of the devices.

    Returns:
      A function that gives the new state and the steps' metrics, (steps,).
    """
    split, whole = sharding.split_batch(mesh), sharding.replicated(mesh)
    recipe, root = _recipe(options), jax.random.key(options.seed)
    train_step = step.make_train_step(
        model,
        optimizer,
        losses.make_loss(options.loss, ssim_weight=options.ssim_weight),
        ema_decay=options.ema_decay,
        accumulate=_pieces(options),
    )

    def risen(done: Any) -> Any:
        if not options.severity_rise:
            return 1.0
        return jnp.minimum(1.0, (done + 1) / (options.severity_rise * options.steps))

    def one(state: Any, material: Any) -> tuple[Any, dict]:
        # Not the key itself, of which the weights were drawn.
        key = jax.random.fold_in(jax.random.fold_in(root, 1), state.step)
        batch = drawn_pairs.draw_pairs(
            key, material, recipe, options.batch_size, scale=risen(state.step)
        )
        state, found = train_step(state, jax.lax.with_sharding_constraint(batch, split))
        # SSIM would take a fifth of a CPU's step; validation has it.
        return state, {name: found[name] for name in ("loss", "psnr", "gradient_norm")}

    def many(state: Any, material: Any, steps: int) -> tuple[Any, dict]:
        return jax.lax.scan(lambda s, _: one(s, material), state, None, length=steps)

    kept = {"out_shardings": (whole, whole), "donate_argnums": 0}
    if backend.is_cpu():
        # A convolution inside a loop leaves XLA's fast path there.
        compiled = jax.jit(one, **kept)
        return lambda state, material, steps: compiled(state, material)
    return jax.jit(many, static_argnums=2, **kept)


def make_validate(
    options: PretrainOptions, held_out: "drawn_pairs.Material", model: Any
) -> Callable[[Any], dict[str, float]]:
    """Returns validate(parameters): figures on held-out pictures, always the same.

    Args:
      options: the run.
      held_out: pieces and masks to draw from.
      model: Flax module, which computes in float32, as `restore` does.

    Returns:
      A function that gives means: `film_psnr`, `photo_psnr`, `soft_psnr` of softly
      scanned film, their `_ssim` and `_input_psnr`, and `clean_psnr` of clean pictures
      restored.
    """
    recipe = _recipe(options)._replace(
        image_size=min(256, options.piece_size),
        clean_share=0.0,
        spotless_share=0.0,
        toned_share=0.0,
    )
    drawn = {}
    for name, photo_share, soft_share in (
        ("film", 0.0, 0.0),
        ("photo", 1.0, 0.0),
        ("soft", 0.0, 1.0),
    ):
        kinds = recipe._replace(photo_share=photo_share, soft_share=soft_share)
        draw = jax.jit(
            lambda key, material, kinds=kinds: drawn_pairs.draw_pairs(
                key, material, kinds, _VALIDATION_PAIRS
            )
        )
        drawn[name] = jax.device_get(draw(jax.random.key(20_770_525), held_out))
    drawn["clean"] = {side: drawn["film"]["output"] for side in ("input", "output")}
    eval_step = jax.jit(step.make_eval_step(model))

    def measure(parameters: Any, pairs: dict) -> dict[str, dict[str, float]]:
        parts = [
            eval_step(
                parameters,
                {
                    side: x[first : first + _VALIDATION_BATCH]
                    for side, x in pairs.items()
                },
            )[0]
            for first in range(0, _VALIDATION_PAIRS, _VALIDATION_BATCH)
        ]
        joined = jax.tree.map(lambda *values: np.concatenate(values), *parts)
        return jax.tree.map(lambda values: round(float(values.mean()), 5), joined)

    def validate(parameters: Any) -> dict[str, float]:
        parameters = jax.device_put(jax.device_get(parameters), jax.local_devices()[0])
        figures = {}
        for name, pairs in drawn.items():
            found = measure(parameters, pairs)
            figures[f"{name}_psnr"] = found["restored"]["psnr"]
            figures[f"{name}_ssim"] = found["restored"]["ssim"]
            figures[f"{name}_input_psnr"] = found["input"]["psnr"]
        return figures

    return validate


def _score(figures: dict[str, float]) -> float:
    """Returns the one number that a checkpoint is judged by."""
    return (figures["film_psnr"] + figures["photo_psnr"]) / 2


def _claim(workdir: pathlib.Path, options: PretrainOptions, digest: str) -> None:
    """Writes what the run is, or checks that the run to go on with is the same.

    Args:
      workdir: the run's folder.
      options: written to `pretrain.json`; those of `_FREE` may change.
      digest: of pictures and overlays, written to `data.sha256`.

    Raises:
      InputError: when the folder holds another run, or cannot be written.
    """
    path, data = workdir / "pretrain.json", workdir / "data.sha256"
    start = workdir / _START
    # Noted once: the run's own weights may take the place of those it began with.
    described = None if start.is_file() else _describe_start(options)
    if data.is_file() and data.read_text(encoding="utf-8").strip() != digest:
        raise errors.InputError(
            f"{data}: this workdir's run was of other pictures or overlays; use "
            "another --workdir or the same pictures"
        )
    if path.is_file():
        text = path.read_text(encoding="utf-8")
        before = config.from_json(text, PretrainOptions, source=str(path))
        changed = config.differences(dataclasses.asdict(before), options, _FREE)
        if changed:
            raise errors.InputError(
                f"{path}: this workdir holds another run ({', '.join(changed)}); "
                "use another --workdir or the same flags"
            )
    try:
        config.write_text(path, config.to_json(options))
        config.write_text(data, digest + "\n")
        if described is not None:
            config.write_text(start, json.dumps(described))
    except OSError as error:
        raise errors.InputError(
            f"{workdir}: cannot be written ({error.strerror}); use another --workdir"
        ) from None


def _describe_start(options: PretrainOptions) -> dict[str, Any]:
    """Returns what is known of the weights that a run begins with; {} for fresh ones.

    Raises:
      InputError: for a file that is missing, damaged or of another model.
    """
    if options.start in ("random", "carry"):
        return {}
    pretrained.load(options.start)  # for its checks
    path = pathlib.Path(options.start)
    card = path.with_suffix(".json")
    if card.is_file():
        found = pretrained.read_card(card)
        return {name: found[name] for name in _OF_THE_START if name in found}
    return {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def _next_stop(done: int, options: PretrainOptions) -> int:
    """Returns the next step after which something is due."""
    due = [every * (done // every + 1) for every in (options.log_every,
           options.validate_every)]  # fmt: skip
    return min(*due, options.steps)


def _train(
    options: PretrainOptions,
    data: Data,
    validate: Callable[[Any], dict[str, float]],
    is_over: Callable[[], bool],
) -> tuple["step.TrainState", dict[str, float]]:
    """Does the run, until its end or until time is over.

    Returns:
      The last state and its validation figures.
    """
    model = models.get_model(options.model, dtype=compute_dtype(options))
    optimizer, mesh = make_optimizer(options), sharding.make_mesh()
    whole = sharding.replicated(mesh)
    state = jax.device_put(initial_state(options, model, optimizer), whole)
    material = jax.device_put(data.material, whole)
    run = make_run(options, model, optimizer, mesh)
    workdir = pathlib.Path(options.workdir)
    with contextlib.ExitStack() as stack:
        manager = checkpoint.open_manager(workdir, keep=2)
        stack.callback(manager.close)
        state = checkpoint.restore_latest(manager, state) or state
        done = int(state.step)
        log = stack.enter_context(run_log.open_log(workdir, done))
        bar = stack.enter_context(
            tqdm.tqdm(total=options.steps, initial=done, unit="step", desc="pretrain")
        )
        pending, since, seen = [], time.monotonic(), done
        figures: dict[str, float] = {}
        while done < options.steps and not is_over():
            figures = {}
            count = 1 if backend.is_cpu() else _next_stop(done, options) - done
            state, values = run(state, material, count)
            jax.block_until_ready(values)  # or the clock would run ahead of it
            pending.append(values)
            done += count
            bar.update(count)
            if done % options.log_every == 0 or done == options.steps:
                means = _means(pending)
                seconds = time.monotonic() - since
                speed = (done - seen) * options.batch_size / seconds
                line = means | {"images_per_second": round(speed, 2)}
                run_log.append(log, {"step": done, "split": "train", **line})
                bar.set_postfix(loss=means["loss"])
                pending, since, seen = [], time.monotonic(), done
            if done % options.validate_every == 0 or done == options.steps:
                figures = validate(_evaluated(state, options))
                run_log.append(log, {"step": done, "split": "validation", **figures})
                run_log.flush(log)  # on the disk before the checkpoint is
                checkpoint.save(manager, state, _score(figures))
                since, seen = time.monotonic(), done
        if not figures:  # stopped in between, or nothing was left to do
            figures = validate(_evaluated(state, options))
            checkpoint.save(manager, state, _score(figures))
    return state, figures


def _means(pending: list[dict]) -> dict[str, float | None]:
    """Returns the mean of each metric; PSNR is infinite while clean pairs stay so."""
    means = {}
    for name in pending[0]:
        values = np.concatenate([np.ravel(metric[name]) for metric in pending])
        values = values[np.isfinite(values)]
        means[name] = float(values.mean()) if len(values) else None
    return means


def _evaluated(state: Any, options: PretrainOptions) -> Any:
    return state.average if options.ema_decay else state.parameters


def _command(options: PretrainOptions) -> str:
    """Returns the command line that gives these options, with general paths."""
    words = ["python", "-m", "experiments.pretrain"]
    general = {
        "data_dir": "CLEAN",
        "workdir": "RUN",
        "overlays": "OVERLAYS",
        "start": pathlib.Path(options.start).name,
    }
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if value == field.default or field.name in ("minutes", "out", "limits"):
            continue
        words.append(f"--{field.name}={general.get(field.name, value)}")
    return shlex.join(words)


def export(
    options: PretrainOptions,
    state: Any,
    card: dict[str, Any],
    validate: Callable[[Any], dict[str, float]],
    figures: dict[str, float],
) -> pathlib.Path:
    """Writes the weights and their card.

    They are stored in 16 bits where that costs less than 0.02 dB.

    Args:
      options: the run.
      state: the training state to take the (averaged) weights of.
      card: what to tell about the training data.
      validate: from `make_validate`.
      figures: its validation figures, in 32 bits.

    Returns:
      The weights file.
    """
    parameters = jax.device_get(_evaluated(state, options))
    halved = jax.tree.map(lambda leaf: leaf.astype(np.float16), parameters)
    stored = jax.tree.map(lambda leaf: leaf.astype(np.float32), halved)
    in_16_bits = validate(stored)
    kinds = ("film_psnr", "photo_psnr")
    # Not Python's max, which would pass over what is not a number.
    cost = float(np.max([figures[name] - in_16_bits[name] for name in kinds]))
    dtype = np.float16 if cost < _FLOAT16_COST else np.float32
    recipe = dataclasses.asdict(options)
    for name in ("data_dir", "overlays", "workdir", "sources", "pack", "out", "minutes",
                 "limits", "overlays_note"):  # fmt: skip
        del recipe[name]
    recipe["start"] = pathlib.Path(options.start).name
    start = config.parse((pathlib.Path(options.workdir) / _START).read_text())
    done, drawn = int(state.step), _recipe(options)
    card = {
        "training data": card,
        "recipe": recipe,
        "kinds of damage": {"film": drawn.film, "photo": drawn.photo},
        "steps": done,
        "complete": done == options.steps,
        "pairs seen": done * options.batch_size,
        **({"began with": start} if start else {}),
        "command": _command(options),
        "machine": f"{jax.device_count()} x {jax.devices()[0].device_kind}, "
        f"JAX {jax.__version__}",
        "figures": {"validation": in_16_bits if dtype == np.float16 else figures},
        "stored as": {"dtype": np.dtype(dtype).name, "cost of float16, dB": cost},
        "protocol": metrics.PROTOCOL,
        "limits": options.limits,
    }
    name = f"{options.model}.safetensors"
    path = pathlib.Path(options.out or pathlib.Path(options.workdir) / name)
    pretrained.save(path, options.model, parameters, card, dtype=dtype)
    return path


def pretrain(options: PretrainOptions) -> tuple[pathlib.Path, int]:
    """Trains, or goes on, and writes the weights so far.

    Args:
      options: the run.

    Returns:
      The weights file and the number of steps done.

    Raises:
      InputError: for bad options or data, or a workdir of another run.
    """
    start = time.monotonic()
    sharding.check_batch_size(options.batch_size)
    data = load(options)
    _claim(pathlib.Path(options.workdir), options, data.card["sha256"])
    model = models.get_model(options.model)
    validate = make_validate(options, data.held_out, model)
    state, figures = _train(
        options,
        data,
        validate,
        lambda: 0 < 60 * options.minutes < time.monotonic() - start,
    )
    path = export(options, state, data.card, validate, figures)
    return path, int(state.step)


def pack(options: PretrainOptions) -> None:
    """Writes the pictures and overlays of a run into one file."""
    sources = clean_pictures.read_sources(options.sources or SOURCES)
    pictures = clean_pictures.find(options.data_dir, sources)
    overlays = {}
    if options.overlays:
        inside = clean_pictures.OVERLAYS
        overlays = clean_pictures.read_files(options.overlays, inside=inside)
    clean_pictures.pack(options.pack, pictures, overlays)


def main(options: PretrainOptions) -> None:
    """Entry point."""
    backend.keep_freed_memory()
    backend.cache_compilations()
    if options.pack:
        pack(options)
        print(options.pack)
        return
    path, done = pretrain(options)
    again = "" if done == options.steps else "; run it again to go on"
    print(f"{path}: step {done} of {options.steps}{again}")
