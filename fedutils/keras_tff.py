"""Keras 3 models in TensorFlow Federated.

TFF 0.87 accepts only legacy Keras models. `build_functional_model` hands it a Keras 3 model as a
pure function of its weights instead, through ``Model.stateless_call``.

References
----------
.. [1] TensorFlow Federated, ``tff.learning.models.FunctionalModel``.
.. [2] Keras 3, "Writing a custom training loop: stateless API".
"""

from collections import OrderedDict

from fedutils.errors import InputError
from fedutils.tff import tff  # before the imports below, which it prepares

# isort: split
import keras
import numpy as np
import tensorflow as tf


def build_functional_model(model, loss, metrics=(), *, input_spec):
    """Make a TFF model of a Keras 3 model, with its present weights as the initial ones.

    Parameters
    ----------
    model : keras.Model
        Built; what it does in training must follow from its weights and its input alone. It is
        read, not changed.
    loss : keras.losses.Loss or callable
        A Keras loss whose reduction is a mean or None, or a function of (y_true, y_pred) that
        returns losses of shape (B, ...) or their scalar mean. Predictions are float32.
    metrics : sequence of callable
        Each returns a fresh Keras 3 metric with a name of its own. TFF adds up the metrics' state
        over the clients and computes the result from the sums, so a state must be additive and
        begin at zero, as that of Mean, the accuracies and AUC does.
    input_spec : (x, y) of tf.TensorSpec, or nested structures of them
        Of one batch; the first axis is the batch, usually of length None.

    Returns
    -------
    tff.learning.models.FunctionalModel
        Its metrics are ``loss`` (mean over the examples), ``num_examples`` and the given ones. With
        no example at all ``loss`` is NaN. Sample weights, where a caller passes them, scale each
        example's loss and its part in the metrics, but not ``num_examples``; TFF's own training
        passes none.

    Raises
    ------
    InputError
        If the model is not built, updates weights outside its trainable ones in training
        (BatchNormalization, Keras' own Dropout and augmentation: TFF would discard the updates) or
        adds losses of its own (regularizers: TFF would not see them); or if a metric or the loss
        is not as described above.

    Examples
    --------
    >>> import keras, tensorflow as tf
    >>> from fedutils.keras_tff import build_functional_model
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> functional = build_functional_model(
    ...     model,
    ...     keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    ...     metrics=[lambda: keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    ...     input_spec=(tf.TensorSpec((None, 4)), tf.TensorSpec((None,), tf.int32)),
    ... )
    """
    if keras.backend.backend() != "tensorflow":
        raise InputError(
            f"Keras backend: expected tensorflow, found {keras.backend.backend()}; "
            "set KERAS_BACKEND=tensorflow before Keras is imported"
        )
    if not model.built:
        raise InputError(
            f"model {model.name!r}: expected a built model, found one without weights; "
            "give it a keras.Input or call it once"
        )
    _check_stateless(model, input_spec[0])
    if getattr(loss, "reduction", None) == "sum":
        raise InputError(
            "loss: expected a mean over the batch, found reduction='sum'; "
            "leave the reduction out or choose 'sum_over_batch_size'"
        )

    @tf.function
    def predict(weights, x, training):
        trainable, non_trainable = weights
        outputs, _ = model.stateless_call(list(trainable), list(non_trainable), x, training=training)
        return tf.nest.map_structure(lambda y: tf.cast(y, tf.float32), outputs)

    def compute_loss(output, label, sample_weight=None):
        return _compute_mean_loss(loss, label, output, sample_weight)

    return tff.learning.models.FunctionalModel(
        initial_weights=(
            tuple(v.numpy() for v in model.trainable_variables),
            tuple(v.numpy() for v in model.non_trainable_variables),
        ),
        predict_on_batch_fn=predict,
        loss_fn=compute_loss,
        metrics_fns=_build_metrics_fns([build() for build in metrics]),
        input_spec=input_spec,
    )


