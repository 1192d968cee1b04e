"""What the cases of test_what_runs.py are made of: their table, the two runtimes, a model and its clients."""

import asyncio
import functools
import re
import weakref
from collections import OrderedDict

import numpy as np
import pytest

from fedutils import program, runtime
from fedutils.tff import tff

# isort: split
import tensorflow as tf

EQUAL = "equal to the worker"
CLOSED_FORM = "closed form"
TOLERANCE = 1e-5

GROUPS = (
    "Algorithms",
    "Optimizers, of clients and of the server",
    "Models and loops",
    "Aggregators",
    "Secure aggregation (insecure bodies)",
    "Differential privacy",
    "Programs",
    "Client data",
    "Federated operators",
    "Sequence operators",
    "Analytics",
)
CASES = {}  # (group, name) -> function of Runtimes that runs the case and returns its outcome


def case(group, name):
    """Add a function to the table."""

    def add(function):
        assert group in GROUPS and (group, name) not in CASES, (group, name)
        CASES[group, name] = function
        return function

    return add


class Runtimes:
    """Both runtimes, started once.

    Attributes
    ----------
    folder : Path
        Empty at the beginning of a case.
    """

    def __init__(self):
        stack = tff.framework.get_context_stack()
        runtime.use("in_process")
        self._here = stack.current
        runtime.use("worker")
        self._there = stack.current
        self.folder = None

    def in_process(self, function, *arguments):
        with tff.framework.get_context_stack().install(self._here):
            return function(*arguments)

    def in_worker(self, function, *arguments):
        with tff.framework.get_context_stack().install(self._there):
            return function(*arguments)

    def equal(self, function, *arguments, expect=None):
        """Run in both and compare all numbers; also with `expect`, derived by hand, where it is given."""
        here = self.in_process(function, *arguments)
        assert_same(here, self.in_worker(function, *arguments))
        if expect is not None:
            assert_same(here, expect)
        return EQUAL

    def equal_programs(self, function):
        """Run a coroutine function of a folder in both runtimes and compare."""
        results = []
        for name in runtime.RUNTIMES:
            context = tff.program.NativeFederatedContext(runtime.async_context(name))
            with tff.framework.get_context_stack().install(context):
                results.append(asyncio.run(function(self.folder / name)))
        assert_same(*results)
        return EQUAL

    def check(self, function, *arguments, by):
        """Run in both, and let `by` assert what is known of each result."""
        by(self.in_process(function, *arguments))
        by(self.in_worker(function, *arguments))
        return CLOSED_FORM

    def only_here(self, function, *arguments, expect, error, because):
        """Run in process, compare with what was derived by hand, and see the worker refuse."""
        assert_same(self.in_process(function, *arguments), expect)
        with pytest.raises(Exception) as caught:
            self.in_worker(function, *arguments)
        assert re.search(error, str(caught.value)), caught.value
        return f"{CLOSED_FORM}; the worker refuses: {because}"


def start_runtimes(monkeypatch):
    """Start both runtimes, such that a computation is compiled once for both (the compiler is the same)."""
    compile_computation, compiled = program.compile_computation, {}

    def compile_once(computation):
        key = id(computation)
        if key not in compiled:
            compiled[key] = compile_computation(computation)
            weakref.finalize(computation, compiled.pop, key)
        return compiled[key]

    for module in (program, runtime):
        monkeypatch.setattr(module, "compile_computation", compile_once)
    return Runtimes()


def flatten(value):
    """List the numbers and strings in a result."""
    if isinstance(value, tff.structure.Struct):
        value = [element for _, element in tff.structure.iter_elements(value)]
    parts = tf.nest.flatten(value)
    if any(isinstance(part, tff.structure.Struct) for part in parts):
        return [x for part in parts for x in flatten(part)]
    return parts


def assert_same(first, second):
    first, second = flatten(first), flatten(second)
    assert len(first) == len(second) > 0
    for a, b in zip(first, second, strict=True):
        if np.asarray(a).dtype.kind in "fc":
            np.testing.assert_allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE)
        else:
            np.testing.assert_array_equal(a, b)


# A model and its clients


@functools.cache
def build_linear_model():
    """Linear regression from three numbers to two, with the mean square error as loss and metric."""

    @tf.function
    def predict(weights, x, training):
        matrix, bias = weights[0]
        return x @ matrix + bias

    @tf.function
    def begin():
        return OrderedDict(loss=OrderedDict(total=tf.constant(0.0), count=tf.constant(0.0)))

    @tf.function
    def update(state, labels, batch_output, sample_weight=None):
        loss = state["loss"]
        size = tf.cast(tf.shape(labels)[0], tf.float32)
        error = tf.reduce_mean((batch_output.predictions - labels) ** 2)
        return OrderedDict(loss=OrderedDict(total=loss["total"] + size * error, count=loss["count"] + size))

    @tf.function
    def finalize(state):
        return OrderedDict(loss=state["loss"]["total"] / state["loss"]["count"])

    matrix = np.array([[0.5, -1.0], [2.0, 0.25], [-0.75, 1.5]], np.float32)
    return tff.learning.models.FunctionalModel(
        initial_weights=((matrix, np.array([0.25, -0.5], np.float32)), ()),
        predict_on_batch_fn=predict,
        loss_fn=lambda output, label, sample_weight=None: tf.reduce_mean((output - label) ** 2),
        metrics_fns=(begin, update, finalize),
        input_spec=CLIENTS[0].element_spec,
    )


@functools.cache
def build_evaluation():
    return tff.learning.algorithms.build_fed_eval(build_linear_model())


def build_variable_model():
    return tff.learning.models.model_from_functional(build_linear_model())


def _make_client(size, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(size, 3)).astype(np.float32)
    y = rng.normal(size=(size, 2)).astype(np.float32)
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(2)


CLIENTS = [_make_client(size, seed) for seed, size in enumerate((5, 2, 4))]


def train(process, clients=CLIENTS, num_rounds=2):
    """Run rounds; return the weights after the last and the metrics of each."""
    state, metrics = process.initialize(), []
    initial = flatten(state.global_model_weights)
    for _ in range(num_rounds):
        output = process.next(state, clients)
        state = output.state
        metrics.append(output.metrics)
    weights = process.get_model_weights(state)
    assert all(np.abs(a - b).max() > 1e-4 for a, b in zip(flatten(weights), initial, strict=True))
    return weights, metrics
