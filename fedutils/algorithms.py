"""Federated algorithms from plain arguments: `build_process`.

Averaging, MimeLite, FedSGD and all optimizers and aggregators but one are TensorFlow Federated's own; the
other algorithms have files of their own. This file names them and checks that they fit together.

References
----------
.. [1] H. B. McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data",
   AISTATS 2017 (FedSGD, FedAvg).
.. [2] T. Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020 (FedProx).
.. [3] S. J. Reddi et al., "Adaptive Federated Optimization", ICLR 2021 (FedAdam, FedYogi, FedAdagrad).
.. [4] S. P. Karimireddy et al., "Breaking the centralized barrier for cross-device federated learning",
   NeurIPS 2021 (MimeLite).
.. [5] T.-M. H. Hsu et al., "Measuring the Effects of Non-Identical Data Distribution for Federated Visual
   Classification", arXiv:1909.06335, 2019 (FedAvgM).
"""

from collections.abc import Sequence

from fedutils.aggregators import AGGREGATORS, FiniteFactory, sum_and_keep
from fedutils.errors import InputError
from fedutils.fedlc import STRENGTH, build_fedlc
from fedutils.fednova import build_fednova
from fedutils.fedprox import build_fedprox
from fedutils.keras_tff import build_functional_model
from fedutils.optimizers import OPTIMIZERS, SERVER_OPTIMIZERS
from fedutils.personalise import build_ditto, build_partial, select_head, select_normalisation
from fedutils.scaffold import build_scaffold
from fedutils.stateful import StatefulProcess
from fedutils.tff import tff  # before the imports below, which it prepares

# isort: split
import keras
import numpy as np
import tensorflow as tf

_optimizers = tff.learning.optimizers
_algorithms = tff.learning.algorithms
# By (name, weighted).
_BUILDERS = {
    ("fedavg", True): _algorithms.build_weighted_fed_avg,
    ("fedavg", False): _algorithms.build_unweighted_fed_avg,
    ("fedsgd", True): _algorithms.build_fed_sgd,
}
# What stays at home, unless the caller says otherwise.
_AT_HOME = {"fedper": select_head, "fedbn": select_normalisation}
# Those that TFF does not have, or not as published.
_OWN = ("fedprox", "fedlc", "fednova", "scaffold", *_AT_HOME, "ditto")
ALGORITHMS = ("fedavg", "mimelite", "fedsgd", *_OWN)


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
    calibration_strength: float = STRENGTH,
    num_clients: int | None = None,
    at_home: Sequence[int] | None = None,
) -> tff.learning.templates.LearningProcess | StatefulProcess:
    """Build a federated learning process.

    Parameters
    ----------
    model : FunctionalModel or keras.Model
        From `fedutils.keras_tff`; or a Keras classifier that gives logits. Its weights are the first global
        model.
    algorithm : str
        One of `ALGORITHMS`. FedSGD takes one step a round, by the server's optimizer; MimeLite's clients use
        the optimizer with the state of the server. For fedprox, fedlc, fednova and scaffold see the files of
        these names, and for fedper, fedbn and ditto `fedutils.personalise`.
    client_optimizer : str or tff.learning.optimizers.Optimizer
        A name in `OPTIMIZERS`, with `client_learning_rate`; it starts afresh on every client in every round.
        FedNova takes "sgd" or "sgdm", SCAFFOLD "sgd".
    client_learning_rate : float
    decay_rounds : int, optional
        Let the clients' learning rate fall along a cosine, to 0 after this many rounds; by default it stays.
        With the optimizer given by name, and not for FedSGD, whose clients take no step.
    server_optimizer : str or tff.learning.optimizers.Optimizer
        A name in `SERVER_OPTIMIZERS`, with `server_learning_rate`. "sgd" at 1.0 makes the mean of the
        clients' models the new global one. With another one, FedAvg has other names: FedAvgM [5]_ is "sgdm",
        and FedAdam, FedYogi and FedAdagrad [3]_ are "adam", "yogi" and "adagrad"; see `fedutils.optimizers`
        for where these are not the paper's to the digit.
    server_learning_rate : float
    aggregator : str or tff.aggregators.AggregationFactory
        A name in `AGGREGATORS`. "secure" computes what secure aggregation would, and protects nothing. Of
        MimeLite it aggregates the gradients at the global model too, apart from the updates: with
        differential privacy a round is then two queries, and costs as much privacy as two rounds of FedAvg.
        The metrics of training do not go through it.
    weighted : bool
        Weight clients by their number of examples; else they count alike, and an aggregator that is given
        must be an unweighted one.
    proximal_strength : float
        Of FedProx: mu, the pull of a client towards the global model. Of Ditto: lambda, that of its own one.
    calibration_strength : float
        Of FedLC: tau, how much of a client's own mixture of classes is taken out of its logits.
    num_clients : int, optional
        Of SCAFFOLD, which needs it: how many clients there are, in a round or not.
    at_home : sequence of int, optional
        Of FedPer and FedBN: positions of the trainable weights that stay with each client. By default, of a
        Keras model, those of `fedutils.personalise.select_head` and `select_normalisation`.

    Returns
    -------
    LearningProcess or StatefulProcess
        The latter, of `fedutils.stateful`, where clients keep something between rounds: scaffold, fedper,
        fedbn and ditto. `fedutils.federated.train_federated` drives both. The metrics of training hold,
        beside those of all clients, ``per_client``: of each metric an array with one entry a client, in the
        order of the round's clients.

    Raises
    ------
    InputError
        If a name is unknown, or the arguments do not fit together.
    """
    if algorithm not in ALGORITHMS:
        raise InputError(f"algorithm: expected one of {', '.join(ALGORITHMS)}, found {algorithm!r}")
    if algorithm == "fedsgd" and not weighted:
        raise InputError("fedsgd: expected weighted=True, found False; choose fedavg to leave weights out")
    if at_home is None and algorithm in _AT_HOME and isinstance(model, keras.Model):
        at_home = _AT_HOME[algorithm](model)
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
    if is_weighted and not weighted:
        raise InputError(
            "aggregator: expected one that takes no weights with weighted=False, found one that takes them; "
            "pass weighted=True, or one such as tff.aggregators.UnweightedMeanFactory()"
        )
    if isinstance(server_optimizer, str):
        server_optimizer = _choose("server_optimizer", server_optimizer, SERVER_OPTIMIZERS)(
            server_learning_rate
        )
    if decay_rounds is not None and (algorithm == "fedsgd" or not isinstance(client_optimizer, str)):
        raise InputError(
            "decay_rounds: expected a client optimizer given by name, and another algorithm than fedsgd, "
            f"found {client_optimizer!r} and {algorithm}; leave decay_rounds out"
        )
    rate = _build_schedule(client_learning_rate, decay_rounds)
    build = _choose("client_optimizer", client_optimizer, OPTIMIZERS, lambda _: client_optimizer)
    common = {"model_aggregator": aggregator, "metrics_aggregator": sum_and_keep}
    if decay_rounds is None and algorithm in ("fedavg", "fedsgd"):
        clients = () if algorithm == "fedsgd" else (build(client_learning_rate),)
        return _BUILDERS[algorithm, weighted](model, *clients, server_optimizer, **common)
    if not is_weighted:  # what follows hands weights over in any case; this leaves them out of the mean
        common["model_aggregator"] = tff.aggregators.as_weighted_aggregator(aggregator)
    if algorithm == "fedavg":
        scheduled = _algorithms.build_weighted_fed_avg_with_optimizer_schedule
        return scheduled(model, rate, build, server_optimizer, **common)
    if algorithm == "mimelite":
        rate = client_learning_rate if decay_rounds is None else rate
        return _build_mimelite(model, build, rate, server_optimizer, weighted, **common)
    common |= {"server_optimizer": server_optimizer, "weighted": weighted}
    return _build_own(
        model,
        algorithm,
        lambda round_number: build(rate(round_number)),
        proximal_strength=proximal_strength,
        calibration_strength=calibration_strength,
        num_clients=num_clients,
        at_home=at_home,
        common=common,
    )


