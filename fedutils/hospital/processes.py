"""A federation on one machine, to learn with: the server and hospitals as processes of their own.

They are real processes, which can be killed; none outlives the one that started them.
"""

import atexit
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from fedutils.errors import InputError

_POLL_S = 0.02
# Becomes the program that follows; the kernel ends it with its parent, however that ends.
_LEASH = (
    "import ctypes, os, sys\n"
    "prctl = getattr(ctypes.CDLL(None), 'prctl', None)\n"
    f"prctl and prctl(1, {int(signal.SIGKILL)})\n"  # PR_SET_PDEATHSIG, of Linux
    "os.execv(sys.argv[1], sys.argv[1:])"
)


class Children:
    """Processes by name, each with its output in a file; all are stopped at the end of this one.

    Parameters
    ----------
    folder : Path
        For the files, ``<name>.log``; made if need be.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._running: dict[str, subprocess.Popen] = {}
        atexit.register(self.stop)

    def start(self, name: str, *words) -> None:
        """Start ``fedutils hospital`` with these words."""
        self.run(name, "-m", "fedutils.cli", "hospital", *words)

    def run(self, name: str, *words) -> None:
        """Start Python with these words; what it prints is read by `read`."""
        if self.is_running(name):
            raise InputError(f"{name}: expected a process that has ended, found it running; stop it first")
        command = [sys.executable, "-c", _LEASH, sys.executable, *map(str, words)]
        with self._path(name).open("wb") as log:
            self._running[name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
            )

    def start_server(self, *words, port: int = 0) -> int:
        """Start a server under the name ``server`` and return its port, once it listens."""
        self.start("server", "server", *words, "--port", port)
        return int(self.wait_for("server", r"listening on \S+:(\d+);")[1])

    def read(self, name: str) -> str:
        """Return what a process has printed so far."""
        return self._path(name).read_text(errors="replace")

    def is_running(self, name: str) -> bool:
        """Return whether a process was started and has not ended."""
        return name in self._running and self._running[name].poll() is None

    def wait_for(self, name: str, pattern: str, *, timeout_s: float = 120.0) -> re.Match:
        """Wait until a process has printed something, and return the match.

        Raises
        ------
        InputError
            If it ends or the time is over before that, with its last line.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            alive = self.is_running(name)  # before reading: its last words count
            if found := re.search(pattern, self.read(name)):
                return found
            if not alive or time.monotonic() > deadline:
                raise self._fault(name, f"{pattern!r} from it")
            time.sleep(_POLL_S)

    def wait(self, *names: str, timeout_s: float = 600.0) -> None:
        """Wait until processes have ended well.

        Raises
        ------
        InputError
            If one ends otherwise, or not in time.
        """
        deadline = time.monotonic() + timeout_s
        for name in names:
            try:
                status = self._running[name].wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                status = -1
            if status:
                raise self._fault(name, f"it to end well within {timeout_s:g} s")

    def kill(self, name: str) -> None:
        """Kill a process at once, as a power cut would; it cannot say goodbye."""
        self._running[name].kill()
        self._running[name].wait()

    def stop(self) -> None:
        """End all of them."""
        for process in self._running.values():
            if process.poll() is None:
                process.terminate()
        for process in self._running.values():
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def _fault(self, name: str, expected: str) -> InputError:
        last = (self.read(name).strip().splitlines() or ["nothing"])[-1]
        return InputError(f"{name}: expected {expected}, found: {last}; see {self._path(name).name}")
