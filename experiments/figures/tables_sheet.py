"""Shows test pairs of the report's tables, restored by the networks of its rows.

    python -m experiments.figures.tables_sheet --scale cpu --data_dir CLEAN

The weights are those that `experiments.tables` and its findings have left in their
workdir: of each row's longest run so far, and of the better recipe. Pairs are those on
which all rows are measured.
"""

import dataclasses
import pathlib
from collections.abc import Iterator

import numpy as np
from etils import epy

from experiments.figures import damage_sheet
from experiments.tables import findings, standin, tables
from restoration.base import cli, config, errors
from restoration.devices import backend
from restoration.images import frames

with epy.lazy_imports():
    import jax

    from restoration import models
    from restoration.models import pretrained
    from restoration.training import step

# Pairs are enlarged to about this side, pixels.
_SIDE = 192


@dataclasses.dataclass(frozen=True)
class SheetOptions:
    """Options of `python -m experiments.figures.tables_sheet`."""

    scale: str = config.option(
        "cpu", help="see experiments.tables", choices=tuple(tables.SCALES)
    )
    data_dir: str = config.option(
        "", help="folder of clean images; default: scikit-image's photographs"
    )
    workdir: str = config.option("build/tables", help="that of experiments.tables")
    count: int = config.option(4, help="pairs, each of another picture", minimum=1)
    out: str = config.option("docs/tables.jpg", short="o", help="picture to write")

    def __post_init__(self):
        """Checks limits and choices."""
        config.check(self)


def weights(options: tables.TablesOptions) -> dict[str, pathlib.Path]:
    """Returns the files of weights that are there, by what the sheet calls them."""
    better = tuple((row, "better") for row in findings.BETTER_ROWS.values())
    found = {}
    for row, kind in (*((row, "") for row in tables.rows_of("all")), *better):
        wanted = tables.row_config(options, row)
        path = tables.weights_file(options, wanted, kind)
        if path.is_file():
            epochs = pretrained.read_card(path.with_suffix(".json"))["run"]["epochs"]
            name = f"{row.model} {wanted.pairs:,}×{epochs} {kind}".strip()
            found[name] = path
    return found


def sheet(options: SheetOptions) -> np.ndarray:
    """Returns the sheet: a pair a row, input, restored by each network, target.

    Args:
      options: from the command line.

    Returns:
      float (height, width, 3) in [0, 1].

    Raises:
      InputError: if there are no weights, or a picture cannot be used.
    """
    table_options = tables.TablesOptions(
        scale=options.scale, data_dir=options.data_dir, workdir=options.workdir
    )
    found = weights(table_options)
    if not found:
        raise errors.InputError(
            f"{options.workdir}: no weights of the scale {options.scale}; run "
            f"python -m experiments.tables --scale {options.scale} first"
        )
    wanted = tables.row_config(table_options, tables.rows_of("1")[0])
    drawn = standin.prepare(wanted.standin)
    first = {member.clip: member for member in drawn.splits["test"][::-1]}
    chosen = list(first.values())[::-1][: options.count]
    made = standin.draw(drawn, chosen)
    batch = {"input": made.input, "output": made.output}
    columns = list(_columns(found, batch))
    rows = zip(*columns, strict=True)
    return damage_sheet.grid([cell for row in rows for cell in row], len(columns))


def _columns(
    found: dict[str, pathlib.Path], batch: "dict[str, jax.Array]"
) -> Iterator[list[np.ndarray]]:
    """Yields input, what each network makes of it, and target, a cell a pair."""
    shown = {}
    for name, path in found.items():
        model_name, parameters = pretrained.load(path)
        compute = jax.jit(step.make_eval_step(models.get_model(model_name)))
        values, restored = compute(parameters, batch)
        shown.setdefault("input", (step.to_float(batch["input"]), values["input"]))
        shown[name] = restored, values["restored"]
    for name, (images, values) in shown.items():
        yield [
            _cell(image, f"{name}: {psnr:.1f} dB")
            for image, psnr in zip(images, values["psnr"], strict=True)
        ]
    yield [_cell(image, "target") for image in step.to_float(batch["output"])]


def _cell(image: "jax.Array", text: str) -> np.ndarray:
    """Returns a picture with each pixel enlarged, and a line of text above."""
    times = max(1, _SIDE // image.shape[0])
    large = np.asarray(image).repeat(times, 0).repeat(times, 1)
    return damage_sheet.label(large, text)


def main(options: SheetOptions) -> None:
    """Entry point."""
    backend.keep_freed_memory()
    frames.write(options.out, sheet(options))
    print(options.out)


if __name__ == "__main__":
    cli.run(main, SheetOptions)
