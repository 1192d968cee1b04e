"""One reply from an OpenAI-compatible server on this machine, within a limit of time and bytes.

llama.cpp, Ollama and vLLM serve ``/v1/chat/completions``. Facts about patients are sent there, so that only
an address of this machine is accepted: the host's name is resolved once, every address must be loopback, and
the connection is made to that very address. Redirects are not followed, proxies are not asked.
"""

import asyncio
import ipaddress
import json
import queue
import socket
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx
from anyio.from_thread import start_blocking_portal

from fedutils.errors import InputError

MAX_BYTES = 2_000_000  # of a reply on the wire: a token in a stream takes about 200
_WAIT = 0.2  # seconds before the second attempt, twice that before the third, and so on
_END = object()


class EndpointError(Exception):
    """No usable reply; the message is a line for the reader, which quotes nothing that the server sent."""


class _Passing(EndpointError):
    """A failure that another attempt may mend."""


class SchemaRefused(EndpointError):
    """The server answered 400, 415, 422 or 501: it may not know what was asked of it."""


@dataclass(frozen=True)
class Endpoint:
    """A language model's server.

    Attributes
    ----------
    url : str
        ``http://127.0.0.1:8080``, with or without ``/v1``.
    model : str
        As the server calls it.
    timeout_s : float
        Seconds for a whole reply, from connecting to its last word.
    retries : int
        More attempts where a connection failed or the server answered 429 or 5xx.
    allow_remote : str or False
        The name of the one host beside this machine that facts may be sent to.
    addresses : tuple of str
        Of this machine; empty where the host is the one allowed by name.

    Raises
    ------
    InputError
        If the URL or a value cannot be used, or the host is not this machine and not allowed by name.
    """

    url: str
    model: str
    timeout_s: float = 120.0
    retries: int = 1
    allow_remote: str | bool = False
    addresses: tuple[str, ...] = field(init=False, default=())

    def __post_init__(self):
        """Check the values, and resolve the host."""
        if not isinstance(self.model, str) or not 0 < len(self.model) <= 100 or not self.model.isprintable():
            raise InputError(f"model: expected a name of 1 to 100 characters, found {self.model!r}")
        if not _is_number(self.timeout_s) or not 0 < self.timeout_s <= 3600:
            raise InputError(f"timeout_s: expected seconds above 0, at most 3600, found {self.timeout_s!r}")
        if not _is_number(self.retries) or self.retries not in range(11):
            raise InputError(f"retries: expected a whole number from 0 to 10, found {self.retries!r}")
        try:
            url = httpx.URL(self.url)
            usable = url.scheme in ("http", "https") and url.host and " " not in self.url
            usable = usable and not (url.userinfo or url.query or (url.port or 0) > 65535)
        except (httpx.InvalidURL, TypeError, ValueError):
            usable = False
        if not usable or url.fragment:
            raise InputError(
                f"{_show(self.url)}: expected a URL such as http://127.0.0.1:8080, "
                "without user, query or fragment"
            )
        if self.allow_remote:
            if not isinstance(self.allow_remote, str) or self.allow_remote.lower() != url.host.lower():
                raise InputError(
                    f"allow_remote: expected the host's name, {url.host}, found {self.allow_remote!r}; "
                    "facts about patients would leave this machine: name the host that may have them"
                )
        else:
            object.__setattr__(self, "addresses", _resolve_loopback(url))

    @property
    def chat_url(self) -> str:
        """Where chats are completed."""
        base = self.url.rstrip("/")
        return f"{base.removesuffix('/v1')}/v1/chat/completions"


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _show(url) -> str:
    """Return a URL for an error message, without a password that may stand in it."""
    text = str(url)[:200]
    return repr(text.split("@")[-1] if "@" in text else text)


