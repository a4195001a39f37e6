"""A folder of any number of pictures, restored in an Apache Beam pipeline.

Workers list the folders and restore the pictures. They import this module by its name,
which the module of a running command does not have.
"""

import dataclasses
import functools
import json
import pathlib
import shlex
from collections.abc import Iterator
from typing import Any

from etils import epy

from restoration.base import errors
from restoration.inference import batch, jobs

with epy.lazy_imports():
    import apache_beam as beam
    from apache_beam.options import pipeline_options

    from restoration.inference import restore_file


@functools.lru_cache(maxsize=1)
def _engine(options: batch.RestoreOptions) -> Any:
    """Loads the networks once in each worker process."""
    return batch.load_engine(options)


def folders_of(options: batch.RestoreOptions, root: str) -> Iterator[str]:
    """Yields the folders to restore, below the root."""
    return jobs.folders(root, options.output, recursive=options.recursive)


def jobs_of(
    options: batch.RestoreOptions, root: str, relative: str
) -> Iterator[jobs.Job]:
    """Yields the pictures of one folder, with their results' files."""
    yield from jobs.find_in_folder(
        root, relative, options.output, suffix=options.suffix, ext=options.ext
    )


def restore_one(options: batch.RestoreOptions, job: jobs.Job) -> str:
    """Restores one picture; returns what became of it as a line of JSON."""
    settings = batch.settings_of(options)
    done = restore_file.restore_file(job, _engine(options), settings)
    found = dataclasses.asdict(done)
    return json.dumps(found | {"input": str(done.input), "output": str(done.output)})


def _check_beam(options: batch.RestoreOptions) -> str:
    """Returns the folder to restore; raises InputError where Beam cannot begin."""
    try:
        _ = beam.Pipeline
    except ImportError:
        raise errors.InputError(
            "--beam: Apache Beam is not installed; in an environment of its own: "
            'pip install ".[beam]"'
        ) from None
    if len(options.input) != 1 or not pathlib.Path(options.input[0]).is_dir():
        raise errors.InputError(
            "--beam restores one folder; name it with -i, without further arguments"
        )
    return options.input[0]


def run(options: batch.RestoreOptions) -> pathlib.Path:
    """Restores a folder in an Apache Beam pipeline.

    Args:
      options: as `batch.restore` takes them; what exists is skipped, unless it is to be
        replaced, since a runner may begin the same work twice.

    Returns:
      The folder of the reports, by default `reports` in the output: lines of JSON, one
      a picture.

    Raises:
      InputError: without Apache Beam, and for an input that is not one folder.
    """
    root = _check_beam(options)
    reports = pathlib.Path(options.report or pathlib.Path(options.output, "reports"))
    worker = dataclasses.replace(
        options, skip_existing=not options.overwrite, report="", beam=""
    )
    flags = pipeline_options.PipelineOptions(shlex.split(options.beam))
    with beam.Pipeline(options=flags) as graph:
        _ = (
            graph
            | "root" >> beam.Create([root])
            | "folders" >> beam.FlatMap(lambda path: folders_of(worker, path))
            # Workers take single folders and pictures, not all of one list.
            | "spread folders" >> beam.Reshuffle()
            | "list" >> beam.FlatMap(lambda relative: jobs_of(worker, root, relative))
            | "spread pictures" >> beam.Reshuffle()
            | "restore" >> beam.Map(lambda job: restore_one(worker, job))
            | "write" >> beam.io.WriteToText(str(reports / "part"), ".jsonl")
        )
    return reports
