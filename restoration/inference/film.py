"""Restoring films: which, in what parts, and to what files.

Two passes go over a film. The first looks for cuts, and for weave and flicker where
they are to be taken out. The second restores the film in parts, shots or pieces of
long ones, each of which is a file in a working folder beside the result. What is there
of an earlier run by the same command is used again, so that at most a part is lost when
the program is stopped; at the end the parts are joined.
"""

import collections
import contextlib
import dataclasses
import fractions
import functools
import hashlib
import itertools
import json
import pathlib
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tqdm
from etils import epy

from restoration.base import errors, files
from restoration.film import (
    container,
    motion,
    over_time,
    preview,
    scratches,
    shots,
    steady,
    stills,
    video,
)
from restoration.inference import film_finding, film_jobs, rows

with epy.lazy_imports():
    import cv2

    from restoration.inference import restore_file

# Frames of a part at most; a part is what an interruption costs.
_PART = 120

# Frames before and after a part that its frames depend on, some of which may be
# doubled.
_CONTEXT = 2 * over_time.REACH

# Pixels from which a frame is large: 4K is.
_LARGE = 4_000_000

# Changed whenever frames come out otherwise: parts of another version are not used.
_VERSION = 4

# Takes "looking" or "restoring", the frames that are done and all of them, 0 where the
# header does not say. What it raises ends the work.
Watch = Callable[[str, int, int], None]


# Settings that change the frames; parts made with others are not used.
_FRAMES = (
    "blind", "damage", "save_damage", "sensitivity", "codec", "deinterlace",
    "stabilize", "deflicker", "denoise", "film_finder", "frame_rate",
)  # fmt: skip


# Progress.


@contextlib.contextmanager
def _counting(
    watch: Watch | None, stage: str, label: str, total: int, done: int = 0
) -> Iterator[Callable[[], None]]:
    """Gives what is called for each frame: it calls the watcher, or draws a bar."""
    if watch is None:
        with tqdm.tqdm(
            total=total or None, initial=done, unit="frame", desc=label
        ) as bar:
            yield bar.update
        return
    counter = itertools.count(done + 1)
    watch(stage, done, total)
    yield lambda: watch(stage, next(counter), total)


# The first pass.


@dataclasses.dataclass(frozen=True)
class Look:
    """What the first pass saw.

    Attributes:
      times: of each frame, in units of the source.
      shots: from cut to cut.
      steps: weave and flicker from frame to frame, the fields of `steady.Step` each;
        empty where they are not to be taken out.
      repeated: numbers of frames that could not be decoded.
    """

    times: list[int]
    shots: list[tuple[int, int]]
    steps: list[tuple[Sequence[float], Sequence[float], float]]
    repeated: list[int]


def look(
    source: container.Source,
    settings: film_jobs.Settings,
    folder: pathlib.Path,
    watch: Watch | None = None,
) -> Look:
    """Goes over a film once; small pictures of its frames lie in a file meanwhile.

    Raises:
      InputError: for a film without frames, or that changes its size.
    """
    times, steps, repeated = [], [], []
    measured = settings.stabilize or settings.deflicker
    before = None
    pictures = container.read(source, deinterlace=bool(settings.deinterlace))
    bar = _counting(watch, "looking", "look", source.length)
    path = folder / "thumbnails"
    with open(path, "wb") as small, bar as advance:
        for picture in pictures:
            advance()
            grey = stills.to_grey(picture.planes, source.layout)
            thumbnail = cv2.resize(grey, shots.SIZE[::-1], interpolation=cv2.INTER_AREA)
            small.write(thumbnail.tobytes())
            times.append(picture.time)
            if picture.repeated:
                repeated.append(picture.number)
            if measured:
                now = steady.small(grey)
                step = steady.STILL
                if before is not None:
                    black = source.layout.black >> (source.layout.bits - 8)
                    step = steady.measure(before, now, black)
                steps.append(dataclasses.astuple(step))
                before = now
    if not times:
        raise errors.InputError(f"{source.path}: no frame in it; replace it")
    found = shots.find(np.memmap(path, np.uint8, "r", shape=(len(times), *shots.SIZE)))
    path.unlink()
    return Look(times, [(s.start, s.end) for s in found], steps, repeated)


