"""Trains the finder, which finds damage, and the filler, which fills it.

    python -m experiments.pretrain.pretrain_masks --network finder \
        --encoder lite0.safetensors --clean CLEAN --overlays SCANS --workdir RUN
    python -m experiments.pretrain.pretrain_masks --network filler ...

The same command goes on where it stopped, exactly, so that with --minutes it can be
run in parts; a signal stops it with a checkpoint. `mask_bank` renders damage for
`--bank`, `lite0` converts the encoder's weights.
"""

import dataclasses
import json
import pathlib
import signal
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from etils import epy

from experiments.pretrain import sources
from restoration.base import cli, config, errors, files
from restoration.data import clean_pictures
from restoration.devices import backend

with epy.lazy_imports():
    import cv2
    import jax
    import jax.numpy as jnp
    import optax

    from experiments.pretrain import finder_quality, mask_bank, mask_pairs
    from restoration.models import filler, finder, pretrained
    from restoration.training import checkpoint, optim, run_log, step

# What may change between the parts of a run.
_FREE = (
    "clean",
    "overlays",
    "bank",
    "bench",
    "encoder",
    "hard",
    "workdir",
    "start",
    "minutes",
    "log_every",
    "validate_every",
    "steps",
    "decay_from",
    "belonging_share",
    "hard_share",
    "drawn_share",
    "clean_share",
    "note",
)

# Opacity from which on damage is surely to be found.
_SURE = 0.4

# Of the finder's loss: of 1 - Dice, and of damage that is hardly seen.
_DICE, _HARDLY_SEEN = 0.3, 0.15

# Of the filler's loss: of the differences between neighbors.
_EDGES = 0.5

# Last layers, which begin at zero: a filler gives its first guess, and a finder at
# full size what it finds at half.
_ZERO = ("outro", "fine_logits", "coarse_logits")

