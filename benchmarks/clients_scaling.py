"""What one small client costs when there are 5, 50, 500 or 5,000 of them in a round.

Prints one JSON line. All clients are alike: a few batches of small images for a two-convolution network.
Their pipelines are made on the fly over five shared sets of images, so that the data do not count. Each
number of clients has a fresh process, in which a round of five clients traces first. The median round counts;
the fewer clients, the more rounds are measured.

Clients run one after another here: with several at a time the last ones of a round would leave cores idle,
which five clients show and 5,000 hide (``concurrency.py`` measures what is gained). Memory is the most of the
process that was resident, the clients' pipelines included.
"""

import statistics

import _common
import _tasks

NUM_CLIENTS = (5, 50, 500, 5000)
NUM_SHARED = 5  # sets of images


def measure_clients(num_clients, options):
    """Return the median wall and CPU seconds of a client, and the peak in bytes."""
    import numpy as np

    rng = np.random.default_rng(0)
    size = options.steps * options.batch
    shared = [_tasks.make_images(rng, size, options.image_size) for _ in range(NUM_SHARED)]
    clients = [shared[k % NUM_SHARED].batch(options.batch) for k in range(num_clients)]
    task = _tasks.Task(_tasks.build_network("cnn", options.image_size), clients)
    _tasks.use_runtime("in_process", concurrent_clients=1)
    run_round = _tasks.build_federated_round(task)
    run_round(clients[:NUM_SHARED])
    num_rounds = max(1, min(options.rounds, options.work // num_clients))
    cpu, wall = zip(*(_common.measure(run_round) for _ in range(num_rounds)), strict=True)
    return statistics.median(wall) / num_clients, statistics.median(cpu) / num_clients, _common.read_peak()


def main():
    parser = _common.build_parser(__doc__)
    parser.add_argument("--clients", nargs="+", type=int, default=NUM_CLIENTS)
    parser.add_argument("--rounds", type=int, default=25, help="measured rounds at most")
    parser.add_argument("--work", type=int, default=1500, help="clients in all measured rounds, about")
    parser.add_argument("--steps", type=int, default=8, help="of a client")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--image-size", type=int, default=28)
    options = parser.parse_args()
    fewest, most = str(min(options.clients)), str(max(options.clients))
    wall, cpu, memory = {}, {}, {}
    for number in options.clients:
        found = _common.run_fresh(measure_clients, number, options)
        wall[str(number)], cpu[str(number)], memory[str(number)] = found
        _common.report(
            f"{number} clients: {1e3 * found[0]:.2f} ms and {1e3 * found[1]:.2f} CPU ms a client, "
            f"{found[2] / _common.MEGABYTE:.0f} MB"
        )
    result = {
        "clients_scaling_seconds_per_client": {n: round(s, 5) for n, s in wall.items()},
        "clients_scaling_cpu_seconds_per_client": {n: round(s, 5) for n, s in cpu.items()},
        "clients_scaling_time_ratio": round(max(wall.values()) / min(wall.values()), 3),
        "clients_scaling_memory_mb": {n: round(b / _common.MEGABYTE) for n, b in memory.items()},
        "clients_scaling_memory_ratio": round(memory[most] / memory[fewest], 3),
        "clients_scaling_steps": options.steps,
        "clients_scaling_batch_size": options.batch,
        "clients_scaling_image_size": options.image_size,
    }
    _common.finish(result, options.out)


if __name__ == "__main__":
    main()
