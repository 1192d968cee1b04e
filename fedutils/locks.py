"""A run's folder, held by one process at a time: another waits, and then finds what the first one left."""

import contextlib
import fcntl
import os
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from fedutils.errors import InputError

_FILE = ".lock"
_mine = threading.local()  # what this thread holds, which it may hold again


@contextlib.contextmanager
def hold(folder: Path | None) -> Iterator[None]:
    """Hold a folder inside ``with``; wait, and say so in one line, while another process does.

    The system lets go of it when the process ends, however it ends. A thread that holds the folder may hold
    it again inside.

    Parameters
    ----------
    folder : Path, optional
        Made if it is not there. A file ``.lock`` stays in it, with who held it last. None holds nothing.

    Raises
    ------
    InputError
        If the folder cannot be written to.
    """
    held = _mine.__dict__.setdefault("folders", set())
    folder = folder and Path(folder).resolve()
    if folder is None or folder in held:
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / _FILE).open("a+")
    except OSError as error:
        raise InputError(
            f"cannot write {folder}: {error.strerror}; make the folder writable, or choose another"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            _tell(folder, file.read().strip() or "another process")
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:  # a disk that knows no locks: nobody can be waited for
            pass
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        held.add(folder)
        try:
            yield
        finally:
            held.discard(folder)


def _tell(folder, who) -> None:
    print(f"{folder}: {who} trains here; waiting until it is done, Ctrl-C stops", file=sys.stderr, flush=True)
