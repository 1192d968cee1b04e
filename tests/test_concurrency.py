"""Clients side by side, on several devices, in flat memory: and the numbers stay the same."""

import subprocess
import sys
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest

from fedutils import program, runtime, stages
from fedutils.errors import InputError
from fedutils.tff import tff

# isort: split
import tensorflow as tf
from test_runtime import FLOATS, INTS, build_sgd_process, make_client, run_rounds


@pytest.fixture(autouse=True)
def in_process():
    runtime.use("in_process")
    yield
    runtime.use("in_process")


# ---- several at a time


def test_the_result_is_the_same_bit_for_bit_however_many_run_at_a_time():
    clients = [make_client(3 + 5 * k, seed=k) for k in range(7)]
    process = build_sgd_process(clients[0].element_spec)
    results = []
    for at_a_time in (1, 2, 3, 7, 20):
        runtime.use("in_process", concurrent_clients=at_a_time)
        results.append(run_rounds(process, clients, num_rounds=2))
    assert all(np.array_equal(results[0], other) for other in results)


@pytest.fixture
def hook(monkeypatch):
    """Return a list; what is put into it is called with (argument, result) of every leaf, where it ran."""
    hooks = []

    class HookedLeaf(program.Leaf):
        def __call__(self, argument=None):
            result = super().__call__(argument)
            for function in hooks:
                function(argument, result)
            return result

    monkeypatch.setattr(program, "Leaf", HookedLeaf)
    program.Program._by_fingerprint.clear()
    return hooks


def is_double(value):
    """Tell the clients' work from the rest: in these tests it alone gives float64."""
    return tf.is_tensor(value) and value.dtype == tf.float64


def build_sum_of_work():
    work = tff.tensorflow.computation(lambda x: tf.cast(x, tf.float64), np.int32)

    @tff.federated_computation(INTS)
    def compute(x):
        return tff.federated_sum(tff.federated_map(work, x))

    return compute


def test_clients_do_run_at_the_same_time(hook):
    barrier = threading.Barrier(3, timeout=20)  # passes only where three clients are at once

    def meet(argument, result):
        if is_double(result) and not is_double(argument) and tf.is_tensor(argument):
            barrier.wait()

    hook.append(meet)
    runtime.use("in_process", concurrent_clients=3)
    assert build_sum_of_work()([1, 2, 3]) == 6


def test_clients_at_the_same_time_do_not_share_variables():
    @tff.tensorflow.computation(tff.SequenceType(np.int32))
    def add_up(numbers):
        total = tf.Variable(0)
        with tf.control_dependencies([numbers.reduce(0, lambda _, x: total.assign_add(x))]):
            return total.read_value()

    @tff.federated_computation(tff.FederatedType(tff.SequenceType(np.int32), tff.CLIENTS))
    def compute(x):
        return tff.federated_map(add_up, x)

    runtime.use("in_process", concurrent_clients=4)
    sequences = [tf.data.Dataset.range(k, 3000 + k, output_type=tf.int32) for k in range(8)]
    expected = [3000 * k + 2999 * 1500 for k in range(8)]
    assert compute(sequences) == expected


def test_clients_that_draw_from_one_generator_take_turns():
    @tff.tensorflow.computation(np.float32)
    def add_noise(x):
        return x + tf.random.uniform((), seed=7)

    @tff.federated_computation(FLOATS)
    def compute(x):
        return tff.federated_map(add_noise, x)

    def draw(at_a_time):
        program.Program._by_fingerprint.clear()  # a new import, and so the generator's start
        program.Program._by_identity.clear()
        runtime.use("in_process", concurrent_clients=at_a_time)
        return compute([0.0] * 20)

    assert draw(8) == draw(1)


def test_an_error_is_that_of_the_first_client_that_failed():
    @tff.tensorflow.computation(np.int32)
    def check(x):
        with tf.control_dependencies([tf.debugging.assert_positive(x)]):
            return tf.identity(x)

    @tff.federated_computation(INTS)
    def compute(x):
        return tff.federated_map(check, x)

    runtime.use("in_process", concurrent_clients=4)
    for _ in range(5):
        with pytest.raises(tf.errors.InvalidArgumentError) as error:
            compute([3, 5, -1, 4, -2, 6])
        assert "client 2 of 6" in error.value.__notes__[0]


# ---- which client starts when


@pytest.mark.parametrize(
    ("sizes", "pairs"),
    [
        ([1, 2, 3, 4], [{2, 3}, {0, 1}]),
        ([9, 1, 9, 1], [{0, 2}, {1, 3}]),
        ([0, 0, 0, 0], [{0, 1}, {2, 3}]),
        # The last eight, four a thread: what the others give does not have to wait for one of the last.
        ([0, 1, 2, 3, 1, 2, 3, 4, 5, 6, 7, 8], [{0, 1}, {2, 3}, {10, 11}, {8, 9}, {6, 7}, {4, 5}]),
    ],
)
def test_the_last_clients_start_with_the_largest(sizes, pairs):
    barrier, lock, started = threading.Barrier(2, timeout=20), threading.Lock(), []

    def work(client):
        with lock:
            started.append(client)
        barrier.wait()  # the next two start when both of these have
        return client

    count = len(sizes)
    assert list(stages.run_in_order(work, count, 2, sizes.__getitem__)) == list(range(count))
    assert [set(started[k : k + 2]) for k in range(0, count, 2)] == pairs


