"""Trains the small network that finds damage in films.

    python -m experiments.pretrain.film_finder --films FILMS --clean PHOTOGRAPHS \
        --overlays SCANS --workdir RUN --minutes 45

The weights and their card are written at each evaluation and at the end. The same
command goes on where it stopped, exactly.
"""

import dataclasses
import functools
import itertools
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

    from experiments.pretrain import film_dirt, finder_quality
    from restoration import models
    from restoration.film import container, over_time, stills
    from restoration.models import film_finder, pretrained
    from restoration.training import feed, run

# Frames of a drawn clip: all become examples, those at its ends with neighbours on
# one side only.
_FRAMES = 9

# The examples of so many clips are drawn together and mixed.
_CLIPS = 14

# Held out: of the photographs, and of each film's frames, those at its end.
_HELD_OUT = 0.1

# Clips that weights are measured on, and the seed that they are drawn by.
_MEASURED, _MEASURED_SEED = 12, 20_770_525

# Damage that is more opaque, of 255, is to be found.
_DAMAGED = 12

# What stands for the paths of this machine in a card's command.
_GENERAL = {
    "films": "FILMS",
    "clean": "PHOTOGRAPHS",
    "overlays": "SCANS",
    "workdir": "RUN",
}

_LIMITS = (
    "Trained on drawn wear alone; what local flicker and motion that no flow follows "
    "leave may be marked, and is then filled from neighbours."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinderOptions(train_config.RunConfig):
    """Options of `python -m experiments.pretrain.film_finder`."""

    steps_are_free: ClassVar[bool] = True

    recipe: str = pretrain.recipe_option("film_finder", free=True)
    films: str = config.option(help="folder of clean films", free=True)
    clean: str = config.option(
        help="folder of clean photographs, or a packed file",
        formerly="data_dir",
        free=True,
    )
    overlays: str = config.option(
        help="folder of scanned dirt, a folder a kind", free=True
    )
    sources: str = config.option(
        "", help="JSON list of photographs that may be used; see experiments.pretrain"
    )
    photographs: int = config.option(200, help="photographs that are read", minimum=1)
    out: str = config.option(
        "", help="weights file; by default in the workdir", free=True
    )

    def __post_init__(self):
        """Checks limits and choices."""
        super().__post_init__()
        if self.image_size < 32 or self.image_size % 8:
            raise errors.InputError(
                f"--image_size={self.image_size}: must be a multiple of 8, at least 32"
            )
        if self.start != "random" and not self.start.endswith(".safetensors"):
            raise errors.InputError(
                f"--start={self.start}: give a .safetensors file, or random"
            )


def load(
    options: FinderOptions,
) -> tuple["film_dirt.Sources", "film_dirt.Sources", dict[str, Any]]:
    """Reads films, photographs and scanned dirt.

    Returns:
      What clips are drawn from for training; the same for measuring; and what
      identifies both: "fingerprint" and "pairs" for the run's record, "card" for the
      card.

    Raises:
      InputError: for folders without usable films, photographs or scans.
    """
    films = sorted(
        path
        for path in pathlib.Path(options.films).glob("*")
        if path.suffix.lower() in container.SUFFIXES
    )
    if not films:
        raise errors.InputError(f"--films={options.films}: no film; give a folder")
    origins = sources.read_sources(options.sources or sources.SOURCES)
    found = sources.find(options.clean, origins)
    taken = list(found)[:: max(1, len(found) // options.photographs)]
    photographs = {name: found[name] for name in taken}
    learned, held = clean_pictures.hold_out(photographs, _HELD_OUT)
    read = film_dirt.read_sources(films, learned, pathlib.Path(options.overlays))
    counts = [max(_FRAMES, int(_HELD_OUT * len(film))) for film in read.films]
    for path, film, count in zip(films, read.films, counts, strict=True):
        if len(film) < count + _FRAMES:
            raise errors.InputError(
                f"{path}: {len(film)} frames; a film has at least {2 * _FRAMES}"
            )
    parts = list(zip(read.films, counts, strict=True))
    training = dataclasses.replace(read, films=[film[:-n] for film, n in parts])
    measured = film_dirt.Sources(
        [film[-n:] for film, n in parts], film_dirt.read_photographs(held), read.scans
    )
    described = {
        "fingerprint": sources.fingerprint(
            *read.films,
            *read.photographs,
            *measured.photographs,
            *itertools.chain.from_iterable(read.scans.values()),
        ),
        "pairs": {"train": sum(map(len, training.films)) + len(learned)},
        "card": {
            "films": [path.name for path in films],
            "photographs": sources.counts(taken, origins),
            "held out for validation": f"{len(held)} photographs, and of each film "
            f"{_HELD_OUT:.0%} of the frames",
            "overlays": {kind: len(scans) for kind, scans in read.scans.items()},
        },
    }
    return training, measured, described


def examples(clip: "film_dirt.Clip") -> list[dict[str, np.ndarray]]:
    """Returns an example for each frame of a clip.

    Each has "input", what the network sees, (side, side, channels); "references",
    the luma of its references, and "trust", how they are trusted without it, (side,
    side, references); "output", the luma of the frame without damage, float32 from 0
    to 255; "opacity" of the damage and "worn", the damaged luma, uint8.
    """
    layout = stills.Layout(8, "gray", full=True)
    frames = (stills.Still(i, (f,), f) for i, f in enumerate(clip.worn))
    found = []

    def look(still: "stills.Still", references: Any) -> "over_time.Found":
        mask = clip.opacity[still.number] > _DAMAGED
        trust = np.stack(over_time.trust(still.grey, references, mask), -1)
        found.append(
            {
                "input": over_time.finder_input(still, references),
                "references": np.stack([r.grey for r in references], -1),
                "trust": trust,
                "output": clip.clean[still.number],
                "opacity": clip.opacity[still.number],
                "worn": still.grey,
            }
        )
        return over_time.Found(mask, trust)

    passed = over_time.first_pass(frames, layout)
    for _ in over_time.second_pass(passed, layout, look, grain=False):
        pass
    return found


def _stacked(rows: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def make_draw(
    options: FinderOptions, material: "film_dirt.Sources"
) -> Callable[[int], dict[str, np.ndarray]]:
    """Returns what draws a step's batch by its number, from 0.

    The examples of some clips are mixed and given to as many steps as they are enough
    for; the clips of the next such block are drawn on the way, so that no step waits
    for all of them.
    """
    clips = max(_CLIPS, -(-options.batch_size // _FRAMES))
    steps = clips * _FRAMES // options.batch_size
    held: dict[int, list[dict[str, np.ndarray]]] = {}

    def have(block: int, count: int) -> list[dict[str, np.ndarray]]:
        """Draws clips of a block until there are so many."""
        rows = held.setdefault(block, [])
        while len(rows) < count * _FRAMES:
            clip = block * clips + len(rows) // _FRAMES
            rng = np.random.default_rng([options.seed, 0, clip])
            drawn = film_dirt.draw(rng, material, _FRAMES, options.image_size)
            rows += examples(drawn)
        return rows

    def draw(number: int) -> dict[str, np.ndarray]:
        block, turn = divmod(number, steps)
        rows = have(block, clips)
        rng = np.random.default_rng([options.seed, 1, block])
        first = turn * options.batch_size
        order = rng.permutation(len(rows))[first : first + options.batch_size]
        batch = _stacked([rows[row] for row in order])
        have(block + 1, -(-clips * (turn + 1) // steps))
        for past in [other for other in held if other < block]:
            del held[past]
        return batch

    return draw


def _found(
    model: Any, parameters: Any, batch: Mapping[str, Any]
) -> tuple[jnp.ndarray, jnp.ndarray]:
    """Returns the logits of damage, and what it is filled with, 0 to 255."""
    outputs = model.apply(parameters, batch["input"])
    preferred = jnp.log(batch["trust"] + 1e-6) + outputs[..., 1:]
    share = jax.nn.softmax(preferred, axis=-1)
    filled = (share * batch["references"].astype(jnp.float32)).sum(-1)
    return outputs[..., 0], filled


def film_loss(
    model: Any,
    parameters: Any,
    batch: Mapping[str, jnp.ndarray],
    *,
    key: jax.Array,
    microbatch: int,
) -> tuple[jnp.ndarray, dict[str, jnp.ndarray]]:
    """Returns the loss of a batch: that of finding, and that of the fill.

    See `step.Objective`.
    """
    del key, microbatch
    logits, fill = _found(model, parameters, batch)
    clean, worn = batch["output"], batch["worn"].astype(jnp.float32)
    opacity = batch["opacity"].astype(jnp.float32) / 255
    target = jnp.minimum(1.0, 2.5 * opacity)
    visible = jnp.abs(worn - clean) / 255
    weight = 1 + 4 * jnp.minimum(1.0, 4 * visible) * (opacity > 0.05)
    found = optax.sigmoid_binary_cross_entropy(logits, target)
    probability = jax.nn.sigmoid(logits)
    both = (probability * target).sum((1, 2))
    dice = 1 - (2 * both + 20) / (probability.sum((1, 2)) + target.sum((1, 2)) + 20)
    wrong = jnp.sqrt(((fill - clean) / 255) ** 2 + 1e-4)
    filled = (wrong * (opacity > 0.05)).sum() / ((opacity > 0.05).sum() + 100)
    result = worn + jax.lax.stop_gradient(fill - worn) * probability
    squared = (((result - clean) / 255) ** 2).mean()
    loss = (found * weight).mean() + 0.2 * dice.mean() + 2 * filled + 30 * squared
    return loss, {}


def make_validate(options: FinderOptions, material: "film_dirt.Sources") -> Callable:
    """Returns what makes the measuring of weights, see `validation.MakeValidate`.

    It gives "average_precision" of finding, where there is damage; and "input_psnr"
    and "psnr", before and after filling what is found, of all pixels together, dB.
    """

    @functools.cache
    def clips() -> list[dict[str, np.ndarray]]:
        rngs = (np.random.default_rng([_MEASURED_SEED, n]) for n in range(_MEASURED))
        return [
            _stacked(
                examples(film_dirt.draw(rng, material, _FRAMES, options.image_size))
            )
            for rng in rngs
        ]

    def make(model: Any) -> Callable:
        compute = jax.jit(functools.partial(_found, model))

        def validate(parameters: Any) -> dict[str, float]:
            truth, scores, squared = [], [], {"input_psnr": [], "psnr": []}
            for clip in clips():
                logits, fill = jax.device_get(compute(parameters, clip))
                truth.append(clip["opacity"] > finder_quality.DAMAGED)
                scores.append(logits)
                worn = clip["worn"].astype(np.float32)
                result = np.where(logits > 0, fill, worn)
                for name, image in (("input_psnr", worn), ("psnr", result)):
                    squared[name].append(np.square((image - clip["output"]) / 255))
            figures, damaged = {}, np.stack(truth)
            if damaged.any():
                precision = finder_quality.average_precision(damaged, np.stack(scores))
                figures["average_precision"] = round(precision, 4)
            for name, errors_of in squared.items():
                decibel = -10 * np.log10(max(np.mean(errors_of), 1e-10))
                figures[name] = round(float(decibel), 3)
            return figures

        return validate

    return make


def make_feed(
    options: FinderOptions,
    training: "film_dirt.Sources",
    measured: "film_dirt.Sources",
    described: Mapping[str, Any],
) -> "feed.Feed":
    """Returns what draws the batches of a run, on the host, and measures weights.

    Args:
      options: of the run.
      training: what clips are drawn from.
      measured: likewise, to measure weights.
      described: see `load`.

    Returns:
      The feed; an epoch has as many pairs as there are photographs and frames.
    """
    batches, clock = feed.draw_ahead(make_draw(options, training))
    return feed.Feed(
        count=described["pairs"]["train"],
        names=(),
        make_run=feed.streamed_run(options, batches),
        make_validate=make_validate(options, measured),
        bad={},
        describe=lambda: dict(described),
        clock=clock,
    )


def make_task(options: FinderOptions) -> "run.Task":
    """Returns what is trained, and what it begins with.

    Raises:
      InputError: where `--start` names weights of another network.
    """
    model = film_finder.FilmFinder()
    blank = jnp.zeros((1, 32, 32, film_finder.CHANNELS))
    initial = jax.jit(model.init)(jax.random.key(options.seed), blank)
    if options.start != "random":
        name, initial = pretrained.load(options.start)
        if name != film_finder.NAME:
            raise errors.InputError(
                f"--start={options.start}: weights of {name}, not of {film_finder.NAME}"
            )
        initial = jax.tree.map(jnp.asarray, initial)
    return run.Task(model, film_loss, initial)


def _describe_start(options: FinderOptions) -> dict[str, Any]:
    """Returns what a run begins with, for the card."""
    if options.start == "random":
        return {}
    return pretrain.describe_weights(pathlib.Path(options.start))


def export(
    options: FinderOptions,
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
      The weights file.
    """
    total = feed.total_steps(options, described["pairs"]["train"])
    material = described["card"] | {"sha256": described["fingerprint"]}
    before = began.get("training data", {})
    if before.get("sha256") == material["sha256"]:
        # The same material: what was noted of its licences by hand goes with it.
        material = before | material
    card = {
        "training data": material,
        "recipe": pretrain.what_decides(
            options, also=("steps", "decay_from"), but=("loss", "ssim_weight")
        ),
        "steps": step,
        "complete": step == total,
        "pairs seen": step * options.batch_size,
        "hours": round(pretrain.hours(options), 2),
        "parameters": models.count_parameters(parameters),
        "figures": dict(figures),
        "command": pretrain.command(
            options, "experiments.pretrain.film_finder", _GENERAL
        ),
        "limits": _LIMITS,
        **({"began with": dict(began)} if began else {}),
    }
    path, parameters = weights_file(options), jax.device_get(parameters)
    pretrained.save(path, film_finder.NAME, parameters, card, dtype=np.float16)
    return path


def weights_file(options: FinderOptions) -> pathlib.Path:
    """Returns where a run's weights are written."""
    path = pathlib.Path(options.workdir) / f"{film_finder.NAME}.safetensors"
    return pathlib.Path(options.out or path)


def train(options: FinderOptions) -> "run.Result":
    """Trains, or goes on, and writes the weights so far.

    Args:
      options: the run.

    Returns:
      How the run ended.

    Raises:
      InputError: for bad options or data, or a workdir of another run.
    """
    cv2.setNumThreads(1)
    training, measured, described = load(options)
    source = make_feed(options, training, measured, described)
    task = make_task(options)
    began = pretrain.note_start(options.workdir, lambda: _describe_start(options))
    write = functools.partial(export, options, described, began)
    return pretrain.train_and_export(options, source, task, write)


def main(options: FinderOptions) -> None:
    """Entry point."""
    backend.keep_freed_memory()
    backend.cache_compilations()
    done = train(options)
    again = "" if done.step == done.total_steps else "; run it again to go on"
    print(f"{weights_file(options)}: step {done.step} of {done.total_steps}{again}")


if __name__ == "__main__":
    cli.run(main, FinderOptions)
