"""What is left when a hospital or the server is killed: all that was acknowledged, once, and nothing else."""

import itertools
import multiprocessing
import sqlite3
import threading
import time

import numpy as np
import pytest
from hospital_helpers import RunningServer, make_all_certificates, make_arrays, make_state, running

from fedutils.errors import InputError
from fedutils.hospital.client import Console, Refusal
from fedutils.hospital.state import State, read_log
from fedutils.hospital.weights import average, hash_bytes, pack, unpack
from fedutils.hospital.wire import Closed

HOSPITALS = ("alpha", "beta", "gamma")
LARGE = ((500, 700), (700,), (700, 300))  # 2.2 MB: three chunks


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return make_all_certificates(tmp_path_factory.mktemp("certificates"), HOSPITALS)


def send_slowly(port, certificates, layers, begun):
    """Send two of three chunks, say so, and wait to be killed."""
    from hospital_helpers import make_arrays, pack

    console = Console(("localhost", port), certificates / "alpha", "alpha")
    data = pack(make_arrays(1, LARGE, 0.1))
    console._call("begin_submission", "alpha", 0, 3, [layer.to_thrift() for layer in layers])
    for offset in range(0, 2 << 20, 1 << 20):
        console._call("send_chunk", offset, data[offset : offset + (1 << 20)])
    begun.set()
    time.sleep(60)


def test_a_hospital_that_is_killed_while_it_sends_leaves_nothing_behind(tmp_path, certificates):
    layers = make_state(tmp_path / "state.db", LARGE)
    one_only = ["--limit", "memory_mb=3"]  # a second submission fits only if the first is forgotten
    with running(tmp_path, certificates, *one_only) as server:
        context = multiprocessing.get_context("spawn")
        begun = context.Event()
        process = context.Process(target=send_slowly, args=(server.port, certificates, layers, begun))
        process.start()
        assert begun.wait(30)
        process.kill()
        process.join()
        with server.console("beta") as beta:
            assert beta.count_collected() == 0
            beta.send(0, 5, make_arrays(2, LARGE, 0.1), layers)
            assert beta.count_collected() == 1
        with server.console("alpha") as alpha:  # and it may come back
            alpha.send(0, 5, make_arrays(1, LARGE, 0.1), layers)
            assert alpha.count_collected() == 2


def test_a_stop_between_the_last_submission_and_the_mean_is_made_up_for(tmp_path, certificates):
    layers = make_state(tmp_path / "state.db")
    with running(tmp_path, certificates) as server:
        for name in HOSPITALS[:2]:
            with server.console(name) as console:
                console.send(0, 1, make_arrays(1), layers)
    with running(tmp_path, certificates, "--aggregate-when", "2") as server:
        assert "version 1, 0 sets" in server.first_line


class Federation:
    """Hospitals that send again and again, whatever happens to the server, and note each acknowledgement."""

    def __init__(self, server, layers, seed):
        self._server, self._seed = server, seed
        self._layers = [layer.to_thrift() for layer in layers]
        self.acknowledged, self.faults, self.over = [], [], threading.Event()
        self.calls = itertools.count()  # all that were answered
        self.answered = 0
        self.threads = [threading.Thread(target=self._take_part, args=(name,)) for name in HOSPITALS]

    def _take_part(self, name):
        console = self._server.console(name)
        for attempt in itertools.count():
            if self.over.is_set():
                break
            try:
                self._send(console, name, attempt)
            except (Closed, Refusal):  # the server is gone, or has moved on: begin again
                console.close()
                time.sleep(0.03)
            except Exception as error:
                self.faults.append(error)
                break
        console.close()

    def _send(self, console, name, attempt):
        def call(method, *arguments):
            answer = console._call(method, *arguments)
            self.answered = next(self.calls)
            return answer

        version = call("version_number")
        if call("get_receipt", version).sha256:  # wait for the others
            time.sleep(0.02)
            return
        number = HOSPITALS.index(name)
        arrays = make_arrays([self._seed, number, attempt], LARGE, 0.1)
        data = pack(arrays)
        call("begin_submission", name, version, 1 + (attempt + number) % 7, self._layers)
        for at in range(0, len(data), 1 << 20):
            call("send_chunk", at, data[at : at + (1 << 20)])
        receipt = call("commit_submission", hash_bytes(data))
        self.acknowledged.append((name, version, receipt.number_of_cases, receipt.sha256, arrays))

    def wait_for(self, calls):
        """Wait until so many more calls were answered."""
        end, deadline = self.answered + calls, time.monotonic() + 30
        while self.answered < end and time.monotonic() < deadline:
            time.sleep(0.0005)


