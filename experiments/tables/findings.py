"""Tests the seed report's conclusions, and a better recipe.

    python -m experiments.tables.findings --quick --data_dir CLEAN

The rows of the report's tables are trained on pairs of at least 200 clean images, since
few images cannot show that more data helps. Unlike in the tables, all runs are measured
on the same test split, so that they can be compared. The answers are computed from the
measurements and written as JSON and Markdown.
"""

import dataclasses
import json
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epy
from scipy import stats

from experiments.tables import runs, standin, tables
from restoration.base import cli, config, errors, files
from restoration.data import pairs
from restoration.devices import backend

with epy.lazy_imports():
    from experiments.tables import keras_reference
    from restoration.evaluation import metrics

FEWEST_PICTURES = 200

# The same networks, epochs and pairs as the report's best rows, trained better.
BETTER = runs.Recipe(
    start="carry",
    learning_rate=2e-3,
    schedule="cosine",
    warmup_steps=20,
    loss="l1",
    ema_decay=0.99,
    augment=True,
)
BETTER_ROWS = {"basic": tables.Row("2", "basic", 300, 0.12),
               "advanced": tables.Row("5", "advanced", 200, 0.12)}  # fmt: skip
WANTED_GAIN = {"basic": 1.0, "advanced": 3.0}

# The rows in which Keras and bfloat16 are compared with ours.
PEER_ROWS = {"basic": tables.Row("1", "basic", 100, 0.12),
             "advanced": tables.Row("4", "advanced", 100, 0.12)}  # fmt: skip

# Number of test pairs.
_TEST_PAIRS = 256


@dataclasses.dataclass(frozen=True)
class FindingsOptions:
    """Options of `python -m experiments.tables.findings`."""

    data_dir: str = config.option(
        help=f"folder of at least {FEWEST_PICTURES} clean pictures"
    )
    quick: bool = config.option(False, help="fewer and smaller pairs, fewer epochs")
    pairs: int = config.option(0, help="pairs of all splits; 0: by scale", minimum=0)
    image_size: int = config.option(
        0, help="side of the pairs, pixels; 0: by scale", minimum=0
    )
    batch_size: int = config.option(0, help="pairs a step; 0: by scale", minimum=0)
    seeds: int = config.option(3, help="runs of each row", minimum=2)
    results: str = config.option(
        "", help="folder of the results; default: experiments/results (/quick)"
    )
    workdir: str = config.option(
        "build/findings", help="folder of runs that are under way"
    )

    def __post_init__(self):
        """Checks limits."""
        config.check(self)


