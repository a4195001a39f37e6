"""The report of an audit: a CSV table and an HTML page."""

import base64
import collections
import csv
import dataclasses
import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TextIO

from restoration.audit import finding, listing, plan, quarantine, survey
from restoration.reports import page

# Examples of each reason on the page, which keeps it to a few megabytes, and the
# longest side of their thumbnails, pixels.
_EXAMPLES = 12
_THUMBNAIL = 200

COLUMNS = ("file", "reason", "severity", "action", "detail", "partner", "now_at")


@dataclasses.dataclass(frozen=True)
class _Row:
    """A row of the report; `now_at` and `partner_at` are the files' present paths."""

    file: str
    reason: str
    severity: str
    action: str
    detail: str
    partner: str
    other: str
    now_at: str
    partner_at: str


def rows(
    root: str,
    journal: quarantine.Journal,
    findings: Iterable[finding.Finding],
    moved: frozenset[str],
) -> list[_Row]:
    """Returns the rows of the report: moved files first, then the other findings.

    Args:
      root: the data folder.
      journal: of the data folder.
      findings: of the audit.
      moved: the reasons for which files are moved.

    Returns:
      The rows.
    """
    aside = [m for m in journal.moves if quarantine.lies_aside(root, m)]
    moved_to = {move.source: move.target for move in aside}
    rows = [
        _Row(
            file=move.source,
            action="moved",
            now_at=move.target,
            partner_at=moved_to.get(found["partner"], found["partner"]),
            **found,
        )
        for move in aside
        for found in move.findings
    ]
    rows += [
        _Row(
            file=found.file,
            reason=found.reason,
            severity=plan.severity(found, moved),
            action="listed" if found.reason not in moved else "not moved",
            detail=found.detail,
            partner=found.partner,
            other=found.other,
            now_at=found.file,
            partner_at=moved_to.get(found.partner, found.partner),
        )
        for found in findings
        if found.file not in moved_to
    ]
    return rows


def write_csv(file: TextIO, rows: Iterable[_Row]) -> None:
    """Writes rows as a table with a header."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow(finding.shown(getattr(row, name)) for name in COLUMNS)


def _thumbnail(root: str, path: str, label: str) -> dict[str, Any]:
    """Returns a file as a small JPEG in a data URI; `uri` is "" without an image."""
    image = survey.look(root, path, tensorflow=False).image
    if image is None:
        return {"label": label, "uri": ""}
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    data = io.BytesIO()
    image.save(data, "JPEG", quality=80)
    return {
        "label": label,
        "uri": "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode(),
        "width": image.width,
        "height": image.height,
    }


def _case(root: str, row: _Row, moved_to: Mapping[str, str]) -> dict[str, Any]:
    """Returns the page's entry for one finding."""
    shown = [(row.now_at, row.file), (row.partner_at, row.partner)]
    if row.partner and listing.side_of(row.file) == "output":
        shown.reverse()
    shown = [(path, listing.side_of(file)) for path, file in shown if file]
    if row.other:
        shown.append((moved_to.get(row.other, row.other), "other pair"))
    return {
        "name": finding.shown(row.file),
        "detail": finding.shown(row.detail),
        "now_at": finding.shown(row.now_at) if row.action == "moved" else "",
        "plates": [_thumbnail(root, path, label) for path, label in shown],
    }


def _groups(root: str, rows: Sequence[_Row]) -> Iterator[dict[str, Any]]:
    """Yields the page's findings by reason, moved files first."""
    moved_to = {row.file: row.now_at for row in rows}
    groups: dict[tuple[str, str], list[_Row]] = collections.defaultdict(list)
    for row in rows:
        groups[row.action, row.reason].append(row)
    for action in ("moved", "not moved", "listed"):
        for reason, (_, meaning) in finding.REASONS.items():
            if group := groups.get((action, reason)):
                yield {
                    "reason": reason,
                    "meaning": meaning,
                    "action": action,
                    "count": len(group),
                    "cases": [_case(root, row, moved_to) for row in group[:_EXAMPLES]],
                }


def _page(root: str, rows: Sequence[_Row], facts: Sequence[tuple[str, int]]) -> str:
    name = finding.shown(os.path.basename(os.path.abspath(root)))
    return page.render(
        "clean.html.j2",
        title=f"Audit of {name}",
        styles=("clean.css",),
        facts=facts,
        groups=tuple(_groups(root, rows)),
    )


def write_reports(
    root: str, rows: Sequence[_Row], facts: Sequence[tuple[str, int]]
) -> tuple[str, ...]:
    """Writes both reports; returns a line for each failure."""
    try:
        with quarantine.writing(root, "report.csv") as file:
            write_csv(file, rows)
        with quarantine.writing(root, "report.html") as file:
            file.write(_page(root, rows, facts))
    except OSError as error:
        return (
            f"{root!r}: the report cannot be written ({error.strerror}); no file is "
            "lost; make room and run again, or --undo",
        )
    return ()
