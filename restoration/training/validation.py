"""Measuring the weights of a run between its steps."""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import jax
import numpy as np

from restoration.data import drawn_pairs
from restoration.devices import sharding
from restoration.evaluation import measure
from restoration.training import step, train_config

# Pictures damaged for validation of each kind, and computed at once.
_PAIRS, _BATCH = 16, 4

# Side of the validation crops, pixels, at most.
_SIDE = 256


class Validate(Protocol):
    """Measures weights."""

    def __call__(self, parameters: Any) -> dict[str, float]:
        """Returns numbers by name; the best checkpoint has the highest `score`."""


def score(figures: Mapping[str, float]) -> float | None:
    """Returns what weights are judged by: "score" of their figures, else "psnr"."""
    return figures.get("score", figures.get("psnr"))


class MakeValidate(Protocol):
    """Makes the measuring of a network's weights."""

    def __call__(self, model: Any) -> Validate:
        """Returns what measures the weights of a Flax module."""


def of_pairs(batches: Callable[[], Iterator[dict]]) -> MakeValidate:
    """Measures by pairs: means over all images of all processes.

    Args:
      batches: gives evaluation batches of this process's share.

    Returns:
      What makes the measuring; it gives "loss" (the mean squared error), "psnr" and
      "ssim".
    """

    def make_validate(model: Any) -> Validate:
        here = sharding.make_mesh(local=True)
        split, whole = sharding.split_batch(here), sharding.replicated(here)
        eval_step = jax.jit(step.make_eval_step(model))

        def validate(parameters: Any) -> dict[str, float]:
            parameters = sharding.keep_local(parameters, here)

            def compute(batch: dict) -> tuple:
                even = len(batch["input"]) % jax.local_device_count() == 0
                return eval_step(
                    parameters, jax.device_put(batch, split if even else whole)
                )

            measured = measure.gather(measure.measure(compute, batches()))
            means = measure.means(measured)["restored"]
            return {"loss": means.pop("mse"), **means}

        return validate

    return make_validate


def of_drawn(
    options: train_config.TrainConfig, held_out: drawn_pairs.Material
) -> MakeValidate:
    """Measures by damage drawn on held-out pictures, always the same.

    Args:
      options: of the run.
      held_out: pieces and masks to draw from.

    Returns:
      What makes the measuring, in float32 as `restore` computes. It gives means:
      `film_psnr`, `photo_psnr`, `soft_psnr` of softly scanned film, their `_ssim` and
      `_input_psnr`, `clean_psnr` of clean pictures restored; and "psnr" and "loss"
      (the mean squared error), of film and prints together.
    """
    recipe = drawn_pairs.recipe_of(options)._replace(
        image_size=min(_SIDE, options.piece_size),
        clean_share=0.0,
        spotless_share=0.0,
        toned_share=0.0,
    )

    @functools.cache  # drawing is compiled for minutes
    def validate_of(exact: Any) -> Validate:
        drawn = {}
        for name, photo_share, soft_share in (
            ("film", 0.0, 0.0),
            ("photo", 1.0, 0.0),
            ("soft", 0.0, 1.0),
        ):
            kinds = recipe._replace(photo_share=photo_share, soft_share=soft_share)
            draw = jax.jit(
                lambda key, material, kinds=kinds: drawn_pairs.draw_pairs(
                    key, material, kinds, _PAIRS
                )
            )
            drawn[name] = jax.device_get(draw(jax.random.key(20_770_525), held_out))
        drawn["clean"] = {side: drawn["film"]["output"] for side in ("input", "output")}
        eval_step = jax.jit(step.make_eval_step(exact))
        here = sharding.make_mesh(local=True)

        def measured(parameters: Any, pairs: dict) -> dict[str, dict[str, float]]:
            parts = [
                eval_step(
                    parameters,
                    {side: x[first : first + _BATCH] for side, x in pairs.items()},
                )[0]
                for first in range(0, _PAIRS, _BATCH)
            ]
            joined = jax.tree.map(lambda *values: np.concatenate(values), *parts)
            return jax.tree.map(lambda values: float(values.mean()), joined)

        def validate(parameters: Any) -> dict[str, float]:
            parameters = sharding.keep_local(parameters, here)
            figures, losses = {}, {}
            for name, pairs in drawn.items():
                found = measured(parameters, pairs)
                losses[name] = found["restored"]["mse"]
                figures[f"{name}_psnr"] = round(found["restored"]["psnr"], 5)
                figures[f"{name}_ssim"] = round(found["restored"]["ssim"], 5)
                figures[f"{name}_input_psnr"] = round(found["input"]["psnr"], 5)
            return {
                "loss": (losses["film"] + losses["photo"]) / 2,
                "psnr": (figures["film_psnr"] + figures["photo_psnr"]) / 2,
                **figures,
            }

        return validate

    def make_validate(model: Any) -> Validate:
        return validate_of(
            model.clone(dtype=None) if hasattr(model, "dtype") else model
        )

    return make_validate
