"""FedNova: clients that take different numbers of steps, without a bias to those that take many.

In FedAvg a client with more batches moves the global model further: the mean of the updates minimises
another sum of the clients' losses than the one that was meant. FedNova divides each client's update by its
effective number of steps a_i, and multiplies the mean by that of all, tau_eff = sum_i p_i a_i [1]_.

References
----------
.. [1] J. Wang et al., "Tackling the Objective Inconsistency Problem in Heterogeneous Federated
   Optimization", NeurIPS 2020.
"""

from collections import OrderedDict

from fedutils.errors import InputError
from fedutils.local_training import OptimizerAt, build_learning_process, find_momentum, train_locally
from fedutils.tff import tff  # before the imports below, which it prepares

# isort: split
import numpy as np
import tensorflow as tf

_FLOAT = tff.TensorType(np.float32)


def build_fednova(
    model: tff.learning.models.FunctionalModel,
    optimizer_at: OptimizerAt,
    *,
    server_optimizer: tff.learning.optimizers.Optimizer,
    weighted: bool,
    model_aggregator: tff.aggregators.WeightedAggregationFactory,
    metrics_aggregator,
) -> tff.learning.templates.LearningProcess:
    """Build FedNova [1]_.

    Parameters
    ----------
    model : FunctionalModel
    optimizer_at : callable
        From the round's number to the optimizer of its clients: SGD, with momentum or without.
    server_optimizer : tff.learning.optimizers.Optimizer
        SGD at 1.0 gives the algorithm of the paper.
    weighted : bool
        p_i in proportion to the examples of client i; else alike.
    model_aggregator : WeightedAggregationFactory
        Of the normalised updates. a_i is averaged beside it, as it is: one number a client.
    metrics_aggregator : callable
        As of TFF's builders.

    Returns
    -------
    tff.learning.templates.LearningProcess
        Its metrics hold tau_eff under ``aggregator``, ``effective_steps``.

    Raises
    ------
    InputError
        If the clients have another optimizer, of which no a_i is known.
    """
    momentum = find_momentum(optimizer_at(0))
    if momentum is None:
        raise InputError(
            "client_optimizer: expected sgd or sgdm with fednova, which must know how much each step counts, "
            "found another; choose one of the two"
        )

    def client_update(round_number, weights, batches):
        trained = train_locally(model, optimizer_at(round_number), weights, batches)
        steps = tf.where(trained.is_finite, count_effective_steps(trained.num_steps, momentum), 0.0)
        # A client without batches sends zeros, and 0 steps.
        normalised = tf.nest.map_structure(lambda d: tf.math.divide_no_nan(d, steps), trained.delta)
        return (normalised, steps), trained.count(weighted), trained.metrics

    return build_learning_process(
        model,
        client_update,
        lambda sent: _build_normalised_mean(model_aggregator, sent[0]),
        server_optimizer=server_optimizer,
        metrics_aggregator=metrics_aggregator,
    )


def count_effective_steps(num_steps: tf.Tensor, momentum: float) -> tf.Tensor:
    """Return a_i, by which the gradients of a client's steps count in its update together, float32 ().

    With momentum rho the gradient of step k of tau lives on in the later ones, and counts
    (1 - rho^(tau - k + 1)) / (1 - rho) times; the sum over k is
    (tau - rho (1 - rho^tau) / (1 - rho)) / (1 - rho) [1]_. Without momentum that is tau.

    Parameters
    ----------
    num_steps : int ()
        tau.
    momentum : float
        rho, in [0, 1).
    """
    tau = tf.cast(num_steps, tf.float32)
    left = 1.0 - momentum
    return (tau - momentum * (1.0 - momentum**tau) / left) / left


def _build_normalised_mean(factory, update_type):
    """Build the aggregation of (normalised update, a_i): the mean of the one times the mean of the other."""
    updates = factory.create(update_type, _FLOAT)
    steps = tff.aggregators.MeanFactory().create(_FLOAT, _FLOAT)

    @tff.tensorflow.computation(update_type, np.float32)
    def scale(update, effective_steps):
        return tf.nest.map_structure(lambda u: u * effective_steps, update)

    @tff.federated_computation
    def initialize():
        return tff.federated_zip((updates.initialize(), steps.initialize()))

    @tff.federated_computation(
        initialize.type_signature.result,
        tff.FederatedType((update_type, _FLOAT), tff.CLIENTS),
        tff.FederatedType(_FLOAT, tff.CLIENTS),
    )
    def aggregate(state, value, weight):
        mean = updates.next(state[0], value[0], weight)
        effective = steps.next(state[1], value[1], weight)
        measurements = OrderedDict(update=mean.measurements, effective_steps=effective.result)
        return tff.templates.MeasuredProcessOutput(
            tff.federated_zip((mean.state, effective.state)),
            tff.federated_map(scale, (mean.result, effective.result)),
            tff.federated_zip(measurements),
        )

    return tff.templates.AggregationProcess(initialize, aggregate)
