"""Run the benchmarks, all or those named, and merge what they measured into ``benchmarks/results.json``.

``python -m benchmarks [NAME ...]`` (``make bench`` runs all); after one name come options of that benchmark,
as in ``python -m benchmarks round_overhead --model cnn``, and only what it measures then is replaced. Each
benchmark is a script that writes one JSON line to the file given by ``--out``. It runs in a process of its
own, with its output in a file: TFF's worker would hold a pipe open. What was measured is kept after each
script; keys of those that did not run stay.
At the end the figure and the README are made anew.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from fedutils.readme import update_readme
from fedutils.results import git_commit, machine, to_json, versions, write_atomic

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
OUTPUT = HERE.parent / "build" / "bench"


def run_script(script, options):
    """Run one benchmark; return its exit status, what it measured, and of which commit and how long."""
    out, log = OUTPUT / f"{script.stem}.json", OUTPUT / f"{script.stem}.log"
    out.unlink(missing_ok=True)
    print(f"{script.stem}: running", flush=True)
    started = time.monotonic()
    with log.open("wb") as file:
        command = [sys.executable, str(script), "--out", str(out), *options]
        status = subprocess.run(command, stdout=file, stderr=file, check=False).returncode
    if status:
        print(log.read_text(errors="replace")[-4000:])
        print(f"error: {script.name} ended with status {status}; its log is {log}", file=sys.stderr)
        return status, {}, {}
    print(out.read_text().strip(), flush=True)
    minutes = round((time.monotonic() - started) / 60, 1)
    asked = {"options": options} if options else {}
    return 0, json.loads(out.read_text()), git_commit() | {"minutes": minutes} | asked


def main() -> int:
    """Run the benchmarks one after another; return the first failure's status."""
    scripts = {script.stem: script for script in sorted(HERE.glob("[!_]*.py"))}
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", nargs="*", help=f"of {', '.join(scripts)}; all of them by default")
    arguments, options = parser.parse_known_args()
    names = arguments.name or list(scripts)
    if options and len(names) > 1:
        parser.error(f"expected one name before the options of a benchmark, found {len(names)}")
    if unknown := set(names) - scripts.keys():
        parser.error(f"expected any of {', '.join(scripts)}, found {', '.join(sorted(unknown))}")
    OUTPUT.mkdir(parents=True, exist_ok=True)
    merged = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in names:
        status, measured, run = run_script(scripts[name], options)
        if status:
            return status
        key = " ".join((name, *options))
        merged |= measured | {"runs": merged.get("runs", {}) | {key: run}}
        merged |= {"versions": versions(), "machine": machine(), "git": git_commit()}
        write_atomic(RESULTS, to_json(merged).encode())
    draw = subprocess.run([sys.executable, str(HERE / "_figure.py")], check=False)
    update_readme()
    return draw.returncode


if __name__ == "__main__":
    sys.exit(main())
