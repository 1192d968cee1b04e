"""The interpreter of TFF's call-dominant form.

What TFF's compiler emits is a small functional program: structures, selections, lets and calls of
a dozen federated operators ("intrinsics") around TensorFlow leaves. `Interpreter` evaluates it
over values of this process; `to_internal` and `to_external` convert what enters and leaves.

References
----------
.. [1] TensorFlow Federated, ``intrinsic_defs.py``: the meaning of each operator.
"""

import contextlib
import dataclasses
import functools

from fedutils.errors import InputError
from fedutils.tff import tff  # before the imports below, which it prepares

# isort: split
import tensorflow as tf
from tensorflow_federated.python.common_libs import structure
from tensorflow_federated.python.core.impl.compiler import building_blocks as blocks
from tensorflow_federated.python.core.impl.types import computation_types as types
from tensorflow_federated.python.core.impl.utils import tensorflow_utils

Struct = structure.Struct


@dataclasses.dataclass(frozen=True)
class Federated:
    """A federated value: one member a client, or one member that all of them share."""

    members: list
    all_equal: bool

    def at(self, client):
        """Return the member of client number `client`."""
        return self.members[0] if self.all_equal else self.members[client]


class Interpreter:
    """Evaluates the building blocks of one computation.

    Parameters
    ----------
    num_clients : int
    get_leaf : callable
        From a TensorFlow building block to a callable of its argument.
    before_client : callable
        Called before the work of each client; what it raises ends the computation.
    """

    def __init__(self, num_clients, get_leaf, before_client):
        self._num_clients = num_clients
        self._get_leaf = get_leaf
        self._before_client = before_client

    def evaluate(self, block, scope):
        """Return the value of `block` where `scope` binds names to values."""
        match block:
            case blocks.CompiledComputation():
                return self._get_leaf(block)
            case blocks.Lambda():
                return lambda argument=None: self.evaluate(
                    block.result, {**scope, block.parameter_name: argument}
                )
            case blocks.Block():
                scope = dict(scope)
                for name, value in block.locals:
                    scope[name] = self.evaluate(value, scope)
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
                operator = getattr(self, f"_{block.uri}", None)
                if operator is not None:
                    return functools.partial(operator, block.type_signature)
        raise NotImplementedError(
            f"the in-process runtime cannot evaluate {block.compact_representation()[:200]}; "
            "run it with fedutils.runtime.use('worker')"
        )

    # One method for each operator that the compiler leaves, by its name in TFF; sums, means,
    # minima and maxima reach this point as federated_aggregate.

    def _each_client(self, function):
        """Return ``function(client)`` for every client, one after another."""
        members = []
        for client in range(self._num_clients):
            self._before_client()
            with _naming_client(client, self._num_clients):
                members.append(function(client))
        return Federated(members, False)

    def _federated_map(self, type_spec, argument):
        function, value = argument
        if _is_shared(type_spec.result):
            return Federated([function(value.at(0))], True)
        return self._each_client(lambda client: function(value.at(client)))

    _federated_apply = _federated_map_all_equal = _federated_map

    def _federated_eval_at_server(self, type_spec, function):
        return Federated([function()], True)

    def _federated_eval_at_clients(self, type_spec, function):
        return self._each_client(lambda client: function())

    def _federated_value_at_server(self, type_spec, value):
        return Federated([value], True)

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
            return Federated([zip_member(values, 0)], True)
        members = [zip_member(values, client) for client in range(self._num_clients)]
        return Federated(members, False)

    _federated_zip_at_server = _federated_zip_at_clients

    def _federated_aggregate(self, type_spec, argument):
        # TFF also gives a merge of partial sums, which one process has no use for.
        value, total, accumulate, _, report = argument
        for client in range(self._num_clients):
            with _naming_client(client, self._num_clients):
                total = accumulate(_pair(total, value.at(client)))
        return Federated([report(total)], True)

    def _federated_select(self, type_spec, argument):
        keys, _, server_value, select = argument
        element_type = type_spec.result.member.element

        def select_rows(client):
            rows = [select(_pair(server_value.at(0), k)) for k in tf.unstack(keys.at(client))]
            return _make_dataset(rows, element_type)

        return self._each_client(select_rows)

    def _sequence_map(self, type_spec, argument):
        function, dataset = argument
        mapped = [function(x) for x in _elements(dataset, type_spec.parameter[1])]
        return _make_dataset(mapped, type_spec.result.element)

    def _sequence_reduce(self, type_spec, argument):
        dataset, total, reduce = argument
        for element in _elements(dataset, type_spec.parameter[0]):
            total = reduce(_pair(total, element))
        return total

    def _sequence_sum(self, type_spec, dataset):
        total = _zero(type_spec.result)
        for element in _elements(dataset, type_spec.parameter):
            total = _add(total, element)
        return total


