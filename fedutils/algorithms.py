"""Federated algorithms from plain arguments: `build_process`.

Every algorithm, optimizer and aggregator here is TensorFlow Federated's own; this file names them, checks
that they fit together, and adds what each client measured to what TFF reports of all.

References
----------
.. [1] H. B. McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data",
   AISTATS 2017 (FedSGD, FedAvg).
.. [2] T. Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020 (FedProx).
.. [3] S. J. Reddi et al., "Adaptive Federated Optimization", ICLR 2021 (FedAdam, FedYogi, FedAdagrad).
.. [4] S. P. Karimireddy et al., "Breaking the centralized barrier for cross-device federated learning",
   NeurIPS 2021 (MimeLite).
"""

from collections import OrderedDict

from fedutils.errors import InputError
from fedutils.keras_tff import build_functional_model
from fedutils.optimizers import build_adafactor
from fedutils.tff import tff  # before the imports below, which it prepares

# isort: split
import keras
import numpy as np
import tensorflow as tf
from tensorflow_federated.python.common_libs import structure

_optimizers = tff.learning.optimizers
OPTIMIZERS = {
    "sgd": _optimizers.build_sgdm,
    "sgdm": lambda rate: _optimizers.build_sgdm(rate, momentum=0.9),
    "adam": _optimizers.build_adam,
    "adamw": lambda rate: _optimizers.build_adamw(rate, weight_decay=1e-4),
    "adagrad": _optimizers.build_adagrad,
    "rmsprop": _optimizers.build_rmsprop,
    "yogi": _optimizers.build_yogi,
    "adafactor": build_adafactor,
}
_learning = tff.learning
# From (weighted,) to an aggregator.
AGGREGATORS = {
    "mean": lambda weighted: (
        tff.aggregators.MeanFactory() if weighted else tff.aggregators.UnweightedMeanFactory()
    ),
    "robust": lambda weighted: _learning.robust_aggregator(weighted=weighted),
    "compressed": lambda weighted: _learning.compression_aggregator(weighted=weighted),
    "secure": lambda weighted: _learning.secure_aggregator(weighted=weighted),
}
_algorithms = tff.learning.algorithms
# By (name, weighted).
_BUILDERS = {
    ("fedavg", True): _algorithms.build_weighted_fed_avg,
    ("fedavg", False): _algorithms.build_unweighted_fed_avg,
    ("fedprox", True): _algorithms.build_weighted_fed_prox,
    ("fedprox", False): _algorithms.build_unweighted_fed_prox,
    ("mimelite", True): _algorithms.build_weighted_mime_lite,
    ("mimelite", False): _algorithms.build_unweighted_mime_lite,
    ("fedsgd", True): _algorithms.build_fed_sgd,
}
_SCHEDULED = {
    "fedavg": _algorithms.build_weighted_fed_avg_with_optimizer_schedule,
    "mimelite": _algorithms.build_mime_lite_with_optimizer_schedule,
}
ALGORITHMS = tuple(dict.fromkeys(name for name, _ in _BUILDERS))


