"""The interpreter of TFF's call-dominant form.

What TFF's compiler emits is a small functional program: structures, selections, lets and calls of
a dozen federated operators ("intrinsics") around TensorFlow leaves. `Interpreter` evaluates it
over values of this process, stage by stage (`fedutils.stages`).

References
----------
.. [1] TensorFlow Federated, ``intrinsic_defs.py``: the meaning of each operator.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable

from fedutils.stages import find_references, is_aggregate, run_in_order
from fedutils.tff import tff  # before the imports below, which it prepares
from fedutils.values import (
    Federated,
    Shared,
    Struct,
    add,
    federated_parts,
    iterate,
    make_dataset,
    make_zero,
    pair,
)

# isort: split
import tensorflow as tf
from tensorflow_federated.python.common_libs import structure
from tensorflow_federated.python.core.impl.compiler import building_blocks as blocks


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where one computation runs, and how many of its clients at a time.

    Attributes
    ----------
    num_clients : int
    devices : sequence of str
        Client k runs on device k modulo their number, the server on the first.
    concurrent_clients : int
    before_client : callable
        Called before the work of each client; what it raises ends the computation.
    """

    num_clients: int
    devices: tuple[str, ...]
    concurrent_clients: int
    before_client: Callable[[], None]

    def device_of(self, client: int) -> str:
        """Return the device of a client."""
        return self.devices[client % len(self.devices)]


class Interpreter:
    """Evaluates the building blocks of one computation.

    Parameters
    ----------
    program : object
        ``program.leaf(block)`` gives a callable for a TensorFlow building block,
        ``program.stages(block)`` the stages of a block.
    placement : Placement
    """

    def __init__(self, program, placement):
        self._program = program
        self._placement = placement

    def evaluate(self, block, scope):
        """Return the value of `block` where `scope` binds names to values."""
        match block:
            case blocks.CompiledComputation():
                return lambda argument=None: self._program.leaf(block)(argument)
            case blocks.Lambda():
                return lambda argument=None: self.evaluate(
                    block.result, {**scope, block.parameter_name: argument}
                )
            case blocks.Block():
                scope = dict(scope)
                for stage in self._program.stages(block):
                    self._run_stage(stage, scope)
                return self.evaluate(block.result, scope)
            case blocks.Reference():
                return scope[block.name]
            case blocks.Call():
                function = self.evaluate(block.function, scope)
                if block.argument is None:
                    return function()
                return function(self.evaluate(block.argument, scope))
            case blocks.Struct():
                elements = structure.iter_elements(block)
                return Struct([(name, self.evaluate(value, scope)) for name, value in elements])
            case blocks.Selection():
                source = self.evaluate(block.source, scope)
                return source[block.name if block.index is None else block.index]
            case blocks.Literal():
                return tf.constant(block.value, block.type_signature.dtype.type)
            case blocks.Intrinsic():
                return functools.partial(getattr(self, f"_{block.uri}"), block.type_signature)
        raise NotImplementedError(f"building block {type(block).__name__}")

    def _run_stage(self, stage, scope):
        """Evaluate the bindings of a stage and add their values to `scope`."""
        size = self._find_sizes(stage, scope)
        with tf.device(self._placement.devices[0]):
            for name, value in stage.once:
                scope[name] = self.evaluate(value, scope)
            for name, value in (*stage.at_clients, *stage.aggregates):
                scope[name] = self.evaluate(value, scope)  # nothing is computed yet
            if not stage.at_clients and not stage.aggregates:
                return
            values = [(value, list(federated_parts(scope[name]))) for name, value in stage.at_clients]
            passing = [
                part
                for name, _ in stage.at_clients
                if name not in stage.kept
                for part in federated_parts(scope[name])
            ]
            sums = [(value, scope[name]) for name, value in stage.aggregates]

            def work(client):
                self._placement.before_client()
                with tf.device(self._placement.device_of(client)):
                    for block, parts in values:
                        with self._naming(client, block):
                            for part in parts:
                                part.at(client)
                    sent = [running.value.at(client) for _, running in sums]
                for part in passing:
                    part.forget(client)
                return sent

            parallel = 1 if self._program.draws(stage) else self._placement.concurrent_clients
            results = run_in_order(work, self._placement.num_clients, parallel, size)
            for client, sent in enumerate(results):
                for (block, running), value in zip(sums, sent, strict=True):
                    with self._naming(client, block):
                        running.total = running.accumulate(pair(running.total, value))
            for name, _ in stage.aggregates:
                running = scope[name]
                scope[name] = Shared(running.report(running.total))

    def _find_sizes(self, stage, scope):
        """Return a function from a client's number to the batches that it has when a stage begins."""
        if len(self._placement.devices) > 1:  # clients take these in turn, and so start in turn
            return lambda client: 0
        names = set().union(*(find_references(value) for _, value in stage.at_clients)) & scope.keys()
        parts = [part for name in names for part in federated_parts(scope[name])]
        return lambda client: sum(_count_batches(p.at(client)) for p in parts if not isinstance(p, Shared))

    @contextlib.contextmanager
    def _naming(self, client, block):
        try:
            yield
        except Exception as error:
            error.add_note(
                f"This happened in the work for client {client} of {self._placement.num_clients}, "
                f"in {describe(block)}."
            )
            raise

    # One method for each operator that the compiler leaves, by its name in TFF; sums, means,
    # minima and maxima reach this point as federated_aggregate.

    def _at_clients(self, compute):
        return Federated(compute, self._placement.num_clients)

    def _federated_map(self, type_spec, argument):
        function, value = argument
        if _is_shared(type_spec.result):
            return Shared(function(value.at(0)))
        device_of, several = self._placement.device_of, len(self._placement.devices) > 1
        send = _send if several else lambda value, _: value
        return self._at_clients(lambda client: function(send(value.at(client), device_of(client))))

    _federated_apply = _federated_map_all_equal = _federated_map

    def _federated_eval_at_server(self, type_spec, function):
        return Shared(function())

    def _federated_eval_at_clients(self, type_spec, function):
        return self._at_clients(lambda client: function())

    def _federated_value_at_server(self, type_spec, value):
        return Shared(value)

    _federated_value_at_clients = _federated_value_at_server

    def _federated_broadcast(self, type_spec, value):
        return value

    def _federated_zip_at_clients(self, type_spec, values):
        def zip_member(value, client):
            if isinstance(value, Federated):
                return value.at(client)
            elements = structure.iter_elements(value)
            return Struct([(name, zip_member(v, client)) for name, v in elements])

        if _is_shared(type_spec.result):
            return Shared(zip_member(values, 0))
        return self._at_clients(lambda client: zip_member(values, client))

    _federated_zip_at_server = _federated_zip_at_clients

    def _federated_aggregate(self, type_spec, argument):
        # TFF also gives a merge of partial sums, which one process has no use for.
        value, zero, accumulate, _, report = argument
        return _RunningSum(value, zero, accumulate, report)

    def _federated_select(self, type_spec, argument):
        keys, _, server_value, select = argument
        element_type = type_spec.result.member.element

        def select_rows(client):
            rows = [select(pair(server_value.at(0), k)) for k in tf.unstack(keys.at(client))]
            return make_dataset(rows, element_type)

        return self._at_clients(select_rows)

    def _sequence_map(self, type_spec, argument):
        function, dataset = argument
        mapped = [function(x) for x in iterate(dataset, type_spec.parameter[1])]
        return make_dataset(mapped, type_spec.result.element)

    def _sequence_reduce(self, type_spec, argument):
        dataset, total, reduce = argument
        for element in iterate(dataset, type_spec.parameter[0]):
            total = reduce(pair(total, element))
        return total

    def _sequence_sum(self, type_spec, dataset):
        total = make_zero(type_spec.result)
        for element in iterate(dataset, type_spec.parameter):
            total = add(total, element)
        return total


