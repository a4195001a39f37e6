"""Measures what a person waits for: from the shell to the first restored picture.

    python -m experiments.benchmark start

One photograph of half a megapixel is found, filled, restored and graded by the command
that people type, where no program was ever compiled (its folder of programs is empty),
and again with the programs on disk. Beside the whole, where the time goes: what JAX
tells of tracing, compiling and loading, which several threads do at once; the imports,
by a process that does nothing else; and the picture itself, as what one more picture
of its size takes in the same command.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import pyvips
import skimage

# The photograph's sides: half a megapixel.
_WIDTH, _HEIGHT = 816, 612

# Runs with programs on disk, and of everything that is quick.
_REPEATS = 5

# JAX's names of what it measures, and ours.
_EVENTS = {
    "/jax/core/compile/jaxpr_trace_duration": "tracing",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lowering",
    "/jax/core/compile/backend_compile_duration": "compiling",
    "/jax/compilation_cache/cache_retrieval_time_sec": "loading",
}

# Runs `restore` in a process that tells what JAX measured, and what was imported.
_TOLD = """
import json, runpy, sys
from jax import monitoring
events, told = json.loads(sys.argv[1]), {}
def listen(name, seconds, **_):
    if name in events:
        told[events[name]] = told.get(events[name], 0.0) + seconds
monitoring.register_event_duration_secs_listener(listen)
path, sys.argv[1:] = sys.argv[2], sys.argv[3:]
try:
    runpy.run_module("restoration.restore", run_name="__main__", alter_sys=True)
finally:
    modules = [name for name in sys.modules if not name.startswith("_")]
    with open(path, "w") as file:
        json.dump({"events": told, "modules": modules}, file)
"""

# Imports the modules named in a file.
_IMPORTS = """
import importlib, json, sys
for name in json.load(open(sys.argv[1])):
    importlib.import_module(name)
"""

# Runs a command from a small process, since a command's peak memory includes the
# process that started it.
_WAIT = """
import os, sys
quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=quiet)
_, status, usage = os.wait4(child, 0)
print(usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""

# What must not be imported to restore a picture.
_FOREIGN = ("tensorflow", "matplotlib", "orbax")


def photograph(path: pathlib.Path) -> None:
    """Writes a photograph of half a megapixel as JPEG."""
    folder = pathlib.Path(skimage.__file__).parent / "data"
    image = pyvips.Image.new_from_file(str(folder / "astronaut.png"))[0:3]
    across = image.resize(_WIDTH / image.width)
    across.crop(0, 0, _WIDTH, _HEIGHT).jpegsave(str(path), Q=92)


def environment(cache: pathlib.Path) -> dict[str, str]:
    """Returns the environment with a folder of programs of its own."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    return kept | {"XDG_CACHE_HOME": str(cache)}


def run(command: list[str], environment: dict[str, str]) -> tuple[float, int]:
    """Runs a command.

    Returns:
      Seconds, and the peak of its memory in bytes.

    Raises:
      RuntimeError: if it fails, with the end of what it said.
    """
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", _WAIT, *command],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    seconds = time.monotonic() - began
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr[-500:]}")
    # Linux counts in KiB, macOS in bytes.
    return seconds, int(done.stdout) * (1 if sys.platform == "darwin" else 1024)


def measure(quick: bool) -> dict[str, Any]:
    """Measures the start.

    Args:
      quick: only once where else medians are taken.

    Returns:
      "help_seconds", "python_seconds" (that does nothing), "imports_seconds";
      "first" and "again", each "seconds" of the whole command, and "events", seconds
      that threads spent by `_EVENTS`; "picture_seconds", of one more picture in the
      same command; "foreign", modules imported that ought not to be.
    """
    repeats = 1 if quick else _REPEATS
    command = [sys.executable, "-m", "restoration.restore"]
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        one, many = folder / "one", folder / "many"
        one.mkdir()
        many.mkdir()
        photograph(one / "0.jpg")
        for number in range(5):
            photograph(many / f"{number}.jpg")

        def whole(source: pathlib.Path, cache: str) -> float:
            ways = ["-o", str(folder / "out"), "--overwrite", "--device=cpu"]
            env = environment(folder / cache)
            return run([*command, "-i", str(source), *ways], env)[0]

        def told(cache: str) -> dict[str, Any]:
            path = folder / "told.json"
            ways = ["-i", str(one), "-o", str(folder / "out"), "--overwrite"]
            run(
                [sys.executable, "-c", _TOLD, json.dumps(_EVENTS), str(path), *ways],
                environment(folder / cache),
            )
            return json.loads(path.read_text())

        first = [whole(one, f"empty{n}") for n in range(min(repeats, 3))]
        again = [whole(one, "empty0") for _ in range(repeats)]
        more = [whole(many, "empty0") for _ in range(min(repeats, 3))]
        cold, warm = told("told"), told("told")
        imported = folder / "modules.json"
        imported.write_text(json.dumps(_importable(warm["modules"])))
        imports = [sys.executable, "-c", _IMPORTS, str(imported)]
        env = environment(folder / "told")

        def median(*arguments: str) -> float:
            runs = (run([*arguments], env)[0] for _ in range(repeats))
            return statistics.median(runs)

        shell = median(sys.executable, "-m", "restoration", "--help")
        return {
            "python_seconds": median(sys.executable, "-c", ""),
            "help_seconds": shell,
            "imports_seconds": median(*imports),
            "first": {"seconds": statistics.median(first), "events": cold["events"]},
            "again": {"seconds": statistics.median(again), "events": warm["events"]},
            "picture_seconds": (
                statistics.median(more) - statistics.median(again)
            ) / 4,
            "foreign": sorted(
                {m.split(".")[0] for m in warm["modules"]} & set(_FOREIGN)
            ),
        }  # fmt: skip


def _importable(modules: list[str]) -> list[str]:
    """Returns modules that a process of its own can import, in the same order."""
    roots = ("restoration", "jax", "jaxlib", "numpy", "flax", "PIL", "pyvips", "cv2",
             "absl", "etils", "safetensors", "tqdm")  # fmt: skip
    return [m for m in modules if m.split(".")[0] in roots]
