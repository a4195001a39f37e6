"""Networks as other programs take them: ONNX and StableHLO, and what surrounds them."""

import dataclasses
import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from etils import epy
from jax import export

from restoration import models
from restoration.base import errors, files
from restoration.inference import layout, onnx_graph, preserve
from restoration.models import apply, filler, finder, pretrained

with epy.lazy_imports():
    import onnx

_IMAGES = onnx_graph.Input("images", 3)

# What the command does with each kind of network, in words for who rebuilds it.
_RESTORES = (
    "The picture's colors become sRGB in [0, 1].",
    "Unless --keep_color: grade.safetensors changes the colors of the whole picture "
    "by one polynomial, before the network sees them (restoration/inference/grade.py).",
    "Where finder and filler are shipped: what the finder finds is filled first.",
    "Tiles with `context` pixels on each side, continued by reflection beyond the "
    "borders, with the border's pixel repeated (NumPy's 'symmetric'); their cores are "
    "blended over 16 pixels.",
    "A color negative is restored as its positive (restoration/inference/negative.py).",
    "A picture without color gets none.",
    "The change, times --strength, is added to the stored values and rounded.",
)
_FINDS = (
    "The picture is cut into tiles of `tile` pixels a side, which overlap by `overlap` "
    "at least; larger ones find worse. A smaller picture is continued by reflection.",
    "The output is the logit of damage; its sigmoid is the probability. Each tile is "
    "seen mirrored, too, and the mean of both is taken; then tiles are blended.",
    "restoration/inference/decide.py makes a mask of it, and has the limits.",
)
_FILLS = ("The mask is 1 where damaged, else 0; where it is 0 nothing changes.",)


@dataclasses.dataclass(frozen=True)
class Exportable:
    """A network with its weights, ready to be written.

    Attributes:
      name: of the weights.
      apply: of images (batch, height, width, channels), one for each input.
      inputs: what it takes.
      output: what it gives.
      stride: height and width are multiples of it.
      about: what the JSON file beside it says.
    """

    name: str
    apply: Callable[..., Any]
    inputs: tuple[onnx_graph.Input, ...]
    output: str
    stride: int
    about: dict[str, Any]


def _about(
    name: str, model: Any, digest: str, *, context: int, around: tuple[str, ...]
) -> dict[str, Any]:
    return {
        "name": name,
        "weights_sha256": digest,
        "stride": model.stride,
        "context": context,
        "layout": "batch, channels, height, width; RGB",
        "around": list(around),
    }


def _beside(name: str) -> Exportable:
    """Returns the finder or the filler."""
    model, parameters, digest = pretrained.load_part(name)
    if name == finder.NAME:
        about = _about(name, model, digest, context=0, around=_FINDS)
        about |= {"tile": model.tile, "overlap": model.overlap}
        about["inputs"] = {"images": "RGB, sRGB in [0, 1]"}
        about["output"] = {"logits": "one channel, above 0 where damage is likely"}
        return Exportable(
            name,
            lambda images: model.apply(parameters, images),
            (_IMAGES,),
            "logits",
            model.stride,
            about,
        )
    context = apply.margin(model)
    about = _about(name, model, digest, context=context, around=_FILLS)
    about["inputs"] = {"images": "RGB, sRGB in [0, 1]", "mask": "0 or 1"}
    about["output"] = {"filled": "RGB, near [0, 1], not clipped"}
    return Exportable(
        name,
        lambda images, mask: model.apply(parameters, images, mask),
        (_IMAGES, onnx_graph.Input("mask", 1)),
        "filled",
        model.stride,
        about,
    )


