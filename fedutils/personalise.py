"""Personalisation: every hospital gets a model of its own out of the federation.

Four ways: `fine_tune` the global model on a hospital's own images; keep scale and offset of the normalisation
at home (FedBN [2]_); keep the last layers at home (FedPer [1]_); or train a second model that is only pulled
towards the global one (Ditto [3]_). The middle two are one process, `build_partial`, and differ in what
`select_normalisation` and `select_head` choose.

References
----------
.. [1] M. G. Arivazhagan et al., "Federated Learning with Personalization Layers", arXiv:1912.00818, 2019.
.. [2] X. Li et al., "FedBN: Federated Learning on Non-IID Features via Local Batch Normalization", ICLR 2021.
   Its statistics have no counterpart in the GroupNorm of our networks, which keeps none.
.. [3] T. Li et al., "Ditto: Fair and Robust Federated Learning Through Personalization", ICML 2021.
"""

from collections.abc import Sequence

from fedutils.errors import InputError
from fedutils.local_training import OptimizerAt, choose, pull_towards, train_locally
from fedutils.stateful import StatefulProcess, build_stateful_process
from fedutils.tff import tff  # before the imports below, which it prepares

# isort: split
import keras

from fedutils.at_home import join_weights
from fedutils.centralized import Arrays, evaluate, get_weights, set_weights, train_central
from fedutils.runs import Run

_NORMALISATION = {"gamma", "beta"}  # what Keras calls scale and offset, in its normalisation layers alone


def select_head(model: keras.Model, num_layers: int = 1) -> tuple[int, ...]:
    """Return the positions of the trainable weights of a model's last layers that have any.

    Examples
    --------
    >>> import keras
    >>> from fedutils.personalise import select_head
    >>> layers = [keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)]
    >>> select_head(keras.Sequential(layers))
    (2, 3)
    """
    owners = [variable.path.rpartition("/")[0] for variable in model.trainable_variables]
    layers = list(dict.fromkeys(owners))
    if not 1 <= num_layers <= len(layers):
        raise InputError(
            f"num_layers: expected 1 to {len(layers)}, the layers of {model.name} with trainable weights, "
            f"found {num_layers}; choose one of them"
        )
    return tuple(i for i, owner in enumerate(owners) if owner in layers[-num_layers:])


def select_normalisation(model: keras.Model) -> tuple[int, ...]:
    """Return the positions, among the trainable weights, of scale and offset of all normalisation layers.

    Raises
    ------
    InputError
        If the model has none.
    """
    paths = [variable.path for variable in model.trainable_variables]
    found = tuple(i for i, path in enumerate(paths) if path.rpartition("/")[2] in _NORMALISATION)
    if not found:
        raise InputError(
            f"model {model.name}: expected normalisation layers with scale or offset, found none; choose "
            "another model, or keep its head at home"
        )
    return found


def build_partial(
    model: tff.learning.models.FunctionalModel,
    optimizer_at: OptimizerAt,
    *,
    server_optimizer: tff.learning.optimizers.Optimizer,
    at_home: Sequence[int] | None,
    weighted: bool,
    model_aggregator: tff.aggregators.WeightedAggregationFactory,
    metrics_aggregator,
) -> StatefulProcess:
    """Build federated averaging of a part of the weights; the other part never leaves its client [1]_, [2]_.

    Clients train both parts together. The server's copy of what stays at home is that of round 0: on its own
    the server's model is no model to use.

    Parameters
    ----------
    model : FunctionalModel
    optimizer_at : callable
        From the round's number to the optimizer of its clients.
    server_optimizer : tff.learning.optimizers.Optimizer
    at_home : sequence of int
        Positions among the trainable weights, as of `select_head`; without any this is FedAvg.
    weighted : bool
        Weight clients by their number of examples.
    model_aggregator : WeightedAggregationFactory
    metrics_aggregator : callable
        As of TFF's builders.

    Raises
    ------
    InputError
        If a position is not there, or all weights would stay at home.
    """
    count = len(model.initial_weights[0])
    home = tuple(sorted(set(at_home or ())))
    if at_home is None or any(not 0 <= i < count for i in home) or len(home) == count:
        raise InputError(
            f"at_home: expected positions in 0 to {count - 1}, and not all of them, found {at_home!r}; "
            "choose them by select_head or select_normalisation"
        )

    def begin_client(weights):
        return tuple(weights.trainable[i] for i in home)

    def client_update(round_number, _, weights, own, batches):
        own = tuple(own)
        joined = join_weights(tuple(weights.trainable), own, home)
        start = tff.learning.models.ModelWeights(joined, weights.non_trainable)
        trained = train_locally(model, optimizer_at(round_number), start, batches)
        message = tuple(d for i, d in enumerate(trained.delta) if i not in home)
        kept = choose(trained.is_finite, tuple(trained.weights[i] for i in home), own)
        return message, trained.count(weighted), kept, trained.metrics

    def personal_weights(weights, own):
        shared = tuple(w for i, w in enumerate(weights.trainable) if i not in home)
        joined = join_weights(shared, tuple(own), home)
        return tff.learning.models.ModelWeights(joined, weights.non_trainable)

    return build_stateful_process(
        model,
        begin_client=begin_client,
        client_update=client_update,
        personal_weights=personal_weights,
        at_home=home,
        server_optimizer=server_optimizer,
        model_aggregator=model_aggregator,
        metrics_aggregator=metrics_aggregator,
    )


