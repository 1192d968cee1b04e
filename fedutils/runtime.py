"""Where TFF's computations run: ``use("in_process")`` or ``use("worker")``.

TFF 0.87 ships one runtime, a C++ worker that has no GPU, refuses a client's data above 100 MB and
copies it over a socket. The runtime here interprets what TFF's compiler emits, the call-dominant
form, in this process: a client's data set is handed over as it is, and TensorFlow places the work
on whatever devices this process sees. Several clients may run at a time; what they send is added
up in the order of the clients, so that the result is the same, bit for bit.

Neither runtime protects anything. Secure sums compile to the *insecure* bodies that TFF keeps for
tests: the ranges of the values are checked, nothing is encrypted.

References
----------
.. [1] TensorFlow Federated, ``tff.framework.to_call_dominant``.
"""

import asyncio
import contextlib
import dataclasses
import os
import threading

from fedutils.errors import InputError
from fedutils.interpreter import Interpreter, Placement
from fedutils.loops import LoopOptions
from fedutils.program import Program, compile_computation
from fedutils.tff import tff  # before the imports below, which it prepares
from fedutils.values import to_external, to_internal

# isort: split
import tensorflow as tf
from tensorflow_federated.python.common_libs import structure
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

_MOST_ON_CPU = 8  # clients at a time, unless more are asked for: each needs its activations in memory

_worker = None  # the running Worker, shared by every context of this process


def use(runtime, devices=None, *, concurrent_clients=None, jit_compile=None, prefetch=None):
    """Run TFF's computations here from now on.

    Parameters
    ----------
    runtime : {"in_process", "worker"}
        ``"in_process"`` runs them in this process. ``"worker"`` runs them in TFF's own C++
        process, on the CPU; it is started now and ends with this process, or when another runtime
        is chosen. The other parameters are for in process only.
    devices : sequence of str, optional
        The devices that do the work, such as ``["GPU:0", "GPU:1"]``: clients take them in turn, the
        server is on the first. By default every GPU, or the CPU where there is none.
    concurrent_clients : int, optional
        Clients that train at a time; more of them need more memory. By default one a device, and
        on a CPU one a core, at most 8. The result does not depend on it.
    jit_compile : bool, optional
        Compile the training steps by XLA: for GPUs, since on a CPU convolutions become slower. By default
        not, unless ``FEDUTILS_JIT_COMPILE`` is 1, as in the kernel that ``make kernel`` makes on a GPU.
    prefetch : bool, optional
        While a client trains on one batch, read its next one and copy it to the client's device; a second
        batch is in memory then. By default where a GPU is among the devices. The result does not depend on
        it. It concerns TFF's reductions over a client's data, as learning algorithms use them by default, and
        not the iterators of ``loop_implementation``.

    Raises
    ------
    InputError
        If the runtime is unknown, a device is not available, a number is not positive, or `prefetch` is
        neither true nor false.

    Examples
    --------
    >>> from fedutils.runtime import use
    >>> use("in_process")
    """
    options = (devices, concurrent_clients, jit_compile, prefetch)
    context = _build_context(sync_execution_context.SyncExecutionContext, runtime, *options)
    tff.framework.set_default_context(context)
    if runtime != "worker":
        _stop_worker()


def async_context(
    runtime="in_process", devices=None, *, concurrent_clients=None, jit_compile=None, prefetch=None
):
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
    options = (devices, concurrent_clients, jit_compile, prefetch)
    return _build_context(async_execution_context.AsyncExecutionContext, runtime, *options)


def worker_pid():
    """Return the process id of the running worker, or None."""
    return _worker.pid if _worker is not None and _worker.running else None


