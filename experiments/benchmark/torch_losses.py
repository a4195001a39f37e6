"""The losses of the finder and the filler in PyTorch, as `pretrain_masks` has them.

Batches hold float (batch, channels, height, width) in [0, 1].
"""

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional

from experiments.benchmark import torch_models

Batch = Mapping[str, torch.Tensor]


def _found_loss(
    logits: torch.Tensor, opacity: torch.Tensor, seen: torch.Tensor
) -> torch.Tensor:
    target = torch.clamp(opacity / 0.4, max=1)
    weight = torch.where(opacity > 0, torch.clamp(seen, min=0.15), 1.0)
    entropy = functional.binary_cross_entropy_with_logits(logits, target, weight)
    found = torch.sigmoid(logits)
    common = (found * target).sum()
    dice = (2 * common + 1) / (found.sum() + target.sum() + 1)
    return entropy + 0.3 * (1 - dice)


def finder_loss(
    model: nn.Module, batch: Batch, window: tuple[int, int, int]
) -> torch.Tensor:
    """Returns the loss of a finder: at half size, and in a window at full size.

    Args:
      model: `torch_models.Finder`.
      batch: "input", "mask" and "seen".
      window: (row, column, side) in pixels, multiples of 4.
    """
    opacity, seen = batch["mask"], batch["seen"]
    logits, coarse = model(batch["input"], window)
    parts = (torch_models.part(x, window, 1) for x in (opacity, seen))
    halves = (functional.avg_pool2d(x, 2) for x in (opacity, seen))
    return _found_loss(logits, *parts) + _found_loss(coarse, *halves)


def filler_loss(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Returns what a filling differs by inside the masks.

    Args:
      model: `torch_models.Filler`.
      batch: "input", "output" and "given".
    """
    hidden = batch["given"] > 0
    filled = model(batch["input"], batch["given"])
    difference = torch.where(hidden, filled - batch["output"], 0.0)
    share = hidden.sum((1, 2, 3)) + 64.0

    def mean(x: torch.Tensor) -> torch.Tensor:
        size = torch.sqrt(x.square() + 1e-6) - 1e-3
        return (size.sum((1, 2, 3)) / (3 * share)).mean()

    down = difference[:, :, 1:] - difference[:, :, :-1]
    across = difference[:, :, :, 1:] - difference[:, :, :, :-1]
    return mean(difference) + 0.5 * (mean(down) + mean(across))