OPERATORS = frozenset(
    name[1:] for name in vars(Interpreter) if name.startswith(("_federated_", "_sequence_"))
)


@dataclasses.dataclass
class _RunningSum:
    """A federated_aggregate, of which `total` holds the clients so far."""

    value: Federated
    total: object
    accumulate: Callable
    report: Callable


def _is_shared(type_spec):
    return type_spec.all_equal or type_spec.placement is tff.SERVER


def _send(value, device):
    """Copy to a device what is on another: a loop would fetch it, and give it back, at each of its steps."""
    if isinstance(value, Struct):
        return Struct([(name, _send(part, device)) for name, part in structure.iter_elements(value)])
    elsewhere = tf.is_tensor(value) and value.dtype.is_floating and not value.device.endswith(device)
    return tf.identity(value) if elsewhere else value


def _count_batches(value):
    """Return how many elements the data sets in a value have, as far as it is known without reading them."""
    if isinstance(value, tf.data.Dataset):
        return max(int(value.cardinality()), 0)
    if isinstance(value, Struct):
        return sum(map(_count_batches, value))
    return 0


def describe(block) -> str:
    """Name a binding: its operator, and the type of the function that the operator applies."""
    if not isinstance(block, blocks.Call):
        return type(block).__name__
    function = block.argument
    if isinstance(function, blocks.Struct):
        function = function[2 if is_aggregate(block) else 0]
    applied = (
        f" of {_shorten(function.type_signature)}" if isinstance(function, blocks.CompiledComputation) else ""
    )
    return f"{block.function.uri}{applied}" if isinstance(block.function, blocks.Intrinsic) else "a call"


def _shorten(type_spec, limit=200):
    text = str(type_spec)
    return text if len(text) <= limit else f"{text[: limit // 2]} … {text[-limit // 2 :]}"
