"""Trains the small network that finds damage in films.

    python -m experiments.pretrain.film_finder --films a.mp4 --films b.mkv \
        --data_dir PHOTOGRAPHS --overlays SCANS --workdir RUN --minutes 45

The same command goes on where it stopped. `--out` writes weights and their card.
"""

import dataclasses
import pathlib
import time

import numpy as np
from etils import epy

from restoration.base import cli, config

with epy.lazy_imports():
    import cv2
    import jax
    import jax.numpy as jnp
    import optax

    from experiments.pretrain import film_dirt, sources
    from restoration import models
    from restoration.film import over_time, stills
    from restoration.models import film_finder, pretrained

# Frames of a drawn clip: all become examples, those at its ends with neighbours on
# one side only.
_FRAMES = 9

# How much of each step's weights goes into their average.
_AVERAGE = 0.005

# Examples that are drawn ahead and mixed.
_MIXED = 128


@dataclasses.dataclass(frozen=True)
class FinderOptions:
    """Options of `python -m experiments.pretrain.film_finder`."""

    films: tuple[str, ...] = config.option((), help="clean films; repeatable")
    data_dir: str = config.option("", help="folder of clean photographs")
    overlays: str = config.option("", help="folder of scanned dirt, a folder a kind")
    workdir: str = config.option("", help="folder of the run; resumed")
    steps: int = config.option(4000, help="steps in all", minimum=1)
    minutes: float = config.option(45.0, help="stop after so long", minimum=0.0)
    batch_size: int = config.option(6, help="frames a step", minimum=1)
    image_size: int = config.option(128, help="side of the crops", minimum=32)
    learning_rate: float = config.option(2e-3, help="peak learning rate")
    sources: str = config.option(
        "", help="JSON list of photographs that may be used; see experiments.pretrain"
    )
    photographs: int = config.option(200, help="photographs that are read", minimum=1)
    seed: int = config.option(0, help="seed of weights and clips")
    out: str = config.option("", help="write weights and card here, then stop")


def examples(material, rng, side):
    """Yields examples without end, mixed: (input, references, trust, clean, opacity).

    Arrays are (side, side, channels): what the network sees, the luma of its
    references, how they are trusted without it, and the worn frame's target.
    """
    layout = stills.Layout(8, "gray", full=True)
    held = []
    while True:
        clip = film_dirt.draw(rng, material, _FRAMES, side)
        frames = (stills.Still(i, (f,), f) for i, f in enumerate(clip.worn))
        passed = over_time.first_pass(frames, layout)

        def look(still, references, clip=clip):
            mask = clip.opacity[still.number] > 12
            held.append(
                (
                    over_time.finder_input(still, references),
                    np.stack([r.grey for r in references], -1),
                    over_time.trust(still.grey, references, mask),
                    clip.clean[still.number],
                    clip.opacity[still.number],
                    still.grey,
                )
            )
            return over_time.Found(mask, held[-1][2])

        for _ in over_time.second_pass(passed, layout, look, grain=False):
            pass
        while len(held) > _MIXED:
            yield held.pop(int(rng.integers(len(held))))


def loss_of(parameters, batch):
    """Returns the loss of a batch: that of finding, and that of the fill."""
    inputs, references, trust, clean, opacity, worn = batch
    outputs = film_finder.FilmFinder().apply(parameters, inputs)
    logits = outputs[..., 0]
    opacity = opacity.astype(jnp.float32) / 255
    target = jnp.minimum(1.0, 2.5 * opacity)
    visible = jnp.abs(worn.astype(jnp.float32) - clean) / 255
    weight = 1 + 4 * jnp.minimum(1.0, 4 * visible) * (opacity > 0.05)
    found = optax.sigmoid_binary_cross_entropy(logits, target)
    probability = jax.nn.sigmoid(logits)
    both = (probability * target).sum((1, 2))
    dice = 1 - (2 * both + 20) / (probability.sum((1, 2)) + target.sum((1, 2)) + 20)
    share = jax.nn.softmax(jnp.log(trust + 1e-6) + outputs[..., 1:], axis=-1)
    fill = (share * references.astype(jnp.float32)).sum(-1)
    wrong = jnp.sqrt(((fill - clean) / 255) ** 2 + 1e-4)
    filled = (wrong * (opacity > 0.05)).sum() / ((opacity > 0.05).sum() + 100)
    worn = worn.astype(jnp.float32)
    result = worn + jax.lax.stop_gradient(fill - worn) * probability
    squared = (((result - clean) / 255) ** 2).mean()
    return (found * weight).mean() + 0.2 * dice.mean() + 2 * filled + 30 * squared


