"""The GPU benchmark counts rightly, and its JSON file holds what is promised."""

import json
import math
import os

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmark import (
    benchmark,
    damage,
    gpu,
    gpu_cases,
    interleaved,
    roofline,
)
from restoration import models
from restoration.base import errors
from tests import selection

# Layers of the basic model: inputs, outputs, taps, and the shares of the pixels that
# the input and the output have.
BASIC = (
    (3, 32, 9, 1, 1),
    (32, 32, 9, 1 / 4, 1 / 4),
    (32, 32, 9, 1 / 16, 1 / 4),
    (32, 32, 9, 1 / 4, 1),
    (32, 3, 9, 1, 1),
)


def test_floor_of_the_basic_model_is_the_sum_of_its_layers():
    batch, side = 2, 64
    pixels = batch * side**2
    model = models.get_model("basic", dtype=jnp.bfloat16)
    operations = moved = 0
    for number, (ins, outs, taps, before, after) in enumerate(BASIC):
        # A transposed convolution has nine taps for each pixel of its input.
        positions = min(before, after)
        operations += 2 * ins * outs * taps * positions * pixels
        seen, made = 2 * ins * before * pixels, 2 * outs * after * pixels
        weights = 2 * ins * outs * taps
        moved += seen + weights + made
        found = roofline.layers(model, batch, side)[number]
        assert found.operations == 2 * ins * outs * taps * positions * pixels
        assert (found.input, found.weights, found.output) == (seen, weights, made)
    assert roofline.inference(model, batch, side) == (operations, moved)


@pytest.mark.parametrize(("name", "width"), [("basic", 32), ("dncnn", 64)])
def test_training_needs_three_times_the_operations_except_in_the_first_layer(
    name, width
):
    model = models.get_model(name)
    forwards = roofline.inference(model, 2, 32).operations
    first = 2 * 27 * width * 2 * 32**2  # no gradient of the pictures
    assert roofline.training(model, 2, 32).operations == 3 * forwards - first


def test_training_reads_and_writes_each_array_once_per_pass():
    model = models.get_model("dncnn")  # float32, twenty layers of the image's size
    pixels, wide, parameters = 2 * 32**2, 64, 668_227
    forwards = 4 * pixels * (3 + 19 * wide + 19 * wide + 3)
    backwards = 4 * pixels * (2 * 19 * wide + 3 + 3 + 19 * wide)
    kernels = 4 * (parameters - 19 * wide - 3)
    first = 4 * 27 * wide  # its weights are not read again
    expected = forwards + backwards + 3 * kernels - first + 28 * parameters
    assert roofline.training(model, 2, 32).bytes == expected


@pytest.mark.parametrize(
    ("name", "width"),
    [("nafnet_s", 32), pytest.param("nafnet_m", 80, marks=pytest.mark.slow)],
)
def test_floor_of_nafnet_ignores_depthwise_convolutions(name, width):
    model = models.get_model(name)
    side = 16 * model.stride
    found = roofline.inference(model, 1, side).operations / 2 / side**2
    # Each block three times 3×3, all levels together 27 a channel of the first.
    assert found == pytest.approx(models.multiply_adds(model) - 27 * width)


@pytest.mark.parametrize(
    "name", selection.slow_but(set(models.MODELS) - {"nafnet_m"}, models.MODELS)
)
def test_floor_grows_with_the_batch_and_halves_in_bfloat16(name):
    full, half = (models.get_model(name, dtype=t) for t in (None, jnp.bfloat16))
    one, two = (roofline.layers(full, batch, 32) for batch in (1, 2))
    assert [2 * x.operations for x in one] == [x.operations for x in two]
    assert [2 * x.output for x in one] == [x.output for x in two]
    narrow = roofline.layers(half, 1, 32)
    assert [x.weights / 2 for x in one] == [x.weights for x in narrow]
    assert [x.input / 2 for x in one] == [x.input for x in narrow]


def test_row_has_shares_of_the_devices_limits():
    limits = {"bytes_per_second": 1e12, "operations_per_second": 1e14}
    ours = {
        "per_second": 800.0,
        "rounds": [800.0],
        "floor": {"operations": 1e12, "bytes": 5e9},
        "program": None,
    }
    torch = {"per_second": 500.0, "rounds": [500.0], "compiled": True}
    row = gpu.make_row({"ours": ours, "torch": torch}, 8, limits)
    assert row["milliseconds"] == pytest.approx(10.0)
    assert row["floor"]["compute_ms"] == pytest.approx(10.0)
    assert row["floor"]["memory_ms"] == pytest.approx(5.0)
    assert row["share_of_limit"] == pytest.approx(1.0)
    assert row["ratio_to_torch"] == pytest.approx(1.6)
    assert row["program"] is None
    failed = gpu.make_row({"ours": ours, "torch": {"error": "x"}}, 8, limits)
    assert failed["errors"] == {"torch": "x"} and "ratio_to_torch" not in failed


@pytest.mark.parametrize("side", [128, 256, 512])
def test_batches_have_as_many_pixels_as_those_of_restore(side):
    assert gpu_cases.batch_size(side, quick=False) * side**2 == 16 * 512**2


def test_a_case_makes_all_calls_and_waits_for_the_last():
    calls, waited = [], []

    def call():
        calls.append(len(calls))
        return calls[-1]

    case = interleaved.Case(call, waited.append, 3, {})
    assert interleaved.per_second(case, 1e-9) > 0
    assert calls == [0, 1, 2] and waited == [0, 2]


