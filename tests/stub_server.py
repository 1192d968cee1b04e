"""A server in a thread that answers as a language model's would, or as a broken or hostile one."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class StubServer(ThreadingHTTPServer):
    """Answers the n-th request by the n-th of `answers`, and every later one by the last.

    An answer is a function of the handler; `requests` holds what was asked: path, headers and body.
    """

    daemon_threads = True

    def __init__(self, *answers):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers, self.requests, self.stopped = list(answers), [], threading.Event()
        self.lock = threading.Lock()
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        pass  # the client hung up, which is what some tests are about

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.shutdown()
        self.server_close()
        self.thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

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


def event(text=None, reason=None):
    """Return a piece of a reply as a server-sent event."""
    delta = {} if text is None else {"content": text}
    return b"data: " + json.dumps({"choices": [{"delta": delta, "finish_reason": reason}]}).encode() + b"\n\n"


def streamed(reply, size=7):
    """Answer with a reply in pieces; anything but text is sent as JSON."""
    text = reply if isinstance(reply, str) else json.dumps(reply)

    def answer(handler):
        handler.start()
        for i in range(0, len(text), size):
            handler.wfile.write(event(text[i : i + size]))
        handler.wfile.write(event(reason="stop") + b"data: [DONE]\n\n")

    return answer


def whole(reply, reason="stop"):
    """Answer with a reply in one JSON object, as a server that does not stream."""
    text = reply if isinstance(reply, str) else json.dumps(reply)
    record = {"choices": [{"message": {"content": text}, "finish_reason": reason}]}
    return sent(json.dumps(record).encode(), "application/json")


def sent(data, kind="application/json", status=200, **headers):
    """Answer with these bytes."""

    def answer(handler):
        handler.start(status, kind, **headers)
        handler.wfile.write(data)

    return answer


def endless(data, pause, kind="text/event-stream"):
    """Answer with the same bytes again and again, until the server stops or the client hangs up."""

    def answer(handler):
        handler.start(kind=kind)
        while not handler.server.stopped.wait(pause):
            handler.wfile.write(data)
            handler.wfile.flush()

    return answer
