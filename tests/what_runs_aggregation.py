"""Cases of test_what_runs.py: aggregators, two rounds each, and differential privacy."""

from collections import OrderedDict

import numpy as np
from what_runs import case

from fedutils.tff import tff

# isort: split
import tensorflow as tf
from tensorflow_federated.python.aggregators import distributed_dp

aggregators, learning = tff.aggregators, tff.learning
Private = aggregators.DifferentiallyPrivateFactory

# Two rounds of five clients, each with a matrix and a vector; their norms are 4.3 to 6.5.
_rng = np.random.default_rng(0)
VALUES = [
    [(_rng.normal(size=(7, 3)).astype(np.float32), _rng.normal(size=5).astype(np.float32)) for _ in range(5)]
    for _ in range(2)
]
VALUE_TYPE = tff.to_type((tff.TensorType(np.float32, (7, 3)), tff.TensorType(np.float32, (5,))))
MATRICES = [[matrix for matrix, _ in clients] for clients in VALUES]
MATRIX_TYPE = tff.TensorType(np.float32, (7, 3))
WEIGHTS = [1.0, 2.0, 0.5, 0.0, 3.0]


def build_aggregation(factory, value_type=VALUE_TYPE):
    if isinstance(factory, aggregators.WeightedAggregationFactory):
        return factory.create(value_type, tff.TensorType(np.float32))
    return factory.create(value_type)


def measure(process, values=VALUES):
    """Return the results and measurements of all rounds."""
    weights = [WEIGHTS] if len(process.next.type_signature.parameter) == 3 else []
    state, results = process.initialize(), []
    for value in values:
        output = process.next(state, value, *weights)
        state = output.state
        results.append((output.result, output.measurements))
    return results


def aggregate(process, values=VALUES):
    """Return the results of all rounds."""
    return [result for result, _ in measure(process, values)]


def add_up(values=VALUES, weights=(1, 1, 1, 1, 1)):
    """Return the weighted sum of each round."""
    return [
        tuple(
            sum(w * part for w, part in zip(weights, parts, strict=True))
            for parts in zip(*clients, strict=True)
        )
        for clients in values
    ]


def scale(values, factor):
    return [tuple(factor * part for part in parts) for parts in values]


def clip(values, norm):
    """Scale what is longer than `norm` down to it."""

    def clip_one(parts):
        length = np.sqrt(sum((part**2).sum() for part in parts))
        return tuple(part * min(1, norm / length) for part in parts)

    return [[clip_one(parts) for parts in clients] for clients in values]


# Aggregators


@case("Aggregators", "sum")
def sum_(both):
    process = build_aggregation(aggregators.SumFactory())
    return both.equal(aggregate, process, expect=add_up())


@case("Aggregators", "mean")
def mean(both):
    process = build_aggregation(aggregators.MeanFactory())
    expected = scale(add_up(weights=WEIGHTS), 1 / 6.5)
    return both.equal(aggregate, process, expect=expected)


@case("Aggregators", "unweighted mean")
def unweighted_mean(both):
    process = build_aggregation(aggregators.UnweightedMeanFactory())
    return both.equal(aggregate, process, expect=scale(add_up(), 1 / 5))


@case("Aggregators", "clipping")
def clipping(both):
    process = build_aggregation(aggregators.clipping_factory(4.0, aggregators.SumFactory()))
    expected = add_up(clip(VALUES, 4.0))
    assert np.abs(expected[0][0] - add_up()[0][0]).max() > 0.1  # something is clipped
    return both.equal(aggregate, process, expect=expected)


@case("Aggregators", "clipping at a quantile")
def adaptive_clipping(both):
    norm = aggregators.PrivateQuantileEstimationProcess.no_noise(3.0, 0.5, 0.5, secure_estimation=True)
    return both.equal(
        measure, build_aggregation(aggregators.clipping_factory(norm, aggregators.MeanFactory()))
    )


