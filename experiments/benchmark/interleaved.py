"""Measures several programs alternately, each in a process of its own.

A program first prepares and compiles its cases, then measures a case on request. So
several programs compile at the same time, but only one computes at a time, in rounds.
Requests are sent to the process's standard input, and answers come back as JSON lines.
"""

import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from typing import IO, Any, NamedTuple

from restoration.base import errors

# Our program as another Python runs it, with another JAX.
OTHER = "ours, other JAX"

# Number of calls timed together, at most.
_MOST_CALLS = 2000

# Seconds in which a program must end.
_STOP_TIMEOUT = 20.0


class Case(NamedTuple):
    """Something to measure.

    Attributes:
      call: starts the work; its result may not be computed yet.
      wait: takes the result of `call` and returns when it is computed.
      amount: of work in a call, such as the number of images.
      facts: about the case, for JSON.
    """

    call: Callable[[], Any]
    wait: Callable[[Any], Any]
    amount: float
    facts: Mapping[str, Any]


class Program(NamedTuple):
    """A running program.

    Attributes:
      process: its process.
      log: what it writes to standard error.
    """

    process: subprocess.Popen
    log: IO[bytes]


def per_second(case: Case, seconds: float) -> float:
    """Returns the amount of work per second, with calls back to back."""
    start = time.perf_counter()
    case.wait(case.call())
    one = time.perf_counter() - start
    count = max(2, min(_MOST_CALLS, int(seconds / one)))
    start = time.perf_counter()
    for _ in range(count):
        result = case.call()
    case.wait(result)
    return count * case.amount / (time.perf_counter() - start)


def _tried(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Returns the result of work, or its error as text so that other cases go on."""
    try:
        return work()
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:400]}


def serve(makers: Mapping[str, Callable[[], Case]]) -> None:
    """Prepares all cases, then measures cases on request.

    Args:
      makers: functions that make the cases, by name.
    """
    made: dict[str, Case] = {}

    def prepare(name: str) -> dict[str, Any]:
        case = makers[name]()
        for _ in range(2):
            case.wait(case.call())
        made[name] = case
        return dict(case.facts)

    def measured(name: str, seconds: float) -> dict[str, Any]:
        return {"per_second": per_second(made[name], seconds)}

    _say({name: _tried(lambda name=name: prepare(name)) for name in makers})
    for line in sys.stdin:
        _say(_tried(lambda line=line: measured(*json.loads(line))))


def _say(found: dict[str, Any]) -> None:
    print(json.dumps(found), flush=True)


def jax_version(python: str) -> str:
    """Returns the version of JAX that another Python has.

    Raises:
      InputError: if there is no such Python, or no JAX in it.
    """
    command = [python, "-c", "import jax; print(jax.__version__)"]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise errors.InputError(
            f"--other_python={python}: {error.strerror}; give an executable"
        ) from None
    if done.returncode:
        raise errors.InputError(
            f"--other_python={python}: {done.stderr.strip().splitlines()[-1]}; install "
            "this package in it"
        )
    return done.stdout.strip()


def pythons(programs: Iterable[str], other: str) -> dict[str, str]:
    """Returns which Python runs each program, `OTHER` too if there is another one."""
    return dict.fromkeys(programs, sys.executable) | ({OTHER: other} if other else {})


def start(
    module: str,
    arguments: Iterable[str],
    environment: Mapping[str, str],
    python: str = sys.executable,
) -> Program:
    """Starts a program: a module that calls `serve`."""
    # `stop` closes it.
    log = tempfile.TemporaryFile()  # noqa: SIM115
    process = subprocess.Popen(
        [python, "-m", module, *arguments], env=dict(environment),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
    )  # fmt: skip
    return Program(process, log)


def _answer(program: Program) -> dict[str, Any] | None:
    """Returns the next JSON line, ignoring other lines; None if there is none."""
    for line in program.process.stdout:
        if line.startswith("{"):
            return json.loads(line)
    return None


def _died(program: Program) -> dict[str, Any]:
    code = program.process.wait()
    program.log.seek(0)
    tail = program.log.read().decode(errors="replace")[-400:]
    return {"error": f"ended with {code}: {tail}"}


def _ready(program: Program) -> dict[str, dict[str, Any]]:
    found = _answer(program)
    return {"start": _died(program)} if found is None else found


def _ask(program: Program, case: str, seconds: float) -> dict[str, Any]:
    try:
        program.process.stdin.write(json.dumps([case, seconds]) + "\n")
        program.process.stdin.flush()
    except BrokenPipeError:
        return _died(program)
    return _answer(program) or _died(program)


def stop(program: Program) -> None:
    """Ends a program; kills it if it does not end in time."""
    with contextlib.suppress(BrokenPipeError):
        program.process.stdin.close()
    try:
        program.process.wait(_STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        program.process.kill()
        program.process.wait()
    program.process.stdout.close()
    program.log.close()


def measure(
    programs: Mapping[str, Program], *, rounds: int, seconds: float
) -> dict[str, dict[str, dict[str, Any]]]:
    """Measures cases in rounds; in each round the programs alternate for each case.

    Args:
      programs: just started, by name.
      rounds: number of measurements of each case.
      seconds: of each measurement.

    Returns:
      By case and program: `per_second`, the median; `rounds`; and the case's facts; or
      `error`. A program that did not start has the case "start".
    """
    facts = {name: _ready(program) for name, program in programs.items()}
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name, cases in facts.items():
        for case, fact in cases.items():
            found.setdefault(case, {})[name] = {**fact, "rounds": []}
    for _ in range(rounds):
        for case, rows in found.items():
            for name, row in rows.items():
                if "error" in row:
                    continue
                answer = _ask(programs[name], case, seconds)
                if "error" in answer:
                    row |= answer
                else:
                    row["rounds"].append(answer["per_second"])
    for rows in found.values():
        for row in rows.values():
            if "error" not in row:
                row["per_second"] = statistics.median(row["rounds"])
    return found


def measure_and_stop(
    programs: Mapping[str, Program], *, rounds: int, seconds: float
) -> dict[str, dict[str, dict[str, Any]]]:
    """Does the same as `measure`, and always ends the programs."""
    try:
        return measure(programs, rounds=rounds, seconds=seconds)
    finally:
        for program in programs.values():
            stop(program)
