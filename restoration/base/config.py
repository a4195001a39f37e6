"""Options as frozen dataclasses, and their JSON form.

Every field made with `option` carries its help text, so that `cli.run` can
offer it as a flag; there is no second list of defaults.
"""

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Collection, Mapping
from typing import Any

from restoration.base import errors


def option(
    default: Any = dataclasses.MISSING,
    *,
    help: str,
    short: str | None = None,
    positional: bool = False,
    choices: tuple[str, ...] | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
    later: bool = False,
    formerly: str | None = None,
    alias: str | None = None,
) -> Any:
    """Declares one option of an options dataclass.

    Args:
      default: the value without the flag; none given makes the flag required.
      help: one line for `--help`.
      short: a one-letter name for the flag.
      positional: whether the remaining arguments belong to it (tuples only).
      choices: the words that are allowed.
      minimum: the least value that is allowed.
      maximum: the greatest value that is allowed.
      later: whether files of earlier versions lack it; their runs had the default.
      formerly: the flag's earlier name, which is answered with the new one.
      alias: another name of the flag, which works as well.

    Returns:
      A dataclass field.
    """
    metadata = {
        "help": help,
        "short": short,
        "positional": positional,
        "choices": choices,
        "minimum": minimum,
        "maximum": maximum,
        "later": later,
        "formerly": formerly,
        "alias": alias,
    }
    return dataclasses.field(default=default, metadata=metadata)


def check(options: Any) -> None:
    """Raises InputError where a field lies outside its choices or limits."""
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        low, high = field.metadata.get("minimum"), field.metadata.get("maximum")
        choices = field.metadata.get("choices")
        if choices and value not in choices:
            raise errors.InputError(
                f"--{field.name}={value}: choose one of {', '.join(choices)}"
            )
        if value is None or (low is None and high is None):
            continue
        if (
            not -math.inf < value < math.inf  # an integer may be too large for isfinite
            or (low is not None and value < low)
            or (high is not None and value > high)
        ):
            bounds = f"at least {low}" if high is None else f"from {low} to {high}"
            raise errors.InputError(f"--{field.name}={value}: must be {bounds}")


# Of `losses.LOSSES`, which cannot be asked without JAX.
LOSSES = ("mse", "l1", "charbonnier", "psnr")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """All that defines a training run; saved as `config.json` in its workdir."""

    data_dir: str = option(
        help="paired folder: input/ and output/, split or not; or what prepare made"
    )
    workdir: str = option(help="folder for checkpoints and metrics; resumed if used")
    model: str = option("basic", help="model name, see python -m restoration.models")
    epochs: int = option(
        100, help="passes over the training pairs", minimum=1, maximum=10**9
    )
    fraction: float = option(
        1.0,
        help="fraction of all pairs to use (the seed: 0.02, 0.12, 0.32)",
        minimum=0.0,
        maximum=1.0,
    )
    batch_size: int = option(
        16, help="pairs a step, over all devices", minimum=1, maximum=1 << 16
    )
    image_size: int = option(
        128, help="side of the square crops, pixels", minimum=16, maximum=1 << 14
    )
    seed: int = option(
        0,
        help="seed of weights, order, crops and flips",
        minimum=0,
        maximum=2**31 - 1,
    )
    loss: str = option("mse", help="training loss", choices=LOSSES)
    ssim_weight: float = option(
        0.0, help="weight of 1 - SSIM added to the loss", minimum=0.0
    )
    optimizer: str = option(
        "adam",
        help="adam: as Keras has it; muon for kernels of hidden layers (its learning "
        "rate is some 1e-2), Adam at a tenth of it for the rest",
        choices=("adam", "muon"),
        later=True,
    )
    learning_rate: float = option(1e-3, help="peak learning rate", minimum=0.0)
    schedule: str = option(
        "constant", help="learning rate over the run", choices=("constant", "cosine")
    )
    warmup_steps: int = option(
        0, help="steps of linear warm-up", minimum=0, maximum=10**9
    )
    clip_norm: float = option(
        0.0, help="global gradient norm limit; 0: none", minimum=0.0
    )
    ema_decay: float = option(
        0.0,
        help="decay of the averaged weights that are evaluated; 0: none",
        minimum=0.0,
        maximum=0.99999,
    )
    accumulate: int = option(
        0, help="gradient pieces a batch is split into; 0: by backend", minimum=0
    )
    bfloat16: bool = option(False, help="compute in bfloat16, parameters in float32")
    augment: bool = option(True, help="random flips of the training crops")
    cache: str = option(
        "none",
        help="device: keep all training pairs in its memory, where they fit",
        choices=("none", "device"),
    )
    checkpoint_every: int = option(
        0, help="steps between checkpoints; 0: at each evaluation", minimum=0
    )
    keep: int = option(2, help="latest checkpoints to keep, beside the best", minimum=1)
    evaluate_every: int = option(1, help="epochs between evaluations", minimum=1)
    log_every: int = option(
        0, help="steps between training log lines; 0: each epoch", minimum=0
    )
    bad_numbers: str = option(
        "stop",
        help="at a loss or gradient that is not finite: stop before it, or skip it",
        choices=("stop", "skip"),
    )
    bad_pairs: str = option(
        "skip",
        help="training pairs that cannot be read: skip, taking the next pair, or stop",
        choices=("skip", "stop"),
    )
    deterministic: bool = option(
        False, help="on a GPU: the same bits each time, slower; a CPU gives them anyway"
    )

    def __post_init__(self):
        """Checks limits and choices."""
        check(self)
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
    return differences(before, after, free)


