"""The TensorFlow leaves of a TFF computation, run in this process.

TFF compiles a computation to a tree whose leaves are serialized TensorFlow graphs of the
TensorFlow 1 kind, with named inputs and outputs. `Leaf` turns one into a callable over the runtime's values
(`fedutils.values`).

References
----------
.. [1] TensorFlow Federated, ``computation.proto`` (message ``TensorFlow``).
"""

import collections
import functools
import itertools

from fedutils.loops import unroll_reductions
from fedutils.tff import tff  # noqa: F401  (first: it prepares the imports below)

# isort: split
import tensorflow as tf
from tensorflow_federated.python.common_libs import structure
from tensorflow_federated.python.core.impl.types import computation_types, type_conversions

_counter = itertools.count()  # one number for each loaded graph and for each session token
# Operations whose random numbers depend on what was drawn before, and those that keep state of
# another kind from one operation to the next.
_DRAWING = frozenset(
    (
        "Multinomial",
        "ParameterizedTruncatedNormal",
        "RandomGamma",
        "RandomPoissonV2",
        "RandomShuffle",
        "RandomStandardNormal",
        "RandomUniform",
        "RandomUniformInt",
        "StatefulStandardNormalV2",
        "StatefulUniform",
        "StatefulUniformInt",
        "TruncatedNormal",
    )
)
_STATEFUL = frozenset(("HashTableV2", "MutableHashTableV2", "VarHandleOp", "VariableV2"))


def flatten(value, type_spec) -> list:
    """Flatten a value of the runtime to tensors, in the order of the graph's bindings.

    Parameters
    ----------
    value : tf.Tensor, tf.data.Dataset or Struct
    type_spec : tff.Type
        Of tensors, sequences and structures only.

    Returns
    -------
    list of tf.Tensor
        A data set becomes its scalar variant tensor: no element is copied.
    """
    if isinstance(type_spec, computation_types.TensorType):
        return [value]
    if isinstance(type_spec, computation_types.SequenceType):
        return [tf.data.experimental.to_variant(value)]
    elements = structure.iter_elements(type_spec)
    return [x for v, (_, t) in zip(value, elements, strict=True) for x in flatten(v, t)]


def unflatten(tensors, type_spec):
    """Rebuild a value of the runtime from an iterator of tensors; the inverse of `flatten`."""
    if isinstance(type_spec, computation_types.TensorType):
        return next(tensors)
    if isinstance(type_spec, computation_types.SequenceType):
        spec = type_conversions.type_to_tf_structure(type_spec.element)
        return tf.data.experimental.from_variant(next(tensors), spec)
    elements = structure.iter_elements(type_spec)
    return structure.Struct([(name, unflatten(tensors, t)) for name, t in elements])


class Leaf:
    """A TensorFlow leaf in this process: ``leaf(argument=None)`` gives its result.

    Variables of a graph are initialized anew at each call, as TFF's own runtime does. Calls of one
    leaf may overlap: each works on variables of its own, since a graph that has any is imported
    once for each call that is under way.

    Parameters
    ----------
    proto : computation_pb2.TensorFlow
    type_spec : tff.FunctionType
        The type of the computation that the leaf implements.
    loops : LoopOptions
        How the loops over client data run.

    Attributes
    ----------
    draws : bool
        Whether it draws random numbers from a generator that all calls share, so that the order
        of the calls changes the result.

    Raises
    ------
    NotImplementedError
        If this TensorFlow cannot import the graph.
    """

    def __init__(self, proto, type_spec, loops):
        self._type_spec = type_spec
        self._has_token = bool(proto.session_token_tensor_name)
        graph_def = tf.compat.v1.GraphDef()
        proto.graph_def.Unpack(graph_def)
        operations = {node.op for node in _all_nodes(graph_def)}
        self.draws = not operations.isdisjoint(_DRAWING)
        self._has_variables = bool(proto.initialize_op) or not operations.isdisjoint(_STATEFUL)
        if proto.initialize_op:
            _run_first(graph_def, proto.initialize_op)
        unroll_reductions(graph_def, loops)
        self._import = functools.partial(
            _import_graph, proto, graph_def.SerializeToString(), type_spec.parameter is not None
        )
        try:
            self._idle = [self._import()]
        except Exception as error:
            raise NotImplementedError(
                f"this computation cannot run in process: {error}; try fedutils.runtime.use('worker')"
            ) from error

    def __call__(self, argument=None):
        """Return the result for a value of the runtime, as such a value."""
        # A token names the session in graphs that keep state from one call to the next.
        feeds = [tf.constant(str(next(_counter)))] if self._has_token else []
        if self._type_spec.parameter is not None:
            feeds += flatten(argument, self._type_spec.parameter)
        if not self._has_variables:
            fetches = self._idle[0](*feeds)
        else:
            try:
                function = self._idle.pop()
            except IndexError:
                function = self._import()
            try:
                fetches = function(*feeds)
            finally:
                self._idle.append(function)
        return unflatten(iter(tf.nest.flatten(fetches)), self._type_spec.result)


