"""What one small client costs when there are 5, 50, 500 or 5,000 of them in a round.

Prints one JSON line. All clients are alike: a few batches of small images for a two-convolution network.
Their pipelines are made on the fly over five shared sets of images, so that the data do not count. Each
number of clients has a fresh process, in which a round of five clients traces first. Rounds of five clients
stand before and after each measured round: a client's time relative to theirs does not hang on what else the
machine does in those minutes. The median round counts; the fewer clients, the more rounds are measured.

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
    """Return the median wall and CPU seconds of a client, their time over that of five, and peak bytes."""
    import numpy as np

    rng = np.random.default_rng(0)
    size = options.steps * options.batch
    shared = [_tasks.make_images(rng, size, options.image_size) for _ in range(NUM_SHARED)]
    clients = [shared[k % NUM_SHARED].batch(options.batch) for k in range(num_clients)]
    task = _tasks.Task(_tasks.build_network("cnn", options.image_size), clients)
    _tasks.use_runtime("in_process", concurrent_clients=1)
    run_round = _tasks.build_federated_round(task)
    few = clients[:NUM_SHARED]
    run_round(few)

    def measure_few():
        """Return the median wall seconds of a client in rounds of five."""
        walls = [_common.measure(lambda: run_round(few))[1] for _ in range(options.reference)]
        return statistics.median(walls) / len(few)

    num_rounds = max(1, min(options.rounds, options.work // num_clients))
    rounds, ratios, before = [], [], measure_few()
    for _ in range(num_rounds):
        cpu, wall = _common.measure(run_round)
        after = measure_few()
        rounds.append((cpu / num_clients, wall / num_clients))
        ratios.append(wall / num_clients / ((before + after) / 2))
        before = after
    cpu, wall = (statistics.median(seconds) for seconds in zip(*rounds, strict=True))
    return wall, cpu, statistics.median(ratios), _common.read_peak()


def main():
    parser = _common.build_parser(__doc__)
    parser.add_argument("--clients", nargs="+", type=int, default=NUM_CLIENTS)
    parser.add_argument("--rounds", type=int, default=9, help="measured rounds at most")
    parser.add_argument("--reference", type=int, default=15, help="rounds of five clients between them")
    parser.add_argument("--work", type=int, default=1500, help="clients in all measured rounds, about")
    parser.add_argument("--steps", type=int, default=8, help="of a client")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--image-size", type=int, default=28)
    options = parser.parse_args()
    fewest, most = str(min(options.clients)), str(max(options.clients))
    wall, cpu, relative, memory = {}, {}, {}, {}
    for number in options.clients:
        found = _common.run_fresh(measure_clients, number, options)
        wall[str(number)], cpu[str(number)], relative[str(number)], memory[str(number)] = found
        _common.report(
            f"{number} clients: {1e3 * found[0]:.2f} ms and {1e3 * found[1]:.2f} CPU ms a client, "
            f"{found[2]:.3f} of that among five, {found[3] / _common.MEGABYTE:.0f} MB"
        )
    result = {
        "clients_scaling_seconds_per_client": {n: round(s, 5) for n, s in wall.items()},
        "clients_scaling_cpu_seconds_per_client": {n: round(s, 5) for n, s in cpu.items()},
        "clients_scaling_time_over_five": {n: round(ratio, 3) for n, ratio in relative.items()},
        "clients_scaling_time_ratio": round(max(relative.values()) / min(relative.values()), 3),
        "clients_scaling_memory_mb": {n: round(b / _common.MEGABYTE) for n, b in memory.items()},
        "clients_scaling_memory_ratio": round(memory[most] / memory[fewest], 3),
        "clients_scaling_steps": options.steps,
        "clients_scaling_batch_size": options.batch,
        "clients_scaling_image_size": options.image_size,
    }
    _common.finish(result, options.out)


if __name__ == "__main__":
    main()
