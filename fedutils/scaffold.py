"""SCAFFOLD: control variates against the drift of clients whose data differ.

A client's steps lead towards its own optimum, the further the more of them it takes. SCAFFOLD lets each
client remember the mean gradient c_i of its last round, and the server c, the mean over all clients; a step
follows g - c_i + c: what is peculiar to the client is exchanged for what is common [1]_. Between rounds c_i
stays with the client, so this is a `fedutils.stateful` process.

References
----------
.. [1] S. P. Karimireddy et al., "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning",
   ICML 2020. Here with option II for c_i.
"""

from fedutils.errors import InputError
from fedutils.local_training import OptimizerAt, choose, find_momentum, train_locally
from fedutils.stateful import StatefulProcess, build_stateful_process
from fedutils.tff import tff  # before the imports below, which it prepares

# isort: split
import tensorflow as tf


def build_scaffold(
    model: tff.learning.models.FunctionalModel,
    optimizer_at: OptimizerAt,
    *,
    server_optimizer: tff.learning.optimizers.Optimizer,
    num_clients: int | None,
    weighted: bool,
    model_aggregator: tff.aggregators.WeightedAggregationFactory,
    metrics_aggregator,
) -> StatefulProcess:
    """Build SCAFFOLD [1]_.

    Parameters
    ----------
    model : FunctionalModel
    optimizer_at : callable
        From the round's number to the optimizer of its clients: SGD without momentum, since the new c_i is
        read from the distance that the steps went.
    server_optimizer : tff.learning.optimizers.Optimizer
        SGD; its rate is the paper's eta_g.
    num_clients : int
        N, of all clients. When S of them take part, c moves by S / N times the mean change of theirs.
    weighted : bool
        Weight clients by their number of examples, in the means of updates and of control variates; the
        paper counts them alike.
    model_aggregator : WeightedAggregationFactory
        Of updates and changes of control variates together: a message is twice as long as FedAvg's.
    metrics_aggregator : callable
        As of TFF's builders.

    Raises
    ------
    InputError
        If the clients have another optimizer, or `num_clients` is not given.
    """
    if find_momentum(optimizer_at(0)) != 0:
        raise InputError(
            "client_optimizer: expected sgd with scaffold, whose control variates are read from the steps, "
            "found another; choose sgd"
        )
    if not isinstance(num_clients, int) or num_clients < 1:
        raise InputError(
            f"num_clients: expected the number of all clients with scaffold, found {num_clients!r}; give it"
        )

    def begin(weights):
        return tf.nest.map_structure(tf.zeros_like, tuple(weights.trainable))

    def client_update(round_number, common, weights, own, batches):
        common, own = tuple(common), tuple(own)
        optimizer = optimizer_at(round_number)

        def correct(gradients, _):
            return tf.nest.map_structure(lambda g, c_i, c: g - c_i + c, gradients, own, common)

        trained = train_locally(model, optimizer, weights, batches, correct)
        rate = optimizer.initialize(())[tff.learning.optimizers.LEARNING_RATE_KEY]
        distance = tf.cast(trained.num_steps, tf.float32) * rate
        # Option II: c_i + change = c_i - c + (x - y) / (K eta), the mean of the gradients of the K steps.
        change = tf.nest.map_structure(
            lambda d, c: tf.math.divide_no_nan(d, distance) - c, trained.delta, common
        )
        # Without a step nothing was learnt about the gradient.
        learnt = tf.logical_and(trained.is_finite, distance > 0)
        change = choose(learnt, change, begin(weights))
        new = tf.nest.map_structure(tf.add, own, change)
        return (trained.delta, change), trained.count(weighted), new, trained.metrics

    def server_update(common, mean, num_participants):
        update, change = mean
        share = num_participants / num_clients
        return tf.nest.map_structure(lambda c, d: c + share * d, tuple(common), tuple(change)), update

    return build_stateful_process(
        model,
        begin_client=begin,
        begin_server=begin,
        client_update=client_update,
        server_update=server_update,
        num_clients=num_clients,
        server_optimizer=server_optimizer,
        model_aggregator=model_aggregator,
        metrics_aggregator=metrics_aggregator,
    )
