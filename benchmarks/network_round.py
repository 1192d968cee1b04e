"""Seconds of a round on the same work: TFF in process, the console over TLS, and Flower's SuperLink.

Prints one JSON line. Model, initial weights, images, order of batches and steps are the same; the weights
after the last round are held against TFF's. Hospitals and servers are processes of this machine, connected
by TLS on loopback; a hospital of the console stays one process, a SuperNode of Flower starts one for every
message, as both do by themselves. Medians without the first round.

- ``round_seconds_tff``: one process, no network.
- ``round_seconds_console``: from one aggregation to the next, by the server's log.
- ``round_seconds_flower``: from the server's questions to its mean, and the validation of a few images.
- ``network_round_max_weight_difference``: the largest of a weight, console and Flower against TFF.
"""

import itertools
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import _common

sys.path.append(str(Path(__file__).parents[1] / "tests"))  # its helpers start the servers

# A small rate: where a ReLU is at its kink, steps of a large one turn rounding into 4e-4 within four rounds.
BATCH, LEARNING_RATE, SEED = 32, 0.001, 5
NAMES = ("alpha", "beta", "gamma")


def make_task(folder, images, side):
    """Write a model, the images of each hospital and a few of validation; return the hospitals' places."""
    from fedutils.data.brain_mri import CLASSES
    from fedutils.flower_settings import HospitalPlace
    from fedutils.model_file import save_model
    from fedutils.model_info import ModelInfo
    from fedutils.models.classification import build_separable_cnn

    info = ModelInfo("Work", "classification", "separable CNN", CLASSES, ("grey",), (side, side), "grey")
    save_model(folder / "model.keras", build_separable_cnn((side, side, 1), 4, dropout=0.0, seed=1), info)
    write_images(folder / "validation" / "Training", 8, side, 99)
    for k, name in enumerate(NAMES):
        write_images(folder / "hospitals" / name / "Training", images + 8 * k, side, k)
    return [HospitalPlace(name, k, folder / "hospitals" / name) for k, name in enumerate(NAMES)]


