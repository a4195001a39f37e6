"""Matches pictures with their restored versions."""

import pathlib

from restoration.base import errors
from restoration.images import frames
from restoration.reports import gallery, run_files


def _list_pictures(folder: str, flag: str, without: str) -> dict[str, pathlib.Path]:
    """Returns the pictures below a folder by path, except those below `without`."""
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
    """Returns the possible stems of a restored picture's original, best first."""
    if same_folder:
        ending = "_restored"
        return [stem.removesuffix(ending)] if stem.endswith(ending) else []
    ends = [i for i, letter in enumerate(stem) if letter in "_-."]
    return [stem, *(stem[:end] for end in reversed(ends))]


def match_pictures(
    before: str, after: str
) -> tuple[list[gallery.Comparison], list[str]]:
    """Matches restored pictures with their originals.

    A restored picture belongs to the original of the same name, suffix aside, or else
    to the original with the longest name that is the start of its own up to a `_`, `-`
    or `.`, as in `street_restored.png`. If both are in one folder, restored pictures
    must end with `_restored`.

    Args:
      before: folder of the originals. A text file with the name of a picture is its
        caption.
      after: folder of the restored pictures, in the same sub-folders.

    Returns:
      The matched pictures, and the names of originals without a restored picture.

    Raises:
      InputError: if a folder is missing, nothing matches, or two originals match one
        restored picture equally well.
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
        candidates = by_stem[stem]
        if len(candidates) > 1:
            candidates = [
                candidate for candidate in candidates if candidate.endswith(path.suffix)
            ] or candidates
        if len(candidates) > 1:
            raise errors.InputError(
                f"{path}: may belong to {' or '.join(candidates)} in {before}; rename "
                "one"
            )
        used |= {candidates[0], name} if same else {candidates[0]}
        original = originals[candidates[0]]
        sidecar = original.with_suffix(".txt")
        remedy = "write it as UTF-8 text, or remove it"
        caption = run_files.read(sidecar, remedy).strip() if sidecar.is_file() else ""
        rows.append(gallery.Comparison(stem, original, path, caption))
    if not rows:
        raise errors.InputError(
            f"{after}: no picture matches one in {before}; restore them with: "
            f"python -m restoration.restore {before} -o {after}"
        )
    return rows, [name for name in originals if name not in used]
