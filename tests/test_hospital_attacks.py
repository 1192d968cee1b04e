"""Strangers, impostors, slow and noisy connections: each is refused with a reason; the server stays up."""

import contextlib
import datetime
import select
import socket
import ssl
import struct
import threading
import time

import numpy as np
import pytest
from hospital_helpers import Calls, ask_raw, make_all_certificates, make_arrays, make_state, running

from fedutils.errors import InputError
from fedutils.hospital.certificates import make_certificates
from fedutils.hospital.client import Console
from fedutils.hospital.service import Refused, name_reason
from fedutils.hospital.state import read_log
from fedutils.hospital.tls import make_context
from fedutils.hospital.weights import hash_bytes, pack
from fedutils.hospital.wire import MOST_FRAME, Closed, FramedSocket

NOW = datetime.datetime.now(datetime.UTC)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    folder = make_all_certificates(tmp_path_factory.mktemp("certificates"))
    make_certificates(folder, ["expired"], days=1, now=NOW - datetime.timedelta(days=3))
    make_certificates(folder, ["early"], days=1, now=NOW + datetime.timedelta(days=3))
    return folder


@pytest.fixture
def server(tmp_path, certificates):
    layers = make_state(tmp_path / "state.db")
    with running(tmp_path, certificates) as started:
        started.layers = [layer.to_thrift() for layer in layers]
        yield started


def wait_for_log(server, event, count=1):
    deadline = time.monotonic() + 10
    while True:
        found = [e for e in read_log(server.state) if e["event"] == event]
        if len(found) >= count or time.monotonic() > deadline:
            return found
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("name", "reason"), [("expired", "certificate has expired"), ("early", "certificate is not yet valid")]
)
def test_a_certificate_that_is_not_good_now_is_turned_away(server, name, reason):
    with pytest.raises((Closed, OSError)), server.connect(name) as secure:
        Calls(secure).version_number()
    assert reason in wait_for_log(server, "turned away")[0]["reason"] and server.is_up()


def test_a_certificate_of_another_authority_is_turned_away_by_either_side(tmp_path, server, certificates):
    other = make_all_certificates(tmp_path / "other", ["alpha"])
    with pytest.raises(InputError, match="expected the certificate of our server"):
        Console(("localhost", server.port), other / "alpha", "alpha").get_version()
    context = make_context(other / "alpha", "alpha", server=False)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # an impostor does not care
    with pytest.raises((Closed, OSError)), socket.create_connection(("127.0.0.1", server.port)) as plain:
        Calls(context.wrap_socket(plain)).version_number()
    reasons = [entry["reason"] for entry in wait_for_log(server, "turned away", 2)]
    assert "self-signed certificate in certificate chain" in reasons
    assert server.is_up()


def test_no_certificate_and_no_tls_are_turned_away(server, certificates):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(certificates / "alpha" / "authority.pem")
    with pytest.raises((Closed, OSError)), socket.create_connection(("127.0.0.1", server.port)) as plain:
        Calls(context.wrap_socket(plain, server_hostname="localhost")).version_number()
    with socket.create_connection(("127.0.0.1", server.port)) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert b"HTTP" not in plain.recv(100)
    reasons = [entry["reason"] for entry in wait_for_log(server, "turned away", 2)]
    assert len(reasons) == 2 and "PEER_DID_NOT_RETURN_A_CERTIFICATE" in reasons
    assert server.is_up()


def test_a_servers_certificate_is_no_hospitals(server, certificates):
    with pytest.raises((Closed, OSError)), server.connect("server") as secure:
        Calls(secure).version_number()
    assert server.is_up()


def test_a_server_under_another_name_is_not_believed(server, certificates):
    context = make_context(certificates / "alpha", "alpha", server=False)
    with (
        pytest.raises(ssl.SSLCertVerificationError, match="fraud"),
        socket.create_connection(("127.0.0.1", server.port)) as plain,
    ):
        context.wrap_socket(plain, server_hostname="fraud.example")


