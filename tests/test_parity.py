"""Four ways to train, one result: TFF in process, TFF's worker, the console over TLS, and Flower.

Same initial weights, images, order of batches and steps: the global weights after three rounds agree.
"""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("flwr", reason="Flower is not installed: run make setup")

from flower_helpers import NAMES, make_settings, make_task
from hospital_helpers import make_all_certificates, running

from fedutils import runtime
from fedutils.algorithms import build_process
from fedutils.centralized import get_weights
from fedutils.federated import ArrayClients
from fedutils.flower_local import run_locally
from fedutils.hospital.actions import Hospital
from fedutils.hospital.settings import load_settings
from fedutils.hospital.training import load_cases
from fedutils.model_file import load_model
from fedutils.runs import load_checkpoint
from fedutils.stateful import advance, begin_rounds, get_global_weights
from fedutils.tff import tff

NUM_ROUNDS = 3
NEAR = 1e-5


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """Give a folder with a model and validation images, and three hospitals of unequal numbers of cases."""
    return make_task(tmp_path_factory.mktemp("parity"))


@pytest.fixture(scope="module")
def expected(task):
    """Give the weights after three rounds of FedAvg, by TFF in process."""
    runtime.use("in_process")
    weights = train_by_tff(task)
    begun = get_weights(load_model(task[0] / "small.keras")[0])
    assert find_largest_difference(weights, begun) > 100 * NEAR, "training changes nothing"
    return weights


@pytest.fixture(autouse=True)
def in_process_afterwards():
    yield
    runtime.use("in_process")


def train_by_tff(task, **options):
    """Return the global weights after the rounds, by the runtime in use."""
    root, places = task
    model, info = load_model(root / "small.keras")
    settings = make_settings(root)
    arrays = [load_cases(info, place.data) for place in places]
    assert [len(y) for _, y in arrays] == [14, 18, 22]
    clients = ArrayClients(arrays, batch_size=settings.batch_size, augment=False, seed=settings.seed)
    process = build_process(
        model, client_optimizer="sgd", client_learning_rate=settings.client_learning_rate, **options
    )
    weights = tff.learning.models.ModelWeights(tuple(get_weights(model)), ())
    state = begin_rounds(process, weights, clients.num_clients)
    for r in range(NUM_ROUNDS):
        state, _ = advance(process, state, [0, 1, 2], [clients.batches(k, r) for k in range(3)])
    return [np.asarray(w) for w in get_global_weights(process, state).trainable]


def train_by_flower(task, folder, **changes):
    """Return the global weights after the rounds, of Flower's apps and messages in this process."""
    root, places = task
    settings = make_settings(root, out=str(folder), num_rounds=NUM_ROUNDS, **changes)
    run = run_locally(settings, places[::-1])  # whoever connects first
    assert len(run.history) == NUM_ROUNDS and run.history[-1]["hospitals"] == list(NAMES)
    return read_weights(folder, settings)


def read_weights(folder, settings):
    """Return the weights after the last round, the best or not."""
    model_hash = hashlib.sha256(Path(settings.model).read_bytes()).hexdigest()
    run, state = load_checkpoint(
        folder / "checkpoint.npz", NUM_ROUNDS, settings.identify() | {"model": model_hash}
    )
    return state[: len(run.weights)]


def train_by_console(task, folder):
    """Return the global weights after the rounds, of a server in its own process and hospitals over TLS."""
    root, places = task
    certificates = make_all_certificates(folder / "certificates", NAMES)
    options = ["--model", str(root / "small.keras"), "--aggregate-when", str(len(places))]
    with running(folder, certificates, *options) as server:
        hospitals = [join(server, place, folder) for place in places]
        for _ in range(NUM_ROUNDS):
            for hospital in hospitals:
                for action in ("get", "train", "send"):
                    hospital.do(action)
        for hospital in hospitals:
            hospital.close()
        with server.console("operator") as console:
            received = console.get_model()
    assert received.version == NUM_ROUNDS
    return received.arrays


def join(server, place, folder):
    settings = make_settings(folder)
    entries = {
        "server": f"localhost:{server.port}",
        "certificates": str(server.certificates / place.name),
        "data": str(place.data),
        "work": f"work_{place.name}",
        "epochs": settings.local_epochs,
        "batch_size": settings.batch_size,
        "learning_rate": settings.client_learning_rate,
        "seed": settings.seed,
        "client": place.client,
    }
    path = folder / f"{place.name}.yaml"
    path.write_text(yaml.safe_dump(entries))
    return Hospital(load_settings(path), place.name)


def find_largest_difference(some, others):
    return max(float(np.abs(a - b).max()) for a, b in zip(some, others, strict=True))


def test_tff_in_process_its_worker_the_console_and_flower_end_with_the_same_weights(task, expected, tmp_path):
    runtime.use("worker")
    found = {"worker": train_by_tff(task)}
    runtime.use("in_process")
    found["console"] = train_by_console(task, tmp_path)
    found["Flower"] = train_by_flower(task, tmp_path / "flower")
    for name, weights in found.items():
        assert find_largest_difference(weights, expected) < NEAR, name


@pytest.mark.parametrize(
    ("flower", "in_tff"),
    [
        ({"algorithm": "fedprox", "proximal_mu": 2.0}, {"algorithm": "fedprox", "proximal_strength": 2.0}),
        ({"algorithm": "fedavgm", "server_momentum": 0.9}, {"server_optimizer": "sgdm"}),
        ({"decay_rounds": 4, "client_optimizer": "sgd"}, {"decay_rounds": 4}),
    ],
    ids=["FedProx", "FedAvgM", "cosine"],
)
def test_what_tff_and_flower_both_have_is_the_same_in_both(task, expected, tmp_path, flower, in_tff):
    runtime.use("in_process")
    of_tff = train_by_tff(task, **in_tff)
    assert find_largest_difference(of_tff, expected) > 10 * NEAR, "no other than FedAvg"
    assert find_largest_difference(train_by_flower(task, tmp_path, **flower), of_tff) < NEAR
