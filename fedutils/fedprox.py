"""FedProx: FedAvg with a pull of each client towards the global model.

TFF 0.87 has the pull with the wrong sign: to the gradient it adds ``mu * (w_global - w)``, which drives
clients *away* from the global model, the further the larger mu is. So this is not TFF's.

References
----------
.. [1] T. Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020.
"""

from fedutils.local_training import OptimizerAt, build_learning_process, pull_towards, train_locally
from fedutils.tff import tff  # before the import below, which it prepares

# isort: split
import numpy as np


def build_fedprox(
    model: tff.learning.models.FunctionalModel,
    optimizer_at: OptimizerAt,
    *,
    strength: float,
    server_optimizer: tff.learning.optimizers.Optimizer,
    weighted: bool,
    model_aggregator: tff.aggregators.WeightedAggregationFactory,
    metrics_aggregator,
) -> tff.learning.templates.LearningProcess:
    """Build FedProx [1]_.

    Parameters
    ----------
    model : FunctionalModel
    optimizer_at : callable
        From the round's number to the optimizer of its clients.
    strength : float
        mu: ``mu / 2`` times the squared distance from the global model is added to the loss.
    server_optimizer : tff.learning.optimizers.Optimizer
    weighted : bool
        Weight clients by their number of examples.
    model_aggregator : WeightedAggregationFactory
    metrics_aggregator : callable
        As of TFF's builders.
    """

    def client_update(round_number, weights, batches):
        pull = pull_towards(tuple(weights.trainable), strength)
        trained = train_locally(model, optimizer_at(round_number), weights, batches, pull)
        return trained.delta, trained.count(weighted), trained.metrics

    return build_learning_process(
        model,
        client_update,
        lambda sent: model_aggregator.create(sent, tff.TensorType(np.float32)),
        server_optimizer=server_optimizer,
        metrics_aggregator=metrics_aggregator,
    )
