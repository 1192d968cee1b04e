"""Federated algorithms whose clients keep something from round to round.

A learning process of TFF keeps its state at the server alone. Here each client hands its own state in and
gets it back: ``next(state, client_states, data)``. The state of a client is its own; only what its message
holds reaches the server.

`build_stateful_process` makes a process of four functions of TensorFlow: what server and client begin with,
what a client does in a round, and what the server makes of the mean. `begin_rounds` and `advance` drive any
process, with client states or without.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from fedutils.at_home import build_exchange
from fedutils.errors import InputError
from fedutils.local_training import build_initial_weights, find_data_type
from fedutils.tff import tff  # before the imports below, which it prepares

# isort: split
import numpy as np
import tensorflow as tf

_FLOAT = tff.TensorType(np.float32)


class ClientUpdate(NamedTuple):
    """What a client gives in a round.

    Attributes
    ----------
    message : structure of tensor
    weight : float32 ()
        How much the message counts in the mean.
    state : structure
        The client's own, for its next round.
    metrics : structure
        Unfinalized ones.
    told : structure of float32 (), optional
        What the server gets the sum of, as it is: it does not go through the aggregator. By default each
        client tells 1.
    """

    message: Any
    weight: tf.Tensor
    state: Any
    metrics: Any
    told: Any = np.float32(1)


class StatefulOutput(NamedTuple):
    """What a round gives: ``state`` of the server, ``client_states``, one a client, and ``metrics``."""

    state: Any
    client_states: Any
    metrics: Any


@dataclass(frozen=True)
class StatefulProcess:
    """A learning process with clients that keep a state; its members are computations of TFF.

    Attributes
    ----------
    initialize : () -> S@SERVER
        S is TFF's `LearningAlgorithmState`.
    initialize_client : S -> C
        What a client has before its first round.
    next : (S@SERVER, C@CLIENTS, data@CLIENTS) -> StatefulOutput
        Client states, and data sets of batches, are lists with one entry a client of the round. The metrics
        are those of TFF's processes.
    get_model_weights : S -> ModelWeights
    set_model_weights : (S, ModelWeights) -> S
    get_personal_weights : (S, C) -> ModelWeights, or None
        A client's own model, where each has one.
    num_clients : int, optional
        How many clients there must be in all, where the algorithm counts on it.
    """

    initialize: tff.Computation
    initialize_client: tff.Computation
    next: tff.Computation
    get_model_weights: tff.Computation
    set_model_weights: tff.Computation
    get_personal_weights: tff.Computation | None = None
    num_clients: int | None = None


def build_stateful_process(
    model: tff.learning.models.FunctionalModel,
    *,
    begin_client: Callable,
    client_update: Callable,
    begin_server: Callable = lambda weights: ((), ()),
    server_update: Callable = lambda sent, kept, mean, told: (sent, kept, mean),
    personal_weights: Callable | None = None,
    at_home: Sequence[int] = (),
    num_clients: int | None = None,
    server_optimizer: tff.learning.optimizers.Optimizer,
    model_aggregator: tff.aggregators.WeightedAggregationFactory,
    metrics_aggregator: Callable,
) -> StatefulProcess:
    """Build a process from functions of TensorFlow.

    Parameters
    ----------
    model : FunctionalModel
    begin_client : callable
        From the whole model's `ModelWeights` to what a client begins with.
    client_update : callable
        From (round number, int32 () from 0; what the server sends beside the model; `ModelWeights` without
        those at home; client state; data set) to a `ClientUpdate`.
    begin_server : callable
        From the whole model's `ModelWeights` to (what the server sends beside the model, what it keeps for
        itself).
    server_update : callable
        From (what it sent, what it kept, the weighted mean of the messages, the sum of what clients told) to
        (what it sends next, what it keeps then, the update of the trainable weights that are not at home).
    personal_weights : callable, optional
        From (the server's `ModelWeights`, all of them; client state) to the client's own `ModelWeights`.
    at_home : sequence of int
        Positions of trainable weights that the server neither sends nor gets. Its own copy stays as it began.
    num_clients : int, optional
    server_optimizer : tff.learning.optimizers.Optimizer
    model_aggregator : WeightedAggregationFactory
        Of the messages, whole: noise, limits or compression apply to all that a client sends.
    metrics_aggregator : callable
        As of TFF's builders.
    """
    templates = tff.learning.templates
    initial_weights = build_initial_weights(model)
    weights_type = initial_weights.type_signature.result
    take_shared, put_shared = build_exchange(weights_type, at_home)
    shared_type = take_shared.type_signature.result
    data_type = find_data_type(model)

    begin_own = tff.tensorflow.computation(begin_server, weights_type)
    client_type = tff.tensorflow.computation(begin_client, weights_type).type_signature.result
    sent_type, kept_type = begin_own.type_signature.result

    @tff.tensorflow.computation(np.int32, sent_type, shared_type, client_type, data_type)
    @tf.function
    def work(round_number, received, weights, client_state, batches):
        done = ClientUpdate(*client_update(round_number, received, weights, client_state, batches))
        return templates.ClientResult(done.message, done.weight), done.state, done.metrics, done.told

    message_type, told_type = work.type_signature.result[0].update, work.type_signature.result[3]

    @tff.tensorflow.computation((np.int32, sent_type, kept_type), message_type, told_type)
    def absorb(client_work, mean, told):
        round_number, sent, kept = client_work
        sent, kept, update = server_update(sent, kept, mean, told)
        return (round_number + 1, sent, kept), update

    @tff.tensorflow.computation((np.int32, sent_type, kept_type))
    def take_sent(client_work):
        return client_work[:2]

    distributor = templates.build_broadcast_process(shared_type)
    aggregator = model_aggregator.create(message_type, _FLOAT)
    finalizer = templates.build_apply_optimizer_finalizer(server_optimizer, shared_type)

    @tff.federated_computation
    def initialize():
        weights = tff.federated_eval(initial_weights, tff.SERVER)
        own = tff.federated_map(begin_own, weights)
        client_work = (tff.federated_value(np.int32(0), tff.SERVER), own[0], own[1])
        return tff.federated_zip(
            templates.LearningAlgorithmState(
                weights,
                distributor.initialize(),
                tff.federated_zip(client_work),
                aggregator.initialize(),
                finalizer.initialize(),
            )
        )

    state_type = initialize.type_signature.result.member

    @tff.federated_computation(
        tff.FederatedType(state_type, tff.SERVER),
        tff.FederatedType(client_type, tff.CLIENTS),
        tff.FederatedType(data_type, tff.CLIENTS),
    )
    def advance_all(state, client_states, data):
        shared = tff.federated_map(take_shared, state.global_model_weights)
        sent = distributor.next(state.distributor, shared)
        round_number, received = tff.federated_broadcast(tff.federated_map(take_sent, state.client_work))
        result, client_states, unfinalized, told = tff.federated_map(
            work, (round_number, received, sent.result, client_states, data)
        )
        mean = aggregator.next(state.aggregator, result.update, result.update_weight)
        client_work, update = tff.federated_map(
            absorb, (state.client_work, mean.result, tff.federated_sum(told))
        )
        final = finalizer.next(state.finalizer, shared, update)
        weights = tff.federated_map(put_shared, (state.global_model_weights, final.result))
        train = metrics_aggregator(model.finalize_metrics)(unfinalized)
        metrics = OrderedDict(
            distributor=sent.measurements,
            client_work=tff.federated_zip(OrderedDict(train=train)),
            aggregator=mean.measurements,
            finalizer=final.measurements,
        )
        new_state = templates.LearningAlgorithmState(
            weights, sent.state, client_work, mean.state, final.state
        )
        return StatefulOutput(tff.federated_zip(new_state), client_states, tff.federated_zip(metrics))

    @tff.tensorflow.computation(state_type)
    def initialize_client(state):
        return begin_client(state.global_model_weights)

    @tff.tensorflow.computation(state_type)
    def get_model_weights(state):
        return state.global_model_weights

    @tff.tensorflow.computation(state_type, weights_type)
    def set_model_weights(state, weights):
        rest = (state.distributor, state.client_work, state.aggregator, state.finalizer)
        return templates.LearningAlgorithmState(weights, *rest)

    get_personal_weights = None
    if personal_weights is not None:

        @tff.tensorflow.computation(state_type, client_type)
        def get_personal_weights(state, client_state):
            return personal_weights(state.global_model_weights, client_state)

    return StatefulProcess(
        initialize,
        initialize_client,
        advance_all,
        get_model_weights,
        set_model_weights,
        get_personal_weights,
        num_clients,
    )


# ---- what drives a process, stateful or not


class FederationState(NamedTuple):
    """The state of a whole simulated federation: ``server``, and ``clients``, a list with one a client."""

    server: Any
    clients: list


def begin_rounds(process, weights: tff.learning.models.ModelWeights, num_clients: int):
    """Return the state before round 1, a `FederationState` where clients have states.

    Raises
    ------
    InputError
        If the process was built for another number of clients.
    """
    server = process.set_model_weights(process.initialize(), weights)
    if not isinstance(process, StatefulProcess):
        return server
    if process.num_clients not in (None, num_clients):
        raise InputError(
            f"num_clients: expected {num_clients}, as many as there are clients, found a process that was "
            f"built for {process.num_clients}; build it with num_clients={num_clients}"
        )
    return FederationState(server, [process.initialize_client(server)] * num_clients)


def advance(process, state, chosen: Sequence[int], data: list[tf.data.Dataset]):
    """Run a round; return the state after it and the metrics.

    Parameters
    ----------
    process : LearningProcess or StatefulProcess
    state : structure
        From `begin_rounds`, or from the round before; it is not changed.
    chosen : sequence of int
        The clients that take part. Only their states are others afterwards.
    data : list of tf.data.Dataset
        Their batches.
    """
    if not isinstance(process, StatefulProcess):
        output = process.next(state, data)
        return output.state, output.metrics
    output = process.next(state.server, [state.clients[k] for k in chosen], data)
    clients = list(state.clients)
    for k, client_state in zip(chosen, output.client_states, strict=True):
        clients[k] = client_state
    return FederationState(output.state, clients), output.metrics


def get_global_weights(process, state) -> tff.learning.models.ModelWeights:
    """Return the server's model."""
    server = state.server if isinstance(process, StatefulProcess) else state
    return process.get_model_weights(server)


def has_personal_weights(process) -> bool:
    """Say whether each client has a model of its own."""
    return isinstance(process, StatefulProcess) and process.get_personal_weights is not None


def get_client_weights(process, state, client: int) -> tff.learning.models.ModelWeights:
    """Return the model that a client would use: its own, or the server's where it has none."""
    if has_personal_weights(process):
        return process.get_personal_weights(state.server, state.clients[client])
    return get_global_weights(process, state)
