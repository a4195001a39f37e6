"""Trains the finder, which finds damage, and the filler, which fills it.

    python -m experiments.pretrain.pretrain_masks --recipe finder \
        --encoder lite0.safetensors --clean CLEAN --overlays SCANS --bank BANK \
        --workdir RUN
    python -m experiments.pretrain.pretrain_masks --recipe filler ...

The weights and their card are written at each evaluation and at the end. The same
command goes on where it stopped, exactly, so that with --minutes it can be run in
parts; a signal stops it with a checkpoint. `mask_bank` renders damage for `--bank`,
`lite0` converts the encoder's weights.
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
from etils import epy

from experiments.pretrain import pretrain, sources
from restoration.base import cli, config, errors
from restoration.data import clean_pictures
from restoration.devices import backend
from restoration.training import train_config

with epy.lazy_imports():
    import cv2
    import jax
    import jax.numpy as jnp
    import optax

    from experiments.pretrain import finder_quality, mask_bank, mask_pairs
    from restoration.models import filler, finder, pretrained
    from restoration.training import checkpoint, feed, run, step

# Opacity from which on damage is surely to be found.
_SURE = 0.4

# Of the finder's loss: of 1 - Dice, and of damage that is hardly seen.
_DICE, _HARDLY_SEEN = 0.3, 0.15

# Of the pairs of a filler, those whose mask is what a finder finds.
_FOUND_SHARE = 0.7

# Of the filler's loss: of the differences between neighbors.
_EDGES = 0.5

# Last layers, which begin at zero: a filler gives its first guess, and a finder at
# full size what it finds at half.
_ZERO = ("outro", "fine_logits", "coarse_logits")

# Charbonnier's epsilon.
_EPSILON = 1e-3

# Of the options that may change, those that decide the weights.
_FREE_BUT_DECISIVE = ("steps", "decay_from", "clean_share", "drawn_share",
                  "belonging_share", "hard_share")  # fmt: skip

# What stands for the paths of this machine in a card's command.
_GENERAL = {
    "clean": "CLEAN",
    "overlays": "SCANS",
    "bank": "BANK",
    "hard": "HARD",
    "finder": "FINDER",
    "bench": "BENCH",
    "workdir": "RUN",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(train_config.RunConfig):
    """Options of `python -m experiments.pretrain.pretrain_masks`."""

    steps_are_free: ClassVar[bool] = True

    recipe: str = pretrain.recipe_option("finder", free=True)
    model: str = config.option(
        "finder",
        help="what to train",
        choices=("finder", "filler"),
        formerly="network",
    )
    clean: str = config.option(
        help="folder of clean pictures, or a packed file", free=True
    )
    overlays: str = config.option(
        help="folder of scanned dirt: a folder for each kind, RGBA, alpha is the mask",
        free=True,
    )
    sources: str = config.option(
        "",
        help="JSON list of what may be used, with licences; all: every picture; by "
        "default experiments/pretrain_sources.json",
    )
    bank: str = config.option(
        "", help="file that mask_bank wrote, of drawn damage", free=True
    )
    hard: str = config.option(
        "", help="file that hard_crops wrote, of false finds", free=True
    )
    bench: str = config.option(
        "", help="folder of a benchmark to measure on", free=True
    )
    encoder: str = config.option(
        "", help="file that lite0 wrote; empty: a random encoder (finder)", free=True
    )
    start: str = config.option(
        "random", help="weights file to begin with, or random", free=True
    )
    finder: str = config.option(
        "",
        help="weights of a finder; most of a filler's masks are then what it finds, "
        "some of it no damage; empty: true masks alone",
        free=True,
    )
    encoder_rate: float = config.option(
        4e-4, help="learning rate of the finder's encoder", minimum=0.0
    )
    clean_share: float = config.option(
        0.15,
        help="share of pairs without damage",
        minimum=0.0,
        maximum=1.0,
        free=True,
    )
    drawn_share: float = config.option(
        0.5,
        help="share of damaged pairs with drawn damage",
        minimum=0.0,
        maximum=1.0,
        free=True,
    )
    belonging_share: float = config.option(
        0.25,
        help="share of pairs with specks that belong",
        minimum=0.0,
        maximum=1.0,
        free=True,
    )
    hard_share: float = config.option(
        0.1, help="share of pairs of false finds", minimum=0.0, maximum=1.0, free=True
    )
    note: str = config.option("", help="what else the card says", free=True)

    def __post_init__(self):
        """Checks limits and choices."""
        super().__post_init__()
        if self.image_size < 64 or self.image_size % 32:
            raise errors.InputError(
                f"--image_size={self.image_size}: must be a multiple of 32, at least 64"
            )
        if not self.learning_rate:
            raise errors.InputError("--learning_rate=0: must be above 0")
        if self.start != "random" and not self.start.endswith(".safetensors"):
            raise errors.InputError(
                f"--start={self.start}: give a .safetensors file, or random"
            )


def load(options: Options) -> tuple["mask_pairs.Material", dict[str, Any]]:
    """Reads pictures, scans, drawn damage and false finds.

    Returns:
      The material, and what identifies it: "fingerprint" and "pairs" for the run's
      record, "card" for the card.
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
    material = mask_pairs.Material(pictures, scanned, bank.drawn, bank.belonging, hard)
    card = {
        "pictures": sources.counts(list(found), listed),
        "scanned": {kind: len(found) for kind, found in scanned.items()},
        "drawn": {kind: len(found) for kind, found in bank.drawn.items()},
        "pictures with specks that belong": len(bank.belonging),
        "false finds": len(hard),
    }
    return material, {
        "fingerprint": _fingerprint(material),
        "pairs": {"train": len(pictures)},
        "card": card,
    }


