"""Restores many small files in an Apache Beam pipeline and measures its memory.

    python -m experiments.robustness.many_files
    python -m experiments.robustness.many_files 1000 10000

For each count, so many names of one picture of 16 by 16 pixels, in folders of a
thousand, go through `restore --beam` with the smallest network, no finder and no grade.
Of most the result is there already, as where a pipeline is started again: these are
listed, looked at and reported as the others are, and cost no minutes of computing.
The local runner works in two processes: one drives the pipeline, the other lists
folders and restores. Of both the largest memory is noted. Needs Linux and the packages
of `locks/beam.txt`.
"""

import collections
import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import numpy as np

from restoration.base import cli, config, errors, files
from restoration.images import frames

RESULTS = pathlib.Path(__file__).parents[1] / "results" / "many_files.json"

_BEAM = (
    "--runner=DirectRunner --direct_running_mode=multi_processing "
    "--direct_num_workers=1"
)

# Files in one folder, the pixels of a picture's side, and those of the network's tile.
_IN_A_FOLDER, _SIDE, _TILE = 1000, 16, 112


@dataclasses.dataclass(frozen=True)
class ManyFilesOptions:
    """Options of `python -m experiments.robustness.many_files`."""

    count: tuple[str, ...] = config.option(
        (), help="numbers of files; by default 1000 10000 100000", positional=True
    )
    restored: int = config.option(
        200, help="how many of them have no result yet", minimum=1
    )
    out: str = config.option(str(RESULTS), help="JSON file, added to", short="o")

    def __post_init__(self):
        """Checks choices."""
        config.check(self)
        for count in self.count:
            if not count.isdecimal() or int(count) < 1:
                raise errors.InputError(f"{count}: give numbers of files")


def link_files(folder: pathlib.Path, count: int, restored: int) -> None:
    """Writes one small picture and links it under many names.

    Args:
      folder: an empty one; gets `in` and `out`.
      count: number of names in `in`, in sub-folders `000`, `001` and so on.
      restored: how many of them have no result in `out`.
    """
    frames.write(folder / "one.png", np.random.default_rng(0).random((_SIDE, _SIDE, 3)))
    for number in range(count):
        part, name = f"{number // _IN_A_FOLDER:03d}", f"{number:06d}"
        paths = [folder / "in" / part / f"{name}.png"]
        if number >= restored:
            paths.append(folder / "out" / part / f"{name}_restored.png")
        for path in paths:
            if not path.parent.is_dir():
                path.parent.mkdir(parents=True)
                # Of each folder its own, since a file has 65,000 links at most.
                shutil.copy(folder / "one.png", folder / f"{path.parts[-3]}_{part}")
            os.link(folder / f"{path.parts[-3]}_{part}", path)


def _status(process: str) -> dict[str, str]:
    """Returns what Linux says of a process; empty for one that has ended."""
    try:
        text = pathlib.Path("/proc", process, "status").read_text()
    except OSError:
        return {}
    return dict(line.split(":", 1) for line in text.splitlines())


def _peaks(driver: int) -> dict[str, int]:
    """Returns the largest memory so far, MiB, of a process and of its descendants."""
    status = {
        path.name: found
        for path in pathlib.Path("/proc").iterdir()
        if path.name.isdecimal() and (found := _status(path.name))
    }
    peaks = {"driver": 0, "worker": 0}
    for process, found in status.items():
        parent = process
        while parent in status and parent != str(driver):
            parent = status[parent]["PPid"].strip()
        if parent == str(driver) and "VmHWM" in found:
            who = "driver" if process == parent else "worker"
            peaks[who] = max(peaks[who], int(found["VmHWM"].split()[0]) // 1024)
    return peaks


def measure(count: int, restored: int, folder: pathlib.Path) -> dict[str, int]:
    """Sends so many files through the pipeline.

    Args:
      count: number of files.
      restored: how many of them have no result yet.
      folder: an empty one, to work in.

    Returns:
      "restored" and "skipped", counted in the reports; "driver" and "worker", the
      largest memory of each in MiB.

    Raises:
      InputError: when the command fails.
    """
    link_files(folder, count, restored)
    command = [
        sys.executable, "-m", "restoration.restore", f"-i={folder / 'in'}",
        f"-o={folder / 'out'}", "--recursive", "--model=basic", "--blind=false",
        "--keep_color", f"--tile={_TILE}", f"--beam={_BEAM}",
    ]  # fmt: skip
    peaks: collections.Counter = collections.Counter()
    with (folder / "said").open("w+") as said:
        running = subprocess.Popen(command, stdout=said, stderr=said)
        while running.poll() is None:
            peaks |= collections.Counter(_peaks(running.pid))
            time.sleep(2)
        said.seek(0)
        if running.returncode:
            raise errors.InputError(f"exit {running.returncode}: {said.read()[-400:]}")
    found: collections.Counter = collections.Counter()
    for part in (folder / "out" / "reports").glob("*.jsonl"):
        with part.open() as lines:
            for row in map(json.loads, lines):
                found["skipped" if row["skipped"] else "restored"] += not row["error"]
    return {**found, **peaks}


def main(options: ManyFilesOptions) -> int:
    """Measures each count; returns 1 unless every file was restored."""
    path = pathlib.Path(options.out)
    whole = True
    for count in map(int, options.count or ("1000", "10000", "100000")):
        with tempfile.TemporaryDirectory() as folder:
            found = measure(count, options.restored, pathlib.Path(folder))
        print(count, found, flush=True)
        results = json.loads(path.read_text()) if path.is_file() else {}
        results[str(count)] = found
        files.write_text(path, json.dumps(results, indent=1) + "\n")
        whole &= found["restored"] == min(count, options.restored)
        whole &= found["restored"] + found.get("skipped", 0) == count
    return int(not whole)


if __name__ == "__main__":
    cli.run(main, ManyFilesOptions)