def load(name: str, *, keep_color: bool = False, network_only: bool = False) -> Any:
    """Loads what is to be exported.

    Args:
      name: of shipped weights: a restoring network, "" for the best, finder or filler.
      keep_color: of a restoring network, whether color and tone stay.
      network_only: of a restoring network, whether what the command takes back of its
        changes is left out.

    Returns:
      An `Exportable`.

    Raises:
      InputError: for a name without weights, or options that do not go together.
    """
    if keep_color and network_only:
        raise errors.InputError("give --keep_color or --network_only, not both")
    if name in (finder.NAME, filler.NAME):
        if keep_color or network_only:
            raise errors.InputError(
                f"--keep_color and --network_only are of restoring networks, not {name}"
            )
        return _beside(name)
    path = pretrained.find_shipped(name)
    architecture, parameters = pretrained.load_shipped(name)
    digest = pretrained.read_card(path.with_suffix(".json"))["sha256"]
    model = models.get_model(architecture)
    rule = None if network_only else preserve.COLOR if keep_color else preserve.SHADES
    # Any tile that is large enough shows the context that the command takes.
    radius = rule.radius if rule else 0
    side = apply.on_grid(4 * (model.halo + radius) + 256, model.stride)
    grid = layout.make_grid(model, tile=(side, side), radius=radius)
    about = _about(path.stem, model, digest, context=grid.context, around=_RESTORES)
    about |= {"architecture": architecture, "keep_color": keep_color}
    about["inputs"] = {"images": "RGB, sRGB in [0, 1]"}
    about["output"] = {"restored": "RGB, near [0, 1], not clipped"}
    if network_only:
        about["around"].append(
            "What restoration/inference/preserve.py takes back is not in this file."
        )
        return Exportable(
            path.stem,
            lambda images: model.apply(parameters, images),
            (_IMAGES,),
            "restored",
            model.stride,
            about,
        )
    about["inputs"]["free"] = (
        "1 where damage was found or nothing was looked for, 0 where changes are held "
        "to 10/255"
    )
    about["output"] = {"restored": "RGB in [0, 1]"}
    held = preserve.restoring(model, rule)

    def restore(images: Any, free: Any) -> Any:
        return held(parameters, jnp.concatenate([images, free], axis=-1))

    inputs = (_IMAGES, onnx_graph.Input("free", 1))
    return Exportable(path.stem, restore, inputs, "restored", model.stride, about)


def to_onnx(network: Exportable) -> bytes:
    """Returns a network as an ONNX model; see `onnx_graph.build`."""
    try:
        _ = onnx.__version__
    except ImportError:
        raise errors.InputError(
            "the package onnx is missing; pip install 'film-restoration[export]'"
        ) from None
    return onnx_graph.build(
        network.apply,
        network.inputs,
        network.output,
        stride=network.stride,
        metadata={"about": json.dumps(network.about)},
    )


def to_stablehlo(network: Exportable) -> bytes:
    """Returns a network as `jax.export` writes it: StableHLO for CPU, CUDA and TPU.

    `jax.export.deserialize(data).call(images, ...)` runs it; images are (batch,
    height, width, channels) of any batch, height and width that the stride divides.
    """
    batch, down, across = export.symbolic_shape("batch, down, across")
    shape = (batch, network.stride * down, network.stride * across)
    images = [
        jax.ShapeDtypeStruct((*shape, one.channels), jnp.float32)
        for one in network.inputs
    ]
    platforms = ("cpu", "cuda", "tpu")
    return export.export(jax.jit(network.apply), platforms=platforms)(
        *images
    ).serialize()


# How a file of each suffix is made.
FORMATS = {".onnx": to_onnx, ".stablehlo": to_stablehlo}


def write(path: pathlib.Path, network: Exportable) -> pathlib.Path:
    """Writes a network, and beside it a JSON file that says how to use it.

    Args:
      path: where to; its suffix, `.onnx` or `.stablehlo`, chooses the format.
      network: from `load`.

    Returns:
      The JSON file.

    Raises:
      InputError: for another suffix.
    """
    about = network.about
    if path.suffix == ".stablehlo":
        about = about | {"layout": "batch, height, width, channels; RGB"}
    files.write_bytes(path, FORMATS[path.suffix](network))
    beside = path.with_suffix(".json")
    files.write_text(beside, json.dumps(about, indent=1) + "\n")
    return beside
