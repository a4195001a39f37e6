"""Regenerates the seed report's five tables.

    python -m experiments.tables --table all --scale quick

Each row is trained on stand-in pairs (`experiments.tables.standin`), and by the seed's
own program in Keras if that does not take too long. Rows that differ in their epochs
alone are one run, measured on the way. A row is not computed again if its result exists
for the same configuration and code; an interrupted run continues. Writes a JSON file
for each row, and the tables as Markdown, CSV and an HTML page.
"""

import csv
import dataclasses
import functools
import io
import json
import pathlib
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import markupsafe
import numpy as np
from etils import epy

from experiments.tables import runs, standin
from restoration.base import config, files
from restoration.data import pairs
from restoration.devices import backend
from restoration.evaluation import scores
from restoration.reports import charts, page

with epy.lazy_imports():
    from experiments.tables import keras_reference
    from restoration.data import arrays
    from restoration.evaluation import metrics

FOLDER = pathlib.Path(__file__).resolve().parents[1]

# The report's five tables, and two larger ones.
TABLES: dict[str, dict[str, Any]] = {
    "1": {"model": "basic", "epochs": 100, "fractions": (0.02, 0.12, 0.32)},
    "2": {"model": "basic", "epochs": 300, "fractions": (0.02, 0.12)},
    "3": {"model": "basic", "epochs": 200, "fractions": (0.32,)},
    "4": {"model": "advanced", "epochs": 100, "fractions": (0.02, 0.12)},
    "5": {"model": "advanced", "epochs": 200, "fractions": (0.02, 0.12)},
    "6": {"model": "basic", "epochs": 300, "fractions": (1.0,)},
    "7": {"model": "advanced", "epochs": 300, "fractions": (1.0,), "seeds": 1},
}
ALL = ("1", "2", "3", "4", "5")

# Beside its own splits a row is measured on pairs that are the same for all rows: the
# first of the test split of all pairs, and their targets given as the input.
COMMON, UNDAMAGED = "common", "undamaged"
_COMMON_PAIRS = 256


@dataclasses.dataclass(frozen=True)
class Scale:
    """How large the experiments are.

    Attributes:
      pairs: of all splits; a row uses a fraction of them.
      image_size: side of the pairs, pixels.
      batch_size: pairs per step.
      epochs: share of the report's epochs.
      seeds: runs of each row.
      twin: rows, (table, fraction) each, that are also trained in Keras.
    """

    pairs: int
    image_size: int
    batch_size: int
    epochs: float
    seeds: int
    twin: tuple[tuple[str, float], ...]


# The largest first.
SCALES = {
    # Keras would take 80 hours on two cores.
    "full": Scale(standin.PAIRS, 256, 16, 1.0, 3, twin=()),
    "cpu": Scale(standin.PAIRS, 64, 16, 1.0, 1, twin=(("1", 0.02),)),
    "quick": Scale(2_400, 32, 4, 0.06, 3, twin=(("1", 0.02), ("1", 0.12), ("1", 0.32))),
}


