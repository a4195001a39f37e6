"""What each part of the pretraining recipe is worth, one table each.

    python -m experiments.pretrain.ablations --clean CLEAN --overlays OVERLAYS

Every arm is `experiments.pretrain`'s recipe with one thing changed, trained for the
same steps and measured on the same held-out pairs, damaged by every kind of damage.
Writes ablations.json and prints the tables. An arm that is done is not done again.
"""

import dataclasses
import hashlib
import itertools
import json
import pathlib
import shutil
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epy

from experiments.pretrain import pretrain
from experiments.tables import runs
from restoration.base import cli, config, errors, files
from restoration.devices import backend

with epy.lazy_imports():
    import jax

    from restoration.data import drawn_pairs
    from restoration.evaluation import metrics
    from restoration.models import nafnet
    from restoration.training import feed, validation
    from restoration.training import run as training

_FOLDER = pathlib.Path(__file__).resolve().parents[1]

# What decides the numbers, besides what `runs.code_version` covers.
_SOURCES = ("experiments/pretrain/ablations.py", "experiments/pretrain/pretrain.py",
            "restoration/data/drawn_pairs.py", "restoration/damage/overlays.py",
            "restoration/models/nafnet.py")  # fmt: skip

_FIGURES = ("film_psnr", "film_ssim", "photo_psnr", "photo_ssim", "clean_psnr")


@dataclasses.dataclass(frozen=True)
class Arm:
    """One change of the recipe.

    Attributes:
      label: as the table has it.
      changes: fields of `PretrainOptions`.
      width: of NAFNet.
    """

    label: str
    changes: Mapping[str, Any]
    width: int = 32


_AS_IT_IS = Arm("the recipe", {})

TABLES: dict[str, tuple[Arm, ...]] = {
    "loss": (
        Arm("PSNR", {"loss": "psnr"}),
        Arm("MSE", {"loss": "mse"}),
        Arm("L1", {"loss": "l1"}),
        Arm("Charbonnier", {"loss": "charbonnier"}),
        Arm("Charbonnier + SSIM", {"loss": "charbonnier", "ssim_weight": 0.2}),
    ),
    "optimizer": (
        Arm("AdamW, 1e-3", {"optimizer": "adamw", "learning_rate": 1e-3}),
        Arm("AdamW, 3e-3", {"optimizer": "adamw", "learning_rate": 3e-3}),
        Arm("Muon, 3e-3", {"optimizer": "muon", "learning_rate": 3e-3}),
        Arm("Muon, 1e-2", {"optimizer": "muon", "learning_rate": 1e-2}),
    ),
    "width": tuple(Arm(f"{width} channels", {}, width) for width in (16, 24, 32, 48)),
    "averaging": (
        Arm("last weights", {"ema_decay": 0.0}),
        Arm("decay 0.99", {"ema_decay": 0.99}),
        Arm("decay 0.999", {"ema_decay": 0.999}),
    ),
    "severity": (
        Arm("up to 1", {"severity": 1.0}),
        Arm("up to 2", {"severity": 2.0}),
        Arm("up to 4", {"severity": 4.0}),
        Arm("up to 2, rising for half of the steps", {"severity_rise": 0.5}),
    ),
    "damage": (
        _AS_IT_IS,
        Arm("no dust, dirt, spots", {"leave_out": "dust,dirt,spots"}),
        Arm("no hairs, lint", {"leave_out": "hairs,lint"}),
        Arm("no scratches", {"leave_out": "scratches,running_scratches"}),
        Arm("no stains", {"leave_out": "stains"}),
        Arm("no grain", {"leave_out": "grain"}),
        Arm("no blur, JPEG", {"leave_out": "blur,jpeg"}),
        Arm("no scanned dirt", {"overlay_share": 0.0}),
        Arm("scanned dirt in every pair", {"overlay_share": 1.0}),
    ),
}