@contextlib.contextmanager
def _naming_client(client, num_clients):
    try:
        yield
    except Exception as error:
        error.add_note(f"This happened in the work for client {client} of {num_clients}.")
        raise


def _is_shared(type_spec):
    return type_spec.all_equal or type_spec.placement is tff.SERVER


def _pair(first, second):
    return Struct([(None, first), (None, second)])


def _add(first, second):
    if isinstance(first, Struct):
        return structure.map_structure(_add, first, second)
    return first + second


def _zero(type_spec):
    if isinstance(type_spec, types.TensorType):
        return tf.zeros(type_spec.shape, tf.dtypes.as_dtype(type_spec.dtype.type))
    return Struct([(name, _zero(t)) for name, t in structure.iter_elements(type_spec)])


def _elements(dataset, type_spec):
    return (to_internal(element, type_spec.element, 0) for element in dataset)


def _make_dataset(elements, element_type):
    """Build a data set from values of the runtime, an empty one included."""
    elements = [to_external(element, element_type) for element in elements]
    return tensorflow_utils.make_data_set_from_elements(None, elements, element_type)


def to_internal(value, type_spec, num_clients):
    """Convert an argument of a TFF computation to a value of the runtime.

    Parameters
    ----------
    value : object
        As TFF accepts it: arrays, data sets or lists of elements, containers, and a list with one
        entry a client for a value placed at the clients.
    type_spec : tff.Type
    num_clients : int

    Raises
    ------
    InputError
        If a value placed at the clients has another number of entries.
    """
    if isinstance(type_spec, types.FederatedType):
        if type_spec.all_equal:
            return Federated([to_internal(value, type_spec.member, num_clients)], True)
        if len(value) != num_clients:
            raise InputError(
                f"expected one value for each of {num_clients} clients, found {len(value)}; "
                "pass lists of equal length"
            )
        return Federated([to_internal(v, type_spec.member, num_clients) for v in value], False)
    if isinstance(type_spec, types.StructType):
        values = structure.from_container(value)
        elements = structure.iter_elements(type_spec)
        return Struct(
            [(name, to_internal(v, t, num_clients)) for v, (name, t) in zip(values, elements, strict=True)]
        )
    if isinstance(type_spec, types.SequenceType):
        if isinstance(value, list):
            return tensorflow_utils.make_data_set_from_elements(None, value, type_spec.element)
        return value
    return tf.convert_to_tensor(value, tf.dtypes.as_dtype(type_spec.dtype.type))


def to_external(value, type_spec):
    """Convert a value of the runtime to NumPy arrays, lists (clients, sequences) and structs."""
    if isinstance(type_spec, types.FederatedType):
        if type_spec.all_equal:
            return to_external(value.at(0), type_spec.member)
        return [to_external(member, type_spec.member) for member in value.members]
    if isinstance(type_spec, types.StructType):
        elements = structure.iter_elements(type_spec)
        return Struct([(name, to_external(v, t)) for v, (name, t) in zip(value, elements, strict=True)])
    if isinstance(type_spec, types.SequenceType):
        return list(value)
    return value.numpy() if tf.is_tensor(value) else value
