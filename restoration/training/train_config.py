"""Options of a training run, and the file that keeps them."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from restoration.base import config, errors
from restoration.data import draw_config

# Of `losses.LOSSES`, which cannot be asked without JAX.
LOSSES = ("mse", "l1", "charbonnier", "psnr")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What every training run has, whatever its network, loss and data are.

    Attributes:
      steps_are_free: whether `epochs`, `steps` and `decay_from` may change between the
        parts of a run though learning rates follow from them: a run that may be made
        longer.
    """

    steps_are_free: ClassVar[bool] = False

    workdir: str = config.option(
        help="folder for checkpoints and metrics; resumed if used", free=True
    )
    model: str = config.option(
        "basic", help="model name, see python -m restoration.models"
    )
    start: str = config.option(
        "random",
        help="initial weights: random, identity (of an autoencoder that shows its "
        "input), the name of shipped weights, or a .safetensors file",
        later=True,
    )
    epochs: int = config.option(
        100, help="passes over the training pairs", minimum=1, maximum=10**9, free=True
    )
    steps: int = config.option(
        0,
        help="training steps, in place of --epochs; 0: by epochs",
        minimum=0,
        maximum=10**9,
        later=True,
        free=True,
    )
    minutes: float = config.option(
        0.0,
        help="save and stop after so long; 0: at the end",
        minimum=0.0,
        later=True,
        free=True,
    )
    batch_size: int = config.option(
        16, help="pairs a step, over all devices", minimum=1, maximum=1 << 16
    )
    image_size: int = config.option(
        128, help="side of the square crops, pixels", minimum=16, maximum=1 << 14
    )
    seed: int = config.option(
        0,
        help="seed of weights, order, crops, flips and drawn damage",
        minimum=0,
        maximum=2**31 - 1,
    )
    loss: str = config.option("mse", help="training loss", choices=LOSSES)
    ssim_weight: float = config.option(
        0.0, help="weight of 1 - SSIM added to the loss", minimum=0.0
    )
    optimizer: str = config.option(
        "adam",
        help="adam: as Keras has it; adamw; muon for kernels of hidden layers (its "
        "learning rate is some 1e-2), Adam at a tenth of it for the rest",
        choices=("adam", "adamw", "muon"),
        later=True,
    )
    learning_rate: float = config.option(1e-3, help="peak learning rate", minimum=0.0)
    beta2: float = config.option(
        0.999,
        help="decay of adamw's second moment",
        minimum=0.0,
        maximum=0.99999,
        later=True,
    )
    weight_decay: float = config.option(
        0.0, help="of kernels, by adamw and muon", minimum=0.0, later=True
    )
    schedule: str = config.option(
        "constant", help="learning rate over the run", choices=("constant", "cosine")
    )
    decay_from: int = config.option(
        0,
        help="step from which cosine falls, after the warm-up",
        minimum=0,
        maximum=10**9,
        later=True,
    )
    cosine_end: float = config.option(
        0.0,
        help="where cosine ends, as a share of the peak",
        minimum=0.0,
        maximum=1.0,
        later=True,
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
        0, help="microbatches that a batch is split into; 0: by backend", minimum=0
    )
    bfloat16: bool = config.option(
        False, help="compute in bfloat16, parameters in float32"
    )
    checkpoint_every: int = config.option(
        0, help="steps between checkpoints; 0: at each evaluation", minimum=0, free=True
    )
    keep: int = config.option(
        2, help="latest checkpoints to keep, beside the best", minimum=1, free=True
    )
    evaluate_every: int = config.option(
        1, help="epochs between evaluations", minimum=1, free=True
    )
    evaluations: int = config.option(
        0,
        help="evaluations of the whole run, evenly spaced, in place of "
        "--evaluate_every; 0: by epochs",
        minimum=0,
        later=True,
        free=True,
    )
    log_every: int = config.option(
        0, help="steps between training log lines; 0: each epoch", minimum=0, free=True
    )
    tensorboard: bool = config.option(
        False,
        help="write the log as TensorBoard's event files too, in the workdir",
        later=True,
        free=True,
    )
    bad_numbers: str = config.option(
        "stop",
        help="at a loss or gradient that is not finite: stop before it, or skip it",
        choices=("stop", "skip"),
        free=True,
    )
    deterministic: bool = config.option(
        False, help="on a GPU: the same bits each time, slower; a CPU gives them anyway"
    )

    def __post_init__(self):
        """Checks limits and choices."""
        config.check(self)
        if self.weight_decay and self.optimizer == "adam":
            raise errors.InputError(
                f"--weight_decay={self.weight_decay}: adam has none; choose "
                "--optimizer=adamw or muon"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig(draw_config.DrawConfig, RunConfig):
    """All that defines a run on pairs; saved as `config.json` in its workdir."""

    data_dir: str = config.option(
        "",
        help="paired folder: input/ and output/, split or not; or what prepare made",
        free=True,
    )
    fraction: float = config.option(
        1.0,
        help="fraction of all pairs to use (the seed: 0.02, 0.12, 0.32)",
        minimum=0.0,
        maximum=1.0,
    )
    augment: bool = config.option(True, help="random flips of the training crops")
    cache: str = config.option(
        "none",
        help="device: keep all training pairs in its memory, where they fit",
        choices=("none", "device"),
        free=True,
    )
    bad_pairs: str = config.option(
        "skip",
        help="training pairs that cannot be read: skip, taking the next pair, or stop",
        choices=("skip", "stop"),
        free=True,
    )

    def __post_init__(self):
        """Checks limits, choices, and that the kinds of data are not mixed."""
        super().__post_init__()
        if self.fraction <= 0:
            raise errors.InputError(f"--fraction={self.fraction}: must be above 0")
        draw_config.check(self, image_size=self.image_size, data_dir=self.data_dir)


def changes(before: Mapping[str, Any], after: RunConfig) -> list[str]:
    """Returns in words how a run differs from one that it is to go on with.

    Args:
      before: the fields of the earlier configuration.
      after: the later one.

    Returns:
      "name before -> after" for each field that may not change.
    """
    values = dataclasses.asdict(after)
    return config.differences(before, after, _free(type(after), values))


def recorded_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Does what `changes` does with two recorded configurations of any class.

    Args:
      before: the fields of the earlier one.
      after: of the later one; fields that one of the two lacks are passed over.
    """
    free = _free(TrainConfig, after)
    return [
        f"{name} {value} -> {after[name]}"
        for name, value in before.items()
        if name in after and name not in free and after[name] != value
    ]


def fixed(options: RunConfig) -> dict[str, Any]:
    """Returns the options that may not change between the parts of a run."""
    values = dataclasses.asdict(options)
    free = _free(type(options), values)
    return {name: value for name, value in values.items() if name not in free}


def _free(options_class: type[RunConfig], values: Mapping[str, Any]) -> set[str]:
    """Returns the fields that may change between the parts of a run."""
    fields = dataclasses.fields(options_class)
    free = {field.name for field in fields if field.metadata["free"]}
    depends = values.get("schedule") != "constant" or values.get("severity_rise")
    if options_class.steps_are_free:
        return free | {"decay_from"}
    if depends:
        # Learning rate or damage of a step depend on the number of steps.
        free -= {"epochs", "steps"}
    return free


Config = TypeVar("Config", bound=RunConfig)


def load_config(
    workdir: str | os.PathLike, options_class: type[Config] = TrainConfig
) -> Config:
    """Returns the configuration of a training run.

    Args:
      workdir: the run's folder.
      options_class: what the run was started with.

    Returns:
      The configuration that `run.train` saved.

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
    return config.from_json(text, options_class, source=str(path))
