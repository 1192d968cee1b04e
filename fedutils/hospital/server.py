"""The server: a thread a connection, as many as the limits allow, over mutual TLS.

Nothing that comes over the network ends it: a connection that breaks the rules is told so, and closed.
"""

import collections
import contextlib
import socket
import sqlite3
import ssl
import threading
import traceback
from collections.abc import Callable

from thriftpy2.thrift import TApplicationException, TMessageType, TProcessor

from fedutils.errors import InputError
from fedutils.hospital.limits import Limits, Memory, Rate
from fedutils.hospital.revocation import DenyList
from fedutils.hospital.service import FLServer, Refused, name_reason, refuse
from fedutils.hospital.session import Guest, Session
from fedutils.hospital.state import State
from fedutils.hospital.tls import read_peer
from fedutils.hospital.wire import Closed, FramedSocket, FrameError, check_message

_TIDY_S = 5.0


class Server:
    """A server that listens from its construction on.

    Parameters
    ----------
    state : State
    context : ssl.SSLContext
        See `fedutils.hospital.tls.make_context`.
    host : str
        Where to listen; ``0.0.0.0`` for all addresses of this machine.
    port : int
        0 for any that is free; see `port`.
    limits : Limits
    aggregate_when : int, optional
        Aggregate as soon as so many hospitals' weights were collected.
    denied : DenyList, optional
        Certificates that were withdrawn.
    """

    def __init__(
        self,
        state: State,
        context: ssl.SSLContext,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        limits: Limits | None = None,
        aggregate_when: int | None = None,
        denied: DenyList | None = None,
    ):
        self.state, self.limits, self._context = state, limits or Limits(), context
        if len(state.model.weights) > self.limits.model_mb * 1e6:
            raise InputError(
                f"{state.path}: expected a model of at most {self.limits.model_mb:g} MB, found "
                f"{len(state.model.weights) / 1e6:.1f} MB; raise the limit model_mb"
            )
        if aggregate_when is not None and aggregate_when < 1:
            raise InputError(f"aggregate_when: expected at least 1 hospital, found {aggregate_when}")
        self._aggregate_when, self._aggregating = aggregate_when, threading.Lock()
        self._denied = denied
        self._memory = Memory(int(self.limits.memory_mb * 1e6))
        self._guests: dict[str, Guest] = {}
        self._open = threading.BoundedSemaphore(self.limits.connections)
        self._mutex, self._logged, self._unlogged = threading.Lock(), Rate(1.0, 100.0), 0
        try:
            self._listener = socket.create_server((host, port), backlog=128)
        except OSError as error:
            raise InputError(
                f"{host}:{port}: expected an address and a port that are free, found: {error.strerror}; "
                "choose another by --host and --port"
            ) from error
        self._stopping = threading.Event()
        self._aggregate_if_enough()  # a server that was stopped between the last submission and the mean

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._listener.getsockname()[1]

    def serve(self) -> None:
        """Accept connections until `stop`."""
        threading.Thread(target=self._tidy, daemon=True).start()
        while not self._stopping.is_set():
            try:
                connection, address = self._listener.accept()
            except OSError:  # closed by stop, or out of descriptors
                self._stopping.wait(0.05)
                continue
            if not self._open.acquire(blocking=False):
                connection.close()
                self._note("?", "turned away", {"address": address[0], "reason": "too many connections"})
                continue
            threading.Thread(target=self._host, args=(connection, address[0]), daemon=True).start()

    def stop(self) -> None:
        """Take no more connections. What was acknowledged is on the disk."""
        self._stopping.set()
        self.state.grown.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _tidy(self) -> None:
        while not self._stopping.is_set():
            self.state.grown.wait(_TIDY_S)
            with contextlib.suppress(sqlite3.Error):  # a full disk: the next time may do
                self.state.tidy()

    def _host(self, connection: socket.socket, address: str) -> None:
        """Serve a connection from its first byte to its last."""
        try:
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.settimeout(self.limits.handshake_s)
                try:
                    secure = self._context.wrap_socket(connection, server_side=True)
                    certificate = secure.getpeercert()
                    name, role = read_peer(certificate)
                    check = self._watch(name, certificate["serialNumber"])
                    check()
                except (OSError, ssl.SSLError, InputError, Refused) as error:
                    told = (getattr(error, name, None) for name in ("verify_message", "message", "reason"))
                    reason = next(filter(None, told), str(error))
                    self._note("?", "turned away", {"address": address, "reason": str(reason)[:200]})
                    return
                with secure:
                    self._welcome(secure, name, role, address, check)
        finally:
            self._open.release()

    def _watch(self, name: str, serial: str) -> Callable[[], None]:
        """Return what refuses a certificate once it was withdrawn."""

        def check() -> None:
            if self._denied and self._denied.holds(serial):
                raise refuse(
                    "WITHDRAWN",
                    f"expected a certificate that is good, found that of {name} withdrawn (serial {serial}); "
                    "ask for another",
                )

        return check

    def _welcome(self, secure: ssl.SSLSocket, name: str, role: str, address: str, check) -> None:
        """Serve a hospital's connection, unless it has too many."""
        with self._mutex:
            guest = self._guests.setdefault(name, Guest.arrive(self.limits))
            guest.connections += 1
            crowded = guest.connections > self.limits.connections_each
        framed = FramedSocket(secure, idle_s=self.limits.idle_s, read_s=self.limits.read_s)
        session = Session(name, role, guest, self.state, self._memory, self.limits, self._aggregate_if_enough)
        bad: collections.Counter[str] = collections.Counter()
        try:
            if crowded:
                framed.read_frame()
                self._complain(
                    framed, f"expected at most {self.limits.connections_each} connections of {name}; wait"
                )
            else:
                self._converse(framed, session, check, bad)
        except (Closed, FrameError):
            pass  # nobody is left to be told
        finally:
            session.close()
            with self._mutex:  # before the log is written: a slow disk must not make a hospital look crowded
                guest.connections -= 1
            if bad:  # one entry a connection: a log must not grow with what a stranger sends
                detail = {"address": address, "calls": bad.total(), "reason": bad.most_common(1)[0][0]}
                self._note(name, "could not be read", detail)

    def _converse(self, framed: FramedSocket, session: Session, check, bad: collections.Counter) -> None:
        """Answer calls until the hospital hangs up, or breaks the rules once too often; count in `bad`."""
        processor = TProcessor(FLServer, _Polite(session, self._note, check))
        while True:
            try:
                check_message(framed.read_frame())
                processor.process(framed.protocol, framed.protocol)
            except Closed:
                raise
            except (FrameError, UnicodeDecodeError) as error:
                reason = str(error) if isinstance(error, FrameError) else "expected text in UTF-8"
                bad[reason.split(", found")[0]] += 1
                last = bad.total() >= self.limits.bad_frames or getattr(error, "lost", False)
                self._complain(framed, f"{reason}; {'hanging up' if last else 'mend the call'}")
                if last:
                    return
            except Exception as error:  # a fault of ours: it costs this call, not the server
                traceback.print_exc()
                kind = type(error).__name__
                self._note(session.name, "failed", {"error": kind})
                self._complain(framed, f"the server failed ({kind}); its operator's log says more")

    def _complain(self, framed: FramedSocket, reason: str) -> None:
        """Answer a call that could not be read."""
        framed.discard()  # half an answer
        protocol = framed.protocol
        protocol.write_message_begin("", TMessageType.EXCEPTION, 0)
        protocol.write_struct(TApplicationException(TApplicationException.PROTOCOL_ERROR, reason))
        framed.flush()

    def _aggregate_if_enough(self) -> None:
        if self._aggregate_when is None:
            return
        with self._aggregating:
            if len(self.state.list_collected()) >= self._aggregate_when:
                with contextlib.suppress(Refused):  # a full disk: the next submission tries again
                    self.state.aggregate()

    def _note(self, who: str, event: str, detail: dict) -> None:
        """Log what was refused; when there is too much of it, how much was left out."""
        if not self._logged.take():
            self._unlogged += 1
            return
        left_out, self._unlogged = self._unlogged, 0
        with contextlib.suppress(Refused):  # the disk may be full: refusals are still answered
            self.state.log(who, event, detail | ({"left_out_before": left_out} if left_out else {}))


class _Polite:
    """A session whose refusals are logged, whose calls are counted, and whose certificate is watched."""

    def __init__(self, session: Session, note, check):
        self._session, self._note, self._check = session, note, check

    def __getattr__(self, method: str):
        def call(*arguments):
            try:
                self._session.count_call()
                self._check()
                return getattr(self._session, method)(*arguments)
            except Refused as refused:
                self._note(
                    self._session.name,
                    "refused",
                    {"method": method, "reason": name_reason(refused), "message": refused.message},
                )
                raise

        return call
