"""Makes a paired folder from clean images by painting film damage over them.

    python -m restoration.degrade -i CLEAN -o DATA --severity 0.5

`DATA/input` holds the worn frames, `DATA/output` the clean ones, as PNG.
"""

import dataclasses
import functools
import hashlib
import os
import pathlib
import re
import sys
from collections.abc import Callable, Iterator
from concurrent import futures

import numpy as np
import tqdm
from etils import epy

from restoration.base import cli, config, errors
from restoration.data import pairs
from restoration.devices import backend
from restoration.images import frames

with epy.lazy_imports():
    import jax

    from restoration import damage

# Whole images are damaged at sizes rounded up to this, so that a folder of many
# sizes compiles a few programs instead of one for each.
_STEP = 128


@dataclasses.dataclass(frozen=True)
class DegradeOptions:
    """Options of `python -m restoration.degrade`."""

    input: tuple[str, ...] = config.option(
        help="folders of clean images, clips in sub-folders", short="i", positional=True
    )
    output: str = config.option(help="paired folder to write", short="o")
    severity: float = config.option(
        0.5, help="0: none, 0.5: a worn film, 1: badly worn", minimum=0.0
    )
    kinds: tuple[str, ...] = config.option(
        ("film",), help="film, photo or single kinds of damage; repeatable"
    )
    variants: int = config.option(1, help="damaged versions of each image", minimum=1)
    crop_size: int = config.option(
        0, help="side of a square crop, pixels; 0: the whole image", minimum=0
    )
    seed: int = config.option(0, help="another seed, another damage", minimum=0)
    masks: bool = config.option(False, help="write what was painted over to mask/ too")
    overwrite: bool = config.option(False, help="replace files that exist")

    def __post_init__(self):
        """Checks limits and choices."""
        config.check(self)


def variant_name(name: str, variant: int, variants: int) -> str:
    """Returns a pair's name that keeps the clip of the image it comes from.

    Args:
      name: path of the clean image, without suffix.
      variant: number of the damaged version.
      variants: how many versions there are.

    Returns:
      The name; all versions of the frames of a clip are of one clip.
    """
    if variants == 1:
        return name
    clip = pairs.clip_of(name)
    if clip == name:  # a still: its versions are a clip
        return f"{name}_{variant:03d}"
    numbered = re.fullmatch(r"(.+_)(\d+)", name, re.DOTALL)
    if numbered:
        number = int(numbered[2]) * variants + variant
        return f"{numbered[1]}{number:0{len(numbered[2])}d}"
    return f"{name}-{variant:03d}"  # a sub-folder is the clip


@dataclasses.dataclass(frozen=True)
class _Job:
    source: pathlib.Path
    name: str
    variant: int


def _jobs(options: DegradeOptions) -> list[_Job]:
    jobs = []
    for folder in map(pathlib.Path, options.input):
        if not folder.is_dir():
            raise errors.InputError(f"{folder}: no such folder; check -i")
        for path in frames.list_images(folder):
            stem = path[: path.rindex(".")]
            for variant in range(options.variants):
                name = variant_name(stem, variant, options.variants)
                jobs.append(_Job(folder / path, name, variant))
    if not jobs:
        raise errors.InputError(
            f"{', '.join(options.input)}: no images ({', '.join(frames.SUFFIXES)})"
        )
    names: dict[str, _Job] = {}
    for job in jobs:
        other = names.setdefault(job.name, job)
        if other is not job:
            raise errors.InputError(
                f"{other.source} and {job.source}: both become {job.name}.png; "
                "rename one"
            )
    return jobs


def _kinds(options: DegradeOptions) -> tuple[str, ...]:
    """Returns the names of the kinds of damage; groups stand for their members."""
    groups = {"film": damage.FILM, "photo": damage.PHOTO}
    names = {name for given in options.kinds for name in groups.get(given, (given,))}
    unknown = sorted(names - set(damage.KINDS))
    if unknown:
        raise errors.InputError(
            f"--kinds={unknown[0]}: choose of {', '.join([*groups, *damage.KINDS])}"
        )
    return tuple(name for name in damage.KINDS if name in names)


@functools.cache
def _compiled(kinds: tuple[str, ...]) -> Callable:
    return jax.jit(
        lambda key, image, severity: damage.damage(
            key, image, severity=severity, kinds=kinds
        )
    )


def _seeds(options: DegradeOptions, job: _Job) -> np.ndarray:
    """Returns numbers that depend on seed and name alone, not on other files."""
    text = f"{options.seed}/{job.name}".encode("utf-8", "surrogateescape")
    return np.frombuffer(hashlib.sha256(text).digest(), np.uint32)


def _crop(
    image: np.ndarray, size: int, seeds: np.ndarray, source: object
) -> np.ndarray:
    height, width = image.shape[:2]
    if min(height, width) < size:
        raise errors.InputError(
            f"{source}: {width}×{height} is smaller than --crop_size={size}"
        )
    top, left = int(seeds[1] % (height - size + 1)), int(seeds[2] % (width - size + 1))
    return image[top : top + size, left : left + size]


def _degrade_one(options: DegradeOptions, job: _Job) -> None:
    folder = pathlib.Path(options.output)
    targets = [
        folder / side / f"{job.name}.png"
        for side in ("input", "output", *(["mask"] if options.masks else []))
    ]
    for target in targets:
        if target.exists() and not options.overwrite:
            raise errors.InputError(f"{target}: exists; --overwrite replaces it")
    seeds = _seeds(options, job)
    clean = frames.read(job.source)
    if options.crop_size:
        clean = _crop(clean, options.crop_size, seeds, job.source)
    height, width = clean.shape[:2]
    padded = clean
    if not options.crop_size:
        edges = ((0, -height % _STEP), (0, -width % _STEP), (0, 0))
        padded = np.pad(clean, edges, mode="symmetric")
    degraded, mask = _compiled(_kinds(options))(
        jax.random.key(seeds[0]), padded, np.float32(options.severity)
    )
    for target, image in zip(targets, (degraded, clean, mask), strict=False):
        frames.write(target, np.asarray(image)[:height, :width])


def degrade(options: DegradeOptions) -> list[str]:
    """Writes a paired folder.

    Args:
      options: what to damage and how.

    Returns:
      An error line for each image that failed.

    Raises:
      InputError: when nothing can be started.
    """
    _kinds(options)
    jobs = _jobs(options)

    def attempt(job: _Job) -> str:
        try:
            _degrade_one(options, job)
        except errors.InputError as error:
            return str(error)
        return ""

    def attempts() -> Iterator[str]:
        # The first alone: threads that start together would all compile.
        yield attempt(jobs[0])
        with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            yield from pool.map(attempt, jobs[1:])

    bar = tqdm.tqdm(attempts(), total=len(jobs), unit="pair", desc="degrade")
    return [error for error in bar if error]


def main(options: DegradeOptions) -> int:
    """Entry point."""
    backend.keep_freed_memory()
    backend.cache_compilations()
    failures = degrade(options)
    for line in failures:
        print(f"error: {line}", file=sys.stderr)
    return int(bool(failures))


if __name__ == "__main__":
    cli.run(main, DegradeOptions)
