"""Weights that stay at home: taken out of a model's before they are sent, and put back.

Positions are those among the model's trainable weights.
"""

from collections.abc import Sequence

from fedutils.tff import tff


def join_weights(shared: tuple, own: tuple, at_home: Sequence[int]) -> tuple:
    """Return all trainable weights, in their order, from those that are shared and those at home."""
    count = len(shared) + len(own)
    shared, own = iter(shared), iter(own)
    return tuple(next(own if i in at_home else shared) for i in range(count))


def build_exchange(weights_type: tff.Type, at_home: Sequence[int]) -> tuple[tff.Computation, tff.Computation]:
    """Build the computations that take the shared weights out of a model's, and put them back."""
    ModelWeights = tff.learning.models.ModelWeights

    @tff.tensorflow.computation(weights_type)
    def take(weights):
        shared = tuple(w for i, w in enumerate(weights.trainable) if i not in at_home)
        return ModelWeights(shared, weights.non_trainable)

    @tff.tensorflow.computation(weights_type, take.type_signature.result)
    def put(weights, shared):
        own = tuple(weights.trainable[i] for i in sorted(at_home))
        return ModelWeights(join_weights(shared.trainable, own, at_home), weights.non_trainable)

    return take, put
