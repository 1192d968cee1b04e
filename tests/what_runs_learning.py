"""Cases of test_what_runs.py: algorithms, optimizers and models."""

from collections import OrderedDict
from unittest import mock

import keras
import numpy as np
import tf_keras
from what_runs import CLIENTS, build_evaluation, build_linear_model, build_variable_model, case, train

from fedutils.algorithms import OPTIMIZERS
from fedutils.keras_tff import build_functional_model
from fedutils.tff import tff

# isort: split
import tensorflow as tf
from tensorflow_federated.python.learning.models import reconstruction_model

algorithms, learning, models = tff.learning.algorithms, tff.learning, tff.learning.models
sgd = tff.learning.optimizers.build_sgdm


def halve(round_number):
    """Return a learning rate of 0.1 in the first round, 0.05 in the second."""
    return 0.1 / (1.0 + tf.cast(round_number, tf.float32))


# Algorithms, two rounds each


@case("Algorithms", "FedAvg")
def fed_avg(both):
    return both.equal(train, algorithms.build_weighted_fed_avg(build_linear_model(), sgd(0.1), sgd(1.0)))


@case("Algorithms", "FedAvg, unweighted")
def fed_avg_unweighted(both):
    return both.equal(train, algorithms.build_unweighted_fed_avg(build_linear_model(), sgd(0.1), sgd(1.0)))


@case("Algorithms", "FedAvg with a schedule")
def fed_avg_schedule(both):
    build = algorithms.build_weighted_fed_avg_with_optimizer_schedule
    return both.equal(train, build(build_linear_model(), halve, sgd, sgd(1.0)))


@case("Algorithms", "FedProx")
def fed_prox(both):
    build = algorithms.build_weighted_fed_prox
    return both.equal(train, build(build_linear_model(), 0.5, sgd(0.1), sgd(1.0)))


@case("Algorithms", "FedProx, unweighted")
def fed_prox_unweighted(both):
    build = algorithms.build_unweighted_fed_prox
    return both.equal(train, build(build_linear_model(), 0.5, sgd(0.1), sgd(1.0)))


@case("Algorithms", "MimeLite")
def mime_lite(both):
    build = algorithms.build_weighted_mime_lite
    return both.equal(train, build(build_linear_model(), sgd(0.1, 0.9), sgd(1.0)))


@case("Algorithms", "MimeLite, unweighted")
def mime_lite_unweighted(both):
    build = algorithms.build_unweighted_mime_lite
    return both.equal(train, build(build_linear_model(), sgd(0.1, 0.9), sgd(1.0)))


@case("Algorithms", "MimeLite with a schedule")
def mime_lite_schedule(both):
    build = algorithms.build_mime_lite_with_optimizer_schedule
    return both.equal(train, build(build_linear_model(), halve, sgd(0.1, 0.9), sgd(1.0)))


@case("Algorithms", "FedSGD")
def fed_sgd(both):
    return both.equal(train, algorithms.build_fed_sgd(build_linear_model(), sgd(0.1)))


def evaluate(process):
    state, metrics = process.initialize(), []
    weights = models.ModelWeights((np.ones((3, 2), np.float32), np.zeros(2, np.float32)), ())
    state = process.set_model_weights(state, weights)
    for _ in range(2):
        output = process.next(state, CLIENTS)
        state = output.state
        metrics.append(output.metrics)
    return metrics


@case("Algorithms", "evaluation")
def fed_eval(both):
    return both.equal(evaluate, build_evaluation())


@case("Algorithms", "personalization")
def personalization(both):
    def build_strategy():
        @tf.function
        def fit_and_evaluate(model, train_data, test_data, context=None):
            for batch in train_data.batch(2):  # a loop with variables, by AutoGraph
                with tf.GradientTape() as tape:
                    loss = model.forward_pass(batch).loss
                variables = model.trainable_variables
                for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
                    variable.assign_sub(0.1 * gradient)
            return evaluate_model(model, test_data)

        return fit_and_evaluate

    @tf.function
    def evaluate_model(model, data):
        losses = data.batch(2).map(lambda x, y: model.forward_pass((x, y), training=False).loss)
        return OrderedDict(loss=losses.reduce(0.0, lambda a, b: a + b))

    compute = algorithms.build_personalization_eval_computation(
        build_variable_model,
        OrderedDict(fine_tuned=build_strategy),
        baseline_evaluate_fn=evaluate_model,
        max_num_clients=len(CLIENTS),
    )
    weights = models.ModelWeights((np.ones((3, 2), np.float32), np.zeros(2, np.float32)), ())
    data = [OrderedDict(train_data=c.unbatch(), test_data=c.unbatch()) for c in CLIENTS]

    def run():
        # The clients come in an order that a reservoir draws.
        metrics = compute(weights, data)
        return np.sort(metrics["baseline_metrics"]["loss"]), np.sort(metrics["fine_tuned"]["loss"])

    return both.equal(run)


