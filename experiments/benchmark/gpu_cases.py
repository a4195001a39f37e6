"""Cases of the GPU benchmark: ours, PyTorch's, the device's limits, and the input.

Run as a program, this module serves the cases of one model, see `interleaved`.
"""

import functools
import pathlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from etils import epy

from experiments.benchmark import interleaved
from restoration.training import train_config

with epy.lazy_imports():
    import jax
    import jax.numpy as jnp

    from experiments.benchmark import roofline
    from experiments.pretrain import pretrain_masks
    from restoration import models
    from restoration.data import arrays, sampling
    from restoration.devices import backend, sharding
    from restoration.models import apply, filler, finder, pretrained
    from restoration.training import losses, optim, step

# Sides of the images, and the pixels of a batch: as many as in a batch of `restore`.
_SIDES, _PIXELS = (128, 256, 512), 16 * 512 * 512
_QUICK_SIDES, _QUICK_PIXELS = (32,), 2 * 32 * 32

# With this side, the step is also measured without metrics.
_BARE_SIDE, _QUICK_BARE_SIDE = 256, 32

# Bytes of the copy and side of the matrices that measure the device.
_COPY, _MATRIX = 1 << 30, 8192
_QUICK_COPY, _QUICK_MATRIX = 1 << 22, 256

# Pairs of a training step of the finder and the filler, and their side.
_MASK_BATCH, _MASK_SIDE = 32, 256

# Models whose input is measured.
_FED = ("basic", "nafnet_s")


class _Input(NamedTuple):
    """Number of pairs, their side, the crops' side, pairs per step, steps per call."""

    pairs: int
    side: int
    crop: int
    batch: int
    steps: int


_INPUT = _Input(4096, 160, 128, 256, 16)
_QUICK_INPUT = _Input(8, 40, 32, 2, 2)

TRAIN, INFER, BARE = "train", "infer", "train without metrics"


def batch_size(side: int, quick: bool) -> int:
    """Returns the number of square images with this side in a batch."""
    return (_QUICK_PIXELS if quick else _PIXELS) // side**2


