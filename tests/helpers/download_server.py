"""A server of files that breaks off and refuses as it is told."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest

from sepml.system import download

CONTENT = np.random.default_rng(0).bytes(300_000)


@dataclass
class Server:
    """What the server does: a list of acts, one a request, then whole answers.

    An act is the status of a refusal, or `cut N`: at most N bytes are sent of what was promised.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=lambda: {"/file": CONTENT})
    acts: list[int | str] = field(default_factory=list)
    ranges: bool = True
    asked: list[str] = field(default_factory=list)


class Handler(http.server.BaseHTTPRequestHandler):
    state: Server

    def do_GET(self) -> None:
        state = self.state
        state.asked.append(self.headers["Range"] or "")
        act = state.acts.pop(0) if state.acts else None
        body = state.files.get(self.path)
        if isinstance(act, int) or body is None:
            self.send_error(act or 404)
            return
        first = int(self.headers["Range"].removeprefix("bytes=").rstrip("-")) if self.headers["Range"] and state.ranges else 0
        if first and first >= len(body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(body)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - first))
        self.end_headers()
        self.wfile.write(body[first:] if act is None else body[first : first + int(act.removeprefix("cut "))])

    def log_message(self, *words: object) -> None:
        pass


@contextmanager
def serving(handler: type[http.server.BaseHTTPRequestHandler], state: object) -> Iterator[str]:
    """Answer requests on loopback by a handler that finds `state` in its attribute `state`; the address, such as http://host:1."""
    bound = type("Bound", (handler,), {"state": state})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), bound) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.fixture(name="server")
def breaking_server() -> Iterator[Server]:
    state = Server()
    with serving(Handler, state) as state.url:
        yield state


@pytest.fixture(autouse=True)
def impatient(monkeypatch) -> None:
    monkeypatch.setattr(download, "_PAUSE_S", 0.001)
