"""What is damage in a film's frames: the learned finder, the spikes, or nothing."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epy

from restoration.film import over_time, stills
from restoration.inference import film_jobs

with epy.lazy_imports():
    import cv2
    import jax

    from restoration.devices import backend
    from restoration.models import film_finder, pretrained

# A finder is applied to strips of so many pixels, and sees so many rows beyond.
_STRIP, _BEYOND = 1_500_000, 96

# The logit above which something is damage, at a sensitivity of 0.5.
_LIMIT = -2.25

# What lies between damage on both sides, within so many pixels, is damaged too.
_CLOSED = 5

# Above the limit that marks damage, logits over which a pixel is filled ever more:
# where it is unsure, the frame itself is part of the fill.
_UNSURE = 3.0

# The least share of a reference before the network prefers one, and how far it may: e
# to the power of it.
_LEAST_TRUST, _MOST = 1e-6, 50.0

# The learned finder's weights, where they are installed.
WEIGHTS = pathlib.Path(__file__).parents[1] / "weights" / "film_finder.safetensors"

# Thresholds of the spike detector at sensitivity 0, 0.5 and 1.
_HIGH = (24.0, 12.0, 7.0)


def load_finder(settings: film_jobs.Settings) -> over_time.Finder:
    """Returns what finds damage.

    Raises:
      InputError: where the network is asked for and its weights are not there.
    """
    below, middle, above = _HIGH
    part = settings.sensitivity * 2
    high = below + (middle - below) * part
    if part > 1:
        high = middle + (above - middle) * (part - 1)
    spikes = settings.film_finder == "spikes"
    if spikes or (settings.film_finder == "auto" and not WEIGHTS.is_file()):
        return over_time.spike_finder(high, high * 5 / 12)
    _, parameters = pretrained.load(WEIGHTS)
    return network_finder(parameters, settings.sensitivity)


def network_finder(parameters: Any, sensitivity: float) -> over_time.Finder:
    """Returns the learned finder.

    Args:
      parameters: of `film_finder.FilmFinder`.
      sensitivity: 0 to 1; at 0.5 neither the rim of a blotch on a real film is left
        nor more than that is marked.
    """
    model = film_finder.FilmFinder()
    options = backend.compiler_options(jax.devices()[0])
    compute = jax.jit(model.apply, compiler_options=options)
    limit = 8 * (0.5 - sensitivity) + _LIMIT
    closing = np.ones((_CLOSED, _CLOSED), np.uint8)

    def outputs(inputs: np.ndarray) -> np.ndarray:
        height, width = inputs.shape[:2]
        edges = ((0, -height % model.stride), (0, -width % model.stride), (0, 0))
        if np.any(edges):
            inputs = np.pad(inputs, edges, mode="symmetric")
        return np.asarray(compute(parameters, inputs[None]))[0, :height, :width]

    def find_in_strip(
        still: stills.Still, references: Sequence[over_time.Reference]
    ) -> over_time.Found:
        found = outputs(over_time.finder_input(still, references))
        logit, *preferred = cv2.split(found)
        logit = cv2.morphologyEx(logit, cv2.MORPH_CLOSE, closing)
        mask = logit > limit
        trusted = over_time.trust(still.grey, references, mask)
        weights = [
            (one + _LEAST_TRUST) * np.exp(np.clip(more, -_MOST, _MOST))
            for one, more in zip(trusted, preferred, strict=True)
        ]
        share = np.clip((logit - limit) / _UNSURE, 0.0, 1.0)
        return over_time.Found(mask, cv2.merge(over_time.shares(weights)), share)

    def find(
        still: stills.Still, references: Sequence[over_time.Reference]
    ) -> over_time.Found:
        height, width = still.grey.shape
        step = max(model.stride, _STRIP // width // model.stride * model.stride)
        mask = np.empty((height, width), bool)
        weights = np.empty((height, width, len(references)), np.float32)
        share = np.empty((height, width), np.float32)
        for start in range(0, height, step):
            low, high = max(0, start - _BEYOND), min(height, start + step + _BEYOND)
            # A frame may be a reference twice, and stays one object.
            cut = {
                r.offset: dataclasses.replace(
                    r, field=r.field[low:high], grey=r.grey[low:high]
                )
                for r in references
            }
            seen = find_in_strip(
                dataclasses.replace(still, grey=still.grey[low:high]),
                [cut[r.offset] for r in references],
            )
            end = min(height, start + step)
            for whole, part in (
                (mask, seen.mask), (weights, seen.weights), (share, seen.share),
            ):  # fmt: skip
                whole[start:end] = part[start - low : end - low]
        return over_time.Found(mask, weights, share)

    return find


def nothing(
    still: stills.Still, references: Sequence[over_time.Reference]
) -> over_time.Found:
    """Finds nothing: only what the user marks is filled."""
    mask = np.zeros(still.grey.shape, bool)
    marked = mask if still.given is None else still.given
    trusted = over_time.trust(still.grey, references, marked)
    return over_time.Found(mask, cv2.merge(trusted))
