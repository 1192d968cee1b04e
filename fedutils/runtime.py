"""Where TFF's computations run: ``use("in_process")`` or ``use("worker")``.

TFF 0.87 ships one runtime, a C++ worker that has no GPU, refuses a client's data above 100 MB and
copies it over a socket. The runtime here interprets what TFF's compiler emits, the call-dominant
form, in this process: a client's data set is handed over as it is, and TensorFlow places the work
on whatever device this process sees. Clients run one after another.

Neither runtime protects anything. Secure sums compile to the *insecure* bodies that TFF keeps for
tests: the ranges of the values are checked, nothing is encrypted.

References
----------
.. [1] TensorFlow Federated, ``tff.framework.to_call_dominant``.
"""

import asyncio
import functools
import threading
import weakref

from fedutils.errors import InputError
from fedutils.graphs import load_leaf
from fedutils.interpreter import Interpreter, to_external, to_internal
from fedutils.quiet import without_harmless_lines
from fedutils.tff import tff  # before the imports below, which it prepares

# isort: split
import tensorflow as tf
from tensorflow_federated.python.common_libs import structure
from tensorflow_federated.python.core.backends.native import compiler as native_compiler
from tensorflow_federated.python.core.backends.test import compiler as test_compiler
from tensorflow_federated.python.core.environments.tensorflow_frontend import tensorflow_computation
from tensorflow_federated.python.core.impl.computation import computation_impl
from tensorflow_federated.python.core.impl.context_stack import context_base
from tensorflow_federated.python.core.impl.execution_contexts import (
    async_execution_context,
    sync_execution_context,
)
from tensorflow_federated.python.core.impl.executor_stacks import python_executor_stacks
from tensorflow_federated.python.core.impl.executors import executor_base, executor_value_base

RUNTIMES = ("in_process", "worker")

_worker = None  # the running Worker, shared by every context of this process


def use(runtime, devices=None):
    """Run TFF's computations here from now on.

    Parameters
    ----------
    runtime : {"in_process", "worker"}
        ``"in_process"`` runs them in this process. ``"worker"`` runs them in TFF's own C++
        process, on the CPU; it is started now and ends with this process, or when another runtime
        is chosen.
    devices : sequence of str, optional
        In process only: the device that does the clients' and the server's work, such as
        ``["GPU:0"]``; at most one. None leaves the choice to TensorFlow.

    Raises
    ------
    InputError
        If the runtime is unknown, or the devices are not available or too many.

    Examples
    --------
    >>> from fedutils.runtime import use
    >>> use("in_process")
    """
    context = _build_context(sync_execution_context.SyncExecutionContext, runtime, devices)
    tff.framework.set_default_context(context)
    if runtime != "worker":
        _stop_worker()


def async_context(runtime="in_process", devices=None):
    """Build an asynchronous context, for ``tff.program.NativeFederatedContext``.

    Parameters are those of `use`. The context is returned, not installed; one of ``"worker"``
    works until `use` chooses another runtime.

    Examples
    --------
    >>> from fedutils.runtime import async_context
    >>> from fedutils.tff import tff
    >>> context = tff.program.NativeFederatedContext(async_context())
    >>> tff.framework.set_default_context(context)
    """
    return _build_context(async_execution_context.AsyncExecutionContext, runtime, devices)


def worker_pid():
    """Return the process id of the running worker, or None."""
    return _worker.pid if _worker is not None and _worker.running else None


def _build_context(context_class, runtime, devices):
    if runtime not in RUNTIMES:
        expected = " or ".join(map(repr, RUNTIMES))
        raise InputError(f"unknown runtime: expected {expected}, found {runtime!r}; choose one")
    if runtime == "worker":
        if devices is not None:
            raise InputError(
                f"devices: expected None with the worker, which has only the CPU, found "
                f"{devices!r}; leave it out or use('in_process', devices)"
            )
        worker = _start_worker()
        return context_class(
            executor_fn=python_executor_stacks.ResourceManagingExecutorFactory(
                lambda cardinalities: worker.connect({tff.CLIENTS: 0, **cardinalities})
            ),
            compiler_fn=_compile,
            transform_args=tensorflow_computation.transform_args,
            transform_result=tensorflow_computation.transform_result,
        )
    device = _choose_device(devices)
    interrupt = threading.Event()
    context = context_class(
        executor_fn=python_executor_stacks.ResourceManagingExecutorFactory(
            lambda cardinalities: _Executor(cardinalities.get(tff.CLIENTS, 0), device, interrupt)
        ),
        # The executor compiles: the context's own cache serializes the computation at each call.
        compiler_fn=None,
        transform_args=tensorflow_computation.transform_args,
        transform_result=tensorflow_computation.transform_result,
    )
    if isinstance(context, sync_execution_context.SyncExecutionContext):
        return _InterruptibleContext(context, interrupt)
    return context


