"""Processes that end with the one that started them, and the timeline of what they did."""

import os
import subprocess
import sys
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hospital_helpers import ROOT, make_all_certificates, make_state

from fedutils.errors import InputError
from fedutils.hospital.processes import Children
from fedutils.hospital.timeline import Mark, Span, read_marks, read_spans
from fedutils.plots_hospital import plot_round_seconds, plot_timeline

SLEEP = "import os, time; print('pid', os.getpid(), flush=True); time.sleep(60)"


@pytest.fixture
def children(tmp_path):
    started = Children(tmp_path / "logs")
    yield started
    started.stop()


def is_alive(pid):
    """Return whether a process runs, and is no zombie that nobody has waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition):
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def test_a_server_is_killed_and_comes_back_on_its_port(tmp_path, children):
    make_state(tmp_path / "state.db")
    certificates = make_all_certificates(tmp_path / "certificates", ["alpha"])
    words = ("--state", tmp_path / "state.db", "--certificates", certificates / "server", "--no-menu")
    port = children.start_server(*words)
    with pytest.raises(InputError, match="server: expected a process that has ended, found it running"):
        children.start_server(*words)
    children.kill("server")
    assert not children.is_running("server")
    assert children.start_server(*words, port=port) == port
    children.stop()
    assert "logged out" in children.read("server"), "stopped by a signal that it could heed"


def test_what_a_process_printed_last_is_told_when_it_fails(children):
    children.run("broken", "-c", "print('began'); raise SystemExit('no such thing')")
    with pytest.raises(InputError, match=r"broken: expected 'ready' from it, found: no such thing"):
        children.wait_for("broken", "ready")
    with pytest.raises(InputError, match="expected it to end well"):
        children.wait("broken")
    children.run("good", "-c", "print('ready')")
    assert children.wait_for("good", "r(ead)y")[1] == "ead"
    children.wait("good")
    children.run("slow", "-c", SLEEP)
    with pytest.raises(InputError, match="end well within 0"):
        children.wait("slow", timeout_s=0.05)


def test_no_process_outlives_the_one_that_started_it_not_even_a_kill(tmp_path):
    code = (
        "import sys, time; from fedutils.hospital.processes import Children\n"
        f"children = Children(sys.argv[1]); children.run('child', '-c', {SLEEP!r})\n"
        "print(children.wait_for('child', r'pid (\\d+)')[1], flush=True); time.sleep(60)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment
    )
    pid = int(parent.stdout.readline())
    assert is_alive(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert wait_until(lambda: not is_alive(pid))


def test_journals_and_log_are_read_on_one_clock():
    begin = "2026-01-01T00:00:00+00:00"
    entry = {"action": "get", "begin": "2026-01-01T00:00:01.500+00:00", "end": "2026-01-01T00:00:03+00:00"}
    assert read_spans({"alpha": [entry | {"good": True}]}, begin) == [Span("alpha", "get", 1.5, 3.0)]
    log = [
        {"who": "beta", "event": event, "time": "2026-01-01T01:00:04.250+01:00", "version": 2}
        for event in ("created", "aggregated", "refused")
    ]
    assert read_marks(log, begin) == [
        Mark("beta", "aggregated", -3595.75 + 3600, 2),
        Mark("beta", "refused", 4.25, 2),
    ]


def test_a_timeline_has_a_bar_a_span_in_its_lane_and_a_line_a_mean():
    spans = [Span("alpha", "train", 1.0, 4.0), Span("beta", "get", 2.0, 2.5)]
    marks = [
        Mark("beta", "submitted", 5.0),
        Mark("server", "aggregated", 6.0, 1),
        Mark("server", "aggregated", 9.0, 2),
        Mark("?", "turned away", 5.0),  # in no lane
    ]
    ax = plot_timeline(spans, marks, ("alpha", "beta"))
    bars = {(bar.get_x(), bar.get_width(), round(bar.get_y() + 0.25)) for bar in ax.patches}
    assert bars == {(1.0, 3.0, 0), (2.0, 0.5, 1)}
    assert [c.get_offsets().tolist() for c in ax.collections] == [[[5.0, 1.0]]]
    assert [t.get_text() for t in ax.texts] == ["version 1", "version 2"]
    shown = [t.get_text() for t in ax.get_legend().get_texts()]
    assert shown == ["get", "train", "stored by the server"]
    plt.close(ax.figure)
    ax = plot_timeline(spans, marks, ("alpha", "beta"), between=(4.5, 7.0), legend=False)
    assert ax.get_xlim() == (4.5, 7.0) and [t.get_text() for t in ax.texts] == ["version 1"]
    assert ax.get_legend() is None
    plt.close(ax.figure)


def test_seconds_of_a_round_are_a_dot_for_each_hospital_and_action():
    ax = plot_round_seconds({"get": np.array([0.1, 0.2]), "send": np.array([1.0, 3.0])}, ("alpha", "beta"))
    assert [c.get_offsets().tolist() for c in ax.collections] == [
        [[0.1, 0.0], [0.2, 1.0]],
        [[1.0, 0.0], [3.0, 1.0]],
    ]
    assert ax.get_xscale() == "log"
    plt.close(ax.figure)