def _images(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return tuple(random.integers(0, 256, shape, np.uint8) for _ in "ab")


class _Training(NamedTuple):
    model: Any
    step: Callable
    state: Any


def _training(name: str) -> _Training:
    options = train_config.TrainConfig(
        data_dir="", workdir="", model=name, bfloat16=True
    )
    model = models.get_model(name, dtype=jnp.bfloat16)
    optimizer = optim.make_optimizer(options, 1)
    train_step = step.make_train_step(
        model, optimizer, step.restoring(losses.make_loss(options.loss))
    )
    # Compiled as one program, since a GPU's first call of each operation is slow.
    first = jax.jit(lambda key: step.init_state(model, optimizer, key, ema=False))
    state = first(jax.random.key(0))
    return _Training(model, train_step, state)


def _cost(cost: "roofline.Cost | None") -> dict[str, float] | None:
    return None if cost is None else cost._asdict()


def our_training(
    name: str, batch: int, side: int, *, metrics: bool
) -> interleaved.Case:
    """Returns our training step on a batch on the device.

    Args:
      name: of the model.
      batch: pairs.
      side: of the crops, pixels.
      metrics: whether it computes PSNR, SSIM and the gradient's norm, as `train` does.
    """
    model, train_step, state = _training(name)
    degraded, target = map(jnp.asarray, _images((batch, side, side, 3)))
    pairs = {"input": degraded, "output": target}

    def run(state: Any, pairs: Any) -> tuple:
        state, values = train_step(state, pairs)
        return state, values if metrics else values["loss"]

    compiled = jax.jit(run, donate_argnums=0).lower(state, pairs).compile()
    held = [state]

    def call() -> Any:
        held[0], values = compiled(held[0], pairs)
        return values

    facts = {
        "program": _cost(roofline.of_program(compiled)),
        "floor": _cost(roofline.training(model, batch, side)),
    }
    return interleaved.Case(call, jax.block_until_ready, batch, facts)


def our_inference(name: str, batch: int, side: int) -> interleaved.Case:
    """Returns our network on a batch on the device; arguments as `our_training`."""
    model = models.get_model(name, dtype=jnp.bfloat16)
    parameters = _training(name).state.parameters
    images = jnp.asarray(_images((batch, side, side, 3))[0], jnp.float32) / 255
    run = jax.jit(lambda parameters, images: apply.apply(model, parameters, images))
    compiled = run.lower(parameters, images).compile()
    facts = {
        "program": _cost(roofline.of_program(compiled)),
        "floor": _cost(roofline.inference(model, batch, side)),
    }
    return interleaved.Case(
        lambda: compiled(parameters, images), jax.block_until_ready, batch, facts
    )


def _our_makers(name: str, quick: bool) -> dict[str, Callable[[], interleaved.Case]]:
    makers = {}
    for side in _QUICK_SIDES if quick else _SIDES:
        sizes = name, batch_size(side, quick), side
        training = functools.partial(our_training, *sizes)
        makers[f"{TRAIN} {side}"] = functools.partial(training, metrics=True)
        makers[f"{INFER} {side}"] = functools.partial(our_inference, *sizes)
        if side == (_QUICK_BARE_SIDE if quick else _BARE_SIDE):
            makers[f"{BARE} {side}"] = functools.partial(training, metrics=False)
    return makers


def _torch_cases(name: str, batch: int, side: int) -> Iterator[tuple[str, Callable]]:
    """Yields the maker of each of PyTorch's cases."""
    import torch

    from experiments.benchmark import torch_models

    device = "cuda" if torch.cuda.is_available() else "cpu"
    on_gpu = device == "cuda"
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")

    def compiled(function: Callable) -> Callable:
        return torch.compile(function, dynamic=False) if on_gpu else function

    def put(images: np.ndarray) -> Any:
        tensor = torch.from_numpy(images.transpose(0, 3, 1, 2)).to(device)
        return tensor.contiguous(memory_format=torch.channels_last)

    def wait(_: Any) -> None:
        if on_gpu:
            torch.cuda.synchronize()

    def network() -> Any:
        torch_model = torch_models.build(name)
        return torch_model.to(device, memory_format=torch.channels_last)

    def autocast() -> Any:
        return torch.autocast(device, torch.bfloat16)

    facts = {"compiled": on_gpu}

    def training() -> interleaved.Case:
        torch_model = network()
        degraded, target = map(put, _images((batch, side, side, 3)))
        optimizer = torch.optim.Adam(torch_model.parameters(), lr=1e-3, fused=True)

        @compiled
        def loss(degraded: Any, target: Any) -> Any:
            error = torch_model(degraded.float() / 255) - target.float() / 255
            return error.square().mean()

        def call() -> Any:
            optimizer.zero_grad(set_to_none=True)
            with autocast():
                value = loss(degraded, target)
            value.backward()
            optimizer.step()
            return value

        return interleaved.Case(call, wait, batch, facts)

    def inference() -> interleaved.Case:
        torch_model = compiled(network().eval())
        images = put(_images((batch, side, side, 3))[0]).float() / 255

        def call() -> Any:
            with torch.no_grad(), autocast():
                return torch_model(images)

        return interleaved.Case(call, wait, batch, facts)

    yield f"{TRAIN} {side}", training
    yield f"{INFER} {side}", inference


def _torch_makers(name: str, quick: bool) -> dict[str, Callable[[], interleaved.Case]]:
    sides = _QUICK_SIDES if quick else _SIDES
    return dict(
        case
        for side in sides
        for case in _torch_cases(name, batch_size(side, quick), side)
    )


def _limit_makers(quick: bool) -> dict[str, Callable[[], interleaved.Case]]:
    def copy() -> interleaved.Case:
        size = _QUICK_COPY if quick else _COPY
        images = jnp.zeros(size // 4)
        run = jax.jit(lambda x: x + 1)
        return interleaved.Case(
            lambda: run(images), jax.block_until_ready, 2 * size, device
        )

    def product() -> interleaved.Case:
        side = _QUICK_MATRIX if quick else _MATRIX
        matrix = jax.random.normal(jax.random.key(0), (side, side), jnp.bfloat16)
        run = jax.jit(lambda x: x @ x)
        return interleaved.Case(
            lambda: run(matrix), jax.block_until_ready, 2 * side**3, device
        )

    device = {
        "device": jax.devices()[0].device_kind,
        "platform": jax.default_backend(),
    }
    return {"copy": copy, "product": product}


def _resident_case(name: str, size: _Input) -> interleaved.Case:
    """Returns many steps in one call, on pairs on the device.

    Like `train --cache=device`, without its guard against non-finite numbers.
    """
    _, train_step, state = _training(name)
    pairs = arrays.PairArrays(
        *map(jnp.asarray, _images((size.pairs, size.side, size.side, 3)))
    )

    @functools.partial(jax.jit, donate_argnums=0)
    def run(state: Any, pairs: Any, drawn: Any) -> tuple:
        def one(state: Any, draws: Any) -> tuple:
            return train_step(state, arrays.take_crops(pairs, draws, size.crop))

        return jax.lax.scan(one, state, drawn)

    held, first = [state], [0]

    def call() -> Any:
        drawn = [
            sampling.batch_draws(
                seed=0, step=number, count=size.pairs, batch_size=size.batch,
                augment=True,
            )
            for number in range(first[0], first[0] + size.steps)
        ]  # fmt: skip
        first[0] += size.steps
        stacked = jax.tree.map(lambda *rows: np.stack(rows), *drawn)
        held[0], values = run(held[0], pairs, stacked)
        return values

    return interleaved.Case(call, jax.block_until_ready, size.batch * size.steps, {})


def _npy_case(name: str, size: _Input) -> interleaved.Case:
    """Returns one step on a batch cropped on the host from memory-mapped files."""
    _, train_step, state = _training(name)
    folder = tempfile.TemporaryDirectory()
    images = _images((size.pairs, size.side, size.side, 3))
    sides = []
    for number, rows in enumerate(images):
        path = pathlib.Path(folder.name, f"{number}.npy")
        np.save(path, rows)
        sides.append(np.load(path, mmap_mode="r", allow_pickle=False))
    batches = arrays.train_batches(
        lambda index: (sides[0][index], sides[1][index]),
        [str(number) for number in range(size.pairs)],
        image_size=size.crop, batch_size=size.batch, seed=0, start_step=0,
        total_steps=1 << 30, augment=True,
    )  # fmt: skip
    split = sharding.split_batch(sharding.make_mesh())
    run = jax.jit(train_step, donate_argnums=0)
    held = [state, folder]  # keeps the folder as long as the case

    def call() -> Any:
        batch = {
            side: jax.make_array_from_process_local_data(split, rows)
            for side, rows in next(batches).items()
        }
        held[0], values = run(held[0], batch)
        return values

    return interleaved.Case(call, jax.block_until_ready, size.batch, {})


def _input_makers(quick: bool) -> dict[str, Callable[[], interleaved.Case]]:
    size = _QUICK_INPUT if quick else _INPUT
    makers: dict[str, Callable[[], interleaved.Case]] = {}
    for name in _FED[:1] if quick else _FED:
        makers[f"{name} one batch"] = functools.partial(
            our_training, name, size.batch, size.crop, metrics=True
        )
        makers[f"{name} device"] = functools.partial(_resident_case, name, size)
        makers[f"{name} npy"] = functools.partial(_npy_case, name, size)
    return makers


def _mask_case(name: str, quick: bool) -> interleaved.Case:
    """Returns the training step of a finder or a filler, on a batch on the device."""
    module, objective = {
        "finder": (finder.Finder, pretrain_masks.finder_loss),
        "filler": (filler.Filler, pretrain_masks.filler_loss),
    }[name]
    batch, side = (2, 64) if quick else (_MASK_BATCH, _MASK_SIDE)
    options = train_config.TrainConfig(
        data_dir="", workdir="", model=name, optimizer="adamw"
    )
    optimizer = optim.make_optimizer(options, 1)
    train_step = step.make_train_step(module(dtype=jnp.bfloat16), optimizer, objective)
    _, parameters, _ = pretrained.load_part(name)
    parameters = jax.tree.map(jnp.asarray, parameters)
    held = [step.state_of(parameters, optimizer, ema=False)]
    images = _images((batch, side, side, 3))
    mask = np.zeros((batch, side, side, 1), np.uint8)
    mask[:, :: side // 4, side // 4 :] = 255
    pairs = dict(zip(("input", "output"), images, strict=True))
    pairs |= dict.fromkeys(("mask", "seen", "given"), mask)
    pairs = jax.tree.map(jnp.asarray, pairs)
    run = jax.jit(train_step, donate_argnums=0)

    def call() -> Any:
        held[0], values = run(held[0], pairs)
        return values

    sizes = {"batch": batch, "side": side}
    return interleaved.Case(call, jax.block_until_ready, batch, {"sizes": sizes})


def _mask_makers(quick: bool) -> dict[str, Callable[[], interleaved.Case]]:
    return {
        name: functools.partial(_mask_case, name, quick)
        for name in ("finder", "filler")
    }


def _serve(program: str, name: str, quick: bool) -> None:
    if program == "torch":
        interleaved.serve(_torch_makers(name, quick))
        return
    backend.keep_freed_memory()
    backend.cache_compilations()
    makers = {
        "ours": functools.partial(_our_makers, name),
        "limits": _limit_makers,
        "input": _input_makers,
        "masks": _mask_makers,
    }
    interleaved.serve(makers[program](quick))


if __name__ == "__main__":
    _serve(sys.argv[1], sys.argv[2], "quick" in sys.argv[3:])
