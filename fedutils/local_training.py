"""A client's part of a round, steps on its own batches, and learning processes made of such parts.

`train_locally` is plain TensorFlow: it can be called, read and tested without any federation. An algorithm
adds what a client sends (`fedutils.fedprox`, `fedutils.fedlc`, `fedutils.fednova`), or also what it keeps for
later rounds (`fedutils.stateful`). TFF's own algorithms bring a loop like this one, but do not tell the
number of steps.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from fedutils.tff import tff  # before the imports below, which it prepares

# isort: split
import numpy as np
import tensorflow as tf
from tensorflow_federated.python.learning import tensor_utils

# From a round's number (int32 (), from 0) to the optimizer of its clients, which starts afresh on each.
OptimizerAt = Callable[[tf.Tensor], tff.learning.optimizers.Optimizer]


class LocalTraining(NamedTuple):
    """What a client has after its steps.

    Attributes
    ----------
    weights : tuple of tensor
        The trainable ones.
    delta : tuple of tensor
        Weights before minus weights after, the direction in which a server's optimizer expects an update;
        zeros unless all of them are finite.
    is_finite : bool ()
    num_steps, num_examples : int64 ()
    metrics : structure
        Of the batches while training, as `FunctionalModel.finalize_metrics` takes them; as before the first
        batch unless `is_finite`.
    """

    weights: tuple
    delta: tuple
    is_finite: tf.Tensor
    num_steps: tf.Tensor
    num_examples: tf.Tensor
    metrics: Any

    def count(self, weighted: bool) -> tf.Tensor:
        """Return how much the client counts in a mean, float32 (): its examples, or 1."""
        if not weighted:
            return tf.constant(1.0)
        return tf.where(self.is_finite, tf.cast(self.num_examples, tf.float32), 0.0)


def train_locally(
    model: tff.learning.models.FunctionalModel,
    optimizer: tff.learning.optimizers.Optimizer,
    weights: tff.learning.models.ModelWeights,
    batches: tf.data.Dataset,
    correct: Callable[[tuple, tuple], tuple] | None = None,
    *,
    to_loss: Callable[[tf.Tensor], tf.Tensor] | None = None,
) -> LocalTraining:
    """Take one step of an optimizer on each batch.

    Parameters
    ----------
    model : FunctionalModel
    optimizer : tff.learning.optimizers.Optimizer
    weights : ModelWeights
        Where the first step starts.
    batches : tf.data.Dataset
        Of (x, y), or of mappings with "x" and "y".
    correct : callable, optional
        From (gradients, weights), tuples alike, to the gradients that the optimizer is given.
    to_loss : callable, optional
        From the model's output to what the loss is given; metrics are given the output as it is.
    """
    before, others = tuple(weights.trainable), tuple(weights.non_trainable)

    def step(state, batch):
        trainable, optimizer_state, metrics, num_steps, num_examples = state
        x, y = split_batch(batch)
        with tf.GradientTape() as tape:
            tape.watch(trainable)
            output = model.predict_on_batch((trainable, others), x, training=True)
            loss = model.loss(output=output if to_loss is None else to_loss(output), label=y)
        gradients = tape.gradient(loss, trainable, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        if correct is not None:
            gradients = correct(gradients, trainable)
        size = tf.shape(tf.nest.flatten(output)[0])[0]
        measured = tff.learning.models.BatchOutput(loss=loss, predictions=output, num_examples=size)
        metrics = model.update_metrics_state(metrics, batch_output=measured, labels=y)
        optimizer_state, trainable = optimizer.next(optimizer_state, trainable, gradients)
        return trainable, optimizer_state, metrics, num_steps + 1, num_examples + tf.cast(size, tf.int64)

    specs = tuple(tf.TensorSpec(w.shape, w.dtype) for w in before)
    zero, no_metrics = tf.constant(0, tf.int64), model.initialize_metrics_state()
    start = (before, optimizer.initialize(specs), no_metrics, zero, zero)
    after, _, metrics, num_steps, num_examples = batches.reduce(start, step)
    delta, is_not_finite = tensor_utils.zero_all_if_any_non_finite(subtract(before, after))
    is_finite = tf.equal(is_not_finite, 0)
    metrics = choose(is_finite, metrics, no_metrics)
    return LocalTraining(after, delta, is_finite, num_steps, num_examples, metrics)


def split_batch(batch) -> tuple:
    """Return x and y of a batch: (x, y), or a mapping with "x" and "y"."""
    return (batch["x"], batch["y"]) if isinstance(batch, Mapping) else batch


def subtract(first, second):
    """Return the difference of two structures of tensors."""
    return tf.nest.map_structure(tf.subtract, first, second)


def choose(condition: tf.Tensor, first, second):
    """Return one of two structures of tensors alike."""
    return tf.nest.map_structure(lambda a, b: tf.where(condition, a, b), first, second)


def pull_towards(anchor: tuple, strength: float) -> Callable[[tuple, tuple], tuple]:
    """Return the correction of gradients that adds ``strength / 2 * |w - anchor|^2`` to the loss."""

    def correct(gradients, weights):
        return tf.nest.map_structure(lambda g, w, a: g + strength * (w - a), gradients, weights, anchor)

    return correct


def find_momentum(optimizer: tff.learning.optimizers.Optimizer) -> float | None:
    """Return the momentum of SGD, 0 without; None of another optimizer."""
    if not isinstance(optimizer, type(tff.learning.optimizers.build_sgdm())):
        return None
    hparams = optimizer.get_hparams(optimizer.initialize(()))
    return float(hparams.get("momentum", 0.0))


def build_initial_weights(model: tff.learning.models.FunctionalModel) -> tff.Computation:
    """Build the computation that returns a model's initial weights, as `ModelWeights`."""

    @tff.tensorflow.computation
    def initial_weights():
        trainable, others = model.initial_weights
        return tff.learning.models.ModelWeights(
            tuple(tf.convert_to_tensor(w) for w in trainable), tuple(tf.convert_to_tensor(w) for w in others)
        )

    return initial_weights


