"""Trains the weights that the package ships, on clean pictures and drawn damage.

    python -m experiments.pretrain --clean CLEAN --overlays DIRT --workdir RUN

It is `restoration.train --recipe film` with three things more: only pictures whose
licences are listed are used, a weights file with a card is written, and `--pack
FILE.zip` puts all that is needed from a machine's disk into one file, which another
takes as `--clean` and `--overlays`. The same command goes on where it stopped, exactly,
so that with --minutes it can be run in parts. TensorFlow is not needed, nor libvips.
"""

import dataclasses
import hashlib
import json
import pathlib
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epy

from experiments.pretrain import sources
from restoration.base import config, errors, files
from restoration.data import clean_pictures
from restoration.devices import backend
from restoration.training import recipe, train_config

with epy.lazy_imports():
    import jax

    from restoration import models
    from restoration.data import drawn_pairs
    from restoration.evaluation import metrics
    from restoration.models import pretrained
    from restoration.training import feed, loop, run, run_log, validation

# Recipes of the shipped weights, and those that are installed with the package.
RECIPES = (pathlib.Path(__file__).parent / "recipes", recipe.FOLDER)

# The file of a workdir that records what its run began with.
_START = "start.json"

# What the card says of the run whose weights this one began with.
_OF_THE_START = ("training data", "recipe", "kinds of damage", "steps", "complete",
                 "pairs seen", "hours", "command", "machine", "sha256", "average of",
                 "note", "began with")  # fmt: skip

# Options that a card's command leaves out.
_LEFT_OUT = ("minutes", "out", "limits", "note", "tensorboard")

# Options that name weights files.
_WEIGHTS = ("start", "encoder")

# What stands for the paths of this machine in a card's command.
_GENERAL = {"clean": "CLEAN", "overlays": "OVERLAYS", "workdir": "RUN"}

# Weights are stored in 16 bits where that costs less on the validation pairs, dB.
_FLOAT16_COST = 0.02

_LIMITS = (
    "Trained on drawn damage and a few hundred pictures of today; faces, text and "
    "large missing parts are not invented, and what a wide stain hides stays hidden."
)


def read_recipe(name: str) -> dict[str, Any]:
    """Returns the options of a recipe: a name or a file, see `recipe.options`."""
    return recipe.options(name, RECIPES)


