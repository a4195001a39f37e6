"""The page of `restore --compare` for films: before and after, played in step."""

import pathlib
from collections.abc import Sequence

from restoration.base import files
from restoration.inference.restore_file import Restored
from restoration.reports import page


def write(path: pathlib.Path, results: Sequence[Restored]) -> list[str]:
    """Writes the page of films that were restored with `--compare`.

    Args:
      path: the page; the films it shows lie beside it.
      results: what became of the films; those that failed are left out.

    Returns:
      Lines to print about films that are not on the page.
    """
    rows, notes = [], []
    for result in results:
        if result.error or result.skipped:
            continue
        shown = result.output.with_name(f"{result.output.stem}_compare.mp4")
        if not shown.is_file():
            notes.append(f"{result.input}: not on the page: {shown.name} is not there")
            continue
        rows.append(
            {
                "name": result.input.name,
                "film": shown.resolve().relative_to(path.parent.resolve()).as_posix(),
                "notes": "; ".join(result.notes),
            }
        )
    if rows:
        text = page.render(
            "films.html.j2", title="Before and after", rows=rows, media=True
        )
        files.write_text(path, text)
    return notes
