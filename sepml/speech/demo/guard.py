"""What holds for every request: whom the server answers, headers that bind the browser, and answers that arrive."""

import asyncio
import ipaddress
import socket
from urllib.parse import urlsplit

import h11
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_DRAIN_SECONDS, _DRAIN_BYTES = 30.0, 200_000_000


class Guard:
    """Answers requests of this server's own page and of programs, and no others.

    Args:
        app: what answers.
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
        if not knows(self._host, host):
            return JSONResponse({"error": "this name is not one of this machine; use its address"}, 421)
        # Browsers send it with every request that another page makes them send, forms included.
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
            # Uvicorn asks for the body of a request that was found malformed meanwhile.
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
        # To close on a visitor who still sends would take the answer away from them as well.
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


def knows(own: str, host: str) -> bool:
    """Whether a Host header may be meant for a server that listens on `own`.

    A page elsewhere can give its own name this machine's address (DNS rebinding); addresses it cannot fake.

    >>> knows("127.0.0.1", "localhost:7860"), knows("127.0.0.1", "evil.example"), knows("127.0.0.1", "[")
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
