"""Trains a model on paired frames.

    python -m restoration.train --data_dir DATA --workdir RUN --model basic

The same command again resumes the run where it stopped, exactly. Ctrl-C and
SIGTERM save a checkpoint first. What a run was made with is recorded in its folder;

    python -m restoration.train --repeat RUN --workdir AGAIN

does it again, and compares.
"""

import contextlib
import dataclasses
import logging
import os
import pathlib
import signal
from collections.abc import Callable, Iterator
from typing import Any

import tqdm
from etils import epy

from restoration.base import cli, config, disk, errors
from restoration.data import sampling
from restoration.devices import backend, processes
from restoration.evaluation import measure
from restoration.training import provenance, run_log

with epy.lazy_imports():
    import jax

    from restoration import models
    from restoration.data import arrays
    from restoration.devices import sharding
    from restoration.training import checkpoint, feed, loop, losses, optim, repeat, step

# Makes XLA choose operations on a GPU that give the same bits each time.
_DETERMINISTIC = "--xla_gpu_deterministic_ops=true"


@dataclasses.dataclass(frozen=True)
class Result:
    """How a training run ended.

    Attributes:
      step: number of steps done.
      total_steps: number of steps the run has.
      psnr: validation PSNR of the last evaluation, dB; None without one.
      skipped: how many of the steps were left out, since numbers went bad.
      replaced: names of training pairs that could not be read.
    """

    step: int
    total_steps: int
    psnr: float | None
    skipped: int = 0
    replaced: tuple[str, ...] = ()


def train(
    options: config.TrainConfig, data: "dict[str, arrays.PairArrays] | None" = None
) -> Result:
    """Trains a model, or goes on with a run that was stopped.

    Writes `config.json`, `provenance.json`, `metrics.jsonl` and `checkpoints/` into
    the workdir.

    Args:
      options: the run.
      data: pairs as arrays for "train" and, unless there are none, "validation";
        without it `options.data_dir` is read.

    Returns:
      How the run ended.

    Raises:
      InputError: for bad options or data, a workdir of another run, a full disk, and
        numbers that are not finite where the options say so.
    """
    sharding.check_batch_size(options.batch_size)
    _check_deterministic(options)
    model = models.get_model(
        options.model, dtype=jax.numpy.bfloat16 if options.bfloat16 else None
    )
    source = feed.open_feed(options) if data is None else feed.array_feed(options, data)
    steps_per_epoch = sampling.steps_per_epoch(len(source.names), options.batch_size)
    total_steps = options.epochs * steps_per_epoch
    workdir = pathlib.Path(options.workdir)
    if processes.is_writer():
        _claim(workdir, options)
    processes.wait("claimed")

    mesh = sharding.make_mesh()
    optimizer = optim.make_optimizer(options, total_steps)
    state = jax.device_put(
        step.init_state(
            model,
            optimizer,
            jax.random.key(options.seed),
            ema=bool(options.ema_decay),
        ),
        sharding.replicated(mesh),
    )
    train_step = _make_step(options, model, optimizer)
    validate = _make_evaluate(model) if source.validation else None
    with contextlib.ExitStack() as stack:
        manager = checkpoint.open_manager(workdir, keep=options.keep)
        stack.callback(manager.close)
        stack.enter_context(processes.leaving())
        stack.enter_context(disk.told_when_full(workdir))
        state = checkpoint.restore_latest(manager, state) or state
        start = int(state.step)
        if processes.is_writer():
            record = provenance.now(options, source.describe())
            provenance.append(workdir, record, start)
        log = stack.enter_context(
            run_log.open_log(workdir, start, writer=processes.is_writer())
        )
        stopped = stack.enter_context(_stop_signals())
        bar = stack.enter_context(
            tqdm.tqdm(
                total=total_steps,
                initial=start,
                unit="step",
                desc="train",
                disable=not processes.is_writer(),
            )
        )
        any_stopped = processes.make_any()
        job = loop.Job(
            options=options,
            source=source,
            steps_per_epoch=steps_per_epoch,
            total_steps=total_steps,
            advance=source.make_run(train_step, mesh, start, total_steps),
            validate=validate,
            manager=manager,
            log=log,
            bar=bar,
            is_stopped=lambda: any_stopped(bool(stopped)),
        )
        done, psnr = loop.train(job, state)
    processes.wait("trained")
    return Result(done, total_steps, psnr, *_troubles(workdir))


def _check_deterministic(options: config.TrainConfig) -> None:
    if (
        options.deterministic
        and jax.default_backend() == "gpu"
        and _DETERMINISTIC not in os.environ.get("XLA_FLAGS", "")
    ):
        raise errors.InputError(
            "--deterministic: JAX has started without it; set "
            f"XLA_FLAGS={_DETERMINISTIC} before"
        )


def _make_step(options: config.TrainConfig, model: Any, optimizer: Any) -> Callable:
    """Returns the training step of a run."""
    accumulate = options.accumulate or backend.microbatches(
        options.batch_size // jax.device_count(), options.image_size
    )
    if options.batch_size % (accumulate * jax.device_count()):
        raise errors.InputError(
            f"--accumulate={accumulate}: must divide the batch of each device, "
            f"{options.batch_size // jax.device_count()}"
        )
    return step.make_train_step(
        model,
        optimizer,
        losses.make_loss(options.loss, ssim_weight=options.ssim_weight),
        ema_decay=options.ema_decay,
        accumulate=accumulate,
    )


