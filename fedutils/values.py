"""Values of the in-process runtime, and their conversion from and to what callers of TFF use.

A value is a ``tf.Tensor``, a ``tf.data.Dataset``, a TFF ``Struct`` of values, or `Federated`.
"""

from fedutils.errors import InputError
from fedutils.tff import tff  # noqa: F401  (before the imports below, which it prepares)

# isort: split
import tensorflow as tf
from tensorflow_federated.python.common_libs import structure
from tensorflow_federated.python.core.impl.types import computation_types as types
from tensorflow_federated.python.core.impl.utils import tensorflow_utils

Struct = structure.Struct


class Federated:
    """A federated value: one member a client, or one member that all of them share.

    A client's member is computed when it is first asked for, and kept until it is forgotten.

    Parameters
    ----------
    compute : callable
        From the number of a client to its member.
    num_clients : int
    """

    def __init__(self, compute, num_clients):
        self._compute = compute
        self._members = {}
        self.num_clients = num_clients

    @classmethod
    def of(cls, members):
        """Make a value of members that exist already, one a client."""
        return cls(members.__getitem__, len(members))

    def at(self, client):
        """Return the member of client number `client`."""
        if client not in self._members:
            self._members[client] = self._compute(client)
        return self._members[client]

    def forget(self, client):
        """Let go of a member; it would be computed anew."""
        self._members.pop(client, None)


class Shared(Federated):
    """A federated value with one member, at the server or the same at all clients."""

    def __init__(self, member):
        self._member = member

    def at(self, client):
        """Return the member."""
        return self._member

    def forget(self, client):
        """Do nothing: the member belongs to the other clients too."""


def federated_parts(value):
    """Yield the federated values in a value."""
    if isinstance(value, Federated):
        yield value
    elif isinstance(value, Struct):
        for element in value:
            yield from federated_parts(element)


def pair(first, second):
    """Return the unnamed structure of two values, the argument of a binary operator."""
    return Struct([(None, first), (None, second)])


def add(first, second):
    """Add two values of one type, tensor by tensor."""
    if isinstance(first, Struct):
        return structure.map_structure(add, first, second)
    return first + second


def make_zero(type_spec):
    """Return the zero of a type of tensors and structures."""
    if isinstance(type_spec, types.TensorType):
        return tf.zeros(type_spec.shape, tf.dtypes.as_dtype(type_spec.dtype.type))
    return Struct([(name, make_zero(t)) for name, t in structure.iter_elements(type_spec)])


def make_dataset(elements, element_type):
    """Build a data set from values, an empty one included."""
    elements = [to_external(element, element_type) for element in elements]
    return tensorflow_utils.make_data_set_from_elements(None, elements, element_type)


def iterate(dataset, type_spec):
    """Yield the elements of a data set as values."""
    return (to_internal(element, type_spec.element, 0) for element in dataset)


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
            return Shared(to_internal(value, type_spec.member, num_clients))
        if len(value) != num_clients:
            raise InputError(
                f"expected one value for each of {num_clients} clients, found {len(value)}; "
                "pass lists of equal length"
            )
        return Federated.of([to_internal(v, type_spec.member, num_clients) for v in value])
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
        members = [value.at(client) for client in range(value.num_clients)]
        return [to_external(member, type_spec.member) for member in members]
    if isinstance(type_spec, types.StructType):
        elements = structure.iter_elements(type_spec)
        return Struct([(name, to_external(v, t)) for v, (name, t) in zip(value, elements, strict=True)])
    if isinstance(type_spec, types.SequenceType):
        return list(value)
    return value.numpy() if tf.is_tensor(value) else value
