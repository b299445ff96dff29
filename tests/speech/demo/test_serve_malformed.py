"""Requests that are no requests: each is refused plainly, none is an error of the server, which answers the next."""

import random

import pytest
from page_server import form_of, read_to_end, until, wav
from speech_signals import speech_like

REQUESTS = {
    "garbage": b"\x00\xff\x01garbage\r\n\r\n",
    "only a method": b"GET\r\n\r\n",
    "no version": b"GET /\r\n\r\n",
    "version x": b"GET / HTTP/x\r\nHost: 127.0.0.1\r\n\r\n",
    "spaces": b"GET   /   HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "bytes in the path": b"GET /\xff\xfe HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "escapes in the path": b"GET /%ff%00%zz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "an address": b"GET http://[ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "long path": b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "no host, 1.0": b"GET / HTTP/1.0\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: 127.0.0.1\r\n\r\n",
    "host [": b"GET / HTTP/1.1\r\nHost: [\r\n\r\n",
    "origin http://[": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://[\r\n\r\n",
    "origin of bytes": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: \xff\xfe\r\n\r\n",
    "header without colon": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nbroken\r\n\r\n",
    "header of control characters": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: \x00\x01\r\n\r\n",
    "length abc": b"POST /jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: abc\r\n\r\n",
    "length -5": b"POST /jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -5\r\n\r\n",
    "length superscript": b"POST /jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: \xc2\xb2\r\n\r\n",
    "two lengths": b"POST /jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "length of 5000 digits": b"POST /jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
    "huge length": b"POST /jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: " + b"9" * 18 + b"\r\n\r\n",
    "bad chunks": b"POST /jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "unknown coding": b"POST /jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: magic\r\n\r\n",
    "bad chunks that were to be asked for": b"POST /jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n"
    b"Content-Type: multipart/form-data; boundary=x\r\nExpect: 100-continue\r\n\r\nxyz\r\n",
    "no form": b"POST /jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 3\r\n\r\nabc",
    "boundary of bytes": b"POST /jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 3\r\n"
    b'Content-Type: multipart/form-data; boundary="\xff;"\r\n\r\nabc',
    "number of 5000 digits": b"GET /jobs/x/" + b"9" * 5000 + b".wav HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "websocket": b"GET /nothing HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
}


@pytest.mark.parametrize("name", REQUESTS)
def test_malformed_requests_are_plain_refusals(visitor, name):
    answer = visitor.say(REQUESTS[name])
    assert answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 501")), answer[:200]
    assert b"Traceback" not in answer and b"Error" not in answer.partition(b"\r\n\r\n")[2]
    assert visitor.get("/").status == 200


def test_malformed_chunks_behind_an_answer_that_has_begun(server, visitor):
    """The form is refused by its type while its body is still on the way."""
    head = b"POST /jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n"
    with visitor.connect() as connection:
        connection.sendall(head + b"\r\n5\r\nabcde\r\n")
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 415 ")
        connection.sendall(b"no number\r\n")
        read_to_end(connection)
    # And before: the upload is given up.
    before = set(server.folder.iterdir())
    with visitor.connect() as connection:
        connection.sendall(head + b"Content-Type: multipart/form-data; boundary=x\r\n\r\n5\r\n--x\r\n\r\n")
        until(lambda: set(server.folder.iterdir()) != before)
        connection.sendall(b"no number\r\n")
        assert b"400 Bad Request" in read_to_end(connection)
    until(lambda: set(server.folder.iterdir()) == before)
    assert visitor.get("/").status == 200


RANGES = ["bytes=abc", "bytes=5-2", "bytes=--", "bytes=-", "=", "bytes", "bytes=\xb2-\xb3", "lines=1-2", f"bytes={'9' * 5000}-"]


@pytest.mark.parametrize("wanted", [*RANGES, "bytes=" + "0-1," * 1000, "bytes=-0", "bytes=0-" + "9" * 4400])
def test_malformed_ranges_are_refused_or_the_whole_file(visitor, wanted):
    token, _ = visitor.separated(wav(speech_like(0, 0.3)))
    whole = visitor.get(f"/jobs/{token}/1.wav").content
    answer = visitor.get(f"/jobs/{token}/1.wav", Range=wanted)
    assert answer.status in (400, 416) or (answer.status in (200, 206) and answer.content == whole), answer.status


ADDED = [b"9" * 4400, b"\r\n", b"\x00", b"%", b"[", b"\xff", b"-", b"0-" * 50, b"A" * 70_000]


def mutated(request: bytes, rng: random.Random) -> bytes:
    """A request with some bytes changed, left out, added or repeated."""
    found = bytearray(request)
    for _ in range(rng.randint(1, 5)):
        # The body is the larger part, and says less.
        place = rng.randrange(min(len(found), 250))
        added = rng.choice(
            [b"9" * 4400, b"\r\n", b"\x00", b"%", b"[", b"\xff", b"-", b"0-" * 50, b"A" * 70_000, rng.randbytes(5)]
        )
        kind = rng.randrange(4)
        if kind == 0:
            found[place] = rng.randrange(256)
        elif kind == 1:
            del found[place : place + rng.randint(1, 20)]
        elif kind == 2:
            found[place:place] = added
        else:
            found[place:place] = found[max(0, place - 30) : place]
    return bytes(found)


def test_requests_with_random_faults(visitor):
    token, _ = visitor.separated(wav(speech_like(0, 0.3)))
    body, kind = form_of(wav(speech_like(0, 0.1)))
    head = f"HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\n"
    chunked = f"POST /jobs {head}Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n{len(body):x}\r\n"
    seeds = [
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://127.0.0.1\r\n\r\n",
        f"GET /jobs/{token}/1.wav {head}Range: bytes=0-99,200-300\r\n\r\n".encode(),
        f"POST /jobs {head}Content-Length: {len(body)}\r\n\r\n".encode() + body,
        chunked.encode() + body + b"\r\n0\r\n\r\n",
        f"GET /results.zip?job={token} {head}\r\nDELETE /jobs/x {head}\r\n".encode(),
    ]
    rng = random.Random(0)
    for _ in range(400):
        request = mutated(rng.choice(seeds), rng)
        answer = visitor.say(request)
        assert not answer.startswith(b"HTTP/1.1 5") or answer.startswith(b"HTTP/1.1 503"), request[:300]
    assert visitor.get("/").status == 200