@case("Aggregators", "zeroing")
def zeroing(both):
    process = build_aggregation(aggregators.zeroing_factory(2.5, aggregators.SumFactory()))
    largest = [[max(np.abs(part).max() for part in parts) for parts in clients] for clients in VALUES]
    kept = [
        [tuple(part * (m <= 2.5) for part in parts) for parts, m in zip(clients, maxima, strict=True)]
        for clients, maxima in zip(VALUES, largest, strict=True)
    ]
    assert np.min(largest) < 2.5 < np.max(largest)
    return both.equal(aggregate, process, expect=add_up(kept))


@case("Aggregators", "robust_aggregator")
def robust(both):
    factory = learning.robust_aggregator(debug_measurements_fn=learning.add_debug_measurements)
    return both.equal(measure, build_aggregation(factory, MATRIX_TYPE), MATRICES)


@case("Aggregators", "compression_aggregator")
def compression(both):
    # More than 20,000 numbers are quantized to 8 bits: in steps of a 255th of their range, at random.
    rng = np.random.default_rng(1)
    values = [[0.002 * rng.normal(size=20_001).astype(np.float32) for _ in WEIGHTS] for _ in range(2)]
    steps = np.ptp(values, axis=2) / 255 @ np.array(WEIGHTS) / 6.5
    means = np.einsum("rcn,c->rn", values, WEIGHTS) / 6.5
    process = build_aggregation(learning.compression_aggregator(), tff.TensorType(np.float32, (20_001,)))

    def check(results):
        for result, expected, bound in zip(results, means, steps, strict=True):
            error = np.abs(result - expected).max()
            assert bound / 20 < error < bound * 1.001

    return both.check(aggregate, process, values, by=check)


@case("Aggregators", "EncodedSumFactory")
def encoded_sum(both):
    factory = aggregators.EncodedSumFactory.quantize_above_threshold(8, 0, stochastic=False)
    return both.equal(measure, build_aggregation(factory))


@case("Aggregators", "EncodedSumFactory, rounding at random")
def encoded_sum_random(both):
    process = build_aggregation(aggregators.EncodedSumFactory.quantize_above_threshold(8, 0))

    def check(results):
        for result, expected, clients in zip(results, add_up(), VALUES, strict=True):
            for part in (0, 1):
                bound = sum(np.ptp(value[part]) / 255 for value in clients)
                error = np.abs(result[part] - expected[part]).max()
                assert bound / 100 < error < bound * 1.001

    return both.check(aggregate, process, by=check)


@case("Aggregators", "Hadamard rotation")
def hadamard(both):
    process = build_aggregation(aggregators.HadamardTransformFactory())
    return both.equal(aggregate, process, expect=add_up())


@case("Aggregators", "Fourier rotation")
def fourier(both):
    process = build_aggregation(aggregators.DiscreteFourierTransformFactory())
    return both.equal(aggregate, process, expect=add_up())


@case("Aggregators", "concat_factory")
def concat(both):
    factory = aggregators.concat_factory(aggregators.SumFactory())
    return both.equal(aggregate, build_aggregation(factory), expect=add_up())


@case("Aggregators", "as_weighted_aggregator")
def as_weighted(both):
    factory = aggregators.as_weighted_aggregator(aggregators.SumFactory())
    process = build_aggregation(factory)
    return both.equal(aggregate, process, expect=add_up())


@case("Aggregators", "add_measurements")
def measurements(both):
    norm = tff.tensorflow.computation(lambda value: tf.linalg.global_norm(tf.nest.flatten(value)))
    factory = aggregators.add_measurements(
        aggregators.MeanFactory(),
        client_measurement_fn=lambda value, weight: OrderedDict(heaviest=tff.federated_max(weight)),
        server_measurement_fn=lambda value: OrderedDict(norm=tff.federated_map(norm, value)),
    )
    return both.equal(measure, build_aggregation(factory))