# Charbonnier's epsilon.
_EPSILON = 1e-3


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of `python -m experiments.pretrain.pretrain_masks`."""

    network: str = config.option(help="what to train", choices=("finder", "filler"))
    clean: str = config.option(help="folder of clean pictures, or a packed file")
    overlays: str = config.option(
        help="folder of scanned dirt: a folder for each kind, RGBA, alpha is the mask"
    )
    workdir: str = config.option(help="folder for checkpoints and metrics; resumed")
    sources: str = config.option(
        "",
        help="JSON list of what may be used, with licences; all: every picture; by "
        "default experiments/pretrain_sources.json",
    )
    bank: str = config.option("", help="file that mask_bank wrote, of drawn damage")
    hard: str = config.option("", help="file that finder_quality wrote, of false finds")
    bench: str = config.option("", help="folder of a benchmark to measure on")
    encoder: str = config.option(
        "", help="file that lite0 wrote; empty: a random encoder (finder)"
    )
    start: str = config.option("", help="weights to begin with; empty: fresh ones")
    steps: int = config.option(6000, help="training steps", minimum=1)
    batch_size: int = config.option(8, help="pairs a step", minimum=1)
    image_size: int = config.option(256, help="side of the crops, pixels", minimum=64)
    learning_rate: float = config.option(1.5e-3, help="at its highest", minimum=0.0)
    encoder_rate: float = config.option(
        4e-4, help="of the pretrained encoder", minimum=0.0
    )
    warmup_steps: int = config.option(50, help="of linear warm-up", minimum=0)
    decay_from: int = config.option(
        0, help="step from which on the rate falls as a cosine", minimum=0
    )
    weight_decay: float = config.option(1e-4, help="of kernels", minimum=0.0)
    clip_norm: float = config.option(1.0, help="of the gradient", minimum=0.0)
    ema_decay: float = config.option(
        0.998, help="of the averaged weights", minimum=0.0, maximum=0.99999
    )
    clean_share: float = config.option(
        0.15, help="share of pairs without damage", minimum=0.0, maximum=1.0
    )
    drawn_share: float = config.option(
        0.5, help="share of damaged pairs with drawn damage", minimum=0.0, maximum=1.0
    )
    belonging_share: float = config.option(
        0.25, help="share of pairs with specks that belong", minimum=0.0, maximum=1.0
    )
    hard_share: float = config.option(
        0.1, help="share of pairs of false finds", minimum=0.0, maximum=1.0
    )
    seed: int = config.option(0, help="of weights and pairs", minimum=0)
    minutes: float = config.option(
        0.0, help="stop and save after so long; 0: at the end", minimum=0.0
    )
    log_every: int = config.option(50, help="steps between log lines", minimum=1)
    validate_every: int = config.option(
        500, help="steps between validations, checkpoints and exports", minimum=1
    )
    note: str = config.option("", help="what else the card is to tell")

    def __post_init__(self):
        """Checks limits and choices."""
        config.check(self)
        if self.image_size % 32:
            raise errors.InputError(
                f"--image_size={self.image_size}: must be a multiple of 32"
            )


def load(options: Options) -> tuple["mask_pairs.Material", dict[str, Any]]:
    """Reads pictures, scans, drawn damage and false finds.

    Returns:
      The material and what the card tells of it.
    """
    listed = sources.read_sources(options.sources or sources.SOURCES)
    found = sources.find(options.clean, listed)
    pictures = [clean_pictures.decode(name, data) for name, data in found.items()]
    scanned = mask_pairs.read_scanned(pathlib.Path(options.overlays))
    if not scanned:
        raise errors.InputError(
            f"--overlays={options.overlays}: none of the folders "
            f"{', '.join(mask_pairs.SCANNED)}"
        )
    bank = mask_bank.read(options.bank) if options.bank else mask_bank.Bank({}, [])
    hard = json.loads(pathlib.Path(options.hard).read_text()) if options.hard else []
    hard = [tuple(row) for row in hard if row[0] < len(pictures)]
    card = {
        "pictures": sources.counts(list(found), listed),
        "scanned": {kind: len(found) for kind, found in scanned.items()},
        "drawn": {kind: len(found) for kind, found in bank.drawn.items()},
        "pictures with specks that belong": len(bank.belonging),
        "false finds": len(hard),
    }
    return mask_pairs.Material(
        pictures, scanned, bank.drawn, bank.belonging, hard
    ), card


def make_recipe(options: Options) -> "mask_pairs.Recipe":
    """Returns how a network's pairs are drawn."""
    fills = options.network == "filler"
    return mask_pairs.Recipe(
        image_size=options.image_size,
        clean_share=0.0 if fills else options.clean_share,
        drawn_share=options.drawn_share,
        belonging_share=0.0 if fills else options.belonging_share,
        hard_share=0.0 if fills else options.hard_share,
        holes_share=0.35 if fills else 0.0,
        fills=fills,
    )


def _found_loss(logits: jnp.ndarray, opacity: Any, seen: Any) -> jnp.ndarray:
    """Returns cross-entropy and Dice, the batch's mean."""
    target = jnp.minimum(opacity / _SURE, 1.0)
    weight = jnp.where(opacity > 0, jnp.maximum(seen, _HARDLY_SEEN), 1.0)
    entropy = jnp.mean(
        weight * optax.losses.sigmoid_binary_cross_entropy(logits, target)
    )
    found = jax.nn.sigmoid(logits)
    axes = (1, 2, 3)
    common = (found * target).sum(axes)
    dice = (2 * common + 1) / (found.sum(axes) + target.sum(axes) + 1)
    return entropy + _DICE * (1 - jnp.mean(dice))


