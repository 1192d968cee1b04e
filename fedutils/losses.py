"""Losses of a segmentation, of logits: Dice, Dice with cross-entropy, Tversky, focal; deep supervision.

Masks are of one of two kinds. ``kind="regions"``: K overlapping regions, such as WT, TC and ET, each with a
sigmoid of its own; targets are 0 or 1, of any dtype, with the shape (B, *sides, K) of the logits.
``kind="classes"``: K classes that exclude each other, with a softmax; targets are their numbers, (B, *sides).
Class 0 is the background, which overlap losses leave out as nnU-Net does [3]_. A number outside 0 to K - 1,
such as BraTS's label 4 of four classes, makes the loss NaN rather than count as background.

Each loss is a Keras loss: (y_true, y_pred) to the mean over the batch. All compute in float32, also under
mixed precision: a sum over the voxels of a volume is beyond what 16 bits hold. Logits of any size give finite
gradients. Keras's own Dice and Tversky give an empty region the loss 1 whatever is predicted, and its focal
loss of classes clips probabilities, so that a voxel that is surely wrong has no gradient.

References
----------
.. [1] F. Milletari et al., "V-Net: Fully Convolutional Neural Networks for Volumetric Medical Image
   Segmentation", 3DV 2016.
.. [2] M. Drozdzal et al., "The Importance of Skip Connections in Biomedical Image Segmentation", DLMIA 2016.
.. [3] F. Isensee et al., "nnU-Net: a self-configuring method for deep learning-based biomedical image
   segmentation", Nature Methods 18, 2021.
.. [4] T.-Y. Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017.
.. [5] S. S. M. Salehi et al., "Tversky Loss Function for Image Segmentation Using 3D Fully Convolutional Deep
   Networks", MLMI 2017.
.. [6] N. Abraham, N. M. Khan, "A Novel Focal Tversky Loss Function with Improved Attention U-Net for Lesion
   Segmentation", ISBI 2019.
"""

import fedutils.quiet  # noqa: F401  (first: it quietens the import of TensorFlow)

# isort: split
import keras
from keras import ops

from fedutils.errors import InputError

KINDS = ("regions", "classes")


class _SegmentationLoss(keras.losses.Loss):
    """What the losses share: arguments, checked and kept as attributes, and targets of one shape."""

    def __init__(self, arguments, *, name=None, reduction="sum_over_batch_size", dtype="float32"):
        super().__init__(name=name or f"{type(self).__name__.lower()}_loss", reduction=reduction, dtype=dtype)
        for key, value in arguments.items():
            if key == "kind" and value not in KINDS:
                raise InputError(f"kind: expected {' or '.join(KINDS)}, found {value!r}; choose one")
            if key != "kind" and not value >= 0:
                raise InputError(f"{key}: expected a number of at least 0, found {value!r}; raise it")
            setattr(self, key, value)
        self._arguments = arguments

    def get_config(self):
        """Return the configuration that rebuilds the loss."""
        return {**super().get_config(), "dtype": self.dtype, **self._arguments}

    def _encode(self, y_true, logits):
        """Return targets of the shape of the logits (B, *sides, K); check the shapes where they are known."""
        expected = tuple(logits.shape if self.kind == "regions" else logits.shape[:-1])
        found = tuple(y_true.shape)
        fits = len(found) == len(expected) >= 2 and all(
            a == b or None in (a, b) for a, b in zip(found, expected, strict=True)
        )
        if not fits:
            raise InputError(
                f"targets: expected shape {expected} for {self.kind} of logits {tuple(logits.shape)}, found "
                f"{found}; see the two kinds of masks in fedutils.losses"
            )
        if self.kind == "regions":
            return y_true
        if logits.shape[-1] < 2:
            raise InputError('logits: expected at least 2 classes, found 1; set kind="regions" for one mask')
        labels = ops.arange(logits.shape[-1], dtype=self.dtype)
        one_hot = ops.cast(ops.expand_dims(y_true, -1) == labels, self.dtype)
        known = ops.sum(one_hot, axis=-1, keepdims=True)
        return one_hot * (known / known)  # NaN where no class has that number


class _OverlapLoss(_SegmentationLoss):
    """A loss of sums over voxels; subclasses give ``_compare(targets, probabilities, axes)`` (..., K)."""

    def call(self, y_true, y_pred):
        """Return losses (B,); with `over_batch` all are the batch's."""
        targets = self._encode(y_true, y_pred)
        if self.kind == "regions":
            probabilities = ops.sigmoid(y_pred)
        else:
            probabilities, targets = ops.softmax(y_pred)[..., 1:], targets[..., 1:]
        sides = tuple(range(1, len(y_pred.shape) - 1))
        losses = self._compare(targets, probabilities, (0, *sides) if self.over_batch else sides)
        losses = ops.mean(losses, axis=-1)
        return ops.broadcast_to(losses, ops.shape(y_pred)[:1]) if self.over_batch else losses


