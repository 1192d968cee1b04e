import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from fedutils import graphs, loops, program, runtime
from fedutils.errors import InputError
from fedutils.tff import tff

# isort: split
import tensorflow as tf

INTS = tff.FederatedType(np.int32, tff.CLIENTS)
FLOATS = tff.FederatedType(np.float32, tff.CLIENTS)


@pytest.fixture(autouse=True)
def in_process():
    runtime.use("in_process")


@pytest.fixture
def count_loads(monkeypatch):
    loaded = []

    class CountedLeaf(graphs.Leaf):
        def __init__(self, *arguments):
            loaded.append(arguments)
            super().__init__(*arguments)

    monkeypatch.setattr(program, "Leaf", CountedLeaf)
    return loaded


def build_sgd_process(spec, learning_rate=0.1):
    """Linear regression with one weight vector (3,), by FedAvg."""

    @tf.function
    def predict(weights, x, training):
        return tf.linalg.matvec(x, weights[0][0])

    model = tff.learning.models.FunctionalModel(
        initial_weights=((np.array([0.5, -1.0, 2.0], np.float32),), ()),
        predict_on_batch_fn=predict,
        loss_fn=lambda output, label, sample_weight=None: tf.reduce_mean((output - label) ** 2),
        input_spec=spec,
    )
    optimizers = tff.learning.optimizers
    return tff.learning.algorithms.build_weighted_fed_avg(
        model, optimizers.build_sgdm(learning_rate), optimizers.build_sgdm(1.0)
    )


def make_client(size, seed, batch_size=2):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(size, 3)).astype(np.float32)
    return tf.data.Dataset.from_tensor_slices((x, x.sum(axis=1))).batch(batch_size)


def run_rounds(process, clients, num_rounds=1):
    state = process.initialize()
    for _ in range(num_rounds):
        state = process.next(state, clients).state
    return process.get_model_weights(state).trainable[0]


def train_by_hand(client, weight, learning_rate=0.1):
    for x, y in client.as_numpy_iterator():
        error = x @ weight - y
        weight = weight - learning_rate * 2 * x.T @ error / len(y)
    return weight


# Federated invariants


def test_one_client_is_plain_sgd():
    client = make_client(7, seed=0)
    expected = train_by_hand(client, np.array([0.5, -1.0, 2.0], np.float32))
    found = run_rounds(build_sgd_process(client.element_spec), [client])
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_clients_are_weighted_by_examples_over_two_rounds():
    clients = [make_client(size, seed) for seed, size in enumerate((7, 2, 4))]
    weight = np.array([0.5, -1.0, 2.0], np.float32)
    for _ in range(2):
        trained = [train_by_hand(client, weight) for client in clients]
        weight = (7 * trained[0] + 2 * trained[1] + 4 * trained[2]) / 13
    found = run_rounds(build_sgd_process(clients[0].element_spec), clients, num_rounds=2)
    np.testing.assert_allclose(found, weight, rtol=1e-5)


def test_order_of_clients_changes_nothing():
    clients = [make_client(size, seed) for seed, size in enumerate((7, 2, 4))]
    process = build_sgd_process(clients[0].element_spec)
    np.testing.assert_allclose(run_rounds(process, clients), run_rounds(process, clients[::-1]), rtol=1e-6)


def test_empty_client_has_no_influence():
    clients = [make_client(7, seed=0), make_client(4, seed=1)]
    empty = make_client(3, seed=2).take(0)
    process = build_sgd_process(clients[0].element_spec)
    np.testing.assert_array_equal(run_rounds(process, clients), run_rounds(process, [*clients, empty]))


def test_identical_clients_leave_the_mean_where_it_was():
    client = make_client(5, seed=0)
    process = build_sgd_process(client.element_spec)
    np.testing.assert_allclose(run_rounds(process, [client] * 3), run_rounds(process, [client]), rtol=1e-6)


def test_two_processes_of_one_shape_do_not_mix():
    clients = [make_client(7, seed=0)]
    slow = build_sgd_process(clients[0].element_spec, learning_rate=0.01)
    fast = build_sgd_process(clients[0].element_spec, learning_rate=0.1)
    before = run_rounds(slow, clients)
    np.testing.assert_allclose(
        run_rounds(fast, clients), train_by_hand(clients[0], [0.5, -1.0, 2.0]), rtol=1e-5
    )
    np.testing.assert_array_equal(run_rounds(slow, clients), before)


