"""The files on the page: what became of each, and what is to be done next.

A picture here is whatever lies on the page, a photograph or a film, of which the first
frame is shown.
"""

import collections
import dataclasses
import pathlib
import re
import secrets
import shutil
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from restoration.base import config, errors
from restoration.film import container, motion, video
from restoration.images import picture, preview
from restoration.inference import film_jobs, jobs
from restoration.web import brush, films, store

SUFFIX = "restored"

# States of a picture, in the order in which it comes to them.
RECEIVING, READING, WAITING, WORKING = "receiving", "reading", "waiting", "working"
DONE, FAILED, CANCELLED = "done", "failed", "cancelled"

# Endings that a file keeps: they distinguish formats that look alike.
_SUFFIXES = (*picture.SUFFIXES, *picture.REFUSED, *container.SUFFIXES)

# Levels of a folder that a name may have, and letters of each.
_DEEPEST, _LONGEST = 16, 200


@dataclasses.dataclass(frozen=True)
class Choices:
    """How a photograph is restored: options of the command that the page offers."""

    model: str = config.option("", help="a shipped model")
    strength: float = config.option(1.0, help="share", minimum=0.0, maximum=1.0)
    keep_color: bool = config.option(False, help="leave color and tone")
    sensitivity: float = config.option(
        0.5, help="how readily it is damage", minimum=0.0, maximum=1.0
    )
    only_damage: bool = config.option(False, help="change only what is damaged")
    negative: str = config.option(
        "auto", help="whether it is a negative", choices=("auto", "yes", "no")
    )
    ext: str = config.option(
        "auto", help="format", choices=("auto", "png", "jpg", "tif", "webp")
    )

    def __post_init__(self):
        """Checks choices."""
        config.check(self)


@dataclasses.dataclass(frozen=True)
class FilmChoices:
    """How a film is restored: options of the command that the page offers."""

    sensitivity: float = config.option(
        0.5, help="how readily it is damage", minimum=0.0, maximum=1.0
    )
    stabilize: bool = config.option(False, help="take out weave")
    deflicker: bool = config.option(False, help="take out flicker")
    denoise: bool = config.option(False, help="less grain")
    deinterlace: str = config.option(
        "ask", help="of interlaced films", choices=("ask", "yes", "no")
    )
    codec: str = config.option(
        "auto", help="of the result", choices=("auto", *container.CODECS)
    )

    def __post_init__(self):
        """Checks choices."""
        config.check(self)


@dataclasses.dataclass(frozen=True)
class Mask:
    """A mask of damage: its file, and the sizes of the levels to look at."""

    path: pathlib.Path
    shown: pathlib.Path
    levels: tuple[tuple[int, int], ...]


@dataclasses.dataclass(frozen=True)
class Result:
    """What was made of a picture: the file, what it shows, what was asked for.

    Attributes:
      path: the file.
      folder: where all that belongs to it lies.
      version: the run that made it.
      levels: sizes of the levels to look at.
      choices: how it was restored.
      mask: number of the mask of its damage among the picture's masks, or -1.
      share: of the first page, or of the film, that is damaged, or None.
      corrected: whether it was made by a mask that the user gave.
      notes: the notes of the command.
    """

    path: pathlib.Path
    folder: pathlib.Path
    version: int
    levels: tuple[tuple[int, int], ...]
    choices: Choices | FilmChoices
    mask: int
    share: float | None
    corrected: bool
    notes: tuple[str, ...]


