"""A batch of pictures: its options, its jobs in order, its report."""

import collections
import concurrent.futures
import dataclasses
import datetime
import json
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tqdm
from etils import epy

from restoration.base import config, errors, files
from restoration.inference import jobs

with epy.lazy_imports():
    from restoration.inference import engine, mask_files, restore_file


# While one picture is computed another is read or encoded.
_AT_ONCE = 2


# Seconds between two writes of the report while the batch runs.
_REPORT_EVERY = 30


@dataclasses.dataclass(frozen=True)
class RestoreOptions:
    """Options of `python -m restoration.restore`."""

    input: tuple[str, ...] = config.option(
        help="images and folders; further arguments too", short="i", positional=True
    )
    output: str = config.option(
        help="folder for the restored images; for one picture also a file", short="o"
    )
    model: str = config.option(
        "", help="a shipped model; by default the best one", short="n"
    )
    workdir: str = config.option("", help="a training run to use instead")
    tile: str = config.option("auto", help="side of the tiles, pixels", short="t")
    context: str = config.option(
        "auto",
        help="context around tiles, pixels; auto: as far as the model sees",
        formerly="overlap",
    )
    strength: float = config.option(
        1.0, help="1 restores, 0 gives back the input", minimum=0.0, maximum=1.0
    )
    keep_color: bool = config.option(
        False, help="restore structure, leave color and tone"
    )
    blind: bool = config.option(
        True,
        help="find damage and fill it, where weights of a finder are installed; a "
        "--workdir's network does not",
    )
    damage: str = config.option(
        "",
        help="mask of damage to fill, white: damaged; a file, or a folder of masks by "
        "the images' names; with --blind=false nothing else is filled",
    )
    keep: str = config.option(
        "",
        help="mask of what may be changed, white: restore, black: keep; a file, or a "
        "folder of masks by the images' names",
        alias="mask",
    )
    sensitivity: float = config.option(
        0.5, help="how readily something counts as damage", minimum=0.0, maximum=1.0
    )
    only_damage: bool = config.option(False, help="change nothing but what is damaged")
    negative: str = config.option(
        "auto",
        help="whether the pictures are negatives; auto finds out by the orange mask of "
        "color film; for black-and-white negatives give yes",
        choices=("auto", "yes", "no"),
    )
    infrared: bool = config.option(
        False, help="take damage from the infrared channel too, or from NAME_ir.tif"
    )
    difference: bool = config.option(False, help="also write what was changed, as PNG")
    save_damage: bool = config.option(
        False,
        help="also write the mask of damage, as PNG that --damage takes back",
        formerly="damage_mask",
    )
    device: str = config.option(
        "auto", help="where to compute", choices=("auto", "cpu", "gpu", "tpu")
    )
    suffix: str = config.option("restored", help="written after each name")
    ext: str = config.option(
        "auto", help="format to write; auto keeps each image's own",
        choices=("auto", "png", "jpg", "tif", "webp"),
    )  # fmt: skip
    recursive: bool = config.option(False, help="look into sub-folders too")
    overwrite: bool = config.option(False, help="replace files that exist")
    skip_existing: bool = config.option(
        False, help="pass over images with a result; goes on where a batch was killed"
    )
    compare: bool = config.option(
        False, help="write compare.html into the output folder, or replace it there"
    )
    report: str = config.option("", help="JSON file about every image")
    strip_metadata: bool = config.option(
        False, help="leave out metadata but for color profile and orientation"
    )
    keep_dates: bool = config.option(
        False, help="give each result the dates of its picture's file"
    )
    max_pixels: int = config.option(
        1_000_000_000, help="refuse images of more pixels", minimum=1
    )
    beam: str = config.option(
        "",
        help="restore folders in an Apache Beam pipeline, whose workers list them; its "
        'options: "--runner=DirectRunner"',
    )

    def __post_init__(self):
        """Checks choices."""
        config.check(self)
        if self.model and self.workdir:
            raise errors.InputError("give --model or --workdir, not both")
        if self.overwrite and self.skip_existing:
            raise errors.InputError("give --overwrite or --skip_existing, not both")
        if self.beam and self.compare:
            raise errors.InputError("--compare: no page holds what --beam restores")
        if self.beam and jobs.names_file(self.output):
            raise errors.InputError(f"{self.output}: --beam wants a folder")
        for name in ("tile", "context"):
            value = getattr(self, name)
            if value != "auto" and not (value.isascii() and value.isdigit()):
                raise errors.InputError(f"--{name}={value}: auto or a number of pixels")
        for name in ("damage", "keep"):
            value = getattr(self, name)
            if value and not pathlib.Path(value).exists():
                raise errors.InputError(f"--{name}={value}: no such file or folder")
        finds = self.blind and not self.workdir
        if not (finds or self.damage or self.infrared):
            for name in ("save_damage", "only_damage"):
                if getattr(self, name):
                    raise errors.InputError(
                        f"--{name}: there is no mask of damage; give --damage, or "
                        "--blind with a shipped model"
                    )


