"""Cleans a paired folder: audits it and moves what cannot be used aside.

    python -m restoration.clean --data_dir=frames

Files without a partner, files that Pillow or TensorFlow cannot decode with their
partners, and pairs of different size move to `Disregard/` in the folder, where
`report.csv` and `report.html` tell what else is doubtful. Nothing is deleted or
overwritten; `--undo` puts everything back. The exit code is 0 whatever was found,
1 when a file could not be read, moved or put back.
"""

import base64
import collections
import csv
import dataclasses
import io
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TextIO

from restoration.audit import audit, quarantine, survey
from restoration.base import cli, config, errors
from restoration.reports import page

# Examples of each reason on the page, so that it stays some megabytes.
_EXAMPLES = 12
_THUMBNAIL = 200

_COLUMNS = ("file", "reason", "severity", "action", "detail", "partner", "now_at")


@dataclasses.dataclass(frozen=True)
class CleanOptions:
    """What to clean, and how."""

    data_dir: str = config.option(
        help="paired folder: input/ and output/, split or not"
    )
    dry_run: bool = config.option(False, help="tell what would be moved, move nothing")
    undo: bool = config.option(False, help="put back everything that was moved")
    move: tuple[str, ...] = config.option(
        (),
        help=f"move what has this reason too, repeatable: {', '.join(survey.REASONS)}",
    )
    keep: tuple[str, ...] = config.option(
        (), help="list what has this reason but leave it in place, repeatable"
    )
    tensorflow: bool = config.option(
        True, help="decode with TensorFlow too; --notensorflow starts faster"
    )
    workers: int = config.option(0, help="processes; 0: one a core", minimum=0)

    def __post_init__(self):
        """Checks limits and reasons."""
        config.check(self)
        for flag, reasons in (("move", self.move), ("keep", self.keep)):
            for reason in reasons:
                if reason not in survey.REASONS:
                    raise errors.InputError(
                        f"--{flag}={reason}: choose of {', '.join(survey.REASONS)}"
                    )
        for reason in self.move:
            if reason in self.keep:
                raise errors.InputError(
                    f"--move={reason} and --keep={reason}: choose one of the two"
                )
        if self.undo and (self.move or self.keep):
            raise errors.InputError(
                "--undo puts everything back: drop --move and --keep"
            )

    @property
    def moved_reasons(self) -> frozenset[str]:
        """The reasons for which files are moved."""
        default = {name for name, (moved, _) in survey.REASONS.items() if moved}
        return frozenset((default | set(self.move)) - set(self.keep))


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a run of `clean` saw and did.

    Attributes:
      files: image files that were looked at.
      pairs: how many pairs they form.
      findings: all that is wrong with them.
      moved: the moves that were made, or in a dry run would be.
      finished: moves of a killed run that were carried out first.
      put_back: files that were put back.
      failed: one line for each thing that could not be done.
    """

    files: int = 0
    pairs: int = 0
    findings: tuple[survey.Finding, ...] = ()
    moved: tuple[quarantine.Move, ...] = ()
    finished: int = 0
    put_back: int = 0
    failed: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class _Row:
    """One line of the report; `now_at` and `partner_at` are where the files lie."""

    file: str
    reason: str
    severity: str
    action: str
    detail: str
    partner: str
    other: str
    now_at: str
    partner_at: str


# What moves.


def _plan(
    root: str, findings: Iterable[survey.Finding], moved: frozenset[str]
) -> tuple[tuple[quarantine.Move, ...], tuple[str, ...]]:
    """Decides which files go where.

    Args:
      root: the data folder.
      findings: all of them, since a file takes all that is known of it along.
      moved: the reasons to move for.

    Returns:
      The moves, and one line for each file that cannot be read, so not moved.
    """
    known: dict[str, list[survey.Finding]] = collections.defaultdict(list)
    going: dict[str, str] = {}
    for found in findings:
        known[found.file].append(found)
        if found.reason in moved:
            going[found.file] = ""
            if found.partner:
                going.setdefault(found.partner, found.file)
    moves, failed, taken = [], [], set()
    for path, leader in sorted(going.items()):
        target = quarantine.free_target(root, path, taken)
        taken.add(target)
        told = [
            {
                "reason": found.reason,
                "severity": _severity(found, moved),
                "detail": found.detail,
                "partner": found.partner,
                "other": found.other,
            }
            for found in known[path]
        ]
        if leader:
            told.append(
                {
                    "reason": "partner",
                    "severity": "error",
                    "detail": f"goes with {survey.shown(leader)}",
                    "partner": leader,
                    "other": "",
                }
            )
        try:
            digest = quarantine.fingerprint(os.path.join(root, path))
        except OSError as error:
            failed.append(f"{path!r}: {error.strerror}")
            continue
        moves.append(quarantine.Move(path, target, digest, tuple(told)))
    return tuple(moves), tuple(failed)


def _severity(found: survey.Finding, moved: frozenset[str]) -> str:
    return "error" if found.reason in moved else "warning"


# Reports.


def _rows(
    root: str,
    journal: quarantine.Journal,
    findings: Iterable[survey.Finding],
    moved: frozenset[str],
) -> list[_Row]:
    """Returns all that lies in the folder of moved files, then what is listed."""
    aside = [m for m in journal.moves if quarantine.lies_aside(root, m)]
    places = {move.source: move.target for move in aside}
    rows = [
        _Row(
            file=move.source,
            action="moved",
            now_at=move.target,
            partner_at=places.get(told["partner"], told["partner"]),
            **told,
        )
        for move in aside
        for told in move.findings
    ]
    rows += [
        _Row(
            file=found.file,
            reason=found.reason,
            severity=_severity(found, moved),
            action="listed" if found.reason not in moved else "not moved",
            detail=found.detail,
            partner=found.partner,
            other=found.other,
            now_at=found.file,
            partner_at=places.get(found.partner, found.partner),
        )
        for found in findings
        if found.file not in places
    ]
    return rows


def _write_csv(file: TextIO, rows: Iterable[_Row]) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for row in rows:
        writer.writerow(survey.shown(getattr(row, name)) for name in _COLUMNS)


def _thumbnail(root: str, path: str, label: str) -> dict[str, Any]:
    """Returns a file as a small JPEG in a data URI; no `uri` where it has none."""
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


def _case(root: str, row: _Row, places: Mapping[str, str]) -> dict[str, Any]:
    """Returns what the page shows of one finding."""
    shown = [(row.now_at, row.file), (row.partner_at, row.partner)]
    if row.partner and survey.side_of(row.file) == "output":
        shown.reverse()
    shown = [(path, survey.side_of(file)) for path, file in shown if file]
    if row.other:
        shown.append((places.get(row.other, row.other), "the other"))
    return {
        "name": survey.shown(row.file),
        "detail": survey.shown(row.detail),
        "now_at": survey.shown(row.now_at) if row.action == "moved" else "",
        "plates": [_thumbnail(root, path, label) for path, label in shown],
    }


def _groups(root: str, rows: Sequence[_Row]) -> Iterator[dict[str, Any]]:
    """Yields the findings by reason, the moved first."""
    places = {row.file: row.now_at for row in rows}
    groups: dict[tuple[str, str], list[_Row]] = collections.defaultdict(list)
    for row in rows:
        groups[row.action, row.reason].append(row)
    for action in ("moved", "not moved", "listed"):
        for reason, (_, meaning) in survey.REASONS.items():
            if group := groups.get((action, reason)):
                yield {
                    "reason": reason,
                    "meaning": meaning,
                    "action": action,
                    "count": len(group),
                    "cases": [_case(root, row, places) for row in group[:_EXAMPLES]],
                }


def _page(root: str, rows: Sequence[_Row], facts: Sequence[tuple[str, int]]) -> str:
    name = survey.shown(os.path.basename(os.path.abspath(root)))
    return page.render(
        "clean.html.j2",
        title=f"Audit of {name}",
        styles=("clean.css",),
        facts=facts,
        groups=tuple(_groups(root, rows)),
    )


def _write_reports(
    root: str, rows: Sequence[_Row], facts: Sequence[tuple[str, int]]
) -> tuple[str, ...]:
    """Writes both reports; returns what went wrong."""
    try:
        with quarantine.writing(root, "report.csv") as file:
            _write_csv(file, rows)
        with quarantine.writing(root, "report.html") as file:
            file.write(_page(root, rows, facts))
    except OSError as error:
        return (
            f"{root!r}: the report cannot be written ({error.strerror}); no file is "
            "lost: make room and run again to write it, or --undo",
        )
    return ()


# The command.


def _undo(root: str, dry_run: bool) -> Summary:
    journal = quarantine.read_journal(root)
    if journal is None:
        raise errors.InputError(
            f"{root}: nothing to undo; there is no {quarantine.JOURNAL} in it"
        )
    if dry_run:
        aside = [m for m in journal.moves if quarantine.lies_aside(root, m)]
        return Summary(put_back=len(aside))
    count, failed = quarantine.put_back(root, journal)
    journal = quarantine.read_journal(root)
    if journal:
        rows = _rows(root, journal, (), frozenset())
        failed += _write_reports(root, rows, (("put back", count),))
    return Summary(put_back=count, failed=failed)


def clean(options: CleanOptions) -> Summary:
    """Audits a paired folder and moves aside what cannot be used.

    A run that was killed is finished first; a killed undo likewise.

    Args:
      options: what to clean, and how.

    Returns:
      What was seen and done.

    Raises:
      InputError: when the folder is missing, is no paired folder, holds no pair,
        cannot be read, is being cleaned, or the moves cannot be written down.
    """
    root = options.data_dir
    if not os.path.isdir(root):
        raise errors.InputError(f"{root}: no such folder; check --data_dir")
    with quarantine.locked(root):
        if options.undo:
            return _undo(root, options.dry_run)
        before, failed, finished = Summary(), (), 0
        journal = quarantine.read_journal(root)
        if journal and not options.dry_run:
            if journal.undoing:
                before = _undo(root, dry_run=False)
                failed += before.failed
            elif journal.pending:
                finished = journal.pending
                failed += quarantine.finish(root, journal)
        seen = audit.audit(root, tensorflow=options.tensorflow, workers=options.workers)
        moves, unread = _plan(root, seen.findings, options.moved_reasons)
        summary = Summary(
            files=seen.files,
            pairs=seen.pairs,
            findings=seen.findings,
            moved=moves,
            finished=finished,
            put_back=before.put_back,
            failed=failed + unread,
        )
        if options.dry_run:
            return summary
        quarantine.start(root)
        failed = summary.failed + quarantine.set_aside(root, moves)
        journal = quarantine.read_journal(root)
        rows = _rows(root, journal, seen.findings, options.moved_reasons)
        aside = {row.file for row in rows if row.action == "moved"}
        listed = {row.file for row in rows if row.action != "moved"}
        facts = (
            ("pairs looked at", seen.pairs),
            ("files moved aside", len(aside)),
            ("files listed", len(listed)),
        )
        failed += _write_reports(root, rows, facts)
        done = tuple(move for move in moves if quarantine.lies_aside(root, move))
        return dataclasses.replace(summary, moved=done, failed=failed)


def _printable(text: str) -> str:
    """Returns text that can neither break a line nor steer a terminal."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii")
        for c in survey.shown(text)
    )


