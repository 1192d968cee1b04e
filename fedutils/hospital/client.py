"""A hospital's or an operator's side of the connection: get the model, send weights, ask how things stand."""

import collections
import concurrent.futures
import hashlib
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from thriftpy2.thrift import TApplicationException, TClient

from fedutils.errors import InputError
from fedutils.hospital.service import CHUNK_BYTES, FLServer, Refused, name_reason
from fedutils.hospital.tls import make_context
from fedutils.hospital.weights import LayerSpec, hash_arrays, read_layers, unpack, view_bytes
from fedutils.hospital.wire import Closed, FramedSocket, FrameError, check_message

_AHEAD = 4  # chunks that are under way at a time
_MOST_BYTES = 2_000_000_000  # that a server may say its model has
_WAITS_S = (0.2, 0.5, 1.0, 2.0, 4.0)  # before a call is tried again


class Refusal(InputError):
    """What the server refused; `reason` is a name of the enumeration ``Reason``."""

    def __init__(self, reason: str, message: str):
        super().__init__(f"the server refused ({reason}): {message}")
        self.reason = reason


@dataclass(frozen=True)
class Received:
    """The server's model: its version, its layers, their values, and the ``.keras`` file behind them."""

    version: int
    layers: tuple[LayerSpec, ...]
    arrays: list[np.ndarray]
    file: bytes | bytearray


