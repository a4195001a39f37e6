"""The one error that a user's input can cause."""


class InputError(ValueError):
    """Bad input, told in one line that names the thing and the remedy.

    Entry points print the line without a traceback and exit with code 2, or
    report it and go on with the next file.
    """