def test_a_failing_program_is_reported_and_does_not_stop_the_others():
    programs = {"none": interleaved.start("experiments.no_such", [], os.environ)}
    found = interleaved.measure_and_stop(programs, rounds=1, seconds=0.0)
    assert set(found) == {"start"}
    assert "no_such" in found["start"]["none"]["error"]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """What a quick run without PyTorch, damage and input gives, and its file."""
    out = tmp_path_factory.mktemp("gpu") / "gpu.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu, "has_torch", lambda: False)
        patch.setattr(damage, "measure", lambda quick: {"side": 64})
        patch.setattr(gpu, "_measure_input", lambda quick: {"basic": {}})
        patch.setattr(gpu, "_measure_masks", lambda quick: {"finder": {}})
        patch.setattr(gpu, "_table_1", lambda quick, out: {"basic": {}})
        return gpu.measure(True, str(out)), out


@pytest.mark.slow
def test_quick_run_measures_without_a_gpu_and_without_pytorch(measured):
    found, out = measured
    assert json.loads(out.read_text()) == found
    cases = {"basic train 32", "basic infer 32", "basic train without metrics 32"}
    assert set(found["rows"]) == cases
    for row in found["rows"].values():
        assert row["batch"] == 2
        assert row["images_per_second"]["ours"] > 0
        assert set(row["images_per_second"]) == {"ours"}
        assert math.isclose(
            row["floor"]["operations"] / row["program"]["operations"], 1, rel_tol=0.4
        )
        assert row["floor"]["bytes"] < row["program"]["bytes"]
    assert found["damage"] == {"side": 64} and found["input"] == {"basic": {}}
    assert found["limits"]["platform"] == "cpu"


@pytest.mark.slow
def test_only_missing_results_are_measured(measured, monkeypatch):
    found, out = measured
    monkeypatch.setattr(gpu, "_measure_limits", lambda quick: found["limits"])
    monkeypatch.setattr(gpu, "has_torch", lambda: False)
    asked = []

    def no_more(programs, quick):
        asked.append(sorted(programs))
        return {"train 32": {name: {"error": "none"} for name in programs}}

    monkeypatch.setattr(gpu, "_measured", no_more)
    assert gpu.measure(True, str(out)) == found
    assert not asked
    # Rows of other code are not kept.
    monkeypatch.setattr(gpu, "_code", lambda: "another")
    monkeypatch.setattr(damage, "measure", lambda quick: {"side": 64})
    monkeypatch.setattr(gpu, "_table_1", lambda quick, out: {"basic": {}})
    again = gpu.measure(True, str(out.with_name("gpu.json")))
    assert asked[0] == ["ours basic"]
    assert again["rows"]["basic train 32"]["errors"] == {"ours": "none"}
    assert "none" in again["input"]["error"]


@pytest.mark.slow
def test_nothing_is_begun_after_the_time_is_over(measured, monkeypatch, tmp_path):
    found, _ = measured
    monkeypatch.setattr(gpu, "_measure_limits", lambda quick: found["limits"])
    monkeypatch.setattr(gpu, "has_torch", lambda: False)
    cut = gpu.measure(True, str(tmp_path / "gpu.json"), minutes=1e-9)
    assert cut["left"] == ["rows", "damage", "masks", "input", "table 1"]
    assert not cut["rows"]


@pytest.mark.slow
def test_a_dry_run_trains_the_masks_networks_and_table_1(tmp_path):
    masks = gpu._measure_masks(True)
    assert set(masks) == {"finder", "filler"}
    assert all(row["pairs_per_second"] > 0 for row in masks.values())
    rows = gpu._table_1(True, str(tmp_path / "gpu.json"))
    assert len(rows) == 3
    assert len(list((tmp_path / "tables").glob("t1_*.json"))) == 3


def test_damage_on_the_host_keeps_shape_and_range():
    pytest.importorskip("cv2", reason="OpenCV is not installed; it is no dependency")
    image = damage._pictures(1, 48)[0]
    for kind in damage.KINDS:
        random = np.random.default_rng(0)
        degraded = damage.on_host(random, image, (kind,))
        assert degraded.shape == image.shape and degraded.dtype == np.float32
        assert degraded.min() >= 0 and degraded.max() <= 1
        assert 0 < np.abs(degraded - image).mean() < 0.2


def test_unknown_benchmark_is_refused():
    with pytest.raises(errors.InputError, match="gpu, damage"):
        benchmark.BenchmarkOptions(what=("tpu",))


@pytest.mark.slow
def test_input_is_measured_on_the_device_and_streamed():
    found = gpu._measure_input(True)["basic"]
    assert set(found["waiting_share"]) == {"device", "npy"}
    assert all(found[what] > 0 for what in ("one batch", "device", "npy"))


@pytest.mark.slow
def test_damage_is_measured_on_one_core_and_on_the_device():
    found = damage.measure(quick=True)
    cases = {"blur", "jpeg", "these together"}
    assert set(found["one_core"]["ours"]) == set(found["device"]) == cases
    assert set(found["share_of_step"]) == cases
    if "opencv" in found["one_core"]:
        assert set(found["ratio_to_opencv_one_core"]) == cases
    else:
        assert "not installed" in found["opencv"]
