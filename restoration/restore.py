"""Restores photographs.

python -m restoration.restore -i photo.jpg folder -o restored
"""

import pathlib
import sys
from collections.abc import Sequence

from etils import epy

from restoration.base import cli
from restoration.devices import backend
from restoration.inference import batch, jobs

with epy.lazy_imports():
    from restoration.inference import restore_file
    from restoration.reports import compare as compare_page


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


def main(options: batch.RestoreOptions) -> int:
    """Entry point."""
    backend.keep_freed_memory(large=False)
    backend.cache_compilations()
    results = batch.restore(options)
    if options.compare:
        page = pathlib.Path(options.output) / "compare.html"
        for line in compare_page.write(page, results):
            print(line)
    code = report_failures(results)
    passed = jobs.passed_over(
        options.input, options.output, recursive=options.recursive
    )
    if passed:
        counts = ", ".join(f"{count} {suffix}" for suffix, count in passed.items())
        print(f"passed over, since they are no pictures that are read: {counts}")
    return code


if __name__ == "__main__":
    cli.run(main, batch.RestoreOptions)
