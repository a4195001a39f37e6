"""Exported networks give what ours give, in programs that know nothing of JAX."""

import json
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest
from jax import export as jax_export

from restoration import export, models
from restoration.base import errors
from restoration.images import frames
from restoration.inference import batch, exported, onnx_graph, preserve
from restoration.models import efficientnet_lite, filler, finder, nafnet, pretrained
from tests import selection

GENERATOR = np.random.default_rng(0)


def random_parameters(like):
    """Returns parameters that let everything through, whatever is zero at first."""

    def draw(leaf):
        scale = 0.5 / np.sqrt(max(1, np.prod(leaf.shape[:-1])))
        return jnp.asarray(GENERATOR.normal(0, scale, leaf.shape), jnp.float32)

    return jax.tree.map(draw, like)


def compare(function, inputs, stride, sizes, *, tolerance=1e-5):
    """Holds the exported function to the function itself; returns the graph."""
    data = onnx_graph.build(
        function, inputs, "output", stride=stride, metadata={"a": "b"}
    )
    session = onnxruntime.InferenceSession(data)
    compiled = jax.jit(function)
    for batch_size, down, across in sizes:
        shape = (batch_size, down * stride, across * stride)
        images = [
            GENERATOR.random((*shape, one.channels), np.float32) for one in inputs
        ]
        given = {
            one.name: image.transpose(0, 3, 1, 2)
            for one, image in zip(inputs, images, strict=True)
        }
        (found,) = session.run(None, given)
        expected = np.asarray(compiled(*images)).transpose(0, 3, 1, 2)
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, atol=tolerance, rtol=0)
    model = onnx.load_from_string(data)
    assert model.opset_import[0].version == 18
    for value in (*model.graph.input, *model.graph.output):
        axes = value.type.tensor_type.shape.dim
        assert [axis.dim_param for axis in axes] == ["batch", "", "height", "width"]
    return model


IMAGES = onnx_graph.Input("images", 3)


@pytest.mark.parametrize(
    "name", selection.slow_but(["advanced", "basic"], ["nafnet_s", "advanced", "basic"])
)
def test_shipped_networks(name):
    architecture, parameters = pretrained.load_shipped(name)
    model = models.get_model(architecture)
    graph = compare(
        lambda images: model.apply(parameters, images),
        [IMAGES],
        model.stride,
        [(1, 8, 11), (2, 6, 5)],
    )
    grouped = [
        attribute.i
        for node in graph.graph.node
        if node.op_type == "Conv"
        for attribute in node.attribute
        if attribute.name == "group" and attribute.i > 1
    ]
    # Two depthwise convolutions and a window's mean a block, none as shifted products.
    assert len(grouped) == (24 if name == "nafnet_s" else 0)


@pytest.mark.parametrize("rule", [preserve.SHADES, preserve.COLOR])
def test_what_the_command_keeps(rule):
    model = models.get_model("basic_residual")
    _, parameters = pretrained.load_shipped("basic")
    held = preserve.restoring(model, rule)
    compare(
        lambda images, free: held(
            parameters, jnp.concatenate([images, (free > 0.5) * 1.0], -1)
        ),
        [IMAGES, onnx_graph.Input("free", 1)],
        model.stride,
        [(1, 18, 21)],
    )


@pytest.mark.slow
def test_finder():
    model = finder.Finder()
    parameters = random_parameters(finder.abstract_parameters())
    compare(
        lambda images: model.apply(parameters, images),
        [IMAGES],
        model.stride,
        [(1, 3, 2)],
    )


@pytest.mark.slow
def test_filler():
    model = filler.Filler()
    parameters = random_parameters(filler.abstract_parameters())
    compare(
        lambda images, mask: model.apply(parameters, images, mask),
        [IMAGES, onnx_graph.Input("mask", 1)],
        model.stride,
        [(1, 3, 2)],
    )


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [3, 5])
def test_depthwise_convolutions_become_grouped_ones(side, stride):
    kernel = jnp.asarray(GENERATOR.normal(size=(side, side, 3)), jnp.float32)
    graph = compare(
        lambda x: efficientnet_lite.depthwise(x, kernel, stride),
        [IMAGES],
        2,
        [(2, 5, 9), (1, 1, 1)],
    )
    assert [node.op_type for node in graph.graph.node if node.op_type == "Conv"]
    assert "Slice" not in {node.op_type for node in graph.graph.node}


