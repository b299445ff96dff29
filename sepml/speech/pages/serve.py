"""`sepml serve`: a page to upload or record, separate, listen and download, by the standard library's HTTP server."""

import html
import ipaddress
import json
import logging
import select
import socket
import sys
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from sepml import __version__
from sepml.errors import SepmlError, one_line
from sepml.speech.pages.report import script_hash
from sepml.speech.pages.workshop import Busy, Limits, TooLong, Workshop
from sepml.speech.separation.separator import Separator

log = logging.getLogger(__name__)
_BLOCK = 1 << 16
_SOCKET_SECONDS = 30.0
_LINGER_SECONDS, _LINGER_BYTES = 5.0, 200_000_000


class Refusal(Exception):
    """A request that is answered with an error: a status and one line."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class PageServer(ThreadingHTTPServer):
    """Serves the page and a workshop on one address.

    Args:
        host: an address of this machine; anything but a loopback address lets other machines in.
        port: 0 takes a free one.

    Raises:
        SepmlError: the address cannot be listened on.
    """

    daemon_threads = True
    # Two servers on one port would share its visitors.
    allow_reuse_address = True
    allow_reuse_port = False

    def __init__(self, separator: Separator, host: str = "127.0.0.1", port: int = 7860, limits: Limits | None = None) -> None:
        self.host = host
        self.workshop = Workshop(separator, limits or Limits())
        self.page, self.policy = _page(self.workshop.limits)
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            super().__init__((host, port), _Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            self.workshop.close()
            raise SepmlError(f"{host}, port {port}: cannot be listened on: {reason}; try another --port") from error
        if not _is_loopback(host):
            log.warning("%s: everybody who reaches this machine over the network can use the page", host)

    @property
    def url(self) -> str:
        """The address of the page."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.server_address[1]}/"

    def server_close(self) -> None:
        """Stop listening and delete what is left of uploads and results."""
        super().server_close()
        self.workshop.close()

    def knows(self, host: str) -> bool:
        """Whether a Host header may be meant for this server.

        A page elsewhere can give its own name this machine's address (DNS rebinding); addresses it cannot fake.
        """
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name in ("localhost", self.host):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return not _is_loopback(self.host) and name == socket.gethostname().lower()
        return True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A visitor who left is no news; anything else is a bug of ours, and goes to the log."""
        known = isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError))
        log.log(logging.DEBUG if known else logging.ERROR, "%s: the connection broke", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    server_version, sys_version = "sepml", ""
    timeout = _SOCKET_SECONDS

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_HEAD(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def log_message(self, form: str, *args: Any) -> None:
        log.debug("%s %s", self.client_address[0], "".join(c if c.isprintable() else "?" for c in form % args))

    def _answer(self, work: Any) -> None:
        try:
            host = self.headers.get("Host", "")
            if not self.server.knows(host):
                raise Refusal(HTTPStatus.MISDIRECTED_REQUEST, "this name is not one of this machine; use its address")
            origin = self.headers.get("Origin")
            if origin is not None and urlsplit(origin).netloc != host:
                raise Refusal(HTTPStatus.FORBIDDEN, "requests from other pages are not answered")
            work()
        except Refusal as refusal:
            self._send_json(refusal.status, {"error": str(refusal)})
            self._linger()

    def _get(self) -> None:
        path = urlsplit(self.path).path
        if path == "/":
            self._send(HTTPStatus.OK, "text/html; charset=utf-8", self.server.page.encode())
            return
        parts = path.split("/")
        if len(parts) == 4 and parts[1] == "result" and parts[3].endswith(".wav"):
            file = self.server.workshop.result(parts[2], parts[3].removesuffix(".wav"))
            if file is not None:
                self._send_file(file)
                return
        raise Refusal(HTTPStatus.NOT_FOUND, "there is nothing here")

    def _post(self) -> None:
        where = urlsplit(self.path)
        if where.path != "/separate":
            raise Refusal(HTTPStatus.NOT_FOUND, "there is nothing here")
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            raise Refusal(HTTPStatus.LENGTH_REQUIRED, "the upload does not say its length")
        most = self.server.workshop.limits.size
        if int(length) > most:
            raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the upload is larger than {most / 1e6:g} MB")
        name = "".join(c for c in parse_qs(where.query).get("name", [""])[0] if c.isprintable())[:200] or "recording"
        start = time.monotonic()
        try:
            with self.server.workshop.place() as upload:
                self._receive(upload, int(length))
                found = self.server.workshop.separate(upload, name, self._is_gone)
        except Busy as error:
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from error
        except TooLong as error:
            raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, one_line(error)) from error
        except SepmlError as error:
            log.info("%s", one_line(error))
            raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, one_line(error)) from error
        log.info("%s: %.1f s of sound, separated in %.1f s", name, found["seconds"], time.monotonic() - start)
        self._send_json(HTTPStatus.OK, found)

    def _receive(self, upload: Path, length: int) -> None:
        with upload.open("wb") as file:
            while length:
                block = self.rfile.read(min(length, _BLOCK))
                if not block:
                    raise Refusal(HTTPStatus.BAD_REQUEST, "the upload broke off")
                file.write(block)
                length -= len(block)

    def _is_gone(self) -> bool:
        """Whether the visitor has closed the connection."""
        readable, _, _ = select.select([self.connection], [], [], 0)
        return bool(readable) and not self.connection.recv(1, socket.MSG_PEEK)

    def _send_json(self, status: HTTPStatus, content: dict[str, Any]) -> None:
        self._send(status, "application/json", json.dumps(content).encode())

    def _send(self, status: HTTPStatus, kind: str, content: bytes, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", self.server.policy)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _send_file(self, file: Path) -> None:
        """A file or the part of it that is asked for: players of some browsers refuse to start without parts."""
        try:
            content = file.read_bytes()
        except OSError as error:
            raise Refusal(HTTPStatus.NOT_FOUND, "there is nothing here any more") from error
        size = len(content)
        wanted = _part(self.headers.get("Range", ""), size)
        if wanted is None:
            self._send(HTTPStatus.OK, "audio/wav", content, Accept_Ranges="bytes")
        elif wanted.start >= size:
            self._send(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "audio/wav", b"", Content_Range=f"bytes */{size}")
        else:
            told = f"bytes {wanted.start}-{wanted.stop - 1}/{size}"
            part = content[wanted.start : wanted.stop]
            self._send(HTTPStatus.PARTIAL_CONTENT, "audio/wav", part, Accept_Ranges="bytes", Content_Range=told)

    def _linger(self) -> None:
        """Take what a refused visitor still sends: closing on it would take the answer away from them as well."""
        end, left = time.monotonic() + _LINGER_SECONDS, _LINGER_BYTES
        try:
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(1.0)
            while left > 0 and time.monotonic() < end and (block := self.connection.recv(_BLOCK)):
                left -= len(block)
        except OSError:
            pass


def _part(header: str, size: int) -> range | None:
    """The bytes of a Range header of one part; None for the whole file.

    >>> _part("bytes=2-3", 10), _part("bytes=7-", 10), _part("bytes=-4", 10), _part("bytes=1-2,4-5", 10), _part("", 10)
    (range(2, 4), range(7, 10), range(6, 10), None, None)
    """
    first, dash, last = header.removeprefix("bytes=").partition("-")
    if not (header.startswith("bytes=") and dash and all(word.isascii() and word.isdigit() for word in (first, last) if word)):
        return None
    if not first:
        return range(max(0, size - int(last)), size) if last else None
    return range(int(first), min(size, int(last) + 1) if last else size)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _page(limits: Limits) -> tuple[str, str]:
    """The page and its content security policy."""
    read = {name: (files("sepml.speech.pages") / "templates" / name).read_text(encoding="utf-8") for name in _PARTS}
    script = read["players.js"] + read["serve.js"]
    said = f"at most {limits.seconds:g} s and {limits.size / 1e6:g} MB"
    values = {
        "style": read["base.css"] + read["serve.css"],
        "script": script,
        "limits": html.escape(said),
        "version": html.escape(__version__),
        "bytes": str(limits.size),
        "seconds": f"{limits.seconds:g}",
    }
    page = read["serve.html"]
    for name, value in values.items():
        page = page.replace(f"{{{{{name}}}}}", value)
    policy = (
        "default-src 'none'; connect-src 'self'; media-src 'self' blob:; img-src data:; style-src 'unsafe-inline'; "
        f"script-src '{script_hash(script)}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return page, policy


_PARTS = ("base.css", "serve.css", "players.js", "serve.js", "serve.html")
