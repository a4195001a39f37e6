"""Finds bad files and pairs in a paired folder, on all cores; changes nothing."""

import concurrent.futures
import dataclasses
import itertools
import math
import multiprocessing
import os
import signal
import threading
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import tqdm

from restoration.audit import finding, listing, survey
from restoration.base import errors
from restoration.data import pairs
from restoration.images import similarity

# For at most this many dissimilar pairs, all outputs are searched for the input's.
_LOOKUPS = 200

# Number of units that a worker gets at a time.
_CHUNK = 16

_NUMBERED = np.dtype([("number", "<i8"), ("record", survey.RECORD)])


@dataclasses.dataclass(frozen=True)
class Audit:
    """The result of an audit.

    Attributes:
      files: number of image files.
      pairs: number of pairs.
      findings: ordered by file.
    """

    files: int
    pairs: int
    findings: tuple[finding.Finding, ...]


def _rank(path: str) -> tuple[int, str]:
    """Ranks copies; the lowest stays: the test split comes before training."""
    split = listing.pair_name(path).split
    return -pairs.SPLITS.index(split) if split else 0, path


def _equal_groups(values: np.ndarray) -> Iterator[np.ndarray]:
    """Yields for each row that occurs more than once the indices of its copies."""
    order = np.lexsort(tuple(values.T))
    ordered = values[order]
    breaks = np.flatnonzero((ordered[1:] != ordered[:-1]).any(axis=1)) + 1
    for start, stop in itertools.pairwise((0, *breaks.tolist(), len(order))):
        if stop - start > 1:
            yield order[start:stop]


def _copies(
    members: Sequence[listing.Unit], records: np.ndarray
) -> Iterator[finding.Finding]:
    """Finds exact and near duplicates; the finding names the copy to remove."""
    same: dict[int, dict[int, list[str]]] = {}
    for side, name in enumerate(("input", "output")):
        seen = np.flatnonzero(~records["blank"][:, side])
        for group in _equal_groups(records["digests"][seen, side]):
            ranked = sorted(seen[group].tolist(), key=lambda i: _rank(members[i][0][0]))
            for i in ranked[1:]:
                same.setdefault(i, {}).setdefault(ranked[0], []).append(name)

    def repeated(i: int, j: int, sides: str, within: str) -> finding.Finding:
        (path,), (partner,) = members[i]
        side = 0 if sides.startswith("input") else 1
        other = members[j][side][0]
        if listing.pair_name(path).split != listing.pair_name(other).split:
            within = "leak"
        detail = f"{sides} as {finding.shown(other)}"
        return finding.Finding(path, within, detail, partner, other)

    def clip(i: int) -> tuple[str, str]:
        split, stem = listing.pair_name(members[i][0][0])
        return split, pairs.clip_of(stem)

    for i, others in same.items():
        j = min(others, key=lambda j: _rank(members[j][0][0]))
        if clip(i) == clip(j) and others[j] == ["output"]:
            # A still clip, or several damaged versions of one target.
            continue
        yield repeated(i, j, f"{' and '.join(others[j])} the same", "duplicate")

    thumbnails = records["thumbnail"]
    # With hardly any contrast, a hash depends on noise.
    clear = np.flatnonzero((thumbnails.std(axis=1) >= 6) & ~records["blank"][:, 1])
    numbers: dict[tuple[str, str], int] = {}
    labels = np.array(
        [numbers.setdefault(clip(i), len(numbers)) for i in clear.tolist()], np.int64
    )
    known = set(same)
    for pair in similarity.near(records["hash"][clear], thumbnails[clear], labels):
        j, i = sorted(clear[list(pair)].tolist(), key=lambda i: _rank(members[i][0][0]))
        if i not in known:
            known.add(i)
            yield repeated(i, j, "output nearly the same", "near_duplicate")


def _exchanges(
    members: Sequence[listing.Unit], records: np.ndarray
) -> Iterator[finding.Finding]:
    sound = np.flatnonzero(records["sound"])
    for i in sound[similarity.exchanged(records["change"][sound])].tolist():
        (path,), (partner,) = members[i]
        detail = "the output looks more degraded than the input, unlike in other pairs"
        yield finding.Finding(path, "exchanged", detail, partner)


