"""Restores photographs and films.

python -m restoration.restore -i photo.jpg reel.mkv folder -o restored
"""

import dataclasses
import pathlib
import sys
from collections.abc import Sequence

from etils import epy

from restoration.base import cli
from restoration.devices import backend
from restoration.inference import batch, film

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
            # Names that are not UTF-8 reach here as surrogates.
            name = str(result.output).encode("utf-8", "backslashreplace").decode()
            print(name, *([f"({'; '.join(notes)})"] if notes else []))
    return int(any(result.error for result in results))


def main(options: batch.RestoreOptions, film_options: film.FilmOptions) -> int:
    """Entry point."""
    backend.keep_freed_memory(large=False)
    backend.cache_compilations()
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
    return report_failures(results)


if __name__ == "__main__":
    cli.run(main, batch.RestoreOptions, film.FilmOptions)
