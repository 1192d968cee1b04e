"""How much a server takes from anyone: connections, time, memory, calls; and how large an update may be."""

import dataclasses
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fedutils.errors import InputError


@dataclass(frozen=True)
class Limits:
    """The limits of a server; all can be set on the command line.

    Attributes
    ----------
    connections : int
        At a time, of all hospitals together, those that have not shown a certificate yet included.
    connections_each : int
        At a time, of one hospital.
    handshake_s : float
        Until a certificate is shown.
    idle_s : float
        Between two calls on a connection.
    read_s : float
        From the first byte of a call to its last, and for the answer to be taken.
    submission_s : float
        From the begin of a submission to its commit.
    memory_mb : float
        Of weights that have come and are not committed, all hospitals together; one submission always fits.
    model_mb : float
        Of the model itself.
    cases : int
        That a hospital may say it trained on: it is the weight of its update in the mean.
    norm : float
        Largest L2 distance of a hospital's weights from the server's model.
    submissions_a_minute : float
        Of one hospital, begun or finished.
    calls_a_second : float
        Of one hospital; ten seconds' worth may come at once.
    bad_frames : int
        Calls that cannot be read, after which a connection is closed.
    """

    connections: int = 64
    connections_each: int = 4
    handshake_s: float = 10.0
    idle_s: float = 60.0
    read_s: float = 30.0
    submission_s: float = 600.0
    memory_mb: float = 512.0
    model_mb: float = 500.0
    cases: int = 1_000_000
    norm: float = 1000.0
    submissions_a_minute: float = 30.0
    calls_a_second: float = 2000.0
    bad_frames: int = 100

    def __post_init__(self):
        """Refuse what is not above 0."""
        for field in dataclasses.fields(self):
            if not 0 < (value := getattr(self, field.name)) < float("inf"):
                raise InputError(f"limit {field.name}: expected a number above 0, found {value}; mend it")


class Rate:
    """A bucket of tokens: `burst` calls at once, then `per_second` of them."""

    def __init__(self, per_second: float, burst: float, clock: Callable[[], float] = time.monotonic):
        self._per_second, self._burst, self._clock = per_second, burst, clock
        self._tokens, self._filled = burst, clock()
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Take a token; False if there is none."""
        with self._lock:
            now = self._clock()
            self._tokens = min(self._burst, self._tokens + (now - self._filled) * self._per_second)
            self._filled = now
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True


class Memory:
    """A number of bytes that several threads share; one claim is always let in when there is no other."""

    def __init__(self, most: int):
        self._most, self._used, self._lock = most, 0, threading.Lock()

    def claim(self, count: int) -> bool:
        """Set bytes aside; False if there are not so many."""
        with self._lock:
            if self._used and self._used + count > self._most:
                return False
            self._used += count
            return True

    def release(self, count: int) -> None:
        """Give back what `claim` set aside."""
        with self._lock:
            self._used -= count


def read_limits(words: Sequence[str]) -> Limits:
    """Return the limits with those changed that words such as ``norm=100`` name.

    Raises
    ------
    InputError
        If a word is not such a one.
    """
    kinds = {field.name: field.type for field in dataclasses.fields(Limits)}
    changed = {}
    for word in words:
        name, _, value = word.partition("=")
        try:
            changed[name] = kinds[name](value)
        except (KeyError, ValueError):
            raise InputError(
                f"--limit: expected NAME=NUMBER with a name of {', '.join(kinds)}, found {word!r}; mend it"
            ) from None
    return Limits(**changed)
