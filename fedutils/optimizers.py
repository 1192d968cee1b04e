"""Adafactor for federated learning: TFF 0.87 has it, but neither a client nor the server can run it.

Its state begins with an integer step that becomes a float, and holds a Python bool on which the step
branches; TFF carries every part of a state as a tensor of one type. `build_adafactor` keeps the mathematics
and mends the state.

References
----------
.. [1] N. Shazeer and M. Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", ICML 2018.
"""

from fedutils.tff import tff  # before the imports below, which it prepares

# isort: split
import numpy as np

_RELATIVE_STEP = "relative_step"


def build_adafactor(learning_rate: float, *, relative_step: bool = True) -> tff.learning.optimizers.Optimizer:
    """Build an Adafactor optimizer for clients or the server.

    Parameters
    ----------
    learning_rate : float
        A fraction of the root mean square of each weight array.
    relative_step : bool
        Let the learning rate be at most one over the root of the number of steps.
    """
    return _Adafactor(
        tff.learning.optimizers.build_adafactor(learning_rate, relative_step=relative_step), relative_step
    )


class _Adafactor(tff.learning.optimizers.Optimizer):
    """TFF's Adafactor over a state of tensors whose types stay."""

    def __init__(self, optimizer, relative_step):
        self._optimizer = optimizer
        self._relative_step = relative_step

    def initialize(self, specs):
        state = self._without_switch(self._optimizer.initialize(specs))
        return {**state, "steps": np.float32(0)}

    def next(self, state, weights, gradients):
        hparams = {**state["hparams"], _RELATIVE_STEP: self._relative_step}
        state, weights = self._optimizer.next({**state, "hparams": hparams}, weights, gradients)
        return self._without_switch(state), weights

    def get_hparams(self, state):
        return state["hparams"]

    def set_hparams(self, state, hparams):
        updated = tff.structure.update_struct(state["hparams"], **hparams)
        return tff.structure.update_struct(state, hparams=updated)

    def _without_switch(self, state):
        return {**state, "hparams": {k: v for k, v in state["hparams"].items() if k != _RELATIVE_STEP}}
