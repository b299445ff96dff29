"""Many visitors at once, slow ones, and requests that are no requests: a live server stays up and answers the others."""

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from page_server import SMALL, Halves, Visitor, form_of, read_to_end, serving, until, wav
from speech_signals import speech_like

from sepml.speech.demo import guard
from sepml.speech.demo.uploads import Limits, Pace


def test_sixty_recordings_eight_at_once(server, visitor):
    recordings = [wav(speech_like(n % 8)[: 2400 + 80 * n]) for n in range(60)]

    def one(n: int) -> tuple[str, int]:
        token, state = visitor.separated(recordings[n], f"{n}.wav")
        return state["state"], len(visitor.samples(token, 2))

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(one, range(60)))
    assert found == [("done", 2400 + 80 * n) for n in range(60)]


def test_fifty_slow_connections_keep_nobody_out(server, visitor):
    body, kind = form_of(bytes(300_000))
    head = f"POST /jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    token, _ = visitor.separated(wav(speech_like(0, 4.0)))
    beginnings = (
        b"",
        b"GET / HT",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n",
        head,
        head + body[:200],
        # These never read what they have asked for.
        b"GET /jobs/%s/1.wav HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % token.encode(),
    )
    with ExitStack() as stack:
        slow = [stack.enter_context(visitor.connect()) for _ in range(50)]
        for n, connection in enumerate(slow):
            connection.sendall(beginnings[n % len(beginnings)])
        assert visitor.get("/").status == 200
        for n in range(5):
            for connection in slow[3:5]:
                connection.sendall(body[200 + n : 201 + n])
            assert visitor.separated(wav(speech_like(n, 0.3)))[1]["state"] == "done"
        # One that was slow until now is served as well.
        slow[3].sendall(b"\r\n--xxBOUNDARYxx--\r\n" + bytes(len(body)))
        assert slow[3].recv(100).startswith(b"HTTP/1.1 4")


def test_slow_uploads_and_what_they_left_go():
    with serving(Halves(), SMALL, pace=Pace(grace=0.2, slowest=1e9)) as server:
        visitor = Visitor(server.port)
        body, kind = form_of(bytes(300_000))
        head = f"POST /jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        with visitor.connect() as connection:
            connection.sendall(head + body[:1000])
            answer = b""
            while b"}" not in answer:
                answer += connection.recv(10_000)
        assert answer.startswith(b"HTTP/1.1 408 ") and b"comes too slowly" in answer
        # Who leaves in the middle leaves nothing either.
        with visitor.connect() as connection:
            connection.sendall(head + body[:1000])
        until(lambda: list(server.folder.iterdir()) == [])


@pytest.mark.parametrize("beginning", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET / H"])
def test_a_header_has_a_deadline(monkeypatch, beginning):
    monkeypatch.setattr(guard, "HEADER_SECONDS", 0.5)
    with serving(Halves()) as server, Visitor(server.port).connect() as connection:
        connection.sendall(beginning)
        read_to_end(connection)


def test_who_does_not_read_is_cut(monkeypatch):
    monkeypatch.setattr(guard, "STALLED_SECONDS", 0.3)
    with serving(Halves(), Limits(seconds=600, size=20_000_000)) as server:
        visitor = Visitor(server.port)
        token, _ = visitor.separated(wav(speech_like(0, 2.0, 96_000), 96_000))
        connection = socket.socket()
        with connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", server.port))
            request = b"GET /jobs/%s/1.wav HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % token.encode()
            connection.sendall(request * 200)
            states = server._server.server_state
            until(lambda: not any(c.client == connection.getsockname() for c in states.connections))


def test_a_refusal_arrives_while_the_upload_is_still_sent(visitor):
    """Closing the connection on it would reset it, and the visitor would never read why."""
    body, kind = form_of(bytes(20_000_000))
    head = f"POST /jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with visitor.connect() as connection:
        sender = threading.Thread(target=lambda: connection.sendall(head + body))
        sender.start()
        sender.join()
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 413 ")