def test_a_hospital_can_submit_as_itself_only_and_only_an_operator_aggregates(server):
    with server.connect("alpha") as secure:
        calls = Calls(secure)
        with pytest.raises(Refused, match=r"expected weights of alpha.*found 'beta'") as caught:
            calls.begin_submission("beta", 0, 1, server.layers)
        assert name_reason(caught.value) == "NOT_YOURS"
        with pytest.raises(Refused) as caught:
            calls.update_weights()
        assert name_reason(caught.value) == "NOT_ALLOWED"
    with server.connect("operator") as secure, pytest.raises(Refused) as caught:
        Calls(secure).begin_submission("operator", 0, 1, server.layers)
    assert name_reason(caught.value) == "NOT_ALLOWED"
    assert [e["reason"] for e in wait_for_log(server, "refused", 3)] == [
        "NOT_YOURS",
        "NOT_ALLOWED",
        "NOT_ALLOWED",
    ]


def test_ten_thousand_bad_frames_are_refused_one_by_one(server):
    rng = np.random.default_rng(5)
    server.is_up()
    before = server.read_memory()
    refused = 0
    while refused < 10_000:
        with server.connect() as secure:
            for _ in range(100):
                kind = refused % 4
                payload = rng.bytes(int(rng.integers(1, 300)))
                if kind == 1:  # well begun
                    payload = struct.pack("!Ii", 0x80010001, 13) + b"get_something"[:13] + payload
                elif kind == 2:  # a list that claims to be endless, in a call that exists
                    payload = struct.pack("!Ii", 0x80010001, 9) + b"get_model" + bytes(4)
                    payload += struct.pack("!bhbi", 15, 1, 1, 2**31 - 1)
                message = ask_raw(secure, payload)
                assert message.startswith(("expected", "Unknown method")), message
                assert "connections" not in message
                refused += 1
            assert message.endswith("hanging up") or "mend" in message or "Unknown" in message
    assert server.is_up()
    assert server.read_memory("VmHWM") < before + 30, "megabytes"
    notes = wait_for_log(server, "could not be read")
    assert 0 < len(notes) <= 101, "one entry a connection at most"


def test_after_too_many_bad_frames_the_server_hangs_up(server):
    with server.connect() as secure:
        messages = [ask_raw(secure, b"x" * 20) for _ in range(100)]
        assert messages[0].endswith("mend the call") and messages[-1].endswith("hanging up")
        assert secure.recv(1) == b""


@pytest.mark.parametrize("claim", [0, -1, MOST_FRAME + 1, 2**31 - 1])
def test_a_frame_that_claims_too_much_is_refused_and_not_waited_for(server, claim):
    before = server.read_memory()
    with server.connect() as secure:
        framed = FramedSocket(secure, idle_s=20, read_s=20)
        secure.sendall(struct.pack("!i", claim))
        framed.read_frame()
        assert f"found a claim of {claim:,}; hanging up".encode() in bytes(framed._frame)
    assert server.read_memory() < before + 10 and server.is_up()


def test_slow_connections_are_cut_off_and_do_not_keep_others_waiting(tmp_path, certificates):
    make_state(tmp_path / "state.db")
    limits = {"read_s": 0.5, "idle_s": 0.5, "handshake_s": 0.5, "connections": 12, "connections_each": 12}
    options = [word for name, value in limits.items() for word in ("--limit", f"{name}={value}")]
    with running(tmp_path, certificates, *options) as server:
        silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(5)]  # no handshake
        idle = [server.connect("alpha") for _ in range(2)]  # no call
        dripping = [server.connect("beta") for _ in range(3)]
        stop = threading.Event()

        def drip(secure):
            try:
                secure.sendall(struct.pack("!i", 1000))
                while not stop.wait(0.05):  # each byte long before a timeout of its own
                    secure.sendall(b"x")
            except OSError:
                pass

        threads = [threading.Thread(target=drip, args=(secure,)) for secure in dripping]
        started = time.monotonic()
        for thread in threads:
            thread.start()
        assert server.is_up()  # beside them
        for connection in (*silent, *idle):
            connection.settimeout(10)
            assert connection.recv(10) == b""
        for thread in threads:
            thread.join(10)
        assert not any(thread.is_alive() for thread in threads), "the server has hung up"
        assert time.monotonic() - started < 9
        stop.set()
        for _ in range(20):  # all places are free again
            assert server.is_up()
        for connection in (*silent, *idle, *dripping):
            connection.close()


