"""Cleans a paired folder: checks it and moves unusable files aside.

    python -m restoration.clean --data_dir=frames

Files without a partner, files that Pillow or TensorFlow cannot decode (with their
partners), and pairs of different size are moved to `Disregard/` in the folder.
`report.csv` and `report.html` there also list doubtful files. Nothing is deleted or
overwritten; `--undo` puts everything back. The exit code is 1 if a file cannot be read,
moved or put back, else 0.
"""

import collections
import dataclasses
import os
import sys
from collections.abc import Iterator

from restoration.audit import audit, finding, plan, quarantine
from restoration.base import cli, config, errors
from restoration.reports import audit_page


@dataclasses.dataclass(frozen=True)
class CleanOptions:
    """Options of `python -m restoration.clean`."""

    data_dir: str = config.option(
        help="paired folder: input/ and output/, split or not"
    )
    dry_run: bool = config.option(False, help="list the files to move, move nothing")
    undo: bool = config.option(False, help="put back everything that was moved")
    move: tuple[str, ...] = config.option(
        (),
        help="also move files for this reason, repeatable: "
        f"{', '.join(finding.REASONS)}",
    )
    keep: tuple[str, ...] = config.option(
        (), help="do not move files for this reason, only list them, repeatable"
    )
    tensorflow: bool = config.option(
        True, help="decode with TensorFlow too; --notensorflow starts faster"
    )
    workers: int = config.option(
        0, help="number of processes; 0: one per core", minimum=0
    )

    def __post_init__(self):
        """Checks the limits and reasons."""
        config.check(self)
        for flag, reasons in (("move", self.move), ("keep", self.keep)):
            for reason in reasons:
                if reason not in finding.REASONS:
                    raise errors.InputError(
                        f"--{flag}={reason}: choose one of {', '.join(finding.REASONS)}"
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
        default = {name for name, (moved, _) in finding.REASONS.items() if moved}
        return frozenset((default | set(self.move)) - set(self.keep))


@dataclasses.dataclass(frozen=True)
class Summary:
    """The result of `clean`.

    Attributes:
      files: number of image files checked.
      pairs: number of pairs.
      findings: on all files.
      moved: the moves made; in a dry run, the moves that would be made.
      finished: number of moves of a killed run that were carried out first.
      put_back: number of files put back.
      failed: one line for each failure.
    """

    files: int = 0
    pairs: int = 0
    findings: tuple[finding.Finding, ...] = ()
    moved: tuple[quarantine.Move, ...] = ()
    finished: int = 0
    put_back: int = 0
    failed: tuple[str, ...] = ()


def _undo(root: str, dry_run: bool) -> Summary:
    journal = quarantine.read_journal(root)
    if journal is None:
        raise errors.InputError(
            f"{root}: nothing to undo; it has no {quarantine.JOURNAL}"
        )
    if dry_run:
        aside = [m for m in journal.moves if quarantine.lies_aside(root, m)]
        return Summary(put_back=len(aside))
    count, failed = quarantine.put_back(root, journal)
    journal = quarantine.read_journal(root)
    if journal:
        rows = audit_page.rows(root, journal, (), frozenset())
        failed += audit_page.write_reports(root, rows, (("put back", count),))
    return Summary(put_back=count, failed=failed)


def clean(options: CleanOptions) -> Summary:
    """Checks a paired folder and moves unusable files aside.

    A killed run or a killed undo is finished first.

    Args:
      options: from the command line.

    Returns:
      The findings and the moves.

    Raises:
      InputError: if the folder is missing, cannot be read, is not a paired folder, has
        no pairs or is being cleaned, or the journal cannot be written.
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
        moves, unread = plan.plan_moves(root, seen.findings, options.moved_reasons)
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
        rows = audit_page.rows(root, journal, seen.findings, options.moved_reasons)
        aside = {row.file for row in rows if row.action == "moved"}
        listed = {row.file for row in rows if row.action != "moved"}
        facts = (
            ("pairs checked", seen.pairs),
            ("files moved aside", len(aside)),
            ("files listed", len(listed)),
        )
        failed += audit_page.write_reports(root, rows, facts)
        done = tuple(move for move in moves if quarantine.lies_aside(root, move))
        return dataclasses.replace(summary, moved=done, failed=failed)


def _printable(text: str) -> str:
    """Escapes line breaks and control characters of a text."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii")
        for c in finding.shown(text)
    )


def _lines(options: CleanOptions, summary: Summary) -> Iterator[str]:
    """Yields the summary that `main` prints."""
    if options.undo:
        verb = "would be put back" if options.dry_run else "put back"
        yield f"{summary.put_back} files {verb}"
        return
    if summary.put_back:
        yield f"{summary.put_back} files put back first, by an interrupted --undo"
    if summary.finished:
        yield f"{summary.finished} moves of an interrupted run finished first"
    yield f"{summary.pairs} pairs, {summary.files} files checked"
    counts = collections.Counter(found.reason for found in summary.findings)
    folder = os.path.join(options.data_dir, quarantine.FOLDER)
    verb = "to move" if options.dry_run else "moved"
    yield f"{len(summary.moved)} files {verb} to {_printable(folder)}"
    for title, wanted in ((f"{verb}, with partners:", True), ("listed only:", False)):
        reasons = [
            name
            for name in finding.REASONS
            if counts[name] and (name in options.moved_reasons) == wanted
        ]
        if reasons:
            yield title
        for name in reasons:
            yield f"  {name:<15}{counts[name]:>7}  {finding.REASONS[name][1]}"
    if options.dry_run:
        for move in summary.moved:
            yield f"would move {_printable(move.source)}"
        return
    yield f"report: {_printable(os.path.join(folder, 'report.html'))}"
    if summary.moved:
        yield "to put everything back: the same command with --undo"


def main(options: CleanOptions) -> int:
    """Cleans a folder and prints a summary.

    Args:
      options: from the command line.

    Returns:
      The exit code: 1 if a file could not be read, moved or put back, else 0.
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
