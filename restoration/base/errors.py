"""The one error that a user's input can cause."""


def one_line(text: str) -> str:
    """Returns text that can neither break a line nor steer a terminal."""
    return "".join(
        letter
        if letter.isprintable()
        else letter.encode("unicode_escape").decode("ascii")
        for letter in text
    )


class InputError(ValueError):
    """Bad input, reported in one line that names the thing and the remedy.

    Entry points print the line without a traceback and exit with code 2, or
    report it and go on with the next file. Whatever is in a file's name, it stays
    one line.
    """

    def __init__(self, line: object = ""):
        super().__init__(one_line(str(line)))
