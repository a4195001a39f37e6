"""What a training run was made with: code, packages, devices, data.

Each start of a run appends its record to `provenance.json` in the run's folder, so
that anyone can repeat it and see what differs.
"""

import dataclasses
import datetime
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epy

from restoration.base import config, errors, files
from restoration.training import train_config

with epy.lazy_imports():
    import jax

    from restoration.data import sources

NAME = "provenance.json"

# Packages that decide a run's numbers, those for accelerators where they are there.
_PACKAGES = (
    "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tensorflow",
    "tensorflow-cpu", "jax-cuda12-plugin", "jax-cuda13-plugin", "libtpu",
)  # fmt: skip

_ROOT = pathlib.Path(__file__).resolve().parents[1]


def packages(names: Sequence[str] = _PACKAGES) -> dict[str, str]:
    """Returns the versions of Python and of packages; those not installed are left out.

    Args:
      names: of the packages, by default of those that decide a run's numbers.
    """
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _git(*arguments: str) -> str | None:
    """Returns what git says of the code's folder; None outside of a checkout."""
    try:
        done = subprocess.run(
            ["git", "-C", str(_ROOT), *arguments],
            capture_output=True, text=True, timeout=30,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def code() -> dict[str, Any]:
    """Returns what identifies this code.

    Returns:
      "sources", a hash of the package's files; "commit" and "dirty" (whether
      tracked files differ from it), None outside of a git checkout.
    """
    digest = hashlib.sha256()
    for path in sorted(_ROOT.rglob("*.py")):
        digest.update(path.relative_to(_ROOT).as_posix().encode() + b"\0")
        digest.update(path.read_bytes())
    commit = None
    if _git("ls-files", "--error-unmatch", str(_ROOT / "__init__.py")) is not None:
        commit = _git("rev-parse", "HEAD")
    status = _git("status", "--porcelain", "--untracked-files=no") if commit else None
    return {
        "sources": digest.hexdigest()[:16],
        "commit": commit,
        "dirty": None if status is None else bool(status),
    }


def processor() -> str:
    """Returns the processor's name."""
    path = pathlib.Path("/proc/cpuinfo")
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def cores() -> int | None:
    """Returns how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def devices() -> dict[str, Any]:
    """Returns what is computed on, and with which flags of XLA."""
    return {
        "backend": jax.default_backend(),
        "kind": jax.devices()[0].device_kind,
        "count": jax.device_count(),
        "processes": jax.process_count(),
        "processor": processor(),
        "cores": cores(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def _counts(splits: Mapping[str, Sequence[Any]]) -> dict[str, int]:
    return {split: len(members) for split, members in splits.items()}


def describe_data(
    data_dir: str | os.PathLike, splits: Mapping[str, Sequence[Any]]
) -> dict[str, Any]:
    """Returns what identifies the pairs of a folder, or of what was prepared of it.

    Their contents are not read: the fingerprint is of names and of files' sizes; of
    prepared data it is of the index too, which holds checksums of the pixels.

    Args:
      data_dir: the folder.
      splits: the members of each split that are used.

    Returns:
      "fingerprint" and "pairs", their numbers by split.
    """
    digest = hashlib.sha256()

    def add(*facts: Any) -> None:
        digest.update(repr(facts).encode("utf-8", "surrogateescape"))

    for split, members in splits.items():
        for member in members:
            add(split, member.name, member.clip)
            if hasattr(member, "input"):
                add(os.stat(member.input).st_size, os.stat(member.output).st_size)
    for folder, _ in sources.find_prepared(pathlib.Path(data_dir)):
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                add(path.relative_to(folder).as_posix(), path.stat().st_size)
                if path.suffix == ".json":
                    digest.update(path.read_bytes())
    return {"fingerprint": digest.hexdigest(), "pairs": _counts(splits)}


def describe_arrays(data: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the same of pairs that are held as arrays; their pixels are read."""
    digest = hashlib.sha256()
    for split, members in data.items():
        for side in members:
            digest.update(repr((split, side.shape, str(side.dtype))).encode())
            digest.update(np.ascontiguousarray(side).reshape(-1).view(np.uint8))
    pairs = {split: len(members.input) for split, members in data.items()}
    return {"fingerprint": digest.hexdigest(), "pairs": pairs}


def now(options: train_config.RunConfig, data: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the record of a run that starts now.

    Args:
      options: of the run.
      data: see `describe_data`.

    Returns:
      What JSON can hold.
    """
    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "config": dataclasses.asdict(options),
        "code": code(),
        "packages": packages(),
        "devices": devices(),
        "data": dict(data),
    }


def append(workdir: str | os.PathLike, record: Mapping[str, Any], step: int) -> None:
    """Adds a record to those of a run's folder.

    Args:
      workdir: the run's folder.
      record: see `now`.
      step: number of steps that were done before.
    """
    path = pathlib.Path(workdir) / NAME
    starts = read(workdir) if path.is_file() else []
    starts.append({"step": step, **record})
    files.write_text(path, json.dumps({"starts": starts}, indent=1) + "\n")


def read(workdir: str | os.PathLike) -> list[dict[str, Any]]:
    """Returns the records of a run, one for each time that it was started.

    Args:
      workdir: the run's folder.

    Raises:
      InputError: when there are none, or they are damaged.
    """
    path = pathlib.Path(workdir) / NAME
    try:
        starts = config.parse(path.read_text(encoding="utf-8"))["starts"]
        if not starts or not all(isinstance(record, dict) for record in starts):
            raise ValueError("no records")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise errors.InputError(
            f"{path}: cannot be read ({error}); move it away, a new one is begun"
        ) from None
    return starts


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Returns in words how two records differ in code, packages, devices and data."""
    found = []
    for part in ("code", "packages", "devices", "data"):
        then, here = before.get(part, {}), after.get(part, {})
        found += [
            f"{part}: {name} {then.get(name)} -> {here.get(name)}"
            for name in {**then, **here}
            if then.get(name) != here.get(name)
        ]
    return found
