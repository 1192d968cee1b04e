"""Bytes of a round, read from the compiled process and counted by hand; seconds in closed form."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from fedutils import runtime
from fedutils.algorithms import build_process
from fedutils.communication import (
    Lines,
    Messages,
    compute_client_seconds,
    compute_transfer_seconds,
    count_bytes,
    measure_messages,
    simulate_rounds,
    sum_bytes,
)
from fedutils.errors import InputError
from fedutils.tff import tff

WEIGHTS = 4 * (70 * 300 + 300 + 300 * 2 + 2)  # bytes: float32
# A client's metrics: sums of loss (4 bytes, and 8 of its number of examples) and accuracy (4 and 4), then the
# finished three (4, 8, 4); its weight in the mean (4).
METRICS, WEIGHT = 20 + 16, 4


@pytest.fixture(scope="module", autouse=True)
def in_process():
    runtime.use("in_process")


@functools.cache
def build_model():
    inputs = keras.Input((7, 10, 1))
    hidden = keras.layers.Dense(300, activation="relu")(keras.layers.Flatten()(inputs))
    return keras.Model(inputs, keras.layers.Dense(2)(hidden))


def measure(**options):
    return measure_messages(build_process(build_model(), **options))


def test_bytes_of_tensors_are_counted():
    assert count_bytes([np.zeros((3, 5), np.float32), np.zeros(7, np.int64), np.float32(1)]) == 60 + 56 + 4
    assert count_bytes(v.numpy() for v in build_model().trainable_variables) == WEIGHTS


def test_fedavg_sends_the_model_down_and_an_update_a_weight_and_metrics_up():
    assert measure() == Messages(down=WEIGHTS, up=WEIGHTS + WEIGHT + METRICS)


def test_scaffold_sends_control_variates_as_large_as_the_model_both_ways():
    scaffold = measure(algorithm="scaffold", client_optimizer="sgd", num_clients=3)
    assert 0 <= scaffold.down - 2 * WEIGHTS <= 8 and 0 <= scaffold.up - 2 * WEIGHTS <= 64


def test_mimelite_sends_its_gradient_and_its_optimizers_state_too():
    plain, mime = measure(), measure(algorithm="mimelite", client_optimizer="sgdm")
    assert mime.up >= plain.up + WEIGHTS  # the gradient at the global model
    assert mime.down >= plain.down + WEIGHTS  # the momentum


def test_a_schedule_costs_a_number_at_most():
    assert 0 <= measure(decay_rounds=4).down - WEIGHTS <= 8


def encode(tensors):
    """Return the bytes of what TFF's quantising encoder makes of each tensor."""
    factory = tff.aggregators.EncodedSumFactory.quantize_above_threshold(8, 20_000)
    total = 0
    for tensor in tensors:
        encoder = factory._encoder_fn(tf.TensorSpec(tensor.shape, tensor.dtype))
        encoded, _ = encoder.encode(tensor, encoder.get_params()[0])
        total += count_bytes(part.numpy() for part in tf.nest.flatten(encoded))
    return total


def test_the_messages_of_a_compressing_process_are_as_large_as_what_is_encoded():
    # 21,000 elements of 8 bits, 28 bits in 4 bytes, with their least and greatest; the others as they are.
    by_hand = 4 * (21_000 * 8 // 28) + 8 + WEIGHTS - 4 * 21_000
    assert encode(tf.constant(v) for v in build_model().trainable_variables) == by_hand
    plain, compressed = Messages(WEIGHTS, by_hand + WEIGHT + METRICS), measure(aggregator="compressed")
    # Clipping and zeroing send two numbers each way, and an estimate of a quantile; the sum counts clients.
    assert 0 < compressed.up - plain.up <= 32 and 0 < compressed.down - plain.down <= 32


def test_of_a_secure_sum_no_number_is_given():
    small = keras.Sequential([keras.Input((3, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(2)])
    messages = measure_messages(build_process(small, aggregator="secure"))
    assert messages.up is None and messages.down >= 4 * (12 * 2 + 2)
    assert sum_bytes(Messages(10, None), [[0]])["up_total"] is None
    with pytest.raises(InputError, match="known number of bytes"):
        compute_transfer_seconds(Messages(10, None), 1, Lines(1, 1, 1))


def test_the_bytes_of_a_run_count_who_received_and_who_sent():
    messages = Messages(down=100, up=70)
    rounds = [[0, 1], [2], [0, 1, 2]]
    assert sum_bytes(messages, rounds) == {
        "down_per_client": 100,
        "up_per_client": 70,
        "down_total": 600,
        "up_total": 420,
    }
    assert sum_bytes(messages, rounds, [[0, 1], [1, 2], [0, 1, 2]])["down_total"] == 700


def test_the_seconds_of_a_client_by_hand():
    # 5 MB at 20 Mbit/s: 2 s. 2.5 MB at 10 Mbit/s: 2 s. 90 images at 30 a second: 3 s.
    messages, lines = Messages(5_000_000, 2_500_000), Lines(20, [10, 5], [30, 60], [0.25, 0.5])
    assert compute_transfer_seconds(messages, 2, lines).tolist() == [4.5, 7.0]
    assert compute_client_seconds(messages, [90, 30], lines).tolist() == [7.5, 7.5]


def test_a_round_lasts_as_long_as_its_slowest_hospital():
    seconds = [3.0, 9.0, 5.0]
    assert simulate_rounds(seconds, [[0], [0, 1, 2], [0, 2]]).tolist() == [3, 9, 5]
    assert simulate_rounds(seconds, [[0], [0, 1, 2], [0, 2]], deadline=6).tolist() == [3, 6, 5]
    assert simulate_rounds(seconds, [[0, 1], [1]], deadline=2).tolist() == [
        3,
        9,
    ]  # all late: the first is awaited


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Lines(0, 1, 1), "down_mbit_s: expected numbers above 0"),
        (lambda: Lines(1, [1, -1], 1), "up_mbit_s"),
        (lambda: Lines(1, 1, 1, -0.1), "latency_s"),
        (lambda: compute_transfer_seconds(Messages(1, 1), 3, Lines([1, 2], 1, 1)), "one number or 3"),
    ],
)
def test_lines_that_are_none_are_refused(make, words):
    with pytest.raises(InputError, match=words):
        make()
