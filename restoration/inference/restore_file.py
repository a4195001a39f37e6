"""Restoring one picture file: the same function for a folder and for an archive.

A thread reads ahead, the device computes, and finished rows go to a scratch file
beside the result, from which it is then encoded; no picture is in memory whole.
"""

import contextlib
import dataclasses
import itertools
import pathlib
import queue
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from restoration.base import errors, files
from restoration.devices import backend
from restoration.images import color, encode, picture
from restoration.inference import blending, engine, grade
from restoration.inference.jobs import Job

# Blocks of rows that are read ahead of the computation.
_AHEAD = 2


@dataclasses.dataclass(frozen=True)
class Settings:
    """How pictures are restored; see the options of `restoration.restore`.

    Attributes:
      strength: 1 restores, 0 gives back the input.
      mask: folder of masks, or "".
      difference: whether the difference is written too.
      damage_mask: whether the estimated damage is written too.
      ext: format of the results, "auto" for each picture's own.
      strip_metadata: whether metadata is left out.
      max_pixels: the most pixels that a page may have.
      overwrite: whether results that exist are replaced.
      skip_existing: whether pictures with a result are passed over.
    """

    strength: float = 1.0
    mask: str = ""
    difference: bool = False
    damage_mask: bool = False
    ext: str = "auto"
    strip_metadata: bool = False
    max_pixels: int = 1_000_000_000
    overwrite: bool = False
    skip_existing: bool = False


@dataclasses.dataclass(frozen=True)
class Restored:
    """What became of one picture: `error` is empty when `output` is there.

    Attributes:
      input: the picture.
      output: the file that was, or was to be, written.
      error: one line, or "".
      skipped: whether the output was there already and was left.
      notes: what could not be given back as it was.
      sizes: width and height of each page, pixels.
      seconds: what it took.
      tiles: height and width of each page's tiles, pixels.
    """

    input: pathlib.Path
    output: pathlib.Path
    error: str = ""
    skipped: bool = False
    notes: tuple[str, ...] = ()
    sizes: tuple[tuple[int, int], ...] = ()
    seconds: float = 0.0
    tiles: tuple[tuple[int, int], ...] = ()


