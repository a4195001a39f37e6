"""One training run: its state, its step, its data and its folder put together."""

import contextlib
import dataclasses
import os
import pathlib
import signal
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import tqdm

from restoration import models
from restoration.base import config, errors, files
from restoration.data import arrays, sampling
from restoration.devices import backend, processes, sharding
from restoration.models import identity_init, pretrained
from restoration.training import (
    checkpoint,
    feed,
    loop,
    losses,
    optim,
    provenance,
    run_log,
    step,
    train_config,
)


class Task(NamedTuple):
    """What is trained, where it is not what the options name.

    Attributes:
      model: Flax module.
      objective: what is made smaller; None: the options' loss between two images.
      initial: parameters before the first step; None: as the options' `start` has it.
      rates: factors of the learning rates of parts, see `optim.scale_parts`.
    """

    model: Any
    objective: step.Objective | None = None
    initial: Any = None
    rates: Mapping[str, float] | None = None


@dataclasses.dataclass(frozen=True)
class Result:
    """How a training run ended.

    Attributes:
      step: number of steps done.
      total_steps: number of steps the run has.
      psnr: validation PSNR of the last evaluation, dB; None without one.
      skipped: how many of the steps were left out, since numbers went bad.
      replaced: names of training pairs that could not be read.
      figures: what was measured after the last step; None where nothing was.
      parameters: the weights after the last step, averaged ones where they are kept.
    """

    step: int
    total_steps: int
    psnr: float | None
    skipped: int = 0
    replaced: tuple[str, ...] = ()
    figures: dict[str, float] | None = None
    parameters: Any = dataclasses.field(default=None, repr=False, compare=False)