def test_nothing_is_compiled_again_in_later_rounds(count_loads, monkeypatch):
    compiled = []
    compile_computation = program.compile_computation
    monkeypatch.setattr(
        program, "compile_computation", lambda c: compiled.append(c) or compile_computation(c)
    )
    program.Program._by_fingerprint.clear()
    clients = [make_client(7, seed=0), make_client(4, seed=1)]
    process = build_sgd_process(clients[0].element_spec)
    state = process.initialize()
    counts = []
    for _ in range(3):
        state = process.next(state, clients).state
        counts.append((len(compiled), len(count_loads)))
    assert counts[0] == counts[1] == counts[2]
    assert counts[0][0] == 2  # initialize and next
    assert counts[0][1] > 2


def test_a_computation_built_alike_takes_over_the_program(count_loads):
    def build(factor):
        return tff.tensorflow.computation(lambda x: factor * x, np.int32)

    double, again, triple = build(2), build(2), build(3)
    assert (double(3), again(3), triple(3)) == (6, 6, 9)
    assert program.Program.of(double) is program.Program.of(again)
    assert program.Program.of(double) is not program.Program.of(triple)
    key = (id(double), loops.LoopOptions())
    assert key in program.Program._by_identity
    del double
    assert key not in program.Program._by_identity


def test_a_process_built_alike_loads_and_compiles_nothing(count_loads):
    clients = [make_client(7, seed=0)]

    def run(learning_rate):
        count_loads.clear()
        weights = run_rounds(build_sgd_process(clients[0].element_spec, learning_rate), clients)
        return weights, len(count_loads)

    first, loaded_first = run(0.0625)
    second, loaded_second = run(0.0625)
    other, loaded_other = run(0.03125)
    assert loaded_first > 2 and loaded_second == 0 and loaded_other > 0
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


# Every operator, with numbers derived by hand


def test_sums_means_extrema_and_secure_sums():
    to_float = tff.tensorflow.computation(lambda a: tf.cast(a, tf.float32))

    @tff.federated_computation(INTS, FLOATS)
    def compute(x, weight):
        return (
            tff.federated_sum(x),
            tff.federated_min(x),
            tff.federated_max(x),
            tff.federated_mean(tff.federated_map(to_float, x)),
            tff.federated_mean(tff.federated_map(to_float, x), weight),
            tff.federated_secure_sum(x, np.int32(10)),
            tff.federated_secure_sum_bitwidth(x, 8),
        )

    # (1 * 1 + 2 * 0 + 6 * 3) / 4 = 4.75
    assert compute([1, 2, 6], [1.0, 0.0, 3.0]) == (9, 1, 6, 3.0, 4.75, 9, 9)


def test_secure_sum_checks_the_range():
    @tff.federated_computation(INTS)
    def compute(x):
        return tff.federated_secure_sum(x, np.int32(5))

    with pytest.raises(tf.errors.InvalidArgumentError):
        compute([1, 6])


def test_aggregate_runs_in_the_order_of_clients():
    accumulate = tff.tensorflow.computation(lambda total, x: 10 * total + x)
    merge = tff.tensorflow.computation(lambda a, b: a + b)
    report = tff.tensorflow.computation(lambda total: tf.strings.as_string(total))

    @tff.federated_computation(INTS)
    def compute(x):
        return tff.federated_aggregate(x, np.int32(7), accumulate, merge, report)

    assert compute([1, 2, 3]) == b"7123"
    assert compute([]) == b"7"


def test_select():
    gather = tff.tensorflow.computation(lambda table, key: tf.gather(table, key))
    total = tff.tensorflow.computation(
        lambda rows: rows.reduce(0.0, lambda a, b: a + b), tff.SequenceType(np.float32)
    )

    def build(select):
        @tff.federated_computation(
            tff.FederatedType(tff.TensorType(np.int32, (2,)), tff.CLIENTS),
            tff.FederatedType(tff.TensorType(np.float32, (5,)), tff.SERVER),
        )
        def compute(keys, table):
            rows = select(keys, tff.federated_value(np.int32(5), tff.SERVER), table, gather)
            return tff.federated_map(total, rows)

        return compute

    keys = [np.array([0, 1], np.int32), np.array([4, 4], np.int32)]
    table = np.array([10, 20, 30, 40, 50], np.float32)
    for select in (tff.federated_select, tff.federated_secure_select):
        assert build(select)(keys, table) == [30.0, 100.0]


def test_broadcast_zip_map_and_eval():
    add = tff.tensorflow.computation(lambda a, b: a + b)
    five = tff.tensorflow.computation(lambda: np.int32(5))

    @tff.federated_computation(INTS, tff.FederatedType(np.int32, tff.SERVER))
    def compute(x, y):
        at_clients = tff.federated_map(add, (x, tff.federated_broadcast(y)))
        server = tff.federated_zip((y, tff.federated_eval(five, tff.SERVER)))
        constant = tff.federated_map(add, (x, tff.federated_value(np.int32(1), tff.CLIENTS)))
        from_eval = tff.federated_map(add, (x, tff.federated_eval(five, tff.CLIENTS)))
        return at_clients, tff.federated_map(add, server), constant, from_eval

    assert compute([1, 2, 3], 10) == ([11, 12, 13], 15, [2, 3, 4], [6, 7, 8])