def _fingerprint(material: "mask_pairs.Material") -> str:
    """Returns a SHA-256 of all that pairs are drawn from."""
    scans = [
        part
        for kind, sprites in material.scanned.items()
        for part in (kind, *(levels[0] for levels in sprites))
    ]
    return sources.fingerprint(
        *material.pictures,
        *material.belonging,
        *scans,
        *(part for item in material.drawn.items() for part in item),
        repr(material.hard),
    )


def make_recipe(options: Options) -> "mask_pairs.Recipe":
    """Returns how a network's pairs are drawn."""
    fills = options.model == "filler"
    # A filler learns what to keep from what a finder finds falsely.
    with_clean = not fills or bool(options.finder)
    return mask_pairs.Recipe(
        image_size=options.image_size,
        clean_share=options.clean_share if with_clean else 0.0,
        drawn_share=options.drawn_share,
        belonging_share=options.belonging_share if with_clean else 0.0,
        hard_share=options.hard_share if with_clean else 0.0,
        holes_share=0.35 if fills else 0.0,
        fills=fills,
        found_share=_FOUND_SHARE if fills and options.finder else 0.0,
    )


@functools.cache
def _finding(path: str) -> Callable[[np.ndarray], np.ndarray]:
    """Returns what finds damage in crops, by a finder's weights; see `draw_batch`."""
    name, parameters = pretrained.load(path)
    if name != finder.NAME:
        raise errors.InputError(f"--finder={path}: weights of {name}, not of a finder")
    compute = jax.jit(
        lambda crops: jax.nn.sigmoid(
            finder.Finder().apply(parameters, step.to_float(crops))
        )
    )
    return lambda crops: np.asarray(compute(crops))[..., 0]


def draw_batch(
    options: Options, material: "mask_pairs.Material", number: int
) -> dict[str, np.ndarray]:
    """Draws the batch of a step, from 0; see `mask_pairs.draw_batch`."""
    return mask_pairs.draw_batch(
        material,
        make_recipe(options),
        seed=options.seed,
        step=number,
        count=options.batch_size,
        find=_finding(options.finder) if options.finder else None,
    )


def _found_loss(logits: jnp.ndarray, opacity: Any, seen: Any) -> jnp.ndarray:
    """Returns cross-entropy, the batch's mean, and Dice of the whole batch.

    Dice of each pair would ask for no find at all in a pair without damage, and a
    network meets that by judging the whole picture: what it takes for clean, it
    then looks at no more (logits of -15 everywhere, over plain scratches too).
    """
    target = jnp.minimum(opacity / _SURE, 1.0)
    weight = jnp.where(opacity > 0, jnp.maximum(seen, _HARDLY_SEEN), 1.0)
    entropy = jnp.mean(
        weight * optax.losses.sigmoid_binary_cross_entropy(logits, target)
    )
    found = jax.nn.sigmoid(logits)
    common = (found * target).sum()
    dice = (2 * common + 1) / (found.sum() + target.sum() + 1)
    return entropy + _DICE * (1 - dice)