@dataclasses.dataclass
class Picture:
    """One photograph or film on the page.

    Attributes:
      key: names it in addresses and folders.
      relative: its path below the folder that was dropped, or its name; never used as
        a path.
      parent: that folder's name, or "".
      folder: where its files lie.
      source: the uploaded file.
      state: see above.
      upload: what the page calls the request that sent it.
      line: why it failed, in one line, or "".
      stage: what is being done.
      share: of the work that is done.
      frames: of a film: those that are done in this stage, and all or 0.
      began: when the work began, of `time.monotonic`.
      staged: when the stage began.
      levels: sizes of the levels to look at, the largest first.
      pages: how many the file has.
      film: what is known of a film, or None.
      choices: how it is to be restored.
      wanted: the mask to restore by instead of looking for damage, or None.
      runs: how often it was begun.
      masks: of damage: found, or uploaded.
      result: the last that was made.
    """

    key: str
    relative: pathlib.PurePosixPath
    parent: str
    folder: pathlib.Path
    source: pathlib.Path
    choices: Choices | FilmChoices
    state: str = RECEIVING
    upload: str = ""
    line: str = ""
    stage: str = ""
    share: float = 0.0
    frames: tuple[int, int] = (0, 0)
    began: float = 0.0
    staged: float = 0.0
    levels: tuple[tuple[int, int], ...] = ()
    pages: int = 1
    film: films.About | None = None
    wanted: pathlib.Path | None = None
    runs: int = 0
    masks: list[Mask] = dataclasses.field(default_factory=list)
    result: Result | None = None

    @property
    def is_film(self) -> bool:
        """Whether it is a film, by its name, as the command takes it."""
        return container.is_film(self.relative.name)

    @property
    def megapixels(self) -> float:
        """Size of all frames, for what it will take."""
        if not self.levels:
            return 1.0
        frames = max(1, self.film.frames) if self.film else 1
        return max(0.2, self.levels[0][0] * self.levels[0][1] / 1e6) * frames


def clean_name(given: str) -> tuple[pathlib.PurePosixPath, str]:
    """Returns (path below the dropped folder, that folder's name) of a name.

    Whatever a browser or somebody else sends, nothing in it leads out of a folder.
    """
    parts = []
    for part in re.split(r"[/\\]", given)[-_DEEPEST:]:
        part = re.sub(r'[:*?"<>|]', "_", part)
        part = "".join(c if c.isprintable() else "_" for c in part)
        part = part.rstrip(". ").strip()
        if part:
            stem, dot, suffix = part.rpartition(".")
            keep = _LONGEST - len(dot + suffix)
            parts.append(part if len(part) <= _LONGEST else stem[:keep] + dot + suffix)
    parts = parts or ["picture"]
    parent = parts.pop(0) if len(parts) > 1 else ""
    return pathlib.PurePosixPath(*parts), parent


