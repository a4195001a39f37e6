"""Writes the README's result table and picture.

    python -m experiments.readme

The table comes from the card of the shipped weights; the picture, `docs/demo.png`,
from the folder that `make demo` wrote, when it is there.
"""

import dataclasses
import json
import pathlib
import re

import numpy as np

from restoration import cli, config, errors, frames, pretrained, scores

_MARKS = re.compile(
    r"(<!-- results: [^>]*-->\n).*?(<!-- end of results -->)", re.DOTALL
)


@dataclasses.dataclass(frozen=True)
class ReadmeOptions:
    """Options of `python -m experiments.readme`."""

    readme: str = config.option("README.md", help="file to update")
    demo: str = config.option("demo", help="folder that `make demo` wrote")
    picture: str = config.option("docs/demo.png", help="picture to write")


def results_table() -> str:
    """Returns the figures of the shipped basic weights as Markdown."""
    card = json.loads((pretrained.FOLDER / "basic.json").read_text(encoding="utf-8"))
    lines = [
        "| split | images | | MSE | PSNR (dB) | SSIM |",
        "|---|--:|---|--:|--:|--:|",
    ]
    for split, figures in card["figures"].items():
        for side in ("input", "restored"):
            mse, psnr, ssim = (figures[side][metric] for metric in scores.METRICS)
            lines.append(
                f"| {split} | {figures['count']} | {side} | {mse:.5f} | {psnr:.2f} "
                f"| {ssim:.4f} |"
            )
    return "\n".join([*lines, "", f"Protocol: {card['protocol']}.", ""])


def contact_sheet(demo: pathlib.Path) -> np.ndarray:
    """Returns worn, restored and true test frames side by side.

    Args:
      demo: folder that `make demo` wrote.

    Returns:
      float (height, width, 3) in [0, 1]: the first frame of every other test clip,
      two clips a row.
    """

    def padded(image: np.ndarray, around: int) -> np.ndarray:
        edges = ((around, around), (around, around), (0, 0))
        return np.pad(image, edges, constant_values=1)

    clips = []
    for worn in sorted((demo / "test_input").glob("*_000.png"))[::2]:
        restored = demo / "restored" / f"{worn.stem}_restored.png"
        truth = demo / "data" / "output" / worn.name
        images = [padded(frames.read(path), 1) for path in (worn, restored, truth)]
        clips.append(padded(np.hstack(images), 4))
    even = len(clips) // 2 * 2
    return np.vstack([np.hstack(clips[i : i + 2]) for i in range(0, even, 2)])


def main(options: ReadmeOptions) -> None:
    """Entry point."""
    path = pathlib.Path(options.readme)
    text = path.read_text(encoding="utf-8")
    if not _MARKS.search(text):
        raise errors.InputError(f"{path}: holds no place for the results")
    updated = _MARKS.sub(lambda found: found[1] + results_table() + found[2], text)
    config.write_text(path, updated)
    print(path)
    if pathlib.Path(options.demo).is_dir():
        frames.write(options.picture, contact_sheet(pathlib.Path(options.demo)))
        print(options.picture)


if __name__ == "__main__":
    cli.run(main, ReadmeOptions)
