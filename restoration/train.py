"""Trains a model on paired frames.

    python -m restoration.train --data_dir DATA --workdir RUN --model basic

The same command again resumes the run where it stopped, exactly. Ctrl-C and
SIGTERM save a checkpoint first.
"""

import contextlib
import dataclasses
import itertools
import json
import logging
import pathlib
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import psutil
import tqdm
from etils import epy

from restoration import backend, cli, config, errors, evaluate, pairs, sampling, sources

with epy.lazy_imports():
    import jax

    from restoration import (
        arrays,
        checkpoint,
        losses,
        models,
        optim,
        sharding,
        step,
    )

# What may change between the parts of a resumed run.
_FREE = ("data_dir", "workdir", "epochs", "cache", "checkpoint_every", "keep",
         "evaluate_every", "log_every")  # fmt: skip

# On an accelerator at most so many steps go into one compiled call.
_STEPS_A_CALL = 1000

# Of a device's free memory so much may hold training pairs.
_SHARE = 0.6


@dataclasses.dataclass(frozen=True)
class Result:
    """How a training run ended.

    Attributes:
      step: number of steps done.
      total_steps: number of steps the run has.
      psnr: validation PSNR of the last evaluation, dB; None without one.
    """

    step: int
    total_steps: int
    psnr: float | None


def train(
    options: config.TrainConfig, data: "dict[str, arrays.PairArrays] | None" = None
) -> Result:
    """Trains a model, or goes on with a run that was stopped.

    Writes `config.json`, `metrics.jsonl` and `checkpoints/` into the workdir.

    Args:
      options: the run.
      data: pairs as arrays for "train" and, unless there are none, "validation";
        without it `options.data_dir` is read.

    Returns:
      How the run ended.

    Raises:
      InputError: for bad options or data, or a workdir of another run.
    """
    sharding.check_batch_size(options.batch_size)
    model = models.get_model(
        options.model, dtype=jax.numpy.bfloat16 if options.bfloat16 else None
    )
    source = _open(options) if data is None else _array_source(options, data)
    total_steps = options.epochs * source.steps_per_epoch
    workdir = pathlib.Path(options.workdir)
    _claim(workdir, options)

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
    accumulate = options.accumulate or backend.pieces(
        options.batch_size // jax.device_count(), options.image_size
    )
    if options.batch_size % (accumulate * jax.device_count()):
        raise errors.InputError(
            f"--accumulate={accumulate}: must divide the batch of each device, "
            f"{options.batch_size // jax.device_count()}"
        )
    train_step = step.make_train_step(
        model,
        optimizer,
        losses.make_loss(options.loss, ssim_weight=options.ssim_weight),
        ema_decay=options.ema_decay,
        accumulate=accumulate,
    )
    validate = _make_evaluate(model, mesh) if source.validation else None
    with contextlib.ExitStack() as stack:
        manager = checkpoint.open_manager(workdir, keep=options.keep)
        stack.callback(manager.close)
        state = checkpoint.restore_latest(manager, state) or state
        start = int(state.step)
        log = stack.enter_context(_open_log(workdir / "metrics.jsonl", start))
        stopped = stack.enter_context(_stop_signals())
        bar = stack.enter_context(
            tqdm.tqdm(total=total_steps, initial=start, unit="step", desc="train")
        )
        events = _Events(options, source.steps_per_epoch, total_steps)
        run = source.make_run(train_step, mesh, start, total_steps)
        psnr, saved = None, start
        done, pending, since = start, [], time.monotonic()
        while done < total_steps and not stopped:
            state, values, count = run(state, events.next_after(done) - done)
            pending.append(values)
            done += count
            bar.update(count)
            if events.logs(done):
                means = _means(pending)
                seconds = time.monotonic() - since
                images = len(_flat(pending, "loss")) * options.batch_size
                means["images_per_second"] = round(images / seconds, 2)
                _log(log, done, source.steps_per_epoch, "train", means)
                bar.set_postfix(
                    loss=f"{means['loss']:.5f}", psnr=f"{means['psnr']:.2f}"
                )
                pending, since = [], time.monotonic()
            measured = None
            if validate and events.evaluates(done):
                means = validate(_evaluated(state, options), source.validation())
                measured = psnr = means["psnr"]
                _log(log, done, source.steps_per_epoch, "validation", means)
                bar.set_description(f"train (validation {psnr:.2f} dB)")
                since = time.monotonic()
            if events.saves(done):
                checkpoint.save(manager, state, measured)
                saved = done
        if saved < done:
            checkpoint.save(manager, state, None)
    return Result(done, total_steps, psnr)


