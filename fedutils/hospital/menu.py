"""A menu at a terminal: numbered entries, of which the last one logs out."""

from collections.abc import Callable, Sequence

from fedutils.errors import InputError
from fedutils.hospital.service import Refused

LOG_OUT = "Log out"


def run_menu(
    title: str,
    entries: Sequence[tuple[str, Callable[[], str]]],
    *,
    read: Callable[[str], str] = lambda prompt: input(prompt),
    write: Callable[[str], None] = print,
) -> None:
    """Let an operator choose until they log out, or the input ends.

    Parameters
    ----------
    title : str
    entries : sequence of (str, callable)
        What can be chosen, and what does it; it returns a line to show. Bad input and refusals are shown, and
        the menu goes on.
    read, write : callable
        Of a line.
    """
    while True:
        shown = [*(label for label, _ in entries), LOG_OUT]
        write("\n".join(["", title, *(f"  {number}. {label}" for number, label in enumerate(shown, 1))]))
        try:
            answer = read("> ").strip()
        except EOFError:
            return
        if answer == str(len(shown)):
            return
        if not (answer.isascii() and answer.isdigit() and 0 < int(answer) < len(shown)):
            write(f"expected a number from 1 to {len(shown)}, found {answer!r}")
            continue
        try:
            write(entries[int(answer) - 1][1]())
        except InputError as error:
            write(f"error: {error}")
        except Refused as refused:
            write(f"error: {refused.message}")
