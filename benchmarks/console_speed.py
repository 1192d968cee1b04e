"""How fast weights travel to and from the hospitals' server, beside a bare copy of the same bytes over TLS.

Prints one JSON line. Servers and hospital are processes of their own on this machine; mutual TLS 1.3. The
same bytes take each way in turn, again and again, so that what else the machine does slows all ways alike.

- ``console_mb_per_s``: megabytes of weights a second that are sent, until the server says that they were
  checked and stored, its state in memory (/dev/shm); ``console_disk_mb_per_s``: its state on the disk. The
  hospital knows their hash since they were trained.
- ``console_get_mb_per_s``: got from the server, until they were compared with their hash.
- ``console_tls_mb_per_s``: the same bytes through a TLS socket, read and forgotten, answered by one byte.
- ``console_tls_ratio``, ``console_disk_tls_ratio`` and ``console_get_tls_ratio``: sent and got over that.
  ``console_fsync_mb_per_s``: the same bytes written to a new file of that disk and synchronised.
- ``console_cpu_ms``, ``console_get_cpu_ms`` and ``console_tls_cpu_ms``: CPU milliseconds of both sides
  together for the weights once (mean), which a loaded machine changes little. What a send has on top of TLS:
  the server hashes, compares with its model and writes.
- ``console_vs_nested_lists``: how many times longer the same weights take as nested lists of doubles, one
  array a call, as the first consoles sent them: by thriftpy2's own server and compiled protocol, from array
  to array, without TLS, checks or disk, over ours with all of these. ``console_nested_lists_mb``: weights
  that this was measured with. ``console_bytes_ratio``: bytes on the wire of that, over ours.
- ``console_mb``: megabytes of the weights.
"""

import contextlib
import multiprocessing
import os
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path

import _common

SHAPES = ((3, 3, 64, 256), (1024, 1024), (1024, 3800))  # 20 MB
SMALL = ((3, 3, 64, 256), (800, 1024))  # 3.9 MB
IDLE_S = 0.2  # between two measurements
NESTED = """
service Nested {
  i64 receive_4(1: string hospital, 2: list<list<list<list<double>>>> layer)
  i64 receive_2(1: string hospital, 2: list<list<double>> layer)
}
"""


def copy_tls(secure, data):
    """Send bytes and wait for the one that answers them."""
    secure.sendall(data)
    if secure.recv(1) != b"!":
        raise RuntimeError("the copy was not taken")


def take_tls(listener, certificates, count):
    """Take copies of `count` bytes, one after another, until the other side hangs up."""
    from fedutils.hospital.tls import make_context

    context = make_context(certificates / "server", "server", server=True)
    plain, _ = listener.accept()
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    buffer = memoryview(bytearray(1 << 20))
    with context.wrap_socket(plain, server_side=True) as secure:
        while True:
            left = count
            while left:
                got = secure.recv_into(buffer[: min(left, len(buffer))])
                if not got:
                    return
                left -= got
            secure.sendall(b"!")


def take_lists(service, port):
    """Serve the original's encoding: lists become arrays, and are forgotten."""
    import numpy as np
    from thriftpy2.rpc import make_server

    class Handler:
        def receive_2(self, hospital, layer):
            return np.asarray(layer, np.float32).size

        receive_4 = receive_2

    make_server(load_nested(service), Handler(), "127.0.0.1", port, client_timeout=None).serve()


def load_nested(path):
    import thriftpy2

    return thriftpy2.load(str(path), module_name="nested_thrift").Nested


@contextlib.contextmanager
def beside(function, *arguments):
    """Run a function in a process of its own, and give its pid."""
    process = multiprocessing.get_context("spawn").Process(target=function, args=arguments, daemon=True)
    process.start()
    try:
        yield process.pid
    finally:
        process.kill()
        process.join()


class Way:
    """A way that the bytes can take: `call` it again and again; `seconds` and `cpu` of each time.

    Parameters
    ----------
    function : callable
        With the number of the time.
    pid : int, optional
        Of the other side.
    after : callable, optional
        What has to be done before the next time; not measured.
    """

    def __init__(self, function, pid=None, after=lambda: None):
        self._function, self._pid, self._after = function, pid, after
        self.seconds, self.cpu, self.count = [], [], 0

    def call(self):
        """Take the way once, from rest."""
        time.sleep(IDLE_S)  # what the last way has left to do in the background is not this one's
        cpu, wall = _common.measure(lambda: self._function(self.count), self._pid)
        if self.count:  # the first one connects
            self.seconds.append(wall)
            self.cpu.append(cpu)
        self.count += 1
        self._after()

    @property
    def median(self):
        """Seconds."""
        return statistics.median(self.seconds)

    @property
    def cpu_ms(self):
        """CPU milliseconds of both sides."""
        return 1e3 * statistics.mean(self.cpu)


