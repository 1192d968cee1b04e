"""What a federated round costs in Flower's simulation engine beside the bare loop that does the same steps.

Prints one JSON line. Model, clients, SGD steps and weighted mean are those of ``round_overhead.py``, and so
is the loop that it is compared to; the weights of every round are held against the loop's. The engine runs
clients in processes of Ray: a round's CPU seconds are those of this process and of all its descendants.
Rounds and loops alternate, the median of the pairs counts. The time to the first round is shown apart.

Clients run on one core each side by side, then one at a time on every core: the faster way counts. Keys
without a model's name are the separable network's.
"""

import contextlib
import ctypes
import importlib.metadata
import importlib.util
import logging
import os
import shutil
import statistics
import sys
import tempfile
import time
import traceback
from pathlib import Path

import _common
import numpy as np
import psutil

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent / "build"
NUM_CORES = len(os.sched_getaffinity(0))
TIMEOUT = 1800  # seconds for the replies of a round


def set_environment():
    """Keep flwr, Ray and Keras, not imported yet, from reporting home and from writing there."""
    os.environ |= {
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_HOME": str(BUILD / "home" / "flwr"),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }
    os.environ.setdefault("KERAS_HOME", str(BUILD / "home" / "keras"))


def measure_tree(function):
    """Return what the function gives, CPU seconds of this process and all below it, and wall seconds."""
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]

    def read_cpu_seconds():
        seconds = 0.0
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                seconds += sum(process.cpu_times()[:4])  # user and system, own and of ended children
        return seconds

    cpu, wall = read_cpu_seconds(), time.perf_counter()
    value = function()
    return value, read_cpu_seconds() - cpu, time.perf_counter() - wall


def start_ray(folder):
    """Start Ray, which the engine would start alike if it did not run; return when that began.

    Ray gives its processes 30 seconds to come up, too few on a machine that does much else: three attempts.
    """
    import ray

    for _ in range(3):
        started = time.perf_counter()
        try:
            ray.init(
                address="local",  # never a cluster that happens to run here
                num_cpus=NUM_CORES,
                object_store_memory=256 * 2**20,  # only messages pass through it
                include_dashboard=False,
                logging_level="WARNING",
                runtime_env={"env_vars": {"PYTHONPATH": str(HERE)}},
                _temp_dir=folder,
                _node_ip_address="127.0.0.1",
            )
            return started
        except Exception as error:
            _common.report(f"Ray did not start: {error}")
            ray.shutdown()
            stop_children()
    raise RuntimeError("Ray did not start in three attempts")


def measure_flower(run_loop, weights, config, num_rounds, folder):
    """Start the engine, alternate its warm rounds with the loop, stop the engine.

    Parameters
    ----------
    run_loop : callable
        One round of the bare loop: returns the new weights.
    weights : list of numpy.ndarray
        The weights that every round starts from.
    config : dict
        What a client is told; Ray grants it ``num_threads`` cores.
    num_rounds : int
        Measured rounds; all clients take part in each.
    folder : str
        Where Ray puts its sockets: at most 38 bytes.

    Returns
    -------
    dict
        Medians, the start in seconds and the largest difference of a weight.
    """
    from _flower_client import train_client
    from flwr.app import ArrayRecord, ConfigRecord
    from flwr.clientapp import ClientApp
    from flwr.serverapp import ServerApp, strategy
    from flwr.simulation import run_simulation

    logging.getLogger("flwr").setLevel(logging.ERROR)
    rounds, loops, differences, start = [], [], [], {}
    expected, num_clients = run_loop(), config["clients"]
    described = f"{config['model']}, {config['num_threads']} core(s) a client"
    server, client = ServerApp(), ClientApp()
    client.train()(train_client)

    @server.main()
    def measure_rounds(grid, context):
        everyone = {"min_train_nodes": num_clients, "min_available_nodes": num_clients}
        fed_avg = strategy.FedAvg(fraction_evaluate=0.0, **everyone)

        def run_round():
            arrays, settings = ArrayRecord(weights), ConfigRecord(config)
            result = fed_avg.start(grid, arrays, num_rounds=1, timeout=TIMEOUT, train_config=settings)
            if not result.arrays:
                raise RuntimeError("no client answered; their errors are above")
            return result.arrays.to_numpy_ndarrays()

        def check(found):
            difference = max(float(np.abs(a - b).max()) for a, b in zip(found, expected, strict=True))
            if difference > 1e-4:
                raise RuntimeError(f"the round and the loop end {difference} apart: not the same steps")
            differences.append(difference)

        check(run_round())
        start["seconds"] = time.perf_counter() - started
        check(run_round())  # not measured: a process that came up late traces only now
        for number in range(num_rounds):
            found, *seconds = measure_tree(run_round)
            check(found)
            rounds.append(seconds)
            loops.append(_common.measure(run_loop))
            seconds = "{:.2f} CPU s, {:.2f} s; loop {:.2f} CPU s, {:.2f} s".format(*rounds[-1], *loops[-1])
            _common.report(f"{described}, {number + 1} of {num_rounds}: round {seconds}")

    started = start_ray(folder)
    resources = {"num_cpus": config["num_threads"], "num_gpus": 0.0}
    run_simulation(server, client, num_supernodes=num_clients, backend_config={"client_resources": resources})
    median, pairs = statistics.median, list(zip(rounds, loops, strict=True))
    wall = median(f[1] for f in rounds)
    return {
        "ratio": median(f[0] / b[0] for f, b in pairs),
        "wall_ratio": median(f[1] / b[1] for f, b in pairs),
        "cpu": median(f[0] for f in rounds),
        "bare_cpu": median(b[0] for b in loops),
        "wall": wall,
        "bare_wall": median(b[1] for b in loops),
        "start": start["seconds"] - wall,
        "difference": max(differences),
    }


