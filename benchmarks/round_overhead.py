"""What a federated round costs beside the bare training loop that does the same steps.

Prints one JSON line. A ratio is CPU seconds (or wall seconds) of a round of weighted FedAvg, those of TFF's
worker included, over those of a TensorFlow loop over the same data with the same steps: each client's SGD
from the global weights, then the weighted mean. Rounds and loops alternate, so that a change of the machine's
load meets both; the median of the pairs counts, and of short rounds more are measured. The loop calls one
traced step a batch: a whole client in one traced function, the other way to write it, was slower.

Keys without a model's name are the separable network's. The worker runs with its limit of 100 MB lifted.
"""

import statistics
import time

import _common
import _tasks
import numpy as np


def compare(model, runtime_name, num_rounds, options):
    """Return medians of alternating rounds and loops, and the size of both."""
    from fedutils import runtime

    task = _tasks.build_task(model, options)
    _tasks.use_runtime(runtime_name)
    federated = _tasks.build_federated_round(task)
    bare = _tasks.build_bare_loop(task.model, task.loss, task.clients)
    difference = max(float(np.abs(a - b).max()) for a, b in zip(federated(), bare(), strict=True))
    if difference > 1e-4:
        raise RuntimeError(f"the round and the loop end {difference} apart: not the same steps")
    worker, rounds, loops = runtime.worker_pid(), [], []
    started = time.monotonic()
    while len(rounds) < num_rounds or time.monotonic() - started < options.seconds:
        rounds.append(_common.measure(federated, worker))
        loops.append(_common.measure(bare))
        seconds = "{:.2f} CPU s, {:.2f} s; loop {:.2f} CPU s, {:.2f} s".format(*rounds[-1], *loops[-1])
        _common.report(f"{model}, {runtime_name}, {len(rounds)}: round {seconds}")
    pairs = list(zip(rounds, loops, strict=True))
    measured = {
        "ratio": round(statistics.median(f[0] / b[0] for f, b in pairs), 3),
        "wall_ratio": round(statistics.median(f[1] / b[1] for f, b in pairs), 3),
        "cpu_seconds": round(statistics.median(f[0] for f in rounds), 2),
        "bare_cpu_seconds": round(statistics.median(b[0] for b in loops), 2),
        "wall_seconds": round(statistics.median(f[1] for f in rounds), 2),
        "bare_wall_seconds": round(statistics.median(b[1] for b in loops), 2),
        "max_weight_difference": difference,
    }
    result = {f"round_{key}_{runtime_name}": value for key, value in measured.items()}
    result |= {f"round_{key}": value for key, value in _tasks.describe(model, task, options).items()}
    return _common.add_suffix(result | {"round_num_measured": len(rounds)}, model)


def main():
    parser = _common.build_parser(__doc__)
    parser.add_argument("--model", nargs="+", choices=_tasks.MODELS, default=_tasks.MODELS)
    parser.add_argument("--runtime", nargs="+", choices=_tasks.RUNTIMES, default=_tasks.RUNTIMES)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of a model of images, at least")
    parser.add_argument("--volume-rounds", type=int, default=3, help="rounds of unet3d, at least")
    parser.add_argument("--seconds", type=float, default=40, help="of measuring a model, at least")
    _tasks.add_size_arguments(parser)
    options = parser.parse_args()
    result = {}
    for model in options.model:
        num_rounds = options.volume_rounds if model == "unet3d" else options.rounds
        for runtime_name in options.runtime:
            result |= _common.run_fresh(compare, model, runtime_name, num_rounds, options)
    _common.finish(result, options.out)


if __name__ == "__main__":
    main()
