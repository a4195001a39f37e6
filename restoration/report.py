"""Writes a self-contained HTML page of a training run or of before/after pictures.

The page contains all that it shows: pictures as JPEG data, style, script and curves.
Its content security policy refuses any request. The same input files give the same
bytes.

  python -m restoration.report --workdir runs/basic
  python -m restoration.report -i photos
  python -m restoration.report --before photos --after photos_restored
"""

import dataclasses
import pathlib
import sys
import tempfile

from etils import epy

from restoration.base import cli, errors, files
from restoration.devices import backend
from restoration.reports import (
    before_after,
    gallery,
    page,
    training_run,
)

with epy.lazy_imports():
    from restoration.inference import batch


def report(options: training_run.ReportOptions) -> pathlib.Path:
    """Writes the page of a training run, of before/after pictures, or of both.

    Args:
      options: from the command line.

    Returns:
      The page's path.

    Raises:
      InputError: if a file is missing or malformed; names the remedy.
    """
    if bool(options.before) != bool(options.after):
        raise errors.InputError("--before and --after go together; give both folders")
    if not (options.workdir or options.after):
        raise errors.InputError(
            "nothing to report; give --input, --workdir, or --before --after"
        )
    run, compared, pictures = None, None, []
    if options.workdir:
        run, fill, pictures = training_run.run_context(
            options, pathlib.Path(options.workdir)
        )
    rows = []
    if options.before and options.after:
        rows, unmatched = before_after.match_pictures(options.before, options.after)
        others = "1 more has" if len(unmatched) == 1 else f"{len(unmatched)} more have"
        note = f"{others} no restored version." if unmatched else ""
        compared = {"note": note, "count": gallery.count(len(rows))}
    embedded = gallery.embed([*pictures, *gallery.both(rows)])
    if run:
        fill(embedded[: len(pictures)])
    if compared:
        compared["rows"] = gallery.comparison_rows(rows, embedded[len(pictures) :])
    default = "Restoration report" if run else "Before and after"
    text = page.render(
        "report.html.j2",
        title=options.title or default,
        script="page.js",
        run=run,
        gallery=compared,
    )
    folder = pathlib.Path(options.workdir or options.after or ".")
    out = pathlib.Path(options.out) if options.out else folder / "report.html"
    files.write_text(out, text)
    return out


def restored_report(
    options: training_run.ReportOptions,
) -> tuple[pathlib.Path, list[str]]:
    """Restores a folder of pictures and writes a page of them.

    Args:
      options: `input` is restored with `workdir`'s network or the default model.

    Returns:
      The page's path, and a line for each picture that could not be restored.

    Raises:
      InputError: if the folder has no pictures or none could be restored.
    """
    folder = pathlib.Path(options.input or "").resolve()
    if not folder.is_dir():
        raise errors.InputError(f"--input={options.input}: no such folder")
    beside = options.workdir and str(pathlib.Path(options.workdir) / "report.html")
    out = options.out or beside or f"{folder}_report.html"
    with tempfile.TemporaryDirectory() as after:
        results = batch.restore(
            batch.RestoreOptions(
                input=(str(folder),),
                output=after,
                workdir=options.workdir or "",
                recursive=True,
            )
        )
        failed = [result.error for result in results if result.error]
        if len(failed) == len(results):
            raise errors.InputError(failed[0])
        shown = dataclasses.replace(
            options, input=None, before=str(folder), after=after, out=out
        )
        return report(shown), failed


def main(options: training_run.ReportOptions) -> int:
    """Writes the page and prints its path; returns 1 if a restoration failed."""
    failed: list[str] = []
    if options.input:
        backend.keep_freed_memory(large=False)
        backend.cache_compilations()
        path, failed = restored_report(options)
    else:
        path = report(options)
    for line in failed:
        print(f"error: {line}", file=sys.stderr)
    print(path)
    return int(bool(failed))


if __name__ == "__main__":
    cli.run(main, training_run.ReportOptions)