def test_more_connections_than_allowed_are_turned_away_and_the_others_served(tmp_path, certificates):
    make_state(tmp_path / "state.db")
    options = ["--limit", "connections=6", "--limit", "connections_each=2"]
    with running(tmp_path, certificates, *options) as server:
        first = [server.connect("alpha") for _ in range(2)]
        assert [Calls(secure).version_number() for secure in first] == [0, 0]
        with server.connect("alpha") as third:
            assert "at most 2 connections of alpha" in ask_raw(third, b"anything")
        assert server.is_up()
        silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(12)]
        turned_away, deadline = set(), time.monotonic() + 8  # sooner than a handshake may take
        while len(turned_away) < 8 and time.monotonic() < deadline:
            waiting = [connection for connection in silent if connection not in turned_away]
            turned_away |= set(select.select(waiting, [], [], 0.1)[0])
        assert len(turned_away) == 8, "four find a place beside the first two"
        assert Calls(first[0]).version_number() == 0
        for connection in (*first, *silent):
            connection.close()


def test_arguments_that_are_left_out_or_of_another_kind_are_refused(server):
    with server.connect() as secure:
        calls = Calls(secure)
        for call in (
            lambda: calls.begin_submission(None, None, None, None),
            lambda: calls.begin_submission("alpha", None, 1, server.layers),
            lambda: calls.send_chunk(None, None),
            lambda: calls.commit_submission(None),
            lambda: calls.get_weights_chunk(None, None),
            lambda: calls.get_weights_chunk(0, -1),
            lambda: calls.get_weights_chunk(0, 10**12),
            lambda: calls.get_file_chunk(None),
        ):
            with pytest.raises(Refused, match="expected"):
                call()
        assert calls.get_receipt(None).sha256 == ""
        data = pack(make_arrays(1))  # and after all that, a good submission
        calls.begin_submission("alpha", 0, 1, server.layers)
        calls.send_chunk(0, data)
        assert calls.commit_submission(hash_bytes(data)).version == 0


def test_keys_are_private_and_never_shown(tmp_path, certificates, server):
    keys = sorted(certificates.glob("*/*.key"))
    assert len(keys) >= 6 and all(key.stat().st_mode & 0o777 == 0o600 for key in keys)
    assert all(key.parent.stat().st_mode & 0o077 == 0 for key in keys)
    assert not list((certificates / "alpha").glob("authority.key"))
    secret = (certificates / "server" / "server.key").read_text().splitlines()[1]
    assert secret not in (server.folder / "server.log").read_text()
    assert secret.encode() not in server.state.read_bytes()
    loose = make_all_certificates(tmp_path / "loose", ["alpha"])
    (loose / "alpha" / "alpha.key").chmod(0o640)
    with pytest.raises(InputError, match="found 640; chmod 600"):
        make_context(loose / "alpha", "alpha", server=False)


@pytest.mark.parametrize("name", ["", "../alpha", "server", "operator", "a/b", "x" * 64, ".hidden", "a b"])
def test_a_name_that_is_no_folder_gets_no_certificate(tmp_path, name):
    with pytest.raises(InputError, match="hospital: expected a name"):
        make_certificates(tmp_path / "out", [name])
    assert not (tmp_path / "out").exists()


def test_hospitals_are_added_later_by_the_same_authority_and_none_is_overwritten(tmp_path):
    written = make_certificates(tmp_path, ["alpha"])
    assert [folder.name for folder in written] == ["authority", "server", "operator", "alpha"]
    before = (tmp_path / "alpha" / "alpha.pem").read_bytes()
    assert [folder.name for folder in make_certificates(tmp_path, ["beta"])] == ["beta"]
    roots = {
        (tmp_path / name / "authority.pem").read_bytes() for name in ("authority", "server", "alpha", "beta")
    }
    assert len(roots) == 1
    with pytest.raises(InputError, match="alpha: expected a hospital without certificate"):
        make_certificates(tmp_path, ["gamma", "alpha"])
    assert (tmp_path / "alpha" / "alpha.pem").read_bytes() == before and not (tmp_path / "gamma").exists()
