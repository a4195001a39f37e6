"""Optimizer, steps, draws and pipelines: the same result by every way."""

import dataclasses
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from restoration import models
from restoration.base import errors
from restoration.data import arrays, bad_pairs, input_pipeline, pairs, sampling
from restoration.images import frames
from restoration.training import guard, loop, losses, optim, run_log, step, train_config

OPTIONS = train_config.TrainConfig(data_dir="", workdir="")


def test_adam_equals_keras():
    import keras

    generator = np.random.default_rng(0)
    start = generator.standard_normal(50).astype(np.float32)
    # Gradients near ε tell its place.
    gradients = generator.standard_normal((30, 50)).astype(np.float32) * 1e-6
    variable = keras.Variable(start)
    theirs = keras.optimizers.Adam(1e-3)
    ours = optax.chain(optim.scale_by_keras_adam(), optax.scale_by_learning_rate(1e-3))
    parameters, state = jnp.array(start), ours.init(jnp.array(start))
    for gradient in gradients:
        theirs.apply([keras.ops.convert_to_tensor(gradient)], [variable])
        updates, state = ours.update(jnp.array(gradient), state)
        parameters = optax.apply_updates(parameters, updates)
    np.testing.assert_allclose(parameters, np.asarray(variable), rtol=2e-6, atol=1e-7)


def test_muon_makes_every_direction_of_a_kernel_as_long():
    generator = np.random.default_rng(0)
    kernel = jnp.asarray(generator.standard_normal((3, 3, 4, 8)), jnp.float32)
    gradients = {"kernel": kernel, "bias": kernel[0, 0, 0], "outro": kernel[..., :3]}
    parameters = jax.tree.map(jnp.zeros_like, gradients)
    optimizer = optim.muon(lambda count: 1e-2)
    updates, _ = optimizer.update(gradients, optimizer.init(parameters), parameters)
    left, lengths, right = np.linalg.svd(kernel.reshape(36, 8), full_matrices=False)
    assert lengths.max() > 2 * lengths.min()
    # Newton and Schulz' five steps end between 0.7 and 1.2 (Jordan et al. 2024).
    turned = -left.T @ np.asarray(updates["kernel"]).reshape(36, 8) @ right.T / 1e-2
    assert np.all((np.diag(turned) > 0.65) & (np.diag(turned) < 1.25))
    np.testing.assert_allclose(turned - np.diag(np.diag(turned)), 0, atol=1e-3)
    # Adam's steps follow signs alone; Nesterov's momentum makes the first one longer.
    for name in ("bias", "outro"):
        expected = -1e-3 * (1 + 0.9 * 0.1 / (1 - 0.9**2)) * np.sign(gradients[name])
        np.testing.assert_allclose(updates[name], expected, rtol=1e-3)


@pytest.mark.slow
def test_muon_trains_and_decays_kernels_alone():
    options = dataclasses.replace(OPTIONS, optimizer="muon", learning_rate=1e-2)
    model, optimizer = models.get_model("basic"), optim.make_optimizer(options, 10)
    run = jax.jit(
        step.make_train_step(model, optimizer, step.restoring(losses.make_loss("mse")))
    )
    state, found = step.init_state(model, optimizer, jax.random.key(0), ema=False), []
    for _ in range(10):
        state, values = run(state, random_batch())
        found.append(float(values["loss"]))
    assert found[-1] < found[0]
    still = jax.tree.map(jnp.zeros_like, state.parameters)
    decaying = optim.muon(lambda count: 1e-2, weight_decay=0.5)
    updates, _ = decaying.update(
        still, decaying.init(state.parameters), state.parameters
    )
    stage = updates["params"]["stage_1"]
    assert all(float(jnp.abs(layer["kernel"]).max()) > 0 for layer in stage.values())
    assert all(float(jnp.abs(layer["bias"]).max()) == 0 for layer in stage.values())


