"""The exceptions for input that the user can mend."""


class InputError(ValueError):
    """Bad input: a file, folder, profile or option that the user can mend.

    The message is one line that says what was expected, what was found, which file, and what to do.
    Command-line entry points print it without a traceback and exit with status 2.
    """


class DivergenceError(InputError):
    """A training whose weights or loss are no longer finite numbers; a lower learning rate mends it."""