def train(
    options: train_config.RunConfig,
    data: feed.Feed | dict[str, arrays.PairArrays] | None = None,
    *,
    task: Task | None = None,
    export: loop.Export | None = None,
) -> Result:
    """Trains a model, or goes on with a run that was stopped.

    Writes `config.json`, `provenance.json`, `metrics.jsonl` and `checkpoints/` into
    the workdir.

    Args:
      options: the run.
      data: where batches come from: a feed; or pairs as arrays for "train" and,
        unless there are none, "validation"; without it what the options name.
      task: what is trained, where the options do not name it.
      export: is given the weights after each evaluation, before the checkpoint.

    Returns:
      How the run ended.

    Raises:
      InputError: for bad options or data, a workdir of another run, a full disk, and
        numbers that are not finite where the options say so.
    """
    began = time.monotonic()
    sharding.check_batch_size(options.batch_size)
    _check_deterministic(options)
    if task is None:
        dtype = jnp.bfloat16 if options.bfloat16 else None
        task = Task(models.get_model(options.model, dtype=dtype))
    if not isinstance(data, feed.Feed):
        data = feed.array_feed(options, data) if data else feed.open_feed(options)
    total_steps = feed.total_steps(options, data.count)
    workdir = pathlib.Path(options.workdir)
    begun = checkpoint.steps_in(checkpoint.folder_of(workdir))
    if task.initial is None and options.start != "random" and not begun:
        # Before the workdir is claimed, so that a wrong name leaves none behind.
        task = task._replace(initial=initial_parameters(options, task.model))
    described = data.describe()
    if processes.is_writer():
        _claim(workdir, options, described if data.fixed else None)
    processes.wait("claimed")

    mesh = sharding.make_mesh()
    optimizer = optim.make_optimizer(options, total_steps, task.rates)
    train_step = _make_step(options, data, task, optimizer)
    validate = data.make_validate(task.model) if data.make_validate else None
    with contextlib.ExitStack() as stack:
        manager = checkpoint.open_manager(
            workdir, keep=options.keep, fixed=train_config.fixed(options)
        )
        stack.callback(manager.close)
        stack.enter_context(processes.leaving())
        stack.enter_context(files.explain_full_disk(workdir))
        state = _initial_state(options, task, optimizer)
        state = jax.device_put(state, sharding.replicated(mesh))
        state = checkpoint.restore_latest(manager, state) or state
        start = int(state.step)
        if processes.is_writer():
            record = provenance.now(options, described)
            provenance.append(workdir, record, start)
        log = stack.enter_context(
            run_log.open_log(
                workdir,
                start,
                writer=processes.is_writer(),
                events=options.tensorboard,
            )
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

        def is_stopped() -> bool:
            over = 0 < 60 * options.minutes < time.monotonic() - began
            return any_stopped(bool(stopped) or over)

        job = loop.Job(
            options=options,
            source=data,
            steps_per_epoch=sampling.steps_per_epoch(data.count, options.batch_size),
            total_steps=total_steps,
            advance=data.make_run(
                train_step=train_step, mesh=mesh, start=start, total=total_steps
            ),
            validate=validate,
            export=export,
            manager=manager,
            log=log,
            bar=bar,
            is_stopped=is_stopped,
        )
        ended = loop.train(job, state)
    processes.wait("trained")
    skipped, replaced = _troubles(workdir)
    return Result(
        step=ended.step,
        total_steps=total_steps,
        psnr=ended.figures.get("psnr") if ended.figures else None,
        skipped=skipped,
        replaced=replaced,
        figures=ended.figures if ended.evaluated == ended.step else None,
        parameters=loop.evaluated_parameters(options, ended.state),
    )


def _initial_state(
    options: train_config.RunConfig, task: Task, optimizer: Any
) -> step.TrainState:
    """Returns the state before the first step."""
    ema, key = bool(options.ema_decay), jax.random.key(options.seed)
    if task.initial is not None:
        # Copied, since a step gives its state away.
        parameters = jax.tree.map(jnp.array, task.initial)
        return step.state_of(parameters, optimizer, ema=ema)
    # Compiled whole: one by one each of its operations would be compiled apart.
    parameters = jax.jit(lambda key: step.init_parameters(task.model, key))(key)
    return step.state_of(parameters, optimizer, ema=ema)


def initial_parameters(options: train_config.RunConfig, model: Any) -> Any:
    """Returns the weights that the option `start` names.

    Args:
      options: of the run; its `start` is not "random".
      model: the Flax module.

    Raises:
      InputError: for weights that are missing, damaged or of another model.
    """
    if options.start == "identity":
        if options.model not in ("basic", "advanced"):
            raise errors.InputError(
                f"--start=identity: for basic and advanced, not for {options.model}"
            )
        found = identity_init.autoencoder(
            models.abstract_parameters(model), options.seed
        )
    else:
        from_file = options.start.endswith(".safetensors")
        load = pretrained.load if from_file else pretrained.load_shipped
        name, found = load(options.start)
        if name != options.model:
            raise errors.InputError(
                f"--start={options.start}: weights of {name}, not of {options.model}"
            )
    return jax.tree.map(jnp.asarray, found)


def _check_deterministic(options: train_config.RunConfig) -> None:
    if (
        options.deterministic
        and jax.default_backend() == "gpu"
        and backend.DETERMINISTIC not in os.environ.get("XLA_FLAGS", "")
    ):
        raise errors.InputError(
            "--deterministic: JAX has started without it; set "
            f"XLA_FLAGS={backend.DETERMINISTIC} before"
        )


def _make_step(
    options: train_config.RunConfig, data: feed.Feed, task: Task, optimizer: Any
) -> feed.TrainStep:
    """Returns the training step of a run."""
    accumulate = options.accumulate or backend.microbatches(
        options.batch_size // jax.device_count(), options.image_size
    )
    if options.batch_size % (accumulate * jax.device_count()):
        raise errors.InputError(
            f"--accumulate={accumulate}: must divide the batch of each device, "
            f"{options.batch_size // jax.device_count()}"
        )
    objective = task.objective or step.restoring(
        losses.make_loss(options.loss, ssim_weight=options.ssim_weight),
        # Where pairs are drawn it would take a fifth of the step; validation has it.
        ssim=bool(data.names),
    )
    return step.make_train_step(
        task.model,
        optimizer,
        objective,
        ema_decay=options.ema_decay,
        accumulate=accumulate,
        seed=options.seed,
    )


def _claim(
    workdir: pathlib.Path,
    options: train_config.RunConfig,
    described: Mapping[str, Any] | None,
) -> None:
    """Writes config.json, or checks that the run to resume is the same.

    Args:
      workdir: the run's folder.
      options: of the run.
      described: the data, where a resumed run must have the very same.
    """
    path = workdir / "config.json"
    if path.is_file():
        before = train_config.load_config(workdir, type(options))
        changed = train_config.changes(dataclasses.asdict(before), options)
        if changed:
            raise errors.InputError(
                f"{path}: this workdir holds another run ({', '.join(changed)}); "
                "use another --workdir or the same flags"
            )
        _check_data(workdir, described)
    try:
        files.write_text(path, config.to_json(options))
    except OSError as error:
        raise errors.InputError(
            f"{workdir}: cannot be written ({error.strerror}); use another --workdir"
        ) from None


def _check_data(workdir: pathlib.Path, described: Mapping[str, Any] | None) -> None:
    if described is None or not (workdir / provenance.NAME).is_file():
        return
    before = provenance.read(workdir)[-1]["data"]
    if before.get("fingerprint") != described["fingerprint"]:
        raise errors.InputError(
            f"{workdir}: this workdir's run was of other pictures or overlays; use "
            "another --workdir or the same pictures"
        )


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
