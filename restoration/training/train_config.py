"""Options of a training run, and the file that keeps them."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from restoration.base import config, errors

# Of `losses.LOSSES`, which cannot be asked without JAX.
LOSSES = ("mse", "l1", "charbonnier", "psnr")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """All that defines a training run; saved as `config.json` in its workdir."""

    data_dir: str = config.option(
        help="paired folder: input/ and output/, split or not; or what prepare made"
    )
    workdir: str = config.option(
        help="folder for checkpoints and metrics; resumed if used"
    )
    model: str = config.option(
        "basic", help="model name, see python -m restoration.models"
    )
    epochs: int = config.option(
        100, help="passes over the training pairs", minimum=1, maximum=10**9
    )
    fraction: float = config.option(
        1.0,
        help="fraction of all pairs to use (the seed: 0.02, 0.12, 0.32)",
        minimum=0.0,
        maximum=1.0,
    )
    batch_size: int = config.option(
        16, help="pairs a step, over all devices", minimum=1, maximum=1 << 16
    )
    image_size: int = config.option(
        128, help="side of the square crops, pixels", minimum=16, maximum=1 << 14
    )
    seed: int = config.option(
        0,
        help="seed of weights, order, crops and flips",
        minimum=0,
        maximum=2**31 - 1,
    )
    loss: str = config.option("mse", help="training loss", choices=LOSSES)
    ssim_weight: float = config.option(
        0.0, help="weight of 1 - SSIM added to the loss", minimum=0.0
    )
    optimizer: str = config.option(
        "adam",
        help="adam: as Keras has it; muon for kernels of hidden layers (its learning "
        "rate is some 1e-2), Adam at a tenth of it for the rest",
        choices=("adam", "muon"),
        later=True,
    )
    learning_rate: float = config.option(1e-3, help="peak learning rate", minimum=0.0)
    schedule: str = config.option(
        "constant", help="learning rate over the run", choices=("constant", "cosine")
    )
    warmup_steps: int = config.option(
        0, help="steps of linear warm-up", minimum=0, maximum=10**9
    )
    clip_norm: float = config.option(
        0.0, help="global gradient norm limit; 0: none", minimum=0.0
    )
    ema_decay: float = config.option(
        0.0,
        help="decay of the averaged weights that are evaluated; 0: none",
        minimum=0.0,
        maximum=0.99999,
    )
    accumulate: int = config.option(
        0, help="gradient pieces a batch is split into; 0: by backend", minimum=0
    )
    bfloat16: bool = config.option(
        False, help="compute in bfloat16, parameters in float32"
    )
    augment: bool = config.option(True, help="random flips of the training crops")
    cache: str = config.option(
        "none",
        help="device: keep all training pairs in its memory, where they fit",
        choices=("none", "device"),
    )
    checkpoint_every: int = config.option(
        0, help="steps between checkpoints; 0: at each evaluation", minimum=0
    )
    keep: int = config.option(
        2, help="latest checkpoints to keep, beside the best", minimum=1
    )
    evaluate_every: int = config.option(1, help="epochs between evaluations", minimum=1)
    log_every: int = config.option(
        0, help="steps between training log lines; 0: each epoch", minimum=0
    )
    bad_numbers: str = config.option(
        "stop",
        help="at a loss or gradient that is not finite: stop before it, or skip it",
        choices=("stop", "skip"),
    )
    bad_pairs: str = config.option(
        "skip",
        help="training pairs that cannot be read: skip, taking the next pair, or stop",
        choices=("skip", "stop"),
    )
    deterministic: bool = config.option(
        False, help="on a GPU: the same bits each time, slower; a CPU gives them anyway"
    )

    def __post_init__(self):
        """Checks limits and choices."""
        config.check(self)
        if self.fraction <= 0:
            raise errors.InputError(f"--fraction={self.fraction}: must be above 0")


# What may change between the parts of a resumed run.
_FREE = ("data_dir", "workdir", "epochs", "cache", "checkpoint_every", "keep",
         "evaluate_every", "log_every", "bad_numbers", "bad_pairs")  # fmt: skip


def changes(before: Mapping[str, Any], after: TrainConfig) -> list[str]:
    """Returns in words how a run differs from one that it is to go on with.

    Args:
      before: the fields of the earlier configuration.
      after: the later one.

    Returns:
      "name before -> after" for each field that may not change.
    """
    # The learning rate of a schedule depends on the number of steps.
    free = set(_FREE) - ({"epochs"} if after.schedule != "constant" else set())
    return config.differences(before, after, free)


def load_config(workdir: str | os.PathLike) -> TrainConfig:
    """Returns the configuration of a training run.

    Args:
      workdir: the run's folder.

    Returns:
      The configuration that `train` saved.

    Raises:
      InputError: when there is none, or it is malformed.
    """
    path = pathlib.Path(workdir) / "config.json"
    if not path.is_file():
        raise errors.InputError(
            f"{path}: no such file; train first: python -m restoration.train "
            f"--workdir {workdir} --data_dir ..."
        )
    text = path.read_text(encoding="utf-8", errors="replace")
    return config.from_json(text, TrainConfig, source=str(path))
