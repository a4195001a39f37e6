"""The command `restoration`: `restoration NAME` runs `python -m restoration.NAME`.

Nothing of a command is imported until it is chosen, so that `restoration --help`
answers at once.
"""

import difflib
import runpy
import sys
from collections.abc import Sequence

# In the order in which a newcomer meets them.
COMMANDS = {
    "restore": "restores photographs and films: files and folders",
    "serve": "restores photographs and films in the browser, with a brush for damage",
    "report": "shows pictures before and after, or a training run, on one page",
    "clean": "audits a folder of paired frames and moves aside what is unusable",
    "degrade": "makes paired frames of clean pictures by drawing damage",
    "extract": "makes paired frames of a film and its remaster",
    "prepare": "stores paired frames so that training reads them fast",
    "train": "trains a network on paired frames, or goes on with it",
    "evaluate": "measures a trained network: MSE, PSNR, SSIM",
    "models": "lists the networks",
    "export": "writes a network for other programs: ONNX, StableHLO",
}


def usage() -> str:
    """Returns what `restoration --help` prints."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            "Restores old photographs and films with neural networks.",
            "",
            "usage: restoration COMMAND [OPTIONS]    (restoration COMMAND --help)",
            "",
            *lines,
            "",
            "restoration restore photo.jpg -o restored",
        ]
    )


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, COMMANDS, 1)
    guess = f"; did you mean {near[0]}?" if near else ""
    return f"error: {name!r} is no command{guess} (restoration --help lists them)"


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command that the first argument names.

    Args:
      arguments: of the command line; by default those of this process.
    """
    name, *rest = arguments if arguments is not None else sys.argv[1:] or ["--help"]
    if name in ("-h", "--help", "--helpfull", "help"):
        print(usage())
        return
    if name not in COMMANDS:
        print(_unknown(name), file=sys.stderr)
        sys.exit(2)
    sys.argv = [f"restoration {name}", *rest]
    runpy.run_module(f"restoration.{name}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
