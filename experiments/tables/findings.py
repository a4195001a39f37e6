"""Tests the seed report's conclusions, and a better recipe.

    python -m experiments.tables.findings --scale quick --data_dir CLEAN

The rows of the report's tables are those of `experiments.tables`, which trains what is
missing, on pairs of at least 200 clean images, since few images cannot show that more
data helps. Unlike in the tables, all runs are measured on the same test pairs, so that
they can be compared. The answers are computed from the measurements and written as JSON
and Markdown.
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

# What is trained beside the report's rows, at each scale: the better recipe, and peers
# that should end where ours does, (row, kind) each.
_BETTER = tuple((row, "better") for row in BETTER_ROWS.values())
_PEERS = (
    (tables.Row("1", "basic", 100, 0.12), "bfloat16"),
    (tables.Row("1", "basic", 100, 0.12), "twin"),
    (tables.Row("4", "advanced", 100, 0.12), "twin"),
)
FURTHER = {
    "full": _BETTER + _PEERS,
    "cpu": (*_BETTER, (tables.Row("1", "basic", 100, 0.02), "twin")),
    "quick": _BETTER + _PEERS,
}


@dataclasses.dataclass(frozen=True)
class FindingsOptions:
    """Options of `python -m experiments.tables.findings`."""

    data_dir: str = config.option(
        help=f"folder of at least {FEWEST_PICTURES} clean pictures"
    )
    scale: str = config.option(
        "full",
        help="see experiments.tables",
        choices=tuple(tables.SCALES),
        formerly="quick",
    )
    pairs: int = config.option(0, help="pairs of all splits; 0: by scale", minimum=0)
    image_size: int = config.option(
        0, help="side of the pairs, pixels; 0: by scale", minimum=0
    )
    batch_size: int = config.option(0, help="pairs a step; 0: by scale", minimum=0)
    seeds: int = config.option(0, help="runs of each row; 0: by scale", minimum=0)
    results: str = config.option(
        "", help="folder of the results; default: experiments/results (/cpu, /quick)"
    )
    workdir: str = config.option(
        "build/tables", help="folder of unfinished runs, and of the last weights"
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
      input: PSNR of the input on the common test pairs, dB.
      psnr: of the restored pictures there, dB, of each run.
      undamaged: of what is made of the undamaged pictures there, dB, of each run.
      splits: PSNR by the row's own splits, dB, mean over the runs: "input", "restored".
    """

    row: tables.Row
    kind: str
    steps: int
    input: float
    psnr: tuple[float, ...]
    undamaged: tuple[float, ...]
    splits: Mapping[str, Mapping[str, float]]

    @property
    def mean(self) -> float:
        """Mean PSNR over the runs, dB."""
        return float(np.mean(self.psnr))

    @property
    def std(self) -> float | None:
        """Sample standard deviation over the runs, dB; None of a single one."""
        return float(np.std(self.psnr, ddof=1)) if len(self.psnr) > 1 else None

    @property
    def shown(self) -> str:
        """The PSNR in words."""
        spread = "" if self.std is None else f" ± {self.std:.2f}"
        return f"{self.mean:.2f}{spread} dB"

    def __str__(self):
        return f"{self.row.fraction:.0%} at {self.row.epochs} epochs"


def spread(first: Cell, second: Cell) -> float | None:
    """Returns the standard deviation of the difference of two runs, dB.

    None where there is one run of each, so that it is not known.
    """
    if first.std is None or second.std is None:
        return None
    return float(np.hypot(first.std, second.std))


RECIPES = {
    "seed": runs.SEED,
    "better": BETTER,
    "bfloat16": dataclasses.replace(runs.SEED, bfloat16=True),
}


def wanted_cells(scale: str) -> list[tuple[tables.Row, str]]:
    """Returns the rows and how they are trained: every row as the report did, first."""
    return [*((row, "seed") for row in tables.rows_of("all")), *FURTHER[scale]]


def _table_options(options: FindingsOptions) -> tables.TablesOptions:
    names = [field.name for field in dataclasses.fields(options)]
    return tables.TablesOptions(**{name: getattr(options, name) for name in names})


