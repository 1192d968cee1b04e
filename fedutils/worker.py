"""TFF's own runtime: a C++ process beside this one, spoken to over gRPC on the loopback address.

TFF starts such a process itself, but leaves it running when Python ends and lets it hold the
caller's output open, so that a piped run never finishes. Here the worker writes to a file of its
own and ends with this process, however this process ends.
"""

import os
import subprocess
import sys
import tempfile
import time
import weakref
from pathlib import Path

import grpc
import portpicker

from fedutils.tff import tff

# isort: split
from tensorflow_federated.python.core.impl.executors import (
    remote_executor,
    remote_executor_grpc_stub,
)

# The worker, tied to its parent: Linux kills it when the parent is gone (PR_SET_PDEATHSIG = 1). A
# small Python sets this and then becomes the worker, because code that runs between fork and exec
# of a process with TensorFlow's threads can deadlock.
_RUN_TIED = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""
_START_SECONDS = 60
_NO_LIMIT = 2**31 - 1  # bytes of a message: the largest that gRPC accepts
_CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", _NO_LIMIT),
    ("grpc.max_send_message_length", _NO_LIMIT),
]


class Worker:
    """TFF's C++ runtime in a process of its own.

    Start it from a thread that lives as long as the worker is needed: Linux ties the worker to the
    thread that started it, not to the whole process.
    """

    def __init__(self):
        binary = Path(tff.__file__).parent / "data" / "worker_binary"
        port = portpicker.pick_unused_port()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the worker)
        tied = [sys.executable, "-I", "-S", "-c", _RUN_TIED, str(os.getpid())]
        worker = [binary, f"--port={port}", "--max_concurrent_computation_calls=-1"]
        self._process = subprocess.Popen(
            [*tied, *worker],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            process_group=0,  # Ctrl-C in a terminal interrupts this process, not the worker
        )
        self._channel = grpc.insecure_channel(f"localhost:{port}", _CHANNEL_OPTIONS)
        # Runs at exit too, after the finalizers of the values that live in the worker.
        self.stop = weakref.finalize(self, _stop, self._process, self._channel, self._log)
        self._stub = remote_executor_grpc_stub.RemoteExecutorGrpcStub(self._channel)
        deadline = time.monotonic() + _START_SECONDS
        while not self._stub.is_ready:
            self._check()
            if time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"TFF's worker did not answer within {_START_SECONDS} s")
            time.sleep(0.05)

    @property
    def pid(self):
        """The worker's process id."""
        return self._process.pid

    @property
    def running(self):
        """Whether the worker can take work."""
        return self.stop.alive and self._process.poll() is None

    def connect(self, cardinalities):
        """Return an executor that runs in the worker with these numbers of clients.

        Raises
        ------
        RuntimeError
            If the worker was stopped, or ended by itself (it needs several times the memory of the
            in-process runtime); the message ends with its last words.
        """
        self._check()
        executor = remote_executor.RemoteExecutor(self._stub)
        executor.set_cardinalities(cardinalities)
        return executor

    def _check(self):
        if not self.stop.alive:
            raise RuntimeError("TFF's worker was stopped; call fedutils.runtime.use('worker')")
        status = self._process.poll()
        if status is not None:
            self._log.seek(0)
            last_words = self._log.read()[-500:].decode(errors="replace").strip()
            raise RuntimeError(
                f"TFF's worker ended with status {status}; call fedutils.runtime.use('worker') to "
                f"start another, or use('in_process'): {last_words}"
            )


def _stop(process, channel, log):
    channel.close()
    process.kill()
    process.wait()
    log.close()