def _claim(workdir: pathlib.Path, options: config.TrainConfig) -> None:
    """Writes config.json, or checks that the run to resume is the same."""
    path = workdir / "config.json"
    if path.is_file():
        before = dataclasses.asdict(checkpoint.load_config(workdir))
        changed = config.changes(before, options)
        if changed:
            raise errors.InputError(
                f"{path}: this workdir holds another run ({', '.join(changed)}); "
                "use another --workdir or the same flags"
            )
    try:
        config.write_text(path, config.to_json(options))
    except OSError as error:
        raise errors.InputError(
            f"{workdir}: cannot be written ({error.strerror}); use another --workdir"
        ) from None


def _troubles(workdir: pathlib.Path) -> tuple[int, tuple[str, ...]]:
    """Returns how many steps a run has skipped, and which pairs it has replaced."""
    rows = run_log.read(workdir / run_log.NAME)
    skipped = sum(row.get("split") == "bad numbers" for row in rows)
    replaced = {
        name
        for row in rows
        if row.get("split") == "replaced"
        for name, _ in row["pairs"]
    }
    return skipped, tuple(sorted(replaced))


def _make_evaluate(model: Any) -> Callable[[Any, Iterator], dict]:
    """Returns (parameters, batches of this process) -> means over all images."""
    here = sharding.make_mesh(local=True)
    split, whole = sharding.split_batch(here), sharding.replicated(here)
    eval_step = jax.jit(step.make_eval_step(model))

    def validate(parameters: Any, batches: Iterator) -> dict[str, float]:
        parameters = sharding.keep_local(parameters, here)

        def compute(batch: dict) -> tuple:
            even = len(batch["input"]) % jax.local_device_count() == 0
            return eval_step(
                parameters, jax.device_put(batch, split if even else whole)
            )

        measured = measure.gather(measure.measure(compute, batches))
        means = measure.means(measured)["restored"]
        return {"loss": means.pop("mse"), **means}

    return validate


@contextlib.contextmanager
def _stop_signals() -> Iterator[list]:
    """Collects SIGINT and SIGTERM, so that the step in progress can finish."""
    received: list[int] = []

    def remember(number: int, frame: Any) -> None:
        del frame
        received.append(number)

    before = {n: signal.signal(n, remember) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main(
    options: config.TrainConfig, place: processes.ProcessOptions = processes.ALONE
) -> None:
    """Trains as the options say, and tells how it ended."""
    _start(options)
    with processes.joined(place):
        result = train(options)
        if processes.is_writer():
            _tell(options, result)


def _start(options: config.TrainConfig) -> None:
    """Sets what must be set before JAX starts."""
    backend.keep_freed_memory()
    flags = os.environ.get("XLA_FLAGS", "")
    if options.deterministic and _DETERMINISTIC not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {_DETERMINISTIC}".strip()
    backend.cache_compilations()


def _tell(options: config.TrainConfig, result: Result) -> None:
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
class TrainOptions(config.TrainConfig):
    """Options of `python -m restoration.train`: a run, or one to repeat."""

    data_dir: str = config.option(
        "", help="paired folder: input/ and output/, split or not; or what prepare made"
    )
    repeat: str = config.option(
        "",
        help="workdir of a run to repeat with its recorded options, instead of others; "
        "the result is compared bit for bit",
    )

    def __post_init__(self):
        """Checks that there are data, or a run to repeat and no other options."""
        super().__post_init__()
        fields = dataclasses.fields(config.TrainConfig)
        if not self.repeat and not self.data_dir:
            raise errors.InputError(
                f"--data_dir is required: {fields[0].metadata['help']}"
            )
        if not self.repeat:
            return
        for field in fields:
            given = getattr(self, field.name) != field.default
            if given and field.name not in ("data_dir", "workdir"):
                raise errors.InputError(
                    f"--{field.name}: not together with --repeat, which takes the "
                    "options that are recorded"
                )


def command(
    options: TrainOptions, place: processes.ProcessOptions = processes.ALONE
) -> int | None:
    """Entry point; 1 when a repetition differs from what it repeats."""
    if not options.repeat:
        fields = dataclasses.fields(config.TrainConfig)
        values = {field.name: getattr(options, field.name) for field in fields}
        return main(config.TrainConfig(**values), place)
    run = repeat.recorded(options.repeat, options.workdir, options.data_dir)
    _start(run)
    with processes.joined(place):
        repeat.warn(options.repeat, run)
        result = train(run)
        if not processes.is_writer():
            return None
        _tell(run, result)
        found = repeat.compare(options.repeat, run.workdir)
        for line in found:
            logging.warning("--repeat: unlike %s: %s", options.repeat, line)
        if not found:
            print(f"{run.workdir}: the same as {options.repeat}, bit for bit")
        return int(bool(found))


if __name__ == "__main__":
    cli.run(command, TrainOptions, processes.ProcessOptions)