def main(options: FinderOptions) -> int:
    """Trains, or writes what was trained."""
    folder = pathlib.Path(options.workdir)
    folder.mkdir(parents=True, exist_ok=True)
    saved = folder / "state.npz"
    parameters = film_finder.FilmFinder().init(
        jax.random.key(options.seed), jnp.zeros((1, 32, 32, film_finder.CHANNELS))
    )

    def schedule(count):
        # Flat, then down over the last third: --steps may be changed on the way.
        left = (options.steps - count) / (0.3 * options.steps)
        return options.learning_rate * jnp.clip(jnp.minimum(count / 100, left), 0, 1)

    tx = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=1e-4)
    )
    # Averaged weights are what is used.
    state = (parameters, tx.init(parameters), parameters)
    step = 0
    if saved.is_file():
        with np.load(saved, allow_pickle=False) as held:
            step = int(held["step"])
            leaves = [held[f"leaf{i}"] for i in range(len(jax.tree.leaves(state)))]
        state = jax.tree.unflatten(jax.tree.structure(state), leaves)
    origins = sources.read_sources(options.sources or sources.SOURCES)
    photographs = sources.find(options.data_dir, origins)
    if options.out:
        card = {
            "training data": {
                "films": [pathlib.Path(f).name for f in options.films],
                "photographs": sources.counts(
                    list(photographs)[
                        :: max(1, len(photographs) // options.photographs)
                    ],
                    origins,
                ),
                "overlays": "FilmDamageSimulator, MIT",
            },
            "recipe": {
                k: v
                for k, v in dataclasses.asdict(options).items()
                if k in ("batch_size", "image_size", "learning_rate", "seed", "steps")
            },
            "step": step,
            "parameters": models.count_parameters(parameters),
            "command": "python -m experiments.pretrain.film_finder --films FILM... "
            f"--data_dir PHOTOGRAPHS --overlays SCANS --workdir RUN --steps={step}",
            "limits": "Trained on drawn wear alone; what local flicker and motion that "
            "no flow follows leave may be marked, and is then filled from neighbours.",
        }
        # An average that began with the weights of step 0 still holds some of them.
        left = (1 - _AVERAGE) ** step
        start = film_finder.FilmFinder().init(
            jax.random.key(options.seed), jnp.zeros((1, 32, 32, film_finder.CHANNELS))
        )
        average = jax.tree.map(
            lambda mean, first: (mean - left * first) / (1 - left), state[2], start
        )
        pretrained.save(options.out, film_finder.NAME, average, card, dtype=np.float16)
        return 0

    @jax.jit
    def update(state, batch):
        parameters, kept, average = state
        loss, gradient = jax.value_and_grad(loss_of)(parameters, batch)
        change, kept = tx.update(gradient, kept, parameters)
        parameters = optax.apply_updates(parameters, change)
        average = optax.incremental_update(parameters, average, _AVERAGE)
        return (parameters, kept, average), loss

    def save():
        leaves = {
            f"leaf{i}": np.asarray(x) for i, x in enumerate(jax.tree.leaves(state))
        }
        temporary = folder / "state.tmp.npz"
        np.savez(temporary, step=step, **leaves)
        temporary.replace(saved)

    cv2.setNumThreads(1)
    rng = np.random.default_rng([options.seed, step])
    material = film_dirt.read_sources(
        [pathlib.Path(f) for f in options.films],
        photographs,
        pathlib.Path(options.overlays),
        options.photographs,
    )
    feed = examples(material, rng, options.image_size)
    start, losses, told = time.monotonic(), [], time.monotonic()
    while step < options.steps and time.monotonic() - start < 60 * options.minutes:
        batch = [
            np.stack(x)
            for x in zip(*(next(feed) for _ in range(options.batch_size)), strict=True)
        ]
        state, loss = update(state, batch)
        losses.append(float(loss))
        step += 1
        if time.monotonic() - told > 30:
            told = time.monotonic()
            print(f"step {step} loss {np.mean(losses[-50:]):.4f}", flush=True)
            save()
    save()
    return 0


if __name__ == "__main__":
    cli.run(main, FinderOptions)
