"""What training several clients at a time gains, and the memory that it takes.

Prints one JSON line. In-process rounds with one, two and four clients at a time, for a network so small that
one client cannot occupy all cores, and for a 3-D U-Net whose operations can: what `fedutils.runtime.use`
chooses by itself rests on this. TensorFlow divides an operation among all cores, or, in the keys that end in
"one_thread", leaves it on one, which is a user's choice before TensorFlow starts. Each number of clients has
a fresh process; the median round counts, after one that traces. Memory is the most that was resident, above
what was after the imports.
"""

import itertools
import statistics

import _common
import _tasks

AT_A_TIME = (1, 2, 4)
THREADS = (0, 1)
MODELS = ("cnn", "unet3d")


def measure_rounds(model, at_a_time, num_threads, num_rounds, options):
    """Return the median wall and CPU seconds of a round, and the peak in bytes."""
    import tensorflow as tf

    from fedutils import runtime  # noqa: F401  (its imports too are done before memory is read)

    tf.config.threading.set_intra_op_parallelism_threads(num_threads)
    before = _common.read_resident()
    task = _tasks.build_task(model, options)
    _tasks.use_runtime("in_process", concurrent_clients=at_a_time)
    run_round = _tasks.build_federated_round(task)
    run_round()
    cpu, wall = zip(*(_common.measure(run_round) for _ in range(num_rounds)), strict=True)
    return statistics.median(wall), statistics.median(cpu), _common.read_peak() - before


def main():
    parser = _common.build_parser(__doc__)
    parser.add_argument("--model", nargs="+", choices=_tasks.MODELS, default=MODELS)
    parser.add_argument("--at-a-time", nargs="+", type=int, default=AT_A_TIME)
    parser.add_argument("--threads", nargs="+", type=int, default=THREADS, help="an operation; 0: all cores")
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds of a model of images")
    parser.add_argument("--volume-rounds", type=int, default=2, help="measured rounds of unet3d")
    _tasks.add_size_arguments(parser)
    options = parser.parse_args()
    names = ("concurrency_wall_seconds", "concurrency_cpu_seconds", "concurrency_memory_mb")
    result = {name: {} for name in names}
    for model, num_threads in itertools.product(options.model, options.threads):
        num_rounds = options.volume_rounds if model == "unet3d" else options.rounds
        key = f"{model}_one_thread" if num_threads == 1 else model
        for number in options.at_a_time:
            arguments = (model, number, num_threads, num_rounds, options)
            wall, cpu, peak = _common.run_fresh(measure_rounds, *arguments)
            memory = round(peak / _common.MEGABYTE)
            _common.report(f"{key}, {number} at a time: {wall:.2f} s, {cpu:.2f} CPU s, {memory} MB")
            for name, value in zip(names, (round(wall, 2), round(cpu, 2), memory), strict=True):
                result[name].setdefault(key, {})[str(number)] = value
    _common.finish(result, options.out)


if __name__ == "__main__":
    main()
