"""SCAFFOLD: control variates against the drift of clients whose data differ.

A client's steps lead towards its own optimum, the further the more of them it takes. SCAFFOLD lets each
client remember the mean gradient c_i of its last round, and the server c, the mean over all clients; a step
follows g - c_i + c: what is peculiar to the client is exchanged for what is common [1]_. Between rounds c_i
stays with the client, so this is a `fedutils.stateful` process.

c must stay the mean of all c_i whoever takes part, or the corrections do not cancel and training ends where
no optimum is. Where clients count by their n_i examples, of n in all, it is c = sum_i n_i / n c_i, and a
round moves it by n_S / n times the weighted mean change of those that took part, n_S being their examples;
the paper, where clients count alike, has S / N. Nobody tells the server n beforehand: each client tells its
n_i once, when it first takes part.

References
----------
.. [1] S. P. Karimireddy et al., "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning",
   ICML 2020. Here with option II for c_i.
"""

from fedutils.errors import InputError
from fedutils.local_training import OptimizerAt, choose, find_momentum, train_locally
from fedutils.stateful import ClientUpdate, StatefulProcess, build_stateful_process
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
        N, of all clients. Those that have not taken part yet count in c with c_i = 0, and with the mean
        number of examples of those that have.
    weighted : bool
        Weight clients by their number of examples, in the means of updates and of control variates; the
        paper counts them alike. c is exact if a client trains on as many examples in each of its rounds.
    model_aggregator : WeightedAggregationFactory
        Of updates and changes of control variates together: a message is twice as long as FedAvg's. Beside
        it, as they are, the server gets sums over the clients: of their weights, and of the number of those
        that are new and of their examples.
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

    def begin_client(weights):
        return _zero(weights.trainable), tf.constant(1.0)  # c_i, and whether the client is new

    def begin_server(weights):  # c, and the examples and number of the clients that are known
        return _zero(weights.trainable), (tf.constant(0.0), tf.constant(0.0))

    def client_update(round_number, common, weights, state, batches):
        common, own, is_new = tuple(common), tuple(state[0]), state[1]
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
        change = choose(learnt, change, _zero(change))
        new = tf.nest.map_structure(tf.add, own, change)
        weight = trained.count(weighted)
        # Who diverged has weight 0 in this round, but is as large as ever in the mean of all c_i.
        size = tf.cast(trained.num_examples, tf.float32) if weighted else tf.constant(1.0)
        return ClientUpdate(
            message=(trained.delta, change),
            weight=weight,
            state=(new, tf.constant(0.0)),
            metrics=trained.metrics,
            told=(weight, is_new * size, is_new),
        )

    def server_update(common, kept, mean, told):
        update, change = mean
        size, num_known = kept
        weight, new_size, num_new = told
        before, after = estimate(size, num_known), estimate(size + new_size, num_known + num_new)
        stays, share = tf.math.divide_no_nan(before, after), tf.math.divide_no_nan(weight, after)
        # The mean of no client may be 0 / 0.
        change = choose(weight > 0, tuple(change), _zero(change))
        moved = tf.nest.map_structure(lambda c, d: stays * c + share * d, tuple(common), change)
        return moved, (size + new_size, num_known + num_new), update

    def estimate(size, num_known):
        return size * tf.math.divide_no_nan(float(num_clients), num_known)

    return build_stateful_process(
        model,
        begin_client=begin_client,
        begin_server=begin_server,
        client_update=client_update,
        server_update=server_update,
        num_clients=num_clients,
        server_optimizer=server_optimizer,
        model_aggregator=model_aggregator,
        metrics_aggregator=metrics_aggregator,
    )


def _zero(tensors) -> tuple:
    return tuple(tf.zeros_like(tensor) for tensor in tensors)