def test_sequences():
    sequence = tff.SequenceType(np.int32)
    square = tff.tensorflow.computation(lambda x: x * x, np.int32)
    add = tff.tensorflow.computation(lambda a, b: a + 2 * b, (np.int32, np.int32))

    @tff.federated_computation(tff.FederatedType(sequence, tff.CLIENTS))
    def compute(x):
        def each(function):
            return tff.federated_map(tff.federated_computation(function, sequence), x)

        return (
            each(tff.sequence_sum),
            each(lambda s: tff.sequence_sum(tff.sequence_map(square, s))),
            each(lambda s: tff.sequence_reduce(s, np.int32(1), add)),
        )

    sums, squares, reduced = compute([[1, 2], [3], []])
    assert sums == [3, 3, 0]
    assert squares == [5, 9, 0]
    assert reduced == [7, 7, 1]
    doubled = tff.tensorflow.computation(lambda d: d.map(lambda a: a * 2), sequence)
    assert list(doubled([1, 2, 3])) == [2, 4, 6]


def test_structures_strings_and_identity():
    @tff.tensorflow.computation
    def swap(pair):
        return {"first": pair["b"], "second": (pair["a"], "text")}

    result = swap({"a": np.int32(1), "b": np.array([1.0, 2.0], np.float32)})
    np.testing.assert_array_equal(result["first"], [1.0, 2.0])
    assert tuple(result["second"]) == (1, b"text")
    assert tff.tensorflow.computation(lambda x: x, np.int32)(4) == 4


def test_variables_start_anew_at_each_call():
    @tff.tensorflow.computation(np.int32)
    def count(x):
        variable = tf.Variable(10)
        with tf.control_dependencies([variable.assign_add(x)]):
            return variable.read_value()

    assert [count(1), count(1), count(2)] == [11, 11, 12]


@pytest.mark.parametrize("prefetch", [False, True])
@pytest.mark.parametrize("nested", [False, True])
def test_reductions_become_loops_wherever_they_are(nested, prefetch):
    # The state has two parts of which one changes its shape; the step reads a value from outside.
    def reduce(factor, stop):
        def step(state, x):
            total, seen = state
            return total + factor * x, tf.concat([seen, [x]], axis=0)

        start = (tf.constant(1, tf.int64), tf.zeros((0,), tf.int64))
        total, seen = tf.data.Dataset.range(1, stop).reduce(start, step)
        return total + 1, seen

    if nested:  # the reduction is in a function of the graph
        reduce = tf.function(reduce, autograph=False)
    wrapped = tf.compat.v1.wrap_function(reduce, [tf.TensorSpec((), tf.int64)] * 2)
    graph_def = wrapped.graph.as_graph_def()
    loops.unroll_reductions(graph_def, loops.LoopOptions(prefetch=prefetch))
    graphs._make_names_unique(graph_def)
    imported = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(graph_def, name=""), [])
    compute = imported.prune(
        [imported.graph.get_tensor_by_name(t.name) for t in wrapped.inputs],
        [imported.graph.get_tensor_by_name(t.name) for t in wrapped.outputs],
    )
    total, seen = compute(tf.constant(5, tf.int64), tf.constant(4, tf.int64))
    assert (int(total), list(seen.numpy())) == (1 + 5 * (1 + 2 + 3) + 1, [1, 2, 3])
    total, seen = compute(tf.constant(5, tf.int64), tf.constant(1, tf.int64))
    assert (int(total), list(seen.numpy())) == (2, [])


def test_no_graph_keeps_a_reduction(monkeypatch):
    # Preparing the step of a ReduceDataset at each call costs more than a short round's training.
    kept = []
    make_names_unique = graphs._make_names_unique

    def record(graph_def):
        functions = graph_def.library.function
        nodes = [n for part in (graph_def.node, *(f.node_def for f in functions)) for n in part]
        kept.extend(n.name for n in nodes if n.op == "ReduceDataset")
        make_names_unique(graph_def)

    monkeypatch.setattr(graphs, "_make_names_unique", record)
    client = make_client(7, seed=0)
    run_rounds(build_sgd_process(client.element_spec), [client])
    assert kept == []


# What a user can get wrong


def test_unknown_runtime():
    with pytest.raises(InputError, match="expected 'in_process' or 'worker', found 'gpu'") as error:
        runtime.use("gpu")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "devices", "message"),
    [
        ("in_process", [], "expected one or more, found none"),
        ("in_process", ["GPU:7"], "expected any of CPU:0.*found 'GPU:7'"),
        ("worker", ["CPU:0"], "expected none of them with the worker"),
    ],
)
def test_wrong_devices(name, devices, message):
    with pytest.raises(InputError, match=message):
        runtime.use(name, devices)