def test_schedules():
    constant = optim.make_schedule(OPTIONS, 100)
    assert float(constant(0)) == float(constant(99)) == pytest.approx(1e-3)
    options = dataclasses.replace(OPTIONS, schedule="cosine", warmup_steps=10)
    schedule = optim.make_schedule(options, 100)
    assert float(schedule(0)) == 0
    assert float(schedule(10)) == pytest.approx(1e-3)
    assert float(schedule(55)) == pytest.approx(5e-4, rel=1e-3)
    assert float(schedule(100)) == pytest.approx(0, abs=1e-9)


def test_adamw_decays_kernels_alone_and_parts_have_rates_of_their_own():
    """By optax' own AdamW with the schedule scaled for the part."""
    generator = np.random.default_rng(0)
    parameters = {
        part: {
            "kernel": jnp.asarray(generator.standard_normal((3, 4)), jnp.float32),
            "bias": jnp.asarray(generator.standard_normal(4), jnp.float32),
        }
        for part in ("encoder", "rest")
    }
    gradients = jax.tree.map(lambda leaf: 0.1 * jnp.cos(leaf), parameters)
    options = dataclasses.replace(
        OPTIONS, optimizer="adamw", weight_decay=0.5, beta2=0.99, learning_rate=1e-2
    )
    ours = optim.make_optimizer(options, 10, {"encoder": 0.25})
    updates, _ = ours.update(gradients, ours.init(parameters), parameters)
    for part, rate in (("encoder", 2.5e-3), ("rest", 1e-2)):
        for leaf, decay in (("kernel", 0.5), ("bias", 0.0)):
            theirs = optax.adamw(rate, b2=0.99, weight_decay=decay)
            only, weights = gradients[part][leaf], parameters[part][leaf]
            expected, _ = theirs.update(only, theirs.init(weights), weights)
            np.testing.assert_allclose(updates[part][leaf], expected, rtol=1e-5)


def test_cosine_falls_late_and_ends_above_zero():
    options = dataclasses.replace(
        OPTIONS, schedule="cosine", warmup_steps=10, decay_from=50, cosine_end=0.1
    )
    schedule = optim.make_schedule(options, 100)
    assert float(schedule(5)) == pytest.approx(5e-4)
    assert float(schedule(10)) == float(schedule(49)) == pytest.approx(1e-3)
    assert float(schedule(75)) == pytest.approx(5.5e-4, rel=1e-3)
    assert float(schedule(100)) == pytest.approx(1e-4)
    # As optax' own, without the flat part.
    options = dataclasses.replace(options, decay_from=0)
    theirs = optax.warmup_cosine_decay_schedule(0.0, 1e-3, 10, 100, end_value=1e-4)
    for number in (0, 3, 10, 47, 99, 100):
        ours = float(optim.make_schedule(options, 100)(number))
        assert ours == pytest.approx(float(theirs(number)), rel=1e-6, abs=1e-12)


def test_evaluations_are_spread_over_the_steps():
    options = dataclasses.replace(OPTIONS, evaluations=4, log_every=1000)
    events = loop.Events(options, 7, 250)
    stops = [number for number in range(1, 251) if events.evaluates(number)]
    assert stops == [62, 125, 187, 250]
    done, seen = 0, []
    while done < 250:
        done = events.next_after(done)
        seen.append(done)
    assert seen == stops
    events = loop.Events(dataclasses.replace(options, evaluations=10), 7, 2)
    assert [number for number in (1, 2) if events.evaluates(number)] == [1, 2]