def find_data_type(model: tff.learning.models.FunctionalModel) -> tff.SequenceType:
    """Return the type of a client's batches."""
    return tff.SequenceType(tff.types.tensorflow_to_type(model.input_spec))


def build_learning_process(
    model: tff.learning.models.FunctionalModel,
    client_update: Callable,
    create_aggregator: Callable[[tff.Type], tff.templates.AggregationProcess],
    *,
    server_optimizer: tff.learning.optimizers.Optimizer,
    metrics_aggregator: Callable,
) -> tff.learning.templates.LearningProcess:
    """Build a learning process from what a client does in a round.

    Parameters
    ----------
    model : FunctionalModel
    client_update : callable
        From (round number, int32 () from 0; `ModelWeights`; data set) to (what is sent, its weight, float32
        (); unfinalized metrics).
    create_aggregator : callable
        From the type of what is sent to a weighted aggregation process; it gives the update of the trainable
        weights.
    server_optimizer : tff.learning.optimizers.Optimizer
    metrics_aggregator : callable
        As of TFF's builders.
    """
    initial_weights = build_initial_weights(model)
    weights_type = initial_weights.type_signature.result
    data_type = find_data_type(model)

    @tff.tensorflow.computation(np.int32, weights_type, data_type)
    @tf.function
    def work(round_number, weights, batches):
        sent, count, metrics = client_update(round_number, weights, batches)
        return tff.learning.templates.ClientResult(sent, count), metrics

    @tff.tensorflow.computation(np.int32)
    def add_one(number):
        return number + 1

    @tff.federated_computation
    def initialize():
        return tff.federated_value(np.int32(0), tff.SERVER)

    @tff.federated_computation(
        tff.FederatedType(np.int32, tff.SERVER),
        tff.FederatedType(weights_type, tff.CLIENTS),
        tff.FederatedType(data_type, tff.CLIENTS),
    )
    def work_of_all(round_number, weights, batches):
        number = tff.federated_broadcast(round_number)
        result, unfinalized = tff.federated_map(work, (number, weights, batches))
        train = metrics_aggregator(model.finalize_metrics)(unfinalized)
        return tff.templates.MeasuredProcessOutput(
            tff.federated_map(add_one, round_number), result, tff.federated_zip({"train": train})
        )

    templates = tff.learning.templates
    return templates.compose_learning_process(
        initial_weights,
        templates.build_broadcast_process(weights_type),
        templates.ClientWorkProcess(initialize, work_of_all),
        create_aggregator(work.type_signature.result[0].update),
        templates.build_apply_optimizer_finalizer(server_optimizer, weights_type),
    )


def build_averaging_process(
    model: tff.learning.models.FunctionalModel,
    train: Callable[[tf.Tensor, tff.learning.models.ModelWeights, tf.data.Dataset], LocalTraining],
    *,
    weighted: bool,
    model_aggregator: tff.aggregators.WeightedAggregationFactory,
    **options,
) -> tff.learning.templates.LearningProcess:
    """Build federated averaging of clients that train in a way of their own.

    Parameters
    ----------
    model : FunctionalModel
    train : callable
        From (round number, int32 () from 0; `ModelWeights`; data set) to what a client has after its steps.
    weighted : bool
        Weight clients by their number of examples; else they count alike.
    model_aggregator : WeightedAggregationFactory
    **options
        Of `build_learning_process`.
    """

    def client_update(round_number, weights, batches):
        trained = train(round_number, weights, batches)
        return trained.delta, trained.count(weighted), trained.metrics

    return build_learning_process(
        model,
        client_update,
        lambda sent: model_aggregator.create(sent, tff.TensorType(np.float32)),
        **options,
    )
