"""The command `restoration` and its sub-commands."""

import importlib.util
import pathlib
import subprocess
import sys

import pytest

import restoration
from restoration import __main__ as command

ROOT = pathlib.Path(restoration.__file__).parent


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "restoration", *arguments],
        capture_output=True,
        text=True,
    )


def test_every_command_is_listed_and_is_there():
    files = {path.stem for path in ROOT.glob("*.py")} - {"__init__", "__main__"}
    assert files <= set(command.COMMANDS)
    for name in command.COMMANDS:
        assert importlib.util.find_spec(f"restoration.{name}"), name


def test_help_names_the_commands_and_imports_none():
    code = (
        "import sys\nfrom restoration import __main__\n__main__.main(['--help'])\n"
        "print(sorted(m for m in sys.modules if m.startswith('restoration')))\n"
        "assert not {'absl', 'numpy', 'jax'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in command.COMMANDS:
        assert f"  {name} " in done.stdout
    assert "['restoration', 'restoration.__main__']" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("restor", "x"), "error: 'restor' is no command; did you mean restore?"),
        (("restore", "-o", "out"), "error: -i is required"),
        (("evaluate", "--workdir=/nowhere"), "error: "),
    ],
)
def test_errors_are_one_line(arguments, line):
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1


def test_a_command_shows_its_own_flags():
    done = run("degrade", "--help")
    assert done.returncode == 0
    assert "--data_dir" in done.stdout or "--input" in done.stdout
    assert "drawn" in done.stdout or "damage" in done.stdout