def recipe_option(default: str, *, free: bool = False) -> Any:
    """Returns the option `recipe` of a training here; see `config.option`."""
    return config.option(
        default,
        help="options to begin with, which flags override: a .json file or the name of "
        "one in experiments/pretrain/recipes",
        defaults=read_recipe,
        free=free,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainOptions(train_config.TrainConfig):
    """Options of `python -m experiments.pretrain`."""

    recipe: str = recipe_option("film")
    sources: str = config.option(
        "",
        help="JSON list of what may be used, with licences; all: every picture; by "
        "default experiments/pretrain_sources.json",
    )
    overlays_note: str = config.option(
        "", help="origin and licence of the overlays, for the card"
    )
    pack: str = config.option("", help="write what is needed to this .zip, and stop")
    out: str = config.option("", help="weights file; by default in the workdir")
    limits: str = config.option(_LIMITS, help="limits, for the card")

    def __post_init__(self):
        """Checks limits, choices, and that there are pictures."""
        super().__post_init__()
        if not self.clean:
            raise errors.InputError("--clean is required: a folder of clean pictures")


def train_options(options: PretrainOptions) -> train_config.TrainConfig:
    """Returns the options of the training run itself."""
    fields = dataclasses.fields(train_config.TrainConfig)
    return train_config.TrainConfig(
        **{field.name: getattr(options, field.name) for field in fields}
    )


def find_pictures(options: PretrainOptions) -> tuple[clean_pictures.Files, list[dict]]:
    """Reads the pictures that may be used.

    Returns:
      The pictures by name, and how many are of each origin.

    Raises:
      InputError: for folders without usable pictures.
    """
    listed = sources.read_sources(options.sources or sources.SOURCES)
    found = sources.find(options.clean, listed)
    return found, sources.counts(list(found), listed)


def note_start(workdir: str, describe: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Returns what is known of the weights that a run began with.

    Noted once, in the workdir: the run's own weights may take the place of those it
    began with.

    Args:
      workdir: of the run.
      describe: says what the run begins with; {} of fresh weights.
    """
    path = pathlib.Path(workdir) / _START
    if path.is_file():
        return config.parse(path.read_text(encoding="utf-8"))
    described = describe()
    try:
        files.write_text(path, json.dumps(described))
    except OSError as error:
        raise errors.InputError(
            f"{workdir}: cannot be written ({error.strerror}); use another --workdir"
        ) from None
    return described


def describe_start(options: PretrainOptions) -> dict[str, Any]:
    """Returns what is known of the weights that a run begins with; {} for fresh ones.

    Raises:
      InputError: for a file that is missing, damaged or of another model.
    """
    if options.start in ("random", "identity"):
        return {}
    path = pathlib.Path(options.start)
    if path.suffix != ".safetensors":
        path = pretrained.find_shipped(options.start)
    return describe_weights(path)


def describe_weights(path: pathlib.Path) -> dict[str, Any]:
    """Returns what is known of a weights file that a run begins with.

    Raises:
      InputError: for a file that is missing, damaged or of another model.
    """
    pretrained.load(path)  # for its checks
    card = path.with_suffix(".json")
    if card.is_file():
        found = pretrained.read_card(card)
        return {name: found[name] for name in _OF_THE_START if name in found}
    return {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def command(options: Any, module: str, general: Mapping[str, str]) -> str:
    """Returns the command line that gives options, with general paths.

    Args:
      options: with a `recipe`; what it and the defaults give is left out.
      module: of the command.
      general: what stands for paths, by the names of options. Of weights files the
        names stand.
    """
    words = ["python", "-m", module]
    defaults = read_recipe(options.recipe) if options.recipe else {}
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if value == defaults.get(field.name, field.default) or field.name in _LEFT_OUT:
            continue
        shown = pathlib.Path(value).name if field.name in _WEIGHTS else value
        words.append(f"--{field.name}={general.get(field.name, shown)}")
    return shlex.join(words)


def what_decides(
    options: train_config.RunConfig,
    *,
    also: Sequence[str] = ("steps",),
    but: Sequence[str] = (),
) -> dict[str, Any]:
    """Returns the options that decide the weights, for the card.

    Args:
      options: of a run.
      also: of the options that may change, those that the card has.
      but: options that the run does not read.
    """
    fields = dataclasses.fields(options)
    names = [f.name for f in fields if not f.metadata["free"] or f.name in also]
    found = {name: getattr(options, name) for name in names if name not in but}
    if "start" in found:
        found["start"] = pathlib.Path(options.start).name
    return found


def hours(options: train_config.RunConfig) -> float:
    """Returns how long a run has trained, by its log; evaluations do not count."""
    seconds, before = 0.0, 0
    for row in run_log.read(pathlib.Path(options.workdir) / run_log.NAME):
        if row["split"] == "train" and row["images_per_second"]:
            pairs = (row["step"] - before) * options.batch_size
            seconds += pairs / row["images_per_second"]
            before = row["step"]
    return seconds / 3600


def train_and_export(
    options: train_config.RunConfig,
    source: "feed.Feed",
    task: "run.Task",
    export: "loop.Export",
) -> "run.Result":
    """Trains, or goes on, and exports at each evaluation and at the end of this part.

    Args:
      options: of the run.
      source: of the batches; it measures weights.
      task: what is trained.
      export: writes weights and their card.

    Returns:
      How the run ended.
    """
    done = run.train(options, source, task=task, export=export)
    if done.figures is None:  # stopped between two evaluations
        figures = source.make_validate(task.model)(done.parameters)
        export(step=done.step, parameters=done.parameters, figures=figures)
    return done


def export(
    options: PretrainOptions,
    done: "run.Result",
    card: dict[str, Any],
    validate: "validation.Validate",
) -> pathlib.Path:
    """Writes the weights and their card.

    They are stored in 16 bits where that costs less than 0.02 dB.

    Args:
      options: the run.
      done: how the run ended.
      card: what to say about the training data.
      validate: measures weights by the held-out pictures.

    Returns:
      The weights file.
    """
    parameters = jax.device_get(done.parameters)
    figures = done.figures or validate(parameters)
    halved = jax.tree.map(lambda leaf: leaf.astype(np.float16), parameters)
    stored = jax.tree.map(lambda leaf: leaf.astype(np.float32), halved)
    in_16_bits = validate(stored)
    kinds = ("film_psnr", "photo_psnr")
    # Not Python's max, which would pass over what is not a number.
    cost = float(np.max([figures[name] - in_16_bits[name] for name in kinds]))
    dtype = np.float16 if cost < _FLOAT16_COST else np.float32
    start = note_start(options.workdir, lambda: describe_start(options))
    drawn = drawn_pairs.recipe_of(options)
    card = {
        "training data": card,
        "recipe": what_decides(train_options(options)),
        "kinds of damage": {"film": drawn.film, "photo": drawn.photo},
        "steps": done.step,
        "complete": done.step == done.total_steps,
        "pairs seen": done.step * options.batch_size,
        **({"began with": start} if start else {}),
        "command": command(options, "experiments.pretrain", _GENERAL),
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


def pretrain(options: PretrainOptions) -> tuple[pathlib.Path, "run.Result"]:
    """Trains, or goes on, and writes the weights so far.

    Args:
      options: the run.

    Returns:
      The weights file and how the run ended.

    Raises:
      InputError: for bad options or data, or a workdir of another run.
    """
    pictures, counts = find_pictures(options)
    note_start(options.workdir, lambda: describe_start(options))
    chosen = train_options(options)
    source = feed.drawn_feed(chosen, drawn_pairs.load(chosen, pictures))
    done = run.train(chosen, source)
    described = source.describe()
    overlays = described["overlays"]
    card = {
        "pictures": counts,
        "sha256": described["fingerprint"],
        "held out for validation": described["pictures"]["validation"],
        "pieces": described["pairs"]["train"],
        "overlays": f"{overlays} pictures: {options.overlays_note}" if overlays
        else "none: all damage is drawn by restoration.damage",
    }  # fmt: skip
    validate = source.make_validate(models.get_model(options.model))
    return export(options, done, card, validate), done


def pack(options: PretrainOptions) -> None:
    """Writes the pictures and overlays of a run into one file."""
    pictures, _ = find_pictures(options)
    overlays = {}
    if options.overlays:
        inside = clean_pictures.OVERLAYS
        overlays = clean_pictures.read_files(options.overlays, inside=inside)
    sources.pack(options.pack, pictures, overlays)


def main(options: PretrainOptions) -> None:
    """Entry point."""
    backend.keep_freed_memory()
    backend.cache_compilations()
    if options.pack:
        pack(options)
        print(options.pack)
        return
    path, done = pretrain(options)
    again = "" if done.step == done.total_steps else "; run it again to go on"
    print(f"{path}: step {done.step} of {done.total_steps}{again}")
