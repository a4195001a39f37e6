"""The networks in PyTorch, to compare their speed with ours.

PyTorch is optional: only the GPU benchmark and its test import this module. Images are
float (batch, 3, height, width) in [0, 1], with sides that are multiples of the model's
stride.

The autoencoders are mirrored. PyTorch's usual transposed convolution (padding 1, output
padding 1) extends up and to the left where Keras's extends down and to the right. So
kernels and images are mirrored, see `copy_weights` and `restore`.
"""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

MIRRORED = ("basic", "advanced")

Weights = Mapping[str, Any]


class Autoencoder(nn.Module):
    """conv · pool · conv · pool · upconv · upconv · conv to 3 channels, all 3×3."""

    def __init__(self, first: int, second: int, third: int, fourth: int):
        super().__init__()
        up = {"stride": 2, "padding": 1, "output_padding": 1}
        self.conv_1 = nn.Conv2d(3, first, 3, padding=1)
        self.conv_2 = nn.Conv2d(first, second, 3, padding=1)
        self.upconv_1 = nn.ConvTranspose2d(second, third, 3, **up)
        self.upconv_2 = nn.ConvTranspose2d(third, fourth, 3, **up)
        self.conv_3 = nn.Conv2d(fourth, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (n, 3, h, w) to float32 of the same shape, in (0, 1)."""
        x = functional.max_pool2d(functional.relu(self.conv_1(x)), 2)
        x = functional.max_pool2d(functional.relu(self.conv_2(x)), 2)
        x = functional.relu(self.upconv_1(x))
        x = functional.relu(self.upconv_2(x))
        return torch.sigmoid(self.conv_3(x).float())


class Block(nn.Module):
    """NAFNet's block with attention over 3×3 windows; a gate splits one array."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm_1 = nn.LayerNorm(channels, eps=1e-6)
        self.expand_1 = nn.Conv2d(channels, 2 * channels, 1)
        self.depthwise_1 = nn.Conv2d(
            2 * channels, 2 * channels, 3, padding=1, groups=2 * channels
        )
        self.attention = nn.Conv2d(channels, channels, 1)
        self.project_1 = nn.Conv2d(channels, channels, 1)
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.norm_2 = nn.LayerNorm(channels, eps=1e-6)
        self.expand_2 = nn.Conv2d(channels, 2 * channels, 1)
        self.project_2 = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Maps (n, c, h, w) to the same shape."""
        x = self.depthwise_1(self.expand_1(_normed(self.norm_1, inputs)))
        first, second = x.chunk(2, dim=1)
        x = first * second
        x = x * self.attention(functional.avg_pool2d(x, 3, stride=1, padding=1))
        inputs = inputs + self.project_1(x) * self.beta
        x = self.expand_2(_normed(self.norm_2, inputs))
        first, second = x.chunk(2, dim=1)
        return inputs + self.project_2(first * second) * self.gamma


def _normed(norm: nn.LayerNorm, x: torch.Tensor) -> torch.Tensor:
    # In channels_last memory, the permutations copy nothing.
    return norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


# Radii in pixels of the squares of openings and closings.
_RADII = (1, 3, 7)


def _changes(images: torch.Tensor) -> list[torch.Tensor]:
    """Returns the changes that openings and closings make to images."""

    def greatest(x: torch.Tensor, radius: int) -> torch.Tensor:
        return functional.max_pool2d(x, 2 * radius + 1, stride=1, padding=radius)

    found = []
    for radius in _RADII:
        found.append(greatest(-greatest(-images, radius), radius) - images)
        found.append(-greatest(-greatest(images, radius), radius) - images)
    return found


class NAFNet(nn.Module):
    """Fold, two levels down, middle, two levels up, unfold; added to the image."""

    def __init__(self, width: int):
        super().__init__()
        changes = 2 * len(_RADII)
        self.intro = nn.Conv2d(12 * (1 + changes), width, 3, padding=1)
        self.encoder_1_1 = Block(width)
        self.down_1 = nn.Conv2d(width, 2 * width, 2, stride=2)
        self.encoder_2_1 = Block(2 * width)
        self.down_2 = nn.Conv2d(2 * width, 4 * width, 2, stride=2)
        self.middle = nn.Sequential(*(Block(4 * width) for _ in range(4)))
        self.up_2 = nn.Conv2d(4 * width, 8 * width, 1, bias=False)
        self.decoder_2_1 = Block(2 * width)
        self.up_1 = nn.Conv2d(2 * width, 4 * width, 1, bias=False)
        self.decoder_1_1 = Block(width)
        self.outro = nn.Conv2d(width, 4 * (3 + changes), 3, padding=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Maps (n, 3, h, w) to float32 of the same shape."""
        changes = _changes(images)
        shown = torch.cat([images, *changes], dim=1)
        first = self.encoder_1_1(self.intro(functional.pixel_unshuffle(shown, 2)))
        second = self.encoder_2_1(self.down_1(first))
        x = self.middle(self.down_2(second))
        x = self.decoder_2_1(functional.pixel_shuffle(self.up_2(x), 2) + second)
        x = self.decoder_1_1(functional.pixel_shuffle(self.up_1(x), 2) + first)
        outputs = functional.pixel_shuffle(self.outro(x), 2).float()
        restored = images + outputs[:, :3]
        for number, change in enumerate(changes, 3):
            restored = restored + outputs[:, number : number + 1] * change
        return restored


class DnCNN(nn.Module):
    """Twenty convolutions that predict the noise."""

    def __init__(self):
        super().__init__()
        sides = [3, *[64] * 19, 3]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(*pair, 3, padding=1) for pair in itertools.pairwise(sides)
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Maps (n, 3, h, w) to float32 of the same shape."""
        x = images
        for convolution in self.convolutions[:-1]:
            x = functional.relu(convolution(x))
        return images - self.convolutions[-1](x).float()


def build(name: str) -> nn.Module:
    """Returns a network with PyTorch's initial weights.

    Args:
      name: of `restoration.models.MODELS`.

    Raises:
      KeyError: if the network does not exist in PyTorch.
    """
    return _BUILDERS[name]()


_BUILDERS = {
    "basic": lambda: nn.Sequential(Autoencoder(32, 32, 32, 32)),
    "advanced": lambda: nn.Sequential(
        Autoencoder(32, 64, 64, 32), Autoencoder(64, 128, 128, 64)
    ),
    "nafnet_s": lambda: NAFNet(32),
    "nafnet_m": lambda: NAFNet(80),
    "dncnn": DnCNN,
}
NAMES = tuple(_BUILDERS)


def _convolution(layer: Weights, prefix: str, *, mirrored: bool) -> dict[str, Any]:
    kernel = np.asarray(layer["kernel"])
    kernel = kernel[::-1, ::-1] if mirrored else kernel
    axes = (2, 3, 0, 1) if "upconv" in prefix else (3, 2, 0, 1)
    return {f"{prefix}.weight": kernel.transpose(axes), f"{prefix}.bias": layer["bias"]}


def _autoencoders(stages: Weights) -> dict[str, Any]:
    found = {}
    for number, stage in enumerate(sorted(stages)):
        for name, layer in stages[stage].items():
            found |= _convolution(layer, f"{number}.{name}", mirrored=True)
    return found


def _dncnn(layers: Weights) -> dict[str, Any]:
    found = {}
    for name, layer in layers.items():
        number = int(name.removeprefix("conv_")) - 1
        found |= _convolution(layer, f"convolutions.{number}", mirrored=False)
    return found


def _pointwise(kernel: Any) -> np.ndarray:
    return np.asarray(kernel).T[:, :, None, None]


def _colors_first(array: Any) -> np.ndarray:
    """Reorders the last axis from (4 pixels, colors) to (colors, 4 pixels)."""
    array = np.asarray(array)
    split = array.reshape(*array.shape[:-1], 4, -1)
    return np.swapaxes(split, -1, -2).reshape(array.shape)


def _block(block: Weights, prefix: str) -> dict[str, Any]:
    found = {}
    for name in ("norm_1", "norm_2"):
        found[f"{name}.weight"] = block[name]["scale"]
        found[f"{name}.bias"] = block[name]["bias"]
    for name in ("attention", "project_1", "project_2"):
        found[f"{name}.weight"] = _pointwise(block[name]["kernel"])
        found[f"{name}.bias"] = block[name]["bias"]
    for name in ("expand_1", "expand_2"):
        halves = [block[name + half] for half in "ab"]
        kernel = np.concatenate([half["kernel"] for half in halves], axis=1)
        found[f"{name}.weight"] = _pointwise(kernel)
        found[f"{name}.bias"] = np.concatenate([half["bias"] for half in halves])
    halves = [block[f"depthwise_1{half}"] for half in "ab"]
    kernel = np.concatenate([half["kernel"] for half in halves], axis=2)
    found["depthwise_1.weight"] = kernel.transpose(2, 0, 1)[:, None]
    found["depthwise_1.bias"] = np.concatenate([half["bias"] for half in halves])
    for name in ("beta", "gamma"):
        found[name] = np.asarray(block[name]).reshape(1, -1, 1, 1)
    return {f"{prefix}.{name}": value for name, value in found.items()}


def _nafnet(layers: Weights) -> dict[str, Any]:
    found = {}
    for name, layer in layers.items():
        stage, _, number = name.rpartition("_")
        if stage == "middle":
            found |= _block(layer, f"middle.{int(number) - 1}")
        elif stage.startswith(("encoder", "decoder")):
            found |= _block(layer, name)
        elif stage == "down":
            kernel = np.asarray(layer["kernel"])
            kernel = kernel.reshape(2, 2, -1, kernel.shape[1])
            found |= _convolution(
                {"kernel": kernel, "bias": layer["bias"]}, name, mirrored=False
            )
        elif stage == "up":
            found[f"{name}.weight"] = _pointwise(_colors_first(layer["kernel"]))
    intro = np.asarray(layers["intro"]["kernel"])
    intro = np.moveaxis(_colors_first(np.moveaxis(intro, 2, -1)), -1, 2)
    ends = {
        "intro": {"kernel": intro, "bias": layers["intro"]["bias"]},
        "outro": {part: _colors_first(w) for part, w in layers["outro"].items()},
    }
    for name, layer in ends.items():
        found |= _convolution(layer, name, mirrored=False)
    return found


def copy_weights(torch_model: nn.Module, name: str, parameters: Any) -> None:
    """Copies our parameters into a PyTorch model.

    Args:
      torch_model: from `build`.
      name: of the network.
      parameters: of our network of that name.

    Raises:
      RuntimeError: if weights are missing, left over or of another shape.
    """
    if name in MIRRORED:
        found = _autoencoders(parameters["params"])
    elif name == "dncnn":
        found = _dncnn(parameters["params"])
    else:
        found = _nafnet(parameters["params"])
    torch_model.load_state_dict(
        {key: torch.from_numpy(np.array(value)) for key, value in found.items()}
    )


def restore(torch_model: nn.Module, name: str, images: np.ndarray) -> np.ndarray:
    """Restores images, which are mirrored for a mirrored network.

    Args:
      torch_model: from `build`.
      name: of the network.
      images: float32 (batch, height, width, 3) in [0, 1].

    Returns:
      float32 of the same shape.
    """
    step = -1 if name in MIRRORED else 1
    seen = np.ascontiguousarray(images[:, ::step, ::step].transpose(0, 3, 1, 2))
    with torch.no_grad():
        restored = torch_model(torch.from_numpy(seen)).numpy()
    return restored.transpose(0, 2, 3, 1)[:, ::step, ::step]