@keras.saving.register_keras_serializable(package="fedutils")
class Dice(_OverlapLoss):
    """Soft Dice loss, ``(FP + FN) / (2 (TP + smooth) + FP + FN)``, mean over regions.

    That is 1 less the Dice coefficient of probabilities p and targets g [2]_, written so that a small loss
    keeps its digits: TP = sum(p g), FP = sum(p (1 - g)), FN = sum((1 - p) g).

    Parameters
    ----------
    kind : {"regions", "classes"}
        See the head of the module.
    smooth : float, voxels
        Agreement that each region is given for free (0.5 is the ``smooth=1`` of others). It defines the loss
        of an empty region: 0 if nothing is predicted, else FP / (FP + 2 smooth), whose gradient takes the
        prediction away. With the 1e-5 of some code that gradient all but vanishes; with 0 it is gone, and
        nothing predicted of nothing is NaN.
    over_batch : bool
        Whether sums run over the batch, so that a slice without tumour is no score of its own: of 2-D slices
        most are. nnU-Net chooses so for slices, and mostly not for volumes. The loss of an example then
        depends on its batch, and its sample weight scales the loss of the batch.
    squared : bool
        Whether to divide by sums of squares as V-Net does [1]_:
        ``sum((p - g) ** 2) / (sum(p ** 2) + sum(g ** 2) + 2 smooth)``.
    name, reduction, dtype
        As of any Keras loss.

    Raises
    ------
    InputError
        If a number is negative or `kind` unknown; in a call, if the shapes do not fit.
    """

    def __init__(self, kind="regions", *, smooth=1.0, over_batch=True, squared=False, **kwargs):
        arguments = {"kind": kind, "smooth": smooth, "over_batch": over_batch, "squared": squared}
        super().__init__(arguments, **kwargs)

    def _compare(self, g, p, axes):
        if self.squared:
            wrong = ops.sum(ops.square(p - g), axis=axes)
            return wrong / (ops.sum(ops.square(p) + ops.square(g), axis=axes) + 2 * self.smooth)
        wrong = ops.sum(p * (1 - g) + (1 - p) * g, axis=axes)
        return wrong / (ops.sum(p + g, axis=axes) + 2 * self.smooth)


@keras.saving.register_keras_serializable(package="fedutils")
class Tversky(_OverlapLoss):
    """Tversky loss [5]_, ``((alpha FP + beta FN) / (TP + smooth + alpha FP + beta FN)) ** exponent``.

    Arguments that are not described here, and errors, are those of `Dice`. An empty region gives
    alpha FP / (alpha FP + smooth) to the exponent.

    Parameters
    ----------
    alpha, beta : float
        Weights of false positives and false negatives; 0.5 and 0.5 make it the Dice loss. The defaults, of
        [5]_, find more of a small lesion. In [6]_, and in Keras's code, the two are exchanged.
    exponent : float
        Of the loss of each region. Below 1 it is the focal Tversky loss [6]_, which steepens a small loss;
        theirs is 0.75 (1 / gamma, gamma = 4 / 3).
    """

    def __init__(
        self, kind="regions", *, alpha=0.3, beta=0.7, exponent=1.0, smooth=1.0, over_batch=True, **kwargs
    ):
        arguments = {"kind": kind, "alpha": alpha, "beta": beta, "exponent": exponent, "smooth": smooth}
        super().__init__({**arguments, "over_batch": over_batch}, **kwargs)

    def _compare(self, g, p, axes):
        wrong = ops.sum(self.alpha * p * (1 - g) + self.beta * (1 - p) * g, axis=axes)
        losses = wrong / (ops.sum(p * g, axis=axes) + self.smooth + wrong)
        if self.exponent == 1:
            return losses
        # Below 1e-7 a line to 0: there the slope of a power below 1 is infinite, and times 0 it would be NaN.
        return losses * ops.power(ops.maximum(losses, 1e-7), self.exponent - 1)


@keras.saving.register_keras_serializable(package="fedutils")
class DiceCrossEntropy(_SegmentationLoss):
    """Dice loss plus cross-entropy (nats, mean over voxels and regions), the loss of nnU-Net [3]_.

    The cross-entropy has a gradient at every voxel that is wrong; that of Dice fades where the network is
    sure. The two are weighted 1 and 1 in nnU-Net. Other arguments, and errors, are those of `Dice`.
    """

    def __init__(
        self,
        kind="regions",
        *,
        dice_weight=1.0,
        cross_entropy_weight=1.0,
        smooth=1.0,
        over_batch=True,
        squared=False,
        **kwargs,
    ):
        dice = {"smooth": smooth, "over_batch": over_batch, "squared": squared}
        weights = {"dice_weight": dice_weight, "cross_entropy_weight": cross_entropy_weight}
        super().__init__({"kind": kind, **weights, **dice}, **kwargs)
        self._dice = Dice(kind, **dice, dtype=self.dtype)

    def call(self, y_true, y_pred):
        """Return losses (B,)."""
        targets = self._encode(y_true, y_pred)
        if self.kind == "regions":
            entropy = ops.binary_crossentropy(targets, y_pred, from_logits=True)
        else:
            entropy = ops.categorical_crossentropy(targets, y_pred, from_logits=True)
        entropy = ops.mean(entropy, axis=tuple(range(1, len(entropy.shape))))
        return self.dice_weight * self._dice.call(y_true, y_pred) + self.cross_entropy_weight * entropy