def _import_graph(proto, serialized, has_parameter):
    graph_def = tf.compat.v1.GraphDef.FromString(serialized)
    _make_names_unique(graph_def)
    tokens = [proto.session_token_tensor_name] if proto.session_token_tensor_name else []
    feeds = tokens + (_bound_names(proto.parameter) if has_parameter else [])
    fetches = _bound_names(proto.result)
    feed_nodes = [_node_name(name) for name in feeds]
    nodes = {node.name: node for node in graph_def.node}
    specs = [_spec_of(nodes[name]) for name in feed_nodes]
    # Only what the results need, as in a session. WrappedFunction.prune would do it too, but takes longer,
    # and copies loops in a random order, of which some lead to an error.
    used = _find_needed(graph_def, fetches)
    graph_def = tf.compat.v1.GraphDef(
        node=[node for name, node in nodes.items() if name in used],
        library=graph_def.library,
        versions=graph_def.versions,
    )
    waits = {f"^{name}" for name in feed_nodes}  # for what is there from the beginning
    for node in graph_def.node:
        for name in waits.intersection(node.input):
            node.input.remove(name)

    def compute(*arguments):
        fed = {name: x for name, x in zip(feeds, arguments, strict=True) if _node_name(name) in used}
        return tf.import_graph_def(graph_def, fed, fetches, name="leaf")

    return tf.compat.v1.wrap_function(compute, specs)


def _spec_of(placeholder):
    attributes = placeholder.attr
    shape = tf.TensorShape(attributes["shape"].shape) if "shape" in attributes else None
    return tf.TensorSpec(shape, tf.dtypes.as_dtype(attributes["dtype"].type))


def _all_nodes(graph_def):
    """Yield the nodes of a graph and of its functions."""
    yield from graph_def.node
    for function in graph_def.library.function:
        yield from function.node_def


def _bound_names(binding):
    """List the names of the tensors of a parameter or result, in order."""
    kind = binding.WhichOneof("binding")
    if kind is None:
        return []
    if kind == "tensor":
        return [binding.tensor.tensor_name]
    if kind == "sequence":
        return [binding.sequence.variant_tensor_name]
    return [name for element in binding.struct.element for name in _bound_names(element)]


def _run_first(graph_def, init_op):
    """Make every node that the initializer does not need wait for the initializer.

    A session would run the initializer on its own before the rest; one function has to order both.
    """
    init_name = _node_name(init_op)
    needed = _find_needed(graph_def, [init_name])
    spared = needed | _find_in_loops(graph_def)
    for node in graph_def.node:
        if node.name not in spared and node.op not in ("Placeholder", "Const"):
            node.input.append("^" + init_name)


def _find_needed(graph_def, references):
    """Return the names of some nodes and of all that they need."""
    inputs = {node.name: node.input for node in graph_def.node}
    needed, stack = set(), [_node_name(reference) for reference in references]
    while stack:
        name = stack.pop()
        if name not in needed:
            needed.add(name)
            stack += [_node_name(reference) for reference in inputs[name]]
    return needed


def _find_in_loops(graph_def):
    """Return the names of the nodes in loops of the TensorFlow 1 kind, which no outer node may enter.

    What such a loop reads comes through an Enter node, which is outside and waits in its place.
    """
    consumers = collections.defaultdict(list)
    for node in graph_def.node:
        for reference in node.input:
            consumers[_node_name(reference)].append(node)
    depth = {node.name: 0 for node in graph_def.node if not node.input}
    stack = [node for node in graph_def.node if not node.input]
    while stack:
        node = stack.pop()
        inner = depth[node.name] + {"Enter": 1, "Exit": -1}.get(node.op, 0)
        for consumer in consumers[node.name]:
            if consumer.name not in depth:
                depth[consumer.name] = inner
                stack.append(consumer)
    return {name for name, levels in depth.items() if levels > 0}


def _node_name(reference):
    """Return the node of an input reference such as ``^node`` or ``node:1``."""
    return reference.lstrip("^").split(":")[0]


def _make_names_unique(graph_def):
    """Rename the graph's functions and shared resources.

    A session has a name space of its own; in this process all graphs share one, and two models
    built alike would overwrite each other's functions and variables.
    """
    suffix = f"_leaf{next(_counter)}"
    renamed = {f.signature.name: f.signature.name + suffix for f in graph_def.library.function}

    def rename(nodes):
        for node in nodes:
            node.op = renamed.get(node.op, node.op)
            if "shared_name" in node.attr:  # an empty shared name means the name of the node
                shared = node.attr["shared_name"].s or node.name.encode()
                node.attr["shared_name"].s = shared + suffix.encode()
            _rename_attributes(node.attr, renamed)

    rename(graph_def.node)
    for function in graph_def.library.function:
        function.signature.name = renamed[function.signature.name]
        rename(function.node_def)
        _rename_attributes(function.attr, renamed)
    for gradient in graph_def.library.gradient:
        gradient.function_name = renamed.get(gradient.function_name, gradient.function_name)
        gradient.gradient_func = renamed.get(gradient.gradient_func, gradient.gradient_func)


def _rename_attributes(attributes, renamed):
    for key, attribute in attributes.items():
        functions = [attribute.func] if attribute.HasField("func") else []
        for function in itertools.chain(functions, attribute.list.func):
            function.name = renamed.get(function.name, function.name)
        if key in ("forward_function_name", "backward_function_name"):
            name = attribute.s.decode()
            attribute.s = renamed.get(name, name).encode()