def test_what_waits_for_its_turn_is_bounded():
    lock, started, most = threading.Lock(), [], []

    def work(client):
        with lock:
            started.append(client)

    for done, _ in enumerate(stages.run_in_order(work, 60, 2, lambda client: client)):
        with lock:
            most.append(len(started) - done - 1)
    assert max(most) <= 7 and max(most[:40]) <= 3


def test_the_size_of_a_client_is_that_of_its_data(hook):
    barrier, lock, seen = threading.Barrier(2, timeout=20), threading.Lock(), []

    def record(argument, result):
        if is_double(result) and isinstance(argument, tf.data.Dataset):
            with lock:
                seen.append(int(result))
            barrier.wait()

    @tff.tensorflow.computation(tff.SequenceType(np.int32))
    def count(numbers):
        return numbers.reduce(tf.constant(0, tf.float64), lambda total, _: total + 1)

    @tff.federated_computation(tff.FederatedType(tff.SequenceType(np.int32), tff.CLIENTS))
    def compute(x):
        return tff.federated_sum(tff.federated_map(count, x))

    hook.append(record)
    runtime.use("in_process", concurrent_clients=2)
    data = [tf.data.Dataset.range(size, output_type=tf.int32) for size in (1, 4, 2, 6)]
    assert compute(data) == 13
    assert [set(seen[:2]), set(seen[2:])] == [{4, 6}, {1, 2}]


# ---- memory


@pytest.mark.parametrize("at_a_time", [1, 3])
def test_what_clients_send_does_not_pile_up(hook, at_a_time):
    alive, most, lock = [0], [0], threading.Lock()

    def change(by):
        with lock:
            alive[0] += by
            most[0] = max(most[0], alive[0])

    def watch(argument, result):
        if is_double(result):
            change(1)
            weakref.finalize(result, change, -1)

    hook.append(watch)
    runtime.use("in_process", concurrent_clients=at_a_time)
    assert build_sum_of_work()(list(range(40))) == sum(range(40))
    # Those under way, those done and waiting for their turn, the running sum and the one before it: these
    # clients have no data to be sorted by.
    assert most[0] <= 2 * at_a_time + 3


def test_fedavg_goes_through_its_clients_once():
    clients = [make_client(7, seed=0)]
    process = build_sgd_process(clients[0].element_spec)
    compiled = program.Program.of(process.next)
    plan = compiled.stages(compiled.block.result)
    assert [bool(stage.at_clients) for stage in plan] == [True, False]
    assert len(plan[0].aggregates) > 1 and not plan[0].kept


def test_what_a_later_stage_needs_of_a_client_is_kept_and_computed_once(hook):
    work = tff.tensorflow.computation(lambda x: tf.cast(x, tf.float64), np.float32)
    subtract = tff.tensorflow.computation(lambda a, b: tf.cast(a - b, tf.float32))

    @tff.federated_computation(FLOATS)
    def centre(x):
        value = tff.federated_map(work, x)
        mean = tff.federated_mean(value)
        moved = tff.federated_map(subtract, (value, tff.federated_broadcast(mean)))
        return moved, tff.federated_sum(moved)

    seen = []
    hook.append(lambda x, y: seen.append(float(y)) if is_double(y) and tf.is_tensor(x) else None)
    runtime.use("in_process", concurrent_clients=2)
    assert centre([1.0, 2.0, 6.0]) == ([-2.0, -1.0, 3.0], 0.0)
    assert [seen.count(v) for v in (1.0, 2.0, 6.0)] == [1, 1, 1]
    compiled = program.Program.of(centre)
    plan = compiled.stages(compiled.block.result)
    assert [len(stage.aggregates) > 0 for stage in plan if stage.at_clients] == [True, True]


def test_every_binding_is_in_one_stage_after_what_it_needs():
    process = build_sgd_process(make_client(3, seed=0).element_spec)
    block = program.Program.of(process.next).block.result
    done = set()
    for stage in stages.plan_stages(block):
        for name, value in (*stage.once, *stage.at_clients, *stage.aggregates):
            assert stages.find_references(value) & dict(block.locals).keys() <= done
            done.add(name)
    assert done == dict(block.locals).keys()


# ---- devices