@dataclasses.dataclass(frozen=True)
class TablesOptions:
    """Options of `python -m experiments.tables`."""

    table: str = config.option(
        "all", help="table; all: the report's five", choices=("all", *TABLES)
    )
    scale: str = config.option(
        "full",
        help="full: for an accelerator; cpu: smaller pairs, one run of each row; "
        "quick: fewer and smaller pairs, fewer epochs",
        choices=tuple(SCALES),
        formerly="quick",
    )
    data_dir: str = config.option(
        "", help="folder of clean images; default: scikit-image's photographs"
    )
    pairs: int = config.option(0, help="pairs of all splits; 0: by scale", minimum=0)
    image_size: int = config.option(
        0, help="side of the pairs, pixels; 0: by scale", minimum=0
    )
    batch_size: int = config.option(0, help="pairs per step; 0: by scale", minimum=0)
    input_psnr: float = config.option(28.0, help="mean PSNR of the degraded images, dB")
    seeds: int = config.option(
        0,
        help="runs of each row, with seeds 0, 1, ...; 0: by scale; table 7 has one",
        minimum=0,
    )
    bfloat16: bool = config.option(False, help="compute in bfloat16")
    results: str = config.option(
        "", help="folder of the results; default: experiments/results (/cpu, /quick)"
    )
    workdir: str = config.option(
        "build/tables", help="folder of unfinished runs, and of the last weights"
    )
    out: str = config.option(
        "build/tables", short="o", help="folder of tables.md, .csv and .html"
    )

    def __post_init__(self):
        """Checks limits and choices."""
        config.check(self)


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of the report's tables (its three lines are the splits).

    Attributes:
      table: its number.
      model: name of the network.
      epochs: as the report has it.
      fraction: of all pairs.
    """

    table: str
    model: str
    epochs: int
    fraction: float


@dataclasses.dataclass(frozen=True)
class RowConfig:
    """All that determines a row's numbers, except the code.

    Attributes:
      row: the report's.
      standin: the pairs.
      pairs: number of pairs that the row uses, of all splits.
      run: the training, with the first seed.
      seeds: number of runs.
      twin: whether to train in Keras too. (Stored results use the field's name.)
    """

    row: Row
    standin: standin.StandinOptions
    pairs: int
    run: runs.Run
    seeds: int
    twin: bool


def rows_of(table: str) -> list[Row]:
    """Returns the rows of a table, or of the report's five for "all"."""
    return [
        Row(number, TABLES[number]["model"], TABLES[number]["epochs"], fraction)
        for number in (ALL if table == "all" else (table,))
        for fraction in TABLES[number]["fractions"]
    ]


def row_config(options: TablesOptions, row: Row) -> RowConfig:
    """Returns the configuration of a row with these options."""
    scale = SCALES[options.scale]
    image_size = options.image_size or scale.image_size
    data = standin.StandinOptions(
        data_dir=options.data_dir,
        pairs=options.pairs or scale.pairs,
        image_size=image_size,
        input_psnr=options.input_psnr,
    )
    run = runs.Run(
        model=row.model,
        recipe=dataclasses.replace(runs.SEED, bfloat16=options.bfloat16),
        epochs=max(1, round(row.epochs * scale.epochs)),
        batch_size=options.batch_size or scale.batch_size,
        image_size=image_size,
        seed=0,
    )
    seeds = options.seeds or scale.seeds
    return RowConfig(
        row=row,
        standin=data,
        pairs=round(row.fraction * data.pairs),
        run=run,
        seeds=min(seeds, TABLES[row.table].get("seeds", seeds)),
        twin=(row.table, row.fraction) in scale.twin,
    )


def results_folder(options: TablesOptions) -> pathlib.Path:
    """Returns the folder of the rows' results."""
    default = FOLDER / "results" / ("" if options.scale == "full" else options.scale)
    return pathlib.Path(options.results or default)


def _stem(wanted: RowConfig) -> str:
    run = wanted.run
    return f"t{wanted.row.table}_{run.model}_{run.epochs}_{wanted.pairs}"


def _as_json(wanted: RowConfig) -> dict[str, Any]:
    """Returns a row's configuration as it is read from a JSON file."""
    values = dataclasses.asdict(wanted) | {"standin": standin.identity(wanted.standin)}
    return json.loads(json.dumps(values))


def _path(options: TablesOptions, wanted: RowConfig) -> pathlib.Path:
    return results_folder(options) / f"{_stem(wanted)}.json"


def load(path: pathlib.Path, wanted: RowConfig) -> dict[str, Any] | None:
    """Returns a row's result if it has this configuration and code, else None."""
    if not path.is_file():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    same = found["config"] == _as_json(wanted) and found["code"] == runs.code_version()
    return found if same else None


def committed(scale: str) -> list[tuple[RowConfig, dict[str, Any] | None]]:
    """Returns the report's rows and their stored results, of any code version.

    Args:
      scale: one of `SCALES`.

    Returns:
      (row, result) in the tables' order; the result is None where it is missing.
    """
    options, found = TablesOptions(scale=scale), []
    for row in rows_of("all"):
        wanted = row_config(options, row)
        path = _path(options, wanted)
        is_there = path.is_file()
        text = path.read_text(encoding="utf-8") if is_there else "null"
        found.append((wanted, json.loads(text)))
    return found


def shown() -> list[tuple[RowConfig, dict[str, Any] | None]]:
    """Returns what the documents show: `committed` of the largest scale that was run.

    Of the scale cpu, whose rows take hours, one row is enough; of the others all must
    be there. Empty if nothing was run.
    """
    for scale in SCALES:
        found = committed(scale)
        missing = sum(result is None for _, result in found)
        if not missing or (scale == "cpu" and missing < len(found)):
            return found
    return []


def statistics(values: Iterable[Mapping[str, Mapping[str, float]]]) -> dict[str, Any]:
    """Returns mean and sample standard deviation of each metric of each split.

    Args:
      values: for each run, metrics by split; the same splits in each.

    Returns:
      {split: {metric: {"mean", "std"}}}; std is None for a single run.
    """
    values = list(values)
    return {
        split: {
            metric: {
                "mean": float(np.mean([v[split][metric] for v in values])),
                "std": float(np.std([v[split][metric] for v in values], ddof=1))
                if len(values) > 1
                else None,
            }
            for metric in scores.METRICS
        }
        for split in values[0]
    }


def _same_runs(row: Row) -> list[Row]:
    """Returns the rows of all tables that differ in their epochs at most."""
    return [
        other
        for table in TABLES
        for other in rows_of(table)
        if (other.model, other.fraction) == (row.model, row.fraction)
    ]


def _stops(options: TablesOptions, row: Row) -> tuple[int, ...]:
    """Returns the epochs at which the runs of a row give a row."""
    return tuple(row_config(options, one).run.epochs for one in _same_runs(row))


def compute(
    options: TablesOptions,
    row: Row,
    pairs_of: "Callable[[RowConfig], tuple[dict[str, arrays.PairArrays], dict]]",
) -> dict[str, Any]:
    """Trains and measures one row.

    Args:
      options: from the command line.
      row: the row.
      pairs_of: returns the row's pairs by split, and their data card.

    Returns:
      The content of the row's JSON file.
    """
    wanted, workdir = row_config(options, row), _runs_folder(options, row)
    data, card = pairs_of(wanted)
    ours, keras_runs = [], []
    for seed in range(wanted.seeds):
        run = dataclasses.replace(wanted.run, seed=seed)
        folder = workdir / f"seed_{seed}"
        print(f"{_stem(wanted)}, seed {seed}", flush=True)
        found = runs.result(run, data, folder, stops=_stops(options, row))
        ours.append({"seed": seed} | found)
        if wanted.twin:
            keras_runs.append(
                {"seed": seed} | keras_reference.result(run, data, folder)
            )
    first = ours[0]["scores"]
    return {
        **dataclasses.asdict(wanted.row),
        "pairs": wanted.pairs,
        "scale": options.scale,
        "code": runs.code_version(),
        "config": _as_json(wanted),
        "protocol": metrics.PROTOCOL,
        "data": card,
        "counts": {split: len(members.input) for split, members in data.items()},
        "input": {split: first[split]["input"] for split in data},
        "ours": statistics(
            {split: sides["restored"] for split, sides in run["scores"].items()}
            for run in ours
        ),
        "twin": statistics(run["scores"] for run in keras_runs) if keras_runs else None,
        "seconds": {
            "ours": round(float(np.mean([run["seconds"] for run in ours])), 2),
            "twin": round(float(np.mean([run["seconds"] for run in keras_runs])), 2)
            if keras_runs
            else None,
        },
        "machine": runs.machine(),
        "runs": ours,
        "twin_runs": keras_runs,
    }


def pairs_source() -> Callable[[RowConfig], tuple[dict[str, Any], dict[str, Any]]]:
    """Returns a function that draws a row's pairs, and caches what rows share.

    Only the row's own pairs are drawn, and the common ones, of which `UNDAMAGED` has
    the targets on both sides.
    """
    prepare = functools.cache(standin.prepare)

    @functools.cache
    def common(options: standin.StandinOptions) -> dict[str, Any]:
        drawn = prepare(options)
        made = standin.draw(drawn, drawn.splits["test"][:_COMMON_PAIRS])
        return {COMMON: made, UNDAMAGED: made._replace(input=made.output)}

    @functools.lru_cache(maxsize=1)
    def of_fraction(options: standin.StandinOptions, fraction: float) -> tuple:
        drawn = prepare(options)
        sampled = pairs.sample(drawn.splits, fraction, seed=options.seed)
        data = {
            split: standin.draw(drawn, pairs.require(sampled, split, "stand-in"))
            for split in pairs.SPLITS
        }
        return data | common(options), standin.card(drawn)

    return lambda wanted: of_fraction(wanted.standin, wanted.row.fraction)


def tables(options: TablesOptions) -> list[dict[str, Any]]:
    """Computes the rows that have no result yet.

    Args:
      options: from the command line.

    Returns:
      The results of all rows, in the tables' order.

    Raises:
      InputError: if an image cannot be used or a run was stopped.
    """
    pairs_of, results = pairs_source(), []
    for row in rows_of(options.table):
        wanted = row_config(options, row)
        path = _path(options, wanted)
        found = load(path, wanted)
        if found is None:
            runs.keep_compiled(pathlib.Path(options.workdir) / "compiled")
            started = time.monotonic()
            found = compute(options, row, pairs_of)
            keep_weights(options, wanted, _runs_folder(options, row) / "seed_0")
            files.write_text(path, json.dumps(found, indent=1) + "\n")
            print(f"{path}: {time.monotonic() - started:.0f} s", flush=True)
        _clear(options, row)
        results.append(found)
    return results


def _runs_folder(options: TablesOptions, row: Row) -> pathlib.Path:
    """Returns the folder of a row's runs, and of those of `_same_runs`.

    A run with another configuration or code must not be continued.
    """
    wanted = row_config(options, row)
    decisive = _as_json(wanted)
    for name in ("row", "seeds", "twin"):
        del decisive[name]
    decisive["run"]["epochs"] = _stops(options, row)
    text = json.dumps(decisive, sort_keys=True) + runs.code_version()
    name = f"{row.model}_{wanted.pairs}_{pairs.hash_fraction(text):.12f}"
    return pathlib.Path(options.workdir) / name.replace("_0.", "_")


def _clear(options: TablesOptions, row: Row) -> None:
    """Removes a row's runs once all rows that are read off them have their results."""
    folder = _runs_folder(options, row)
    wanted = [row_config(options, one) for one in _same_runs(row)]
    if folder.is_dir() and all(load(_path(options, one), one) for one in wanted):
        shutil.rmtree(folder)


def weights_file(
    options: TablesOptions, wanted: RowConfig, kind: str = ""
) -> pathlib.Path:
    """Returns the file in which the weights of a row's first run are kept.

    Rows that differ in their epochs have one file, of the run that has gone furthest.

    Args:
      options: of the tables.
      wanted: the row.
      kind: of the training, where it is not the report's.
    """
    parts = (options.scale, wanted.run.model, str(wanted.pairs), kind)
    name = "_".join(filter(None, parts))
    return pathlib.Path(options.workdir) / "weights" / f"{name}.safetensors"


def keep_weights(
    options: TablesOptions, wanted: RowConfig, folder: pathlib.Path, kind: str = ""
) -> None:
    """Copies the weights of a run's folder, and their card, to `weights_file`."""
    target = weights_file(options, wanted, kind)
    for suffix in (".safetensors", ".json"):
        source = (folder / runs.WEIGHTS).with_suffix(suffix)
        files.write_bytes(target.with_suffix(suffix), source.read_bytes())


@functools.cache
def seed_numbers() -> dict[tuple[str, float, str], dict[str, float]]:
    """Returns the report's metrics by (table, fraction, split)."""
    with (FOLDER / "seed_tables.csv").open(encoding="utf-8") as file:
        return {
            (line["table"], float(line["fraction"]), line["split"]): {
                metric: float(line[metric]) for metric in scores.METRICS
            }
            for line in csv.DictReader(file)
        }


def lines_of(results: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns one line for each row and split.

    Args:
      results: from `tables`.

    Returns:
      The row's configuration; for each metric the value of the seed, of the input, of
      ours and of Keras ("twin"), with standard deviations, None if missing; and the
      seconds of a training run.
    """
    lines = []
    for result in results:
        for split in pairs.SPLITS:
            seed = seed_numbers().get((result["table"], result["fraction"], split))
            line = {
                **{key: result[key] for key in ("table", "model", "fraction")},
                "epochs": result["config"]["run"]["epochs"],
                "seed_epochs": result["epochs"],
                "pairs": result["pairs"],
                "split": split,
                "images": result["counts"][split],
                "runs": len(result["runs"]),
            }
            for metric in scores.METRICS:
                line[f"{metric}_seed"] = seed[metric] if seed else None
                line[f"{metric}_input"] = result["input"][split][metric]
                for who in ("ours", "twin"):
                    found = (result[who] or {}).get(split, {}).get(metric, {})
                    line[f"{metric}_{who}"] = found.get("mean")
                    line[f"{metric}_{who}_std"] = found.get("std")
            for who in ("ours", "twin"):
                line[f"seconds_{who}"] = result["seconds"][who]
            lines.append(line)
    return lines


def to_csv(results: Sequence[Mapping[str, Any]]) -> str:
    """Returns the tables as CSV, see `lines_of`; numbers with six digits."""
    lines = lines_of(results)
    text = io.StringIO()
    writer = csv.DictWriter(text, lines[0], lineterminator="\n")
    writer.writeheader()
    for line in lines:
        writer.writerow(
            {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in line.items()}
        )
    return text.getvalue()


_DIGITS = {"mse": 5, "psnr": 2, "ssim": 4}


def written(line: Mapping[str, Any], metric: str, who: str) -> str:
    """Formats a number, with ± its standard deviation if there is one."""
    mean, std = line[f"{metric}_{who}"], line.get(f"{metric}_{who}_std")
    if mean is None:
        return "–"
    digits = _DIGITS[metric]
    return f"{mean:.{digits}f}" + ("" if std is None else f" ± {std:.{digits}f}")


def _heading(line: Mapping[str, Any]) -> str:
    name = f"Table {line['table']}" if line["table"] in ALL else "Beyond the report"
    return f"{name}: {line['model']}, {line['seed_epochs']} epochs"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def scale_of(result: Mapping[str, Any]) -> str:
    """Returns the scale of a stored result; the oldest say only whether it is quick."""
    return result.get("scale") or ("quick" if result["quick"] else "full")


def scale_note(results: Sequence[Mapping[str, Any]]) -> str:
    """Returns a note on the size of the runs, the data and the number of seeds."""
    first = results[0]
    run, data, card = first["config"]["run"], first["config"]["standin"], first["data"]
    share = run["epochs"] / first["epochs"]
    return (
        f"Scale {scale_of(first)}: {share:.0%} of the report's epochs, fractions of "
        f"{data['pairs']:,} pairs"
        + ("" if data["pairs"] == standin.PAIRS else f" in place of {standin.PAIRS:,}")
        + f", {run['image_size']}×{run['image_size']} pixels, batches of "
        f"{run['batch_size']}. Pairs: stand-in, from {card['pictures']}, input PSNR "
        f"{card['input_psnr_found']:.1f} dB. "
        + (
            "Mean ± standard deviation over seeds."
            if len(first["runs"]) > 1
            else "One run of each row."
        )
    )


def to_markdown(results: Sequence[Mapping[str, Any]]) -> str:
    """Returns the tables as Markdown, with the report's numbers beside ours."""
    parts, heading = [scale_note(results), ""], ""
    for line in lines_of(results):
        if _heading(line) != heading:
            heading = _heading(line)
            parts += [
                f"**{heading}**", "",
                "| pairs | split | MSE seed | ours | Keras twin | PSNR input | seed "
                "| ours | Keras twin | SSIM seed | ours | Keras twin "
                "| time ours | twin |",
                "|--:|---" + "|--:" * 12 + "|",
            ]  # fmt: skip
        cells = [f"{line['pairs']:,}", line["split"]]
        for metric in scores.METRICS:
            whose = ("input",) * (metric == "psnr") + ("seed", "ours", "twin")
            cells += [written(line, metric, who) for who in whose]
        cells += [_duration(line[f"seconds_{who}"]) for who in ("ours", "twin")]
        parts.append(f"| {' | '.join(cells)} |")
        if line["split"] == pairs.SPLITS[-1]:
            parts.append("")
    text = "\n".join([*parts, f"Protocol: {results[0]['protocol']}.", ""])
    return text.replace("|\n\n|", "|\n|")


def _chart(result: Mapping[str, Any], name: str) -> markupsafe.Markup:
    """Draws loss or PSNR of a row's first run over the epochs."""
    curves = result["runs"][0]["curves"]
    write = (lambda y: f"{y:.3g}") if name == "loss" else (lambda y: f"{y:.2f} dB")
    return markupsafe.Markup(
        charts.draw(
            {
                split: list(zip(found["epoch"], found[name], strict=True))
                for split, found in curves.items()
            },
            id=f"t{result['table']}-{result['pairs']}-{name}",
            x_label="epochs",
            y_label="Loss (MSE)" if name == "loss" else "PSNR, dB",
            write=write,
            lower_is_better=name == "loss",
        )
    )


def to_html(results: Sequence[Mapping[str, Any]]) -> str:
    """Returns the tables and the curves as one self-contained page."""
    sections: dict[str, dict[str, Any]] = {}
    for result in results:
        lines = lines_of([result])
        section = sections.setdefault(_heading(lines[0]), {"lines": [], "curves": []})
        for line in lines:
            shown = {
                f"{metric}_{who}": written(line, metric, who)
                for metric in scores.METRICS
                for who in ("seed", "input", "ours", "twin")
            }
            times = {who: _duration(line[f"seconds_{who}"]) for who in ("ours", "twin")}
            section["lines"].append(line | shown | {"times": times})
        section["curves"].append(
            {
                "title": f"{result['pairs']:,} pairs",
                "charts": [_chart(result, name) for name in ("loss", "psnr")],
            }
        )
    return page.render(
        "tables.html.j2",
        title="The seed report's tables, regenerated",
        styles=("tables.css",),
        folder=FOLDER / "templates",
        sections=sections,
        note=scale_note(results),
        protocol=results[0]["protocol"],
        card=results[0]["data"],
        machine=results[0]["machine"],
    )


def main(options: TablesOptions) -> None:
    """Entry point."""
    backend.keep_freed_memory()
    results = tables(options)
    folder = pathlib.Path(options.out)
    name = "tables" if options.table == "all" else f"table_{options.table}"
    for suffix, write in (("md", to_markdown), ("csv", to_csv), ("html", to_html)):
        files.write_text(folder / f"{name}.{suffix}", write(results))
        print(folder / f"{name}.{suffix}")
    for result in results:
        times = {k: v for k, v in result["seconds"].items() if v is not None}
        print(
            f"table {result['table']}, {result['model']}, {result['pairs']} pairs: "
            + ", ".join(f"{who} {_duration(v)}" for who, v in times.items())
        )