def _similar_names(units: Sequence[listing.Unit]) -> Iterator[finding.Finding]:
    """Finds names that are equal if case and Unicode form are ignored."""

    def key(unit: listing.Unit) -> tuple[str, str]:
        split, stem = listing.pair_name((unit.inputs or unit.outputs)[0])
        return split, unicodedata.normalize("NFC", stem).casefold()

    # Hashes instead of keys save memory with a million names.
    hashes = np.array([[hash(key(unit))] for unit in units], np.int64)
    for group in _equal_groups(hashes):
        members = sorted(units[i] for i in group.tolist())
        for unit, other in itertools.permutations(members, 2):
            if key(unit) != key(other):
                continue
            similar = (other.inputs or other.outputs)[0]
            detail = f"like {finding.shown(similar)}"
            if len(unit.inputs) == len(unit.outputs) == 1:
                (path,), (partner,) = unit
                yield finding.Finding(path, "similar_name", detail, partner, similar)
            else:
                for path in (*unit.inputs, *unit.outputs):
                    yield finding.Finding(path, "similar_name", detail, "", similar)


def _origin(
    root: str,
    path: str,
    misfit: bytes,
    members: Sequence[listing.Unit],
    thumbnails: np.ndarray,
) -> str:
    """Returns the output that a dissimilar pair's input belongs to, or ""."""

    def luma(name: str) -> np.ndarray:
        image = survey.look(root, name, tensorflow=False).image
        return similarity.luma(similarity.grey(image)) if image else np.zeros((1, 1))

    tiny = np.frombuffer(misfit, np.uint8).astype(np.float32)
    scores = thumbnails @ (tiny - tiny.mean())
    degraded = luma(path)
    for i in np.argsort(-scores)[:3].tolist():
        clean = luma(members[i].outputs[0])
        if (
            degraded.shape == clean.shape
            and similarity.shift(degraded, clean)[2] >= survey.SURE_SHARPNESS
        ):
            return members[i].outputs[0]
    return ""


def _explain_misfits(
    root: str,
    findings: Sequence[finding.Finding],
    misfits: Mapping[int, bytes],
    compared: Mapping[int, listing.Unit],
    members: Sequence[listing.Unit],
    records: np.ndarray,
) -> list[finding.Finding]:
    """Adds to the findings on dissimilar pairs the output that the input belongs to."""
    if not misfits:
        return list(findings)
    thumbnails = records["thumbnail"].astype(np.float32)
    thumbnails -= thumbnails.mean(axis=1, keepdims=True)
    thumbnails /= np.linalg.norm(thumbnails, axis=1, keepdims=True) + 1
    origins = {}
    for i, misfit in itertools.islice(misfits.items(), _LOOKUPS):
        path = compared[i].inputs[0]
        origin = _origin(root, path, misfit, members, thumbnails)
        if origin:
            origins[path] = origin

    def explained(found: finding.Finding) -> finding.Finding:
        if found.reason != "dissimilar" or found.file not in origins:
            return found
        other = origins[found.file]
        detail = f"{found.detail}; the input belongs to {finding.shown(other)}"
        return dataclasses.replace(found, detail=detail, other=other)

    return [explained(found) for found in findings]


def _watch_parent() -> None:
    """Ends a worker whose parent was killed; otherwise it would wait forever."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _start_worker() -> None:
    # The parent handles Ctrl-C.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_watch_parent, daemon=True).start()


def _work(
    root: str, chunk: Sequence[tuple[int, listing.Unit]], tensorflow: bool
) -> list[tuple[int, survey.Report]]:
    if tensorflow:
        survey.import_tensorflow()
    return [(i, survey.survey(root, unit, tensorflow=tensorflow)) for i, unit in chunk]


def _pool(workers: int, tensorflow: bool) -> concurrent.futures.ProcessPoolExecutor:
    """Starts worker processes, by spawning: TensorFlow's threads cannot be forked."""
    pool = concurrent.futures.ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), _start_worker
    )
    try:
        # An error here is not caused by a file.
        pool.submit(_work, "", (), tensorflow).result()
    except concurrent.futures.process.BrokenProcessPool:
        raise errors.InputError(
            "worker processes cannot start (a script must call clean() below "
            'if __name__ == "__main__"); try --workers=1'
        ) from None
    return pool


