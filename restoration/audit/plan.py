"""Decides which files of an audited folder are moved, and where to."""

import collections
import os
from collections.abc import Iterable

from restoration.audit import finding, quarantine


def plan_moves(
    root: str, findings: Iterable[finding.Finding], moved: frozenset[str]
) -> tuple[tuple[quarantine.Move, ...], tuple[str, ...]]:
    """Plans the moves.

    Args:
      root: the data folder.
      findings: all findings; a move keeps all findings on its file.
      moved: the reasons for which files are moved.

    Returns:
      The moves, and one line for each file that cannot be read and so is not moved.
    """
    known: dict[str, list[finding.Finding]] = collections.defaultdict(list)
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
        reasons = [
            {
                "reason": found.reason,
                "severity": severity(found, moved),
                "detail": found.detail,
                "partner": found.partner,
                "other": found.other,
            }
            for found in known[path]
        ]
        if leader:
            reasons.append(
                {
                    "reason": "partner",
                    "severity": "error",
                    "detail": f"partner of {finding.shown(leader)}",
                    "partner": leader,
                    "other": "",
                }
            )
        try:
            digest = quarantine.fingerprint(os.path.join(root, path))
        except OSError as error:
            failed.append(f"{path!r}: {error.strerror}")
            continue
        moves.append(quarantine.Move(path, target, digest, tuple(reasons)))
    return tuple(moves), tuple(failed)


def severity(found: finding.Finding, moved: frozenset[str]) -> str:
    """Returns "error" if files are moved for the finding's reason, else "warning"."""
    return "error" if found.reason in moved else "warning"
