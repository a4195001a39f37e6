"""Restores photographs and films.

python -m restoration.restore -i photo.jpg reel.mkv folder -o restored

With `--beam` a folder of millions is restored in an Apache Beam pipeline: its workers
list the folders, and each picture goes through the same function. What exists is
passed over, so that a pipeline that was stopped goes on.
"""

import collections
import dataclasses
import json
import pathlib
import sys
from collections.abc import Sequence

from etils import epy

from restoration.base import cli, errors
from restoration.devices import backend
from restoration.film import container
from restoration.inference import batch, film, film_jobs, jobs, pipeline

with epy.lazy_imports():
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


def main(options: batch.RestoreOptions, film_options: film_jobs.FilmOptions) -> int:
    """Entry point."""
    backend.keep_freed_memory(large=False)
    backend.cache_compilations()
    if options.beam:
        return _report_beam(pipeline.run(options), options.output)
    films, pictures = film_jobs.divide(
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
            page = jobs.folder_of(options.output) / "compare.html"
            for line in compare_page.write(page, results):
                print(line)
    if films:
        restored = film.restore(films, film_jobs.settings_of(options, film_options))
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
    cli.run(main, batch.RestoreOptions, film_jobs.FilmOptions)
