"""Thrift's frames over a TLS socket: a deadline and a limit for each, and a check of each before it is read.

A frame is four bytes of length and one message of Thrift's binary protocol [1]_. thriftpy2 reads messages as
they claim to be, and a field of the wrong type as the right one: a list of two thousand million elements
would keep it busy for hours. So a frame is walked first, within bounds and beside the types of
`fl_server.thrift`, and thriftpy2 sees only what is well formed.

References
----------
.. [1] Apache Thrift, "Thrift Binary protocol encoding" and "Thrift Remote Procedure Call", framed transport.
"""

import socket
import struct
import time

from thriftpy2.protocol.binary import TBinaryProtocol
from thriftpy2.thrift import TApplicationException, TMessageType, TType

from fedutils.hospital.service import CHUNK_BYTES, FLServer

MOST_FRAME = CHUNK_BYTES + (1 << 19)  # a chunk, or the layers of a model, and what is around them
_MOST_VALUES = 50_000  # in a message: 4,000 layers with name, dtype and shape
_MOST_DEPTH = 8
_MOST_TEXT = 1 << 12
_FIXED = {2: 1, 3: 1, 4: 8, 6: 2, 8: 4, 10: 8}  # bytes of bool, byte, double, i16, i32, i64
_VERSION_1 = 0x80010000  # and the kind of message in the last byte
_SLACK_S = 0.1  # by which a deadline may be missed: a timeout is set anew so often, not for each read
_LARGE = 1 << 14  # parts of a message above this size are sent from where they lie


class FrameError(Exception):
    """A frame that cannot be read; `lost` if nothing after it can be either."""

    def __init__(self, reason: str, *, lost: bool = False):
        super().__init__(reason)
        self.lost = lost


class Closed(Exception):
    """The other side has hung up, or was silent for too long."""


class FramedSocket:
    """Thrift's framed transport over a socket, for `TBinaryProtocol`.

    Parameters
    ----------
    connection : socket.socket
        Or a TLS socket.
    idle_s, read_s : float
        Until a frame begins, and from then until it ends; `read_s` also for what is sent.
    """

    def __init__(self, connection: socket.socket, *, idle_s: float, read_s: float):
        self._socket, self._idle_s, self._read_s = connection, idle_s, read_s
        self._buffer = bytearray(1 << 12)  # grows to the largest frame that came, at most MOST_FRAME
        self._frame = memoryview(b"")
        self._position = 0
        self._parts: list = []
        self.protocol = TBinaryProtocol(self, strict_decode=True)

    def read_frame(self) -> memoryview:
        """Receive a frame; `read` reads from it.

        Raises
        ------
        FrameError
            If it is longer than `MOST_FRAME`; its bytes are not received.
        Closed
            If the connection ended, or a deadline passed.
        """
        head = bytearray(4)
        self._receive(memoryview(head)[:1], time.monotonic() + self._idle_s)
        deadline = time.monotonic() + self._read_s
        self._receive(memoryview(head)[1:], deadline)
        (size,) = struct.unpack("!i", head)
        if not 0 < size <= MOST_FRAME:
            raise FrameError(
                f"expected a frame of 1 to {MOST_FRAME:,} bytes, found a claim of {size:,}", lost=True
            )
        self._frame = memoryview(b"")
        if size > len(self._buffer):
            self._buffer = bytearray(size)
        frame = memoryview(self._buffer)[:size]
        self._receive(frame, deadline)
        self._frame, self._position = frame, 0
        return frame

    def _receive(self, into: memoryview, deadline: float) -> None:
        """Fill `into`, or raise `Closed`: the deadline is for all of it, however it drips."""
        done, renew = 0, 0.0
        while done < len(into):
            now = time.monotonic()
            if now >= deadline:
                raise Closed("nothing came in time")
            try:
                if now >= renew:
                    self._socket.settimeout(deadline - now)
                    renew = now + _SLACK_S
                count = self._socket.recv_into(into[done:])
            except TimeoutError:
                raise Closed("nothing came in time") from None
            except OSError as error:  # of TLS as well
                raise Closed(str(error)) from error
            if not count:
                raise Closed("the other side hung up")
            done += count

    def read(self, count: int) -> bytes | memoryview:
        """Return the next bytes of the frame; large parts as a view, which the next frame overwrites."""
        end = self._position + count
        if count < 0 or end > len(self._frame):
            raise FrameError(f"expected {count:,} more bytes in the message, found the end of its frame")
        part = self._frame[self._position : end]
        self._position = end
        return part if count > _MOST_TEXT else bytes(part)

    def write(self, data) -> None:
        """Add to the frame that `flush` sends."""
        self._parts.append(data)

    def flush(self) -> None:
        """Send what was written, as one frame.

        Raises
        ------
        Closed
            If it was not taken in time.
        """
        parts, self._parts = self._parts, []
        small = [struct.pack("!i", sum(len(part) for part in parts))]
        self._socket.settimeout(self._read_s)
        try:
            for part in parts:
                if len(part) <= _LARGE:
                    small.append(part)
                    continue
                self._socket.sendall(b"".join(small))
                self._socket.sendall(part)
                small = []
            if small:
                self._socket.sendall(b"".join(small))
        except OSError as error:
            raise Closed(str(error)) from error

    def discard(self) -> None:
        """Forget what was written and not sent."""
        self._parts = []

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def check_message(frame) -> None:
    """Raise FrameError unless a frame is one whole message of Thrift's binary protocol, all types right."""
    if len(frame) < 12 or struct.unpack_from("!I", frame)[0] & 0xFFFFFF00 != _VERSION_1:
        raise FrameError("expected a message of Thrift's binary protocol, found other bytes")
    (length,) = struct.unpack_from("!i", frame, 4)
    if not 0 <= length <= min(100, len(frame) - 12):
        raise FrameError(f"expected a name of at most 100 bytes, found a claim of {length:,}")
    method, kind = bytes(frame[8 : 8 + length]).decode("ascii", "replace"), frame[3]
    if not method.isprintable() or not method.isascii():
        raise FrameError("expected a name in ASCII, found other bytes")
    spec = None
    if kind == TMessageType.EXCEPTION:
        spec = TApplicationException
    elif method in FLServer.thrift_services:
        spec = getattr(FLServer, method + ("_result" if kind == TMessageType.REPLY else "_args"))
    walk = _Walk(frame, 12 + length)
    walk.value(TType.STRUCT, spec, 0)
    if walk.position != len(frame):
        raise FrameError(
            f"expected one message in a frame, found {len(frame) - walk.position:,} bytes after it"
        )