@dataclasses.dataclass(frozen=True)
class _Source:
    """Where batches come from.

    Attributes:
      steps_per_epoch: batches an epoch.
      make_run: (train step, mesh, start, total) -> run, which takes the state
        and a number of steps at most and returns state, metrics, steps done.
      validation: gives an iterator of evaluation batches; None without pairs.
    """

    steps_per_epoch: int
    make_run: Callable
    validation: Callable[[], Iterator] | None


def _open(options: config.TrainConfig) -> _Source:
    opened = sources.open_source(options.data_dir)
    splits = pairs.sample(opened.splits, options.fraction, seed=options.seed)
    members = pairs.require(splits, "train", options.data_dir)
    if options.cache == "none":
        return _stream_source(options, opened, splits)
    needed, free = _bytes_needed(opened, members), _free_memory()
    if needed > _SHARE * free:
        logging.warning(
            "--cache=device: %d training pairs need %.1f GB, of %.1f GB free at most "
            "%.0f %% are taken; streaming them instead",
            len(members), needed / 1e9, free / 1e9, 100 * _SHARE,
        )  # fmt: skip
        return _stream_source(options, opened, splits)
    data = {
        split: sources.read_all(opened, splits[split])
        for split in ("train", "validation")
        if splits[split]
    }
    return _array_source(options, data)


def _bytes_needed(opened: sources.Source, members: Sequence[Any]) -> int:
    """Returns how many bytes pairs fill that are all as large as the first."""
    first = next(opened.evaluation_batches(members[:1], batch_size=1))
    return len(members) * 2 * first["input"].nbytes


def _free_memory() -> int:
    """Returns the bytes free on a device; of a CPU, those of the host."""
    statistics = jax.local_devices()[0].memory_stats()
    if statistics is None:
        return psutil.virtual_memory().available
    return statistics["bytes_limit"] - statistics["bytes_in_use"]


def _stream_source(
    options: config.TrainConfig, opened: sources.Source, splits: dict[str, tuple]
) -> _Source:
    members = splits["train"]

    def make_run(train_step: Callable, mesh: Any, start: int, total: int) -> Callable:
        split = sharding.split_batch(mesh)
        whole = sharding.replicated(mesh)
        compiled = jax.jit(
            train_step,
            in_shardings=(whole, split),
            out_shardings=(whole, whole),
            donate_argnums=0,
        )
        batches = opened.train_batches(
            members,
            image_size=options.image_size,
            batch_size=options.batch_size,
            seed=options.seed,
            start_step=start,
            total_steps=total,
            augment=options.augment,
            process=(jax.process_index(), jax.process_count()),
        )

        def run(state: Any, limit: int) -> tuple:
            del limit
            batch = {
                name: jax.make_array_from_process_local_data(split, rows)
                for name, rows in next(batches).items()
            }
            return *compiled(state, batch), 1

        return run

    validation = None
    if splits["validation"]:

        def validation() -> Iterator:
            return opened.evaluation_batches(
                splits["validation"], batch_size=options.batch_size
            )

    steps = sampling.steps_per_epoch(len(members), options.batch_size)
    return _Source(steps, make_run, validation)


def _array_source(options: config.TrainConfig, data: dict) -> _Source:
    for members in data.values():
        arrays.check(members, image_size=options.image_size)
    count = len(data["train"].input)

    def make_run(train_step: Callable, mesh: Any, start: int, total: int) -> Callable:
        split, whole = sharding.split_batch(mesh), sharding.replicated(mesh)
        resident = jax.device_put(data["train"], whole)

        def one(state: Any, resident: Any, draws: sampling.Draws) -> tuple:
            batch = arrays.take_crops(resident, draws, options.image_size)
            return train_step(state, jax.lax.with_sharding_constraint(batch, split))

        def many(state: Any, resident: Any, draws: sampling.Draws) -> tuple:
            return jax.lax.scan(lambda s, d: one(s, resident, d), state, draws)

        # A convolution inside a loop leaves XLA's fast path on a CPU; on an
        # accelerator one call for many steps saves the dispatch.
        limit = 1 if backend.is_cpu() else _STEPS_A_CALL
        compiled = jax.jit(
            one if limit == 1 else many,
            out_shardings=(whole, whole),
            donate_argnums=0,
        )
        position = itertools.count(start)

        def run(state: Any, wanted: int) -> tuple:
            steps = [next(position) for _ in range(min(limit, wanted))]
            drawn = [
                sampling.batch_draws(
                    seed=options.seed,
                    step=number,
                    count=count,
                    batch_size=options.batch_size,
                    augment=options.augment,
                )
                for number in steps
            ]
            draws = drawn[0] if limit == 1 else jax.tree.map(_stack, *drawn)
            return *compiled(state, resident, draws), len(steps)

        return run

    validation = None
    if "validation" in data:

        def validation() -> Iterator:
            return arrays.evaluation_batches(
                data["validation"], batch_size=options.batch_size
            )

    return _Source(
        sampling.steps_per_epoch(count, options.batch_size), make_run, validation
    )


