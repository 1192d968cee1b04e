"""Optimizers by name, of clients and of the server; and Adafactor, which TFF 0.87 has but cannot run.

The server's Adam, Yogi and Adagrad are meant as FedAdam, FedYogi and FedAdagrad [1]_: there tau = 1e-3 is
added to the root of v, which begins at tau^2 or above, and beta_2 is 0.99. TFF's stay different in this:

- Adam and Yogi correct the bias of both means, which the paper does not: step t is multiplied by
  sqrt(1 - beta_2^t) / (1 - beta_1^t). For Adam here that is 1 in step 1, 0.47 in step 13, 0.80 in step 100,
  and 1 in the end; for Yogi 0.32, 0.15, 0.31 and 1.
- Adam's v begins at 0, below the paper's least.
- Adagrad divides by the root of v + epsilon: tau^2, at which v begins, is added under the root once more,
  where the paper adds tau to the root.
- Yogi has TFF's beta_2, 0.999: the study's FedYogi is this one.

TFF's Adafactor has a state that begins with an integer step that becomes a float, and holds a Python bool on
which the step branches, where TFF carries every part of a state as a tensor of one type; and the learning
rate is not where TFF's schedules look for it. `build_adafactor` keeps the mathematics and mends the state.

References
----------
.. [1] S. J. Reddi et al., "Adaptive Federated Optimization", ICLR 2021, Algorithm 2.
.. [2] N. Shazeer and M. Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", ICML 2018.
"""

from collections import OrderedDict

from fedutils.tff import tff  # before the imports below, which it prepares

# isort: split
import numpy as np

_optimizers = tff.learning.optimizers
LEARNING_RATE_KEY = _optimizers.LEARNING_RATE_KEY
_RELATIVE_STEP = "relative_step"


def build_adafactor(learning_rate, *, relative_step: bool = True) -> tff.learning.optimizers.Optimizer:
    """Build an Adafactor optimizer [2]_ for clients or the server.

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
        self._optimizer = _optimizers.build_adafactor(1.0, relative_step=relative_step)
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


_TAU = 1e-3
# From a learning rate to an optimizer.
OPTIMIZERS = {
    "sgd": _optimizers.build_sgdm,
    "sgdm": lambda rate: _optimizers.build_sgdm(rate, momentum=0.9),
    "adam": _optimizers.build_adam,
    "adamw": lambda rate: _optimizers.build_adamw(rate, weight_decay=1e-4),
    "adagrad": _optimizers.build_adagrad,
    "rmsprop": _optimizers.build_rmsprop,
    "yogi": _optimizers.build_yogi,
    "adafactor": build_adafactor,
}
SERVER_OPTIMIZERS = OPTIMIZERS | {
    "adam": lambda rate: _optimizers.build_adam(rate, beta_2=0.99, epsilon=_TAU),
    "adagrad": lambda rate: _optimizers.build_adagrad(
        rate, initial_preconditioner_value=_TAU**2, epsilon=_TAU**2
    ),
}