@case("Aggregators", "add_debug_measurements")
def debug_measurements(both):
    factory = learning.add_debug_measurements_with_mixed_dtype(aggregators.MeanFactory())
    return both.equal(measure, build_aggregation(factory))


@case("Aggregators", "reservoir sampling")
def reservoir(both):
    process = build_aggregation(aggregators.UnweightedReservoirSamplingFactory(2))

    def check(results):
        for (matrices, vectors), clients in zip(results, VALUES, strict=True):
            drawn = [
                [
                    i
                    for i, value in enumerate(clients)
                    if (value[0] == matrix).all() and (value[1] == vector).all()
                ]
                for matrix, vector in zip(matrices, vectors, strict=True)
            ]
            assert len(drawn) == 2
            assert [len(found) for found in drawn] == [1, 1]
            assert drawn[0] != drawn[1]

    return both.check(aggregate, process, by=check)


@case("Aggregators", "private quantile estimation")
def quantile_estimation(both):
    process = aggregators.PrivateQuantileEstimationProcess.no_noise(2.0, 0.5, 0.5)

    def run():
        state = process.initialize()
        for _ in range(2):
            state = process.next(state, [1.0, 2.2, 3.0, 4.0, 9.0])
        return process.report(state)

    # One of five is below 2, then two are below 2.32: 2 e^(0.5 (0.5 - 0.2)) e^(0.5 (0.5 - 0.4)).
    return both.equal(run, expect=np.float32(2 * np.exp(0.15 + 0.05)))


# Secure aggregation, computed by TFF's insecure bodies


@case("Secure aggregation (insecure bodies)", "SecureSumFactory")
def secure_sum(both):
    process = build_aggregation(aggregators.SecureSumFactory(1.0, -1.0))
    clipped = [[tuple(np.clip(part, -1, 1) for part in parts) for parts in clients] for clients in VALUES]
    return both.equal(aggregate, process, expect=add_up(clipped))


@case("Secure aggregation (insecure bodies)", "SecureSumFactory of integers")
def secure_sum_of_integers(both):
    process = build_aggregation(aggregators.SecureSumFactory(10, -10), tff.TensorType(np.int32, (3,)))
    values = [[np.array([1, -20, 3], np.int32), np.array([4, 5, 60], np.int32)]] * 2
    return both.equal(aggregate, process, values, expect=[np.array([5, -5, 13])] * 2)


@case("Secure aggregation (insecure bodies)", "SecureModularSumFactory")
def secure_modular_sum(both):
    process = build_aggregation(aggregators.SecureModularSumFactory(8, True), tff.TensorType(np.int32, (3,)))
    values = [[np.array([1, -7, 6], np.int32), np.array([4, -5, 6], np.int32)]] * 2
    # Modulo 15, to -7 ... 7: 5, -12 + 15, 12 - 15.
    return both.equal(aggregate, process, values, expect=[np.array([5, 3, -3])] * 2)


@case("Secure aggregation (insecure bodies)", "secure_aggregator")
def secure_aggregator(both):
    return both.equal(measure, build_aggregation(learning.secure_aggregator(), MATRIX_TYPE), MATRICES)


@case("Secure aggregation (insecure bodies)", "sums of metrics")
def secure_metrics(both):
    metrics_type = tff.FederatedType(tff.to_type(OrderedDict(loss=[np.float32, np.float32])), tff.CLIENTS)
    finalizers = OrderedDict(loss=tf.function(lambda parts: parts[0] / parts[1]))
    add_up_securely = learning.metrics.secure_sum_then_finalize(finalizers, metrics_type.member)
    compute = tff.federated_computation(lambda x: add_up_securely(x), metrics_type)
    values = [OrderedDict(loss=[np.float32(total), np.float32(2)]) for total in (1, 2, 6)]
    return both.equal(lambda: compute(values)["loss"], expect=np.float32(9 / 6))


# Differential privacy: exact without noise; with noise, mean and standard deviation of 20,000 numbers