def assign_weights(model, model_weights):
    """Put weights from TFF into a Keras model, in place.

    Parameters
    ----------
    model : keras.Model
        The model that was given to `build_functional_model`, or one built alike.
    model_weights : tff.learning.models.ModelWeights
        From ``process.get_model_weights(state)``.

    Raises
    ------
    InputError
        If the number of weights or a shape differs; then the model is left as it was.
    """
    variables = [*model.trainable_variables, *model.non_trainable_variables]
    trainable, non_trainable = model_weights  # a named pair, or a plain one
    values = [np.asarray(value) for value in [*trainable, *non_trainable]]
    expected = [len(model.trainable_variables), len(model.non_trainable_variables)]
    found = [len(trainable), len(non_trainable)]
    if found != expected:
        raise InputError(
            f"weights for model {model.name!r}: expected {expected[0]} trainable and {expected[1]} "
            f"others, found {found[0]} and {found[1]}; build the same model as was trained"
        )
    for variable, value in zip(variables, values, strict=True):
        if tuple(variable.shape) != value.shape:
            raise InputError(
                f"weight {variable.path} of model {model.name!r}: expected shape "
                f"{tuple(variable.shape)}, found {value.shape}; build the same model as was trained"
            )
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _check_stateless(model, x_spec):
    """Refuse a model that changes anything but its trainable weights in a training step.

    The step is traced with placeholders for the weights. A weight that the step leaves alone comes
    back as the very placeholder; any other tensor in its place is an update.
    """
    trainable = [tf.TensorSpec(v.shape, v.dtype) for v in model.trainable_variables]
    non_trainable = [tf.TensorSpec(v.shape, v.dtype) for v in model.non_trainable_variables]
    updated, losses = [], []

    @tf.function
    def step(trainable, non_trainable, x):
        outputs, returned, added = model.stateless_call(
            list(trainable), list(non_trainable), x, training=True, return_losses=True
        )
        for variable, before, after in zip(
            model.non_trainable_variables, non_trainable, returned, strict=True
        ):
            if after is not before:
                updated.append(_name_variable(model, variable))
        losses.extend(added)
        return outputs

    step.get_concrete_function(trainable, non_trainable, x_spec)
    if updated:
        raise InputError(
            f"model {model.name!r}: expected that training changes only trainable weights, since "
            f"TFF discards the rest, found updates of {', '.join(updated)}; use GroupNormalization "
            "for BatchNormalization, fedutils.models.layers.StatelessDropout for Dropout, and "
            "augment in the input pipeline"
        )
    if losses:
        raise InputError(
            f"model {model.name!r}: expected no losses added by layers, which TFF does not see, "
            f"found {len(losses)}; drop the regularizers or use an optimizer with weight decay"
        )


def _name_variable(model, variable):
    """Name a variable by its innermost layer: the path of a seed's state names no layer."""
    owners = [
        layer
        for layer in model._flatten_layers(include_self=False)
        if any(v is variable for v in layer.variables)
    ]
    if not owners:
        return variable.path
    return f"{variable.name} of layer {owners[-1].name!r} ({type(owners[-1]).__name__})"


def _compute_mean_loss(loss, y_true, y_pred, sample_weight):
    """Return the scalar mean loss of a batch."""
    if isinstance(loss, keras.losses.Loss):
        return tf.reduce_mean(loss(y_true, y_pred, sample_weight=sample_weight))
    losses = loss(y_true, y_pred)
    if sample_weight is None:
        return tf.reduce_mean(losses)
    if losses.shape.rank == 0:
        raise InputError(
            "loss: expected a loss for each example because sample weights are given, found their "
            "mean; leave the mean out of the loss function"
        )
    # (B,) to (B, 1, ..., 1), so that an example's weight scales all of its losses
    shape = [-1] + [1] * (losses.shape.rank - 1)
    return tf.reduce_mean(losses * tf.reshape(tf.cast(sample_weight, losses.dtype), shape))


def _build_metrics_fns(metrics):
    """Return TFF's three metric functions: initialize, update, finalize.

    The state is {"loss": (sum,), "num_examples": (count,), metric name: (its variables...)}, with
    tuples because tf.data, which carries the state from step to step, would stack a list.
    """
    names = ["loss", "num_examples", *(metric.name for metric in metrics)]
    if len(set(names)) < len(names):
        raise InputError(
            f"metrics: expected different names besides 'loss' and 'num_examples', found "
            f"{', '.join(names[2:])}; give each metric a name of its own"
        )
    zeros = {metric.name: [v.numpy() for v in metric.variables] for metric in metrics}
    for name, values in zeros.items():
        if any(np.any(value) for value in values):
            raise InputError(
                f"metric {name!r}: expected a state that begins at zero, because TFF adds up the "
                "states of all clients, found another; use a Mean-like metric"
            )

    @tf.function
    def initialize():
        state = OrderedDict(loss=(tf.constant(0.0),), num_examples=(tf.constant(0, tf.int64),))
        for metric in metrics:
            state[metric.name] = tuple(tf.constant(value) for value in zeros[metric.name])
        return state

    @tf.function
    def update(state, labels, batch_output, sample_weight=None):
        count = batch_output.num_examples
        new_state = OrderedDict(
            loss=(state["loss"][0] + batch_output.loss * tf.cast(count, tf.float32),),
            num_examples=(state["num_examples"][0] + tf.cast(count, tf.int64),),
        )
        for metric in metrics:
            updated = metric.stateless_update_state(
                list(state[metric.name]),
                labels,
                batch_output.predictions,
                sample_weight=sample_weight,
            )
            new_state[metric.name] = tuple(updated)
        return new_state

    @tf.function
    def finalize(state):
        count = state["num_examples"][0]
        results = OrderedDict(loss=state["loss"][0] / tf.cast(count, tf.float32), num_examples=count)
        for metric in metrics:
            results[metric.name] = metric.stateless_result(list(state[metric.name]))
        return results

    return initialize, update, finalize
