"""Restoring one picture file: the same function for a folder and for an archive.

A thread reads ahead, the device computes, and finished rows go to a scratch file
beside the result, from which it is then encoded; no picture is in memory whole.
"""

import contextlib
import dataclasses
import functools
import os
import pathlib
import shutil
import time
from typing import Any

import numpy as np

from restoration.base import errors, files
from restoration.devices import backend
from restoration.images import encode, picture
from restoration.inference import blending, engine, mask_files, masks, restore_page
from restoration.inference.jobs import Job


@dataclasses.dataclass(frozen=True)
class Settings:
    """How pictures are restored; see the options of `restoration.restore`.

    Attributes:
      strength: 1 restores, 0 gives back the input.
      blind: whether damage is looked for.
      damage: mask of damage, a file or folder, or "".
      keep: mask of what may be changed, a file or folder, or "".
      sensitivity: how readily something counts as damage, 0 to 1.
      only_damage: whether only what is damaged is changed.
      negative: whether it is a negative: "yes", "no", or "auto" to find out.
      infrared: whether infrared scans become masks.
      difference: whether the difference is written too.
      save_damage: whether the mask that was used is written too.
      ext: format of the results, "auto" for each picture's own.
      strip_metadata: whether metadata is left out.
      keep_dates: whether results get the dates of their pictures' files.
      max_pixels: the most pixels that a page may have.
      overwrite: whether results that exist are replaced.
      skip_existing: whether pictures with a result are passed over.
    """

    strength: float = 1.0
    blind: bool = True
    damage: str = ""
    keep: str = ""
    sensitivity: float = 0.5
    only_damage: bool = False
    negative: str = "auto"
    infrared: bool = False
    difference: bool = False
    save_damage: bool = False
    ext: str = "auto"
    strip_metadata: bool = False
    keep_dates: bool = False
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
      damaged_share: of each page, 0 to 1, None where no damage was looked for.
    """

    input: pathlib.Path
    output: pathlib.Path
    error: str = ""
    skipped: bool = False
    notes: tuple[str, ...] = ()
    sizes: tuple[tuple[int, int], ...] = ()
    seconds: float = 0.0
    tiles: tuple[tuple[int, int], ...] = ()
    damaged_share: tuple[float | None, ...] = ()


def _given(
    job: Job, source: picture.Picture, page: picture.Page, settings: Settings
) -> masks.Given:
    """Returns the masks that the user gives for a page.

    Raises:
      InputError: when one is missing.
    """
    size, number = (page.height, page.width), source.pages.index(page)
    found: dict[str, Any] = {}
    if settings.damage:
        file = mask_files.find_file(settings.damage, job, number, option="damage")
        found["damage"] = functools.partial(mask_files.read_rows, *file, size)
        found["name"] = str(file[0])
    if settings.keep:
        file = mask_files.find_file(settings.keep, job, number, option="keep")
        found["keep"] = functools.partial(mask_files.read_rows, *file, size)
    if settings.infrared and (scan := mask_files.find_infrared(source.path)):
        found["infrared"] = functools.partial(mask_files.read_infrared, scan, size)
    elif settings.infrared and (own := picture.infrared_of(source, number)):
        found["infrared"] = own
    return masks.Given(**found)


def _beside(job: Job, name: str, number: int, settings: Settings) -> pathlib.Path:
    """Returns the path of a picture beside the result, of the page of a number."""
    ending = f"_{number + 1}" if number else ""
    path = job.target.with_name(f"{job.beside}_{name}{ending}.png")
    if path.exists() and not settings.overwrite:
        raise errors.InputError(f"{path}: exists; --overwrite replaces it")
    return path


def _kind(source: picture.Picture, ext: str) -> str:
    return source.format if ext == "auto" else encode.EXTENSIONS[ext]


def _check_disk(folder: pathlib.Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise errors.InputError(
            f"{folder}: {free / 1e6:,.0f} MB are free, but {needed / 1e6:,.0f} MB are "
            "needed while the picture is written; free some or choose another -o"
        )


@dataclasses.dataclass(frozen=True)
class _Done:
    """What came of restoring a file: notes, and each page's damaged share."""

    source: picture.Picture
    notes: list[str]
    shares: list[float | None]