class _Reconstruction(models.ReconstructionModel):
    """Linear regression with a global matrix and a local bias."""

    def __init__(self):
        matrix, bias = build_linear_model().initial_weights[0]
        self.global_trainable_variables = [tf.Variable(matrix)]
        self.local_trainable_variables = [tf.Variable(bias)]

    global_trainable_variables = local_trainable_variables = None
    global_non_trainable_variables = local_non_trainable_variables = ()
    input_spec = CLIENTS[0].element_spec

    def forward_pass(self, batch_input, training=True):
        x, y = batch_input
        (matrix,), (bias,) = self.global_trainable_variables, self.local_trainable_variables
        return reconstruction_model.ReconstructionBatchOutput(
            predictions=x @ matrix + bias, labels=y, num_examples=tf.shape(y)[0]
        )


_RECONSTRUCTION = {
    "loss_fn": tf_keras.losses.MeanSquaredError,
    "reconstruction_optimizer_fn": sgd(0.1),
    "dataset_split_fn": models.ReconstructionModel.build_dataset_split_fn(recon_epochs=1),
}


# TFF's code for reconstruction needs Keras 2 as tf.keras, as TF_USE_LEGACY_KERAS=1 makes it.
@case("Algorithms", "FedRecon (with Keras 2)")
@mock.patch.object(tf, "keras", tf_keras)
def fed_recon(both):
    process = algorithms.build_fed_recon(
        _Reconstruction, client_optimizer_fn=sgd(0.1), server_optimizer_fn=sgd(1.0), **_RECONSTRUCTION
    )
    return both.equal(train, process)


@case("Algorithms", "evaluation of FedRecon (with Keras 2)")
@mock.patch.object(tf, "keras", tf_keras)
def fed_recon_eval(both):
    process = algorithms.build_fed_recon_eval(_Reconstruction, **_RECONSTRUCTION)
    return both.equal(lambda: process.next(process.initialize(), CLIENTS).metrics)


@case("Algorithms", "k-means")
def k_means(both):
    process = algorithms.build_fed_kmeans(2, (3,), random_seed=(1, 2))
    points = [client.map(lambda x, y: x).unbatch() for client in CLIENTS]
    return both.equal(train, process, points)


# Optimizers, by the names of fedutils.algorithms: both on clients and on the server


def _add_optimizer(name):
    @case("Optimizers, of clients and of the server", name)
    def optimizer(both):
        build = OPTIMIZERS[name]
        process = algorithms.build_weighted_fed_avg(build_linear_model(), build(0.1), build(0.05))
        return both.equal(train, process)


for _name in OPTIMIZERS:
    _add_optimizer(_name)


# Models, with both of TFF's loops over batches


@case("Models and loops", "functional model, iterator loop")
def iterator_loop(both):
    loop = learning.LoopImplementation.DATASET_ITERATOR
    build = algorithms.build_weighted_fed_avg
    return both.equal(train, build(build_linear_model(), sgd(0.1), sgd(1.0), loop_implementation=loop))


@case("Models and loops", "variable model, reduce loop")
def variable_model(both):
    return both.equal(train, algorithms.build_weighted_fed_avg(build_variable_model, sgd(0.1), sgd(1.0)))


@case("Models and loops", "variable model, iterator loop")
def variable_model_iterator(both):
    loop = learning.LoopImplementation.DATASET_ITERATOR
    build = algorithms.build_weighted_fed_avg
    return both.equal(train, build(build_variable_model, sgd(0.1), sgd(1.0), loop_implementation=loop))


@case("Models and loops", "Keras 3 convolutional network")
def keras_network(both):
    layers = [keras.Input((6, 5, 2)), keras.layers.Conv2D(4, 3), keras.layers.GroupNormalization(2)]
    layers += [keras.layers.ReLU(), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)]
    network = keras.Sequential(layers)
    rng = np.random.default_rng(0)
    network.set_weights([rng.normal(size=w.shape) for w in network.get_weights()])
    images = rng.normal(size=(4, 6, 5, 2)).astype(np.float32)
    clients = [
        tf.data.Dataset.from_tensor_slices((images[:n], np.arange(n, dtype=np.int32) % 3)).batch(2)
        for n in (3, 4)
    ]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model = build_functional_model(network, loss, input_spec=clients[0].element_spec)
    return both.equal(train, algorithms.build_weighted_fed_avg(model, sgd(0.1), sgd(1.0)), clients)