def test_folds_become_one_operation():
    graph = compare(nafnet.fold, [IMAGES], 2, [(2, 3, 5)], tolerance=0)
    kinds = {node.op_type for node in graph.graph.node}
    assert "SpaceToDepth" in kinds and not kinds & {"Reshape", "Transpose"}


def test_what_cannot_be_exported_is_said():
    for function in (
        lambda x: x.reshape(x.shape[0], -1, 1, 3) + 0,  # a product of sizes
        lambda x: jnp.sort(x, axis=1),
        lambda x: x * 2 if x.shape[1] % 16 else x,
    ):
        with pytest.raises((errors.InputError, ValueError)):
            onnx_graph.build(function, [IMAGES], "output", stride=8, metadata={})


def test_stablehlo():
    network = exported.load("basic", network_only=True)
    loaded = jax_export.deserialize(exported.to_stablehlo(network))
    assert loaded.platforms == ("cpu", "cuda", "tpu")
    images = GENERATOR.random((3, 8, 12, 3), np.float32)
    np.testing.assert_allclose(loaded.call(images), network.apply(images), atol=1e-5)


def test_the_command_and_its_errors(tmp_path):
    path = tmp_path / "basic.onnx"
    export.main(export.ExportOptions(output=str(path), model="basic"))
    about = json.loads((tmp_path / "basic.json").read_text())
    assert about["stride"] == 4 and about["name"] == "basic"
    assert about["context"] % 4 == 0 and about["context"] >= 10 + 32
    assert set(about["inputs"]) == {"images", "free"}
    with pytest.raises(errors.InputError, match=r"basic\.onnx: exists"):
        export.ExportOptions(output=str(path))
    with pytest.raises(errors.InputError, match=r"name it \.onnx or \.stablehlo"):
        export.ExportOptions(output="basic.pb")
    with pytest.raises(errors.InputError, match="no weights of model 'x'"):
        export.main(export.ExportOptions(output=str(tmp_path / "x.onnx"), model="x"))
    with pytest.raises(errors.InputError, match="not both"):
        exported.load("basic", keep_color=True, network_only=True)


DOCS = pathlib.Path(export.__file__).parents[1] / "docs"


def snippet():
    """Returns the lines of Python that the documents show."""
    for path in (DOCS / "models.md",):
        if path.is_file():
            found = re.search(
                r"```python\n(import json\n.*?onnxruntime.*?)```",
                path.read_text(encoding="utf-8"),
                re.DOTALL,
            )
            if found:
                return found[1]
    raise AssertionError("the documents do not show how to use an exported network")


def test_the_lines_of_the_documents_reproduce_the_command(tmp_path, photographs):
    code = snippet()
    assert len(code.splitlines()) <= 20
    assert not re.search(r"\b(jax|restoration)\b", code.replace("restoration.png", ""))
    photo = photographs["astronaut"][60:157, 150:253]
    frames.write(tmp_path / "photo.png", photo)
    export.main(
        export.ExportOptions(
            output=str(tmp_path / "basic.onnx"), model="basic", keep_color=True
        )
    )
    code = code.replace("nafnet_s", "basic")
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    options = batch.RestoreOptions(
        input=(str(tmp_path / "photo.png"),), output=str(tmp_path / "ours"),
        model="basic", keep_color=True, blind=False,
    )  # fmt: skip
    assert not [done.error for done in batch.restore(options) if done.error]
    ours = frames.read(tmp_path / "ours" / "photo_restored.png")
    theirs = frames.read(tmp_path / "photo_restored.png")
    # Where a value lies between two steps, rounding may differ.
    assert np.abs(ours - theirs).max() < 1.01 / 255
    assert (ours != theirs).mean() < 1e-3
    assert np.abs(ours - photo).max() > 0.02