@dataclasses.dataclass(frozen=True)
class Cell:
    """The runs of one row with one recipe.

    Attributes:
      row: the report's.
      kind: "seed", "better", "bfloat16" or "twin".
      steps: of each run.
      psnr: on the common test split, dB, of each run.
    """

    row: tables.Row
    kind: str
    steps: int
    psnr: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean PSNR over the runs, dB."""
        return float(np.mean(self.psnr))

    @property
    def std(self) -> float:
        """Sample standard deviation over the runs, dB."""
        return float(np.std(self.psnr, ddof=1))

    def __str__(self):
        return f"{self.row.fraction:.0%} at {self.row.epochs} epochs"


def spread(first: Cell, second: Cell) -> float:
    """Returns the standard deviation of the difference of two runs, dB."""
    return float(np.hypot(first.std, second.std))


RECIPES = {
    "seed": runs.SEED,
    "better": BETTER,
    "bfloat16": dataclasses.replace(runs.SEED, bfloat16=True),
}


def wanted_cells() -> list[tuple[tables.Row, str]]:
    """Returns the rows to train and how: every row as the report did, first."""
    return [
        *((row, "seed") for row in tables.rows_of("all")),
        *((row, "better") for row in BETTER_ROWS.values()),
        (PEER_ROWS["basic"], "bfloat16"),
        *((row, "twin") for row in PEER_ROWS.values()),
    ]


def _table_options(options: FindingsOptions) -> tables.TablesOptions:
    return tables.TablesOptions(
        quick=options.quick,
        data_dir=options.data_dir,
        pairs=options.pairs,
        image_size=options.image_size,
        batch_size=options.batch_size,
    )


def measure(options: FindingsOptions, drawn: standin.Standin) -> list[Cell]:
    """Trains and measures all cells; reads finished runs.

    Args:
      options: from the command line.
      drawn: the stand-in pairs.

    Returns:
      The cells, in the order of `wanted_cells`.
    """
    test = standin.draw(drawn, drawn.splits["test"][:_TEST_PAIRS])
    cells, drawn_of = [], {}
    for row, kind in wanted_cells():
        run = tables.row_config(_table_options(options), row).run
        if row.fraction not in drawn_of:
            sampled = pairs.sample(drawn.splits, row.fraction, seed=0)
            drawn_of[row.fraction] = {
                split: standin.draw(drawn, sampled[split])
                for split in ("train", "validation")
            } | {"test": test}
        data, psnr = drawn_of[row.fraction], []
        for seed in range(options.seeds):
            name = f"{row.model}_{row.epochs}_{row.fraction:g}_{kind}_{seed}"
            print(name, flush=True)
            folder = _folder(options) / name
            seeded = dataclasses.replace(run, seed=seed)
            if kind == "twin":
                found = keras_reference.result(seeded, data, folder)["scores"]["test"]
            else:
                seeded = dataclasses.replace(seeded, recipe=RECIPES[kind])
                found = runs.result(seeded, data, folder)["scores"]["test"]["restored"]
            psnr.append(found["psnr"])
        steps = -(-len(data["train"].input) // run.batch_size) * run.epochs
        cells.append(Cell(row, kind, steps, tuple(psnr)))
    return cells


def _of(cells: Sequence[Cell], model: str, kind: str = "seed") -> list[Cell]:
    return [cell for cell in cells if (cell.row.model, cell.kind) == (model, kind)]


def _seed_psnr(cell: Cell) -> float:
    return tables.seed_numbers()[cell.row.table, cell.row.fraction, "test"]["psnr"]


def best_run(cells: Sequence[Cell], model: str) -> dict[str, Any]:
    """Which of the report's rows is the best, in the report and here.

    A disagreement's cause is looked for in the number of steps: their rank
    correlation with PSNR, over the rows, is given for both.
    """
    found = _of(cells, model)
    theirs, ours = max(found, key=_seed_psnr), max(found, key=lambda cell: cell.mean)
    behind = ours.mean - theirs.mean
    agrees = ours is theirs or behind <= spread(ours, theirs)
    steps = [cell.steps for cell in found]
    here = stats.spearmanr(steps, [cell.mean for cell in found]).statistic
    there = stats.spearmanr(steps, [_seed_psnr(cell) for cell in found]).statistic
    answer = f"The best here is {ours}, {ours.mean:.2f} ± {ours.std:.2f} dB"
    if ours is not theirs:
        answer += (
            f"; the report's best is {behind:.2f} dB behind, "
            f"{'within' if agrees else 'beyond'} the spread of "
            f"{spread(ours, theirs):.2f} dB"
        )
    return {
        "name": f"best {model} run",
        "claim": f"The best {model} run is {theirs}, {_seed_psnr(theirs):.2f} dB.",
        "agrees": agrees,
        "answer": f"{answer}. Rank correlation of PSNR with the number of steps: "
        f"{here:.2f} here, {there:.2f} in the report.",
        "numbers": {
            "best": ours.mean,
            "report_s_best": theirs.mean,
            "behind": behind,
            "spread": spread(ours, theirs),
            "rank_correlation_with_steps": float(here),
            "rank_correlation_in_report": float(there),
        },
    }


def _at(cells: Sequence[Cell], model: str, epochs: int, fraction: float) -> Cell:
    return next(
        cell
        for cell in _of(cells, model)
        if (cell.row.epochs, cell.row.fraction) == (epochs, fraction)
    )


def larger_needs_more(cells: Sequence[Cell]) -> dict[str, Any]:
    """Does the larger model lose with little, and gain more from six times as much?

    Both models have rows of 2 % and 12 % at 100 epochs, which are compared.
    """
    few, many = (
        {m: _at(cells, m, 100, fraction) for m in ("basic", "advanced")}
        for fraction in (0.02, 0.12)
    )
    behind = [c["basic"].mean - c["advanced"].mean for c in (few, many)]
    gains = {model: many[model].mean - few[model].mean for model in few}
    loses = behind[0] > spread(few["basic"], few["advanced"])
    catches_up = gains["advanced"] > gains["basic"]
    return {
        "name": "a larger model needs more data and longer training",
        "claim": "The advanced model does worse than the basic one on the same pairs "
        "and epochs, and would need more of both.",
        "agrees": bool(loses and catches_up),
        "answer": f"At 100 epochs the advanced model is {behind[0]:+.2f} dB behind "
        f"with 2 %, {behind[1]:+.2f} dB with 12 %; six times the pairs (and steps) "
        f"give it {gains['advanced']:+.2f} dB, the basic {gains['basic']:+.2f} dB.",
        "numbers": {
            "behind_at_2_percent": behind[0],
            "behind_at_12_percent": behind[1],
            "gain_basic": gains["basic"],
            "gain_advanced": gains["advanced"],
        },
    }


def more_helps(cells: Sequence[Cell]) -> dict[str, Any]:
    """Do more pairs, and more epochs, each help both models beyond the spread?"""
    steps = {
        "basic, 2 % to 12 %": (("basic", 100, 0.02), ("basic", 100, 0.12)),
        "basic, 12 % to 32 %": (("basic", 100, 0.12), ("basic", 100, 0.32)),
        "basic, 100 to 300 epochs": (("basic", 100, 0.12), ("basic", 300, 0.12)),
        "advanced, 2 % to 12 %": (("advanced", 200, 0.02), ("advanced", 200, 0.12)),
        "advanced, 100 to 200 epochs": (
            ("advanced", 100, 0.12),
            ("advanced", 200, 0.12),
        ),
    }
    numbers, lines = {}, []
    for name, (before, after) in steps.items():
        first, second = _at(cells, *before), _at(cells, *after)
        gain, noise = second.mean - first.mean, spread(first, second)
        numbers[name] = {"gain": gain, "spread": noise, "helps": gain > noise}
        lines.append(f"{name} {gain:+.2f} dB (spread {noise:.2f})")
    return {
        "name": "more data and training would improve both",
        "claim": "More pairs and more epochs would improve both models.",
        "agrees": all(found["helps"] for found in numbers.values()),
        "answer": "; ".join(lines) + ".",
        "numbers": numbers,
    }


def better_recipe(cells: Sequence[Cell], model: str) -> dict[str, Any]:
    """What the better recipe gains on the same pairs, network and epochs."""
    row = BETTER_ROWS[model]
    seed = _at(cells, model, row.epochs, row.fraction)
    (better,) = _of(cells, model, "better")
    gain = better.mean - seed.mean
    return {
        "name": f"better recipe, {model}",
        "claim": f"A better recipe gains at least {WANTED_GAIN[model]:g} dB for the "
        f"{model} model.",
        "agrees": gain >= WANTED_GAIN[model],
        "answer": f"{seed}: {seed.mean:.2f} ± {seed.std:.2f} dB as the report did, "
        f"{better.mean:.2f} ± {better.std:.2f} dB with the better recipe, "
        f"{gain:+.2f} dB.",
        "numbers": {"seed": seed.mean, "better": better.mean, "gain": gain},
    }


def same_as(cells: Sequence[Cell], model: str, kind: str) -> dict[str, Any]:
    """Returns whether a peer (Keras or bfloat16) has the same PSNR as ours."""
    row = PEER_ROWS[model]
    ours = _at(cells, model, row.epochs, row.fraction)
    (peer,) = _of(cells, model, kind)
    apart, noise = abs(ours.mean - peer.mean), spread(ours, peer)
    name = {"twin": "the Keras twin", "bfloat16": "bfloat16"}[kind]
    return {
        "name": f"{name}, {model}",
        "claim": f"With the {model} model, {name} ends where ours does.",
        "agrees": apart < noise,
        "answer": f"{ours}: ours {ours.mean:.2f} ± {ours.std:.2f} dB, {name} "
        f"{peer.mean:.2f} ± {peer.std:.2f} dB; {apart:.2f} dB apart, spread "
        f"{noise:.2f} dB.",
        "numbers": {"ours": ours.mean, "peer": peer.mean, "spread": noise},
    }


def conclude(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Returns the answers: name, claim, agrees, answer, numbers."""
    both = ("basic", "advanced")
    return [
        *(best_run(cells, model) for model in both),
        larger_needs_more(cells),
        more_helps(cells),
        *(better_recipe(cells, model) for model in both),
        *(same_as(cells, model, "twin") for model in both),
        same_as(cells, "basic", "bfloat16"),
    ]


