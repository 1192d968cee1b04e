"""A server and hospitals as processes of their own: what counts, what is refused, and that it stays up."""

import concurrent.futures
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hospital_helpers import SHAPES, Calls, make_all_certificates, make_arrays, make_state, running

from fedutils.errors import InputError
from fedutils.hospital.client import Refusal
from fedutils.hospital.service import CHUNK_BYTES, Layer, Refused, name_reason
from fedutils.hospital.state import State, read_log
from fedutils.hospital.weights import hash_bytes, pack

HOSPITALS = [f"hospital_{number:02}" for number in range(20)]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificates")
    return make_all_certificates(folder, ["alpha", "beta", "gamma", *HOSPITALS])


@pytest.fixture
def server(tmp_path, certificates):
    layers = make_state(tmp_path / "state.db")
    with running(tmp_path, certificates) as started:
        started.layers = layers
        yield started


def mean_of(parts):
    """Return the weighted mean of (cases, arrays), in float64."""
    total = sum(cases for cases, _ in parts)
    return [
        sum(cases * arrays[i].astype(np.float64) for cases, arrays in parts) / total
        for i in range(len(parts[0][1]))
    ]


def test_a_round_gives_the_mean_by_cases_and_forgets_who_was_in_it(server):
    with server.console("alpha") as alpha, server.console("beta") as beta, server.console("operator") as boss:
        got = alpha.get_model()
        assert (got.version, got.file) == (0, b"a model file")
        assert all(np.array_equal(a, b) for a, b in zip(got.arrays, make_arrays(0), strict=True))
        alpha.send(0, 10, make_arrays(1), got.layers)
        assert beta.count_collected() == 1
        beta.send(0, 30, make_arrays(2), got.layers)
        assert (boss.count_collected(), boss.aggregate(), boss.count_collected()) == (2, 1, 0)
        got = beta.get_model()
        expected = mean_of([(10, make_arrays(1)), (30, make_arrays(2))])
        assert got.version == 1
        assert all(np.array_equal(a, b.astype(np.float32)) for a, b in zip(got.arrays, expected, strict=True))
        alpha.send(1, 5, make_arrays(3), got.layers)
        boss.aggregate()  # alone: beta's weights of before are not in it
        assert np.array_equal(alpha.get_model().arrays[0], make_arrays(3)[0])


def test_twenty_hospitals_send_at_once_and_each_is_counted_once(tmp_path, certificates):
    shapes = ((300, 500), (500,), (500, 331))  # more than one chunk
    layers = make_state(tmp_path / "state.db", shapes)
    arrays = {name: make_arrays(i + 1, shapes) for i, name in enumerate(HOSPITALS)}
    assert len(pack(arrays[HOSPITALS[0]])) > CHUNK_BYTES
    gate = threading.Barrier(len(HOSPITALS))

    def take_part(number):
        with server.console(HOSPITALS[number]) as console:
            gate.wait()
            got = console.get_model()
            return console.send(got.version, number + 1, arrays[HOSPITALS[number]], layers)

    with running(tmp_path, certificates, "--aggregate-when", "20") as server:
        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            digests = list(pool.map(take_part, range(20)))
        with server.console("operator") as boss:
            got = boss.get_model()
        assert server.stop() == 0
    assert got.version == 1
    expected = mean_of([(i + 1, arrays[name]) for i, name in enumerate(HOSPITALS)])
    assert all(np.array_equal(a, b.astype(np.float32)) for a, b in zip(got.arrays, expected, strict=True))
    entry = next(e for e in read_log(tmp_path / "state.db") if e["event"] == "aggregated")
    assert [(p["hospital"], p["cases"], p["sha256"]) for p in entry["parts"]] == [
        (name, i + 1, digests[i]) for i, name in enumerate(HOSPITALS)
    ]