def measure(
    options: FindingsOptions, results: Sequence[Mapping[str, Any]]
) -> list[Cell]:
    """Trains and measures what the rows do not hold; reads finished runs.

    Args:
      options: from the command line.
      results: of all rows, see `tables.tables`.

    Returns:
      The cells, in the order of `wanted_cells`.
    """
    pairs_of, cells = tables.pairs_source(), []
    of_row = dict(zip(tables.rows_of("all"), results, strict=True))
    for row, kind in wanted_cells(options.scale):
        found = of_row[row]
        done = {"seed": found["runs"], "twin": found["twin_runs"]}.get(kind)
        if not done:
            done = _train(options, row, kind, pairs_of)
        run = tables.row_config(_table_options(options), row).run
        steps = -(-found["counts"]["train"] // run.batch_size) * run.epochs
        cells.append(
            Cell(
                row,
                kind,
                steps,
                found["input"][tables.COMMON]["psnr"],
                tuple(_psnr(one, tables.COMMON) for one in done),
                tuple(_psnr(one, tables.UNDAMAGED) for one in done),
                {
                    split: {
                        "input": found["input"][split]["psnr"],
                        "restored": float(np.mean([_psnr(one, split) for one in done])),
                    }
                    for split in pairs.SPLITS
                },
            )
        )
    return cells


def _psnr(found: Mapping[str, Any], split: str) -> float:
    """Returns the restored pictures' PSNR of a run of ours, or of Keras."""
    sides = found["scores"][split]
    return sides.get("restored", sides)["psnr"]


def _train(
    options: FindingsOptions, row: tables.Row, kind: str, pairs_of: Any
) -> list[dict[str, Any]]:
    """Returns the results of all seeds of a row trained otherwise."""
    table_options, found = _table_options(options), []
    wanted = tables.row_config(table_options, row)
    data, _ = pairs_of(wanted)
    runs.keep_compiled(pathlib.Path(options.workdir) / "compiled")
    for seed in range(wanted.seeds):
        name = f"{row.model}_{row.epochs}_{row.fraction:g}_{kind}_{seed}"
        print(name, flush=True)
        folder = _folder(options) / name
        run = dataclasses.replace(wanted.run, seed=seed)
        if kind == "twin":
            found.append(keras_reference.result(run, data, folder))
            continue
        run = dataclasses.replace(run, recipe=RECIPES[kind])
        found.append(runs.result(run, data, folder))
        if seed == 0:
            tables.keep_weights(table_options, wanted, folder, kind)
    return found


def _of(cells: Sequence[Cell], model: str, kind: str = "seed") -> list[Cell]:
    return [cell for cell in cells if (cell.row.model, cell.kind) == (model, kind)]


def _seed_psnr(cell: Cell) -> float:
    return tables.seed_numbers()[cell.row.table, cell.row.fraction, "test"]["psnr"]


_ONE_RUN = "one run each"


def best_run(cells: Sequence[Cell], model: str) -> dict[str, Any]:
    """Which of the report's rows is the best, in the report and here.

    A disagreement's cause is looked for in the number of steps: their rank
    correlation with PSNR, over the rows, is given for both.
    """
    found = _of(cells, model)
    theirs, ours = max(found, key=_seed_psnr), max(found, key=lambda cell: cell.mean)
    behind = ours.mean - theirs.mean
    noise = spread(ours, theirs)
    agrees = ours is theirs or (noise is not None and behind <= noise)
    steps = [cell.steps for cell in found]
    here = stats.spearmanr(steps, [cell.mean for cell in found]).statistic
    there = stats.spearmanr(steps, [_seed_psnr(cell) for cell in found]).statistic
    answer = f"The best here is {ours}, {ours.shown} (input {ours.input:.2f} dB)"
    if ours is not theirs:
        answer += f"; the report's best is {behind:.2f} dB behind, " + (
            _ONE_RUN
            if noise is None
            else f"{'within' if agrees else 'beyond'} the spread of {noise:.2f} dB"
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
            "spread": noise,
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
    noise = spread(few["basic"], few["advanced"])
    loses = behind[0] > (noise or 0)
    catches_up = gains["advanced"] > gains["basic"]
    return {
        "name": "a larger model needs more data and longer training",
        "claim": "The advanced model does worse than the basic one on the same pairs "
        "and epochs, and would need more of both.",
        "agrees": bool(loses and catches_up),
        "answer": f"At 100 epochs the advanced model is {behind[0]:+.2f} dB behind "
        f"with 2 %, {behind[1]:+.2f} dB with 12 %; six times the pairs (and steps) "
        f"give it {gains['advanced']:+.2f} dB, the basic {gains['basic']:+.2f} dB"
        + (f"; {_ONE_RUN}." if noise is None else "."),
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
        helps = gain > (noise or 0)
        numbers[name] = {"gain": gain, "spread": noise, "helps": helps}
        known = "" if noise is None else f" (spread {noise:.2f})"
        lines.append(f"{name} {gain:+.2f} dB{known}")
    if noise is None:
        lines.append(_ONE_RUN)
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
        "answer": f"{seed}: {seed.shown} as the report did, {better.shown} with the "
        f"better recipe, {gain:+.2f} dB; input {seed.input:.2f} dB"
        + (f"; {_ONE_RUN}." if seed.std is None else "."),
        "numbers": {"seed": seed.mean, "better": better.mean, "gain": gain},
    }


def same_as(cells: Sequence[Cell], peer: Cell) -> dict[str, Any]:
    """Returns whether a peer (Keras or bfloat16) has the same PSNR as ours.

    Not known, None, where there is one run of each.
    """
    row = peer.row
    ours = _at(cells, row.model, row.epochs, row.fraction)
    apart, noise = abs(ours.mean - peer.mean), spread(ours, peer)
    name = {"twin": "the Keras twin", "bfloat16": "bfloat16"}[peer.kind]
    known = f"{_ONE_RUN}, so that the spread is not known"
    return {
        "name": f"{name}, {row.model}",
        "claim": f"With the {row.model} model, {name} ends where ours does.",
        "agrees": None if noise is None else apart < noise,
        "answer": f"{ours}: ours {ours.shown}, {name} {peer.shown}; {apart:.2f} dB "
        f"apart, {known if noise is None else f'spread {noise:.2f} dB'}.",
        "numbers": {"ours": ours.mean, "peer": peer.mean, "spread": noise},
    }


def conclude(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Returns the answers: name, claim, agrees (None: open), answer, numbers."""
    both = ("basic", "advanced")
    peers = [cell for cell in cells if cell.kind in ("twin", "bfloat16")]
    return [
        *(best_run(cells, model) for model in both),
        larger_needs_more(cells),
        more_helps(cells),
        *(better_recipe(cells, model) for model in both),
        *(same_as(cells, peer) for peer in peers),
    ]


def in_words(cells: Sequence[Cell]) -> str:
    """Returns what the report's networks can do and what not, in plain words."""

    def reached(kind: str) -> str:
        return " and ".join(
            f"{cell.mean:.1f} dB ({cell.row.model}, {cell.mean - cell.input:+.1f})"
            for cell in _best_of_both(cells, kind)
        )

    def undamaged(kind: str) -> str:
        return " and ".join(
            f"{np.mean(cell.undamaged):.1f} dB ({cell.row.model})"
            for cell in _best_of_both(cells, kind)
        )

    return (
        f"The input has {cells[0].input:.1f} dB. The report's networks reach "
        f"{reached('seed')} at best, with the better recipe {reached('better')}. They "
        "do not change the picture but draw it anew, from what passes their "
        "bottleneck: two poolings leave one position for each square of 4×4 pixels, "
        "and nothing leads around it. So they can smooth grain and paint over small "
        "marks, and lose fine detail where nothing was damaged. An undamaged picture "
        f"comes out at {undamaged('seed')}, with the better recipe at "
        f"{undamaged('better')}. An input of more dB than that is better left alone. "
        "The advanced network has more channels, but draws the picture twice, the "
        "second time from the first drawing, and has thirteen times the weights to "
        "train. A network that adds a change to its input, as the shipped `nafnet_s` "
        "does, can leave alone what is not damaged."
    )


def _best_of_both(cells: Sequence[Cell], kind: str) -> list[Cell]:
    """Returns each model's best cell of a kind."""
    return [
        max(_of(cells, model, kind), key=lambda cell: cell.mean)
        for model in BETTER_ROWS
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
        "cells": [
            [*dataclasses.astuple(row), kind]
            for row, kind in wanted_cells(options.scale)
        ],
        "seeds": options.seeds or tables.SCALES[options.scale].seeds,
    }
    return json.loads(json.dumps(values))


def _folder(options: FindingsOptions) -> pathlib.Path:
    """Returns the folder of the runs of this configuration and code."""
    text = json.dumps(_config(options)) + runs.code_version()
    name = f"findings_{pairs.hash_fraction(text):.12f}".replace("_0.", "_")
    return pathlib.Path(options.workdir) / name


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
    path = tables.results_folder(_table_options(options)) / "findings.json"
    wanted = {"config": _config(options), "code": runs.code_version()}
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        if {key: found[key] for key in wanted} == wanted:
            return found
    results = tables.tables(_table_options(options))
    cells = measure(options, results)
    found = {
        "scale": options.scale,
        **wanted,
        "protocol": metrics.PROTOCOL,
        "data": results[0]["data"],
        "measured_on": f"the first {results[0]['counts'][tables.COMMON]} pairs of the "
        "test split, the same for all runs; the weights after the last step",
        "findings": conclude(cells),
        "in_words": in_words(cells),
        "cells": [
            dataclasses.asdict(c) | {"mean": c.mean, "std": c.std} for c in cells
        ],
        "machine": runs.machine(),
    }
    text = json.dumps(found, indent=1) + "\n"
    files.write_text(path, text)
    shutil.rmtree(_folder(options), ignore_errors=True)  # none where rows held it all
    return json.loads(text)


def _splits_table(found: Mapping[str, Any]) -> list[str]:
    """Returns the PSNR of the report's rows on their own splits, as Markdown."""
    lines = [
        "| model | epochs | pairs | "
        + " | ".join(f"{split}: input | restored" for split in pairs.SPLITS)
        + " |",
        "|---|" + "--:|" * (2 + 2 * len(pairs.SPLITS)),
    ]
    for cell in found["cells"]:
        row = cell["row"]
        if cell["kind"] == "seed":
            shown = [
                f"{cell['splits'][split][side]:.2f}"
                for split in pairs.SPLITS
                for side in ("input", "restored")
            ]
            share = f"{row['fraction']:.0%}"
            lines.append(
                f"| {row['model']} | {row['epochs']} | {share} | {' | '.join(shown)} |"
            )
    return [*lines, "", "PSNR in dB, on each row's own pairs.", ""]


def to_markdown(found: Mapping[str, Any]) -> str:
    """Returns the findings as Markdown.

    Args:
      found: from `findings`; the oldest stored ones have no words and no splits.
    """
    holds = {True: "yes", False: "no", None: "open"}
    lines = ["| the report says, or we want | holds here | measured |", "|---|---|---|"]
    lines += [
        f"| {one['claim']} | {holds[one['agrees']]} | {one['answer']} |"
        for one in found["findings"]
    ]
    run = found["config"]["runs"][0]
    share = run["epochs"] / tables.rows_of("all")[0].epochs
    note = (
        f"Scale {tables.scale_of(found)}, {share:.0%} of the report's epochs, "
        f"{run['image_size']}×{run['image_size']} pixels; PSNR on "
        f"{found['measured_on']}."
    )
    lines += ["", note, ""]
    if share < 1:
        lines += [
            "Every run here is still at its beginning, where the number of steps "
            "counts most; where an answer differs from the report's, that decides.", "",
        ]  # fmt: skip
    if "in_words" in found:
        lines += [*_splits_table(found), found["in_words"], ""]
    return "\n".join(lines)


def main(options: FindingsOptions) -> None:
    """Entry point."""
    backend.keep_freed_memory()
    print(to_markdown(findings(options)))


if __name__ == "__main__":
    cli.run(main, FindingsOptions)
