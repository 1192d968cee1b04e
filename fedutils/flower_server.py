"""The server's part of a Flower run: a strategy of Flower's own, driven round by round, and kept.

`Strategy.start` of Flower counts its rounds from 1, so a run that was stopped cannot go on by it: FedAdam's
bias correction needs the round's number, and all but FedAvg and FedProx need their moments. So `run_rounds`
calls the strategy's four steps itself. Replies are averaged in the order of the hospitals' numbers, not in
that of their arrival: a run that was stopped ends with the same weights, bit for bit.

References
----------
.. [1] H. B. McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data",
   AISTATS 2017 (FedAvg).
.. [2] T. Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020 (FedProx).
.. [3] S. J. Reddi et al., "Adaptive Federated Optimization", ICLR 2021 (FedAdam, FedYogi, FedAdagrad).
.. [4] T.-M. H. Hsu et al., "Measuring the Effects of Non-Identical Data Distribution for Federated Visual
   Classification", arXiv:1909.06335, 2019 (FedAvgM).
"""

import fedutils.quiet  # noqa: F401  (first: it quietens the import of TensorFlow)

# isort: split
import dataclasses
import hashlib
import time
from collections.abc import Callable
from logging import INFO
from pathlib import Path

import numpy as np
from flwr.common.logger import log
from flwr.serverapp import Grid, strategy

from fedutils.centralized import evaluate, get_weights, set_weights
from fedutils.data import brain_mri
from fedutils.errors import InputError
from fedutils.flower_messages import make_config, pack_weights, sort_replies, unpack_weights
from fedutils.flower_settings import AppSettings
from fedutils.model_file import load_model, save_model
from fedutils.results import to_json, write_atomic
from fedutils.runs import Run, load_checkpoint, save_run

CHECKPOINT = "checkpoint.npz"
_MOMENTS = (
    "momentum_vector",
    "m_t",
    "v_t",
)  # what Flower's strategies keep between rounds, each like the model


def build_strategy(settings: AppSettings) -> strategy.FedAvg:
    """Return Flower's strategy of the settings; every connected hospital takes part in every round."""
    everyone = {
        "fraction_train": 1.0,
        "fraction_evaluate": 0.0,  # the server's own images choose the best round
        "min_train_nodes": settings.hospitals,
        "min_available_nodes": settings.hospitals,
    }
    rate = settings.server_learning_rate
    match settings.algorithm:
        case "fedavg":
            return strategy.FedAvg(**everyone)
        case "fedprox":
            return strategy.FedProx(proximal_mu=settings.proximal_mu, **everyone)
        case "fedavgm":
            return strategy.FedAvgM(
                server_learning_rate=rate or 1.0, server_momentum=settings.server_momentum, **everyone
            )
    adaptive = {
        "fedadam": strategy.FedAdam,
        "fedyogi": strategy.FedYogi,
        "fedadagrad": strategy.FedAdagrad,
    }
    return adaptive[settings.algorithm](**({"eta": rate} if rate else {}), **everyone)


def run_federation(grid: Grid, settings: AppSettings) -> Run:
    """Train the settings' model over the hospitals that are connected, and leave it in ``out``.

    The folder gets ``checkpoint.npz`` and ``history.json`` after every round, and in the end ``model.keras``
    with the weights of the round that was best on the validation images.

    Raises
    ------
    InputError
        If the model or the validation images cannot be read, the folder holds a run with other settings, or a
        round had too few answers.
    """
    model, info = load_model(Path(settings.model))
    file = Path(settings.model).read_bytes()
    images = load_validation(Path(settings.validation), info.size[0])
    folder = Path(settings.out)

    def measure(weights):
        set_weights(model, weights)
        return evaluate(model, images)

    run = run_rounds(grid, settings, file, get_weights(model), measure, folder)
    set_weights(model, run.weights)
    best = run.history[run.best]
    info = dataclasses.replace(
        info,
        metrics={"validation accuracy": best["validation_accuracy"]},
        trained_on={
            "by": f"Flower, {settings.algorithm}, {len(run.history)} rounds, of which the best on validation "
            f"images is round {best['round']}",
            "hospitals": best["hospitals"],
            "images": sum(best["client_num_examples"]),
            "seed": settings.seed,
        },
        temperature=1.0,  # a temperature was fitted to other weights
    )
    save_model(folder / "model.keras", model, info)
    return run


