"""What one small client costs when there are 5, 50, 500 or 5,000 of them in a round.

Prints one JSON line. All clients are alike: a few batches of small images for a two-convolution network.
Their pipelines are made anew for every round, over five shared sets of images, so that the data do not count;
TensorFlow optimizes a pipeline when it is first read, so that a round over pipelines that were read before
is cheaper, which few clients would have shown and 5,000, measured once, not. Each number of clients has a
fresh process, in which a round traces first.

A round of 5,000 takes minutes, in which a shared machine changes its speed by more than what is looked for.
So the measured round is interrupted: every 20 clients, between two of them, a round of five clients runs and
is measured on its own, while the clock of the large round stands still. What a client of the large round
took, all of its beginning and end included, is divided by what a client took in the rounds of five within
it: both met the same minutes. Five clients are measured in the same way, as a check of the method: a round
of five within a round of five. The fewer clients, the more rounds are measured; wall and CPU seconds are
sums over all of them, so that nothing is left out, a pause of Python's garbage collector neither.

Clients run one after another here: with several at a time the last ones of a round would leave cores idle,
which five clients show and 5,000 hide (``concurrency.py`` measures what is gained). Memory is the most of the
process that was resident, the clients' pipelines included.
"""

import contextlib
import time

import _common
import _tasks

NUM_CLIENTS = (5, 50, 500, 5000)
NUM_SHARED = 5  # sets of images, and clients in a round of comparison


class Comparison:
    """Runs small rounds in the midst of large ones, and takes the time of both.

    Parameters
    ----------
    run_few : callable
        Runs the small round.
    every : int
        Clients of the large rounds from one small round to the next.

    Attributes
    ----------
    few, many : numpy.ndarray
        float64 (2,), wall and CPU seconds of all small rounds, and of all else that `measure` called.
    num_few : int
        The small rounds so far.
    """

    def __init__(self, run_few, every):
        import numpy as np

        self.few, self.many, self.num_few = np.zeros(2), np.zeros(2), 0
        self._run_few, self._every, self._count, self._within = run_few, every, 0, False

    def measure(self, run_many):
        """Call a function and add its time, less that of the small rounds in it, to `many`."""
        before, few_before = self._read(), self.few.copy()
        run_many()
        self.many += self._read() - before - (self.few - few_before)

    def before_client(self):
        """Run a small round if it is time for one."""
        if self._within:  # this client is of a small round itself
            return
        self._count += 1
        if self._count % self._every == self._every // 2:
            self._within, before = True, self._read()
            self._run_few()
            self.few += self._read() - before
            self._within, self.num_few = False, self.num_few + 1

    @staticmethod
    def _read():
        import numpy as np

        return np.array([time.perf_counter(), time.process_time()])


@contextlib.contextmanager
def calling_before_each_client(function):
    """Have the runtime call a function before the work of each client, where it also looks for Ctrl-C."""
    from fedutils import runtime

    original = runtime._Executor._before_client

    def before_client(executor):
        function()
        original(executor)

    runtime._Executor._before_client = before_client
    try:
        yield
    finally:
        runtime._Executor._before_client = original


def measure_clients(num_clients, options):
    """Return a client's wall and CPU seconds, both over those among five, and the peak bytes."""
    import numpy as np

    from fedutils.tff import tff

    rng = np.random.default_rng(0)
    size = options.steps * options.batch
    shared = [_tasks.make_images(rng, size, options.image_size) for _ in range(NUM_SHARED)]

    def make_clients(count):
        return [shared[k % NUM_SHARED].batch(options.batch) for k in range(count)]

    task = _tasks.Task(_tasks.build_network("cnn", options.image_size), make_clients(NUM_SHARED))
    _tasks.use_runtime("in_process", concurrent_clients=1)
    contexts = tff.framework.get_context_stack()
    other = contexts.current  # a context computes one thing at a time: small rounds have one of their own
    _tasks.use_runtime("in_process", concurrent_clients=1)
    run_round = _tasks.build_federated_round(task)

    def run_few():
        with contexts.install(other):
            run_round(make_clients(NUM_SHARED))

    def compare(num_rounds, count):
        comparison = Comparison(run_few, every=min(count, options.every))
        with calling_before_each_client(comparison.before_client):
            for _ in range(num_rounds):
                comparison.measure(lambda: run_round(make_clients(count)))
        return comparison

    compare(1, options.every)  # traces
    num_rounds = max(1, options.work // num_clients)
    found = compare(num_rounds, num_clients)
    among_many = found.many / (num_rounds * num_clients)
    among_few = found.few / (found.num_few * NUM_SHARED)
    return *among_many, *(among_many / among_few), _common.read_peak()


def main():
    parser = _common.build_parser(__doc__)
    parser.add_argument("--clients", nargs="+", type=int, default=NUM_CLIENTS)
    parser.add_argument("--work", type=int, default=1500, help="clients in all measured rounds, about")
    parser.add_argument("--every", type=int, default=20, help="clients between two rounds of five")
    parser.add_argument("--steps", type=int, default=8, help="of a client")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--image-size", type=int, default=28)
    options = parser.parse_args()
    fewest, most = str(min(options.clients)), str(max(options.clients))
    wall, cpu, relative, relative_cpu, memory = columns = [{} for _ in range(5)]
    for number in options.clients:
        found = _common.run_fresh(measure_clients, number, options)
        for column, value in zip(columns, found, strict=True):
            column[str(number)] = value
        _common.report(
            f"{number} clients: {1e3 * found[0]:.2f} ms and {1e3 * found[1]:.2f} CPU ms a client, "
            f"{found[2]:.3f} and {found[3]:.3f} of those among five, {found[4] / _common.MEGABYTE:.0f} MB"
        )
    result = {
        "clients_scaling_seconds_per_client": {n: round(s, 5) for n, s in wall.items()},
        "clients_scaling_cpu_seconds_per_client": {n: round(s, 5) for n, s in cpu.items()},
        "clients_scaling_time_over_five": {n: round(ratio, 3) for n, ratio in relative.items()},
        "clients_scaling_cpu_over_five": {n: round(ratio, 3) for n, ratio in relative_cpu.items()},
        "clients_scaling_time_ratio": round(max(relative.values()) / min(relative.values()), 3),
        "clients_scaling_cpu_ratio": round(max(relative_cpu.values()) / min(relative_cpu.values()), 3),
        "clients_scaling_memory_mb": {n: round(b / _common.MEGABYTE) for n, b in memory.items()},
        "clients_scaling_memory_ratio": round(memory[most] / memory[fewest], 3),
        "clients_scaling_steps": options.steps,
        "clients_scaling_batch_size": options.batch,
        "clients_scaling_image_size": options.image_size,
    }
    _common.finish(result, options.out)


if __name__ == "__main__":
    main()
