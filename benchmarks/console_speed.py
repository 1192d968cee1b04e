"""How fast weights travel to and from the hospitals' server, beside a bare copy of the same bytes over TLS.

Prints one JSON line. Server and hospital are processes of their own on this machine; mutual TLS 1.3; medians.

- ``console_mb_per_s``: megabytes of weights a second that are sent, until the server says that they were
  checked and stored, its state in memory (/dev/shm); ``console_disk_mb_per_s``: its state on the disk.
- ``console_get_mb_per_s``: got from the server, until they were compared with their hash.
- ``console_tls_mb_per_s``: the same bytes through a TLS socket, read and forgotten, answered by one byte.
- ``console_tls_ratio`` and ``console_get_tls_ratio``: sent and got over that. ``console_fsync_mb_per_s``:
  the same bytes written to a file of that disk and synchronised, which is the most that the disk allows.
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
    """Run a function in a process of its own."""
    process = multiprocessing.get_context("spawn").Process(target=function, args=arguments, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def time_calls(function, repeats):
    """Return the seconds of each of several calls."""
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        function()
        taken.append(time.perf_counter() - started)
    return taken


def measure_console(folder, certificates, shapes, repeats):
    """Return the seconds of sends and of gets; every send is the first of its hospital for its version."""
    from hospital_helpers import make_arrays, make_state, running

    folder.mkdir()
    layers = make_state(folder / "state.db", shapes)
    arrays = make_arrays(1, shapes, scale=1e-3)
    limits = ["--limit", "norm=1e9"]  # the weights are drawn at random
    with running(folder, certificates, *limits) as server, server.console("operator") as operator:
        sends = []
        with server.console("alpha") as hospital:
            for version in range(repeats + 1):
                sends += time_calls(lambda v=version: hospital.send(v, 10, arrays, layers), 1)
                operator.aggregate()
            gets = time_calls(hospital.get_model, repeats + 1)
    return sends[1:], gets[1:]  # the first one connects


def measure_tls(certificates, count, repeats):
    """Return the seconds of copies of `count` bytes."""
    import numpy as np

    from fedutils.hospital.tls import make_context

    data = memoryview(np.random.default_rng(0).bytes(count))
    context = make_context(certificates / "alpha", "alpha", server=False)
    with socket.create_server(("127.0.0.1", 0)) as listener, beside(take_tls, listener, certificates, count):
        plain = socket.create_connection(listener.getsockname())
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with context.wrap_socket(plain, server_hostname="localhost") as secure:
            return time_calls(lambda: copy_tls(secure, data), repeats + 1)[1:]


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
        taken = time_calls(lambda: send(client), repeats + 1)[1:]
        client.close()
    size = 0
    for array in arrays:
        arguments = getattr(service, f"receive_{array.ndim}_args")()
        arguments.hospital, arguments.layer = "alpha", array.tolist()
        size += len(serialize(arguments))
    return taken, size


def write_through(path, data):
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def measure(repeats):
    """Return the benchmark's numbers."""
    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    from hospital_helpers import make_all_certificates, make_arrays

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        certificates = make_all_certificates(folder / "certificates")
        count = sum(array.nbytes for array in make_arrays(1, SHAPES))
        _common.report("weights over the console")
        with tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
            sends, gets = measure_console(Path(memory) / "large", certificates, SHAPES, repeats)
        disk_sends, _ = measure_console(folder / "large", certificates, SHAPES, repeats)
        writes = time_calls(lambda: write_through(folder / "plain", bytes(count)), repeats)
        _common.report("the same bytes over TLS")
        copies = measure_tls(certificates, count, repeats)
        _common.report("nested lists")
        small = make_arrays(1, SMALL)
        small_count = sum(array.nbytes for array in small)
        small_sends, _ = measure_console(folder / "small", certificates, SMALL, repeats)
        lists, on_wire = measure_lists(folder, small, max(2, repeats // 3))
    sent, got, copied = (statistics.median(times) for times in (sends, gets, copies))
    stored, written = statistics.median(disk_sends), statistics.median(writes)
    return {
        "console_mb": round(count / _common.MEGABYTE, 2),
        "console_get_mb_per_s": round(count / got / _common.MEGABYTE, 1),
        "console_disk_mb_per_s": round(count / stored / _common.MEGABYTE, 1),
        "console_fsync_mb_per_s": round(count / written / _common.MEGABYTE, 1),
        "console_mb_per_s": round(count / sent / _common.MEGABYTE, 1),
        "console_tls_mb_per_s": round(count / copied / _common.MEGABYTE, 1),
        "console_get_tls_ratio": round(copied / got, 3),
        "console_tls_ratio": round(copied / sent, 3),
        "console_nested_lists_mb": round(small_count / _common.MEGABYTE, 2),
        "console_vs_nested_lists": round(statistics.median(lists) / statistics.median(small_sends), 1),
        "console_bytes_ratio": round(on_wire / small_count, 2),
    }


def main():
    parser = _common.build_parser(__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    _common.finish(_common.run_fresh(measure, options.repeats), options.out)


if __name__ == "__main__":
    main()