def finder_loss(
    parameters: Any, batch: dict[str, jnp.ndarray], key: jax.Array
) -> jnp.ndarray:
    """Returns the loss of a finder: at half size, and in a window at full size.

    At full size a quarter of each crop is computed, anywhere but the same in all of
    the batch: a full crop would cost as much as all the rest.
    """
    images, opacity, seen = (
        step.to_float(batch[name]) for name in ("input", "mask", "seen")
    )
    side = images.shape[1] // 2
    row, column = 4 * jax.random.randint(key, (2,), 0, side // 4 + 1)
    logits, coarse = finder.Finder().apply(parameters, images, (row, column, side))

    def part(x: jnp.ndarray) -> jnp.ndarray:
        sizes = (x.shape[0], side, side, 1)
        return jax.lax.dynamic_slice(x, (0, row, column, 0), sizes)

    fine = _found_loss(logits, part(opacity), part(seen))
    return fine + _found_loss(coarse, finder.halve(opacity), finder.halve(seen))


def filler_loss(
    parameters: Any, batch: dict[str, jnp.ndarray], key: jax.Array
) -> jnp.ndarray:
    """Returns what a filling differs by inside the masks, the batch's mean."""
    del key
    images, target = (step.to_float(batch[name]) for name in ("input", "output"))
    masks = step.to_float(batch["given"])
    filled = filler.Filler().apply(parameters, images, masks)
    difference = jnp.where(masks > 0, filled - target, 0.0)
    inside = (masks > 0).astype(jnp.float32)

    def size(x: jnp.ndarray) -> jnp.ndarray:
        return jnp.sqrt(jnp.square(x) + _EPSILON**2) - _EPSILON

    # Wide damage weighs more, as it does in a picture's error, but not in proportion.
    share = inside.sum((1, 2, 3)) + 64.0

    def mean(x: jnp.ndarray) -> jnp.ndarray:
        return jnp.mean(size(x).sum((1, 2, 3)) / (3 * share))

    down = difference[:, 1:] - difference[:, :-1]
    across = difference[:, :, 1:] - difference[:, :, :-1]
    return mean(difference) + _EDGES * (mean(down) + mean(across))


def make_optimizer(options: Options) -> "optax.GradientTransformation":
    """Returns AdamW whose rate is flat and then falls; the encoder's is lower."""

    def rate(highest: float) -> Callable:
        def of(done: Any) -> Any:
            rise = jnp.minimum(1.0, (done + 1) / max(1, options.warmup_steps))
            room = max(1, options.steps - options.decay_from)
            fall = jnp.clip((done - options.decay_from) / room, 0, 1)
            return highest * rise * (0.01 + 0.99 * 0.5 * (1 + jnp.cos(jnp.pi * fall)))

        return of

    def adam(highest: float) -> optax.GradientTransformation:
        return optax.adamw(
            rate(highest),
            b2=0.99,
            weight_decay=options.weight_decay,
            mask=optim.are_kernels,
        )

    def groups(parameters: Any) -> Any:
        return {
            "params": {
                name: jax.tree.map(
                    lambda _, name=name: "encoder" if name == "encoder" else "rest",
                    leaf,
                )
                for name, leaf in parameters["params"].items()
            }
        }

    begun = options.encoder or options.start
    pretrained_rate = options.encoder_rate if begun else options.learning_rate
    return optax.chain(
        optax.clip_by_global_norm(options.clip_norm),
        optax.multi_transform(
            {"encoder": adam(pretrained_rate), "rest": adam(options.learning_rate)},
            groups,
        ),
    )


def _drawn(options: Options) -> Any:
    """Returns random parameters; a jitted `init` would compile for minutes."""
    rng = np.random.default_rng([options.seed, 1])

    def draw(path: Any, leaf: Any) -> jnp.ndarray:
        module, name = path[-2].key, path[-1].key
        if name == "scale":
            return jnp.ones(leaf.shape)
        if name in ("bias", "beta", "gamma") or module in _ZERO:
            return jnp.zeros(leaf.shape)
        depthwise = "depthwise" in module or "around" in module
        fan = np.prod(leaf.shape[:2] if depthwise else leaf.shape[:-1])
        gain = 2.0 if options.network == "finder" else 1.0
        drawn = np.sqrt(gain / fan) * rng.standard_normal(leaf.shape)
        return jnp.asarray(drawn, jnp.float32)

    network = finder if options.network == "finder" else filler
    return jax.tree_util.tree_map_with_path(draw, network.abstract_parameters())


def initial_parameters(options: Options, batch: dict[str, np.ndarray]) -> Any:
    """Returns what a run begins with.

    Args:
      options: of the run.
      batch: of its first step, by which what is not pretrained is calibrated.

    Returns:
      Parameters of the finder or the filler.
    """
    if options.start:
        name, parameters = pretrained.load(options.start)
        if name != options.network:
            raise errors.InputError(
                f"--start={options.start}: weights of {name}, not of {options.network}"
            )
        return jax.tree.map(jnp.asarray, parameters)
    parameters = _drawn(options)
    if options.network == "filler":
        return parameters
    model = finder.Finder(calibrating=True, random_encoder=not options.encoder)
    if options.encoder:
        _, encoder = pretrained.load(options.encoder)
        mine = parameters["params"]["encoder"]
        parameters["params"]["encoder"] = {
            name: jax.tree.map(jnp.asarray, encoder["params"][name]) for name in mine
        }
    images = step.to_float(jnp.asarray(batch["input"]))
    _, found = jax.jit(lambda p, x: model.apply(p, x, mutable=["params"]))(
        parameters, images
    )
    return {"params": dict(found["params"])}


def make_step(
    options: Options, optimizer: "optax.GradientTransformation"
) -> Callable[[Any, dict], tuple[Any, dict]]:
    """Returns the training step (state, batch) -> (state, metrics); jittable."""
    loss = finder_loss if options.network == "finder" else filler_loss

    def train_step(state: step.TrainState, batch: dict) -> tuple[Any, dict]:
        key = jax.random.fold_in(jax.random.key(options.seed), state.step)
        value, gradients = jax.value_and_grad(loss)(state.parameters, batch, key)
        norm = optax.tree.norm(gradients)
        updates, moments = optimizer.update(
            gradients, state.optimizer, state.parameters
        )
        parameters = optax.apply_updates(state.parameters, updates)
        done = state.step.astype(jnp.float32)
        decay = jnp.minimum(options.ema_decay, (1 + done) / (10 + done))
        average = optax.incremental_update(parameters, state.average, 1 - decay)
        after = step.TrainState(state.step + 1, parameters, moments, average)
        # A step whose numbers are not finite changes nothing but the count.
        good = jnp.isfinite(value) & jnp.isfinite(norm)
        kept = jax.tree.map(lambda new, old: jnp.where(good, new, old), after, state)
        kept = kept._replace(step=state.step + 1)
        return kept, {"loss": value, "gradient_norm": norm}

    return train_step


def _claim(options: Options) -> None:
    """Writes the options, or checks that the run to go on with is the same."""
    path = pathlib.Path(options.workdir) / "pretrain_masks.json"
    if path.is_file():
        before = config.from_json(path.read_text(), Options, source=str(path))
        changed = config.differences(dataclasses.asdict(before), options, _FREE)
        if changed:
            raise errors.InputError(
                f"{path}: this workdir holds another run ({', '.join(changed)}); "
                "use another --workdir or the same flags"
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(path, config.to_json(options))


def export(options: Options, state: Any, material: dict, figures: dict) -> pathlib.Path:
    """Writes the averaged weights, in 16 bits, and their card."""
    recipe = dataclasses.asdict(options)
    for name in ("clean", "overlays", "bank", "bench", "workdir", "minutes",
                 "encoder", "hard", "note", "start"):  # fmt: skip
        del recipe[name]
    hours = json.loads(_hours(options).read_text()) if _hours(options).is_file() else 0
    card = {
        "training data": material,
        "recipe": recipe,
        "steps": int(state.step),
        "pairs seen": int(state.step) * options.batch_size,
        "hours": round(hours, 2),
        "figures": figures,
        "command": "python -m experiments.pretrain.pretrain_masks "
        f"--network {options.network} --clean CLEAN --overlays SCANS "
        "--bank BANK --workdir RUN",
    }
    if options.network == "finder" or options.start:
        card["began with"] = _origin(options)
    if options.note:
        card["note"] = options.note
    path = pathlib.Path(options.workdir) / f"{options.network}.safetensors"
    parameters = jax.device_get(state.average)
    pretrained.save(path, options.network, parameters, card, dtype=np.float16)
    return path


def _origin(options: Options) -> Any:
    if options.start:
        card = pretrained.read_card(pathlib.Path(options.start).with_suffix(".json"))
        return {name: value for name, value in card.items() if name != "figures"}
    if not options.encoder:
        return "random weights"
    card = pretrained.read_card(pathlib.Path(options.encoder).with_suffix(".json"))
    return card.get("origin", "weights of an unknown origin")


def _hours(options: Options) -> pathlib.Path:
    return pathlib.Path(options.workdir) / "hours.json"


def train(options: Options) -> tuple[pathlib.Path, int]:
    """Trains, or goes on, and writes the weights so far.

    Args:
      options: the run.

    Returns:
      The weights file and the number of steps done.

    Raises:
      InputError: for bad options or data, or a workdir of another run.
    """
    started = time.monotonic()
    cv2.setNumThreads(1)
    material, described = load(options)
    _claim(options)
    recipe, workdir = make_recipe(options), pathlib.Path(options.workdir)

    def draw(number: int) -> dict[str, np.ndarray]:
        return mask_pairs.draw_batch(
            material, recipe, seed=options.seed, step=number, count=options.batch_size
        )

    manager = checkpoint.open_manager(workdir, keep=2)
    network = finder if options.network == "finder" else filler
    if manager.all_steps():  # what begins the run is not needed then
        like = network.abstract_parameters()
        parameters = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
    else:
        parameters = initial_parameters(options, draw(0))
    optimizer = make_optimizer(options)
    state = step.TrainState(
        jnp.zeros([], jnp.int32),
        parameters,
        optimizer.init(parameters),
        jax.tree.map(jnp.copy, parameters),
    )
    compiled = jax.jit(make_step(options, optimizer), donate_argnums=0)
    stopped: list[int] = []
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda number, _: stopped.append(number))
    try:
        state = checkpoint.restore_latest(manager, state) or state
        done = int(state.step)
        before = json.loads(_hours(options).read_text()) if done else 0.0
        pending: list[dict] = []
        drawing, since = 0.0, time.monotonic()
        with run_log.open_log(workdir, done) as log:

            def save() -> None:
                figures = finder_quality.validate(
                    options.network, state.average, options.bench
                )
                log.write({"step": done, "split": "validation", **figures})
                log.flush()
                hours = before + (time.monotonic() - started) / 3600
                files.write_text(_hours(options), json.dumps(hours))
                checkpoint.save(manager, state, None)
                export(options, state, described, figures)

            while done < options.steps and not stopped:
                if 0 < 60 * options.minutes < time.monotonic() - started:
                    break
                begun = time.monotonic()
                batch = draw(done)
                drawing += time.monotonic() - begun
                state, values = compiled(state, batch)
                jax.block_until_ready(values)
                pending.append(values)
                done += 1
                if done % options.log_every == 0:
                    seconds = time.monotonic() - since
                    means = {
                        name: float(np.mean([float(row[name]) for row in pending]))
                        for name in pending[0]
                    }
                    speed = len(pending) * options.batch_size / seconds
                    row = {"step": done, "split": "train", **means}
                    row["images_per_second"] = round(speed, 2)
                    row["drawing_share"] = round(drawing / seconds, 3)
                    log.write(row)
                    log.flush()
                    pending, drawing, since = [], 0.0, time.monotonic()
                if done % options.validate_every == 0 or done == options.steps:
                    save()
                    pending, drawing, since = [], 0.0, time.monotonic()
            if done not in manager.all_steps():
                save()
    finally:
        manager.close()
    return workdir / f"{options.network}.safetensors", done


def main(options: Options) -> None:
    """Entry point."""
    backend.keep_freed_memory()
    backend.cache_compilations()
    path, done = train(options)
    again = "" if done == options.steps else "; run it again to go on"
    print(f"{path}: step {done} of {options.steps}{again}")


if __name__ == "__main__":
    cli.run(main, Options)
