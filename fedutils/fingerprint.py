"""The fingerprint of a computation: equal for two that were built alike.

TensorFlow numbers the functions that it traces through a whole process, so that two computations built by
the same lines differ in names. The fingerprint looks through names: a call counts as what it calls.
"""

import functools
import hashlib

import fedutils.tff  # noqa: F401  (before the imports below, which it prepares)

# isort: split
import tensorflow as tf
from tensorflow_federated.proto.v0 import computation_pb2

# Attributes that hold such names, or say where in the source a node came from.
_NAMES = ("forward_function_name", "backward_function_name", "_gradient_op_type", "api_implements")


def fingerprint_computation(proto: computation_pb2.Computation) -> str:
    """Return a hexadecimal digest of a computation of TFF."""
    skeleton = computation_pb2.Computation()
    skeleton.CopyFrom(proto)
    digest = hashlib.sha256()
    for leaf in _find_leaves(skeleton):
        graph_def = tf.compat.v1.GraphDef()
        leaf.graph_def.Unpack(graph_def)
        digest.update(_fingerprint_graph(graph_def).encode())
        leaf.ClearField("graph_def")
        leaf.ClearField("cache_key")
    digest.update(skeleton.SerializeToString(deterministic=True))
    return digest.hexdigest()


def _find_leaves(message):
    """Yield the TensorFlow leaves in a message, in order."""
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if field.is_repeated else [value]:
                if isinstance(part, computation_pb2.TensorFlow):
                    yield part
                else:
                    yield from _find_leaves(part)


def _fingerprint_graph(graph_def):
    functions = {function.signature.name: function for function in graph_def.library.function}

    @functools.cache
    def of_function(name):
        function = functions[name]
        function.signature.name = ""
        see_through(function.node_def)
        see_through_attributes(function.attr)
        return _digest(function)

    def see_through(nodes):
        for node in nodes:
            node.ClearField("experimental_debug_info")
            if node.op in functions:
                node.op = of_function(node.op)
            see_through_attributes(node.attr)

    def see_through_attributes(attributes):
        for name in _NAMES:
            attributes.pop(name, None)
        for attribute in attributes.values():
            called = [attribute.func] if attribute.HasField("func") else []
            for function in (*called, *attribute.list.func):
                if function.name in functions:
                    function.name = of_function(function.name)

    see_through(graph_def.node)
    graph_def.ClearField("library")  # what is called is in its callers' fingerprints
    return _digest(graph_def)


def _digest(message):
    return hashlib.sha256(message.SerializeToString(deterministic=True)).hexdigest()
