"""Metrics of the images in batches, and their means over all images."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from etils import epy

from restoration.devices import processes
from restoration.evaluation import scores

with epy.lazy_imports():
    import jax


SIDES = ("input", "restored")


def measure(
    compute: Callable[[dict], tuple[dict, Any]],
    batches: Iterable[dict],
    on_image: Callable[[str, np.ndarray], None] | None = None,
) -> list[scores.Score]:
    """Measures every image of some batches once.

    Args:
      compute: takes a batch's "input" and "output" and returns the metrics of both
        sides, (batch,) each, and the restored images (see `step.make_eval_step`).
      batches: with "mask" and "name", see `input_pipeline.evaluation_batches`.
      on_image: called with the name and the restored image, float (h, w, 3), of each.

    Returns:
      The metrics of each image, of its input and of the restored image.
    """
    measured = []
    for batch in batches:
        values, restored = compute({s: batch[s] for s in ("input", "output")})
        values = jax.device_get(values)
        kept = np.flatnonzero(batch["mask"])
        for name, row in zip(batch["name"], kept, strict=True):
            sides = {
                side: {metric: float(v[row]) for metric, v in by_metric.items()}
                for side, by_metric in values.items()
            }
            measured.append(scores.Score(name, **sides))
            if on_image:
                on_image(name, np.asarray(restored[row]))
    return measured


def gather(measured: Sequence[scores.Score]) -> list[scores.Score]:
    """Returns the scores of all processes. Every process must call it.

    Args:
      measured: the scores of this process's share of the images.

    Returns:
      Every image once, by name: the order does not depend on the number of processes.
    """
    rows = [[score.name, score.input, score.restored] for score in measured]
    found = [scores.Score(*row) for part in processes.gather(rows) for row in part]
    return sorted(found, key=lambda score: score.name)


def means(measured: Sequence[scores.Score]) -> dict[str, dict[str, float]]:
    """Returns the mean over images of each metric of both sides, in float64."""
    return {
        side: {
            metric: float(np.mean([getattr(score, side)[metric] for score in measured]))
            for metric in scores.METRICS
        }
        for side in SIDES
    }