def _lines(options: CleanOptions, summary: Summary) -> Iterator[str]:
    """Yields the summary that `main` prints."""
    if options.undo:
        verb = "would be put back" if options.dry_run else "put back"
        yield f"{summary.put_back} files {verb}"
        return
    if summary.put_back:
        yield f"{summary.put_back} files put back first: an undo had been interrupted"
    if summary.finished:
        yield f"{summary.finished} moves of an interrupted run finished first"
    yield f"{summary.pairs} pairs, {summary.files} files looked at"
    counts = collections.Counter(found.reason for found in summary.findings)
    folder = os.path.join(options.data_dir, quarantine.FOLDER)
    verb = "to move" if options.dry_run else "moved"
    yield f"{len(summary.moved)} files {verb} to {_printable(folder)}"
    for title, wanted in ((f"{verb}, with partners:", True), ("listed only:", False)):
        reasons = [
            name
            for name in survey.REASONS
            if counts[name] and (name in options.moved_reasons) == wanted
        ]
        if reasons:
            yield title
        for name in reasons:
            yield f"  {name:<15}{counts[name]:>7}  {survey.REASONS[name][1]}"
    if options.dry_run:
        for move in summary.moved:
            yield f"would move {_printable(move.source)}"
        return
    yield f"report: {_printable(os.path.join(folder, 'report.html'))}"
    if summary.moved:
        yield "to put everything back: the same command with --undo"


def main(options: CleanOptions) -> int:
    """Cleans, and prints a summary.

    Args:
      options: what to clean, and how.

    Returns:
      0, or 1 when a file could not be read, moved or put back.
    """
    summary = clean(options)
    for line in _lines(options, summary):
        print(line)
    for line in summary.failed:
        print(f"error: {_printable(line)}", file=sys.stderr)
    unread = any(found.reason == "unreadable" for found in summary.findings)
    return 1 if summary.failed or unread else 0


if __name__ == "__main__":
    cli.run(main, CleanOptions)