def test_the_objective_of_a_step_is_given_keys_and_microbatches():
    """One key a microbatch, other ones at the next step; metrics are averaged."""
    seen = []

    def objective(model, parameters, batch, *, key, microbatch):
        del model
        seen.append((microbatch, batch["input"].shape))
        noise = jax.random.uniform(key)
        value = (parameters["w"] * batch["input"]).mean()
        return value, {"noise": noise} | ({"first": noise} if not microbatch else {})

    optimizer = optim.make_optimizer(OPTIONS, 10)
    run = step.make_train_step(None, optimizer, objective, accumulate=2, seed=3)
    state = step.state_of({"w": jnp.ones([])}, optimizer, ema=False)
    found = []
    for _ in range(2):
        state, values = run(state, {"input": jnp.arange(4.0)[:, None]})
        found.append(values)
    assert seen[:2] == [(0, (2, 1)), (1, (2, 1))]
    assert float(found[0]["loss"]) == pytest.approx(1.5)
    assert float(found[0]["noise"]) != float(found[0]["first"])
    assert float(found[0]["first"]) != float(found[1]["first"])
    key = jax.random.fold_in(jax.random.key(3), 0)
    assert float(found[0]["first"]) == float(jax.random.uniform(key))


def new_step(**options):
    model = models.get_model("basic")
    optimizer = optim.make_optimizer(OPTIONS, 10)
    train_step = step.make_train_step(
        model, optimizer, step.restoring(losses.make_loss("mse")), **options
    )
    ema = bool(options.get("ema_decay"))
    return train_step, step.init_state(model, optimizer, jax.random.key(0), ema=ema)


def random_batch(count=4, seed=0):
    images = np.random.default_rng(seed).integers(0, 256, (2, count, 16, 16, 3))
    return {"input": images[0].astype(np.uint8), "output": images[1].astype(np.uint8)}


def test_accumulated_gradients_equal_the_whole_batch():
    results = []
    for accumulate in (1, 2, 4):
        train_step, state = new_step(accumulate=accumulate)
        state, values = jax.jit(train_step)(state, random_batch())
        results.append((state.parameters, values["loss"], values["gradient_norm"]))
    for other in results[1:]:
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6),
            results[0],
            other,
        )


def test_the_average_follows_the_weights():
    train_step, state = new_step(ema_decay=0.9)
    expected = np.asarray(jax.tree.leaves(state.parameters)[0])
    for number in range(3):
        state, _ = jax.jit(train_step)(state, random_batch(seed=number))
        decay = min(0.9, (1 + number) / (10 + number))
        newest = np.asarray(jax.tree.leaves(state.parameters)[0])
        expected = decay * expected + (1 - decay) * newest
    got = jax.tree.leaves(state.average)[0]
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7)


def protected(train_step, skip):
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return guard.compile_protected(train_step, skip=skip, whole=device, rest=(device,))


@pytest.mark.slow
def test_the_guard_changes_no_bit():
    """Beside the step alone, its arguments donated: as it was without a guard."""
    train_step, start = new_step(accumulate=2, ema_decay=0.9)
    plain, guarded = jax.jit(train_step, donate_argnums=0), protected(train_step, True)
    ours, theirs = start, jax.tree.map(jnp.copy, start)
    for number in range(6):
        batch = random_batch(seed=number)
        theirs, expected = plain(theirs, batch)
        ours, values = guarded(ours, np.int32(number), batch)
        assert not values.pop("bad")
        jax.tree.map(np.testing.assert_array_equal, (ours, values), (theirs, expected))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_the_guard_keeps_the_state_from_bad_numbers(value):
    train_step, start = new_step(ema_decay=0.9)
    bad = {name: x.astype(np.float32) / 255 for name, x in random_batch().items()}
    good = {name: rows.copy() for name, rows in bad.items()}
    bad["output"][1, 3, 3, 0] = value
    for skip in (True, False):
        guarded = protected(train_step, skip)
        state, values = guarded(start, np.int32(0), bad)
        assert values["bad"]
        assert int(state.step) == int(skip)
        jax.tree.map(np.testing.assert_array_equal, state[1:], start[1:])
        after, values = guarded(state, np.int32(1), good)
        # Where bad numbers stop the run, the steps after do nothing.
        assert int(after.step) == 2 * skip
        assert not values["bad"]
        moved = np.any(
            jax.tree.leaves(after.parameters)[0] != jax.tree.leaves(state.parameters)[0]
        )
        assert moved == skip


