"""Protection of the server: which requests are answered, security headers, complete answers, deadlines of connections."""

import asyncio
import ipaddress
import socket
from typing import Any
from urllib.parse import urlsplit

import h11
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_SECONDS = 20.0
"""The header of a request must arrive within this time after the connection or the previous answer."""
STALLED_SECONDS = 30.0
"""The longest time in which a visitor may read none of the waiting data."""
_DRAIN_SECONDS, _DRAIN_BYTES = 30.0, 200_000_000


class Guard:
    """Answers requests from the page of this server and from programs, and refuses all others.

    Args:
        app: the application that answers.
        host: the address that the server listens on.
        policy: the content security policy of everything sent.
    """

    def __init__(self, app: ASGIApp, host: str, policy: str) -> None:
        self._app, self._host = app, host
        self._headers = {
            "Cache-Control": "no-store",
            "Content-Security-Policy": policy,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(receive, send, self._headers)
        await (self._refusal(Headers(scope=scope)) or self._app)(scope, exchange.receive, exchange.send)

    def _refusal(self, headers: Headers) -> ASGIApp | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if not is_own_host(self._host, host):
            return JSONResponse({"error": "this name is not one of this machine; use its address"}, 421)
        # Browsers send it with every request of another page, also of forms.
        if origin is not None and origin.lower() not in (f"http://{host}".lower(), f"https://{host}".lower()):
            return JSONResponse({"error": "requests from other pages are not answered"}, 403)
        return None


class _Exchange:
    """One request and its answer."""

    def __init__(self, receive: Receive, send: Send, headers: dict[str, str]) -> None:
        self._receive, self._send, self._headers = receive, send, headers
        self._read = self._refused = False

    async def receive(self) -> Message:
        try:
            message = await self._receive()
        except h11.LocalProtocolError:
            # Uvicorn reads the body of a request that was found to be malformed in the meantime.
            message = {"type": "http.disconnect"}
        self._read = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._refused = message["status"] >= 400
            MutableHeaders(scope=message).update(self._headers)
        if message["type"] != "http.response.body" or message.get("more_body") or not self._refused or self._read:
            await self._send(message)
            return
        # Closing while the visitor still sends would discard the answer.
        await self._send({**message, "more_body": True})
        await self._drain()
        await self._send({"type": "http.response.body", "body": b""})

    async def _drain(self) -> None:
        left = _DRAIN_BYTES
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                while left > 0 and not self._read:
                    left -= len((await self.receive()).get("body", b""))
        except TimeoutError:
            pass


def is_own_host(own: str, host: str) -> bool:
    """Whether a Host header can name a server that listens on `own`.

    Another site can resolve its own name to the address of this machine (DNS rebinding), but it cannot fake an address.

    >>> is_own_host("127.0.0.1", "localhost:7860"), is_own_host("127.0.0.1", "evil.example"), is_own_host("127.0.0.1", "[")
    (True, False, False)
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if name in ("localhost", own):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return not is_loopback(own) and name == socket.gethostname().lower()
    return True


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class DeadlineProtocol(H11Protocol):
    """HTTP/1.1 with deadlines: a connection is closed when its deadline passes.

    Uvicorn waits without limit for a header and for visitors who do not read. The body of a request has a deadline of its
    own (`uploads.Pace`).
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._header: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self._malformed = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A visitor has connected."""
        super().connection_made(transport)
        self._header = self.loop.call_later(HEADER_SECONDS, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        _cancel(self._header)
        _cancel(self._stalled)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes have arrived."""
        if not self._malformed:
            super().data_received(data)

    def handle_events(self) -> None:
        """Events of the connection are handled."""
        super().handle_events()
        if self.cycle is not None and not self.cycle.response_complete:
            _cancel(self._header)

    def on_response_complete(self) -> None:
        """An answer is complete; the next request may begin."""
        _cancel(self._header)
        self._header = self.loop.call_later(HEADER_SECONDS, self.transport.abort)
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer a malformed request and read the rest of it, as closing earlier would discard the answer.

        Uvicorn closes at once, and raises an error if an answer has begun.
        """
        self._malformed = True
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.abort()
            return
        content = msg.encode("ascii")
        headers = [("content-type", "text/plain"), ("content-length", str(len(content))), ("connection", "close")]
        response = h11.Response(status_code=400, headers=headers, reason=b"Bad Request")
        for event in (response, h11.Data(data=content), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.write_eof()
        _cancel(self._header)
        self._header = self.loop.call_later(HEADER_SECONDS, self.transport.abort)
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    def pause_writing(self) -> None:
        """The visitor reads more slowly than is sent."""
        super().pause_writing()
        self._stalled = self.loop.call_later(STALLED_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """The visitor has read."""
        _cancel(self._stalled)
        super().resume_writing()


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