class _Walk:
    def __init__(self, frame, position):
        self.frame, self.position, self.left = frame, position, _MOST_VALUES

    def number(self, form: str) -> int:
        try:
            (number,) = struct.unpack_from(form, self.frame, self.position)
        except struct.error:
            raise FrameError("expected a whole message, found the end of its frame") from None
        self.position += struct.calcsize(form)
        return number

    def value(self, kind: int, spec, depth: int) -> None:
        """Pass over a value; `spec` is what the service says of its parts."""
        self.left -= 1
        if self.left < 0 or depth > _MOST_DEPTH:
            raise FrameError(f"expected at most {_MOST_VALUES:,} values, {_MOST_DEPTH} deep, found more")
        if kind in _FIXED:
            self.position += _FIXED[kind]
        elif kind == TType.STRING:
            length = self.number("!i")
            most = MOST_FRAME if spec is bytes else _MOST_TEXT
            if not 0 <= length <= most:
                raise FrameError(f"expected a string of 0 to {most:,} bytes, found a claim of {length:,}")
            self.position += length
        elif kind == TType.STRUCT:
            while field := self.number("!b"):
                known = getattr(spec, "thrift_spec", {}).get(self.number("!h"))
                if known:
                    _match(field, known[0])
                inner = known[2] if known and len(known) == 4 else None
                self.value(field, bytes if known and known[0] == TType.BINARY else inner, depth + 1)
        elif kind in (TType.SET, TType.LIST, TType.MAP):
            kinds = [self.number("!b") for _ in range(1 + (kind == TType.MAP))]
            inner = spec if isinstance(spec, tuple) else (spec, None)
            if inner[0] is not None:
                _match(kinds[0], inner[0])
            count = self.number("!i")
            if count < 0:
                raise FrameError(f"expected 0 elements or more, found a claim of {count:,}")
            for _ in range(count):
                for part in kinds:
                    self.value(part, inner[1], depth + 1)
        else:
            raise FrameError(f"expected a type of Thrift, found {kind}")
        if self.position > len(self.frame):
            raise FrameError("expected a whole message, found the end of its frame")


def _match(found: int, expected: int) -> None:
    if found != (TType.STRING if expected == TType.BINARY else expected):
        raise FrameError(f"expected the types of the service, found {found} in the place of {expected}")