@contextlib.contextmanager
def open_console(folder, certificates, shapes):
    """Give the ways to and from a server; every send is the first of its hospital for its version."""
    from hospital_helpers import make_arrays, make_state, running

    from fedutils.hospital.weights import hash_arrays

    folder.mkdir()
    layers = make_state(folder / "state.db", shapes)
    arrays = make_arrays(1, shapes, scale=1e-3)
    limits = ["--limit", "norm=1e9", "--limit", "submissions_a_minute=1e6"]  # weights drawn at random, often
    with (
        running(folder, certificates, *limits) as server,
        server.console("operator") as operator,
        server.console("alpha") as hospital,
    ):
        pid = server.process.pid
        sha256 = hash_arrays(arrays)
        send = Way(
            lambda version: hospital.send(version, 10, arrays, layers, sha256), pid, operator.aggregate
        )
        yield send, Way(lambda _: hospital.get_model(), pid)


@contextlib.contextmanager
def open_tls(certificates, data):
    """Give the way of a bare copy of bytes."""
    from fedutils.hospital.tls import make_context

    context = make_context(certificates / "alpha", "alpha", server=False)
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        beside(take_tls, listener, certificates, len(data)) as pid,
    ):
        plain = socket.create_connection(listener.getsockname())
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with context.wrap_socket(plain, server_hostname="localhost") as secure:
            yield Way(lambda _: copy_tls(secure, data), pid)


def measure_lists(folder, arrays, repeats):
    """Return the seconds of sends as nested lists, and the bytes of one on the wire."""
    from thriftpy2.rpc import make_client
    from thriftpy2.utils import serialize

    path = folder / "nested.thrift"
    path.write_text(NESTED)
    service = load_nested(path)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    def send(client):
        for array in arrays:
            taken = getattr(client, f"receive_{array.ndim}")("alpha", array.tolist())
            if taken != array.size:
                raise RuntimeError("the lists were not taken")

    with beside(take_lists, path, port):
        deadline = time.monotonic() + 30
        while True:
            try:
                client = make_client(service, "127.0.0.1", port, timeout=None)
                break
            except Exception:  # thriftpy2 has its own kind for a server that does not listen yet
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
        lists = Way(lambda _: send(client))
        for _ in range(repeats + 1):
            lists.call()
        client.close()
    size = 0
    for array in arrays:
        arguments = getattr(service, f"receive_{array.ndim}_args")()
        arguments.hospital, arguments.layer = "alpha", array.tolist()
        size += len(serialize(arguments))
    return lists.median, size


def write_through(path, data):
    path.unlink(missing_ok=True)
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def measure_large(folder, certificates, repeats):
    """Return the ways of the large weights, measured in turn, and their bytes."""
    from hospital_helpers import make_arrays

    from fedutils.hospital.weights import pack

    data = pack(make_arrays(1, SHAPES, scale=1e-3))
    with (
        tempfile.TemporaryDirectory(dir="/dev/shm") as memory,
        open_console(Path(memory) / "large", certificates, SHAPES) as (send, get),
        open_console(folder / "large", certificates, SHAPES) as (stored, _),
        open_tls(certificates, data) as copy,
    ):
        written = Way(lambda _: write_through(folder / "plain", data))
        ways = {"copy": copy, "send": send, "get": get, "stored": stored, "written": written}
        for _ in range(repeats + 1):
            for way in ways.values():
                way.call()
    return ways, len(data)


def measure_small(folder, certificates, repeats):
    """Return the seconds of a send and of nested lists, the bytes of these, and those of the weights."""
    from hospital_helpers import make_arrays

    arrays = make_arrays(1, SMALL)
    with open_console(folder / "small", certificates, SMALL) as (send, _):
        for _ in range(repeats + 1):
            send.call()
    lists, on_wire = measure_lists(folder, arrays, max(2, repeats // 3))
    return send.median, lists, on_wire, sum(array.nbytes for array in arrays)


def measure(repeats):
    """Return the benchmark's numbers."""
    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    from hospital_helpers import make_all_certificates

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        certificates = make_all_certificates(folder / "certificates")
        _common.report("weights over the console, and the same bytes over TLS")
        ways, count = measure_large(folder, certificates, repeats)
        _common.report("nested lists")
        small_send, lists, on_wire, small_count = measure_small(folder, certificates, repeats)
    speeds = {name: round(count / way.median / _common.MEGABYTE, 1) for name, way in ways.items()}
    ratios = {name: round(ways["copy"].median / way.median, 3) for name, way in ways.items()}
    return {
        "console_mb": round(count / _common.MEGABYTE, 2),
        "console_get_mb_per_s": speeds["get"],
        "console_disk_mb_per_s": speeds["stored"],
        "console_fsync_mb_per_s": speeds["written"],
        "console_mb_per_s": speeds["send"],
        "console_tls_mb_per_s": speeds["copy"],
        "console_get_tls_ratio": ratios["get"],
        "console_disk_tls_ratio": ratios["stored"],
        "console_tls_ratio": ratios["send"],
        "console_cpu_ms": round(ways["send"].cpu_ms, 1),
        "console_get_cpu_ms": round(ways["get"].cpu_ms, 1),
        "console_tls_cpu_ms": round(ways["copy"].cpu_ms, 1),
        "console_nested_lists_mb": round(small_count / _common.MEGABYTE, 2),
        "console_vs_nested_lists": round(lists / small_send, 1),
        "console_bytes_ratio": round(on_wire / small_count, 2),
    }


def main():
    parser = _common.build_parser(__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    _common.finish(_common.run_fresh(measure, options.repeats), options.out)


if __name__ == "__main__":
    main()