def _build_schedule(rate, decay_rounds):
    """Return a function from a round's number, from 0, to its learning rate."""
    if decay_rounds is None:
        return lambda round_number: rate

    def cosine(round_number):
        progress = tf.minimum(tf.cast(round_number, tf.float32) / decay_rounds, 1.0)
        return rate * 0.5 * (1.0 + tf.cos(np.pi * progress))

    return cosine


def _build_mimelite(model, build, rate, server_optimizer, weighted, *, model_aggregator, metrics_aggregator):
    """Build MimeLite with a rate, or a function from the round to it."""
    counting = tff.learning.ClientWeighting
    options = {
        "client_weighting": counting.NUM_EXAMPLES if weighted else counting.UNIFORM,
        "model_aggregator": model_aggregator,
        # Gradients are as large as updates; TFF would take their plain mean.
        "full_gradient_aggregator": FiniteFactory(model_aggregator),
        "metrics_aggregator": metrics_aggregator,
    }
    if not callable(rate):
        return _algorithms.build_weighted_mime_lite(model, build(rate), server_optimizer, **options)
    scheduled = _algorithms.build_mime_lite_with_optimizer_schedule
    # TFF sets the rate of one optimizer, whose state is the server's.
    return scheduled(model, rate, build(1.0), server_optimizer, **options)


def _build_own(
    model, algorithm, optimizer_at, *, proximal_strength, calibration_strength, num_clients, at_home, common
):
    match algorithm:
        case "fedprox":
            return build_fedprox(model, optimizer_at, strength=proximal_strength, **common)
        case "fedlc":
            return build_fedlc(model, optimizer_at, strength=calibration_strength, **common)
        case "fednova":
            return build_fednova(model, optimizer_at, **common)
        case "scaffold":
            return build_scaffold(model, optimizer_at, num_clients=num_clients, **common)
        case "ditto":
            return build_ditto(model, optimizer_at, strength=proximal_strength, **common)
    return build_partial(model, optimizer_at, at_home=at_home, **common)


def _choose(argument, name, table, otherwise=None):
    """Return an entry of a table, or `otherwise` for what is no name."""
    if otherwise is not None and not isinstance(name, str):
        return otherwise
    if name not in table:
        raise InputError(f"{argument}: expected one of {', '.join(table)}, found {name!r}")
    return table[name]
