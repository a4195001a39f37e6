"""Batches made on the host: drawn ahead, logged, measured, given away, gone on with."""

import dataclasses
import threading
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
import pytest

from restoration.base import config, errors
from restoration.training import feed, repeat, run, run_log, train_config


@dataclasses.dataclass(frozen=True, kw_only=True)
class Longer(train_config.RunConfig):
    """A run whose steps may change though the rate falls."""

    steps_are_free: ClassVar[bool] = True

    decay_from: int = config.option(0, help="see `RunConfig`", free=True)


def options_for(workdir, **changes):
    values = {
        "workdir": str(workdir), "steps": 8, "batch_size": 4, "evaluations": 4,
        "log_every": 2, "checkpoint_every": 3, "schedule": "cosine", "accumulate": 1,
        "ema_decay": 0.9, "learning_rate": 0.1,
    }  # fmt: skip
    return Longer(**(values | changes))


def draw(number):
    rng = np.random.default_rng([7, number])
    x = rng.normal(size=(4, 3)).astype(np.float32)
    return {"x": x, "y": x @ np.float32([1.0, -2.0, 0.5])}


def objective(model, parameters, batch, *, key, microbatch):
    return jnp.mean((batch["x"] @ parameters["w"] - batch["y"]) ** 2), {}


def distance(parameters):
    return {
        "score": -float(np.square(parameters["w"] - np.float32([1, -2, 0.5])).sum())
    }


def train(options, measure=distance, drawing=draw):
    batches, clock = feed.draw_ahead(drawing)
    source = feed.Feed(
        count=16,
        names=(),
        make_run=feed.streamed_run(options, batches),
        make_validate=lambda model: measure,
        bad={},
        describe=lambda: {"fingerprint": "none", "pairs": {}},
        clock=clock,
    )
    given = []
    task = run.Task(None, objective, {"w": jnp.zeros(3)})
    done = run.train(options, source, task=task, export=lambda **row: given.append(row))
    return done, given


def stop_after(patch, steps):
    asked = iter([False] * steps + [True])
    patch.setattr(run.processes, "make_any", lambda: lambda here: next(asked))


@pytest.mark.parametrize("start", [0, 3])
def test_batches_are_those_of_their_steps(start):
    batches, clock = feed.draw_ahead(lambda number: {"number": np.array([number])})
    drawn = [int(batch["number"][0]) for batch in batches(start, 6)]
    assert drawn == list(range(start, 6))
    assert clock()["drawing"] > 0 and clock()["waiting"] > 0


def test_the_next_batch_is_drawn_while_one_is_used():
    drawn = threading.Semaphore(0)

    def one(number):
        drawn.release()
        return {"number": np.array([number])}

    batches, _ = feed.draw_ahead(one)
    coming = batches(0, 5)
    next(coming)
    assert all(drawn.acquire(timeout=60) for _ in range(2))
    coming.close()
    assert not any(t.name.startswith("draw") for t in threading.enumerate())


def test_what_drawing_raises_ends_the_run(tmp_path):
    def broken(number):
        if number == 3:
            raise errors.InputError("clean/x.png: not readable")
        return draw(number)

    with pytest.raises(errors.InputError, match=r"x\.png: not readable"):
        train(options_for(tmp_path), drawing=broken)


def test_weights_are_given_away_as_they_are_measured(tmp_path):
    done, given = train(options_for(tmp_path))
    assert [row["step"] for row in given] == [2, 4, 6, 8]
    assert [row["figures"] for row in given] == [
        distance(row["parameters"]) for row in given
    ]
    np.testing.assert_array_equal(given[-1]["parameters"]["w"], done.parameters["w"])
    rows = run_log.read(tmp_path / run_log.NAME)
    shares = [(r["drawing_share"], r["waiting_share"]) for r in rows if "loss" in r]
    assert len(shares) == 4 and all(0 <= x <= 1 for row in shares for x in row)


def test_nothing_measured_is_no_error(tmp_path):
    done, given = train(options_for(tmp_path), measure=lambda parameters: {})
    assert done.figures == {} and len(given) == 4


def test_a_run_is_made_longer_before_its_rate_falls(tmp_path, monkeypatch):
    whole, parts = (
        options_for(tmp_path / name, decay_from=6, evaluations=1)
        for name in ("whole", "parts")
    )
    done, _ = train(whole)
    with monkeypatch.context() as patch:
        stop_after(patch, 5)
        train(dataclasses.replace(parts, steps=7, decay_from=5))
    again, _ = train(parts)
    assert again.step == done.step == 8
    assert repeat.compare(whole.workdir, parts.workdir) == []
    with pytest.raises(errors.InputError, match=r"another run \(seed 0 -> 1\)"):
        train(dataclasses.replace(parts, seed=1))


def test_other_runs_keep_their_steps_where_the_rate_falls():
    before = train_config.RunConfig(workdir="W", steps=8, schedule="cosine")
    after = dataclasses.replace(before, steps=9)
    assert train_config.changes(dataclasses.asdict(before), after)
    assert "steps" in train_config.fixed(before)
    assert "steps" not in train_config.fixed(options_for("W"))