ON_TWO_DEVICES = """
import sys
import numpy as np
sys.path.insert(0, {tests!r})
from fedutils.tff import tff
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 3)
from fedutils import program, runtime
from test_runtime import build_sgd_process, make_client, run_rounds
from tensorflow_federated.python.common_libs import structure

places, arrivals = [], set()
class Leaf(program.Leaf):
    def __call__(self, argument=None):
        if isinstance(argument, structure.Struct):
            parts = structure.flatten(argument)
            if any(isinstance(part, tf.data.Dataset) for part in parts):  # a client's training
                arrivals.update(p.device[-5:] for p in parts if tf.is_tensor(p) and p.dtype.is_floating)
        result = super().__call__(argument)
        parts = [result] if tf.is_tensor(result) else list(result)
        places.extend(part.device[-5:] for part in parts if tf.is_tensor(part))
        return result
program.Leaf = Leaf

spec = tff.FederatedType(np.float32, tff.CLIENTS)
double = tff.tensorflow.computation(lambda x: 2 * x, np.float32)
@tff.federated_computation(spec)
def each(x):
    return tff.federated_map(double, x)
runtime.use("in_process", devices=["CPU:1", "CPU:2"], concurrent_clients=1)
assert each([1.0, 2.0, 3.0, 4.0, 5.0]) == [2.0, 4.0, 6.0, 8.0, 10.0]
assert places == ["CPU:1", "CPU:2", "CPU:1", "CPU:2", "CPU:1"], places
clients = [make_client(3 + 2 * k, seed=k) for k in range(5)]
process = build_sgd_process(clients[0].element_spec)
places.clear()
several = run_rounds(process, clients, num_rounds=2)
assert {{"CPU:1", "CPU:2"}} == set(places), places
assert arrivals == {{"CPU:1", "CPU:2"}}, arrivals  # the model is sent once, not at each batch
arrivals.clear()
runtime.use("in_process", devices=["CPU:2"])
run_rounds(process, clients)
assert arrivals == {{"CPU:2"}}, arrivals
runtime.use("in_process", devices=["CPU:0"])
np.testing.assert_array_equal(run_rounds(process, clients, num_rounds=2), several)
for prefetch in (False, True):
    runtime.use(
        "in_process", devices=["CPU:2", "CPU:0", "CPU:1"], concurrent_clients=3, prefetch=prefetch
    )
    np.testing.assert_array_equal(run_rounds(process, clients, num_rounds=2), several)
"""


def test_clients_take_the_devices_in_turn():
    code = ON_TWO_DEVICES.format(tests=str(Path(__file__).parent))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("number", [0, -1, 2.0, "2"])
def test_a_wrong_number_of_clients_at_a_time(number):
    with pytest.raises(InputError, match="concurrent_clients: expected a positive whole number, found"):
        runtime.use("in_process", concurrent_clients=number)


# ---- what cannot run here is refused before anything runs


def test_an_unknown_operator_is_refused_before_the_first_client(hook, monkeypatch):
    ran = []
    hook.append(lambda argument, result: ran.append(result))
    monkeypatch.setattr(program, "OPERATORS", program.OPERATORS - {"federated_aggregate"})
    with pytest.raises(NotImplementedError, match="operator federated_aggregate cannot run in process; try"):
        build_sum_of_work()([1, 2])
    assert ran == []


def test_a_graph_that_tensorflow_cannot_import_is_refused_before_the_first_client(monkeypatch):
    real = program.Leaf.__init__

    def spoil(self, proto, type_spec, loops=None):
        graph_def = tf.compat.v1.GraphDef()
        proto.graph_def.Unpack(graph_def)
        for node in graph_def.node:
            node.op = "OperatorOfTheFuture" if node.op == "AddV2" else node.op
        spoilt = type(proto)()
        spoilt.CopyFrom(proto)
        spoilt.graph_def.Pack(graph_def)
        real(self, spoilt, type_spec, loops)

    monkeypatch.setattr(program.Leaf, "__init__", spoil)
    program.Program._by_fingerprint.clear()
    with pytest.raises(
        NotImplementedError, match=r"this computation cannot run in process.*OperatorOfTheFuture"
    ):
        tff.tensorflow.computation(lambda a, b: a + b, (np.int32, np.int32))(1, 2)


# ---- XLA


def test_compiled_steps_give_the_same_weights():
    clients = [make_client(7, seed=0), make_client(4, seed=1)]
    process = build_sgd_process(clients[0].element_spec)
    expected = run_rounds(process, clients, num_rounds=2)
    runtime.use("in_process", jit_compile=True)
    np.testing.assert_allclose(run_rounds(process, clients, num_rounds=2), expected, rtol=1e-5)


def test_the_kernel_of_a_gpu_asks_for_compiled_steps(monkeypatch):
    used = []

    class Leaf(program.Leaf):
        def __init__(self, proto, type_spec, loops=None):
            used.append(loops.jit_compile)
            super().__init__(proto, type_spec, loops)

    monkeypatch.setattr(program, "Leaf", Leaf)
    for value, expected in (("1", True), ("0", False)):
        monkeypatch.setenv("FEDUTILS_JIT_COMPILE", value)
        runtime.use("in_process")
        used.clear()
        program.Program._by_fingerprint.clear()
        assert tff.tensorflow.computation(lambda x: x + 1, np.int32)(1) == 2
        assert used == [expected]
