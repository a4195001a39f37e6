"""Measures a trained model on the pairs of a split.

    python -m restoration.evaluate --workdir RUN --split test

Writes `evaluation/{split}.json` (means), `evaluation/{split}.csv` (each image) and some
restored images to the workdir.
"""

import dataclasses
import json
import pathlib
from collections.abc import Iterable
from typing import Any

import tqdm
from etils import epy

from restoration.base import cli, config, errors, files
from restoration.data import pairs, sources
from restoration.devices import backend, processes
from restoration.evaluation import measure, scores
from restoration.images import frames
from restoration.training import train_config

with epy.lazy_imports():
    import jax

    from restoration import models
    from restoration.evaluation import metrics
    from restoration.training import step, trained


@dataclasses.dataclass(frozen=True)
class EvaluateOptions:
    """Options of `python -m restoration.evaluate`."""

    workdir: str = config.option(help="folder of the training run")
    data_dir: str = config.option(
        "", help="paired folder or prepared dataset; default: the run's own"
    )
    split: str = config.option(
        "test", help="split to measure", choices=(*pairs.SPLITS, "all")
    )
    out: str = config.option(
        "", short="o", help="JSON file to write; default: in the workdir"
    )
    batch_size: int = config.option(16, help="images per batch, at most", minimum=1)
    cases: int = config.option(
        4,
        help="number of worst, of typical and of best restored images to save for the "
        "report; -1 saves all",
        minimum=-1,
    )

    def __post_init__(self):
        """Checks the limits and choices."""
        config.check(self)
        if self.out and self.split == "all":
            raise errors.InputError("--out is one file: choose one --split")


def open_run(options: EvaluateOptions) -> tuple[sources.Source, dict[str, tuple]]:
    """Opens the pairs of a run.

    Args:
      options: only `workdir` and `data_dir` are used.

    Returns:
      The source of the pairs, and the run's sample of the pairs of each split.

    Raises:
      InputError: if the pairs cannot be opened.
    """
    run = train_config.load_config(options.workdir)
    if not (options.data_dir or run.data_dir):
        raise errors.InputError(
            f"--workdir={options.workdir}: its run was on no folder of pairs; give one "
            "with --data_dir"
        )
    opened = sources.open_source(options.data_dir or run.data_dir)
    return opened, pairs.sample(opened.splits, run.fraction, seed=run.seed)


def evaluate(options: EvaluateOptions) -> dict[str, dict]:
    """Measures a trained model.

    Args:
      options: from the command line.

    Returns:
      The content of each split's JSON file: model, split, count, step, parameters,
      protocol, and the means of input and restored images.

    Raises:
      InputError: if the workdir has no checkpoint, a split is empty, or an image cannot
        be read.
    """
    run, parameters, number = trained.load_trained(options.workdir)
    names = pairs.SPLITS if options.split == "all" else (options.split,)
    opened, sampled = open_run(options)
    data_dir = options.data_dir or run.data_dir
    splits = {name: pairs.require(sampled, name, data_dir) for name in names}
    model = models.get_model(run.model)
    eval_step = jax.jit(step.make_eval_step(model))
    folder = pathlib.Path(options.workdir) / "evaluation"
    results = {}
    for name, members in splits.items():
        batches = sources.evaluation_share(
            opened, members, batch_size=options.batch_size
        )
        with tqdm.tqdm(
            total=len(processes.share(members)),
            unit="image",
            desc=name,
            disable=not processes.is_writer(),
        ) as bar:
            measured = measure.measure(
                lambda batch: eval_step(parameters, batch), _counted(batches, bar)
            )
        measured = measure.gather(measured)
        results[name] = {
            "model": run.model,
            "split": name,
            "count": len(measured),
            "step": number,
            "parameters": models.count_parameters(parameters),
            "protocol": metrics.PROTOCOL,
            **measure.means(measured),
        }
        out = pathlib.Path(options.out or folder / f"{name}.json")
        if processes.is_writer():
            files.write_text(out, json.dumps(results[name], indent=1) + "\n")
            files.write_text(folder / f"{name}.csv", scores.to_csv(measured))
        chosen = _choose(members, measured, options.cases)
        measure.measure(
            lambda batch: eval_step(parameters, batch),
            sources.evaluation_share(opened, chosen, batch_size=options.batch_size),
            lambda picture, image, name=name: frames.write(
                folder / name / f"{picture}.png", image
            ),
        )
    return results


def _counted(batches: Iterable[dict], bar: tqdm.tqdm) -> Iterable[dict]:
    for batch in batches:
        yield batch
        bar.update(len(batch["name"]))


def _choose(
    members: Iterable[Any], measured: Iterable[scores.Score], cases: int
) -> list[Any]:
    """Returns the members whose restored images are saved."""
    if cases < 0:
        return list(members)
    chosen = scores.choose_cases(measured, cases)
    names = {score.name for group in chosen.values() for score in group}
    return [pair for pair in members if pair.name in names]


def table(results: dict[str, dict]) -> str:
    """Returns the results as a Markdown table, with the protocol at the end."""
    lines = [
        "| split | images | | MSE | PSNR | SSIM |",
        "|---|--:|---|--:|--:|--:|",
    ]
    for name, result in results.items():
        for side in measure.SIDES:
            values = result[side]
            lines.append(
                f"| {name} | {result['count']} | {side} | {values['mse']:.5f} "
                f"| {values['psnr']:.2f} | {values['ssim']:.4f} |"
            )
    protocol = next(iter(results.values()))["protocol"]
    return "\n".join([*lines, "", f"({protocol})"])


def main(
    options: EvaluateOptions, process: processes.ProcessOptions = processes.ALONE
) -> None:
    """Entry point."""
    backend.keep_freed_memory()
    backend.cache_compilations()
    with processes.joined(process):
        results = evaluate(options)
        if processes.is_writer():
            print(table(results))


if __name__ == "__main__":
    cli.run(main, EvaluateOptions, processes.ProcessOptions)
