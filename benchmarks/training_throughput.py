"""What an epoch of `fedutils.epochs.train_epochs` costs beside a plain step of the same model.

Prints one JSON line. A ratio is seconds, or CPU seconds, of an epoch through the loop (Keras ``fit``, its
metrics, the copy of the weights), less validation, over those of a Python loop that calls one traced
``tf.function`` step a batch: the same network, loss, optimizer, schedule and batches. After each epoch of the
loop comes one of the plain steps, so that a change of the machine's load meets both; the median of the pairs
counts, without the first, which traces and whose mean losses show that both take the same steps. Where a
machine stalls whole epochs of either, the ratio of the fastest epochs tells more. No folder is given: what a
checkpoint takes is a key of its own. An epoch has its own costs beside its steps, some tens of milliseconds;
epochs here are shorter than those of the thesis, which have about 110 steps of a classifier.
"""

import statistics
import tempfile
import time
from pathlib import Path

import _common

NETWORKS = ("separable", "mobilenet", "unet2d", "unet_plus_plus2d", "attention_unet2d", "unet3d")
LEARNING_RATE = 1e-3


def build_network(name, options):
    """Build the network of the name, always with the same weights."""
    import _tasks

    from fedutils.models.unet import build_attention_unet, build_unet
    from fedutils.models.unet_plus_plus import build_unet_plus_plus

    slices = (options.slice_size, options.slice_size, 3)
    match name:
        case "unet2d":
            return build_unet(slices, 2, depth=4, width=16)
        case "unet_plus_plus2d":
            return build_unet_plus_plus(slices, 2, depth=4, width=16)
        case "attention_unet2d":
            return build_attention_unet(slices, 2, depth=4, width=16)
        case "unet3d":
            return _tasks.build_network(name, options.volume_size)
    return _tasks.build_network(name, options.image_size)


def make_batches(model, batch_size, steps):
    """Make an epoch's random batches, with a class an image or a voxel."""
    import numpy as np
    import tensorflow as tf

    rng = np.random.default_rng(0)
    count = batch_size * steps
    x = rng.standard_normal((count, *model.input_shape[1:]), np.float32)
    y = rng.integers(0, model.output_shape[-1], (count, *model.output_shape[1:-1]), np.int32)
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(batch_size).prefetch(2)


def build_plain_epoch(model, loss, data, num_steps):
    """Return a function that trains one epoch step by step and returns the mean loss."""
    import keras
    import tensorflow as tf

    schedule = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, num_steps)
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=1e-4)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            value = loss(y, model(x, training=True))
        variables = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(value, variables), variables, strict=True))
        return value

    def run_epoch():
        values = [step(x, y) for x, y in data]
        return statistics.fmean(float(value) for value in values)

    return run_epoch


def compare(name, options):
    """Return medians of alternating epochs, and what a checkpoint takes."""
    import fedutils.quiet  # noqa: F401  (first: it quietens the import of TensorFlow)

    # isort: split
    import keras

    from fedutils.epochs import train_epochs

    batch, steps = {
        "unet3d": (1, options.volume_steps),
        "separable": (options.batch, options.steps),
        "mobilenet": (options.batch, options.steps),
    }.get(name, (options.slice_batch, options.slice_steps))
    model = build_network(name, options)
    data = make_batches(model, batch, steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    num_epochs = options.epochs + 1
    plain_epoch = build_plain_epoch(build_network(name, options), loss, data, num_epochs * steps)
    ours, plain, losses = [], [], []
    started = [_common.read_cpu_seconds(), time.perf_counter()]

    def measure(_):
        ours.append((_common.read_cpu_seconds() - started[0], time.perf_counter() - started[1]))
        plain.append(_common.measure(lambda: losses.append(plain_epoch())))
        seconds = "{:.2f} CPU s, {:.2f} s; plain {:.2f} CPU s, {:.2f} s".format(*ours[-1], *plain[-1])
        _common.report(f"{name}, {len(ours) - 1}: {seconds}")
        started[:] = _common.read_cpu_seconds(), time.perf_counter()
        return {"accuracy": 0.0}

    run = train_epochs(
        model, lambda epoch: data, measure, loss=loss, num_epochs=num_epochs, learning_rate=LEARNING_RATE
    )
    first = float(run.curve("training_loss")[0])
    # Later epochs learn the few batches by heart, where differences of rounding grow.
    if abs(first - losses[0]) > 0.01 * losses[0]:
        raise RuntimeError(f"{name}: mean losses {first} and {losses[0]}: not the same steps")
    pairs = list(zip(ours[1:], plain[1:], strict=True))
    seconds = statistics.median(epoch[1] for epoch, _ in pairs)
    fastest = [min(epoch[1] for epoch in side) for side in zip(*pairs, strict=True)]
    return {
        "fastest_ratio": round(fastest[0] / fastest[1], 3),
        "ratio": round(statistics.median(a[1] / b[1] for a, b in pairs), 3),
        "cpu_ratio": round(statistics.median(a[0] / b[0] for a, b in pairs), 3),
        "seconds_per_step": round(seconds / steps, 4),
        "examples_per_second": round(batch * steps / seconds, 2),
        "checkpoint_seconds": round(measure_checkpoint(run, model), 3),
        "num_parameters": model.count_params(),
        "batch_size": batch,
    }


def measure_checkpoint(run, model):
    """Return the median seconds to write a run's best weights, weights and optimizer's state."""
    from fedutils.runs import save_run

    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(5):
            start = time.perf_counter()
            state = [v.numpy() for v in (*model.trainable_variables, *model.optimizer.variables)]
            save_run(Path(folder) / "checkpoint.npz", run, state=state)
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def main():
    parser = _common.build_parser(__doc__)
    parser.add_argument("--network", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--epochs", type=int, default=5, help="that count, of each side")
    parser.add_argument("--steps", type=int, default=48, help="of an epoch of a classifier")
    parser.add_argument("--batch", type=int, default=32, help="images of a classifier's batch")
    parser.add_argument("--image-size", type=int, default=112)
    parser.add_argument("--slice-steps", type=int, default=32, help="of an epoch of a 2-D U-Net")
    parser.add_argument("--slice-batch", type=int, default=4)
    parser.add_argument("--slice-size", type=int, default=128)
    parser.add_argument("--volume-steps", type=int, default=16, help="of an epoch of unet3d, one volume each")
    parser.add_argument("--volume-size", type=int, default=96)
    options = parser.parse_args()
    measured = {name: _common.run_fresh(compare, name, options) for name in options.network}
    keys = next(iter(measured.values()))
    result = {f"throughput_{key}": {name: measured[name][key] for name in measured} for key in keys}
    _common.finish(result | {"throughput_num_epochs": options.epochs}, options.out)


if __name__ == "__main__":
    main()
