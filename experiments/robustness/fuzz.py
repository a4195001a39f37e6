"""Gives hostile input to everything that reads files or flags, and counts the outcomes.

    python -m experiments.robustness.fuzz --rounds=2000

These counts must be 0 for each target: `surprised` (an error that is not one line of
`InputError`), `crashed`, `hung`, `outside` (a file opened for writing, made, moved or
removed outside the target's own folder), `unpickled`, `swollen` (memory), `unsafe`
(another wrong result, such as markup from a file name). Targets run one after the
other, each in a process of its own. With `--target`, the JSON file keeps the counts of
the other targets.
"""

import collections
import dataclasses
import json
import multiprocessing
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.robustness import fuzz_bombs, fuzz_restore, fuzz_targets
from restoration.base import cli, config, errors, files

BAD = (
    "surprised", "crashed", "hung", "outside", "unpickled", "swollen", "unsafe"
)  # fmt: skip

# Seconds after which an input hangs, and further seconds for imports at the start.
_TIMEOUT = 30
_START = 120

# Bytes by which a process may grow at one input.
_GROWTH = 1_500_000_000

# Targets that are slow (they import JAX or TensorFlow, or start processes) get fewer
# inputs, by these factors.
_SLOW = {
    "commands": 20, "tfrecord": 8, "matlab": 8, "clean": 4, "report": 2, "names": 2,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class FuzzOptions:
    """Options of `python -m experiments.robustness.fuzz`."""

    rounds: int = config.option(2000, help="inputs for each target", minimum=1)
    seed: int = config.option(0, help="seed of the inputs", minimum=0)
    target: tuple[str, ...] = config.option((), help="only these, repeatable")
    out: str = config.option(
        "experiments/results/fuzz.json", help="JSON file for the counts", short="o"
    )


# Python's audit events that change files: indices of the arguments with the paths and
# with the folders to which these are relative.
_CHANGES = {
    "os.mkdir": ((0, 2),), "os.rmdir": ((0, 1),), "os.remove": ((0, 1),),
    "os.rename": ((0, 2), (1, 3)), "os.link": ((0, 2), (1, 3)),
    "os.symlink": ((1, 2),), "os.truncate": ((0, None),), "os.chmod": ((0, 2),),
}  # fmt: skip


def _changed(event: str, arguments: tuple) -> list[str]:
    """Returns the files that an event changes."""
    paths = [(arguments[p], f and arguments[f]) for p, f in _CHANGES.get(event, ())]
    if event == "open":
        path, mode, how = arguments
        writes = how & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        if writes or set(mode or "") & set("wax+"):
            paths = [(path, None)]
    found = []
    for path, folder in paths:
        if isinstance(path, int) or path is None:  # a descriptor, opened before
            continue
        base = os.getcwd()
        if folder is not None and folder >= 0:
            base = os.readlink(f"/proc/self/fd/{folder}")
        found.append(os.path.normpath(os.path.join(base, os.fsdecode(path))))
    return found


def _watch(folder: str, seen: collections.Counter, examples: list) -> None:
    """Counts changes of files outside a folder, and unpickled objects."""
    # Python itself uses these.
    allowed = (folder, "/dev/null", "/dev/shm/", "/proc/self/")

    def hook(event: str, arguments: tuple) -> None:
        if event == "pickle.find_class":
            seen["unpickled"] += 1
            examples.append(f"unpickled {arguments}")
        if event != "open" and event not in _CHANGES:
            return
        for path in _changed(event, arguments):
            if not path.startswith(allowed) and "__pycache__" not in path:
                seen["outside"] += 1
                examples.append(f"{event} {path!r}")

    sys.addaudithook(hook)


def _memory() -> int:
    """Returns the peak memory of this process in bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _try_all(name: str, rounds: range, seed: int, folder: str, sent: Any) -> None:
    """Tries inputs of a target and sends each outcome."""
    attempt = fuzz_targets.TARGETS[name](pathlib.Path(folder) / name)
    seen: collections.Counter = collections.Counter()
    examples: list[str] = []
    held = 0
    for tried, number in enumerate(rounds, 1):
        kind, line = "refused", ""
        try:
            taken = attempt(np.random.default_rng((seed, number)))
            kind = "taken" if taken else "refused"
        except errors.InputError as error:
            if "\n" in str(error):
                kind, line = "surprised", f"two lines: {error}"
        except fuzz_targets.UnsafeError as error:
            kind, line = "unsafe", str(error)
        except subprocess.TimeoutExpired as error:
            kind, line = "hung", str(error)[:300]
        except Exception as error:
            kind, line = "surprised", f"{type(error).__name__}: {error}"[:300]
        seen[kind] += 1
        if tried == fuzz_targets.WARM:
            held = _memory()
            _watch(folder, seen, examples)
        grown = tried > fuzz_targets.WARM and _memory() > held + _GROWTH
        if grown:
            held = _memory()
            seen["swollen"] += 1
            line = line or "swollen"
        lines = [line, *examples][:3] if line or examples else []
        sent.put((number, dict(seen), lines))
        seen.clear()
        examples.clear()


def fuzz(
    name: str, *, rounds: int, seed: int, folder: str | os.PathLike
) -> dict[str, Any]:
    """Tries hostile inputs on one target, in a process of its own.

    Args:
      name: of TARGETS.
      rounds: number of inputs.
      seed: of the inputs.
      folder: for working files.

    Returns:
      Counts: `tried`, `taken`, `refused` and those of BAD, with up to five `examples`
      of the latter.
    """
    counts: dict[str, Any] = dict.fromkeys(("tried", "taken", "refused", *BAD), 0)
    counts["examples"] = []
    context = multiprocessing.get_context("spawn")
    timeout = 2 * fuzz_targets.COMMAND_TIMEOUT if name == "commands" else _TIMEOUT
    first = 0
    while first < rounds:
        with tempfile.TemporaryDirectory(dir=folder) as work:
            sent = context.Queue()
            process = context.Process(
                target=_try_all, args=(name, range(first, rounds), seed, work, sent)
            )
            process.start()
            # The first input includes imports.
            waited = time.monotonic() + _START
            while first < rounds:
                try:
                    number, seen, lines = sent.get(timeout=0.5)
                except Exception:  # the queue's own Empty
                    late = time.monotonic() - waited > timeout
                    if (process.is_alive() and not late) or not sent.empty():
                        continue
                    counts["hung" if late else "crashed"] += 1
                    counts["examples"].append(f"input {first}")
                    counts["tried"] += 1
                    first += 1
                    process.kill()
                    break
                first, waited = number + 1, time.monotonic()
                counts["tried"] += 1
                for kind, count in seen.items():
                    counts[kind] += count
                if lines:
                    counts["examples"].append(f"input {number}: {lines}")
            process.join(timeout=10)
            process.kill()
    counts["examples"] = counts["examples"][:5]
    return counts


def bad(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns the targets with a bad outcome."""
    return [
        name
        for name, counts in results.items()
        if any(counts.get(kind) for kind in (*BAD, "partial"))
    ]


def _fuzz_one(name: str, options: FuzzOptions, folder: str) -> dict[str, Any]:
    kind = name.removeprefix("restore ")
    if kind in fuzz_restore.KINDS:
        counts = fuzz_restore.fuzz(
            kind, rounds=options.rounds, seed=options.seed, folder=folder
        )
        return {"tried": options.rounds, **counts}
    rounds = max(2 * fuzz_targets.WARM, options.rounds // _SLOW.get(name, 1))
    if name == "bombs":  # each once, after a warm-up
        rounds = len(fuzz_bombs.bombs()) + fuzz_targets.WARM
    return fuzz(name, rounds=rounds, seed=options.seed, folder=folder)


def earlier_counts(out: str, seed: int) -> dict[str, Any]:
    """Returns the counts of targets in a file, if they have the same seed."""
    path = pathlib.Path(out)
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found["targets"] if found.get("seed") == seed else {}


def main(options: FuzzOptions) -> int:
    """Tries all targets and writes the counts; returns 1 after a bad outcome."""
    known = [f"restore {kind}" for kind in fuzz_restore.KINDS]
    known += fuzz_targets.TARGETS
    for name in options.target:
        if name not in known:
            raise errors.InputError(
                f"--target={name}: choose one of {', '.join(known)}"
            )
    results = earlier_counts(options.out, options.seed) if options.target else {}
    for name in options.target or known:
        with tempfile.TemporaryDirectory() as folder:
            results[name] = _fuzz_one(name, options, folder)
        print(name, results[name], flush=True)
        total = sum(counts["tried"] for counts in results.values())
        counts = {"seed": options.seed, "tried": total, "targets": results}
        files.write_text(options.out, json.dumps(counts, indent=1) + "\n")
    return int(bool(bad(results)))


if __name__ == "__main__":
    cli.run(main, FuzzOptions)