def _stack(*rows: np.ndarray) -> np.ndarray:
    return np.stack(rows)


@dataclasses.dataclass(frozen=True)
class _Events:
    """After which steps to log, evaluate and save; the last step does all."""

    options: config.TrainConfig
    steps_per_epoch: int
    total_steps: int

    def _due(self, done: int, interval: int) -> bool:
        return done % interval == 0 or done == self.total_steps

    def logs(self, done: int) -> bool:
        return self._due(done, self.options.log_every or self.steps_per_epoch)

    def evaluates(self, done: int) -> bool:
        return self._due(done, self.options.evaluate_every * self.steps_per_epoch)

    def saves(self, done: int) -> bool:
        every = self.options.checkpoint_every
        return self._due(done, every) if every else self.evaluates(done)

    def next_after(self, done: int) -> int:
        """Returns the next step with an event."""
        return next(
            number
            for number in itertools.count(done + 1)
            if self.logs(number) or self.evaluates(number) or self.saves(number)
        )


def _claim(workdir: pathlib.Path, options: config.TrainConfig) -> None:
    """Writes config.json, or checks that the run to resume is the same."""
    path = workdir / "config.json"
    if path.is_file():
        before = dataclasses.asdict(checkpoint.load_config(workdir))
        after = dataclasses.asdict(options)
        changed = [
            f"{name} {before[name]} -> {after[name]}"
            for name in after
            if name not in _FREE and before[name] != after[name]
        ]
        if options.schedule != "constant" and before["epochs"] != options.epochs:
            changed.append(f"epochs {before['epochs']} -> {options.epochs}")
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


@contextlib.contextmanager
def _open_log(path: pathlib.Path, start: int) -> Iterator[Any]:
    """Opens metrics.jsonl for appending; drops what came after `start`.

    A run that was killed may have logged steps that no checkpoint holds; they
    are done again, and must not stand twice.
    """
    kept = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):
                if json.loads(line)["step"] <= start:
                    kept.append(line + "\n")
    config.write_text(path, "".join(kept))
    with path.open("a", encoding="utf-8") as file:
        yield file


def _log(file: Any, done: int, steps_per_epoch: int, split: str, means: dict) -> None:
    row = {"step": done, "epoch": round(done / steps_per_epoch, 4), "split": split}
    file.write(json.dumps(row | means) + "\n")
    file.flush()


def _flat(pending: list, name: str) -> np.ndarray:
    return np.concatenate([np.atleast_1d(np.asarray(v[name])) for v in pending])


def _means(pending: list) -> dict[str, float]:
    """Returns the mean of each metric over the steps since the last line."""
    return {name: float(np.mean(_flat(pending, name))) for name in pending[0]}


def _evaluated(state: Any, options: config.TrainConfig) -> Any:
    return state.average if options.ema_decay else state.parameters


def _make_evaluate(model: Any, mesh: Any) -> Callable[[Any, Iterator], dict]:
    """Returns (parameters, batches) -> means over the validation images."""
    split, whole = sharding.split_batch(mesh), sharding.replicated(mesh)
    eval_step = jax.jit(step.make_eval_step(model))

    def validate(parameters: Any, batches: Iterator) -> dict[str, float]:
        def compute(batch: dict) -> tuple:
            even = len(batch["input"]) % jax.device_count() == 0
            return eval_step(
                parameters, jax.device_put(batch, split if even else whole)
            )

        means = evaluate.means(evaluate.measure(compute, batches))["restored"]
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


def main(options: config.TrainConfig) -> None:
    """Entry point."""
    backend.keep_freed_memory()
    result = train(options)
    again = "" if result.step == result.total_steps else "; run it again to go on"
    print(
        f"{options.workdir}: step {result.step} of {result.total_steps}"
        + (f", validation {result.psnr:.2f} dB" if result.psnr is not None else "")
        + again
    )


if __name__ == "__main__":
    cli.run(main, config.TrainConfig)
