"""How the benchmarks measure and report: fresh processes, CPU seconds, resident memory, one JSON line.

Importing this file does not import TensorFlow.
"""

import argparse
import concurrent.futures
import json
import multiprocessing
import os
import sys
import time
from pathlib import Path

MEGABYTE = 1e6


def build_parser(description):
    """Return a parser with the option that every benchmark has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, help="write the JSON line to this file as well")
    return parser


def finish(result, out):
    """Print a benchmark's result as one JSON line and write it to `out`, whole or not at all."""
    line = json.dumps(result)
    print(line, flush=True)
    if out:
        partial = out.with_name(out.name + ".partial")
        partial.write_text(line + "\n")
        partial.replace(out)


def report(text):
    """Say on standard error what is under way."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def run_fresh(function, *arguments):
    """Call a function of the script in a new process and return what it returns.

    What was traced, cached or allocated before then has no part in what it measures.
    """
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def add_suffix(result, model):
    """Return `result` with the model's name in every key; the separable network's keys have none."""
    return {key if model == "separable" else f"{key}_{model}": value for key, value in result.items()}


def read_cpu_seconds(worker=None):
    """Return the CPU seconds that this process, and the worker of the given pid, have used so far."""
    own = os.times()
    seconds = own.user + own.system
    if worker is not None:
        # utime and stime are fields 14 and 15; the command's name before them may hold spaces.
        fields = Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()
        seconds += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return seconds


def measure(function, worker=None):
    """Call a function; return its CPU seconds, with those of the worker of this pid, and its wall seconds."""
    cpu, wall = read_cpu_seconds(worker), time.perf_counter()
    function()
    return read_cpu_seconds(worker) - cpu, time.perf_counter() - wall


def read_resident(pid="self"):
    """Return the bytes of a process that are in memory now."""
    return _read_status(pid, "VmRSS")


def read_peak(pid="self"):
    """Return the most bytes of a process that have been in memory so far."""
    return _read_status(pid, "VmHWM")


def _read_status(pid, field):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"process {pid} has ended")
