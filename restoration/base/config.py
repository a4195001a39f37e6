"""Options as frozen dataclasses, and their JSON form.

Every field made with `option` carries its help text, so that `cli.run` can
offer it as a flag; there is no second list of defaults.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

from restoration.base import errors


def option(
    default: Any = dataclasses.MISSING,
    *,
    help: str,
    short: str | None = None,
    positional: bool = False,
    choices: tuple[str, ...] | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
    later: bool = False,
    free: bool = False,
    formerly: str | None = None,
    defaults: Callable[[str], Mapping[str, Any]] | None = None,
    alias: str | None = None,
) -> Any:
    """Declares one option of an options dataclass.

    Args:
      default: the value without the flag; none given makes the flag required.
      help: one line for `--help`.
      short: a one-letter name for the flag.
      positional: whether the remaining arguments belong to it (tuples only).
      choices: the words that are allowed.
      minimum: the least value that is allowed.
      maximum: the greatest value that is allowed.
      later: whether files of earlier versions lack it; their runs had the default.
      free: whether a run that goes on may have another value than it began with.
      formerly: the flag's earlier name, which is answered with the new one.
      defaults: makes of the flag's value the values of other options, which their
        flags override.
      alias: another name of the flag, which works as well.

    Returns:
      A dataclass field.
    """
    metadata = {
        "help": help,
        "short": short,
        "positional": positional,
        "choices": choices,
        "minimum": minimum,
        "maximum": maximum,
        "later": later,
        "free": free,
        "formerly": formerly,
        "defaults": defaults,
        "alias": alias,
    }
    return dataclasses.field(default=default, metadata=metadata)


def check(options: Any) -> None:
    """Raises InputError where a field lies outside its choices or limits."""
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        low, high = field.metadata.get("minimum"), field.metadata.get("maximum")
        choices = field.metadata.get("choices")
        if choices and value not in choices:
            raise errors.InputError(
                f"--{field.name}={value}: choose one of {', '.join(choices)}"
            )
        if value is None or (low is None and high is None):
            continue
        if (
            not -math.inf < value < math.inf  # an integer may be too large for isfinite
            or (low is not None and value < low)
            or (high is not None and value > high)
        ):
            bounds = f"at least {low}" if high is None else f"from {low} to {high}"
            raise errors.InputError(f"--{field.name}={value}: must be {bounds}")


def _completed(values: Mapping[str, Any], options: Any) -> dict[str, Any]:
    """Adds the options that came later than these values, as they were then."""
    later = [f for f in dataclasses.fields(options) if f.metadata.get("later")]
    return {field.name: field.default for field in later} | dict(values)


def differences(
    before: Mapping[str, Any], after: Any, free: Collection[str] = ()
) -> list[str]:
    """Returns in words how options differ from earlier ones.

    Args:
      before: the fields of the earlier ones.
      after: a dataclass.
      free: fields that may differ.

    Returns:
      "name before -> after" for each of the other fields that differs.
    """
    before = _completed(before, after)
    return [
        f"{name} {before.get(name)} -> {value}"
        for name, value in dataclasses.asdict(after).items()
        if name not in free and before.get(name) != value
    ]


def parse(text: str | bytes) -> Any:
    """Parses JSON that may come from anywhere.

    Raises:
      ValueError: for what is no JSON, and for what is nested too deep to be read.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None


def to_json(options: Any) -> str:
    """Returns an options dataclass as indented JSON."""
    return json.dumps(dataclasses.asdict(options), indent=1) + "\n"


def from_json(text: str, options_class: type, *, source: str) -> Any:
    """Reads an options dataclass from JSON, strictly.

    Args:
      text: a JSON object with the class's fields.
      options_class: the frozen dataclass.
      source: the file's name, for the error.

    Returns:
      An instance of the class.

    Raises:
      InputError: for malformed JSON, unknown, missing or ill-typed fields; those
        that came `later` may be missing.
    """
    try:
        values = parse(text)
    except ValueError as error:
        raise errors.InputError(f"{source}: not JSON ({error})") from None
    if not isinstance(values, dict):
        raise errors.InputError(f"{source}: not a JSON object")
    values = _completed(values, options_class)
    fields = {field.name: field for field in dataclasses.fields(options_class)}
    unknown = sorted(set(values) - set(fields))
    missing = sorted(set(fields) - set(values))
    if unknown or missing:
        raise errors.InputError(
            f"{source}: unknown fields {unknown}, missing fields {missing}; "
            "it was written by another version"
        )
    for name, value in values.items():
        check_type(fields[name], value, source=source)
    return options_class(**values)


def check_type(field: dataclasses.Field, value: Any, *, source: str) -> None:
    """Raises InputError where a value from JSON is not of its field's type."""
    expected = field.type
    number = expected is float and isinstance(value, int | float)
    if not (isinstance(value, expected) or number) or (
        isinstance(value, bool) and expected is not bool
    ):
        raise errors.InputError(
            f"{source}: {field.name} is {value!r}, not of type {expected.__name__}"
        )
