"""Restores archives of millions of photographs as an Apache Beam pipeline.

python -m restoration.archive -i /archive -o /restored --runner=DirectRunner

Each picture goes through the function that `restoration.restore` uses. What exists
is passed over, so that a pipeline that was stopped goes on; what failed is told in
lines of JSON beside the results. Input and output are paths that every worker
reaches. Needs the extra `beam`.
"""

import dataclasses
import functools
import json
import pathlib
import sys
from typing import Any

from etils import epy

from restoration.base import cli, config, errors
from restoration.inference import batch, jobs

with epy.lazy_imports():
    import apache_beam as beam
    from apache_beam.options import pipeline_options

    from restoration.inference import restore_file


@dataclasses.dataclass(frozen=True)
class ArchiveOptions:
    """Options of `python -m restoration.archive`."""

    input: tuple[str, ...] = config.option(
        help="images and folders, with sub-folders; further arguments too",
        short="i",
        positional=True,
    )
    output: str = config.option(help="folder for the restored images", short="o")
    model: str = config.option(
        "", help="a shipped model; by default the best one", short="n"
    )
    workdir: str = config.option("", help="a training run to use instead")
    strength: float = config.option(
        1.0, help="1 restores, 0 gives back the input", minimum=0.0, maximum=1.0
    )
    keep_color: bool = config.option(
        False, help="restore structure, leave color and tone"
    )
    device: str = config.option(
        "auto", help="where workers compute", choices=("auto", "cpu", "gpu", "tpu")
    )
    suffix: str = config.option("restored", help="written after each name")
    runner: str = config.option("DirectRunner", help="Beam's runner")
    beam_options: tuple[str, ...] = config.option(
        (), help="a flag of the runner, such as --beam_options=--region=...; repeated"
    )

    def __post_init__(self):
        """Checks choices."""
        config.check(self)


def _restore_options(options: ArchiveOptions) -> batch.RestoreOptions:
    """Returns the options that restore a part of the archive as `restore` would."""
    return batch.RestoreOptions(
        input=options.input,
        output=options.output,
        model=options.model,
        workdir=options.workdir,
        strength=options.strength,
        keep_color=options.keep_color,
        device=options.device,
        suffix=options.suffix,
        recursive=True,
        skip_existing=True,
    )


@functools.lru_cache(maxsize=1)
def _engine(options: batch.RestoreOptions) -> Any:
    """Loads the model once a worker process."""
    return batch.load_engine(options)


def restore_one(job: jobs.Job, options: batch.RestoreOptions) -> dict[str, Any]:
    """Restores one picture; returns what became of it, as JSON can hold it."""
    settings = batch.settings_of(options)
    done = restore_file.restore_file(job, _engine(options), settings)
    found = dataclasses.asdict(done)
    return found | {"input": str(done.input), "output": str(done.output)}


def _needed_beam() -> None:
    try:
        _ = beam.Pipeline
    except ImportError:
        raise errors.InputError(
            "Apache Beam is missing; pip install 'film-restoration[beam]'"
        ) from None


def restore_archive(options: ArchiveOptions) -> pathlib.Path:
    """Runs the pipeline.

    Args:
      options: what to restore, and with which runner.

    Returns:
      The folder `reports` of the output: lines of JSON, one a picture.

    Raises:
      InputError: when nothing can be started.
    """
    _needed_beam()
    single = _restore_options(options)
    work = batch.find_jobs(single)
    reports = pathlib.Path(options.output) / "reports"
    flags = [f"--runner={options.runner}", *options.beam_options]
    with beam.Pipeline(options=pipeline_options.PipelineOptions(flags)) as pipeline:
        _ = (
            pipeline
            | "list" >> beam.Create(work)
            # Workers take single pictures, not the whole list of one of them.
            | "spread" >> beam.Reshuffle()
            | "restore" >> beam.Map(restore_one, single)
            | "tell" >> beam.Map(json.dumps)
            | "write" >> beam.io.WriteToText(str(reports / "part"), ".jsonl")
        )
    return reports


def main(options: ArchiveOptions) -> int:
    """Entry point: prints errors and a count; 1 when pictures failed."""
    count = failed = 0
    for part in sorted(restore_archive(options).glob("*.jsonl")):
        with part.open(encoding="utf-8") as lines:
            for line in lines:
                count += 1
                error = json.loads(line)["error"]
                if error:
                    failed += 1
                    print(f"error: {error}", file=sys.stderr)
    print(f"{count - failed} of {count} pictures are in {options.output}")
    return int(failed > 0)


if __name__ == "__main__":
    cli.run(main, ArchiveOptions)