def _standin(options: FindingsOptions) -> standin.StandinOptions:
    return tables.row_config(_table_options(options), tables.rows_of("1")[0]).standin


def _config(options: FindingsOptions) -> dict[str, Any]:
    """Returns all that determines the numbers, except the code."""
    values = {
        "standin": standin.identity(_standin(options)),
        "runs": [
            dataclasses.asdict(tables.row_config(_table_options(options), row).run)
            for row in tables.rows_of("all")
        ],
        "recipes": {kind: dataclasses.asdict(r) for kind, r in RECIPES.items()},
        "cells": [[*dataclasses.astuple(row), kind] for row, kind in wanted_cells()],
        "seeds": options.seeds,
    }
    return json.loads(json.dumps(values))


def _folder(options: FindingsOptions) -> pathlib.Path:
    """Returns the folder of the runs of this configuration and code."""
    text = json.dumps(_config(options)) + runs.code_version()
    return pathlib.Path(options.workdir) / f"{pairs.hash_fraction(text):.12f}"[2:]


def findings(options: FindingsOptions) -> dict[str, Any]:
    """Computes the findings, or reads them.

    Args:
      options: from the command line.

    Returns:
      The content of `findings.json`.

    Raises:
      InputError: if the folder has too few images.
    """
    count = len(standin.find_sources(options.data_dir))
    if not options.data_dir or count < FEWEST_PICTURES:
        raise errors.InputError(
            f"--data_dir={options.data_dir}: {count} images; give at least "
            f"{FEWEST_PICTURES}, since few cannot show that more data helps"
        )
    path = tables.results_folder(
        dataclasses.replace(_table_options(options), results=options.results)
    )
    path = path / "findings.json"
    wanted = {"config": _config(options), "code": runs.code_version()}
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        if {key: found[key] for key in wanted} == wanted:
            return found
    runs.keep_compiled(pathlib.Path(options.workdir) / "compiled")
    drawn = standin.prepare(_standin(options))
    cells = measure(options, drawn)
    found = {
        "quick": options.quick,
        **wanted,
        "protocol": metrics.PROTOCOL,
        "data": standin.card(drawn),
        "measured_on": f"the first {_TEST_PAIRS} pairs of the test split at most, the "
        "same for all runs; the weights after the last step",
        "findings": conclude(cells),
        "cells": [
            dataclasses.asdict(c) | {"mean": c.mean, "std": c.std} for c in cells
        ],
        "machine": runs.machine(),
    }
    text = json.dumps(found, indent=1) + "\n"
    files.write_text(path, text)
    shutil.rmtree(_folder(options))
    return json.loads(text)


def to_markdown(found: Mapping[str, Any]) -> str:
    """Returns the findings as Markdown."""
    lines = ["| the report says, or we want | holds here | measured |", "|---|---|---|"]
    lines += [
        f"| {one['claim']} | {'yes' if one['agrees'] else 'no'} | {one['answer']} |"
        for one in found["findings"]
    ]
    note = "Quick run, at reduced size" if found["quick"] else "Full size"
    return "\n".join([*lines, "", f"{note}; PSNR on {found['measured_on']}.", ""])


def main(options: FindingsOptions) -> None:
    """Entry point."""
    backend.keep_freed_memory()
    print(to_markdown(findings(options)))


if __name__ == "__main__":
    cli.run(main, FindingsOptions)