@keras.saving.register_keras_serializable(package="fedutils")
class Focal(_SegmentationLoss):
    """Focal loss [4]_, ``-alpha_t (1 - p_t) ** gamma log(p_t)``, mean over voxels and regions.

    Here p_t is the probability of what is true. The paper divides by the number of objects, not of voxels.
    Arguments that are not described here, and errors, are those of `Dice`.

    Parameters
    ----------
    alpha : float
        Weight of the tumour, in [0, 1]; that of the background is 1 - alpha. 0.5 and ``gamma=0`` give half
        the cross-entropy. With classes, all but class 0 weigh alpha.
    gamma : float
        The higher, the less a voxel weighs that is right already.
    """

    def __init__(self, kind="regions", *, alpha=0.25, gamma=2.0, **kwargs):
        super().__init__({"kind": kind, "alpha": alpha, "gamma": gamma}, **kwargs)
        if alpha > 1:
            raise InputError(f"alpha: expected a number in [0, 1], found {alpha!r}; lower it")

    def call(self, y_true, y_pred):
        """Return losses (B,)."""
        targets = self._encode(y_true, y_pred)
        # Powers of probabilities as exp(gamma log p): finite slopes also where p is 0.
        if self.kind == "regions":
            surprise, rest = ops.softplus(-y_pred), ops.softplus(y_pred)  # -log(p), -log(1 - p)
            losses = self.alpha * targets * ops.exp(-self.gamma * rest) * surprise
            losses += (1 - self.alpha) * (1 - targets) * ops.exp(-self.gamma * surprise) * rest
        else:
            logs = ops.log_softmax(y_pred)
            log_rest = ops.logsumexp(ops.where(targets > 0, -1e9, logs), axis=-1)  # log(1 - p_t)
            weights = self.alpha + (1 - 2 * self.alpha) * targets[..., 0]
            losses = -weights * ops.exp(self.gamma * log_rest) * ops.sum(targets * logs, axis=-1)
        return ops.mean(losses, axis=tuple(range(1, len(losses.shape))))


def compute_output_weights(num_outputs: int) -> list[float]:
    """Return the weights of a deeply supervised model's losses, halved from output to coarser output [3]_.

    They add up to 1: of three outputs 4/7, 2/7 and 1/7. For Keras's ``compile(loss=[loss] * num_outputs,
    loss_weights=compute_output_weights(num_outputs))``, with the targets as often.
    """
    total = 2**num_outputs - 1
    return [2 ** (num_outputs - 1 - i) / total for i in range(num_outputs)]


@keras.saving.register_keras_serializable(package="fedutils")
class DeeplySupervised(keras.losses.Loss):
    """The weighted sum of one loss over all outputs of a model, which share one target; TFF takes it.

    Parameters
    ----------
    loss : keras.losses.Loss
        Of one output.
    weights : sequence of float, optional
        One for each output, the finest first; by default those of `compute_output_weights`.
    name, reduction, dtype
        As of any Keras loss; the reduction of `loss` is not used.

    Raises
    ------
    InputError
        In a call, if the number of outputs is not that of the weights.
    """

    def __init__(self, loss, weights=None, *, name="deeply_supervised_loss", dtype="float32", **kwargs):
        super().__init__(name=name, dtype=dtype, **kwargs)
        self.loss, self.weights = loss, weights

    def call(self, y_true, y_pred):
        """Return losses as `loss` does, of logits (B, *sides, K) or a list of such."""
        outputs = list(y_pred) if isinstance(y_pred, (list, tuple)) else [y_pred]
        weights = compute_output_weights(len(outputs)) if self.weights is None else self.weights
        if len(weights) != len(outputs):
            raise InputError(
                f"weights: expected {len(outputs)}, one for each output of the model, found {len(weights)}; "
                "leave them out or give as many"
            )
        return sum(w * self.loss.call(y_true, logits) for w, logits in zip(weights, outputs, strict=True))

    def get_config(self):
        """Return the configuration that rebuilds the loss."""
        loss = keras.saving.serialize_keras_object(self.loss)
        return {**super().get_config(), "dtype": self.dtype, "loss": loss, "weights": self.weights}

    @classmethod
    def from_config(cls, config):
        """Rebuild the loss."""
        return cls(**{**config, "loss": keras.saving.deserialize_keras_object(config["loss"])})
