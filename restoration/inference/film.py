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

from restoration.base import config, errors, files
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
from restoration.inference import jobs, rows

with epy.lazy_imports():
    import cv2
    import jax

    from restoration.devices import backend
    from restoration.inference import restore_file
    from restoration.models import film_finder, pretrained

# Frames of a part at most; a part is what an interruption costs.
_PART = 120

# Frames before and after a part that its frames depend on, some of which may be
# doubled.
_CONTEXT = 2 * over_time.REACH

# A finder is applied to strips of so many pixels, and sees so many rows beyond.
_STRIP, _BEYOND = 1_500_000, 96

# Pixels from which a frame is large: 4K is.
_LARGE = 4_000_000

# Changed whenever frames come out otherwise: parts of another version are not used.
_VERSION = 4

# The logit above which something is damage, at a sensitivity of 0.5.
_LIMIT = -2.25

# What lies between damage on both sides, within so many pixels, is damaged too.
_CLOSED = 5

# Above the limit that marks damage, logits over which a pixel is filled ever more:
# where it is unsure, the frame itself is part of the fill.
_UNSURE = 3.0

# The least share of a reference before the network prefers one, and how far it may: e
# to the power of it.
_LEAST_TRUST, _MOST = 1e-6, 50.0

# The learned finder's weights, where they are installed.
WEIGHTS = pathlib.Path(__file__).parents[1] / "weights" / "film_finder.safetensors"

# Thresholds of the spike detector at sensitivity 0, 0.5 and 1.
_HIGH = (24.0, 12.0, 7.0)

# Takes "looking" or "restoring", the frames that are done and all of them, 0 where the
# header does not say. What it raises ends the work.
Watch = Callable[[str, int, int], None]


