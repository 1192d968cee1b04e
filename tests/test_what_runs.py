"""What runs in process and in TFF's worker: every case of the table, and the committed matrix.

Each case runs in both runtimes, mostly two rounds, and compares all weights and metrics to 1e-5; a random one
is held to what is known of its result. The outcomes are tests/what_runs.json, from which the README's table
is made. With FEDUTILS_UPDATE=1 in the environment the file is written; otherwise a test compares, where all
cases ran.
"""

import gc
import json
import os
from pathlib import Path

import pytest
import what_runs_aggregation
import what_runs_learning
import what_runs_operators
import what_runs_programs
from what_runs import CASES, GROUPS, start_runtimes

from fedutils import runtime

MATRIX = Path(__file__).parent / "what_runs.json"
# Each adds its cases to CASES.
MODULES = (what_runs_aggregation, what_runs_learning, what_runs_operators, what_runs_programs)
TABLE = sorted(CASES, key=lambda key: GROUPS.index(key[0]))


@pytest.fixture(scope="module")
def both():
    gc.freeze()  # going through all that was imported, again and again, would take a fifth of the time
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield start_runtimes(monkeypatch)
        runtime.use("in_process")  # stops the worker
    gc.unfreeze()


@pytest.fixture(scope="module")
def outcomes():
    return {}


@pytest.mark.parametrize(("group", "name"), TABLE, ids=[f"{g}: {n}" for g, n in TABLE])
def test_case(both, outcomes, group, name, tmp_path):
    both.folder = tmp_path
    outcomes[group, name] = CASES[group, name](both)


def test_the_committed_matrix_says_what_ran(outcomes):
    if len(outcomes) < len(CASES):
        pytest.skip(f"{len(outcomes)} of {len(CASES)} cases ran")
    matrix = {}
    for group, name in TABLE:
        matrix.setdefault(group, {})[name] = outcomes[group, name]
    text = json.dumps(matrix, indent=1, ensure_ascii=False) + "\n"
    if os.environ.get("FEDUTILS_UPDATE") == "1":
        MATRIX.write_text(text)
    assert MATRIX.read_text() == text, "run again with FEDUTILS_UPDATE=1, then 'make figures' for the README"
