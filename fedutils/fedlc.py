"""FedLC: FedAvg whose clients take their own mixture of classes out of the logits.

A client with few images of a class learns first of all that the class is rare, which is true of nobody but
itself. FedLC trains each client on logits that are shifted by what its mixture alone would say, so that the
network need not learn it [1]_. Here the shift is the logarithm of the class's share [2]_: where clients
differ in their mixtures and not in how a class looks, what is left to learn is the same for all of them.

References
----------
.. [1] J. Zhang et al., "Federated Learning with Label Distribution Skew via Logits Calibration", ICML 2022.
   There the shift is a power of the class's count.
.. [2] A. K. Menon et al., "Long-tail learning via logit adjustment", ICLR 2021.
"""

from fedutils.errors import InputError
from fedutils.local_training import OptimizerAt, build_averaging_process, split_batch, train_locally
from fedutils.tff import tff  # before the imports below, which it prepares

# isort: split
import keras
import numpy as np
import tensorflow as tf

STRENGTH = 1.0  # of the shift, where none is given


def build_fedlc(
    model: tff.learning.models.FunctionalModel, optimizer_at: OptimizerAt, *, strength: float, **averaging
) -> tff.learning.templates.LearningProcess:
    """Build FedLC [1]_, with the shift of [2]_.

    Parameters
    ----------
    model : FunctionalModel
        A classifier that gives logits, float32 (B, C), for labels int (B,).
    optimizer_at : callable
        From the round's number to the optimizer of its clients.
    strength : float
        tau: to the logits of a batch `compute_shift` times tau is added before the loss. 0 is FedAvg; at 1
        the global model answers as if all classes were equally frequent.
    **averaging
        Of `fedutils.local_training.build_averaging_process`. Of the metrics of training, the loss is that of
        shifted logits; others see those of the model.

    Raises
    ------
    InputError
        If the model's output is not (B, C), or labels are not whole numbers.
    """
    num_classes = _find_num_classes(model)

    def train(round_number, weights, batches):
        shift = strength * compute_shift(count_classes(batches, num_classes))
        return train_locally(
            model, optimizer_at(round_number), weights, batches, to_loss=lambda logits: logits + shift
        )

    return build_averaging_process(model, train, **averaging)


def count_classes(batches: tf.data.Dataset, num_classes: int) -> tf.Tensor:
    """Return how often each class occurs in a client's batches of a round, float32 (num_classes,).

    With several local epochs an image is counted in each.

    Parameters
    ----------
    batches : tf.data.Dataset
        Of (x, y), or of mappings with "x" and "y"; y is int (B,). They are gone through once.
    num_classes : int
    """

    def add(counts, batch):
        return counts + tf.reduce_sum(tf.one_hot(split_batch(batch)[1], num_classes), axis=0)

    return batches.reduce(tf.zeros((num_classes,)), add)


def compute_shift(counts: tf.Tensor) -> tf.Tensor:
    """Return the logarithm of the share of each class, float32 (C,); one more image of each is counted.

    So a class that a client does not have is pushed down a little less the fewer images the client has, and
    not to minus infinity.

    Examples
    --------
    >>> from fedutils.fedlc import compute_shift
    >>> import numpy as np
    >>> [round(float(share), 3) for share in np.exp(compute_shift(np.float32([0, 2, 5])))]
    [0.1, 0.3, 0.6]
    """
    smoothed = counts + 1.0
    return tf.math.log(smoothed / tf.reduce_sum(smoothed))


def put_mixture(model: keras.Model, counts: np.ndarray, strength: float) -> None:
    """Add a client's shift to the last bias of a model that FedLC made: its mixture is in the logits again.

    Where mixtures are all that tells clients apart, this is by Bayes' rule the best model for its client, and
    nothing is trained for it.

    Parameters
    ----------
    model : keras.Model
        Changed in place.
    counts : int (C,)
        The client's images of each class, as often as they were in its batches of a round: once in each
        local epoch. Since one more of each class is counted, other counts are another shift.
    strength : float
        tau, that of the training.

    Raises
    ------
    InputError
        If the last trainable weight is no bias of C classes.
    """
    bias = model.trainable_variables[-1]
    if tuple(bias.shape) != np.shape(counts):
        raise InputError(
            f"model {model.name}: expected a last layer with a bias of {len(counts)} classes, found the "
            f"shape {tuple(bias.shape)}; choose another network"
        )
    bias.assign_add(strength * compute_shift(tf.cast(counts, tf.float32)))


def _find_num_classes(model) -> int:
    label_type = tf.as_dtype(tf.nest.flatten(model.input_spec[1])[0].dtype)
    if not label_type.is_integer:
        raise InputError(
            f"fedlc: expected labels that are whole numbers, found {label_type.name}; take fedavg"
        )
    batch = tf.nest.map_structure(
        lambda spec: tf.zeros([side or 1 for side in spec.shape], spec.dtype), model.input_spec[0]
    )
    output = model.predict_on_batch(model.initial_weights, batch, training=False)
    found = "several outputs" if tf.nest.is_nested(output) else f"the shape {tuple(output.shape)}"
    if tf.nest.is_nested(output) or output.shape.rank != 2:
        raise InputError(
            f"fedlc: expected a classifier with logits of shape (batch, classes), found {found}; take fedavg"
        )
    return output.shape[-1]