def measure_model(model, options, folder):
    """Measure both ways to share the cores among clients; return the result of the faster one."""
    import _tasks

    task = _tasks.build_task(model, options)
    weights = [v.numpy() for v in task.model.trainable_variables]
    run_loop = _tasks.build_bare_loop(task.model, task.loss, task.clients)
    sizes = ("clients", "steps", "batch", "image_size", "volumes", "volume_size")
    config = {"model": model} | {name: getattr(options, name) for name in sizes}
    measured = {}
    for cores in sorted({1, NUM_CORES}):
        settings = config | {"num_threads": cores}
        measured[cores] = measure_flower(run_loop, weights, settings, options.rounds, folder)
    cores = min(measured, key=lambda c: measured[c]["wall_ratio"])
    best = measured[cores]
    result = {
        "round_ratio_flower": round(best["ratio"], 3),
        "round_wall_ratio_flower": round(best["wall_ratio"], 3),
        "round_cpu_seconds_flower": round(best["cpu"], 2),
        "round_bare_cpu_seconds_flower": round(best["bare_cpu"], 2),
        "round_wall_seconds_flower": round(best["wall"], 2),
        "round_bare_wall_seconds_flower": round(best["bare_wall"], 2),
        "flower_start_seconds": round(best["start"], 1),
        "flower_max_weight_difference": max(m["difference"] for m in measured.values()),
        "flower_cores_per_client": cores,
        "flower_ratio_by_cores": {str(c): round(m["ratio"], 3) for c, m in measured.items()},
        "flower_wall_ratio_by_cores": {str(c): round(m["wall_ratio"], 3) for c, m in measured.items()},
    }
    return _common.add_suffix(result, model)


def adopt_orphans():
    """Make a process whose parent ends a child of this one, so that it is counted and ended too."""
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def stop_children():
    """End every process that the engine left behind."""
    children = psutil.Process().children(recursive=True)
    for action in ("terminate", "kill"):
        for process in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                getattr(process, action)()
        _, children = psutil.wait_procs(children, timeout=5)


def main():
    if not all(importlib.util.find_spec(name) for name in ("flwr", "ray")):
        sys.exit("error: Flower's simulation engine is not installed; run make bench, which installs it")
    set_environment()
    import _tasks

    parser = _common.build_parser(__doc__)
    parser.add_argument("--model", nargs="+", choices=_tasks.MODELS, default=["separable"])
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds")
    _tasks.add_size_arguments(parser)
    options = parser.parse_args()
    adopt_orphans()
    BUILD.mkdir(exist_ok=True)
    # Ray adds some 66 bytes to the folder of its sockets, whose paths end at 107.
    near = BUILD if len(os.fsencode(BUILD)) <= 26 else None
    folder = tempfile.mkdtemp(prefix="ray", dir=near)
    version = importlib.metadata.version
    result = {"flower_version": version("flwr"), "ray_version": version("ray")}
    try:
        try:
            for model in options.model:
                result |= measure_model(model, options, folder)
        finally:
            stop_children()
            shutil.rmtree(folder, ignore_errors=True)
    except BaseException:
        traceback.print_exc()
        os._exit(1)  # a thread of the engine may still wait for replies that will not come
    _common.finish(result, options.out)


if __name__ == "__main__":
    main()
