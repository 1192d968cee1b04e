"""Adafactor for federated learning: TFF 0.87 has it, but neither a client nor the server can run it.

Its state begins with an integer step that becomes a float, and holds a Python bool on which the step
branches, where TFF carries every part of a state as a tensor of one type; and the learning rate is not where
TFF's schedules look for it. `build_adafactor` keeps the mathematics and mends the state.

References
----------
.. [1] N. Shazeer and M. Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", ICML 2018.
"""

from collections import OrderedDict

from fedutils.tff import tff  # before the imports below, which it prepares

# isort: split
import numpy as np

LEARNING_RATE_KEY = tff.learning.optimizers.LEARNING_RATE_KEY
_RELATIVE_STEP = "relative_step"


def build_adafactor(learning_rate, *, relative_step: bool = True) -> tff.learning.optimizers.Optimizer:
    """Build an Adafactor optimizer for clients or the server.

    Parameters
    ----------
    learning_rate : float or scalar tensor
        A fraction of the root mean square of each weight array.
    relative_step : bool
        Let the learning rate be at most one over the root of the number of steps.
    """
    return _Adafactor(learning_rate, relative_step)


class _Adafactor(tff.learning.optimizers.Optimizer):
    """TFF's Adafactor over a flat state of tensors whose types stay."""

    def __init__(self, learning_rate, relative_step):
        # TFF compares the rate with 0, which a schedule's tensor does not allow: it goes into the state.
        self._optimizer = tff.learning.optimizers.build_adafactor(1.0, relative_step=relative_step)
        self._learning_rate = learning_rate
        hparams = self._optimizer.initialize(())["hparams"]
        self._switch = {_RELATIVE_STEP: relative_step}
        self._hparams_keys = tuple(key for key in hparams if key != _RELATIVE_STEP)

    def initialize(self, specs):
        state = self._optimizer.initialize(specs)
        hparams = self.get_hparams({**state["hparams"], LEARNING_RATE_KEY: self._learning_rate})
        return OrderedDict(**hparams, steps=np.float32(0), moments=state["moments"])

    def next(self, state, weights, gradients):
        hparams = self.get_hparams(state)
        inner = {"steps": state["steps"], "moments": state["moments"], "hparams": {**hparams, **self._switch}}
        inner, weights = self._optimizer.next(inner, weights, gradients)
        return OrderedDict(**hparams, steps=inner["steps"], moments=inner["moments"]), weights

    def get_hparams(self, state):
        return OrderedDict((key, state[key]) for key in self._hparams_keys)

    def set_hparams(self, state, hparams):
        return tff.structure.update_struct(state, **hparams)
