"""A server of the page in this process or in one of its own, and a visitor without a browser."""

import http.client
import io
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import soundfile
import torch

from sepml.speech.demo.serve import PageServer
from sepml.speech.demo.uploads import Limits
from sepml.speech.separation.separator import Separator

RATE = 8000
PATIENCE = 120.0
"""Seconds after which a test gives up; nothing is tested about how quick anything is."""
SMALL = Limits(seconds=5, size=400_000)


class Halves(torch.nn.Module):
    """Two sources that differ: the mixture's slow part and the rest. Waits when it is told to."""

    config = SimpleNamespace(kind="halves", n_src=2, sample_rate=RATE)

    def __init__(self):
        super().__init__()
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.started = threading.Event()

    def forward(self, mixture):
        self.started.set()
        assert self.may_go_on.wait(PATIENCE)
        slow = torch.nn.functional.avg_pool1d(mixture[:, None], 9, 1, 4, count_include_pad=True)[:, 0]
        return torch.stack([slow, mixture - slow], 1)


@contextmanager
def serving(model: torch.nn.Module, limits: Limits | None = None, **options: Any) -> Iterator[PageServer]:
    """A server that answers in a thread of this process."""
    with PageServer(Separator([model]), port=0, limits=limits, **options) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def serving_process(tmp_path: Path, *words: str) -> Iterator[tuple[subprocess.Popen, int]]:
    """`sepml serve` with a small model in a process whose temporary files are in `tmp_path`, and its port."""
    script = (
        # Ignored in what a shell starts in the background.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import sys; sys.path.insert(0, sys.argv[1]); import page_server\n"
        "from sepml import cli; from sepml.speech.separation.separator import Separator\n"
        "from sepml.speech.separation.separators import Separators\n"
        "Separators.load = classmethod(lambda cls, *_, **__: cls.of(Separator([page_server.Halves()])))\n"
        "sys.exit(cli.main(['serve', '--port', '0', *sys.argv[2:]]))"
    )
    command = [sys.executable, "-c", script, str(Path(__file__).parent), *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env={**os.environ, "TMPDIR": str(tmp_path)}, **pipes)
    try:
        yield process, int(process.stdout.readline().strip().rstrip("/").rpartition(":")[2])
    finally:
        process.kill()
        process.communicate()


def until(condition: Callable[[], bool]) -> None:
    """Ask again and again until something holds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "this does not come true"
        time.sleep(0.05)


def wav(x: np.ndarray, rate: int = RATE, **form: Any) -> bytes:
    content = io.BytesIO()
    soundfile.write(content, x, rate, **{"format": "WAV", "subtype": "PCM_16", **form})
    return content.getvalue()


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    content: bytes

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.content)

    @property
    def error(self) -> str:
        """The line of a refusal, which names no file of the server."""
        error = self.json["error"]
        assert error and "\n" not in error and "Traceback" not in error and "job-" not in error and "/upload" not in error
        return error


class Visitor:
    """Asks a server on this machine."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        found = Answer(answer.status, answer.headers, answer.read())
        connection.close()
        return found

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, **headers)

    def upload(self, content: bytes, name: str = "mine.wav", path: str = "/jobs", **headers: str) -> Answer:
        body, kind = form_of(content, name)
        return self.ask("POST", path, body, Content_Type=kind, **headers)

    def ended(self, token: str) -> dict[str, Any]:
        """The state of a job when it is done or has failed."""
        states: list[dict[str, Any]] = []

        def has_ended() -> bool:
            states.append(self.get(f"/jobs/{token}").json)
            return states[-1]["state"] in ("done", "failed")

        until(has_ended)
        return states[-1]

    def separated(self, content: bytes, name: str = "mine.wav") -> tuple[str, dict[str, Any]]:
        """Upload a recording; its token and its state in the end."""
        answer = self.upload(content, name)
        assert answer.status == 202, answer.content
        return answer.json["job"], self.ended(answer.json["job"])

    def samples(self, token: str, number: int, dtype: str = "int16") -> np.ndarray:
        answer = self.get(f"/jobs/{token}/{number}.wav")
        assert answer.status == 200 and answer.headers["Content-Type"] == "audio/wav"
        return soundfile.read(io.BytesIO(answer.content), dtype=dtype)[0]

    def connect(self) -> socket.socket:
        """A bare connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)

    def say(self, request: bytes) -> bytes:
        """The whole answer to a request in bytes of any form; the client sends nothing more."""
        with self.connect() as connection:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def form_of(content: bytes, name: str = "mine.wav", field: str = "file", boundary: str = "xxBOUNDARYxx") -> tuple[bytes, str]:
    """A form with one file, and its content type."""
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'
    return head.encode() + content + f"\r\n--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def read_to_end(connection: socket.socket) -> bytes:
    """What comes until the server closes."""
    content = b""
    with suppress(ConnectionResetError):
        while block := connection.recv(1 << 16):
            content += block
    return content
