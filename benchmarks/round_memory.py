"""What memory a federated round takes beside the bare training loop that does the same steps.

Prints one JSON line. Each way runs in a fresh process; its memory is the most that was resident, above what
was after the imports: data, model, tracing and two rounds. The worker is a process beside that one: its peak
is added, all of it, since without it there would be none.

TFF's runtime as shipped is tried too, on one client of the U-Net's: `worker_as_shipped` is what it says.
Keys without a model's name are the separable network's.
"""

import _common
import _tasks

WAYS = ("bare", *_tasks.RUNTIMES)
NUM_ROUNDS = 2


def measure_peak(model, way, options):
    """Return the bytes that two rounds need at their peak."""
    from fedutils import runtime  # first, for every way alike: its imports do not count

    before = _common.read_resident()
    task = _tasks.build_task(model, options)
    if way == "bare":
        run_round = _tasks.build_bare_loop(task.model, task.loss, task.clients)
    else:
        _tasks.use_runtime(way)
        run_round = _tasks.build_federated_round(task)
    for _ in range(NUM_ROUNDS):
        run_round()
    peak = _common.read_peak() - before
    return peak if way != "worker" else peak + _common.read_peak(runtime.worker_pid())


def try_worker_as_shipped(options):
    """Return the first line of what TFF's own default says to one client of unet3d."""
    import psutil

    from fedutils.tff import tff

    options.clients = 1
    task = _tasks.build_task("unet3d", options)
    tff.backends.native.set_sync_local_cpp_execution_context()
    try:
        _tasks.build_federated_round(task)()
        return "runs"
    except Exception as error:
        return f"{type(error).__name__}: {error}".splitlines()[0]
    finally:
        for worker in psutil.Process().children():  # TFF leaves its worker running
            worker.kill()


def main():
    parser = _common.build_parser(__doc__)
    parser.add_argument("--model", nargs="+", choices=_tasks.MODELS, default=_tasks.MODELS)
    _tasks.add_size_arguments(parser)
    options = parser.parse_args()
    result = {}
    for model in options.model:
        peaks = {}
        for way in WAYS:
            peaks[way] = _common.run_fresh(measure_peak, model, way, options)
            _common.report(f"{model}, {way}: {peaks[way] / _common.MEGABYTE:.0f} MB")
        measured = {f"memory_mb_{way}": round(peak / _common.MEGABYTE) for way, peak in peaks.items()}
        for way in _tasks.RUNTIMES:
            measured[f"memory_ratio_{way}"] = round(peaks[way] / peaks["bare"], 2)
        result |= _common.add_suffix(measured, model)
    if "unet3d" in options.model:
        result["worker_as_shipped"] = _common.run_fresh(try_worker_as_shipped, options)
        _common.report(f"worker as shipped: {result['worker_as_shipped']}")
    _common.finish(result, options.out)


if __name__ == "__main__":
    main()