def _choose_device(devices):
    if devices is None:
        return None
    if isinstance(devices, str):
        devices = [devices]
    if len(devices) != 1:
        raise InputError(
            f"devices: expected one device, found {len(devices)}; clients do not yet run on "
            "several devices at once, so name one"
        )
    available = {d.name.removeprefix("/device:"): d.name for d in tf.config.list_logical_devices()}
    name = devices[0].removeprefix("/").removeprefix("device:").upper()
    if name not in available:
        raise InputError(
            f"devices: expected one of {', '.join(available)}, found {devices[0]!r}; "
            "choose one that this machine has, or leave devices out"
        )
    return available[name]


def _start_worker():
    global _worker
    if _worker is None or not _worker.running:
        from fedutils.worker import Worker

        _worker = Worker()
    return _worker


def _stop_worker():
    global _worker
    if _worker is not None:
        _worker.stop()
        _worker = None


def _compile(computation):
    """Compile to the call-dominant form, with TFF's insecure bodies for secure operators."""
    with without_harmless_lines():
        insecure = test_compiler.replace_secure_intrinsics_with_bodies(computation)
        return native_compiler.desugar_and_transform_to_native(insecure)


class _Program:
    """A computation compiled for this process, with the leaves that were loaded for it."""

    # By identity, because the hash of a computation serializes all of it. A program goes when its
    # computation goes, so the cache is as large as what the caller keeps.
    _cache = {}  # noqa: RUF012

    def __init__(self, block):
        self.block = block
        self._leaves = {}  # by id of the building block, which self.block keeps alive

    @classmethod
    def of(cls, computation):
        key = id(computation)
        program = cls._cache.get(key)
        if program is None:
            compiled = _compile(computation)
            program = cls._cache[key] = cls(compiled.to_building_block())
            weakref.finalize(computation, cls._cache.pop, key, None)
        return program

    def leaf(self, block):
        leaf = self._leaves.get(id(block))
        if leaf is None:
            if block.proto.WhichOneof("computation") != "tensorflow":
                raise NotImplementedError("only TensorFlow computations run in this process")
            leaf = load_leaf(block.proto.tensorflow, block.type_signature)
            self._leaves[id(block)] = leaf
        return leaf


class _Value(executor_value_base.ExecutorValue):
    def __init__(self, value, type_signature):
        self._value = value
        self._type_signature = type_signature

    @property
    def reference(self):
        return self._value

    @property
    def type_signature(self):
        return self._type_signature

    async def compute(self):
        return to_external(self._value, self._type_signature)


class _Executor(executor_base.Executor):
    """TFF's executor interface over the interpreter."""

    def __init__(self, num_clients, device, interrupt):
        self._num_clients = num_clients
        self._device = device
        self._interrupt = interrupt

    def close(self):
        pass

    def _before_client(self):
        if self._interrupt.is_set():
            raise _InterruptedError("interrupted between two clients")

    async def create_value(self, value, type_spec=None):
        if isinstance(value, computation_impl.ConcreteComputation):
            program = _Program.of(value)
            interpreter = Interpreter(
                self._num_clients,
                lambda block: functools.partial(program.leaf(block), device=self._device),
                self._before_client,
            )
            function = interpreter.evaluate(program.block, {})
            return _Value(function, program.block.type_signature)
        return _Value(to_internal(value, type_spec, self._num_clients), type_spec)

    async def create_call(self, comp, arg=None):
        arguments = [] if arg is None else [arg.reference]
        return _Value(comp.reference(*arguments), comp.type_signature.result)

    async def create_struct(self, elements):
        elements = structure.to_elements(structure.from_container(elements))
        return _Value(
            structure.Struct([(name, e.reference) for name, e in elements]),
            tff.StructType([(name, e.type_signature) if name else e.type_signature for name, e in elements]),
        )

    async def create_selection(self, source, index):
        return _Value(source.reference[index], source.type_signature[index])


class _InterruptedError(Exception):
    """Ends a computation whose caller was interrupted; nobody waits for it."""


class _InterruptibleContext(context_base.SyncContext):
    """A synchronous context that an interrupt ends between two clients.

    TFF runs a computation in a thread of its own, where Python delivers no interrupt: left alone,
    it would train the remaining clients long after the caller's Ctrl-C.
    """

    def __init__(self, context, interrupt):
        self._context = context
        self._interrupt = interrupt

    def invoke(self, comp, arg):
        if self._interrupt.is_set():  # a second Ctrl-C cut the wait below short
            self._wait_until_stopped()
        try:
            return self._context.invoke(comp, arg)
        except KeyboardInterrupt:
            self._interrupt.set()
            self._wait_until_stopped()
            raise

    def _wait_until_stopped(self):
        # The thread takes one computation after another, so this nap is over when they are.
        self._context._async_runner.run_coro_and_return_result(asyncio.sleep(0))
        self._interrupt.clear()
