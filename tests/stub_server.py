"""Broken and hostile answers of a stub server; `fedutils.report_stub` has the server, and the good answer."""

import json

from fedutils.report_stub import StubServer
from fedutils.report_stub import make_event as event
from fedutils.report_stub import stream_reply as streamed

__all__ = ["StubServer", "endless", "event", "sent", "streamed", "whole"]


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
