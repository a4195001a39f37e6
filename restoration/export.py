"""Writes a network for other programs: ONNX or StableHLO, with how to use it.

python -m restoration.export -n nafnet_s -o nafnet_s.onnx

Beside the file comes a JSON file: context, stride, what goes in and out, and what the
command does around it. ONNX needs the extra `export`.
"""

import dataclasses
import pathlib

from etils import epy

from restoration.base import cli, config, errors

with epy.lazy_imports():
    from restoration.inference import exported

_SUFFIXES = (".onnx", ".stablehlo")


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """Options of `python -m restoration.export`."""

    output: str = config.option(
        help="file to write: .onnx, or .stablehlo for jax.export", short="o"
    )
    model: str = config.option(
        "",
        help="a shipped model, finder or filler; by default the best one",
        short="n",
    )
    keep_color: bool = config.option(
        False, help="with what `restore --keep_color` keeps of color and tone"
    )
    network_only: bool = config.option(
        False, help="the bare network, without what the command keeps of the picture"
    )
    overwrite: bool = config.option(False, help="replace files that exist")

    def __post_init__(self):
        """Checks the file's name."""
        path = pathlib.Path(self.output)
        if path.suffix not in _SUFFIXES:
            raise errors.InputError(
                f"--output={self.output}: name it {' or '.join(_SUFFIXES)}"
            )
        for file in (path, path.with_suffix(".json")):
            if file.exists() and not self.overwrite:
                raise errors.InputError(f"{file}: exists; --overwrite replaces it")


def main(options: ExportOptions) -> None:
    """Entry point."""
    path = pathlib.Path(options.output)
    network = exported.load(
        options.model,
        keep_color=options.keep_color,
        network_only=options.network_only,
    )
    beside = exported.write(path, network)
    print(f"{path} ({path.stat().st_size / 1e6:.1f} MB), {beside}")


if __name__ == "__main__":
    cli.run(main, ExportOptions)
