"""How long a whole case of BraTS takes through a small 3-D U-Net, and its windows through the bare network.

Prints one JSON line. The case is random numbers of 240 x 240 x 155 voxels and three modalities, in windows of
128 voxels a side that overlap by half: 18 of them. Medians over alternating repetitions, in a new process.

- ``inference_case_s``: seconds of `fedutils.inference.predict_volume`: cutting, predicting, a sigmoid, and
  putting together.
- ``inference_ratio``: its CPU seconds over those in which the bare network, a ``tf.function``, is called as
  many times on one window and its logits are fetched. ``inference_wall_ratio``: the same of wall-clock time.
- ``inference_mirrored_s``: with mirroring along the first axis, which calls the network twice as often.
"""

import statistics

import _common

SHAPE = (240, 240, 155, 3)
NUM_REGIONS = 3


def measure_case(options):
    """Return the benchmark's numbers."""
    from fedutils.models.unet import build_unet  # first: it imports TensorFlow quietly

    # isort: split
    import numpy as np
    import tensorflow as tf

    from fedutils.inference import predict_volume
    from fedutils.windows import place_windows

    window = (options.window,) * 3
    case = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    model = build_unet((None, None, None, 3), NUM_REGIONS, depth=options.depth, width=options.width)
    num_windows = 1
    for side, length in zip(SHAPE, window, strict=False):
        num_windows *= len(place_windows(side, length, options.overlap))

    def predict(flips=()):
        return predict_volume(
            model, case, window=window, overlap=options.overlap, flips=flips, progress=False
        )

    bare = tf.function(lambda x: model(x, training=False))
    patch = case[None, : options.window, : options.window, : options.window]

    def call_bare():
        for _ in range(num_windows):
            bare(patch).numpy()

    small = slice(0, options.window)
    before = _common.read_resident()
    predict_volume(model, case[small, small, small], window=window, progress=False)  # traces
    bare(patch)
    rows = []
    for repeat in range(options.repeats):
        rows.append((*_common.measure(predict), *_common.measure(call_bare)))
        cpu, wall, bare_cpu, _ = rows[-1]
        _common.report(f"repeat {repeat + 1}: {wall:.1f} s; CPU {cpu:.1f} s, bare {bare_cpu:.1f} s")
    peak = _common.read_peak()
    mirrored = _common.measure(lambda: predict((0,)))[1]
    return {
        "inference_case_s": round(statistics.median(wall for _, wall, _, _ in rows), 2),
        "inference_ratio": round(statistics.median(cpu / bare for cpu, _, bare, _ in rows), 3),
        "inference_wall_ratio": round(statistics.median(wall / bare for _, wall, _, bare in rows), 3),
        "inference_mirrored_s": round(mirrored, 2),
        "inference_memory_mb": round((peak - before) / _common.MEGABYTE),
        "inference_num_windows": num_windows,
        "inference_num_parameters": model.count_params(),
        "inference_network": f"3-D U-Net, depth {options.depth}, width {options.width}",
        "inference_window": window,
        "inference_overlap": options.overlap,
    }


def main():
    parser = _common.build_parser(__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--window", type=int, default=128, help="sides of a window, in voxels")
    parser.add_argument("--overlap", type=float, default=0.5)
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--width", type=int, default=4)
    options = parser.parse_args()
    _common.finish(_common.run_fresh(measure_case, options), options.out)


if __name__ == "__main__":
    main()