_COUNT = 20_000
_ZEROS = [[np.zeros(_COUNT, np.float32)] * 5] * 2


def check_noise(both, factory, first, second=None, tries=1):
    """Hold the noise of two rounds to its standard deviations, within 5 standard errors.

    Of several tries the one with the least noise in its first round is held.
    """
    process = build_aggregation(factory, tff.TensorType(np.float32, (_COUNT,)))

    def draw():
        return min((aggregate(process, _ZEROS) for _ in range(tries)), key=lambda rounds: rounds[0].std())

    def check(rounds):
        for noise, std in zip(rounds, (first, second), strict=True):
            if std is not None:
                assert abs(noise.mean()) < 5 * std / np.sqrt(_COUNT)
                assert abs(noise.std() / std - 1) < 5 / np.sqrt(2 * _COUNT)
        assert abs(np.corrcoef(rounds)[0, 1]) < 5 / np.sqrt(_COUNT)  # fresh in each round

    return both.check(draw, by=check)


def effective_multiplier(multiplier, clients_per_round):
    """Return the noise left for the values when some went into the adaptive norm (Andrew et al. 2021)."""
    count_std = clients_per_round / 20
    return (multiplier**-2 - (2 * count_std) ** -2) ** -0.5


@case("Differential privacy", "fixed norm")
def fixed_norm(both):
    process = build_aggregation(Private.gaussian_fixed(0.0, 5, 5.0))
    return both.equal(aggregate, process, expect=scale(add_up(clip(VALUES, 5.0)), 1 / 5))


@case("Differential privacy", "fixed norm, noise")
def fixed_norm_noise(both):
    # The noise multiplier times the norm, over the clients.
    return check_noise(both, Private.gaussian_fixed(0.5, 5, 4.0), 0.5 * 4 / 5, 0.5 * 4 / 5)


@case("Differential privacy", "adaptive norm")
def adaptive_norm(both):
    return both.equal(measure, build_aggregation(Private.gaussian_adaptive(0.0, 5, 4.0)))


@case("Differential privacy", "dp_aggregator, noise")
def dp_aggregator_noise(both):
    return check_noise(both, learning.dp_aggregator(0.5, 100), effective_multiplier(0.5, 100) * 0.1 / 100)


@case("Differential privacy", "tree aggregation")
def tree_aggregation(both):
    factory = Private.tree_aggregation(0.5, 5, 4.0, tf.TensorSpec((7, 3)), noise_seed=7)
    return both.equal(measure, build_aggregation(factory, MATRIX_TYPE), MATRICES)


@case("Differential privacy", "tree aggregation, adaptive norm")
def adaptive_tree(both):
    factory = Private.tree_adaptive(
        0.0, 5, tf.TensorSpec((7, 3)), 4.0, noise_seed=7, clipped_count_stddev=0.0
    )
    return both.equal(measure, build_aggregation(factory, MATRIX_TYPE), MATRICES)


@case("Differential privacy", "distributed, discrete Gaussian, noise")
def distributed_gaussian(both):
    # Each of 5 clients adds its share.
    factory = distributed_dp.DistributedDpSumFactory(
        0.5, 5, 20, 4.0, mechanism="distributed_dgauss", rotation_type="dft"
    )
    return check_noise(both, factory, 0.5 * 4, 0.5 * 4)


@case("Differential privacy", "ddp_secure_aggregator (Skellam), noise")
def distributed_aggregator(both):
    # 5 of 100 expected clients add their shares; the mean is over 5. TensorFlow Privacy takes a share's seed
    # from the clock: clients that draw in the same microsecond add the same share, which is more noise.
    share = effective_multiplier(0.5, 100) * 0.1 / np.sqrt(100)
    factory = learning.ddp_secure_aggregator(0.5, 100, zeroing=False)
    return check_noise(both, factory, share * np.sqrt(5) / 5, tries=5)
