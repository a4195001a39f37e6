"""Restores photographs and films.

python -m restoration.restore -i photo.jpg reel.mkv folder -o restored

With `--beam` a folder of millions is restored in an Apache Beam pipeline: its workers
list the folders, and each picture goes through the same function. What exists is
passed over, so that a pipeline that was stopped goes on.
"""

import collections
import dataclasses
import functools
import json
import pathlib
import shlex
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from etils import epy

from restoration.base import cli, errors
from restoration.devices import backend
from restoration.film import container
from restoration.inference import batch, film, jobs

with epy.lazy_imports():
    import apache_beam as beam
    from apache_beam.options import pipeline_options

    from restoration.inference import restore_file
    from restoration.reports import compare as compare_page
    from restoration.reports import films as films_page


def report_failures(results: Sequence["restore_file.Restored"]) -> int:
    """Prints what was written and what failed; returns the exit code."""
    for result in results:
        if result.error:
            print(f"error: {result.error}", file=sys.stderr)
        else:
            notes = [*result.notes, *["exists, skipped"] * result.skipped]
            name = errors.one_line(str(result.output))
            print(name, *([f"({'; '.join(notes)})"] if notes else []))
    return int(any(result.error for result in results))


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


def restore_on_beam(options: batch.RestoreOptions) -> pathlib.Path:
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
    with beam.Pipeline(options=flags) as pipeline:
        _ = (
            pipeline
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


def _report_beam(reports: pathlib.Path, output: str) -> int:
    """Prints the errors in a pipeline's reports, and a count; returns the exit code."""
    counts = collections.Counter()
    for part in sorted(reports.glob("*.jsonl")):
        with part.open(encoding="utf-8") as lines:
            for line in lines:
                error = json.loads(line)["error"]
                counts["failed" if error else "restored"] += 1
                if error:
                    print(f"error: {error}", file=sys.stderr)
    total = counts["failed"] + counts["restored"]
    print(f"{counts['restored']} of {total} pictures are in {output}")
    return int(counts["failed"] > 0)


def main(options: batch.RestoreOptions, film_options: film.FilmOptions) -> int:
    """Entry point."""
    backend.keep_freed_memory(large=False)
    backend.cache_compilations()
    if options.beam:
        return _report_beam(restore_on_beam(options), options.output)
    films, pictures = film.divide(
        options.input,
        options.output,
        suffix=options.suffix,
        recursive=options.recursive,
        sequence=film_options.sequence,
    )
    results = []
    if pictures:
        results = batch.restore(dataclasses.replace(options, input=pictures))
        if options.compare:
            page = pathlib.Path(options.output) / "compare.html"
            for line in compare_page.write(page, results):
                print(line)
    if films:
        restored = film.restore(films, film.settings_of(options, film_options))
        if options.report:
            film.add_to_report(options.report, options, restored, began=bool(pictures))
        if options.compare:
            page = pathlib.Path(options.output) / "compare_films.html"
            for line in films_page.write(page, restored):
                print(line)
        results = [*results, *restored]
    code = report_failures(results)
    passed = {
        suffix: count
        for suffix, count in jobs.passed_over(
            pictures, options.output, recursive=options.recursive
        ).items()
        if suffix not in container.SUFFIXES
    }
    if passed:
        counts = ", ".join(f"{count} {suffix}" for suffix, count in passed.items())
        line = f"passed over, since they are no pictures that are read: {counts}"
        print(errors.one_line(line))
    return code


if __name__ == "__main__":
    cli.run(main, batch.RestoreOptions, film.FilmOptions)