class Console:
    """What can be asked of a server; connects by itself, and again when the connection is lost.

    Parameters
    ----------
    address : (str, int)
        Name and port of the server; the name must be in its certificate.
    certificates : Path
        The folder of this hospital's certificate.
    name : str
        Of the hospital, as in its certificate; or ``operator``.
    timeout_s : float
        For one answer.
    waits_s : sequence of float
        Before a call is tried again, and again; empty for once only.
    say : callable
        Told what is tried again.
    """

    def __init__(
        self,
        address: tuple[str, int],
        certificates: Path,
        name: str,
        *,
        timeout_s: float = 60.0,
        waits_s: Sequence[float] = _WAITS_S,
        say: Callable[[str], None] = lambda text: None,
    ):
        self.address, self.name, self._timeout_s, self._say = address, name, timeout_s, say
        self._waits_s = tuple(waits_s)
        self._context = make_context(certificates, name, server=False)
        self._framed: FramedSocket | None = None

    def __enter__(self):
        """Return the console; it connects when it is first asked."""
        return self

    def __exit__(self, *_):
        """Hang up."""
        self.close()

    def close(self) -> None:
        """Hang up."""
        if self._framed:
            self._framed.close()
            self._framed = None

    def get_version(self) -> int:
        """Return how many times the server has aggregated."""
        return self._retry(lambda: self._call("version_number"))

    def count_collected(self) -> int:
        """Return how many hospitals' weights were collected for the present version."""
        return self._retry(lambda: self._call("number_weights_collected"))

    def aggregate(self) -> int:
        """Make the server aggregate, as its operator; return the new version. Not tried again by itself."""
        try:
            return self._call("update_weights")
        except Closed as error:
            self.close()
            raise self._lost(error) from error

    def get_model(self) -> Received:
        """Get the server's model; whole and unchanged, by its hashes."""
        return self._retry(self._get_model)

    def send(
        self,
        version: int,
        cases: int,
        arrays: Sequence[np.ndarray],
        layers: Sequence[LayerSpec],
        sha256: str | None = None,
    ) -> str:
        """Send weights that were trained from a version, and return their SHA-256 once they are on its disk.

        If the connection is lost, the server is asked whether they had come before they are sent again.

        Parameters
        ----------
        version : int
            That they were trained from.
        cases : int
            Images that they were trained on.
        arrays : sequence of ndarray
        layers : sequence of LayerSpec
            What they are, in the same order.
        sha256 : str, optional
            `fedutils.hospital.weights.hash_arrays` of the arrays when they were trained: what has changed
            since is refused. Computed on the way by default.

        Raises
        ------
        Refusal
            With the server's reason.
        InputError
            If the server cannot be reached.
        """
        tried: list[str] = []  # the hash, once a commit was asked for

        def attempt():
            # After a lost connection: had they come? The answer to the commit may be what was lost.
            if tried and self._call("get_receipt", version).sha256 == tried[0]:
                return
            self._call("begin_submission", self.name, version, cases, [layer.to_thrift() for layer in layers])
            for _ in self._pipeline(_cut(arrays)):
                pass
            tried[:] = [sha256 or digest.result()]
            self._call("commit_submission", *tried)

        with concurrent.futures.ThreadPoolExecutor(1) as beside:  # neither hash nor TLS holds Python's lock
            digest = None if sha256 else beside.submit(hash_arrays, arrays)
            self._retry(attempt)
        return tried[0]

    def _get_model(self) -> Received:
        told = self._call("get_model")
        try:
            layers = read_layers(told.layers, _MOST_BYTES)
        except Refused as error:  # this side refuses, too
            raise InputError(f"server: {error.message}") from error
        version = told.version
        weights = self._fetch(
            told.weights_bytes, told.weights_sha256, lambda at: ("get_weights_chunk", version, at)
        )
        file = self._fetch(told.file_bytes, told.file_sha256, lambda at: ("get_file_chunk", at))
        return Received(version, layers, unpack(layers, weights), file)

    def _fetch(self, size: int, sha256: str, call_at: Callable[[int], tuple]) -> bytes:
        if not 0 <= size <= _MOST_BYTES:
            raise InputError(f"server: expected at most {_MOST_BYTES:,} bytes, found a claim of {size:,}")
        data, came, digest = bytearray(size), 0, hashlib.sha256()
        with memoryview(data) as view, concurrent.futures.ThreadPoolExecutor(1) as beside:
            for chunk in self._pipeline(call_at(at) for at in range(0, size, CHUNK_BYTES)):
                first, came = came, came + len(chunk)
                if came > size:
                    break
                view[first:came] = chunk
                beside.submit(digest.update, view[first:came])
        if came != size or digest.hexdigest() != sha256:
            raise Closed("other bytes came than the server said")
        return data

    def _retry(self, attempt: Callable):
        """Call until it is answered; what the server is too busy for, and lost connections, a few times."""
        for wait in (*self._waits_s, None):
            try:
                return attempt()
            except (Closed, Refusal) as error:
                self.close()
                passing = isinstance(error, Closed) or error.reason in ("BUSY", "TOO_OFTEN", "CANNOT_STORE")
                moved = isinstance(error, Refusal) and error.reason == "STALE" and attempt == self._get_model
                if wait is None or not (passing or moved):
                    raise (self._lost(error) if isinstance(error, Closed) else error) from error
                self._say(f"{error}; trying again in {wait:g} s")
                time.sleep(wait)

    def _lost(self, error: Exception) -> InputError:
        host, port = self.address
        return InputError(
            f"{host}:{port}: expected a server that answers, found: {error}; ask whether it runs, and "
            "whether this certificate is still good"
        )

    def _call(self, method: str, *arguments):
        (answer,) = self._pipeline(iter([(method, *arguments)]))
        return answer

    def _pipeline(self, calls):
        """Make calls, a few of them before the first is answered, and yield the answers in order."""
        framed = self._connect()
        client = TClient(FLServer, framed.protocol)
        waiting: collections.deque[str] = collections.deque()
        try:
            for method, *arguments in calls:
                names = [spec[1] for spec in getattr(FLServer, f"{method}_args").thrift_spec.values()]
                client._send(method, **dict(zip(names, arguments, strict=True)))
                waiting.append(method)
                if len(waiting) > _AHEAD:
                    yield self._receive(framed, client, waiting.popleft())
            while waiting:
                yield self._receive(framed, client, waiting.popleft())
        except FrameError as error:
            raise Closed(f"the server's answer cannot be read: {error}") from error
        except TApplicationException as error:
            self.close()
            raise Refusal("UNREADABLE", str(error)) from error
        except Refused as error:
            self.close()  # the answers to what was sent ahead are of no use
            raise Refusal(name_reason(error), error.message) from error

    @staticmethod
    def _receive(framed: FramedSocket, client: TClient, method: str):
        check_message(framed.read_frame())
        return client._recv(method)

    def _connect(self) -> FramedSocket:
        if self._framed is None:
            host, port = self.address
            try:
                plain = socket.create_connection((host, port), timeout=self._timeout_s)
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                secure = self._context.wrap_socket(plain, server_hostname=host)
            except ssl.SSLCertVerificationError as error:
                raise InputError(
                    f"{host}:{port}: expected the certificate of our server, found: {error.verify_message}; "
                    "check the address, and that authority.pem is the server's"
                ) from error
            except OSError as error:
                raise Closed(str(error)) from error
            self._framed = FramedSocket(secure, idle_s=self._timeout_s, read_s=self._timeout_s)
        return self._framed


def _cut(arrays: Sequence[np.ndarray]) -> Iterator[tuple]:
    """Yield the calls that send arrays; only a chunk of parts of several is copied."""
    offset, parts, size = 0, [], 0
    for view in view_bytes(arrays):
        while len(view):
            parts.append(view[: CHUNK_BYTES - size])
            size += len(parts[-1])
            view = view[len(parts[-1]) :]
            if size == CHUNK_BYTES:
                yield "send_chunk", offset, parts[0] if len(parts) == 1 else b"".join(parts)
                offset, parts, size = offset + size, [], 0
    if parts:
        yield "send_chunk", offset, b"".join(parts)