def load_validation(root: Path, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images, float32 (M, size, size, 1), and classes, int32 (M,), of a folder with one a class."""
    split = "Training"
    if root.name in brain_mri.SPLITS:
        root, split = root.parent, root.name
    images = brain_mri.load_images(root, split, size=size, progress=False)
    return images.x, images.y


def run_rounds(
    grid: Grid,
    settings: AppSettings,
    file: bytes,
    weights: list[np.ndarray],
    measure: Callable[[list[np.ndarray]], dict[str, float]],
    folder: Path,
) -> Run:
    """Run the rounds that are not done yet.

    Parameters
    ----------
    grid : flwr.serverapp.Grid
    settings : AppSettings
    file : bytes
        The ``.keras`` file that hospitals build the model from.
    weights : list of ndarray
        Trainable ones, before round 1.
    measure : callable
        From weights to ``accuracy`` and other numbers, on validation images.
    folder : Path
        Gets a checkpoint after every round; one that is there is gone on with.

    Returns
    -------
    Run
        With one record a round: ``round``; ``hospitals`` and ``clients``, who took part, and
        ``client_num_examples``; ``training_*``, means over their images; ``validation_*``; ``seconds``.
    """
    identity = settings.identify() | {"model": hashlib.sha256(file).hexdigest()}
    plan = build_strategy(settings)
    run, weights = _resume(folder, settings.num_rounds, identity, plan, weights)
    for number in range(len(run.history) + 1, settings.num_rounds + 1):
        start = time.perf_counter()
        config = make_config(settings, file, number)
        messages = plan.configure_train(number, pack_weights(weights), config, grid)
        replies = list(grid.send_and_receive(messages, timeout=settings.round_timeout))
        good, places = sort_replies(replies, number, settings.hospitals)
        arrays, metrics = plan.aggregate_train(number, good)
        weights = unpack_weights(arrays)
        entry = {
            "round": number,
            **places,
            **{f"training_{name}": value for name, value in metrics.items()},
            **{f"validation_{name}": value for name, value in measure(weights).items()},
            "seconds": time.perf_counter() - start,
        }
        run.record(entry, weights)
        state = [*weights, *_take_moments(plan)]
        save_run(folder / CHECKPOINT, run, settings=identity, state=state)
        write_atomic(folder / "history.json", to_json({"best": run.best + 1, "rounds": run.history}).encode())
        log(INFO, "round %d: validation accuracy %.3f", number, entry["validation_accuracy"])
    return run


def _take_moments(plan):
    """Return what a strategy keeps between rounds, as one list of arrays."""
    kept = [getattr(plan, name, None) or [] for name in _MOMENTS]
    return [array for part in kept for array in (part.values() if isinstance(part, dict) else part)]


def _put_moments(plan, arrays, num_weights):
    """Give a strategy what `_take_moments` took from one alike."""
    names = [name for name in _MOMENTS if hasattr(plan, name)]
    for name, start in zip(names, range(0, len(arrays), num_weights), strict=False):
        part = arrays[start : start + num_weights]
        as_named = {f"{i:04d}": array for i, array in enumerate(part)}
        setattr(plan, name, part if name == "momentum_vector" else as_named)


def _resume(folder, num_rounds, identity, plan, weights):
    """Return the run so far and the weights after it; the strategy is as it was then."""
    path = folder / CHECKPOINT
    if not path.exists():
        return Run(num_rounds, weights=weights), weights
    loaded = load_checkpoint(path, num_rounds, identity)
    if loaded is None:
        raise InputError(
            f"{path}: expected a run with these settings and this model, found another; go on with the "
            "settings that it began with, or name another folder in out"
        )
    run, state = loaded
    _put_moments(plan, state[len(weights) :], len(weights))
    log(INFO, "going on after round %d", len(run.history))
    return run, state[: len(weights)]
