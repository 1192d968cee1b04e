"""FedProx: FedAvg with a pull of each client towards the global model.

TFF 0.87 has the pull with the wrong sign: to the gradient it adds ``mu * (w_global - w)``, which drives
clients *away* from the global model, the further the larger mu is. So this is not TFF's.

References
----------
.. [1] T. Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020.
"""

from fedutils.local_training import OptimizerAt, build_averaging_process, pull_towards, train_locally
from fedutils.tff import tff


def build_fedprox(
    model: tff.learning.models.FunctionalModel, optimizer_at: OptimizerAt, *, strength: float, **averaging
) -> tff.learning.templates.LearningProcess:
    """Build FedProx [1]_.

    Parameters
    ----------
    model : FunctionalModel
    optimizer_at : callable
        From the round's number to the optimizer of its clients.
    strength : float
        mu: ``mu / 2`` times the squared distance from the global model is added to the loss.
    **averaging
        Of `fedutils.local_training.build_averaging_process`.
    """

    def train(round_number, weights, batches):
        pull = pull_towards(tuple(weights.trainable), strength)
        return train_locally(model, optimizer_at(round_number), weights, batches, pull)

    return build_averaging_process(model, train, **averaging)