def test_stale_and_repeated_weights_are_refused_and_counted_once(server):
    with server.console("alpha") as alpha, server.console("operator") as boss:
        alpha.send(0, 1, make_arrays(1), server.layers)
        with pytest.raises(Refusal, match="one submission of alpha for version 0") as caught:
            alpha.send(0, 1, make_arrays(2), server.layers)
        assert caught.value.reason == "REPEATED" and boss.count_collected() == 1
        boss.aggregate()
        for version in (0, 2, -1):
            with pytest.raises(Refusal, match=f"trained from version 1, found version {version}"):
                alpha.send(version, 1, make_arrays(2), server.layers)
        with pytest.raises(Refusal, match="found none") as caught:
            boss.aggregate()
        assert caught.value.reason == "NOTHING_COLLECTED"


def changed(**changes):
    return lambda layers: [
        Layer(**{"name": s.name, "dtype": s.dtype, "shape": list(s.shape)} | (changes if i == 0 else {}))
        for i, s in enumerate(layers)
    ]


@pytest.mark.parametrize(
    ("reason", "make"),
    [
        ("WRONG_SHAPE", changed(shape=[5, 3])),
        ("WRONG_DTYPE", changed(dtype="float16")),
        ("WRONG_LAYERS", changed(name="another/kernel")),
        ("WRONG_LAYERS", lambda layers: changed()(layers)[:-1]),
        ("TOO_LARGE", changed(shape=[2_500_000_000])),  # 10 GB
    ],
)
def test_a_wrong_description_is_refused_before_a_byte_is_sent(server, reason, make):
    before = server.read_memory()
    with server.connect() as secure:
        calls = Calls(secure)
        with pytest.raises(Refused) as caught:
            calls.begin_submission("alpha", 0, 1, make(server.layers))
        assert name_reason(caught.value) == reason and "expected" in caught.value.message
        with pytest.raises(Refused, match="begun first"):
            calls.send_chunk(0, b"1234")
        assert calls.number_weights_collected() == 0
    assert server.read_memory() < before + 20, "megabytes"


@pytest.mark.parametrize("cases", [0, -5, 10_000_000, None])
def test_a_number_of_cases_out_of_range_is_refused(server, cases):
    with server.connect() as secure, pytest.raises(Refused) as caught:
        Calls(secure).begin_submission("alpha", 0, cases, changed()(server.layers))
    assert name_reason(caught.value) == "BAD_NUMBER"


def test_weights_that_are_not_finite_or_too_far_away_are_refused_and_not_stored(server):
    with server.console("alpha") as alpha:
        for reason, value in (("NOT_FINITE", np.nan), ("NOT_FINITE", np.inf), ("TOO_FAR", 1001)):
            arrays = make_arrays(0)
            arrays[1][3] = value
            with pytest.raises(Refusal) as caught:
                alpha.send(0, 1, arrays, server.layers)
            assert caught.value.reason == reason
        assert alpha.count_collected() == 0
        alpha.send(0, 1, make_arrays(1), server.layers)  # and a good one is welcome after them
    server.stop()
    state = State(server.state)
    assert [s.hospital for s in state.list_collected()] == ["alpha"]
    state.close()


def test_chunks_that_do_not_follow_one_another_are_refused(server):
    data = pack(make_arrays(1))
    layers = changed()(server.layers)

    def begin(secure):
        calls = Calls(secure)
        calls.begin_submission("alpha", 0, 1, layers)
        return calls

    tries = {
        "WRONG_ORDER": lambda calls: calls.send_chunk(10, data[10:]),
        "TOO_LARGE": lambda calls: calls.send_chunk(0, data + b"more"),
        "INCOMPLETE": lambda calls: (
            calls.send_chunk(0, data[:-4]),
            calls.commit_submission(hash_bytes(data)),
        ),
        "WRONG_HASH": lambda calls: (calls.send_chunk(0, data), calls.commit_submission(hash_bytes(b"else"))),
    }
    for reason, attempt in tries.items():
        with server.connect() as secure:
            calls = begin(secure)
            with pytest.raises(Refused) as caught:
                attempt(calls)
            assert name_reason(caught.value) == reason
            with pytest.raises(Refused, match="begun first"):  # the rest of it is of no use
                calls.commit_submission(hash_bytes(data))
    with server.connect() as secure:
        calls = begin(secure)
        with pytest.raises(Refused, match="one submission at a time"):
            calls.begin_submission("alpha", 0, 1, layers)
        calls.send_chunk(0, data)
        assert calls.commit_submission(hash_bytes(data)).number_of_cases == 1