def test_means_are_the_same_wherever_they_are_cut():
    generator = np.random.default_rng(0)
    values = {"loss": generator.random(50, np.float32) * 1e-3}
    bad = np.zeros(50, bool)
    bad[[7, 30]] = True
    whole = run_log.add(run_log.EMPTY, values, bad)
    sums = run_log.EMPTY
    for first, end in ((0, 1), (1, 31), (31, 50)):
        part = {"loss": values["loss"][first:end]}
        sums = json.loads(json.dumps(run_log.add(sums, part, bad[first:end])))
    assert sums == whole
    means = run_log.means(whole)
    assert means["skipped"] == 2
    expected = np.mean(values["loss"][~bad], dtype=np.float64)
    assert means["loss"] == pytest.approx(expected, rel=1e-12)


def test_draws_see_every_pair_equally_often():
    draw = lambda s: sampling.batch_draws(  # noqa: E731
        seed=1, step=s, count=10, batch_size=4, augment=True
    )
    seen = np.concatenate([draw(s).index for s in range(5)])
    np.testing.assert_array_equal(np.bincount(seen), np.full(10, 2))
    np.testing.assert_array_equal(draw(3).offset, draw(3).offset)
    larger = sampling.batch_draws(seed=1, step=0, count=3, batch_size=7, augment=False)
    assert len(larger.index) == 7
    assert not larger.flip.any()


def read_all(members):
    read = lambda side: np.stack(  # noqa: E731
        [frames.to_uint8(frames.read(getattr(p, side))) for p in members]
    )
    return arrays.PairArrays(read("input"), read("output"))


def test_folder_and_arrays_give_the_same_batches(paired_folder):
    members = pairs.find_splits(paired_folder)["train"]
    pipeline = input_pipeline.train_batches(
        input_pipeline.file_reader(members), image_size=32, batch_size=6, seed=5,
        start_step=2, total_steps=5, augment=True,
    )  # fmt: skip
    resident = read_all(members)
    batches = list(pipeline)
    assert len(batches) == 3
    for number, batch in enumerate(batches, start=2):
        draws = sampling.batch_draws(
            seed=5, step=number, count=len(members), batch_size=6, augment=True
        )
        crops = arrays.take_crops(resident, draws, 32)
        for side in ("input", "output"):
            np.testing.assert_array_equal(batch[side], crops[side])


def test_processes_share_a_batch(paired_folder):
    members = pairs.find_splits(paired_folder)["train"]
    shared = {
        "image_size": 16, "batch_size": 4, "seed": 0,
        "start_step": 0, "total_steps": 2, "augment": True,
    }  # fmt: skip
    reader = input_pipeline.file_reader(members)
    whole = list(input_pipeline.train_batches(reader, **shared))
    parts = [
        list(input_pipeline.train_batches(reader, **shared, process=(i, 2)))
        for i in (0, 1)
    ]
    for number, batch in enumerate(whole):
        joined = np.concatenate([part[number]["input"] for part in parts])
        np.testing.assert_array_equal(batch["input"], joined)


def test_evaluation_counts_every_image_once(tmp_path, photographs):
    for number, size in enumerate([(20, 24), (20, 24), (20, 24), (30, 16)]):
        image = photographs["rocket"][: size[0], : size[1]]
        for side in ("input", "output"):
            frames.write(tmp_path / side / f"a_{number}.png", image)
    members = pairs.match(tmp_path)
    batches = list(
        input_pipeline.evaluation_batches(
            input_pipeline.file_reader(members), batch_size=2
        )
    )
    assert [b["input"].shape for b in batches] == [
        (2, 20, 24, 3), (2, 20, 24, 3), (1, 30, 16, 3),
    ]  # fmt: skip
    assert [list(b["mask"]) for b in batches] == [[True] * 2, [True, False], [True]]
    assert [n for b in batches for n in b["name"]] == ["a_0", "a_1", "a_2", "a_3"]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp"])
