"""A server of this process that answers as a language model's would; it holds none: its replies are given.

For teaching and for tests: what a report does with a reply can be shown without a model, a download or
chance. It listens on this machine alone, at a port that is free.
"""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class StubServer(ThreadingHTTPServer):
    """Answers the n-th request by the n-th of `answers`, and every later one by the last.

    Parameters
    ----------
    *answers : callable
        Each is given the handler of a request; see `stream_reply`.

    Attributes
    ----------
    requests : list of (str, dict, dict)
        Path, headers and body of what was asked.
    """

    daemon_threads = True

    def __init__(self, *answers: Callable):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers, self.requests, self.stopped = list(answers), [], threading.Event()
        self.lock = threading.Lock()
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        """Say nothing: the client hung up, which it may."""

    def __exit__(self, *_):
        """Stop listening, and end the thread."""
        self.stopped.set()
        self.shutdown()
        self.server_close()
        self.thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else a small piece of a stream waits 40 ms for the one before it

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            number = len(self.server.requests)
            self.server.requests.append((self.path, dict(self.headers), body))
        self.close_connection = True
        self.server.answers[min(number, len(self.server.answers) - 1)](self)

    def log_message(self, *_):
        pass

    def start(self, status=200, kind="text/event-stream", **headers):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Connection", "close")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()


def make_event(text: str | None = None, reason: str | None = None) -> bytes:
    """Return a piece of a reply as a server-sent event."""
    delta = {} if text is None else {"content": text}
    return b"data: " + json.dumps({"choices": [{"delta": delta, "finish_reason": reason}]}).encode() + b"\n\n"


def stream_reply(reply: object, size: int = 7) -> Callable:
    """Return an answer that streams a reply in pieces of `size` signs; anything but text is sent as JSON."""
    text = reply if isinstance(reply, str) else json.dumps(reply)

    def answer(handler):
        handler.start()
        for i in range(0, len(text), size):
            handler.wfile.write(make_event(text[i : i + size]))
        handler.wfile.write(make_event(reason="stop") + b"data: [DONE]\n\n")

    return answer