def finder_loss(
    model: Any,
    parameters: Any,
    batch: Mapping[str, jnp.ndarray],
    *,
    key: jax.Array,
    microbatch: int,
) -> tuple[jnp.ndarray, dict[str, jnp.ndarray]]:
    """Returns the loss of a finder: at half size, and in a window at full size.

    At full size a quarter of each crop is computed, anywhere but the same in all of
    the batch: a full crop would cost as much as all the rest. See `step.Objective`.
    """
    del microbatch
    images, opacity, seen = (
        step.to_float(batch[name]) for name in ("input", "mask", "seen")
    )
    side = images.shape[1] // 2
    row, column = 4 * jax.random.randint(key, (2,), 0, side // 4 + 1)
    logits, coarse = model.apply(parameters, images, (row, column, side))

    def part(x: jnp.ndarray) -> jnp.ndarray:
        sizes = (x.shape[0], side, side, 1)
        return jax.lax.dynamic_slice(x, (0, row, column, 0), sizes)

    fine = _found_loss(logits, part(opacity), part(seen))
    half = _found_loss(coarse, finder.halve(opacity), finder.halve(seen))
    return fine + half, {}


def filler_loss(
    model: Any,
    parameters: Any,
    batch: Mapping[str, jnp.ndarray],
    *,
    key: jax.Array,
    microbatch: int,
) -> tuple[jnp.ndarray, dict[str, jnp.ndarray]]:
    """Returns what a filling differs by inside the masks, the batch's mean.

    See `step.Objective`.
    """
    del key, microbatch
    images, target = (step.to_float(batch[name]) for name in ("input", "output"))
    masks = step.to_float(batch["given"])
    filled = model.apply(parameters, images, masks)
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
    return mean(difference) + _EDGES * (mean(down) + mean(across)), {}


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
        gain = 2.0 if options.model == "finder" else 1.0
        drawn = np.sqrt(gain / fan) * rng.standard_normal(leaf.shape)
        return jnp.asarray(drawn, jnp.float32)

    network = finder if options.model == "finder" else filler
    return jax.tree_util.tree_map_with_path(draw, network.abstract_parameters())


def initial_parameters(options: Options, material: "mask_pairs.Material") -> Any:
    """Returns what a run begins with.

    Args:
      options: of the run.
      material: of the pairs; by those of the first step a finder is calibrated where
        it has no weights.

    Returns:
      Parameters of the finder or the filler.
    """
    if options.start != "random":
        name, parameters = pretrained.load(options.start)
        if name != options.model:
            raise errors.InputError(
                f"--start={options.start}: weights of {name}, not of {options.model}"
            )
        return jax.tree.map(jnp.asarray, parameters)
    parameters = _drawn(options)
    if options.model == "filler":
        return parameters
    model = finder.Finder(calibrating=True, random_encoder=not options.encoder)
    if options.encoder:
        _, encoder = pretrained.load(options.encoder)
        mine = parameters["params"]["encoder"]
        parameters["params"]["encoder"] = {
            name: jax.tree.map(jnp.asarray, encoder["params"][name]) for name in mine
        }
    images = step.to_float(jnp.asarray(draw_batch(options, material, 0)["input"]))
    _, found = jax.jit(lambda p, x: model.apply(p, x, mutable=["params"]))(
        parameters, images
    )
    return {"params": dict(found["params"])}


def make_feed(
    options: Options, material: "mask_pairs.Material", described: Mapping[str, Any]
) -> "feed.Feed":
    """Returns what draws the batches of a run, on the host, and measures weights.

    Args:
      options: of the run.
      material: what is drawn from.
      described: see `load`.

    Returns:
      The feed; an epoch has as many pairs as there are pictures.
    """
    batches, clock = feed.draw_ahead(functools.partial(draw_batch, options, material))
    return feed.Feed(
        count=len(material.pictures),
        names=(),
        make_run=feed.streamed_run(options, batches),
        make_validate=lambda model: lambda parameters: validate(options, parameters),
        bad={},
        describe=lambda: dict(described),
        clock=clock,
    )


def validate(options: Options, parameters: Any) -> dict[str, float]:
    """Measures weights on the benchmark; {} without one. See `finder_quality`."""
    figures = finder_quality.validate(
        options.model, parameters, options.bench, options.finder
    )
    if figures:
        figures["score"] = float(np.mean(list(figures.values())))
    return figures


def make_task(options: Options, material: "mask_pairs.Material") -> "run.Task":
    """Returns what is trained: network, loss, first weights, the encoder's rate."""
    finds = options.model == "finder"
    network = finder if finds else filler
    dtype = jnp.bfloat16 if options.bfloat16 else None
    if checkpoint.steps_in(checkpoint.folder_of(options.workdir)):
        # The checkpoint takes their place.
        initial = jax.tree.map(
            lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
            network.abstract_parameters(),
        )
    else:
        initial = initial_parameters(options, material)
    if finds:
        model = finder.Finder(dtype=dtype)
        return run.Task(model, finder_loss, initial, encoder_rates(options))
    return run.Task(filler.Filler(dtype=dtype), filler_loss, initial)


def encoder_rates(options: Options) -> dict[str, float]:
    """Returns the factor of the encoder's learning rate; see `optim.scale_parts`."""
    return {"encoder": options.encoder_rate / options.learning_rate}


def _describe_start(options: Options) -> dict[str, Any]:
    """Returns what a run begins with, for the card."""
    if options.start != "random":
        return pretrain.describe_weights(pathlib.Path(options.start))
    if options.encoder:
        card = pathlib.Path(options.encoder).with_suffix(".json")
        unknown = "weights of an unknown origin"
        return {"encoder": pretrained.read_card(card).get("origin", unknown)}
    return {}


def export(
    options: Options,
    described: Mapping[str, Any],
    began: Mapping[str, Any],
    *,
    step: int,
    parameters: Any,
    figures: Mapping[str, float],
) -> pathlib.Path:
    """Writes weights, in 16 bits, and their card.

    Args:
      options: of the run.
      described: see `load`.
      began: what the run began with; empty for random weights.
      step: number of steps done.
      parameters: the averaged weights.
      figures: what was measured of them.

    Returns:
      The weights file, in the workdir.
    """
    card = {
        "training data": described["card"] | {"sha256": described["fingerprint"]},
        "recipe": pretrain.what_decides(
            options, also=_FREE_BUT_DECISIVE, but=("loss", "ssim_weight")
        ),
        "steps": step,
        "complete": step == feed.total_steps(options, described["pairs"]["train"]),
        "pairs seen": step * options.batch_size,
        "hours": round(pretrain.hours(options), 2),
        "figures": dict(figures),
        "command": pretrain.command(
            options, "experiments.pretrain.pretrain_masks", _GENERAL
        ),
        **({"began with": dict(began)} if began else {}),
        **({"note": options.note} if options.note else {}),
    }
    path, parameters = weights_file(options), jax.device_get(parameters)
    pretrained.save(path, options.model, parameters, card, dtype=np.float16)
    return path


def weights_file(options: Options) -> pathlib.Path:
    """Returns where a run's weights are written."""
    return pathlib.Path(options.workdir) / f"{options.model}.safetensors"


def train(options: Options) -> "run.Result":
    """Trains, or goes on, and writes the weights so far.

    Args:
      options: the run.

    Returns:
      How the run ended.

    Raises:
      InputError: for bad options or data, or a workdir of another run.
    """
    cv2.setNumThreads(1)
    if options.bench:
        finder_quality.check(options.bench)
    material, described = load(options)
    source = make_feed(options, material, described)
    task = make_task(options, material)
    began = pretrain.note_start(options.workdir, lambda: _describe_start(options))
    write = functools.partial(export, options, described, began)
    return pretrain.train_and_export(options, source, task, write)


def main(options: Options) -> None:
    """Entry point."""
    backend.keep_freed_memory()
    backend.cache_compilations()
    done = train(options)
    again = "" if done.step == done.total_steps else "; run it again to go on"
    print(f"{weights_file(options)}: step {done.step} of {done.total_steps}{again}")


if __name__ == "__main__":
    cli.run(main, Options)