@dataclasses.dataclass(frozen=True)
class AblationsOptions:
    """Options of `python -m experiments.pretrain.ablations`."""

    clean: str = config.option(
        help="folder of clean pictures, or a packed file", formerly="data_dir"
    )
    overlays: str = config.option(
        "", help="folder of scanned dirt (RGBA, alpha is the mask), or a packed file"
    )
    sources: str = config.option("", help="see experiments.pretrain")
    tables: tuple[str, ...] = config.option(
        (), help=f"of {', '.join(TABLES)}; by default all; repeatable"
    )
    steps: int = config.option(3000, help="of each arm", minimum=2)
    batch_size: int = config.option(32, help="pairs a step", minimum=1)
    image_size: int = config.option(128, help="side of the crops, pixels", minimum=32)
    seeds: int = config.option(2, help="runs of each arm, seeds 0, 1, ...", minimum=1)
    quick: bool = config.option(False, help="few steps and small crops, to try it out")
    results: str = config.option(
        "", help="folder of the results; default: experiments/results (/quick)"
    )
    workdir: str = config.option("build/ablations", help="folder of arms that are done")

    def __post_init__(self):
        """Checks limits and choices."""
        config.check(self)
        for name in self.tables:
            if name not in TABLES:
                raise errors.InputError(
                    f"--tables={name}: choose of {', '.join(TABLES)}"
                )


def recipe(options: AblationsOptions, changes: Mapping[str, Any], seed: int) -> Any:
    """Returns the `PretrainOptions` of an arm."""
    size = {"steps": 20, "batch_size": 4, "image_size": 32, "piece_size": 64}
    if not options.quick:
        size = {name: getattr(options, name) for name in list(size)[:3]}
    values = {
        **pretrain.read_recipe("film"),
        "clean": options.clean,
        "overlays": options.overlays,
        "sources": options.sources,
        "workdir": options.workdir,
        "warmup_steps": size["steps"] // 20,
        "evaluations": 1,
        "bfloat16": not backend.is_cpu(),
        "seed": seed,
        # As when the committed tables were measured.
        "spotless_share": 0.0,
        "writing_share": 0.0,
        "toned_share": 0.0,
        "soft_share": 0.0,
        **size,
        **changes,
    }
    return pretrain.PretrainOptions(**values)


def load(options: AblationsOptions) -> tuple[Any, list[dict]]:
    """Reads what all arms draw from: `drawn_pairs.Data`, and the pictures' origins."""
    chosen = recipe(options, {}, 0)
    pictures, counts = pretrain.find_pictures(chosen)
    return drawn_pairs.load(chosen, pictures), counts


def train(
    arm: Arm, chosen: Any, data: Any, base: Any, workdir: pathlib.Path
) -> dict[str, float]:
    """Trains an arm, or goes on with one that was cut, and measures it.

    Args:
      arm: its width counts.
      chosen: its `PretrainOptions`.
      data: from `load`.
      base: the recipe's options, whose held-out pairs measure every arm.
      workdir: of the arm alone; removed when it is done.

    Returns:
      The figures of `validation.of_drawn`.
    """
    options = pretrain.train_options(dataclasses.replace(chosen, workdir=str(workdir)))
    dtype = jax.numpy.bfloat16 if chosen.bfloat16 else None
    source = feed.drawn_feed(options, data)._replace(
        make_validate=validation.of_drawn(base, data.held_out)
    )
    print(arm.label, flush=True)
    done = training.train(
        options, source, task=training.Task(nafnet.NAFNet(width=arm.width, dtype=dtype))
    )
    if done.step < done.total_steps:
        raise errors.InputError(
            f"{workdir}: stopped at step {done.step} of {done.total_steps}; "
            "the same command goes on"
        )
    shutil.rmtree(workdir)
    return done.figures


def _identity(options: AblationsOptions) -> str:
    """Returns a hash of all that an arm's numbers follow from, but the arm."""
    digest = hashlib.sha256(runs.code_version().encode())
    for source in _SOURCES:
        digest.update((_FOLDER.parent / source).read_bytes())
    free = {"tables", "seeds", "results", "workdir"}
    values = dataclasses.asdict(options)
    digest.update(repr({k: v for k, v in values.items() if k not in free}).encode())
    return digest.hexdigest()[:12]


