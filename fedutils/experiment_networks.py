"""The trained networks of an experiment, from the folders that its runs left."""

from fedutils.centralized import set_weights  # first: TensorFlow

# isort: split
import keras

from fedutils import paths
from fedutils.errors import InputError
from fedutils.experiment_interface import Task
from fedutils.runs import load_run


def has_weights(record: dict, seed: int) -> bool:
    """Return whether the networks of a run are on this machine: a result can be read without them."""
    return _locate(record, seed).is_dir()


def load_trained(task: Task, record: dict, seed: int, *, hospital: int | None = None) -> keras.Model:
    """Build the network of a run and give it the weights of its best round.

    Parameters
    ----------
    task : Task
        Of the experiment, from `fedutils.experiment_task.load_task`.
    record : dict
        Of one algorithm, from `fedutils.experiments.run_experiment`.
    seed : int
    hospital : int, optional
        From 0; of ``local``, which left a network for each.

    Raises
    ------
    InputError
        If the run's folder is not on this machine.
    """
    folder = _locate(record, seed)
    if hospital is not None:
        folder = folder / f"hospital_{hospital + 1}"
    federated, alone = folder / "model.keras", folder / "run.npz"
    network = task.build_model(seed)
    if federated.is_file():
        network.load_weights(federated)
    elif alone.is_file():
        set_weights(network, load_run(alone, 0).weights[: len(network.trainable_variables)])
    else:
        raise InputError(
            f"{folder.name}: expected the weights of a run among those of this output folder, found none; "
            f"remove {record['name']}.json from the results to train it again here"
        )
    return network


def _locate(record, seed):
    return paths.output_dir() / "runs" / record["runs"][str(seed)]["run"]