def _one_by_one(
    root: str, chunk: Iterable[tuple[int, listing.Unit]], tensorflow: bool
) -> Iterator[tuple[int, survey.Report]]:
    """Surveys units in a process of their own, to find one that crashes a decoder."""
    pool = None
    for i, unit in chunk:
        pool = pool or _pool(1, tensorflow)
        try:
            yield from pool.submit(_work, root, ((i, unit),), tensorflow).result()
        except concurrent.futures.process.BrokenProcessPool:
            pool = None
            detail = "a decoder crashed on this file or its partner"
            yield (
                i,
                survey.Report(
                    tuple(
                        finding.Finding(path, "undecodable", detail)
                        for path in (*unit.inputs, *unit.outputs)
                    )
                ),
            )
    if pool:
        pool.shutdown()


def _cores() -> int:
    """Returns the number of cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _survey_all(
    root: str, units: Sequence[listing.Unit], tensorflow: bool, workers: int
) -> Iterator[tuple[int, survey.Report]]:
    """Yields the reports of all units, in any order."""
    numbered = enumerate(units)
    # For a few files, starting processes takes longer than it saves.
    if workers == 1 or (len(units) < 4 * _CHUNK and not tensorflow):
        for item in numbered:
            yield from _work(root, (item,), tensorflow)
        return
    workers = min(workers, math.ceil(len(units) / _CHUNK))
    pool, waiting = _pool(workers, tensorflow), {}
    try:
        while True:
            while len(waiting) < 4 * workers:
                chunk = tuple(itertools.islice(numbered, _CHUNK))
                if not chunk:
                    break
                waiting[pool.submit(_work, root, chunk, tensorflow)] = chunk
            if not waiting:
                return
            done, _ = concurrent.futures.wait(
                waiting, return_when=concurrent.futures.FIRST_COMPLETED
            )
            broken = []
            for future in done:
                chunk = waiting.pop(future)
                try:
                    yield from future.result()
                except concurrent.futures.process.BrokenProcessPool:
                    broken += chunk
            if broken:
                broken += itertools.chain.from_iterable(waiting.values())
                waiting.clear()
                yield from _one_by_one(root, broken, tensorflow)
                pool = _pool(workers, tensorflow)
    finally:
        pool.shutdown(cancel_futures=True)


def audit(
    data_dir: str | os.PathLike, *, tensorflow: bool = True, workers: int = 0
) -> Audit:
    """Checks every file of a paired folder; changes nothing.

    Args:
      data_dir: the folder, split or not.
      tensorflow: whether to decode with TensorFlow as well as with Pillow.
      workers: number of processes; 0 for one per core.

    Returns:
      The findings.

    Raises:
      InputError: if the folder is missing, cannot be listed, is not a paired folder or
        has no pairs.
    """
    root = os.fspath(data_dir)
    units: list[listing.Unit] = []
    findings: list[finding.Finding] = []
    for sides in listing.find_sides(root):
        listed = [listing.list_side(root, folder) for folder in sides]
        findings += listed[0][1] + listed[1][1]
        units += listing.match(sides, (listed[0][0], listed[1][0]))
    count = sum(bool(unit.inputs and unit.outputs) for unit in units)
    if not count:
        raise errors.InputError(
            f"{root}: no pairs; the two images of a pair have the same name in "
            "input/ and output/ (nothing was changed)"
        )
    stored = bytearray()
    compared: dict[int, listing.Unit] = {}
    misfits: dict[int, bytes] = {}
    with tqdm.tqdm(total=len(units), unit="pair", disable=None) as bar:
        for i, report in _survey_all(root, units, tensorflow, workers or _cores()):
            bar.update()
            findings += report.findings
            if report.record:
                compared[i] = units[i] if report.pair == units[i] else report.pair
                stored += i.to_bytes(8, "little") + report.record
            if report.misfit:
                misfits[i] = report.misfit
    records = np.sort(np.frombuffer(stored, _NUMBERED), order="number")
    members = [compared[i] for i in records["number"].tolist()]
    records = records["record"]
    findings = _explain_misfits(root, findings, misfits, compared, members, records)
    findings += _copies(members, records)
    findings += _exchanges(members, records)
    findings += _similar_names(units)
    files = sum(len(unit.inputs) + len(unit.outputs) for unit in units)
    return Audit(files, count, tuple(sorted(findings)))