def _build_context(context_class, runtime, devices, concurrent_clients, jit_compile, prefetch):
    if runtime not in RUNTIMES:
        expected = " or ".join(map(repr, RUNTIMES))
        raise InputError(f"unknown runtime: expected {expected}, found {runtime!r}; choose one")
    if runtime == "worker":
        if devices is not None or concurrent_clients is not None or jit_compile or prefetch:
            raise InputError(
                "devices, concurrent_clients, jit_compile, prefetch: expected none of them with the worker, "
                "which has only the CPU, found one; leave it out or use('in_process', ...)"
            )
        worker = _start_worker()
        return context_class(
            executor_fn=python_executor_stacks.ResourceManagingExecutorFactory(
                lambda cardinalities: worker.connect({tff.CLIENTS: 0, **cardinalities})
            ),
            compiler_fn=compile_computation,
            transform_args=tensorflow_computation.transform_args,
            transform_result=tensorflow_computation.transform_result,
        )
    if jit_compile is None:
        jit_compile = os.environ.get("FEDUTILS_JIT_COMPILE") == "1"
    settings = _choose_settings(devices, concurrent_clients, jit_compile, prefetch)
    interrupt = threading.Event()
    context = context_class(
        executor_fn=python_executor_stacks.ResourceManagingExecutorFactory(
            lambda cardinalities: _Executor(cardinalities.get(tff.CLIENTS, 0), settings, interrupt)
        ),
        # The executor compiles: the context's own cache serializes the computation at each call.
        compiler_fn=None,
        transform_args=tensorflow_computation.transform_args,
        transform_result=tensorflow_computation.transform_result,
    )
    if isinstance(context, sync_execution_context.SyncExecutionContext):
        return _InterruptibleContext(context, interrupt)
    return context


@dataclasses.dataclass(frozen=True)
class _Settings:
    devices: tuple[str, ...]
    concurrent_clients: int
    loops: LoopOptions


def _choose_settings(devices, concurrent_clients, jit_compile, prefetch):
    available = {d.name.removeprefix("/device:"): d for d in tf.config.list_logical_devices()}
    gpus = [name for name, device in available.items() if device.device_type == "GPU"]
    if devices is None:
        devices = gpus or ["CPU:0"]
    elif isinstance(devices, str):
        devices = [devices]
    names = [d.removeprefix("/").removeprefix("device:").upper() for d in devices]
    for given, name in zip(devices, names, strict=True):
        if name not in available:
            raise InputError(
                f"devices: expected any of {', '.join(available)}, found {given!r}; "
                "choose from those that this machine has, or leave devices out"
            )
    if not names:
        raise InputError("devices: expected one or more, found none; leave devices out for all")
    cpus_only = all(available[name].device_type == "CPU" for name in names)
    if concurrent_clients is None:
        concurrent_clients = min(len(os.sched_getaffinity(0)), _MOST_ON_CPU) if cpus_only else len(names)
    elif not isinstance(concurrent_clients, int) or concurrent_clients < 1:
        raise InputError(
            f"concurrent_clients: expected a positive whole number, found {concurrent_clients!r}; "
            "1 runs clients one after another"
        )
    if prefetch is None:
        prefetch = not cpus_only
    elif not isinstance(prefetch, bool):
        raise InputError(f"prefetch: expected True or False, found {prefetch!r}; leave it out for GPUs alone")
    loops = LoopOptions(bool(jit_compile), prefetch)
    return _Settings(tuple(available[n].name for n in names), concurrent_clients, loops)


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

    def __init__(self, num_clients, settings, interrupt):
        self._num_clients = num_clients
        self._settings = settings
        self._interrupt = interrupt

    def close(self):
        pass

    def _before_client(self):
        if self._interrupt.is_set():
            raise _InterruptedError("interrupted between two clients")

    async def create_value(self, value, type_spec=None):
        if isinstance(value, computation_impl.ConcreteComputation):
            settings = self._settings
            program = Program.of(value, settings.loops)
            placement = Placement(
                self._num_clients, settings.devices, settings.concurrent_clients, self._before_client
            )
            function = Interpreter(program, placement).evaluate(program.block, {})
            return _Value(function, program.block.type_signature)
        of_clients = isinstance(type_spec, tff.FederatedType) and not type_spec.all_equal
        # The model goes to the server's device at once; what is a client's own stays where it is.
        with contextlib.nullcontext() if of_clients else tf.device(self._settings.devices[0]):
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
