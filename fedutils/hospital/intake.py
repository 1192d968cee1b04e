"""Weights that are coming in: each chunk is hashed while the next one is on its way.

The hash takes a core about as long as the way through TLS; a thread of its own does it on another core, since
neither holds Python's lock.
"""

import concurrent.futures
import hashlib


class Intake:
    """A submission that was begun and is not committed.

    Parameters
    ----------
    size : int
        Of the weights, bytes.
    version, cases : int
        As the hospital says.
    deadline : float
        For the commit, on the monotonic clock.
    """

    def __init__(self, size: int, version: int, cases: int, deadline: float):
        self.version, self.cases, self.deadline = version, cases, deadline
        self.size, self.came = size, 0
        self.data = memoryview(bytearray(size))
        self._sha256 = hashlib.sha256()
        self._worker = concurrent.futures.ThreadPoolExecutor(1)

    def add(self, chunk) -> None:
        """Take the bytes that follow those that came; the caller has made sure that they fit."""
        first, self.came = self.came, self.came + len(chunk)
        self.data[first : self.came] = chunk
        self._worker.submit(self._sha256.update, self.data[first : self.came])

    def hash(self) -> str:
        """Return the SHA-256 of all that came, once it is known."""
        return self._worker.submit(self._sha256.hexdigest).result()  # behind all chunks

    def close(self) -> None:
        """Forget what came; on return no thread works on it."""
        self._worker.shutdown(cancel_futures=True)