def build_functional_classifier(model: keras.Model) -> tff.learning.models.FunctionalModel:
    """Make a TFF model of a Keras classifier that gives logits: cross-entropy, and accuracy as its metric.

    Its batches are (float32 (B, H, W, C), int32 (B,)).
    """
    spec = (tf.TensorSpec((None, *model.input_shape[1:]), tf.float32), tf.TensorSpec((None,), tf.int32))
    return build_functional_model(
        model,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[lambda: keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        input_spec=spec,
    )


def build_process(
    model: tff.learning.models.FunctionalModel | keras.Model,
    *,
    algorithm: str = "fedavg",
    client_optimizer: str | _optimizers.Optimizer = "adamw",
    client_learning_rate: float = 1e-3,
    decay_rounds: int | None = None,
    server_optimizer: str | _optimizers.Optimizer = "sgd",
    server_learning_rate: float = 1.0,
    aggregator: str | tff.aggregators.AggregationFactory = "mean",
    weighted: bool = True,
    proximal_strength: float = 0.1,
) -> tff.learning.templates.LearningProcess:
    """Build a federated learning process.

    Parameters
    ----------
    model : FunctionalModel or keras.Model
        From `fedutils.keras_tff`; or a Keras classifier that gives logits. Its weights are the first global
        model.
    algorithm : {"fedavg", "fedprox", "mimelite", "fedsgd"}
        FedSGD takes one step a round, by the server's optimizer; MimeLite's clients use the optimizer with
        the state of the server.
    client_optimizer : str or tff.learning.optimizers.Optimizer
        A name in `OPTIMIZERS`, with `client_learning_rate`; it starts afresh on every client in every round.
    client_learning_rate : float
    decay_rounds : int, optional
        Let the clients' learning rate fall along a cosine, to 0 after this many rounds; by default it stays.
        For fedavg and mimelite, weighted, with the optimizer given by name.
    server_optimizer : str or tff.learning.optimizers.Optimizer
        With `server_learning_rate`; "sgd" at 1.0 makes the mean of the clients' models the new global one,
        "adam" makes FedAdam, "sgdm" FedAvgM.
    server_learning_rate : float
    aggregator : str or tff.aggregators.AggregationFactory
        A name in `AGGREGATORS`. "secure" computes what secure aggregation would, and protects nothing.
    weighted : bool
        Weight clients by their number of examples; else they count alike.
    proximal_strength : float
        Of FedProx: mu, the pull towards the global model.

    Returns
    -------
    tff.learning.templates.LearningProcess
        Its metrics of training hold, beside those of all clients, ``per_client``: of each metric an array
        with one entry a client, in the order of the round's clients.

    Raises
    ------
    InputError
        If a name is unknown, or the arguments do not fit together.
    """
    if algorithm not in ALGORITHMS:
        raise InputError(f"algorithm: expected one of {', '.join(ALGORITHMS)}, found {algorithm!r}")
    if (algorithm, weighted) not in _BUILDERS:
        raise InputError(
            f"{algorithm}: expected weighted=True, found False; choose fedavg to leave weights out"
        )
    if isinstance(model, keras.Model):
        model = build_functional_classifier(model)
    if isinstance(aggregator, str):
        aggregator = _choose("aggregator", aggregator, AGGREGATORS)(weighted)
    is_weighted = isinstance(aggregator, tff.aggregators.WeightedAggregationFactory)
    if weighted and not is_weighted:
        raise InputError(
            "aggregator: expected one that takes weights, found an unweighted one (as for differential "
            "privacy, where no client may count more); pass weighted=False"
        )
    if isinstance(server_optimizer, str):
        server_optimizer = _choose("server_optimizer", server_optimizer, OPTIMIZERS)(server_learning_rate)
    common = {"model_aggregator": aggregator, "metrics_aggregator": sum_and_keep}
    if decay_rounds is not None:
        return _build_scheduled(
            model,
            algorithm,
            client_optimizer,
            client_learning_rate,
            decay_rounds,
            server_optimizer,
            weighted,
            common,
        )
    builder = _BUILDERS[algorithm, weighted]
    if algorithm == "fedsgd":
        return builder(model, server_optimizer, **common)
    if isinstance(client_optimizer, str):
        client_optimizer = _choose("client_optimizer", client_optimizer, OPTIMIZERS)(client_learning_rate)
    if algorithm == "fedprox":
        return builder(model, proximal_strength, client_optimizer, server_optimizer, **common)
    return builder(model, client_optimizer, server_optimizer, **common)


def _build_scheduled(model, algorithm, optimizer, rate, rounds, server_optimizer, weighted, common):
    if algorithm not in _SCHEDULED or not weighted or not isinstance(optimizer, str):
        raise InputError(
            "decay_rounds: expected fedavg or mimelite, weighted, and a client optimizer given by name, "
            f"found {algorithm}, weighted={weighted}, {optimizer!r}; leave decay_rounds out"
        )

    def learning_rate(round_number):
        progress = tf.minimum(tf.cast(round_number, tf.float32) / rounds, 1.0)
        return rate * 0.5 * (1.0 + tf.cos(np.pi * progress))

    build = _choose("client_optimizer", optimizer, OPTIMIZERS)
    # MimeLite sets the rate of one optimizer, whose state is the server's; FedAvg builds one for each rate.
    scheduled = build(rate) if algorithm == "mimelite" else build
    return _SCHEDULED[algorithm](model, learning_rate, scheduled, server_optimizer, **common)


def _choose(argument, name, table):
    if name not in table:
        raise InputError(f"{argument}: expected one of {', '.join(table)}, found {name!r}")
    return table[name]


def sum_and_keep(metric_finalizers, local_unfinalized_metrics_type=None):
    """Aggregate metrics as TFF does, by their sums, and keep each client's own beside them.

    For the ``metrics_aggregator`` of TFF's builders, with functional models; some builders pass a type,
    which is not needed.
    """
    add_up = tff.learning.metrics.sum_then_finalize(metric_finalizers)

    @tff.federated_computation
    def aggregate(unfinalized):
        finalize = tff.tensorflow.computation(metric_finalizers, unfinalized.type_signature.member)
        numbers = OrderedDict(structure.iter_elements(finalize.type_signature.result))
        columns = tff.to_type(
            OrderedDict((name, tff.TensorType(t.dtype, (None,))) for name, t in numbers.items())
        )

        @tff.tensorflow.computation
        def begin():
            return OrderedDict((name, tf.zeros((0,), t.dtype.type)) for name, t in numbers.items())

        @tff.tensorflow.computation(columns, numbers)
        def append(table, values):
            return OrderedDict((name, tf.concat([table[name], [values[name]]], 0)) for name in numbers)

        @tff.tensorflow.computation(columns, columns)
        def merge(first, second):
            return OrderedDict((name, tf.concat([first[name], second[name]], 0)) for name in numbers)

        report = tff.tensorflow.computation(lambda table: table, columns)
        each = tff.federated_aggregate(
            tff.federated_map(finalize, unfinalized), begin(), append, merge, report
        )

        @tff.tensorflow.computation
        def join(together, apart):
            return OrderedDict(**together, per_client=apart)

        return tff.federated_map(join, (add_up(unfinalized), each))

    return aggregate