def write_images(folder, count, side, seed):
    """Write random images, as many of each class."""
    import numpy as np
    from PIL import Image

    from fedutils.data.brain_mri import CLASSES

    rng = np.random.default_rng(seed)
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
        for i in range(count // len(CLASSES)):
            Image.fromarray(rng.integers(0, 256, (side, side), np.uint8)).save(folder / name / f"{i}.png")


def run_tff(folder, places, num_rounds):
    """Return the seconds of each round, the weights after the last one, and how large the work is."""
    import numpy as np

    from fedutils import runtime
    from fedutils.algorithms import build_process
    from fedutils.federated import ArrayClients
    from fedutils.hospital.training import load_cases
    from fedutils.model_file import load_model

    runtime.use("in_process")
    model, info = load_model(folder / "model.keras")
    arrays = [load_cases(info, place.data) for place in places]
    clients = ArrayClients(arrays, batch_size=BATCH, augment=False, seed=SEED)
    process = build_process(model, client_optimizer="sgd", client_learning_rate=LEARNING_RATE)
    state, seconds = process.initialize(), []
    for r in range(num_rounds):
        started = time.perf_counter()
        state = process.next(state, [clients.batches(k, r) for k in range(len(places))]).state
        seconds.append(time.perf_counter() - started)
    weights = [np.asarray(w) for w in process.get_model_weights(state).trainable]
    described = {
        "network_round_images": int(clients.sizes.sum()),
        "network_round_num_parameters": model.count_params(),
    }
    return seconds, weights, described


def write_settings(folder, server, place):
    """Write what a hospital's console reads."""
    import yaml

    entries = {
        "server": f"localhost:{server.port}",
        "certificates": str(server.certificates / place.name),
        "data": str(place.data),
        "work": f"work_{place.name}",
        "epochs": 1,
        "batch_size": BATCH,
        "learning_rate": LEARNING_RATE,
        "seed": SEED,
        "client": place.client,
    }
    path = folder / f"{place.name}.yaml"
    path.write_text(yaml.safe_dump(entries))
    return path


def attend(path, name, num_rounds):
    """Take part in the console's rounds as a hospital does, in a process of its own."""
    from fedutils.hospital.actions import Hospital
    from fedutils.hospital.settings import load_settings

    hospital = Hospital(load_settings(path), name, say=lambda text: None)
    for _ in range(num_rounds):
        for action in ("get", "train", "send", "wait"):
            hospital.do(action)
    hospital.close()


def run_console(folder, places, num_rounds):
    """Return the seconds between aggregations and the weights after the last one."""
    from hospital_helpers import make_all_certificates, running

    from fedutils.hospital.state import read_log

    certificates = make_all_certificates(folder / "certificates", NAMES)
    options = ["--model", str(folder / "model.keras"), "--aggregate-when", str(len(places))]
    context = multiprocessing.get_context("spawn")
    with running(folder, certificates, *options) as server:
        hospitals = [
            context.Process(
                target=attend,
                args=(write_settings(folder, server, place), place.name, num_rounds),
                daemon=True,
            )
            for place in places
        ]
        for hospital in hospitals:
            hospital.start()
        for hospital in hospitals:
            hospital.join()
        if any(hospital.exitcode for hospital in hospitals):
            raise RuntimeError("a hospital of the console failed; its error is above")
        with server.console("operator") as console:
            received = console.get_model()
    log = [entry for entry in read_log(folder / "state.db") if entry["event"] == "aggregated"]
    times = [datetime.fromisoformat(entry["time"]) for entry in log]
    seconds = [(b - a).total_seconds() for a, b in itertools.pairwise(times)]
    return [None, *seconds], received.arrays


def run_flower(folder, places, num_rounds):
    """Return the seconds of each round and the weights after the last one."""
    import numpy as np
    from flower_helpers import find_port, flower_processes

    from fedutils.flower_project import make_node_key, write_project
    from fedutils.flower_settings import AppSettings

    certificates = folder / "certificates" / "server"
    settings = AppSettings(
        model=str(folder / "model.keras"),
        validation=str(folder / "validation"),
        out=str(folder / "run"),
        hospitals=len(places),
        num_rounds=num_rounds,
        batch_size=BATCH,
        augment=False,
        seed=SEED,
        client_optimizer="sgd",
        client_learning_rate=LEARNING_RATE,
    )
    port, authority = find_port(), certificates / "authority.pem"
    write_project(folder, settings, superlink=f"127.0.0.1:{port}", authority=authority)
    tls = ("--ssl-certfile", certificates / "server.pem", "--ssl-keyfile", certificates / "server.key")
    with flower_processes(folder) as flower:
        flower.start_link(port, *tls, "--ssl-ca-certfile", authority, "--enable-supernode-auth")
        for place in places:
            private, public = make_node_key(folder, place.name)
            flower.call("flwr", "supernode", "register", public)
            flower.start_node(place, f"127.0.0.1:{port}", authority, private)
        flower.call("flwr", "run", folder / "app", "--stream", timeout=1800)
    rounds = json.loads((folder / "run" / "history.json").read_text())["rounds"]
    with np.load(folder / "run" / "checkpoint.npz") as kept:
        weights = [kept[name] for name in sorted(kept.files) if name.startswith("state_")]
    return [entry["seconds"] for entry in rounds], weights


def find_largest_difference(some, others):
    """Return the largest difference of a weight; refuse what is not the same training."""
    import numpy as np

    found = max(float(np.abs(a - b).max()) for a, b in zip(some, others, strict=True))
    if found > 1e-4:
        raise RuntimeError(f"weights end {found} apart: not the same steps")
    return found


def main():
    parser = _common.build_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=4, help="of which the first is not counted")
    parser.add_argument("--images", type=int, default=240, help="of the smallest hospital")
    parser.add_argument("--side", type=int, default=80, help="pixels")
    options = parser.parse_args()
    seconds, differences = {}, []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        places = _common.run_fresh(make_task, folder, options.images, options.side)
        _common.report("TFF in process")
        seconds["tff"], expected, result = _common.run_fresh(run_tff, folder, places, options.rounds)
        for name, run in (("console", run_console), ("flower", run_flower)):
            _common.report(name)
            seconds[name], weights = run(folder, places, options.rounds)
            differences.append(find_largest_difference(weights, expected))
    for name, of_rounds in seconds.items():
        _common.report(f"{name}: {of_rounds}")
        result[f"round_seconds_{name}"] = round(statistics.median(of_rounds[1:]), 2)
    result |= {
        "network_round_hospitals": len(places),
        "network_round_max_weight_difference": max(differences),
    }
    _common.finish(result, options.out)


if __name__ == "__main__":
    main()