def build_ditto(
    model: tff.learning.models.FunctionalModel,
    optimizer_at: OptimizerAt,
    *,
    server_optimizer: tff.learning.optimizers.Optimizer,
    strength: float,
    weighted: bool,
    model_aggregator: tff.aggregators.WeightedAggregationFactory,
    metrics_aggregator,
) -> StatefulProcess:
    """Build Ditto [3]_: FedAvg, and beside it a model of each client's own, on the same batches.

    Parameters
    ----------
    model : FunctionalModel
    optimizer_at : callable
        From the round's number to the optimizer of its clients, for both models.
    server_optimizer : tff.learning.optimizers.Optimizer
    strength : float
        lambda: ``lambda / 2`` times the squared distance from the global model that the round sent is added
        to the loss of the own model. At 0 a client trains alone.
    weighted : bool
        Weight clients by their number of examples, in the global model.
    model_aggregator : WeightedAggregationFactory
    metrics_aggregator : callable
        As of TFF's builders; training metrics are those of the global model.
    """

    def begin_client(weights):
        return tuple(weights.trainable)

    def client_update(round_number, _, weights, own, batches):
        optimizer, own = optimizer_at(round_number), tuple(own)
        trained = train_locally(model, optimizer, weights, batches)
        start = tff.learning.models.ModelWeights(own, weights.non_trainable)
        pull = pull_towards(tuple(weights.trainable), strength)
        personal = train_locally(model, optimizer, start, batches, pull)
        kept = choose(personal.is_finite, personal.weights, own)
        return trained.delta, trained.count(weighted), kept, trained.metrics

    def personal_weights(weights, own):
        return tff.learning.models.ModelWeights(tuple(own), weights.non_trainable)

    return build_stateful_process(
        model,
        begin_client=begin_client,
        client_update=client_update,
        personal_weights=personal_weights,
        server_optimizer=server_optimizer,
        model_aggregator=model_aggregator,
        metrics_aggregator=metrics_aggregator,
    )


def fine_tune(model: keras.Model, training: Arrays, validation: Arrays, *, num_epochs: int, **options) -> Run:
    """Train the global model on with one client's images; leave the best epoch's weights in it.

    Epoch 0, the global model itself, is among those to choose from: on the client's validation images the
    result is never worse.

    Parameters
    ----------
    model : keras.Model
        With the global weights; changed in place.
    training, validation : (float32 (N, H, W, C), int32 (N,))
        The client's own.
    num_epochs : int
        0 leaves the model as it is.
    **options
        Of `fedutils.centralized.train_central`, such as ``batch_size``, ``learning_rate`` and ``seed``.

    Returns
    -------
    Run
        With one record an epoch, the first of epoch 0.
    """
    before = get_weights(model)
    run = Run(num_epochs, options.get("choose_by", "accuracy"))
    start = {f"validation_{name}": value for name, value in evaluate(model, validation).items()}
    run.record({"epoch": 0, **start}, before)
    if num_epochs:
        trained = train_central(model, training, validation, num_epochs=num_epochs, **options)
        for entry in trained.history:  # the best of these has trained.weights, and no other is asked for them
            run.record(entry, trained.weights)
        set_weights(model, run.weights)
    return run