class Pictures:
    """All files of the page, and the order in which they are restored."""

    def __init__(self, folder: pathlib.Path, limits: store.Limits):
        """Begins with none.

        Args:
          folder: where their files lie.
          limits: what is taken at most.
        """
        self.folder, self.limits = folder, limits
        self.all: dict[str, Picture] = {}
        self._waiting: collections.deque[str] = collections.deque()
        # Seconds a megapixel, of each kind of work that was done so far.
        self._pace: dict[tuple, float] = {}

    def get(self, key: str) -> Picture:
        """Returns a picture by its key.

        Raises:
          KeyError: where there is none.
        """
        return self.all[key]

    def add(self, name: str) -> Picture:
        """Makes room for a picture that is about to be uploaded.

        Raises:
          InputError: when there are too many, and for a film without what reads films.
        """
        if len(self.all) >= self.limits.files:
            raise errors.InputError(
                f"{self.limits.files} files are there already, the most that the "
                "page takes (--max_files); remove some first"
            )
        relative, parent = clean_name(name)
        choices: Choices | FilmChoices = Choices()
        if container.is_film(relative.name):
            video.require_pyav()
            motion.require_opencv()
            choices = FilmChoices()
        key = secrets.token_urlsafe(12)
        suffix = relative.suffix.lower()
        # Of the name this is all that we use.
        suffix = suffix if suffix in _SUFFIXES else ""
        folder = self.folder / key
        folder.mkdir(mode=0o700)
        source = folder / f"source{suffix}"
        found = Picture(key, relative, parent, folder, source, choices)
        self.all[key] = found
        return found

    def read(self, found: Picture) -> None:
        """Looks at an uploaded file: its size and its levels. Takes a while.

        Raises:
          InputError: when it is no picture or film, or too large.
        """
        path = found.folder / "before.levels.tif"
        if found.is_film:
            about = films.inspect(found.source, max_pixels=self.limits.pixels)
            levels = films.write_levels(path, found.source)
            found.film = about
        else:
            source = picture.inspect(found.source, max_pixels=self.limits.pixels)
            found.pages = len(source.pages)
            levels = preview.write_levels(path, source)
        found.levels = tuple(levels)

    def open(self, found: Picture) -> None:
        """Puts a picture that was read into the queue for the first time."""
        if found.key not in self.all:
            return
        found.state = CANCELLED
        try:
            self.want(found, found.choices)
        except errors.InputError as error:
            self.fail(found, f"{found.relative}: {error}")

    def fail(self, found: Picture, line: str) -> None:
        """Tells why a picture could not be restored."""
        if found.key in self._waiting:
            self._waiting.remove(found.key)
        found.state, found.line = FAILED, self._public(found, line)

    def _public(self, found: Picture, line: str) -> str:
        """Returns a line with the user's name of the picture in place of ours."""
        name = str(found.relative)
        line = re.sub(rf"{re.escape(str(found.folder))}/[^\s:]*", name, line)
        return line.replace(f"{self.folder}", "the page's folder")

    def want(
        self,
        found: Picture,
        choices: Choices | FilmChoices,
        mask: pathlib.Path | None = None,
    ) -> None:
        """Puts a picture into the queue.

        Args:
          found: the picture.
          choices: how it is to be restored.
          mask: of its damage, or None to look for damage.

        Raises:
          InputError: while it is read or restored, and for an interlaced film without
            a choice.
        """
        if found.state in (RECEIVING, READING, WORKING) or not found.levels:
            raise errors.InputError(
                "this picture cannot be restored now; wait a little"
            )
        if found.film and found.film.interlaced and choices.deinterlace == "ask":
            raise errors.InputError(
                "its frames are interlaced; choose under Interlaced frames what to do "
                "with them, and restore"
            )
        if found.key not in self._waiting:
            self._waiting.append(found.key)
        found.choices, found.wanted = choices, mask
        found.state, found.line, found.stage, found.share = WAITING, "", "", 0.0
        found.frames = (0, 0)

    def cancel(self, found: Picture) -> bool:
        """Takes a picture out of the queue; returns whether it waited there."""
        if found.key in self._waiting:
            self._waiting.remove(found.key)
            found.state = DONE if found.result else CANCELLED
            return True
        return False

    def remove(self, found: Picture) -> None:
        """Removes a picture and deletes its files."""
        self.cancel(found)
        self.all.pop(found.key, None)
        store.remove(found.folder)

    def take(self) -> dict[str, Any] | None:
        """Takes the next picture from the queue, as the fields of a worker's task."""
        if not self._waiting:
            return None
        found = self.all[self._waiting.popleft()]
        found.state, found.began, found.runs = WORKING, time.monotonic(), found.runs + 1
        target = _target(found)
        target.parent.mkdir(mode=0o700)
        options = dataclasses.asdict(found.choices)
        if found.is_film:
            known = {"ask": None, "yes": True, "no": False}
            options["deinterlace"] = known[found.choices.deinterlace]
        else:
            options["max_pixels"] = self.limits.pixels
            # Without any change the command copies the file, unless it writes more.
            options["save_damage"] = found.choices.strength > 0
        if found.wanted:
            options |= {"damage": str(found.wanted), "blind": False}
        return {
            "key": found.key,
            "source": str(found.source),
            "target": str(target),
            "name": str(found.relative),
            "options": options,
            "total": self.limits.total,
        }

    def heard(self, message: dict[str, Any]) -> None:
        """Takes a worker's message about a picture."""
        found = self.all.get(message["key"])
        if found is None:  # removed meanwhile
            if message["event"] != "progress":
                store.remove(self.folder / message["key"])
            return
        run = _target(found).parent
        if message["event"] == "progress":
            if message["stage"] != found.stage:
                found.staged = time.monotonic()
            found.stage, found.share = message["stage"], message["share"]
            found.frames = tuple(message["frames"] or (0, 0))
            return
        if message["event"] == "cancelled":
            found.state = DONE if found.result else CANCELLED
            store.remove(run)
            return
        if "error" in message:
            self.fail(found, message["error"])
            store.remove(run)
            return
        self._keep(found, message)

    def _keep(self, found: Picture, message: dict[str, Any]) -> None:
        """Puts a result in the place of the one before."""
        target, number = _target(found).with_name(message["file"]), -1
        if "damage" in message:
            mask = found.folder / f"mask{len(found.masks)}.png"
            shown = mask.with_suffix(".levels.tif")
            # With those of further pages, `_2` and so on.
            for path in target.parent.glob(f"{target.stem}_damage*.png"):
                ending = path.name.removeprefix(f"{target.stem}_damage")
                shutil.move(path, mask.with_name(f"{mask.stem}{ending}"))
            shutil.move(target.with_name("damage.levels.tif"), shown)
            number = len(found.masks)
            found.masks.append(Mask(mask, shown, _sizes(message["damage"])))
        if found.result:
            store.remove(found.result.folder)
        found.result = Result(
            target, target.parent, found.runs, _sizes(message["levels"]),
            found.choices, number, message.get("share"), found.wanted is not None,
            tuple(self._public(found, note) for note in message["notes"]),
        )  # fmt: skip
        found.state, found.line = DONE, ""
        seconds = time.monotonic() - found.began
        self._pace[self._kind(found)] = seconds / found.megapixels

    @staticmethod
    def _kind(found: Picture) -> tuple:
        if isinstance(found.choices, FilmChoices):
            return (found.choices,)
        return found.choices.model, found.wanted is not None

    def add_mask(self, found: Picture, path: pathlib.Path) -> int:
        """Takes over an uploaded mask; returns its number.

        Args:
          found: the picture.
          path: the uploaded file, which is taken away.

        Raises:
          InputError: when it is no image, or of another size.
        """
        try:
            _check_photograph(found)
            source = picture.inspect(found.source)
            mask = brush.read(path, source)
        except errors.InputError as error:
            raise errors.InputError(
                self._public(found, str(error)).replace(str(found.relative), "the mask")
            ) from None
        finally:
            path.unlink(missing_ok=True)
        place = found.folder / f"mask{len(found.masks)}.png"
        brush.write(place, mask)
        shown = place.with_suffix(".levels.tif")
        held = preview.orientation(source)
        levels = preview.write_levels(shown, picture.inspect(place), held=held)
        found.masks.append(Mask(place, shown, tuple(levels)))
        return len(found.masks) - 1

    def painted(
        self, found: Picture, number: int, strokes: Sequence[brush.Stroke]
    ) -> pathlib.Path:
        """Writes a mask with strokes on it as a file of its own.

        Args:
          found: the picture.
          number: of the mask among the picture's, -1 for none.
          strokes: what is drawn on it.

        Returns:
          A PNG file that `restore --damage` takes.
        """
        _check_photograph(found)
        if not -1 <= number < len(found.masks):
            raise errors.InputError(
                "there is no such mask any more; load the page again"
            )
        base = found.masks[number].path if number >= 0 else None
        source = picture.inspect(found.source)
        path = found.folder / f"painted{secrets.token_hex(4)}.png"
        brush.write(path, brush.merge(base, strokes, source))
        # Of further pages what was found counts, and nothing else.
        last = found.result.mask if found.result else -1
        for place, page in enumerate(source.pages[1:], 2):
            further = path.with_name(f"{path.stem}_{place}.png")
            known = found.folder / f"mask{last}_{place}.png"
            if known.is_file():
                shutil.copyfile(known, further)
            else:
                brush.write(further, np.zeros((page.height, page.width), np.uint8))
        return path

    def names(self) -> dict[str, pathlib.PurePosixPath]:
        """Returns the name of each picture's result, as the command would give them.

        What the command would refuse, the same name twice, is put into folders that
        are numbered.
        """
        made = [found for found in self.all.values() if found.result]
        photographs = [found for found in made if not found.is_film]
        reels = [found for found in made if found.is_film]
        return self._photograph_names(photographs) | self._film_names(reels)

    @staticmethod
    def _film_names(made: Sequence[Picture]) -> dict[str, pathlib.PurePosixPath]:
        stems = film_jobs.stems(
            [(found.relative.with_suffix(""), found.relative.suffix) for found in made],
            suffix=SUFFIX,
        )
        names: dict[str, pathlib.PurePosixPath] = {}
        seen: collections.Counter = collections.Counter()
        for found, stem in zip(made, stems, strict=True):
            name = stem.with_name(stem.name + found.result.path.suffix)
            seen[stem] += 1
            if seen[stem] > 1:
                name = (
                    pathlib.PurePosixPath(f"{found.parent} {seen[stem]}".strip()) / name
                )
            names[found.key] = name
        return names

    @staticmethod
    def _photograph_names(
        made: Sequence[Picture],
    ) -> dict[str, pathlib.PurePosixPath]:
        def named(parents: Sequence[str]) -> list[pathlib.PurePosixPath]:
            return jobs.result_names(
                [
                    jobs.Named(
                        found.relative,
                        parent,
                        found.relative.suffix
                        if found.result.choices.ext == "auto"
                        else f".{found.result.choices.ext}",
                    )
                    for found, parent in zip(made, parents, strict=True)
                ],
                suffix=SUFFIX,
            )

        parents = [found.parent for found in made]
        names = named(parents)
        if len(set(names)) < len(names):
            seen: collections.Counter = collections.Counter()
            for place, found in enumerate(made):
                seen[found.relative] += 1
                if seen[found.relative] > 1:
                    parents[place] = f"{parents[place]} {seen[found.relative]}".strip()
            names = named(parents)
        return {found.key: name for found, name in zip(made, names, strict=True)}

    def _seconds_left(self, found: Picture) -> float | None:
        """Estimates what a picture will take from now on, without what is before it."""
        pace = self._pace.get(self._kind(found))
        expected = pace * found.megapixels if pace else None
        if found.state != WORKING:
            return expected
        gone = time.monotonic() - found.began
        if found.film:
            done, frames = found.frames
            if found.stage != "restoring" or done < 3:
                return max(0.0, expected - gone) if expected else None
            # The first pass over a film is much faster than the second.
            return (time.monotonic() - found.staged) * (frames - done) / done
        if found.share > 0.05:
            return gone * (1 - found.share) / found.share
        return max(0.0, expected - gone) if expected else None

    def describe(self) -> list[dict[str, Any]]:
        """Returns what the page shows of each picture, as JSON can hold it."""
        names, waited = self.names(), 0.0
        left: dict[str, float | None] = {}
        working = [f for f in self.all.values() if f.state == WORKING]
        for found in [*working, *(self.all[key] for key in self._waiting)]:
            own = self._seconds_left(found)
            waited = None if own is None or waited is None else waited + own
            left[found.key] = waited
        described = []
        for found in self.all.values():
            result = found.result
            described.append(
                {
                    "key": found.key,
                    "name": str(found.relative),
                    "parent": found.parent,
                    "state": found.state,
                    "upload": found.upload,
                    "line": found.line,
                    "stage": found.stage,
                    "share": round(found.share, 3),
                    "frames": found.frames,
                    "film": found.film and dataclasses.asdict(found.film),
                    "is_film": found.is_film,
                    "left": left.get(found.key),
                    "levels": found.levels,
                    "pages": found.pages,
                    "choices": dataclasses.asdict(found.choices),
                    "masks": [mask.levels for mask in found.masks],
                    "result": result
                    and {
                        "version": result.version,
                        "name": str(names[found.key]),
                        "levels": result.levels,
                        "choices": dataclasses.asdict(result.choices),
                        "mask": result.mask,
                        "damaged": result.share,
                        "corrected": result.corrected,
                        "notes": result.notes,
                        "bytes": result.path.stat().st_size,
                    },
                }
            )
        return described


def _target(found: Picture) -> pathlib.Path:
    """Returns the file that the current run writes; of a film without its ending."""
    if found.is_film:
        return found.folder / f"run{found.runs}" / "result"
    ext = found.choices.ext
    suffix = found.source.suffix if ext == "auto" else f".{ext}"
    return found.folder / f"run{found.runs}" / f"result{suffix}"


def _check_photograph(found: Picture) -> None:
    if found.is_film:
        raise errors.InputError("the brush is for photographs; this is a film")


def _sizes(levels: Sequence[Sequence[int]]) -> tuple[tuple[int, int], ...]:
    return tuple((width, height) for width, height in levels)
