"""Trains a model on paired frames, or on damage that is drawn on clean pictures.

    python -m restoration.train --data_dir DATA --workdir RUN --model basic
    python -m restoration.train --clean DIR --overlays DIRT --recipe film --workdir RUN

The same command again resumes the run where it stopped, exactly. Ctrl-C and
SIGTERM save a checkpoint first. What a run was made with is recorded in its folder;

    python -m restoration.train --repeat RUN --workdir AGAIN

does it again, and compares.
"""

import dataclasses
import logging
import os

from etils import epy

from restoration.base import cli, config, errors
from restoration.devices import backend, processes
from restoration.training import recipe, train_config

with epy.lazy_imports():
    from restoration.training import repeat, run

# Folders that a run to repeat may find elsewhere than the run did.
_MOVED = ("data_dir", "clean", "overlays")


def main(
    options: train_config.TrainConfig,
    process: processes.ProcessOptions = processes.ALONE,
) -> None:
    """Trains as the options say, and says how it ended."""
    _start(options)
    with processes.joined(process):
        result = run.train(options)
        if processes.is_writer():
            _print_end(options, result)


def _start(options: train_config.TrainConfig) -> None:
    """Sets what must be set before JAX starts."""
    backend.keep_freed_memory()
    flags = os.environ.get("XLA_FLAGS", "")
    if options.deterministic and backend.DETERMINISTIC not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {backend.DETERMINISTIC}".strip()
    backend.cache_compilations()


def _print_end(options: train_config.TrainConfig, result: "run.Result") -> None:
    if result.skipped:
        print(f"{result.skipped} steps skipped, since their numbers were not finite")
    if result.replaced:
        print(
            f"{len(result.replaced)} training pairs replaced, since they cannot be "
            f"read: {', '.join(result.replaced)}"
        )
    again = "" if result.step == result.total_steps else "; run it again to go on"
    print(
        f"{options.workdir}: step {result.step} of {result.total_steps}"
        + (f", validation {result.psnr:.2f} dB" if result.psnr is not None else "")
        + again
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainOptions(train_config.TrainConfig):
    """Options of `python -m restoration.train`: a run, or one to repeat."""

    recipe: str = config.option(
        "",
        help="options to begin with, which flags override: a .json file, or one of "
        + ", ".join(recipe.names()),
        defaults=recipe.options,
    )
    repeat: str = config.option(
        "",
        help="workdir of a run to repeat with its recorded options, instead of others; "
        "the result is compared bit for bit",
    )

    def __post_init__(self):
        """Checks that there are data, or a run to repeat and no other options."""
        super().__post_init__()
        if not self.repeat and not (self.data_dir or self.clean):
            raise errors.InputError(
                "--data_dir is required, a folder of pairs, or --clean, one of clean "
                "pictures (see --help)"
            )
        if not self.repeat:
            return
        for field in dataclasses.fields(train_config.TrainConfig):
            given = getattr(self, field.name) != field.default
            if given and field.name not in ("workdir", *_MOVED):
                raise errors.InputError(
                    f"--{field.name}: not together with --repeat, which takes the "
                    "options that are recorded"
                )


def command(
    options: TrainOptions, process: processes.ProcessOptions = processes.ALONE
) -> int | None:
    """Entry point; 1 when a repetition differs from what it repeats."""
    if not options.repeat:
        fields = dataclasses.fields(train_config.TrainConfig)
        values = {field.name: getattr(options, field.name) for field in fields}
        return main(train_config.TrainConfig(**values), process)
    moved = {name: getattr(options, name) for name in _MOVED}
    again = repeat.recorded(options.repeat, options.workdir, **moved)
    _start(again)
    with processes.joined(process):
        repeat.warn(options.repeat, again)
        result = run.train(again)
        if not processes.is_writer():
            return None
        _print_end(again, result)
        found = repeat.compare(options.repeat, again.workdir)
        for line in found:
            logging.warning("--repeat: unlike %s: %s", options.repeat, line)
        if not found:
            print(f"{again.workdir}: the same as {options.repeat}, bit for bit")
        return int(bool(found))


if __name__ == "__main__":
    cli.run(command, TrainOptions, processes.ProcessOptions)