def read_ahead(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yields what another iterator yields, which a thread asks in advance."""
    waiting: queue.Queue = queue.Queue(_AHEAD)
    stopped = threading.Event()

    def put(item: tuple[str, object]) -> None:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                waiting.put(item, timeout=0.1)
                return

    def work() -> None:
        try:
            for block in blocks:
                put(("block", block))
                if stopped.is_set():
                    return
            put(("end", None))
        except BaseException as error:  # told in the thread that asks
            put(("error", error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            kind, value = waiting.get()
            if kind == "error":
                raise value
            if kind == "end":
                return
            yield value
    finally:
        stopped.set()
        thread.join()


def regrouped(blocks: Iterable[np.ndarray]) -> Callable[[int], np.ndarray]:
    """Returns a function that takes the next so many rows of all blocks."""
    blocks, rest = iter(blocks), np.empty(0)

    def take(count: int) -> np.ndarray:
        nonlocal rest
        taken = []
        while count:
            if not len(rest):
                rest = next(blocks)
            taken.append(rest[:count])
            rest, count = rest[count:], count - len(taken[-1])
        return np.concatenate(taken)

    return take


def find_mask(folder: str, job: Job) -> pathlib.Path:
    """Returns a picture's mask: the file of its path and name in the mask folder.

    Raises:
      InputError: when there is none.
    """
    place = pathlib.Path(folder) / job.relative
    endings = [place.suffix, *picture.SUFFIXES]
    stems = [place.stem, f"{job.target.name}_damage"]
    for stem, ending in itertools.product(stems, endings):
        path = place.with_name(stem + ending)
        if path.is_file():
            return path
    raise errors.InputError(
        f"{job.source}: no mask {place.with_suffix('.png')}; add one (white: restore, "
        "black: keep)"
    )


def _mask_rows(path: pathlib.Path, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """Yields rows of a mask, float32 (rows, width, 1) in [0, 1]."""
    mask = picture.inspect(path)
    page = mask.pages[0]
    if (page.height, page.width) != size:
        raise errors.InputError(
            f"{path}: a mask of {page.width}×{page.height} pixels for a picture of "
            f"{size[1]}×{size[0]}; make them equal"
        )
    for rows in picture.rows(mask, page):
        colors = rows[..., : page.colors].mean(-1, keepdims=True, dtype=np.float32)
        yield np.clip(colors / np.float32(page.scale), 0, 1)


@dataclasses.dataclass(frozen=True)
class _Extra:
    """A picture of 8 bits that is written beside the result.

    Attributes:
      path: of its file.
      written: where its rows go.
      of: makes its rows of those before and after.
      graded: whether "before" is the graded picture: a grade changes all of it, and
        is no damage.
    """

    path: pathlib.Path
    written: encode.Written
    of: Callable[[np.ndarray, np.ndarray], np.ndarray]
    graded: bool


def _extras(job: Job, page: picture.Page, settings: Settings) -> list[_Extra]:
    kinds = []
    if settings.difference:
        kinds.append(("difference", 3, blending.difference, False))
    if settings.damage_mask:
        kinds.append(("damage", 1, blending.damage, True))
    number = f"_{page.number + 1}" if page.number else ""
    extras = []
    for name, bands, of, graded in kinds:
        path = job.target.with_name(f"{job.target.name}_{name}{number}.png")
        if path.exists() and not settings.overwrite:
            raise errors.InputError(f"{path}: exists; --overwrite replaces it")
        plain = picture.Page(
            0, page.width, page.height, bands, "uint8", bands,
            resolution=page.resolution,
        )  # fmt: skip
        written = encode.open_written(job.target.parent, plain, "uint8")
        extras.append(_Extra(path, written, of, graded))
    return extras


def _look(
    source: picture.Picture, page: picture.Page, to_model: color.ToModel
) -> grade.Cells:
    """Looks at a whole page, small: its colors, for its grade."""
    every = grade.stride((page.height, page.width))

    def seen() -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        top = 0
        for values in picture.rows(source, page):
            part = values[-top % every :: every, ::every]
            top += len(values)
            if len(part):
                yield to_model(part), blending.visible(page, part)

    return grade.look(seen(), (-(-page.height // every), -(-page.width // every)))


def _restore_page(
    job: Job,
    source: picture.Picture,
    page: picture.Page,
    restorer: engine.Engine,
    settings: Settings,
    result: encode.Written,
    extras: Iterable[_Extra],
) -> list[str]:
    """Writes a page's restored values to scratch files; returns notes."""
    to_model, change_of, notes = color.make_color(page)
    size, show = (page.height, page.width), to_model
    # Where a mask divides a picture, its parts would be of two grades.
    grading = restorer.grader is not None and not settings.mask
    cells, grey = None, False
    if settings.strength and (grading or page.colors > 1):
        cells = _look(source, page, to_model)
        grey = page.colors > 1 and grade.is_grey(cells)
    if grading and cells is not None:
        found = grade.estimate(restorer.grader, cells)
        if found is not None:
            show = grade.make_prepare(to_model, found)
            notes.append("graded; --keep_color leaves color and tone")
    ahead = read_ahead(picture.rows(source, page))
    shown, stored = itertools.tee(ahead)
    take_stored, take_mask = regrouped(stored), None
    if settings.mask:
        take_mask = regrouped(_mask_rows(find_mask(settings.mask, job), size))
    with contextlib.closing(ahead):
        for after in restorer.restore(shown, size, show):
            values = take_stored(len(after))
            weight = settings.strength
            if take_mask:
                weight = weight * take_mask(len(after))
            before = to_model(values)
            if grey:
                after = color.uncolored(before, after)
            change = change_of(before, after)
            changed = blending.apply_change(page, values, change, weight)
            result.rows.write(encode.as_depth(changed, result.dtype))
            seen = blending.visible(page, values)
            part = weight if seen is None else weight * (seen > 0)
            for extra in extras:
                base = show(values) if extra.graded else before
                extra.written.rows.write(extra.of(base, base + part * (after - base)))
    return notes


def _kind(source: picture.Picture, ext: str) -> str:
    return source.format if ext == "auto" else encode.EXTENSIONS[ext]


def _check_disk(folder: pathlib.Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise errors.InputError(
            f"{folder}: {free / 1e6:,.0f} MB are free, but {needed / 1e6:,.0f} MB are "
            "needed while the picture is written; free some or choose another -o"
        )


def _written(
    job: Job, source: picture.Picture, restorer: engine.Engine, settings: Settings
) -> list[str]:
    """Restores all pages and writes the results; returns notes."""
    kind = _kind(source, settings.ext)
    encode.check_channels(source.path, kind, source.pages)
    notes, pages, extras = [], [], []
    with contextlib.ExitStack() as stack:
        for page in source.pages:
            dtype = encode.depth(kind, page.dtype)
            if dtype != page.dtype:
                notes.append(f"{page.dtype} became {dtype}")
            _check_disk(
                job.target.parent,
                page.width * page.height * page.bands * np.dtype(dtype).itemsize,
            )
            pages.append(encode.open_written(job.target.parent, page, dtype))
            stack.enter_context(pages[-1].rows)
            beside = _extras(job, page, settings)
            for extra in beside:
                stack.enter_context(extra.written.rows)
            extras += beside
            notes += _restore_page(
                job, source, page, restorer, settings, pages[-1], beside
            )
        for extra in extras:
            encode.save_plain(extra.path, extra.written)
        strip = settings.strip_metadata
        notes += encode.save(job.target, source, pages, kind=kind, strip=strip)
    return notes


def _copied(job: Job, source: picture.Picture, settings: Settings) -> bool:
    """Copies the file where encoding it again could only lose: nothing is changed."""
    same = _kind(source, settings.ext) == source.format
    untouched = settings.strength == 0 and same and not settings.strip_metadata
    if not untouched or settings.difference or settings.damage_mask:
        return False
    with encode.told(job.target), files.replacing(job.target) as temporary:
        for page in source.pages:  # so that a damaged file is told all the same
            for _ in picture.rows(source, page):
                pass
        shutil.copyfile(source.path, temporary)
    return True


def _attempt(
    job: Job, restorer: engine.Engine, settings: Settings
) -> tuple[picture.Picture, list[str]]:
    source = picture.inspect(job.source, max_pixels=settings.max_pixels)
    with encode.told(job.target):
        job.target.parent.mkdir(parents=True, exist_ok=True)
    if _copied(job, source, settings):
        return source, []
    while True:
        try:
            with encode.told(job.target):
                return source, _written(job, source, restorer, settings)
        except Exception as error:
            if not backend.is_out_of_memory(error):
                raise
            if not restorer.shrink():
                raise errors.InputError(
                    f"{job.source}: the device has too little memory for one tile; "
                    "choose --device cpu"
                ) from None


def restore_file(job: Job, restorer: engine.Engine, settings: Settings) -> Restored:
    """Restores one picture; what goes wrong with it is told in the result.

    Args:
      job: what to restore, and where to.
      restorer: from `engine.make_engine`.
      settings: how.

    Returns:
      What became of it.
    """
    start = time.monotonic()
    done = Restored(job.source, job.target)
    if job.target.exists() and settings.skip_existing:
        return dataclasses.replace(done, skipped=True)
    try:
        if job.target.exists() and not settings.overwrite:
            raise errors.InputError(f"{job.target}: exists; --overwrite replaces it")
        source, notes = _attempt(job, restorer, settings)
    except errors.InputError as error:
        done = dataclasses.replace(done, error=str(error))
    except Exception as error:  # the other pictures are restored all the same
        reason = " ".join(str(error).split())[:200]
        line = f"{job.source}: {type(error).__name__}: {reason}; please report this"
        done = dataclasses.replace(done, error=line)
    else:
        done = dataclasses.replace(
            done,
            notes=tuple(dict.fromkeys([*source.notes, *notes])),
            sizes=tuple((page.width, page.height) for page in source.pages),
            tiles=tuple(
                restorer.grid((page.height, page.width)).tile for page in source.pages
            ),
        )
    return dataclasses.replace(done, seconds=round(time.monotonic() - start, 3))
