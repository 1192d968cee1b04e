"""Reductions over data sets, rewritten so that their step is prepared once and not at each call.

TFF writes a client's training as one operation, ReduceDataset, that applies a step function to a
state and each batch. tf.data prepares that function anew whenever the operation runs (inlining,
optimization, kernels: 0.9 CPU seconds for a convolutional network of 0.2 million parameters), so
for every client in every round; and it ignores ``tf.device``. `unroll_reductions` replaces the
operation by a loop around a call of the step: TensorFlow prepares the callee of a call once.
"""

import dataclasses

import fedutils.tff  # noqa: F401  (first: it quietens the import of TensorFlow)

# isort: split
import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class LoopOptions:
    """How the loops run.

    Attributes
    ----------
    jit_compile : bool
        Compile the steps by XLA.
    prefetch : bool
        While a step runs, read the next batch and copy it to the device of the step. TensorFlow's own
        ``prefetch_to_device`` must be the last of a data set's transformations and names one device; the loop
        is where that end is, whatever TFF's graph does with the data before, and runs on any device.
    """

    jit_compile: bool = False
    prefetch: bool = False


def unroll_reductions(graph_def, options=LoopOptions()):
    """Replace, in place, every ReduceDataset of a graph and of its functions by a loop.

    Parameters
    ----------
    graph_def : GraphDef
    options : LoopOptions
    """
    functions = {f.signature.name: f for f in graph_def.library.function}
    for node in graph_def.node:
        if node.op == "ReduceDataset":
            _unroll(node, functions, graph_def.library, options)
    for function in functions.values():
        for node in function.node_def:
            if node.op == "ReduceDataset":
                _unroll(node, functions, graph_def.library, options)
                _rename_output(function, f"{node.name}:components:", f"{node.name}:output:")


def _unroll(node, functions, library, options):
    step = functions[node.attr["f"].func.name]
    if options.jit_compile:
        step.attr["_XlaMustCompile"].b = True
    # Inlined into the loop, the step would miss most of TensorFlow's optimizations.
    step.attr["_noinline"].b = True
    state_types = list(node.attr["Tstate"].list.type)
    other_types = list(node.attr["Targuments"].list.type)
    loop_name, loop_functions = _build_loop(step, len(state_types), len(other_types), options.prefetch)
    library.function.extend(loop_functions)
    # The loop takes the inputs of ReduceDataset, in their order.
    node.op = "StatefulPartitionedCall"
    node.attr.clear()
    node.attr["f"].func.name = loop_name
    node.attr["Tin"].list.type.extend(
        [tf.variant.as_datatype_enum, *state_types, *other_types]  # the data set comes first
    )
    node.attr["Tout"].list.type.extend(state_types)


def _build_loop(step, num_states, num_others, prefetch):
    """Return the name of a function that loops over a data set, and all functions it needs."""
    types = [tf.dtypes.as_dtype(argument.type) for argument in step.signature.input_arg]
    last = len(types) - num_others  # the step's arguments: state, element of the data set, others
    element_spec = tuple(tf.TensorSpec(None, t) for t in types[num_states:last])
    config = tf.compat.v1.ConfigProto().SerializeToString()  # the default: optimize the step

    def call_step(state, element, others):
        results = tf.raw_ops.StatefulPartitionedCall(
            args=[*state, *element, *others],
            Tout=types[:num_states],
            f=step.signature.name,
            config_proto=config,
        )
        return tuple(results)

    @tf.function
    def loop(variant, *rest):
        state, others = rest[:num_states], rest[num_states:]
        # iter, because AutoGraph turns a loop over the data set itself back into a reduction.
        for element in iter(tf.data.experimental.from_variant(variant, element_spec)):
            # One batch at a time in memory; a pipeline that prefetches still does.
            tf.autograph.experimental.set_loop_options(parallel_iterations=1)
            state = call_step(state, element, others)
        return state

    @tf.function(autograph=False)
    def loop_ahead(variant, *rest):
        state, others = rest[:num_states], rest[num_states:]
        batches = iter(tf.data.experimental.from_variant(variant, element_spec))

        def advance(_, element, state):
            # The step does not need the batch after its own: TensorFlow runs and reads side by side.
            following = batches.get_next_as_optional()
            state = call_step(state, element, others)
            there = following.has_value()
            return there, tf.cond(there, following.get_value, lambda: element), state

        def train(first):
            start = (tf.constant(True), first.get_value(), state)
            return tf.while_loop(lambda there, *_: there, advance, start, parallel_iterations=1)[2]

        first = batches.get_next_as_optional()
        return tf.cond(first.has_value(), lambda: train(first), lambda: state)

    specs = [tf.TensorSpec(None, t) for t in types[:num_states] + types[last:]]
    # A caller's graph holds the definitions of what it calls.
    chosen = loop_ahead if prefetch else loop
    caller = tf.function(lambda *arguments: chosen(*arguments))
    graph_def = caller.get_concrete_function(tf.TensorSpec((), tf.variant), *specs).graph.as_graph_def()
    (call,) = [n for n in graph_def.node if n.op == "StatefulPartitionedCall"]
    return call.attr["f"].func.name, graph_def.library.function


def _rename_output(function, old, new):
    """Rename references to a node's outputs in a function, ``node:output name:index``."""
    for node in function.node_def:
        for i, name in enumerate(node.input):
            if name.startswith(old):
                node.input[i] = new + name.removeprefix(old)
    for key, name in function.ret.items():
        if name.startswith(old):
            function.ret[key] = new + name.removeprefix(old)