def _completed(values: Mapping[str, Any], options: Any) -> dict[str, Any]:
    """Adds the options that came later than these values, as they were then."""
    later = [f for f in dataclasses.fields(options) if f.metadata.get("later")]
    return {field.name: field.default for field in later} | dict(values)


def differences(
    before: Mapping[str, Any], after: Any, free: Collection[str] = ()
) -> list[str]:
    """Returns in words how options differ from earlier ones.

    Args:
      before: the fields of the earlier ones.
      after: a dataclass.
      free: fields that may differ.

    Returns:
      "name before -> after" for each of the other fields that differs.
    """
    before = _completed(before, after)
    return [
        f"{name} {before.get(name)} -> {value}"
        for name, value in dataclasses.asdict(after).items()
        if name not in free and before.get(name) != value
    ]


def parse(text: str | bytes) -> Any:
    """Returns what JSON that may come from anywhere tells.

    Raises:
      ValueError: for what is no JSON, and for what is nested too deep to be read.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None


def to_json(options: Any) -> str:
    """Returns an options dataclass as indented JSON."""
    return json.dumps(dataclasses.asdict(options), indent=1) + "\n"


def from_json(text: str, options_class: type, *, source: str) -> Any:
    """Reads an options dataclass from JSON, strictly.

    Args:
      text: a JSON object with the class's fields.
      options_class: the frozen dataclass.
      source: the file's name, for the error.

    Returns:
      An instance of the class.

    Raises:
      InputError: for malformed JSON, unknown, missing or ill-typed fields; those
        that came `later` may be missing.
    """
    try:
        values = parse(text)
    except ValueError as error:
        raise errors.InputError(f"{source}: not JSON ({error})") from None
    if not isinstance(values, dict):
        raise errors.InputError(f"{source}: not a JSON object")
    values = _completed(values, options_class)
    fields = {field.name: field for field in dataclasses.fields(options_class)}
    unknown = sorted(set(values) - set(fields))
    missing = sorted(set(fields) - set(values))
    if unknown or missing:
        raise errors.InputError(
            f"{source}: unknown fields {unknown}, missing fields {missing}; "
            "it was written by another version"
        )
    for name, value in values.items():
        expected = fields[name].type
        number = expected is float and isinstance(value, int | float)
        if not (isinstance(value, expected) or number) or (
            isinstance(value, bool) and expected is not bool
        ):
            raise errors.InputError(
                f"{source}: {name} is {value!r}, not of type {expected.__name__}"
            )
    return options_class(**values)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a text file whole or not at all (temporary name, then renamed)."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