def _resolve_loopback(url: httpx.URL) -> tuple[str, ...]:
    try:
        found = socket.getaddrinfo(url.host, url.port or 80, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise InputError(
            f"{url.host}: expected a host of this machine, found none of that name; use 127.0.0.1"
        ) from error
    addresses = tuple(dict.fromkeys(address[4][0] for address in found))
    for address in addresses:
        ip = ipaddress.ip_address(address.split("%")[0])
        if not (getattr(ip, "ipv4_mapped", None) or ip).is_loopback:
            raise InputError(
                f"{url.host}: expected an address of this machine, such as 127.0.0.1, found {address}; "
                "facts about patients would leave it: name the host in allow_remote to send them there"
            )
    return addresses


def complete(endpoint: Endpoint, body: dict, on_text: Callable[[str], None] | None = None) -> str:
    """Return what the model replies.

    Parameters
    ----------
    endpoint : Endpoint
    body : dict
        Of the request; ``model`` and ``stream`` are added.
    on_text : callable, optional
        Called in this thread with each piece of the reply as it comes: a draft that nothing has checked.

    Returns
    -------
    str

    Raises
    ------
    EndpointError
        If there is no whole reply in time; `SchemaRefused` where the server rejects the request as it is.
    """
    pieces = queue.SimpleQueue()
    with start_blocking_portal() as portal:
        future = portal.start_task_soon(_attempt, endpoint, body, pieces.put)
        try:
            while (piece := pieces.get()) is not _END:
                if on_text:
                    on_text(piece)
        except BaseException:  # a stopped cell, or on_text itself: the connection is closed
            future.cancel()
            raise
        return future.result()


async def _attempt(endpoint, body, put) -> str:
    try:
        for attempt in range(endpoint.retries + 1):
            try:
                async with asyncio.timeout(endpoint.timeout_s):
                    return await _send_to_any(endpoint, body, put)
            except _Passing:
                if attempt == endpoint.retries:
                    raise
            except TimeoutError:
                raise EndpointError(f"no whole reply within {endpoint.timeout_s:g} s") from None
            await asyncio.sleep(_WAIT * 2**attempt)
    finally:
        put(_END)


async def _send_to_any(endpoint, body, put) -> str:
    """Send to the first address that takes the connection."""
    url = httpx.URL(endpoint.chat_url)
    body = json.dumps(body | {"model": endpoint.model, "stream": True}).encode()
    headers = {"Content-Type": "application/json", "Accept-Encoding": "identity", "Host": url.netloc.decode()}
    extensions = {"sni_hostname": url.host} if url.scheme == "https" else {}
    async with httpx.AsyncClient(trust_env=False, follow_redirects=False, timeout=None) as client:
        for address in endpoint.addresses or (url.host,):
            target = url.copy_with(host=address)
            request = client.build_request(
                "POST", target, content=body, headers=headers, extensions=extensions
            )
            try:
                response = await client.send(request, stream=True)
            except httpx.ConnectError:
                continue
            except (httpx.HTTPError, ValueError) as error:
                raise _Passing(f"the connection failed ({type(error).__name__})") from error
            try:
                return await _read(response, put)
            except httpx.HTTPError as error:
                raise _Passing(f"the reply was cut ({type(error).__name__})") from error
            finally:
                await response.aclose()
    raise _Passing("no server answers at this address")


async def _names_the_form(response) -> bool:
    """Say whether a failing server complains of the form of the reply: llama-cpp-python's does so by 500."""
    async for start in response.aiter_bytes(4096):
        return b"response_format" in start
    return False


async def _read(response, put) -> str:
    status = response.status_code
    if status in (400, 415, 422, 501) or (status == 500 and await _names_the_form(response)):
        raise SchemaRefused(f"the server refused the request (status {status})")
    if status == 429 or status >= 500:
        raise _Passing(f"the server failed (status {status})")
    if status != 200:
        redirect = ", which would lead elsewhere" if 300 <= status < 400 else ""
        raise EndpointError(f"the server answered with status {status}{redirect}")
    if response.headers.get("content-encoding", "identity") != "identity":
        raise EndpointError("the reply was compressed, which was not asked for")
    streamed = response.headers.get("content-type", "").startswith("text/event-stream")
    received, pending, parts, ended = 0, bytearray(), [], False
    async for chunk in response.aiter_raw():
        received += len(chunk)
        if received > MAX_BYTES:
            raise EndpointError(f"the reply was longer than {MAX_BYTES} bytes")
        pending += chunk
        if not streamed or b"\n" not in chunk:
            continue
        *lines, pending = pending.split(b"\n")
        for line in lines:
            text, end = _parse_event(line)
            ended = ended or end
            if text:
                parts.append(text)
                put(text)
        if ended:
            break
    if not streamed:
        text, ended = _parse_choice(_load(pending), "message")
        parts = [text]
        put(text)
    if not ended:
        raise _Passing("the reply was cut before its end")
    return "".join(parts)


def _parse_event(line: bytes) -> tuple[str, bool]:
    """Return the text of a line of server-sent events, and whether it is the last."""
    if not line.startswith(b"data:"):
        return "", False  # a comment, or a field that says nothing here
    data = line[5:].strip()
    return ("", True) if data == b"[DONE]" else _parse_choice(_load(data), "delta")


def _parse_choice(record: object, field_name: str) -> tuple[str, bool]:
    try:
        if not record["choices"]:  # only counts of tokens
            return "", False
        choice = record["choices"][0]
        text = (choice.get(field_name) or {}).get("content") or ""
        reason = choice.get("finish_reason")
    except (TypeError, KeyError, IndexError, AttributeError) as error:
        raise EndpointError("the reply was not that of a chat") from error
    if not isinstance(text, str) or reason not in (None, "stop"):
        raise EndpointError("the reply was cut at the server's limit, or held no text")
    return text, reason == "stop"


def _load(data: bytes) -> object:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise EndpointError("the reply was not JSON") from error
