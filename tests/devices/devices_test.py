"""One training step on 1, 2, 4 and 8 devices of one host."""

import json
import os
import subprocess
import sys

import jax
import pytest

from restoration.devices import backend

CODE = """
import json, re
import jax, numpy as np
from jax.sharding import AxisType
from restoration import models
from restoration.base import config
from restoration.devices import sharding
from restoration.training import losses, optim, step, train_config

options = train_config.TrainConfig(data_dir="", workdir="", image_size=16)
model = models.get_model("basic")
optimizer = optim.make_optimizer(options, 10)
train_step = step.make_train_step(
    model, optimizer, step.restoring(losses.make_loss("mse"))
)
random = np.random.default_rng(0)
batches = [
    {k: random.integers(0, 255, (16, 16, 16, 3), np.uint8) for k in ("input", "output")}
    for _ in range(3)
]
found = []
for count in (1, 2, 4, 8):
    mesh = jax.make_mesh(
        (count,), ("data",), (AxisType.Auto,), devices=jax.devices()[:count]
    )
    whole, split = sharding.replicated(mesh), sharding.split_batch(mesh)
    state = step.init_state(model, optimizer, jax.random.key(0), ema=False)
    state = jax.device_put(state, whole)
    compiled = jax.jit(
        train_step,
        in_shardings=(whole, split),
        out_shardings=(whole, whole),
        donate_argnums=0,
    )
    text = compiled.lower(state, batches[0]).compile().as_text()
    seen = []
    for batch in batches:
        state, values = compiled(state, batch)
        seen.append([float(values["loss"]), float(values["gradient_norm"])])
    found.append({
        "values": seen,
        "compiled": compiled._cache_size(),
        "collectives": re.findall(
            r" (all-reduce|all-gather|all-to-all|collective-permute)(?:-start)?\\(",
            text,
        ),
    })
print(json.dumps(found))
"""


@pytest.mark.slow
def test_devices_share_a_batch_with_one_reduction_per_step():
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
    }
    done = subprocess.run(
        [sys.executable, "-c", CODE], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    for devices, row in zip((1, 2, 4, 8), found, strict=True):
        for values, alone in zip(row["values"], found[0]["values"], strict=True):
            assert values == pytest.approx(alone, rel=1e-5)
        assert row["compiled"] == 1
        # One operation reduces all gradients and the batch's means.
        assert row["collectives"] == ["all-reduce"] * (devices > 1)


def test_programs_are_compiled_quickly_unless_the_user_says_how(monkeypatch):
    device = jax.devices("cpu")[0]
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=")
    options = backend.compiler_options(device)
    assert options["xla_backend_optimization_level"] == 1
    program = jax.jit(lambda x: x + 1, compiler_options=options)
    assert program(1.0) == 2  # this version of JAX knows the options
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")
    assert backend.compiler_options(device) == {}
