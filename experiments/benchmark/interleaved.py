"""Measures programs in turn, each in a process of its own.

A program prepares its cases, which compiles them, and says so; then it measures a
case whenever it is asked to. So all are compiled beforehand, several at once, and
then one alone computes at a time, in rounds. Requests go to the process's standard
input and JSON lines come back.
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

# Calls that are timed together, at most.
_MOST_CALLS = 2000

# Seconds that a program has to end.
_PATIENCE = 20.0


class Case(NamedTuple):
    """Something to measure.

    Attributes:
      call: starts the work; what it returns may not be there yet.
      wait: takes what `call` returned, and returns when it is there.
      amount: of work that a call does, such as images.
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


# In the process of a program.


def per_second(case: Case, seconds: float) -> float:
    """Returns how much a case does in a second, calls following each other closely."""
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
    """Returns what work gives; its failure as text, since the other cases count too."""
    try:
        return work()
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:400]}


def serve(makers: Mapping[str, Callable[[], Case]]) -> None:
    """Prepares all cases, then measures those that are asked for.

    Args:
      makers: make each case, by name.
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


# In the process that asks.


def start(
    module: str, arguments: Iterable[str], environment: Mapping[str, str]
) -> Program:
    """Starts a program: a module that calls `serve`."""
    # `stop` closes it.
    log = tempfile.TemporaryFile()  # noqa: SIM115
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments], env=dict(environment),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
    )  # fmt: skip
    return Program(process, log)


def _answer(program: Program) -> dict[str, Any] | None:
    """Returns the next JSON line, passing over others; None where there is none."""
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
    """Ends a program; it has a while to do so itself."""
    with contextlib.suppress(BrokenPipeError):
        program.process.stdin.close()
    try:
        program.process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        program.process.kill()
        program.process.wait()
    program.process.stdout.close()
    program.log.close()


def measure(
    programs: Mapping[str, Program], *, rounds: int, seconds: float
) -> dict[str, dict[str, dict[str, Any]]]:
    """Measures cases in rounds, the programs taking turns with each.

    Args:
      programs: just started, by name.
      rounds: how often each case is measured.
      seconds: each time.

    Returns:
      By case and program: `per_second`, the median, `rounds`, and the case's facts; or
      `error`. A program that did not start has the case "start".
    """
    facts = {name: _ready(program) for name, program in programs.items()}
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name, told in facts.items():
        for case, fact in told.items():
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
    """Does what `measure` does, and ends the programs, come what may."""
    try:
        return measure(programs, rounds=rounds, seconds=seconds)
    finally:
        for program in programs.values():
            stop(program)
