"""Weights that are coming in: each chunk is hashed and compared with the model while the next is on its way.

The hash takes a core about as long as the way through TLS; a thread of its own does it on another core, since
neither holds Python's lock.
"""

import concurrent.futures
import hashlib

from fedutils.hospital.weights import Distance


class Intake:
    """A submission that was begun and is not committed.

    Parameters
    ----------
    layers : sequence of LayerSpec
    own : bytes
        The model's weights, with which those that come are compared.
    version, cases : int
        As the hospital says.
    deadline : float
        For the commit, on the monotonic clock.
    """

    def __init__(self, layers, own: bytes, version: int, cases: int, deadline: float):
        self.version, self.cases, self.deadline = version, cases, deadline
        self.size, self.came = len(own), 0
        self.data = memoryview(bytearray(self.size))
        self._sha256, self._distance = hashlib.sha256(), Distance(layers, self.data, own)
        self._worker = concurrent.futures.ThreadPoolExecutor(1)
        self._fault: Exception | None = None

    def add(self, chunk) -> None:
        """Take the bytes that follow those that came; the caller has made sure that they fit."""
        first, self.came = self.came, self.came + len(chunk)
        self.data[first : self.came] = chunk
        self._worker.submit(self._look_at, first, self.came)

    def _look_at(self, first: int, end: int) -> None:
        self._sha256.update(self.data[first:end])
        if self._fault is None:
            try:
                self._distance.advance(end)
            except Exception as error:  # the hospital is told when it commits
                self._fault = error

    def hash(self) -> str:
        """Return the SHA-256 of all that came, once it is known."""
        return self._worker.submit(self._sha256.hexdigest).result()  # behind all chunks

    def measure_distance(self) -> float:
        """Return the L2 distance of what came from the model, after `hash`.

        Raises
        ------
        Refused
            If there is NaN or infinity in it.
        """
        if self._fault:
            raise self._fault
        return self._distance.value

    def close(self) -> None:
        """Forget what came; on return no thread works on it."""
        self._worker.shutdown(cancel_futures=True)