@dataclasses.dataclass(frozen=True)
class FilmOptions:
    """Options of `python -m restoration.restore` that concern films."""

    sequence: bool = config.option(
        False, help="a folder of numbered PNG, TIFF or DPX pictures is one film"
    )
    frame_rate: float = config.option(
        24.0, help="of a --sequence that is written as a film", minimum=0.1
    )
    codec: str = config.option(
        "auto",
        help="of restored films; auto: ffv1 for lossless films, else h264",
        choices=("auto", *container.CODECS),
    )
    deinterlace: bool | None = config.option(
        None, help="make whole frames of interlaced ones (bwdif); --nodeinterlace: not"
    )
    stabilize: bool = config.option(False, help="take out the weave of the gate")
    deflicker: bool = config.option(False, help="take out flicker")
    denoise: bool = config.option(
        False, help="average films over time, along the motion: less grain"
    )
    film_finder: str = config.option(
        "auto",
        help="what finds damage in films; auto: the network where its weights are",
        choices=("auto", "network", "spikes"),
    )

    def __post_init__(self):
        """Checks choices."""
        config.check(self)


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a film is restored: what it takes of both commands' options.

    Attributes:
      blind: whether damage is looked for; else only `damage` is filled.
      damage: mask film, or folder of them by the films' names, or "".
      save_damage: whether a film of the masks is written.
      compare: whether a film of both is written, for the page.
      sensitivity: 0 to 1, how readily something counts as damage.
      overwrite: whether results that exist are replaced.
      skip_existing: whether films with a result are passed over.
      sequence: see `FilmOptions`, as what follows.
    """

    blind: bool = True
    damage: str = ""
    save_damage: bool = False
    compare: bool = False
    sensitivity: float = 0.5
    overwrite: bool = False
    skip_existing: bool = False
    sequence: bool = False
    frame_rate: float = 24.0
    codec: str = "auto"
    deinterlace: bool | None = None
    stabilize: bool = False
    deflicker: bool = False
    denoise: bool = False
    film_finder: str = "auto"


# Settings that change the frames; parts made with others are not used.
_FRAMES = (
    "blind", "damage", "save_damage", "sensitivity", "codec", "deinterlace",
    "stabilize", "deflicker", "denoise", "film_finder", "frame_rate",
)  # fmt: skip


def settings_of(*options: Any) -> Settings:
    """Returns the settings that options dataclasses hold, by their names."""
    names = [field.name for field in dataclasses.fields(Settings)]
    return Settings(
        **{
            name: getattr(option, name)
            for option in options
            for name in names
            if hasattr(option, name)
        }
    )


@dataclasses.dataclass(frozen=True)
class Job:
    """One film to restore.

    Attributes:
      source: the file, or the folder of a sequence.
      stem: the result's path without its ending, which depends on the codec.
    """

    source: pathlib.Path
    stem: pathlib.Path


def stems(
    films: Sequence[tuple[pathlib.PurePath, str]], *, suffix: str
) -> list[pathlib.PurePath]:
    """Returns the paths of films' results, without the endings that codecs decide.

    Args:
      films: of each the path below the folder that was named, without its ending, and
        the ending; "" for the folder of a sequence.
      suffix: written after each name.

    Returns:
      The paths; where `reel.mov` and `reel.mkv` lie together they name the kind.
    """
    end = f"_{suffix}" if suffix else ""
    counts = collections.Counter(path for path, _ in set(films))
    return [
        path.with_name(
            f"{path.name}{ending.replace('.', '_') if counts[path] > 1 else ''}{end}"
        )
        for path, ending in films
    ]


def divide(
    inputs: Sequence[str],
    output: str,
    *,
    suffix: str,
    recursive: bool,
    sequence: bool,
) -> tuple[list[Job], tuple[str, ...]]:
    """Divides what a command names into films and the rest.

    Args:
      inputs: files and folders; films in folders count too.
      output: the folder for the results.
      suffix: written after each name.
      recursive: whether to look into sub-folders.
      sequence: whether folders are films.

    Returns:
      The films, and the inputs that pictures are to be looked for in.

    Raises:
      InputError: where two films would have the same result.
    """
    end = f"_{suffix}" if suffix else ""
    found, rest = {}, []
    results = pathlib.Path(output).resolve()
    for given in inputs:
        path = pathlib.Path(given)
        if path.is_dir() and sequence:
            found[path.resolve()] = (path, pathlib.Path(path.resolve().name), "")
        elif path.is_dir():
            inside = [
                film
                for film in sorted(path.rglob("*") if recursive else path.iterdir())
                if container.is_film(film.name)
                and film.is_file()
                and not any(p.startswith(".") for p in film.relative_to(path).parts)
                and not _is_result(film, path, results, end)
            ]
            for film in inside:
                name = film.relative_to(path).with_suffix("")
                found[film.resolve()] = (film, name, film.suffix)
            if not inside or next(jobs.walk(path, recursive=recursive), None):
                rest.append(given)
        elif container.is_film(path.name) and path.exists():
            found[path.resolve()] = (path, pathlib.Path(path.stem), path.suffix)
        else:
            rest.append(given)
    names = stems([film[1:] for film in found.values()], suffix=suffix)
    films = [
        Job(source, pathlib.Path(output) / name)
        for (source, *_), name in zip(found.values(), names, strict=True)
    ]
    taken: dict[pathlib.Path, pathlib.Path] = {}
    for job in films:
        if job.stem in taken:
            raise errors.InputError(
                f"{job.source} and {taken[job.stem]}: both would be restored to "
                f"{job.stem}; restore them to different folders"
            )
        taken[job.stem] = job.source
    return films, tuple(rest)


def _is_result(
    film: pathlib.Path, folder: pathlib.Path, results: pathlib.Path, end: str
) -> bool:
    """Whether a film that was come upon is what an earlier run wrote."""
    if folder.resolve().is_relative_to(results):
        names = (end, f"{end}_damage", f"{end}_compare")
        return bool(end) and film.stem.endswith(names)
    return film.resolve().is_relative_to(results)


# The finder.


def load_finder(settings: Settings) -> over_time.Finder:
    """Returns what finds damage.

    Raises:
      InputError: where the network is asked for and its weights are not there.
    """
    below, middle, above = _HIGH
    part = settings.sensitivity * 2
    high = below + (middle - below) * part
    if part > 1:
        high = middle + (above - middle) * (part - 1)
    spikes = settings.film_finder == "spikes"
    if spikes or (settings.film_finder == "auto" and not WEIGHTS.is_file()):
        return over_time.spike_finder(high, high * 5 / 12)
    _, parameters = pretrained.load(WEIGHTS)
    return network_finder(parameters, settings.sensitivity)


def network_finder(parameters: Any, sensitivity: float) -> over_time.Finder:
    """Returns the learned finder.

    Args:
      parameters: of `film_finder.FilmFinder`.
      sensitivity: 0 to 1; at 0.5 neither the rim of a blotch on a real film is left
        nor more than that is marked.
    """
    model = film_finder.FilmFinder()
    options = backend.compiler_options(jax.devices()[0])
    compute = jax.jit(model.apply, compiler_options=options)
    limit = 8 * (0.5 - sensitivity) + _LIMIT
    closing = np.ones((_CLOSED, _CLOSED), np.uint8)

    def outputs(inputs: np.ndarray) -> np.ndarray:
        height, width = inputs.shape[:2]
        edges = ((0, -height % model.stride), (0, -width % model.stride), (0, 0))
        if np.any(edges):
            inputs = np.pad(inputs, edges, mode="symmetric")
        return np.asarray(compute(parameters, inputs[None]))[0, :height, :width]

    def find_in_strip(
        still: stills.Still, references: Sequence[over_time.Reference]
    ) -> over_time.Found:
        found = outputs(over_time.finder_input(still, references))
        logit, *preferred = cv2.split(found)
        logit = cv2.morphologyEx(logit, cv2.MORPH_CLOSE, closing)
        mask = logit > limit
        trusted = over_time.trust(still.grey, references, mask)
        weights = [
            (one + _LEAST_TRUST) * np.exp(np.clip(more, -_MOST, _MOST))
            for one, more in zip(trusted, preferred, strict=True)
        ]
        share = np.clip((logit - limit) / _UNSURE, 0.0, 1.0)
        return over_time.Found(mask, cv2.merge(over_time.shares(weights)), share)

    def find(
        still: stills.Still, references: Sequence[over_time.Reference]
    ) -> over_time.Found:
        height, width = still.grey.shape
        step = max(model.stride, _STRIP // width // model.stride * model.stride)
        mask = np.empty((height, width), bool)
        weights = np.empty((height, width, len(references)), np.float32)
        share = np.empty((height, width), np.float32)
        for start in range(0, height, step):
            low, high = max(0, start - _BEYOND), min(height, start + step + _BEYOND)
            # A frame may be a reference twice, and stays one object.
            cut = {
                r.offset: dataclasses.replace(
                    r, field=r.field[low:high], grey=r.grey[low:high]
                )
                for r in references
            }
            seen = find_in_strip(
                dataclasses.replace(still, grey=still.grey[low:high]),
                [cut[r.offset] for r in references],
            )
            end = min(height, start + step)
            for whole, part in (
                (mask, seen.mask), (weights, seen.weights), (share, seen.share),
            ):  # fmt: skip
                whole[start:end] = part[start - low : end - low]
        return over_time.Found(mask, weights, share)

    return find


def nothing(
    still: stills.Still, references: Sequence[over_time.Reference]
) -> over_time.Found:
    """Finds nothing: only what the user marks is filled."""
    mask = np.zeros(still.grey.shape, bool)
    marked = mask if still.given is None else still.given
    trusted = over_time.trust(still.grey, references, marked)
    return over_time.Found(mask, cv2.merge(trusted))


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
    settings: Settings,
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
    settings: Settings,
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
    source: container.Source, settings: Settings, path: pathlib.Path | None
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


def _find_mask(job: Job, settings: Settings) -> pathlib.Path | None:
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


def _fingerprint(path: pathlib.Path, settings: Settings) -> str:
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
    settings: Settings,
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
    job: Job, settings: Settings, find: over_time.Finder, watch: Watch | None = None
) -> "restore_file.Restored":
    """Restores one film; what goes wrong with it is in the result.

    Args:
      job: what to restore, and where to.
      settings: how.
      find: from `load_finder`.
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
    job: Job, settings: Settings, find: over_time.Finder, watch: Watch | None
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
    job: Job,
    source: container.Source,
    used: container.Encoding,
    settings: Settings,
    find: over_time.Finder,
    found: Look,
    folder: pathlib.Path,
    watch: Watch | None,
) -> list[float]:
    """Restores the parts that are not there yet; returns each frame's damaged share."""
    if not settings.blind:
        find = nothing
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
    settings: Settings,
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
    settings: Settings,
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
    films: Sequence[Job], settings: Settings, watch: Watch | None = None
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
    find = load_finder(settings)
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
