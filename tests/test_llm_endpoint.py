"""The server of a language model: one that fails in every way, and addresses that get no facts."""

import asyncio
import gzip
import json
import socket
import time

import pytest
from stub_server import StubServer, endless, event, sent, streamed, whole
from test_report_llm import FACTS, GOOD, assert_by_rules, run

from fedutils import llm_endpoint
from fedutils.errors import InputError
from fedutils.report_llm import Endpoint, ask

# ---- servers that fail


def test_nobody_listens():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: refused
        endpoint = Endpoint(f"http://127.0.0.1:{taken.getsockname()[1]}", "m", retries=1)
        assert_by_rules(ask(FACTS, endpoint), "no server answers at this address")


def slow(handler):
    handler.server.stopped.wait(10)


def slow_headers(handler):
    """A byte of a header every now and then: each comes in time, all of them never do."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    while not handler.server.stopped.wait(0.05):
        handler.wfile.write(b"X: y\r\n")


@pytest.mark.parametrize(
    "answer",
    [slow, slow_headers, endless(event("word "), 0.05), endless(b": wait\n\n", 0.05), endless(b"x", 0.05)],
    ids=["silent", "headers", "words", "comments", "no line"],
)
def test_a_slow_or_endless_reply_ends_in_time(answer):
    started = time.perf_counter()
    prose, requests = run(answer, timeout_s=1.0, retries=3)
    assert time.perf_counter() - started < 10  # such an answer goes on for ever
    assert_by_rules(prose, "no whole reply within 1 s")
    assert len(requests) == 1


@pytest.mark.parametrize(
    "answer",
    [
        endless(event("word " * 10_000), 0),
        endless(b"x" * 50_000, 0),
        endless(b" " * 50_000, 0, "application/json"),
        sent(b"data: " + b"9" * 3_000_000, "text/event-stream"),
        whole(GOOD | {"finding": "a " * 1_500_000}),
    ],
    ids=["stream", "no line", "json", "one line", "one object"],
)
def test_a_huge_reply_is_cut(answer):
    assert_by_rules(run(answer)[0], "longer than 2000000 bytes")


def test_a_gzip_bomb_is_not_opened(monkeypatch):
    def explode(*_, **__):
        raise AssertionError("decompressed")

    bomb = gzip.compress(bytes(200_000_000), 1)
    monkeypatch.setattr("zlib.decompressobj", explode)
    prose, _ = run(sent(bomb, Content_Encoding="gzip"))
    assert_by_rules(prose, "the reply was compressed")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (sent(event("{")[:30], "text/event-stream"), "cut before its end"),
        (sent(event(json.dumps(GOOD)), "text/event-stream"), "cut before its end"),  # whole, but who knows
        (sent(event("{}"), "text/event-stream", Content_Length="9999"), "cut (RemoteProtocolError)"),
        (sent(event("{") + event(reason="length"), "text/event-stream"), "cut at the server's limit"),
        (whole(GOOD, reason="length"), "cut at the server's limit"),
        (whole(GOOD, reason=None), "cut before its end"),
        (sent(b"<html>"), "not JSON"),
        (sent(b"data: {oops}\n\n", "text/event-stream"), "not JSON"),
        (sent(b"[" * 200_000), "not JSON"),
        (sent(b'{"error": "no"}'), "not that of a chat"),
        (sent(b"[]"), "not that of a chat"),
        (sent(b'{"choices": [7]}'), "not that of a chat"),
        (sent(b'{"choices": [{"message": {"content": [1]}}]}'), "held no text"),
        (sent(b"", status=404), "status 404"),
        (sent(b"", status=401), "status 401"),
        (sent(b"", status=500), "the server failed (status 500)"),
        (sent(b"", status=400), "the server refused the request (status 400)"),
        (sent(b"", status=204), "status 204"),
        (lambda handler: handler.wfile.write(b"garbage\r\n\r\n"), "RemoteProtocolError"),
        (lambda handler: None, "RemoteProtocolError"),
    ],
)  # fmt: skip
def test_a_broken_reply_ends_in_the_rules(answer, reason):
    prose, _ = run(answer)
    assert_by_rules(prose, "the language model did not answer: ")
    assert reason in prose.reason


def test_a_redirect_is_not_followed():
    with StubServer(streamed(GOOD)) as other:
        prose, _ = run(sent(b"", status=307, Location=f"{other.url}/v1/chat/completions"), retries=2)
        assert_by_rules(prose, "status 307, which would lead elsewhere")
        assert other.requests == []


def test_proxies_of_the_environment_are_not_asked(monkeypatch):
    with StubServer(streamed(GOOD)) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        prose, requests = run(streamed(GOOD))
        assert prose.author == "language model llama-test" and len(requests) == 1
        assert proxy.requests == []


def test_a_loop_that_runs_already_is_no_hindrance():
    """As in a notebook."""

    async def in_a_cell():
        return run(streamed(GOOD))

    prose, _ = asyncio.run(in_a_cell())
    assert prose.author == "language model llama-test"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_whoever_stops_the_stream_stops_the_request(error):
    def stop(text):
        raise error

    started = time.perf_counter()
    with pytest.raises(error):
        run(endless(event("word "), 0.05), on_text=stop)
    assert time.perf_counter() - started < 2


# ---- the address


@pytest.mark.parametrize(
    "url",
    ["", "127.0.0.1:8080", "ftp://127.0.0.1", "http://", "http://127.0.0.1:99999", "http://a b",
     "http://u:secret@127.0.0.1", "http://127.0.0.1/?key=1", "http://127.0.0.1/#x", "file:///etc/passwd",
     None, 7],
)  # fmt: skip
def test_a_bad_url_is_refused_in_one_line(url):
    with pytest.raises(InputError, match=r"expected a URL such as http://127\.0\.0\.1:8080") as error:
        Endpoint(url, "m")
    assert "\n" not in str(error.value) and "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": ""}, "model: expected a name of 1 to 100 characters"),
        ({"model": "a\nb"}, "model: expected a name"),
        ({"model": None}, "model: expected a name"),
        ({"timeout_s": 0}, "timeout_s: expected seconds above 0"),
        ({"timeout_s": float("inf")}, "timeout_s: expected seconds"),
        ({"timeout_s": "9"}, "timeout_s: expected seconds"),
        ({"retries": -1}, "retries: expected a whole number from 0 to 10"),
        ({"retries": 1.5}, "retries: expected a whole number"),
        ({"retries": True}, "retries: expected a whole number"),
    ],
)
def test_a_bad_setting_is_refused_in_one_line(settings, message):
    with pytest.raises(InputError, match=message):
        Endpoint("http://127.0.0.1:1", **({"model": "m"} | settings))


def resolve_to(*addresses):
    def resolve(host, port, **_):
        return [(socket.AF_INET6 if ":" in a else socket.AF_INET, 1, 6, "", (a, port)) for a in addresses]

    return resolve


@pytest.mark.parametrize(
    "addresses",
    [["93.184.216.34"], ["127.0.0.1", "10.0.0.7"], ["::1", "2001:db8::1"], ["0.0.0.0"], ["::"],
     ["192.168.1.5"], ["169.254.1.1"], ["::ffff:10.0.0.1"], ["fe80::1%eth0"]],
)  # fmt: skip
def test_every_address_must_be_of_this_machine(monkeypatch, addresses):
    monkeypatch.setattr(socket, "getaddrinfo", resolve_to(*addresses))
    with pytest.raises(
        InputError, match=r"models\.example: expected an address of this machine.*allow_remote"
    ):
        Endpoint("http://models.example:8080", "m")


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], ["127.8.9.1"], ["::1", "127.0.0.1"], ["::ffff:127.0.0.1"]]
)
def test_loopback_addresses_are_taken(monkeypatch, addresses):
    monkeypatch.setattr(socket, "getaddrinfo", resolve_to(*addresses))
    assert Endpoint("http://localhost:8080", "m").addresses == tuple(addresses)


def test_a_name_that_nobody_has_is_refused(monkeypatch):
    def fail(*_, **__):
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(InputError, match="expected a host of this machine, found none of that name"):
        Endpoint("http://nowhere.example", "m")


def test_the_connection_is_made_to_the_address_that_was_checked(monkeypatch):
    """A name that resolves elsewhere later (DNS rebinding) takes nobody along."""
    with StubServer(streamed(GOOD)) as server:
        resolve = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", resolve_to("127.0.0.1"))
        endpoint = Endpoint(f"http://models.example:{server.server_port}/v1/", "m")
        asked = []

        def record(host, *rest, **named):
            asked.append(host)
            return resolve(host, *rest, **named)

        monkeypatch.setattr(socket, "getaddrinfo", record)
        assert ask(FACTS, endpoint).author == "language model m"
    assert set(asked) <= {"127.0.0.1", b"127.0.0.1"}
    path, headers, _ = server.requests[0]
    assert path == "/v1/chat/completions" and headers["Host"] == f"models.example:{server.server_port}"


def test_a_second_address_is_tried(monkeypatch):
    with StubServer(streamed(GOOD)) as server:  # listens on 127.0.0.1 only
        monkeypatch.setattr(llm_endpoint, "_resolve_loopback", lambda url: ("127.0.0.2", "127.0.0.1"))
        assert ask(FACTS, Endpoint(server.url, "m")).author == "language model m"


@pytest.mark.parametrize("name", ["other.example", True, "http://10.0.0.9:1"])
def test_a_remote_host_must_be_allowed_by_its_name(name):
    with pytest.raises(InputError, match=r"allow_remote: expected the host's name, 10\.0\.0\.9, found"):
        Endpoint("http://10.0.0.9:1", "m", allow_remote=name)


def test_a_host_allowed_by_name_is_used():
    with StubServer(streamed(GOOD)) as server:
        endpoint = Endpoint(server.url, "m", allow_remote="127.0.0.1")
        assert endpoint.addresses == ()
        assert ask(FACTS, endpoint).author == "language model m"
