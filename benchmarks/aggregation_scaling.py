"""What it costs to send models of 0.1 to 50 million parameters to the clients and to average what comes back.

Prints one JSON line. Five clients take one step each on a single example, through ten square dense layers, so
that moving and adding weights is most of a round of FedAvg. The floor is the least that any implementation
could do: five weighted additions of arrays as large as the model by NumPy, in the same process. Each size has
a fresh process; rounds and floors alternate, the medians count.
"""

import statistics

import _common
import _tasks

MILLIONS = (0.1, 1.0, 10.0, 50.0)
NUM_LAYERS = 10


def build_task(millions, num_clients):
    """Return a network of about so many million parameters, and clients with one example each."""
    import keras
    import numpy as np
    import tensorflow as tf

    side = round((1e6 * millions / NUM_LAYERS) ** 0.5)
    layers = [keras.layers.Dense(side, use_bias=False) for _ in range(NUM_LAYERS)]
    rng = np.random.default_rng(0)
    clients = []
    for _ in range(num_clients):
        example = rng.random((1, side), np.float32), rng.integers(0, side, 1, np.int32)
        clients.append(tf.data.Dataset.from_tensor_slices(example).batch(1))
    return _tasks.Task(keras.Sequential([keras.Input((side,)), *layers]), clients, metrics=())


def build_floor(model, num_clients):
    """Return a function that adds up as many weighted copies of the weights as there are clients."""
    import numpy as np

    weights = [v.numpy() for v in model.trainable_variables]
    sums, scaled = ([np.zeros_like(w) for w in weights] for _ in range(2))

    def add_up():
        for s in sums:
            s[...] = 0
        for _ in range(num_clients):
            for s, part, weight in zip(sums, scaled, weights, strict=True):
                np.multiply(weight, 1 / num_clients, out=part)
                np.add(s, part, out=s)

    return add_up


def measure_size(millions, options):
    """Return the parameters, and the median wall and CPU seconds of a round and wall seconds of the floor."""
    task = build_task(millions, options.clients)
    _tasks.use_runtime("in_process")
    run_round, add_up = _tasks.build_federated_round(task), build_floor(task.model, options.clients)
    run_round()
    add_up()
    rounds, floors = [], []
    for _ in range(options.rounds):
        rounds.append(_common.measure(run_round))
        floors.append(_common.measure(add_up))
    cpu, wall = (statistics.median(values) for values in zip(*rounds, strict=True))
    return task.model.count_params(), wall, cpu, statistics.median(seconds for _, seconds in floors)


def main():
    parser = _common.build_parser(__doc__)
    parser.add_argument("--millions", nargs="+", type=float, default=MILLIONS)
    parser.add_argument("--clients", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    names = ("seconds", "cpu_seconds", "floor_seconds", "over_floor", "parameters", "megabytes")
    table = {name: {} for name in names}
    for millions in options.millions:
        parameters, wall, cpu, floor = _common.run_fresh(measure_size, millions, options)
        megabytes = 4 * parameters / _common.MEGABYTE
        row = (round(wall, 4), round(cpu, 4), round(floor, 5), round(wall / floor, 1), parameters, megabytes)
        for name, value in zip(names, row, strict=True):
            table[name][f"{millions:g}"] = value
        _common.report(
            f"{parameters:,} parameters, {megabytes:.1f} MB: {wall:.3f} s and {cpu:.3f} CPU s a round, "
            f"{wall / floor:.1f} times the floor"
        )
    _common.finish({f"aggregation_scaling_{name}": values for name, values in table.items()}, options.out)


if __name__ == "__main__":
    main()
