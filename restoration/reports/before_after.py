"""Pictures matched with their restored versions."""

import pathlib

from etils import epy

from restoration.base import errors
from restoration.images import frames
from restoration.reports import gallery, run_files

with epy.lazy_imports():
    pass


def _list_pictures(folder: str, flag: str, without: str) -> dict[str, pathlib.Path]:
    """Returns the pictures below a folder by path, less those of a folder in it."""
    root, other = pathlib.Path(folder), pathlib.Path(without).resolve()
    if not root.is_dir():
        raise errors.InputError(f"{root}: no such folder; give another with {flag}")
    inside = other != root.resolve() and other.is_relative_to(root.resolve())
    return {
        name: root / name
        for name in frames.list_images(root)
        if not (inside and (root / name).resolve().is_relative_to(other))
    }


def _possible_stems(stem: str, same_folder: bool) -> list[str]:
    """Returns the stems that a restored picture may come from, likeliest first."""
    if same_folder:
        ending = "_restored"
        return [stem.removesuffix(ending)] if stem.endswith(ending) else []
    ends = [i for i, letter in enumerate(stem) if letter in "_-."]
    return [stem, *(stem[:end] for end in reversed(ends))]


def match_pictures(
    before: str, after: str
) -> tuple[list[gallery.Comparison], list[str]]:
    """Matches restored pictures with those they were made from.

    A restored picture belongs to the picture of the same name without suffix,
    or else to the one with the longest name that begins its own up to a `_`,
    `-` or `.`, as in `street_restored.png`. In one folder for both, only
    `_restored` tells them apart.

    Args:
      before: folder of the originals; a text file of the same name as a
        picture holds its caption.
      after: folder of the restored ones, in the same subfolders.

    Returns:
      The matched pictures, and the names of originals without a restored one.

    Raises:
      InputError: if a folder is missing, nothing matches, or two originals
        have an equal claim.
    """
    originals = _list_pictures(before, "--before", after)
    restored = _list_pictures(after, "--after", before)
    same = pathlib.Path(before).resolve() == pathlib.Path(after).resolve()
    by_stem: dict[str, list[str]] = {}
    for name in originals:
        by_stem.setdefault(name[: name.rindex(".")], []).append(name)
    rows, used = [], set()
    for name, path in restored.items():
        possible = _possible_stems(name[: name.rindex(".")], same)
        stem = next((stem for stem in possible if stem in by_stem), None)
        if stem is None:
            continue
        claims = by_stem[stem]
        if len(claims) > 1:
            claims = [
                claim for claim in claims if claim.endswith(path.suffix)
            ] or claims
        if len(claims) > 1:
            raise errors.InputError(
                f"{path}: may belong to {' or '.join(claims)} in {before}; rename one"
            )
        used |= {claims[0], name} if same else {claims[0]}
        original = originals[claims[0]]
        sidecar = original.with_suffix(".txt")
        remedy = "write it as UTF-8 text, or take it away"
        caption = run_files.read(sidecar, remedy).strip() if sidecar.is_file() else ""
        rows.append(gallery.Comparison(stem, original, path, caption))
    if not rows:
        raise errors.InputError(
            f"{after}: no picture matches one in {before}; restore them with: "
            f"python -m restoration.restore {before} -o {after}"
        )
    return rows, [name for name in originals if name not in used]