def find_jobs(options: RestoreOptions) -> list[jobs.Job]:
    """Returns the images that the options name, with their results' files.

    With `infrared`, scans that lie beside their pictures are no images of their own.
    """
    found = jobs.find(
        options.input,
        options.output,
        suffix=options.suffix,
        ext=options.ext,
        recursive=options.recursive,
    )
    if not options.infrared:
        return found
    scans = {mask_files.find_infrared(job.source) for job in found}
    return [job for job in found if job.source not in scans]


def load_engine(options: RestoreOptions) -> "engine.Engine":
    """Returns the engine that the options ask for.

    Raises:
      InputError: for an unknown model, unusable weights, tiles that do not fit, a
        device that is not there.
    """
    return engine.make_engine(
        engine.load_weights(options.model, options.workdir),
        tile=options.tile,
        context=options.context,
        keep_color=options.keep_color,
        device=options.device,
    )


def settings_of(options: RestoreOptions) -> "restore_file.Settings":
    """Returns the options that concern a single file."""
    names = [field.name for field in dataclasses.fields(restore_file.Settings)]
    values = {name: getattr(options, name) for name in names}
    values["ext"] = jobs.format_of(options.output, options.ext)
    return restore_file.Settings(**values)


def _in_order(
    call: Callable[[jobs.Job], Any], work: Sequence[jobs.Job]
) -> Iterator[Any]:
    """Yields call(job) for each job, in order, a few at once and few ahead."""
    with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
        running = collections.deque()
        try:
            for job in work:
                running.append(pool.submit(call, job))
                if len(running) > _AT_ONCE:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()


def report_of(
    options: RestoreOptions,
    used: "engine.Engine",
    results: Sequence["restore_file.Restored"],
    seconds: float,
) -> dict[str, Any]:
    """Returns the report of a batch: what was used, and what became of each file."""
    failed = sum(bool(result.error) for result in results)
    skipped = sum(result.skipped for result in results)
    return {
        "command": "python -m restoration.restore",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "model": used.weights.model,
        **used.weights.digests(),
        "device": used.device,
        "settings": dataclasses.asdict(options),
        "seconds": round(seconds, 3),
        "restored": len(results) - failed - skipped,
        "skipped": skipped,
        "failed": failed,
        "files": [
            {**dataclasses.asdict(r), "input": str(r.input), "output": str(r.output)}
            for r in results
        ],
    }


def restore(options: RestoreOptions) -> list["restore_file.Restored"]:
    """Restores images; one that fails does not stop the others.

    Args:
      options: what to restore.

    Returns:
      What became of each image, in order.

    Raises:
      InputError: when nothing can be started.
    """
    start = time.monotonic()
    work = find_jobs(options)
    _check_report(options)
    used, settings = load_engine(options), settings_of(options)
    _check_finder(options, used)
    results: list[restore_file.Restored] = []
    written = start

    def write_report() -> None:
        if options.report:
            found = report_of(options, used, results, time.monotonic() - start)
            files.write_text(options.report, json.dumps(found, indent=1) + "\n")

    try:
        found = _in_order(
            lambda job: restore_file.restore_file(job, used, settings), work
        )
        for result in tqdm.tqdm(found, total=len(work), unit="image", desc="restore"):
            results.append(result)
            if time.monotonic() - written > _REPORT_EVERY:
                write_report()
                written = time.monotonic()
    finally:
        write_report()
    return results


def _check_finder(options: RestoreOptions, used: "engine.Engine") -> None:
    """Raises InputError where a mask is wanted that nothing can make."""
    if used.finder or options.damage or options.infrared:
        return
    for name in ("save_damage", "only_damage"):
        if getattr(options, name):
            raise errors.InputError(
                f"--{name}: no weights of a finder are installed, so no damage is "
                "found; give --damage"
            )


def _check_report(options: RestoreOptions) -> None:
    """Finds out before the work whether the report can be written."""
    if options.report:
        try:
            files.write_text(options.report, "{}\n")
        except OSError as error:
            raise errors.InputError(
                f"--report={options.report}: {error.strerror}; choose another file"
            ) from None
