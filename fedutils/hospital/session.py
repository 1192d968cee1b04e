"""What one hospital may do on one connection: the methods of `FLServer`, each with its refusals.

The name and role come from the certificate of the connection. A submission lives on its connection until it
is committed; when the connection ends, whatever had come is forgotten.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from fedutils.hospital.intake import Intake
from fedutils.hospital.limits import Limits, Memory, Rate
from fedutils.hospital.service import CHUNK_BYTES, Model, Receipt, refuse
from fedutils.hospital.state import State
from fedutils.hospital.weights import compare_layers, read_layers


@dataclass
class Guest:
    """What all connections of one hospital share: how often it may call, and how many connections it has."""

    calls: Rate
    submissions: Rate
    connections: int = 0

    @classmethod
    def arrive(cls, limits: Limits) -> "Guest":
        """Return a guest that has done nothing yet."""
        calls = Rate(limits.calls_a_second, 10 * limits.calls_a_second)
        return cls(calls, Rate(limits.submissions_a_minute / 60, max(1, limits.submissions_a_minute)))


class Session:
    """The handler of a connection's calls.

    Parameters
    ----------
    name, role : str
        Of the certificate.
    guest : Guest
    state : State
    memory : Memory
        Shared by all sessions.
    limits : Limits
    collected : callable
        Called after a submission was stored.
    """

    def __init__(
        self,
        name: str,
        role: str,
        guest: Guest,
        state: State,
        memory: Memory,
        limits: Limits,
        collected: Callable[[], None],
    ):
        self.name, self.role, self._guest = name, role, guest
        self._state, self._memory, self._limits, self._collected = state, memory, limits, collected
        self._begun: Intake | None = None

    def close(self) -> None:
        """Forget a submission that was not committed."""
        if self._begun:
            self._begun.close()
            self._memory.release(self._begun.size)
            self._begun = None

    def count_call(self) -> None:
        """Refuse a call if the hospital has made too many."""
        if not self._guest.calls.take():
            raise refuse(
                "TOO_OFTEN", f"expected at most {self._limits.calls_a_second:g} calls a second; wait"
            )

    def get_model(self):
        """Return what the model is."""
        model = self._state.model
        return Model(
            version=model.version,
            layers=[layer.to_thrift() for layer in model.layers],
            weights_bytes=len(model.weights),
            weights_sha256=model.sha256,
            file_bytes=len(model.file),
            file_sha256=model.file_sha256,
        )

    def get_weights_chunk(self, version, offset):
        """Return a chunk of the weights of a version."""
        model = self._state.model
        if version != model.version:
            raise refuse("STALE", f"expected version {model.version}, found {version}; get the model again")
        return _cut(model.weights, offset)

    def get_file_chunk(self, offset):
        """Return a chunk of the ``.keras`` file."""
        return _cut(self._state.model.file, offset)

    def begin_submission(self, hospital, version, number_of_cases, layers):
        """Set memory aside for weights that are all that they should be by their description."""
        if self.role != "hospital":
            raise refuse("NOT_ALLOWED", f"expected a hospital's certificate, found that of an {self.role}")
        if hospital != self.name:
            raise refuse(
                "NOT_YOURS",
                f"expected weights of {self.name}, as the certificate says, found {hospital!r:.80}",
            )
        if self._begun:
            raise refuse(
                "WRONG_ORDER", "expected one submission at a time on a connection; commit it, or hang up"
            )
        if not isinstance(number_of_cases, int) or not 0 < number_of_cases <= self._limits.cases:
            raise refuse("BAD_NUMBER", f"expected 1 to {self._limits.cases:,} cases, found {number_of_cases}")
        if not isinstance(version, int):
            raise refuse("BAD_NUMBER", "expected a version, found none")
        model = self._state.model
        compare_layers(read_layers(layers, len(model.weights)), model.layers)
        self._state.check_welcome(self.name, version)
        if not self._guest.submissions.take():
            most = self._limits.submissions_a_minute
            raise refuse("TOO_OFTEN", f"expected at most {most:g} submissions a minute; wait")
        if not self._memory.claim(len(model.weights)):
            raise refuse(
                "BUSY", f"expected memory for {len(model.weights):,} bytes, found it in use; try again"
            )
        deadline = time.monotonic() + self._limits.submission_s
        # The model of now, not of above: if it is another already, the commit is refused as stale.
        model = self._state.model
        self._begun = Intake(model.layers, model.weights, version, number_of_cases, deadline)

    def send_chunk(self, offset, data):
        """Take the next chunk."""
        begun = self._expect_begun()
        if data is None or offset != begun.came:
            self.close()
            raise refuse(
                "WRONG_ORDER", f"expected the bytes from {begun.came:,}, found {offset}; begin again"
            )
        if not 0 < len(data) <= CHUNK_BYTES or begun.came + len(data) > begun.size:
            self.close()
            raise refuse(
                "TOO_LARGE",
                f"expected 1 to {min(CHUNK_BYTES, begun.size - begun.came):,} bytes, found "
                f"{len(data):,}; begin again",
            )
        begun.add(data)

    def commit_submission(self, sha256):
        """Check the weights, store them, and acknowledge them."""
        begun = self._expect_begun()
        try:
            if begun.came < begun.size:
                raise refuse(
                    "INCOMPLETE", f"expected {begun.size:,} bytes, found {begun.came:,}; begin again"
                )
            if sha256 != begun.hash():
                raise refuse("WRONG_HASH", "expected the bytes that were sent, found others; begin again")
            self._state.check_welcome(self.name, begun.version)  # so the model is still that of `begun`
            distance = begun.measure_distance()
            if not distance <= self._limits.norm:
                raise refuse(
                    "TOO_FAR",
                    f"expected weights within {self._limits.norm:g} of the model (L2), found {distance:.6g}; "
                    "lower the learning rate and train again",
                )
            stored = self._state.submit(self.name, begun.version, begun.cases, begun.data, sha256)
        finally:
            self.close()
        self._collected()
        return Receipt(version=stored.version, number_of_cases=stored.cases, sha256=stored.sha256)

    def get_receipt(self, version):
        """Return what this hospital has sent for a version."""
        found = self._state.find_receipt(self.name, version)
        if found is None:
            return Receipt(version=version, number_of_cases=0, sha256="")
        return Receipt(version=found.version, number_of_cases=found.cases, sha256=found.sha256)

    def number_weights_collected(self):
        """Return how many hospitals have sent weights for the present version."""
        return len(self._state.list_collected())

    def version_number(self):
        """Return how many times weights were aggregated."""
        return self._state.model.version

    def update_weights(self):
        """Aggregate what was collected, for an operator; return the new version."""
        if self.role != "operator":
            raise refuse("NOT_ALLOWED", f"expected the operator's certificate, found that of {self.name}")
        return self._state.aggregate(self.name).version

    def _expect_begun(self) -> Intake:
        if not self._begun:
            raise refuse("WRONG_ORDER", "expected a submission to be begun first, found none")
        if time.monotonic() > self._begun.deadline:
            self.close()
            raise refuse(
                "TOO_LATE", f"expected a submission within {self._limits.submission_s:g} s; begin again"
            )
        return self._begun


def _cut(data: bytes, offset) -> memoryview:
    if not isinstance(offset, int) or not 0 <= offset < max(1, len(data)):
        raise refuse("BAD_NUMBER", f"expected an offset from 0 to {len(data) - 1:,}, found {offset}")
    return memoryview(data)[offset : offset + CHUNK_BYTES]