def measure(arm: Arm, seed: int, data: Any, options: AblationsOptions) -> Any:
    """Returns an arm's figures for a seed: reads them, or trains."""
    chosen, base = recipe(options, arm.changes, seed), recipe(options, {}, 0)
    # What the arm is, not what it is called: several tables hold the recipe itself.
    what = json.dumps([dataclasses.asdict(chosen), arm.width], sort_keys=True)
    name = hashlib.sha256(f"{_identity(options)} {what}".encode()).hexdigest()[:16]
    path = pathlib.Path(options.workdir) / f"{name}.json"
    if not path.is_file():
        figures = train(arm, chosen, data, base, path.with_suffix(""))
        files.write_text(path, json.dumps(figures) + "\n")
    return json.loads(path.read_text(encoding="utf-8"))


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {
        "mean": statistics.fmean(values),
        "std": statistics.stdev(values) if len(values) > 1 else 0.0,
    }


def ablations(options: AblationsOptions) -> dict[str, Any]:
    """Measures all arms of the tables that are asked for.

    Args:
      options: data, scale and places.

    Returns:
      What `ablations.json` holds.

    Raises:
      InputError: for pictures that cannot serve.
    """
    runs.keep_compiled(pathlib.Path(options.workdir) / "compiled")
    data, counts = load(options)
    tables = {}
    for table in options.tables or TABLES:
        tables[table] = []
        for arm in TABLES[table]:
            found = [measure(arm, seed, data, options) for seed in range(options.seeds)]
            figures = {name: _spread([f[name] for f in found]) for name in _FIGURES}
            row = {"arm": arm.label, "seeds": options.seeds, **figures}
            tables[table].append(row)
    shared = dataclasses.asdict(recipe(options, {}, 0))
    for name in ("clean", "overlays", "workdir"):  # folders of this machine
        del shared[name]
    return {
        "quick": options.quick,
        "code": _identity(options),
        "recipe": shared,
        "data": {"origins": counts, **data.described},
        "input": {n: found[0][n] for n in ("film_input_psnr", "photo_input_psnr")},
        "protocol": metrics.PROTOCOL,
        "tables": tables,
        "machine": runs.machine(),
    }


def to_markdown(found: Mapping[str, Any]) -> str:
    """Returns the tables as Markdown."""
    before = found["input"]
    chosen, size = found["recipe"], found["recipe"]["image_size"]
    seeds = max(row["seeds"] for rows in found["tables"].values() for row in rows)
    runs_each = (
        f"Mean ± standard deviation over {seeds} seeds" if seeds > 1 else "One seed"
    )
    lines = [
        f"NAFNet s, {chosen['steps']:,} steps of {chosen['batch_size']} pairs of "
        f"{size}×{size} each. Worn as film {before['film_input_psnr']:.2f} dB, as "
        f"prints {before['photo_input_psnr']:.2f} dB. {runs_each}, held-out pictures.",
        "",
    ]
    for name, rows in found["tables"].items():
        lines += [
            f"| {name} | film, dB | film SSIM | photo, dB | photo SSIM | clean, dB |",
            "|---|--:|--:|--:|--:|--:|",
        ]
        for row in rows:
            cells = [
                f"{row[figure]['mean']:.{digits}f}"
                + (f" ± {row[figure]['std']:.{digits}f}" if seeds > 1 else "")
                for figure, digits in zip(
                    _FIGURES, itertools.cycle((2, 3)), strict=False
                )
            ]
            lines.append(f"| {row['arm']} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join([*lines, f"Protocol: {found['protocol']}.", ""])


def main(options: AblationsOptions) -> None:
    """Entry point."""
    backend.keep_freed_memory()
    found = ablations(options)
    default = _FOLDER / "results" / ("quick" if options.quick else "")
    folder = pathlib.Path(options.results or default)
    files.write_text(folder / "ablations.json", json.dumps(found, indent=1) + "\n")
    print(to_markdown(found))


if __name__ == "__main__":
    cli.run(main, AblationsOptions)