def test_named_device():
    runtime.use("in_process", ["/CPU:0"])
    assert tff.tensorflow.computation(lambda x: x + 1, np.int32)(1) == 2


def test_wrong_number_of_client_values():
    @tff.federated_computation(INTS, INTS)
    def compute(x, y):
        return tff.federated_sum(x), tff.federated_sum(y)

    with pytest.raises(ValueError, match=r"Conflicting cardinalities .* 3 vs 2"):
        compute([1, 2], [1, 2, 3])


def test_error_names_the_client():
    @tff.tensorflow.computation(np.int32)
    def check(x):
        with tf.control_dependencies([tf.debugging.assert_positive(x)]):
            return tf.identity(x)

    @tff.federated_computation(INTS)
    def compute(x):
        return tff.federated_map(check, x)

    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        compute([3, -1, 4])
    assert error.value.__notes__ == [
        "This happened in the work for client 1 of 3, in federated_map of (int32 -> int32)."
    ]


def test_interrupt_stops_between_clients(monkeypatch):
    started = []

    class SlowLeaf(graphs.Leaf):
        def __call__(self, argument=None):
            started.append(argument)
            time.sleep(0.5)
            return argument

    monkeypatch.setattr(program, "Leaf", SlowLeaf)
    identity = tff.tensorflow.computation(lambda x: x, np.int32)

    @tff.federated_computation(INTS)
    def compute(x):
        return tff.federated_map(identity, x)

    threading.Timer(0.8, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        compute(list(range(20)))
    num_started = len(started)
    assert num_started < 10
    time.sleep(0.7)
    assert len(started) == num_started
    assert compute([1, 2]) == [1, 2]  # the next computation runs


def test_async_context_runs_a_program():
    context = tff.program.NativeFederatedContext(runtime.async_context())
    clients = [make_client(7, seed=0)]
    process = build_sgd_process(clients[0].element_spec)
    expected = run_rounds(process, clients)

    async def run():
        state = process.initialize()
        state = process.next(state, clients).state
        return await tff.program.materialize_value(process.get_model_weights(state))

    with tff.framework.get_context_stack().install(context):
        found = asyncio.run(run())
    np.testing.assert_array_equal(found.trainable[0], expected)


# The worker

PARITY = """
import sys
import numpy as np
sys.path.insert(0, {tests!r})
from fedutils import runtime
from test_runtime import build_sgd_process, make_client, run_rounds
runtime.use("worker")
clients = [make_client(size, seed) for seed, size in enumerate((7, 2, 4))]
np.save({out!r}, run_rounds(build_sgd_process(clients[0].element_spec), clients, num_rounds=2))
{end}
"""


def run_worker(folder, end):
    """Run two rounds in the worker, in another process; return its status and session."""
    code = PARITY.format(tests=str(Path(__file__).parent), out=str(folder / "w.npy"), end=end)
    with (folder / "stdout").open("w") as stdout, (folder / "stderr").open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdout=stdout, stderr=stderr, start_new_session=True
        )
        status = process.wait(timeout=120)
    assert (folder / "w.npy").exists(), (folder / "stderr").read_text()
    return status, process.pid


def list_session(session):
    """List the ids of the live processes of a session."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


@pytest.mark.parametrize(
    ("end", "status"),
    [
        ("", 0),
        ("raise SystemExit(3)", 3),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -9),
    ],
    ids=["normal", "error", "killed"],
)
def test_worker_agrees_and_leaves_no_process(tmp_path, end, status):
    found_status, session = run_worker(tmp_path, end)
    assert found_status == status
    deadline = time.monotonic() + 5  # the kernel ends the worker of a killed parent at once
    while list_session(session) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert list_session(session) == []
    clients = [make_client(size, seed) for seed, size in enumerate((7, 2, 4))]
    here = run_rounds(build_sgd_process(clients[0].element_spec), clients, num_rounds=2)
    np.testing.assert_allclose(np.load(tmp_path / "w.npy"), here, atol=1e-5)


def test_use_in_process_stops_the_worker():
    runtime.use("worker")
    pid = runtime.worker_pid()
    os.kill(pid, 0)  # it runs
    assert tff.tensorflow.computation(lambda x: x + 1, np.int32)(1) == 2
    context = runtime.async_context("worker")
    assert runtime.worker_pid() == pid  # one worker serves all contexts
    runtime.use("in_process")
    assert runtime.worker_pid() is None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(RuntimeError, match="worker was stopped"):
        context.executor_factory.create_executor({})
