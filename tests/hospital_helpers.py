"""Servers as processes of their own, consoles, and connections that misbehave, for the tests of hospitals."""

import contextlib
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from thriftpy2.thrift import TApplicationException, TMessageType

from fedutils.hospital.certificates import make_certificates
from fedutils.hospital.client import Console
from fedutils.hospital.service import FLServer
from fedutils.hospital.state import State
from fedutils.hospital.tls import make_context
from fedutils.hospital.weights import describe_layers, pack
from fedutils.hospital.wire import FramedSocket

ROOT = Path(__file__).resolve().parent.parent
COMMAND = [sys.executable, "-m", "fedutils.cli", "hospital"]
SHAPES = ((3, 5), (5,), (7, 2, 3))  # of the small model


def make_arrays(seed, shapes=SHAPES, scale=1.0):
    rng = np.random.default_rng(seed)
    return [(scale * rng.standard_normal(shape)).astype(np.float32) for shape in shapes]


def make_state(path, shapes=SHAPES, file=b"a model file"):
    """Make a state whose model is `make_arrays(0)`, and return the layers."""
    arrays = make_arrays(0, shapes)
    layers = describe_layers([f"layer_{i}/kernel" for i in range(len(arrays))], arrays)
    State.create(path, layers, pack(arrays), file).close()
    return layers


class RunningServer:
    """``fedutils hospital server`` on a free port; killed at the end if it still runs."""

    def __init__(self, folder, certificates, *options, state="state.db"):
        self.folder, self.state, self.certificates = Path(folder), Path(folder) / state, certificates
        self._options, self.port = options, 0
        self.start()

    def start(self):
        log = self.folder / "server.log"
        words = ["server", "--state", self.state, "--certificates", self.certificates / "server", "--no-menu"]
        with log.open("wb") as file:
            command = [*COMMAND, *map(str, words), "--port", str(self.port), *self._options]
            self.process = subprocess.Popen(command, stdout=file, stderr=file, cwd=ROOT)
        deadline = time.monotonic() + 120
        while not (found := re.search(r"listening on \S+:(\d+);.*\n", log.read_text())):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"the server did not start: {log.read_text()}")
            time.sleep(0.01)
        self.port, self.first_line = int(found[1]), found[0]

    def kill(self):
        """Kill -9."""
        self.process.kill()
        self.process.wait()

    def stop(self):
        """Stop by a signal, and return the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def console(self, name, **options):
        return Console(("localhost", self.port), self.certificates / name, name, **options)

    def connect(self, name="alpha", certificates=None):
        """Return a TLS connection that may say anything."""
        context = make_context((certificates or self.certificates) / name, name, server=False)
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return context.wrap_socket(plain, server_hostname="localhost")

    def is_up(self):
        with self.console("operator") as console:
            return console.get_version() >= 0

    def read_memory(self, field="VmRSS"):
        """Return megabytes of the process, now or (VmHWM) at most."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"{field}:\s+(\d+)", text)[1]) / 1e3


@contextlib.contextmanager
def running(folder, certificates, *options, **words):
    server = RunningServer(folder, certificates, *options, **words)
    try:
        yield server
    finally:
        server.kill()


def ask_raw(secure, payload):
    """Send bytes as a frame, and return the message of the refusal that answers them."""
    framed = FramedSocket(secure, idle_s=20, read_s=20)
    secure.sendall(struct.pack("!i", len(payload)) + payload)
    framed.read_frame()
    _, kind, _ = framed.protocol.read_message_begin()
    assert kind == TMessageType.EXCEPTION
    answer = TApplicationException()
    framed.protocol.read_struct(answer)
    return answer.message


class Calls:
    """The methods of the service, called one by one, with whatever arguments."""

    def __init__(self, secure):
        from thriftpy2.thrift import TClient

        self._framed = FramedSocket(secure, idle_s=20, read_s=20)
        self._client = TClient(FLServer, self._framed.protocol)

    def __getattr__(self, method):
        def call(*arguments):
            names = [spec[1] for spec in getattr(FLServer, f"{method}_args").thrift_spec.values()]
            self._client._send(method, **dict(zip(names, arguments, strict=True)))
            self._framed.read_frame()
            return self._client._recv(method)

        return call


def make_all_certificates(folder, hospitals=("alpha", "beta", "gamma")):
    make_certificates(folder, list(hospitals))
    return Path(folder)


def environment(**changes):
    return {**os.environ, **changes}
