"""Run every benchmark and merge what they measured into ``benchmarks/results.json`` (``make bench``).

Each benchmark is a script that writes one JSON line to the file given by ``--out``. It runs in a process of
its own, with its output in a file: TFF's worker would hold a pipe open.
"""

import json
import subprocess
import sys
from pathlib import Path

from fedutils.readme import update_readme
from fedutils.results import git_commit, machine, to_json, versions, write_atomic

HERE = Path(__file__).parent
OUTPUT = HERE.parent / "build" / "bench"


def main() -> int:
    """Run the benchmarks one after another; return the first failure's status."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    merged = {}
    for script in sorted(HERE.glob("[!_]*.py")):
        out, log = OUTPUT / f"{script.stem}.json", OUTPUT / f"{script.stem}.log"
        out.unlink(missing_ok=True)
        print(f"{script.stem}: running", flush=True)
        with log.open("wb") as file:
            command = [sys.executable, str(script), "--out", str(out)]
            status = subprocess.run(command, stdout=file, stderr=file, check=False).returncode
        if status:
            print(log.read_text(errors="replace")[-4000:])
            print(f"error: {script.name} ended with status {status}; its log is {log}", file=sys.stderr)
            return status
        merged |= json.loads(out.read_text())
        print(out.read_text().strip(), flush=True)
    merged |= {"versions": versions(), "machine": machine(), "git": git_commit()}
    write_atomic(HERE / "results.json", to_json(merged).encode())
    update_readme()
    return 0


if __name__ == "__main__":
    sys.exit(main())
