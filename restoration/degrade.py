"""Makes a paired folder from clean images by drawing damage on them.

    python -m restoration.degrade -i CLEAN -o DATA --severity 0.5

`DATA/input` contains the degraded images, `DATA/output` the clean ones, as PNG. With
--clips the frames of a clip, as `restoration.extract --every 1` writes them, are
degraded as a film is: dirt lies on one frame, brightness flickers and the picture
weaves from frame to frame, while scratches stand and the print is equally faded.
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

# Whole images are padded to multiples of this, so that images of many sizes need only a
# few compiled programs.
_STEP = 128


@dataclasses.dataclass(frozen=True)
class DegradeOptions:
    """Options of `python -m restoration.degrade`."""

    input: tuple[str, ...] = config.option(
        help="folders of clean images, with clips in sub-folders",
        short="i",
        positional=True,
    )
    output: str = config.option(help="paired folder to write", short="o")
    severity: float = config.option(
        0.5, help="0: no damage, 0.5: a worn film, 1: badly worn", minimum=0.0
    )
    kinds: tuple[str, ...] = config.option(
        ("film",), help="film, photo or single kinds of damage, repeatable"
    )
    variants: int = config.option(1, help="damaged versions of each image", minimum=1)
    crop_size: int = config.option(
        0, help="side of a square crop, pixels; 0: the whole image", minimum=0
    )
    seed: int = config.option(0, help="seed of the damage", minimum=0)
    clips: bool = config.option(
        False,
        help="frames of a clip share what lasts: fading, blur, standing scratches",
    )
    masks: bool = config.option(False, help="also write masks of the damage to mask/")
    overwrite: bool = config.option(False, help="replace files that exist")

    def __post_init__(self):
        """Checks the limits."""
        config.check(self)


def variant_name(name: str, variant: int, variants: int) -> str:
    """Returns the name of a damaged version; it is in the same clip as the image.

    Args:
      name: path of the clean image, without suffix.
      variant: number of the damaged version.
      variants: number of versions of each image.

    Returns:
      The name. All versions of all frames of a clip are in one clip.
    """
    if variants == 1:
        return name
    clip = pairs.clip_of(name)
    if clip == name:  # a still: its versions become a clip
        return f"{name}_{variant:03d}"
    numbered = re.fullmatch(r"(.+_)(\d+)", name, re.DOTALL)
    if numbered:
        number = int(numbered[2]) * variants + variant
        return f"{numbered[1]}{number:0{len(numbered[2])}d}"
    return f"{name}-{variant:03d}"  # a sub-folder is the clip


@dataclasses.dataclass(frozen=True)
class _Version:
    source: pathlib.Path
    name: str
    variant: int


def _versions(options: DegradeOptions) -> list[_Version]:
    versions = []
    for folder in map(pathlib.Path, options.input):
        if not folder.is_dir():
            raise errors.InputError(f"{folder}: no such folder; check -i")
        for path in frames.list_images(folder):
            stem = path[: path.rindex(".")]
            for variant in range(options.variants):
                name = variant_name(stem, variant, options.variants)
                versions.append(_Version(folder / path, name, variant))
    if not versions:
        raise errors.InputError(
            f"{', '.join(options.input)}: no images ({', '.join(frames.SUFFIXES)})"
        )
    names: dict[str, _Version] = {}
    for version in versions:
        other = names.setdefault(version.name, version)
        if other is not version:
            raise errors.InputError(
                f"{other.source} and {version.source}: both become {version.name}.png; "
                "rename one"
            )
    return versions


def _kinds(options: DegradeOptions) -> tuple[str, ...]:
    """Returns the names of the kinds of damage; groups stand for their members."""
    groups = {"film": damage.FILM, "photo": damage.PHOTO}
    names = {name for given in options.kinds for name in groups.get(given, (given,))}
    unknown = sorted(names - set(damage.KINDS))
    if unknown:
        raise errors.InputError(
            f"--kinds={unknown[0]}: choose one of {', '.join([*groups, *damage.KINDS])}"
        )
    return tuple(name for name in damage.KINDS if name in names)


@functools.cache
def _compiled(kinds: tuple[str, ...]) -> Callable:
    return jax.jit(
        lambda key, clip, image, severity: damage.damage(
            key, image, severity=severity, kinds=kinds, clip=clip
        )
    )


def _seeds(options: DegradeOptions, name: str) -> np.ndarray:
    """Returns random numbers that depend only on seed and name, not on other files."""
    text = f"{options.seed}/{name}".encode("utf-8", "surrogateescape")
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


def _degrade_one(options: DegradeOptions, version: _Version) -> None:
    folder = pathlib.Path(options.output)
    targets = [
        folder / side / f"{version.name}.png"
        for side in ("input", "output", *(["mask"] if options.masks else []))
    ]
    for target in targets:
        if target.exists() and not options.overwrite:
            raise errors.InputError(f"{target}: exists; --overwrite replaces it")
    seeds, clip = _seeds(options, version.name), None
    if options.clips:
        of_clip = _seeds(options, f"{pairs.clip_of(version.name)}/{version.variant}")
        clip = jax.random.key(of_clip[0])
    clean = frames.read(version.source)
    if options.crop_size:
        # A clip is cropped alike, or nothing would move as it did.
        where = of_clip if options.clips else seeds
        clean = _crop(clean, options.crop_size, where, version.source)
    height, width = clean.shape[:2]
    padded = clean
    if not options.crop_size:
        edges = ((0, -height % _STEP), (0, -width % _STEP), (0, 0))
        padded = np.pad(clean, edges, mode="symmetric")
    degraded, mask = _compiled(_kinds(options))(
        jax.random.key(seeds[0]), clip, padded, np.float32(options.severity)
    )
    for target, image in zip(targets, (degraded, clean, mask), strict=False):
        frames.write(target, np.asarray(image)[:height, :width])


def degrade(options: DegradeOptions) -> list[str]:
    """Writes a paired folder.

    Args:
      options: from the command line.

    Returns:
      An error line for each image that failed.

    Raises:
      InputError: if an option or a folder cannot be used; nothing is written then.
    """
    _kinds(options)
    versions = _versions(options)

    def attempt(version: _Version) -> str:
        try:
            _degrade_one(options, version)
        except errors.InputError as error:
            return str(error)
        return ""

    def attempts() -> Iterator[str]:
        # The first one alone, since otherwise every thread would compile.
        yield attempt(versions[0])
        with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            yield from pool.map(attempt, versions[1:])

    bar = tqdm.tqdm(attempts(), total=len(versions), unit="pair", desc="degrade")
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