def check_history(path, layers, acknowledged):
    """Hold what is on the disk to what was acknowledged, and each version to the mean of that."""
    state = State(path)
    log = read_log(path)
    submitted = [(e["who"], e["version"], e["cases"], e["sha256"]) for e in log if e["event"] == "submitted"]
    known = {tuple(a[:4]): a[4] for a in acknowledged}
    assert len(known) == len(acknowledged) and set(known) <= set(submitted), "acknowledged and lost"
    assert len({s[:2] for s in submitted}) == len(submitted), "counted twice"
    means = [e for e in log if e["event"] == "aggregated"]
    assert [e["version"] for e in means] == list(range(1, state.model.version + 1))
    for mean in means:
        parts = [(p["hospital"], mean["version"] - 1, p["cases"], p["sha256"]) for p in mean["parts"]]
        assert sorted(parts) == parts == sorted(s for s in submitted if s[1] == mean["version"] - 1)
        if all(part in known for part in parts):  # a lost acknowledgement hides the arrays from this test
            weights = average(layers, ((part[2], pack(known[part])) for part in parts))
            assert hash_bytes(weights) == mean["sha256"]
    waiting = [(s.hospital, s.version, s.cases, s.sha256) for s in state.list_collected()]
    assert waiting == sorted(s for s in submitted if s[1] == state.model.version)
    assert all(np.isfinite(a).all() for a in unpack(state.model.layers, state.model.weights))
    state.close()
    with sqlite3.connect(path) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        # Weights are kept of what was not aggregated yet, and of nothing else.
        stored = database.execute("SELECT hospital FROM submissions ORDER BY hospital").fetchall()
    assert [name for (name,) in stored] == [w[0] for w in waiting]


def test_a_server_that_is_killed_50_times_loses_nothing_and_counts_nothing_twice(tmp_path, certificates):
    layers = make_state(tmp_path / "state.db", LARGE)
    rng = np.random.default_rng(2026)
    options = ["--aggregate-when", "3", "--limit", "submissions_a_minute=1e6"]
    server = RunningServer(tmp_path, certificates, *options)
    federation = Federation(server, layers, seed=11)
    for thread in federation.threads:
        thread.start()
    try:
        for _ in range(50):
            federation.wait_for(int(rng.integers(1, 40)))  # a round is some 25 calls
            time.sleep(rng.uniform(0, 0.02))  # and then in the middle of one
            server.kill()
            server.start()
    finally:
        federation.over.set()
        for thread in federation.threads:
            thread.join(30)
        server.kill()
    assert not federation.faults
    assert len(federation.acknowledged) >= 15, "hospitals must have got something through"
    check_history(tmp_path / "state.db", layers, federation.acknowledged)
    aggregated = [e for e in read_log(tmp_path / "state.db") if e["event"] == "aggregated"]
    assert len(aggregated) >= 3, "and the server must have gone on"


def test_a_damaged_state_is_refused_in_a_line(tmp_path):
    make_state(tmp_path / "state.db")
    data = bytearray((tmp_path / "state.db").read_bytes())
    data[:100] = bytes(100)
    (tmp_path / "state.db").write_bytes(data)
    with pytest.raises(InputError, match="expected the state of a server"):
        State(tmp_path / "state.db")
    with pytest.raises(InputError, match="expected the state of a server, found no file"):
        State(tmp_path / "missing.db")


def test_a_state_that_is_taken_away_is_not_made_anew(tmp_path):
    make_state(tmp_path / "state.db")
    state = State(tmp_path / "state.db")
    (tmp_path / "state.db").rename(tmp_path / "elsewhere.db")
    with pytest.raises(sqlite3.Error):
        state.tidy()
    assert not (tmp_path / "state.db").exists()
    state.close()


def test_a_full_disk_refuses_a_submission_and_keeps_the_rest(tmp_path):
    layers = make_state(tmp_path / "state.db", LARGE)
    state = State(tmp_path / "state.db")
    state.submit("alpha", 0, 1, pack(make_arrays(1, LARGE, 0.1)), "a")
    pages = state._database.execute("PRAGMA page_count").fetchone()[0]
    state._database.execute(f"PRAGMA max_page_count = {pages + 5}")
    with pytest.raises(Exception, match="nothing was stored"):
        state.submit("beta", 0, 1, pack(make_arrays(2, LARGE, 0.1)), "b")
    assert [s.hospital for s in state.list_collected()] == ["alpha"]
    state._database.execute("PRAGMA max_page_count = 1000000")
    state.submit("beta", 0, 1, pack(make_arrays(2, LARGE, 0.1)), "b")
    assert state.aggregate().version == 1 and layers
    state.close()
