"""The networks in PyTorch, to compare their speed with ours.

PyTorch is optional: only the benchmarks `gpu` and `masks` and their tests import this
module. Images are float (batch, 3, height, width) in [0, 1], with sides that are
multiples of the model's stride.

The autoencoders are mirrored. PyTorch's usual transposed convolution (padding 1, output
padding 1) extends up and to the left where Keras's extends down and to the right. So
kernels and images are mirrored, see `copy_weights` and `restore`.
"""

import itertools
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from restoration.base.luma import BT601
from restoration.models import efficientnet_lite

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


def _changes(
    images: torch.Tensor, radii: tuple[int, ...] = _RADII
) -> list[torch.Tensor]:
    """Returns the changes that openings and closings make to images."""

    def greatest(x: torch.Tensor, radius: int) -> torch.Tensor:
        # Rows, then columns: a square at once would be many more comparisons.
        side = 2 * radius + 1
        x = functional.max_pool2d(x, (side, 1), stride=1, padding=(radius, 0))
        return functional.max_pool2d(x, (1, side), stride=1, padding=(0, radius))

    found = []
    for radius in radii:
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


class Scaled(nn.Module):
    """A convolution whose kernel is scaled, for each channel, with a bias."""

    def __init__(
        self,
        inputs: int,
        features: int,
        side: int = 1,
        stride: int = 1,
        groups: int = 1,
    ):
        super().__init__()
        self.stride, self.groups = stride, groups
        # TensorFlow's 'SAME' padding of an even length, before and after.
        self.edges = 2 * ((side - stride) // 2, (side - stride + 1) // 2)
        self.weight = nn.Parameter(torch.empty(features, inputs // groups, side, side))
        nn.init.kaiming_uniform_(self.weight)
        self.scale = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (n, inputs, h, w) to (n, features, h / stride, w / stride)."""
        padding = self.edges[0]
        if self.edges[1] != padding:
            x, padding = functional.pad(x, self.edges), 0
        kernel = self.weight * self.scale[:, None, None, None]
        return functional.conv2d(
            x, kernel, self.bias, self.stride, padding, groups=self.groups
        )


# (kernel side, stride, expansion, channels) of the encoder's blocks.
_BLOCKS = efficientnet_lite.BLOCKS[:11]


class Encoder(nn.Module):
    """EfficientNet-Lite0 to its eleventh block, see `efficientnet_lite`."""

    def __init__(self):
        super().__init__()
        self.stem = Scaled(3, 32, side=3, stride=2)
        inputs = 32
        for number, (side, stride, expansion, channels) in enumerate(_BLOCKS):
            wide, name = expansion * inputs, f"block_{number}"
            if expansion > 1:
                self.add_module(f"{name}_expand", Scaled(inputs, wide))
            self.add_module(
                f"{name}_depthwise", Scaled(wide, wide, side, stride, groups=wide)
            )
            self.add_module(f"{name}_project", Scaled(wide, channels))
            inputs = channels

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Maps (n, 3, h, w) to what leaves each block."""
        parts = dict(self.named_children())
        x = functional.relu6(self.stem((images - 127 / 255) / (128 / 255)))
        found = []
        for number in range(len(_BLOCKS)):
            inputs, name = x, f"block_{number}"
            if f"{name}_expand" in parts:
                x = functional.relu6(parts[f"{name}_expand"](x))
            x = functional.relu6(parts[f"{name}_depthwise"](x))
            x = parts[f"{name}_project"](x)
            if inputs.shape == x.shape:
                x = x + inputs
            found.append(x)
        return found


class Separable(nn.Sequential):
    """Separable convolutions 3×3."""

    def __init__(self, features: int, count: int):
        parts = []
        for _ in range(count):
            parts += [
                Scaled(features, features, side=3, groups=features),
                Scaled(features, features),
                nn.ReLU(),
            ]
        super().__init__(*parts)


class Details(nn.Module):
    """Features of images, folded, and of what is small in their luma."""

    def __init__(self, radii: tuple[int, ...]):
        super().__init__()
        self.radii = radii
        folded = 4 * (3 + 2 * len(radii))
        self.mixed = Scaled(folded, 24)
        self.around = Scaled(24, 24, side=3, groups=24)
        self.details = Scaled(24, 24)
        luma = torch.tensor(BT601, dtype=torch.float32)[None, :, None, None]
        self.register_buffer("luma", luma, persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Maps (n, 3, h, w) to (n, 24, h / 2, w / 2)."""
        luma = (images * self.luma).sum(1, keepdim=True)
        changes = [4 * change for change in _changes(luma, self.radii)]
        shown = functional.pixel_unshuffle(torch.cat([images, *changes], dim=1), 2)
        x = self.around(functional.relu(self.mixed(shown)))
        return functional.relu(self.details(x))


def _double(x: torch.Tensor) -> torch.Tensor:
    return functional.interpolate(x, scale_factor=2, mode="nearest")


class Finder(nn.Module):
    """An encoder that sees the picture twice, and a decoder for each size."""

    def __init__(self):
        super().__init__()
        self.encoder = Encoder()
        self.half_details, self.full_details = Details((1, 3, 7)), Details((1, 3))
        self.lateral = nn.ModuleDict(
            {"32": Scaled(112, 48), "16": Scaled(40, 48), "8": Scaled(24, 48)}
            | {"4": Scaled(16 + 24, 48)}
        )
        self.decode = nn.ModuleDict(
            {"32": Separable(48, 1), "16": Separable(48, 2), "8": Separable(48, 2)}
            | {"4": Separable(48, 2), "2": Separable(24, 2)}
        )
        self.full_lateral = nn.ModuleDict(
            {"16": Scaled(112, 32), "8": Scaled(40, 32), "4": Scaled(24 + 48, 32)}
            | {"2": Scaled(16, 32)}
        )
        self.full_decode = nn.ModuleDict(
            {stride: Separable(32, 1) for stride in self.full_lateral}
        )
        self.coarse_logits = nn.Conv2d(48, 4, 1)
        self.narrow = Scaled(48, 24)
        self.full_joined = nn.Conv2d(32, 24, 1)
        self.fine_logits = nn.Conv2d(24, 4, 3, padding=1)

    def forward(
        self, images: torch.Tensor, window: tuple[int, int, int] | None = None
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Maps (n, 3, h, w) to logits; `window` as in `restoration.models.finder`."""
        half = functional.avg_pool2d(images, 2)
        found = self.encoder(half)
        y = None
        for stride, block in (("32", 10), ("16", 4), ("8", 2), ("4", 0)):
            seen = found[block]
            if stride == "4":
                seen = torch.cat([seen, self.half_details(half)], dim=1)
            z = self.lateral[stride](seen)
            y = self.decode[stride](z if y is None else z + _double(y))
        coarse = functional.pixel_shuffle(self.coarse_logits(y), 2) - 2.5

        full, here = images, coarse
        if window:
            full, here = part(full, window, 1), part(coarse, window, 2)
            y = part(y, window, 4)
        z = _double(self.narrow(y)) + self.full_details(full)
        z = z + self._near(self.encoder(full), y)
        fine = self.fine_logits(self.decode["2"](z))
        logits = _double(here) + functional.pixel_shuffle(fine, 2)
        return (logits, coarse) if window else logits

    def _near(self, found: list[torch.Tensor], y: torch.Tensor) -> torch.Tensor:
        """Decodes features of the full-size picture to stride 2."""
        x = None
        for stride, block in (("16", 10), ("8", 4), ("4", 2), ("2", 0)):
            seen = found[block]
            if stride == "4":
                seen = torch.cat([seen, y], dim=1)
            z = self.full_lateral[stride](seen)
            x = self.full_decode[stride](z if x is None else z + _double(x))
        return self.full_joined(x)


def part(x: torch.Tensor, window: tuple[int, int, int], stride: int) -> torch.Tensor:
    """Cuts a window, (row, column, side) in pixels of full size, out of features."""
    row, column, side = (length // stride for length in window)
    return x[:, :, row : row + side, column : column + side]


def first_guess(images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Fills masks smoothly from what they leave, see `restoration.models.filler`."""
    weights = torch.clamp(1 - masks, min=1e-5)
    sums = [torch.cat([images * weights, weights], dim=1)]
    for _ in range(5):
        sums.append(functional.avg_pool2d(sums[-1], 2))
    side = torch.tensor([[1.0, 4.0, 1.0]], device=images.device)
    around = side * side.T / 20
    around[1, 1] = 0
    around = around.expand(3, 1, 3, 3)
    guess = sums[-1][:, :3] / sums[-1][:, 3:]
    for level, sweeps in zip(sums[-2::-1], (0, 1, 2, 6, 6), strict=True):
        known = level[:, 3:]
        mean, trust = level[:, :3] / known, torch.clamp(4 * known, max=1)
        coarse = functional.interpolate(guess, scale_factor=2, mode="bilinear")
        guess = torch.lerp(coarse, mean, trust)
        for _ in range(sweeps):
            padded = functional.pad(guess, (1, 1, 1, 1), mode="replicate")
            guess = torch.lerp(functional.conv2d(padded, around, groups=3), mean, trust)
    return guess


class Filler(nn.Module):
    """A first guess, and NAFNet's blocks at three sizes."""

    def __init__(self):
        super().__init__()
        self.intro = nn.Conv2d(28, 24, 1)
        self.down_1_1 = Block(24)
        self.down_2 = nn.Conv2d(24, 48, 2, stride=2)
        self.down_2_1 = Block(48)
        self.down_3 = nn.Conv2d(48, 64, 2, stride=2)
        self.middle = nn.Sequential(*(Block(64) for _ in range(4)))
        self.up_2 = nn.Conv2d(64, 4 * 48, 1, bias=False)
        self.up_2_1 = Block(48)
        self.up_1 = nn.Conv2d(48, 4 * 24, 1, bias=False)
        self.up_1_1 = Block(24)
        self.outro = nn.Conv2d(24, 12, 1)

    def forward(self, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Maps (n, 3, h, w) and masks (n, 1, h, w) to pictures."""
        guess = first_guess(images, masks)
        shown = functional.pixel_unshuffle(torch.cat([images, masks, guess], dim=1), 2)
        first = self.down_1_1(self.intro(shown))
        second = self.down_2_1(self.down_2(first))
        x = self.middle(self.down_3(second))
        x = self.up_2_1(functional.pixel_shuffle(self.up_2(x), 2) + second)
        x = self.up_1_1(functional.pixel_shuffle(self.up_1(x), 2) + first)
        filled = guess + functional.pixel_shuffle(self.outro(x), 2)
        return torch.where(masks > 0, filled, images)


def build(name: str) -> nn.Module:
    """Returns a network with PyTorch's initial weights.

    Args:
      name: of `restoration.models.MODELS`, or of `MASKS`.

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
    "finder": Finder,
    "filler": Filler,
}
MASKS = ("finder", "filler")
NAMES = tuple(name for name in _BUILDERS if name not in MASKS)


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


def _down(layer: Weights, name: str) -> dict[str, Any]:
    kernel = np.asarray(layer["kernel"])
    kernel = kernel.reshape(2, 2, -1, kernel.shape[1])
    return _convolution({"kernel": kernel, "bias": layer["bias"]}, name, mirrored=False)


def _nafnet(layers: Weights) -> dict[str, Any]:
    found = {}
    for name, layer in layers.items():
        stage, _, number = name.rpartition("_")
        if stage == "middle":
            found |= _block(layer, f"middle.{int(number) - 1}")
        elif stage.startswith(("encoder", "decoder")):
            found |= _block(layer, name)
        elif stage == "down":
            found |= _down(layer, name)
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


def _filler(layers: Weights) -> dict[str, Any]:
    found = {}
    for name, layer in layers.items():
        if "norm_1" in layer:
            deepest = name.removeprefix("down_3_")
            found |= _block(
                layer, name if deepest == name else f"middle.{int(deepest) - 1}"
            )
        elif name.startswith("down"):
            found |= _down(layer, name)
        elif name == "intro":
            kernel = _pointwise(layer["kernel"])
            kernel = np.moveaxis(_colors_first(np.moveaxis(kernel, 1, -1)), -1, 1)
            found |= {"intro.weight": kernel, "intro.bias": layer["bias"]}
        else:
            found[f"{name}.weight"] = _pointwise(_colors_first(layer["kernel"]))
            if "bias" in layer:
                found[f"{name}.bias"] = _colors_first(layer["bias"])
    return found


def _theirs(name: str) -> str:
    """Returns the name in PyTorch of a layer of our finder."""
    if of := re.fullmatch(r"(depthwise|pointwise)_(full_)?(\d)_of_(\d+)", name):
        kind, where, number, stride = of.groups()
        place = 3 * (int(number) - 1) + (kind == "pointwise")
        return f"{where or ''}decode.{stride}.{place}"
    if of := re.fullmatch(r"((?:full_)?lateral)_(\d+)", name):
        return ".".join(of.groups())
    return re.sub(r"^(half|full)_(mixed|around|details)$", r"\1_details.\2", name)


def _finder(layers: Weights) -> dict[str, Any]:
    found = {}
    inside = {f"encoder.{name}": layer for name, layer in layers["encoder"].items()}
    outside = {_theirs(name): layers[name] for name in layers if name != "encoder"}
    for name, layer in (inside | outside).items():
        kernel = np.asarray(layer["kernel"])
        if name.endswith("mixed"):
            kernel = np.moveaxis(_colors_first(np.moveaxis(kernel, 2, -1)), -1, 2)
        if kernel.ndim == 2:
            kernel = _pointwise(kernel)
        elif kernel.ndim == 3:
            kernel = kernel.transpose(2, 0, 1)[:, None]
        else:
            kernel = kernel.transpose(3, 2, 0, 1)
        found[f"{name}.weight"] = kernel
        for other in layer.keys() - {"kernel"}:
            found[f"{name}.{other}"] = layer[other]
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
        convert = _autoencoders
    else:
        own = {"dncnn": _dncnn, "finder": _finder, "filler": _filler}
        convert = own.get(name, _nafnet)
    found = convert(parameters["params"])
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