def _written(
    job: Job, source: picture.Picture, restorer: engine.Engine, settings: Settings
) -> _Done:
    """Restores all pages and writes the results."""
    kind = _kind(source, settings.ext)
    encode.check_channels(source.path, kind, source.pages)
    how = restore_page.How(
        **{
            field.name: getattr(settings, field.name)
            for field in dataclasses.fields(restore_page.How)
        }
    )
    folder, done, pages, extras = job.target.parent, _Done(source, [], []), [], []
    with contextlib.ExitStack() as stack:
        for number, page in enumerate(source.pages):
            dtype = encode.depth(kind, page.dtype)
            if dtype != page.dtype:
                done.notes.append(f"{page.dtype} became {dtype}")
            # The mask, and what it is made of, take two bytes a pixel.
            each = page.bands * np.dtype(dtype).itemsize + 2
            _check_disk(folder, page.width * page.height * each)
            own = kind == source.format
            result = encode.open_written(folder, page, dtype, own=own)
            stack.enter_context(result.rows)
            pages.append(result)
            if page.role == "infrared":
                for values in picture.rows(source, page):
                    encode.write_rows(result, values)
                done.shares.append(None)
                continue
            difference = None
            if settings.difference:
                path = _beside(job, "difference", number, settings)
                difference = encode.open_written(folder, masks.plain(page, 3), "uint8")
                stack.enter_context(difference.rows)
                extras.append((path, difference))
            if settings.save_damage:
                damage_path = _beside(job, "damage", number, settings)

            def write(
                strip: restore_page.Strip,
                result: encode.Written = result,
                difference: encode.Written | None = difference,
            ) -> None:
                encode.write_rows(result, strip.values)
                if difference:
                    shown = blending.difference(strip.before, strip.after)
                    difference.rows.write(shown)

            given = _given(job, source, page, settings)
            if settings.infrared and not given.infrared:
                done.notes.append("no infrared was found")
            mask, notes = restore_page.restore_page(
                page, functools.partial(picture.rows, source, page), restorer, how,
                given,
                folder=folder, stack=stack, write=write,
            )  # fmt: skip
            done.notes.extend(notes)
            done.shares.append(mask and round(mask.share, 6))
            if settings.save_damage and mask:
                extras.append((damage_path, mask.written))
        for path, written in extras:
            encode.save_plain(path, written)
        strip = settings.strip_metadata
        done.notes.extend(
            encode.save(job.target, source, pages, kind=kind, strip=strip)
        )
    return done


def _copied(job: Job, source: picture.Picture, settings: Settings) -> bool:
    """Copies the file where encoding it again could only lose: nothing is changed."""
    same = _kind(source, settings.ext) == source.format
    untouched = settings.strength == 0 and same and not settings.strip_metadata
    if not untouched or settings.difference or settings.save_damage:
        return False
    with encode.naming_errors(job.target), files.replacing(job.target) as temporary:
        for page in source.pages:  # a damaged file is reported all the same
            for _ in picture.rows(source, page):
                pass
        shutil.copyfile(source.path, temporary)
    return True


def _attempt(job: Job, restorer: engine.Engine, settings: Settings) -> _Done:
    source = picture.inspect(job.source, max_pixels=settings.max_pixels)
    with encode.naming_errors(job.target):
        job.target.parent.mkdir(parents=True, exist_ok=True)
    if _copied(job, source, settings):
        return _Done(source, [], [])
    while True:
        try:
            with encode.naming_errors(job.target):
                return _written(job, source, restorer, settings)
        except Exception as error:
            if not backend.is_out_of_memory(error):
                raise
            if not restorer.shrink():
                raise errors.InputError(
                    f"{job.source}: the device has too little memory for one tile; "
                    "choose --device cpu"
                ) from None


def restore_file(job: Job, restorer: engine.Engine, settings: Settings) -> Restored:
    """Restores one picture; what goes wrong with it is in the result.

    Args:
      job: what to restore, and where to.
      restorer: from `engine.make_engine`.
      settings: how.

    Returns:
      What became of it.
    """
    start = time.monotonic()
    done = Restored(job.source, job.target)
    try:
        with encode.naming_errors(job.target):  # a name may be too long
            exists = job.target.exists()
        if exists and settings.skip_existing:
            return dataclasses.replace(done, skipped=True)
        if exists and not settings.overwrite:
            raise errors.InputError(f"{job.target}: exists; --overwrite replaces it")
        restored = _attempt(job, restorer, settings)
        if settings.keep_dates:
            dates = job.source.stat()
            os.utime(job.target, ns=(dates.st_atime_ns, dates.st_mtime_ns))
    except errors.InputError as error:
        done = dataclasses.replace(done, error=str(error))
    except Exception as error:  # the other pictures are restored all the same
        reason = " ".join(str(error).split())[:200]
        line = f"{job.source}: {type(error).__name__}: {reason}; please report this"
        done = dataclasses.replace(done, error=line)
    else:
        source = restored.source
        done = dataclasses.replace(
            done,
            notes=tuple(dict.fromkeys([*source.notes, *restored.notes])),
            damaged_share=tuple(restored.shares),
            sizes=tuple((page.width, page.height) for page in source.pages),
            tiles=tuple(
                restorer.grid((page.height, page.width)).tile for page in source.pages
            ),
        )
    return dataclasses.replace(done, seconds=round(time.monotonic() - start, 3))