# The second pass.


@dataclasses.dataclass(frozen=True)
class _Part:
    """Frames `start` to before `end`, with what surrounds them in their shot."""

    number: int
    start: int
    end: int
    low: int
    high: int


def _parts(found: Look) -> list[_Part]:
    parts: list[_Part] = []
    for start, end in found.shots:
        count = -(-(end - start) // _PART)
        cuts = [start + (end - start) * k // count for k in range(count + 1)]
        for one, other in itertools.pairwise(cuts):
            low, high = max(start, one - _CONTEXT), min(end, other + _CONTEXT)
            parts.append(_Part(len(parts), one, other, low, high))
    return parts


class _Ahead:
    """Frames in order, of which the last ones can be had again."""

    def __init__(self, pictures: Iterator[tuple[container.Picture, Any]]):
        self._pictures = pictures
        self._held: collections.deque = collections.deque(maxlen=2 * _CONTEXT + 1)

    def between(self, low: int, high: int) -> Iterator[tuple[container.Picture, Any]]:
        """Yields frames `low` to before `high`; `low` never goes far back."""
        for item in list(self._held):
            if low <= item[0].number < high:
                yield item
        last = self._held[-1][0].number if self._held else -1
        while last < high - 1:
            item = next(self._pictures, None)
            if item is None:
                return
            self._held.append(item)
            last = item[0].number
            if last >= low:
                yield item


@dataclasses.dataclass(frozen=True)
class _Result:
    picture: container.Picture
    mask: np.ndarray


def _restored(
    items: Iterable[tuple[container.Picture, np.ndarray | None]],
    source: container.Source,
    settings: film_jobs.Settings,
    find: over_time.Finder,
    correct: Sequence[Any],
) -> Iterator[_Result]:
    """Restores consecutive frames of a shot."""
    layout = source.layout

    def arriving() -> Iterator[stills.Still]:
        for picture, given in items:
            grey = stills.to_grey(picture.planes, layout)
            yield stills.Still(
                picture.number, picture.planes, grey, given=given, tag=picture
            )

    unique = stills.undoubled(arriving())
    if settings.blind:
        unique = scratches.removed(unique, layout)
    # Each pass has a thread of its own, while what is done is encoded; what it holds of
    # large frames is too much to have twice.
    passed = over_time.first_pass(unique, layout, blind=settings.blind)
    passed = rows.read_ahead(passed, depth=1)
    if settings.blind:  # what a user marks, the first pass has filled already
        cleaned = over_time.second_pass(passed, layout, find, grain=False)
        passed = map(functools.partial(over_time.as_passed, layout=layout), cleaned)
        if source.width * source.height < _LARGE:
            passed = rows.read_ahead(passed, depth=1)
    done = over_time.second_pass(
        passed, layout, find, grain=not settings.denoise, fine=True
    )

    def finished(frame: over_time.Done) -> over_time.Done:
        """Frees what the frame was compared with, before it waits to be encoded."""
        planes = frame.planes
        if settings.denoise:
            planes = over_time.denoised(frame, layout)
        return dataclasses.replace(frame, planes=planes, references=())

    for frame in rows.read_ahead(map(finished, done), depth=1):
        planes = frame.planes
        mask = frame.mask
        if frame.still.scratched is not None:
            mask = mask | frame.still.scratched
        for still in (frame.still, *frame.still.copies):
            own = planes
            if still is not frame.still and not settings.denoise:
                own = tuple(
                    np.where(stills.mask_at(mask, a.shape), b, a)
                    for a, b in zip(still.planes, planes, strict=True)
                )
            seen = mask
            if settings.stabilize or settings.deflicker:
                step = correct[still.number]
                own = steady.applied(
                    own,
                    step,
                    layout,
                    move=settings.stabilize,
                    brighten=settings.deflicker,
                )
                if settings.stabilize:
                    seen = steady.masked(mask, step)
            yield _Result(dataclasses.replace(still.tag, planes=own), seen)


def _with_masks(
    source: container.Source, settings: film_jobs.Settings, path: pathlib.Path | None
) -> Iterator[tuple[container.Picture, np.ndarray | None]]:
    """Yields frames, each with the user's mask of it.

    Raises:
      InputError: for masks of another size or number than the frames.
    """
    pictures = container.read(source, deinterlace=bool(settings.deinterlace))
    if path is None:
        yield from ((picture, None) for picture in pictures)
        return
    described = container.inspect(path)
    if (described.width, described.height) != (source.width, source.height):
        raise errors.InputError(
            f"{path}: a mask of {described.width}×{described.height} pixels for a film "
            f"of {source.width}×{source.height}; make them equal"
        )
    masks = container.read(described)
    for picture in pictures:
        mask = next(masks, None)
        if mask is None:
            raise errors.InputError(
                f"{path}: ends after {picture.number} frames, and {source.path} goes "
                "on; give a mask of each frame"
            )
        grey = stills.to_grey(mask.planes, described.layout)
        yield picture, grey > 127


def _find_mask(job: film_jobs.Job, settings: film_jobs.Settings) -> pathlib.Path | None:
    """Returns a film's mask: the file that was given, or that of its name."""
    if not settings.damage:
        return None
    given = pathlib.Path(settings.damage)
    if container.is_film(given.name) and given.is_file():
        return given
    if given.is_dir():
        for stem in (f"{job.stem.name}_damage", job.source.stem):
            for path in sorted(given.glob(f"{stem}.*")):
                if container.is_film(path.name):
                    return path
            if (given / stem).is_dir():
                return given / stem
    raise errors.InputError(
        f"{job.source}: no mask film in --damage={given}; add {job.source.stem}.mkv "
        "(white: damaged)"
    )


def _fingerprint(path: pathlib.Path, settings: film_jobs.Settings) -> str:
    """Returns what finished parts depend on."""
    files = [path, *(sorted(path.iterdir()) if path.is_dir() else ())]
    facts = [
        _VERSION,
        [(str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns) for f in files],
        {name: getattr(settings, name) for name in _FRAMES},
    ]
    return hashlib.sha256(json.dumps(facts, default=str).encode()).hexdigest()


def _load_look(
    folder: pathlib.Path,
    source: container.Source,
    settings: film_jobs.Settings,
    watch: Watch | None,
) -> Look:
    """Returns what the first pass saw, of an earlier run where there was one."""
    path = folder / "look.json"
    if path.is_file():
        return Look(**json.loads(path.read_text()))
    found = look(source, settings, folder, watch)
    files.write_text(path, json.dumps(dataclasses.asdict(found)))
    return found


def restore_film(
    job: film_jobs.Job,
    settings: film_jobs.Settings,
    find: over_time.Finder,
    watch: Watch | None = None,
) -> "restore_file.Restored":
    """Restores one film; what goes wrong with it is in the result.

    Args:
      job: what to restore, and where to.
      settings: how.
      find: from `film_finding.load_finder`.
      watch: is called for every frame, in place of bars in the terminal.

    Returns:
      What became of it.
    """
    start = time.monotonic()
    done = restore_file.Restored(job.source, job.stem)
    try:
        done = _attempt(job, settings, find, watch)
    except errors.InputError as error:
        done = dataclasses.replace(done, error=str(error))
    except Exception as error:  # the other films are restored all the same
        reason = " ".join(str(error).split())[:200]
        line = f"{job.source}: {type(error).__name__}: {reason}; please report this"
        done = dataclasses.replace(done, error=line)
    return dataclasses.replace(done, seconds=round(time.monotonic() - start, 3))


def _attempt(
    job: film_jobs.Job,
    settings: film_jobs.Settings,
    find: over_time.Finder,
    watch: Watch | None,
) -> "restore_file.Restored":
    source = container.inspect(
        job.source, rate=fractions.Fraction(settings.frame_rate).limit_denominator(1001)
    )
    if source.interlaced and settings.deinterlace is None:
        raise errors.InputError(
            f"{job.source}: is marked as interlaced; --deinterlace makes whole frames "
            "of it, --nodeinterlace takes it as it is"
        )
    used = container.encoding(source, settings.codec)
    pictures = bool(source.pictures) and used.suffix in container.PICTURES
    target = job.stem
    if not pictures:
        target = job.stem.with_name(f"{job.stem.name}{used.suffix}")
    result = restore_file.Restored(
        job.source, target, sizes=((source.width, source.height),)
    )
    if target.resolve() == job.source.resolve():
        raise errors.InputError(
            f"{job.source}: the result would replace it; choose another -o or --suffix"
        )
    if target.exists() and settings.skip_existing:
        return dataclasses.replace(result, skipped=True)
    if target.exists() and not settings.overwrite:
        raise errors.InputError(f"{target}: exists; --overwrite replaces it")
    folder = target.with_name(f".{target.name}.parts")
    _claim(folder, _fingerprint(job.source, settings))
    notes = list(used.notes)
    try:
        found = _load_look(folder, source, settings, watch)
        shares = _restore_parts(job, source, used, settings, find, found, folder, watch)
        notes += _finish(source, used, settings, found, folder, target)
        if settings.compare and not source.pictures:
            beside = target.with_name(f"{target.stem}_compare.mp4")
            masks = target.with_name(f"{target.stem}_damage.mkv")
            preview.write(
                beside,
                job.source,
                target,
                masks if settings.save_damage else None,
                replacing=files.replacing,
            )
    except OSError as error:
        raise errors.InputError(
            f"{folder}: {error.strerror}; make room, or choose another -o, and run the "
            "same command again: finished shots are kept"
        ) from None
    shutil.rmtree(folder)
    if found.repeated:
        named = ", ".join(map(str, found.repeated[:8]))
        more = " and more" if len(found.repeated) > 8 else ""
        notes.append(
            f"{len(found.repeated)} frames cannot be decoded and repeat the one "
            f"before: {named}{more}"
        )
    notes.append(
        f"{len(found.times)} frames, {len(found.shots)} shots, "
        f"{100 * float(np.mean(shares)):.2f} % of it filled"
    )
    share = round(float(np.mean(shares)), 6)
    return dataclasses.replace(result, notes=tuple(notes), damaged_share=(share,))


def _claim(folder: pathlib.Path, fingerprint: str) -> None:
    """Makes the working folder; what another film or other settings left, goes."""
    mark = folder / "fingerprint"
    if folder.is_dir() and not (
        mark.is_file() and mark.read_text().strip() == fingerprint
    ):
        shutil.rmtree(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files.write_text(mark, fingerprint + "\n")
    except OSError as error:
        raise errors.InputError(
            f"{folder.parent}: {error.strerror}; choose another -o"
        ) from None


def _restore_parts(
    job: film_jobs.Job,
    source: container.Source,
    used: container.Encoding,
    settings: film_jobs.Settings,
    find: over_time.Finder,
    found: Look,
    folder: pathlib.Path,
    watch: Watch | None,
) -> list[float]:
    """Restores the parts that are not there yet; returns each frame's damaged share."""
    if not settings.blind:
        find = film_finding.nothing
    parts = _parts(found)
    correct: list[Any] = []
    if found.steps:
        for start, end in found.shots:
            steps = [steady.Step(*step) for step in found.steps[start:end]]
            correct += steady.corrections(steps)
    notes = {p.number: folder / f"part{p.number:05d}.json" for p in parts}
    missing = [p for p in parts if not notes[p.number].is_file()]
    kept = sum(part.end - part.start for part in parts if part not in missing)
    bar = _counting(watch, "restoring", job.source.name, len(found.times), kept)
    ahead = _Ahead(_with_masks(source, settings, _find_mask(job, settings)))
    with bar as advance:
        for part in missing:
            results = _restored(
                ahead.between(part.low, part.high), source, settings, find, correct
            )
            noted = _write_part(part, results, source, used, settings, folder, advance)
            files.write_text(notes[part.number], json.dumps(noted))
    return [
        share
        for part in parts
        for share in json.loads(notes[part.number].read_text())["damaged"]
    ]


def _write_part(
    part: _Part,
    results: Iterator[_Result],
    source: container.Source,
    used: container.Encoding,
    settings: film_jobs.Settings,
    folder: pathlib.Path,
    advance: Callable[[], Any],
) -> dict[str, Any]:
    """Encodes a part, and the film of its masks; returns what is noted of it."""
    damaged: list[float] = []
    masks: list[container.Picture] = []

    def wanted() -> Iterator[container.Picture]:
        for result in results:
            if not part.start <= result.picture.number < part.end:
                continue
            damaged.append(round(float(result.mask.mean()), 6))
            if settings.save_damage:
                # A bit a pixel: a part's masks are held until it is encoded.
                packed = np.packbits(result.mask, axis=1)
                masks.append(dataclasses.replace(result.picture, planes=(packed,)))
            yield result.picture
            advance()

    if used.suffix in container.PICTURES:
        container.write_pictures(folder / "pictures", wanted(), source, used)
        start = 0
    else:
        path = folder / f"part{part.number:05d}{used.suffix}"
        start = container.write_part(path, wanted(), source, used).start
    if settings.save_damage:
        shown = (
            dataclasses.replace(
                mask,
                planes=(
                    255 * np.unpackbits(mask.planes[0], axis=1)[:, : source.width],
                ),
            )
            for mask in masks
        )
        container.write_part(
            folder / f"damage{part.number:05d}.mkv",
            shown,
            source,
            container.mask_encoding(),
            planar="gray",
        )
    return {"start": start, "damaged": damaged}


def _finish(
    source: container.Source,
    used: container.Encoding,
    settings: film_jobs.Settings,
    found: Look,
    folder: pathlib.Path,
    target: pathlib.Path,
) -> list[str]:
    """Joins the parts; results appear when they are whole. Returns notes."""
    parts = _parts(found)

    def joined(name: str, suffix: str, to: pathlib.Path, *, extras: bool) -> list[str]:
        made = []
        for part in parts:
            noted = json.loads((folder / f"part{part.number:05d}.json").read_text())
            start = noted["start"] if suffix != ".mkv" else 0
            path = folder / f"{name}{part.number:05d}{suffix}"
            made.append(container.Part(path, start))
        last = max(0, source.end - found.times[-1])
        return container.join(
            source, made, last, to, extras=extras, replacing=files.replacing
        )

    if settings.save_damage:
        beside = target.with_name(f"{_stem(target, used)}_damage.mkv")
        joined("damage", ".mkv", beside, extras=False)
    if used.suffix not in container.PICTURES:
        return joined("part", used.suffix, target, extras=True)
    if target.exists():
        shutil.rmtree(target)
    (folder / "pictures").rename(target)
    return []


def _stem(target: pathlib.Path, used: container.Encoding) -> str:
    return target.name.removesuffix(used.suffix)


def restore(
    films: Sequence[film_jobs.Job],
    settings: film_jobs.Settings,
    watch: Watch | None = None,
) -> list["restore_file.Restored"]:
    """Restores films one after the other; one that fails does not stop the others.

    Args:
      films: from `divide`.
      settings: how.
      watch: is called for every frame, in place of bars in the terminal.

    Returns:
      What became of each, in order.

    Raises:
      InputError: when nothing can be started: a library or weights are missing.
    """
    video.require_pyav()
    motion.require_opencv()
    if settings.compare:  # the page shows the masks
        settings = dataclasses.replace(settings, save_damage=True)
    find = film_finding.load_finder(settings)
    return [restore_film(job, settings, find, watch) for job in films]


def add_to_report(
    path: str, options: Any, results: Sequence["restore_file.Restored"], *, began: bool
) -> None:
    """Adds films to the report of a batch, or begins one.

    Args:
      path: the JSON file.
      options: of the command.
      results: what became of the films.
      began: whether the file is that of the same command's pictures.
    """
    report = pathlib.Path(path)
    content: dict[str, Any] = {"command": "python -m restoration.restore"}
    if began and report.is_file():
        content = json.loads(report.read_text())
    content.setdefault("settings", dataclasses.asdict(options))
    content.setdefault("files", [])
    content["files"] += [
        {**dataclasses.asdict(r), "input": str(r.input), "output": str(r.output)}
        for r in results
    ]
    for name, count in (
        ("failed", sum(bool(r.error) for r in results)),
        ("skipped", sum(r.skipped for r in results)),
    ):
        content[name] = content.get(name, 0) + count
    content["restored"] = len(content["files"]) - content["failed"] - content["skipped"]
    files.write_text(report, json.dumps(content, indent=1) + "\n")
