"""Command lines: an options dataclass becomes absl flags, errors one line.

Exit codes of every entry point: 0, all done; 1, some files failed; 2, the
command cannot start.
"""

import dataclasses
import sys
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any

from absl import app, flags, logging

from restoration.base import config, errors

# Flags defined from here on belong to the module that calls, for --help.
flags.disclaim_key_flags()

_DEFINE = {
    str: flags.DEFINE_string,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    bool: flags.DEFINE_boolean,
    tuple: flags.DEFINE_multi_string,
}


def _kind(annotation: Any) -> type:
    """Returns the plain type of a field: `str | None` is str, tuples are tuple."""
    if isinstance(annotation, types.UnionType):
        (annotation,) = set(typing.get_args(annotation)) - {types.NoneType}
    return typing.get_origin(annotation) or annotation


def define_flags(options_class: type, flag_values: flags.FlagValues) -> None:
    """Defines one absl flag for each field of an options dataclass."""
    for field in dataclasses.fields(options_class):
        kind = _kind(field.type)
        default = None if field.default is dataclasses.MISSING else field.default
        text = field.metadata["help"]
        if field.default is dataclasses.MISSING:
            text += " (required)"
        extra = {"short_name": field.metadata["short"], "flag_values": flag_values}
        if field.metadata["choices"]:
            text += ": " + ", ".join(field.metadata["choices"])
        if kind is tuple:
            default = list(default) if default else None
        _DEFINE[kind](field.name, default, text, **extra)
        if field.metadata["alias"]:
            flags.DEFINE_alias(
                field.metadata["alias"], field.name, flag_values=flag_values
            )


def parse(argv: list[str], options_class: type, flag_values: flags.FlagValues) -> Any:
    """Returns the options that a command line asks for.

    Args:
      argv: the program's name and its arguments.
      options_class: the options dataclass.
      flag_values: flags defined by `define_flags`.

    Returns:
      An instance of options_class.

    Raises:
      InputError: for unknown flags, bad values, missing required flags and
        arguments that belong to no flag.
    """
    _check_renamed(argv, options_class)
    try:
        rest = flag_values(argv)[1:]
    except (flags.Error, UnicodeDecodeError) as error:  # the latter by --flagfile
        line = " ".join(str(error).split())
        raise errors.InputError(f"{line} (see --help)") from None
    return _from_flags(options_class, flag_values, rest)


def _check_renamed(argv: Sequence[str], options_class: type) -> None:
    """Raises InputError where a flag is given by its earlier name."""
    given = {word.split("=")[0][2:] for word in argv[1:] if word.startswith("--")}
    for field in dataclasses.fields(options_class):
        before = field.metadata["formerly"]
        if before in given:
            raise errors.InputError(f"--{before} is now named --{field.name}")


def _from_flags(
    options_class: type, flag_values: flags.FlagValues, rest: Sequence[str] = ()
) -> Any:
    """Returns options from flags that were parsed, and the remaining arguments."""
    values: dict[str, Any] = {}
    given = _given_defaults(options_class, flag_values)
    for field in dataclasses.fields(options_class):
        value = flag_values[field.name].value
        if field.name in given and not flag_values[field.name].present:
            value = given[field.name]
        if field.metadata["positional"]:
            value, rest = (*(value or ()), *rest), []
        if _kind(field.type) is tuple:
            value = tuple(value or ())
        if field.default is dataclasses.MISSING and value in (None, ()):
            short = field.metadata["short"]
            name = f"-{short}" if short else f"--{field.name}"
            raise errors.InputError(f"{name} is required: {field.metadata['help']}")
        values[field.name] = value
    if rest:
        raise errors.InputError(f"unexpected argument {rest[0]!r} (see --help)")
    return options_class(**values)


def _given_defaults(
    options_class: type, flag_values: flags.FlagValues
) -> dict[str, Any]:
    """Returns the values that an option such as `--recipe` gives to others."""
    fields = {field.name: field for field in dataclasses.fields(options_class)}
    found: dict[str, Any] = {}
    for name, field in fields.items():
        value = flag_values[name].value
        if not (field.metadata["defaults"] and value):
            continue
        for other, given in field.metadata["defaults"](value).items():
            source = f"--{name}={value}"
            if other not in fields:
                raise errors.InputError(f"{source}: there is no option --{other}")
            config.check_type(fields[other], given, source=source)
            found[other] = given
    return found


def run(main: Callable[..., int | None], options_class: type, *others: type) -> None:
    """Runs an entry point: parses flags, calls main(options), exits.

    Args:
      main: takes the options and returns the exit code (None is 0).
      options_class: the options dataclass.
      *others: further options dataclasses; main is given an instance of each.
    """
    for defined in (options_class, *others):
        define_flags(defined, flags.FLAGS)
    flags.FLAGS.set_gnu_getopt(True)
    app.define_help_flags()

    def guarded(call: Callable[[], Any]) -> Any:
        try:
            return call()
        except errors.InputError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)
        except OSError as error:
            # A disk, a permission, a name: no fault of the program, and no one else's
            # remedy. Where more is known, it is said where it happens.
            if error.filename is None:
                raise
            print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
            sys.exit(2)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(130)

    def start(argv: list[str]) -> Any:
        try:
            options = parse(argv, options_class, flags.FLAGS)
        except SystemExit:  # only --help leaves while parsing, with absl's code 1
            sys.exit(0)
        # app.run would raise it to INFO, where Orbax logs its every step.
        if flags.FLAGS["verbosity"].using_default_value:
            flags.FLAGS.verbosity = logging.WARNING
        return [options, *(_from_flags(other, flags.FLAGS) for other in others)]

    app.run(
        lambda options: guarded(lambda: main(*options)),
        flags_parser=lambda argv: guarded(lambda: start(argv)),
    )