def test_tensorflow_and_libvips_decode_alike(tmp_path, photographs, suffix):
    color = photographs["chelsea"][:40, :56]
    grey = np.repeat(color[..., 1:2], 3, -1)
    for name, image in (("color", color), ("grey", grey)):
        path = tmp_path / f"{name}{suffix}"
        frames.write(path, image)
        decoded = input_pipeline.decode(path.read_bytes()).numpy()
        np.testing.assert_array_equal(decoded, frames.to_uint8(frames.read(path)))


def consume(members, image_size=16, bad=None):
    return list(
        input_pipeline.train_batches(
            input_pipeline.file_reader(members),
            image_size=image_size, batch_size=2, seed=0,
            start_step=0, total_steps=2, augment=False, bad=bad,
        )
    )  # fmt: skip


def test_bad_pairs_are_named(tmp_path, photographs):
    image = photographs["rocket"]
    for number in range(2):
        frames.write(tmp_path / "input" / f"a_{number}.png", image[:20, :20])
        frames.write(tmp_path / "output" / f"a_{number}.png", image[:20, :20])
    members = pairs.match(tmp_path)
    with pytest.raises(errors.InputError, match=r"a_\d.png: smaller than --image_size"):
        consume(members, image_size=24)
    frames.write(tmp_path / "output" / "a_1.png", image[:24, :20])
    with pytest.raises(errors.InputError, match=r"input.a_1.png and .*output.a_1.png"):
        consume(members)
    (tmp_path / "output" / "a_1.png").write_bytes(b"no image")
    with pytest.raises(errors.InputError, match=r"output.a_1.png: cannot be decoded"):
        consume(members)
    bad = {}
    assert len(consume(members, bad=bad)) == 2
    assert list(bad) == [1]
    with pytest.raises(errors.InputError, match="smaller than --image_size"):
        consume(members, image_size=24, bad={})
    with pytest.raises(errors.InputError, match="convert it"):
        consume([dataclasses.replace(members[0], suffixes=(".tif", ".png"))])


def test_a_few_bad_ones_are_found_among_many():
    members = [types.SimpleNamespace(name=str(number)) for number in range(50)]
    wrong, readings = {"3", "4", "31"}, []

    def read_all(chosen):
        readings.append(len(chosen))
        for member in chosen:
            if member.name in wrong:
                raise errors.InputError(member.name)

    bad = {}
    bad_pairs.find(read_all, members, bad)
    assert bad == {3: "3", 4: "4", 31: "31"}
    assert len(readings) < 50
    assert bad_pairs.next_good(3, 50, bad) == 5
    assert bad_pairs.next_good(49, 50, bad | {49: "", 0: ""}) == 1


def test_reading_passes_over_bad_pairs_and_warns_once(caplog):
    def read(place):
        if place in (2, 3):
            raise errors.InputError(f"{place} is damaged")
        return place

    bad, names = {}, list("abcdef")
    reading = bad_pairs.reading(read, names, bad)
    assert [reading(place) for place in (2, 1, 3, 2, 5)] == [4, 1, 4, 4, 5]
    assert bad == {2: "2 is damaged", 3: "3 is damaged"}
    assert caplog.text.count("training pair c cannot be read (2 is") == 1
    assert bad_pairs.reading(read, names, None) is read


def test_bad_arrays_are_told():
    good = np.zeros((2, 16, 16, 3), np.uint8)
    with pytest.raises(errors.InputError, match="both must be"):
        arrays.check(arrays.PairArrays(good, good[:1]), image_size=8)
    with pytest.raises(errors.InputError, match="smaller than"):
        arrays.check(arrays.PairArrays(good, good), image_size=32)