def test_submissions_of_one_hospital_side_by_side_count_once(server):
    data = [pack(make_arrays(seed)) for seed in (1, 2)]
    with server.connect() as one, server.connect() as two:
        sides = [Calls(one), Calls(two)]
        for calls, part in zip(sides, data, strict=True):
            calls.begin_submission("alpha", 0, 1, changed()(server.layers))
            calls.send_chunk(0, part)
        sides[1].commit_submission(hash_bytes(data[1]))
        with pytest.raises(Refused) as caught:
            sides[0].commit_submission(hash_bytes(data[0]))
        assert name_reason(caught.value) == "REPEATED"
        assert sides[0].get_receipt(0).sha256 == hash_bytes(data[1])


def test_memory_rates_and_time_are_limited(tmp_path, certificates):
    layers = make_state(tmp_path / "state.db")
    size = sum(layer.num_bytes for layer in layers)
    options = ["memory_mb=" + str(1.5 * size / 1e6), "submissions_a_minute=2", "submission_s=0.2"]
    options = [word for option in options for word in ("--limit", option)]
    with running(tmp_path, certificates, *options) as server:
        with server.connect("alpha") as one, server.connect("beta") as two:
            alpha, beta = Calls(one), Calls(two)
            alpha.begin_submission("alpha", 0, 1, changed()(layers))
            with pytest.raises(Refused) as caught:
                beta.begin_submission("beta", 0, 1, changed()(layers))
            assert name_reason(caught.value) == "BUSY"
            time.sleep(0.25)
            with pytest.raises(Refused) as caught:
                alpha.send_chunk(0, b"1234")
            assert name_reason(caught.value) == "TOO_LATE"
            beta.begin_submission("beta", 0, 1, changed()(layers))  # what alpha had claimed is free
            with pytest.raises(Refused) as caught:
                Calls(one).begin_submission("beta", 0, 1, changed()(layers))
            assert name_reason(caught.value) == "NOT_YOURS"
        with server.connect("gamma") as secure:
            calls = Calls(secure)
            for _ in range(2):
                calls.begin_submission("gamma", 0, 1, changed()(layers))
                with pytest.raises(Refused, match="begin again"):
                    calls.send_chunk(7, b"")  # which forgets the one that was begun
            with pytest.raises(Refused) as caught:
                calls.begin_submission("gamma", 0, 1, changed()(layers))
            assert name_reason(caught.value) == "TOO_OFTEN"


def test_a_state_serves_one_server_at_a_time(server, certificates):
    with pytest.raises(InputError, match="that no server has open"):
        State(server.state)
    with (
        pytest.raises(RuntimeError, match=r"error: .*no server has open"),
        running(server.folder, certificates),
    ):
        pass
    assert server.is_up()


def test_the_server_never_loads_tensorflow(server):
    maps = Path(f"/proc/{server.process.pid}/maps").read_text()
    assert "tensorflow" not in maps and "_multiarray_umath" in maps


def test_the_log_says_who_sent_what_when_and_nothing_of_the_weights(server):
    with server.console("alpha") as alpha:
        sha256 = alpha.send(0, 12, make_arrays(1), server.layers)
        with pytest.raises(Refusal):
            alpha.send(0, 12, make_arrays(2), server.layers)
    log = read_log(server.state)  # while the server runs
    assert [(e["who"], e["event"]) for e in log] == [
        ("server", "created"),
        ("alpha", "submitted"),
        ("alpha", "refused"),
    ]
    assert log[1] == log[1] | {"cases": 12, "bytes": 4 * (15 + 5 + 42), "sha256": sha256, "version": 0}
    assert log[2]["reason"] == "REPEATED"
    assert all(e["time"].startswith("20") and e["time"].endswith("+00:00") for e in log)
    assert server.state.stat().st_mode & 0o077 == 0
    assert SHAPES[0] == (3, 5)
