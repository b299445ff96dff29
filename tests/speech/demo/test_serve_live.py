"""Separation while people speak, over the addresses of the page."""

import numpy as np
import pytest
from page_server import RATE, Halves, Visitor, serving, until
from speech_signals import speech_like

from sepml.speech.audio.files import quantise
from sepml.speech.audio.pcm import as_pcm, from_pcm
from sepml.speech.demo.streams import Streams
from sepml.speech.demo.uploads import Refused
from sepml.speech.separation.separator import Separator
from sepml.speech.separation.separators import Separators


@pytest.fixture(scope="module")
def server():
    with serving(Halves()) as server:
        yield server


@pytest.fixture
def visitor(server):
    return Visitor(server.port)


@pytest.fixture
def begun(visitor):
    answer = visitor.ask("POST", f"/live?rate={RATE}&delay=0.4")
    assert answer.status == 201 and answer.headers["Location"] == f"/live/{answer.json['stream']}"
    yield answer.json
    visitor.ask("DELETE", f"/live/{answer.json['stream']}")


def test_a_stream_gives_what_live_separation_gives(visitor, begun):
    assert begun["talkers"] == 2 and begun["delay"] == pytest.approx(0.4)
    samples = quantise(speech_like(0, 3.0)).astype("<i2")
    live = Separator([Halves()]).live(RATE, 0.4)
    got, received = [], 0
    for part in np.array_split(samples, 7):
        answer = visitor.ask("POST", f"/live/{begun['stream']}", part.tobytes())
        assert answer.status == 200 and answer.content == as_pcm(live.push(from_pcm(part.tobytes())))
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert float(answer.headers["Sepml-Certainty"]) == pytest.approx(live.certainty, abs=1e-3)
        got.append(answer.content)
        received += part.size
        assert sum(map(len, got)) // 4 >= received - round(begun["delay"] * RATE) - 1
    rest = visitor.ask("DELETE", f"/live/{begun['stream']}")
    assert rest.status == 200 and rest.content == as_pcm(live.finish())
    assert len(b"".join(got) + rest.content) == 2 * samples.nbytes
    assert visitor.ask("POST", f"/live/{begun['stream']}", b"").status == 404


@pytest.mark.parametrize(("words", "said"), [
    ("", "expected the rate of the samples in Hz"),
    ("?rate=7", "the stream: its rate is 7 Hz, expected 1000 to 768000 Hz"),
    ("?rate=8k", "rate is '8k', expected a number"),
    ("?rate=nan", "rate is 'nan', expected a number"),
    ("?rate=8000&delay=nan", "the delay is nan s, expected 0.2 to 10 s"),
    ("?rate=8000&delay=60", "the delay is 60.0 s, expected 0.2 to 10 s"),
    ("?rate=999999999", "the stream: its rate is 999999999"),
    ("?rate=8000&speakers=3", "speakers is '3', expected one of auto, 2"),
])  # fmt: skip
def test_streams_that_cannot_be_are_refused(visitor, words, said):
    answer = visitor.ask("POST", f"/live{words}")
    assert answer.status == 400 and answer.error.startswith(said)


def test_what_is_no_sound_is_refused_and_the_stream_goes_on(visitor, begun):
    address = f"/live/{begun['stream']}"
    odd = visitor.ask("POST", address, b"abc")
    assert odd.status == 400 and odd.error == "3 bytes are no whole number of 16-bit samples"
    long = visitor.ask("POST", address, bytes(2 * 11 * RATE))
    assert long.status == 413 and long.error.startswith("more than 10 s of samples in one request")
    assert visitor.ask("POST", address, bytes(2 * RATE)).status == 200


def test_other_pages_and_strangers_are_not_answered(visitor, begun):
    assert visitor.ask("POST", f"/live?rate={RATE}", Origin="http://evil.example").status == 403
    assert visitor.ask("POST", "/live/unknown", b"").status == 404
    assert visitor.ask("DELETE", "/live/unknown").status == 404
    assert visitor.get(f"/live/{begun['stream']}").status == 405


def test_the_program_for_the_microphone_is_sent_as_a_script(visitor):
    answer = visitor.get("/capture.js")
    assert answer.status == 200 and answer.headers["Content-Type"].startswith("text/javascript")
    assert "script-src 'self' 'sha256-" in answer.headers["Content-Security-Policy"]


def test_few_at_a_time_and_those_who_say_nothing_are_forgotten():
    now = [0.0]
    streams = Streams(Separators.of(Separator([Halves()])), most=2, idle=30, clock=lambda: now[0])
    first, second = streams.new(RATE, 1.0), streams.new(RATE, 1.0)
    with pytest.raises(Refused, match="2 visitors are being listened to already") as refused:
        streams.new(RATE, 1.0)
    assert refused.value.status == 503
    now[0] = 29
    assert streams.find(second.token) is second
    now[0] = 31
    assert streams.find(first.token) is None and streams.find(second.token) is second
    third = streams.new(RATE, 1.0)
    assert len({first.token, second.token, third.token}) == 3


def test_one_request_at_a_time_and_a_stream_in_use_is_not_forgotten():
    now = [0.0]
    streams = Streams(Separators.of(Separator([Halves()])), most=2, idle=30, clock=lambda: now[0])
    stream = streams.new(RATE, 1.0)
    with streams.used(stream):
        now[0] = 100
        assert streams.find(stream.token) is stream
        with pytest.raises(Refused, match="send one request at a time") as refused, streams.used(stream):
            pass
        assert refused.value.status == 409
        now[0] = 200
    now[0] = 229
    assert streams.find(stream.token) is stream


def test_a_visitor_who_leaves_within_a_request_is_no_error(server, visitor, begun, caplog):
    head = f"POST /live/{begun['stream']} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Length: 4000\r\n\r\n"
    with visitor.connect() as connection:
        connection.sendall(head.encode() + bytes(1000))
    until(lambda: visitor.ask("POST", f"/live/{begun['stream']}", bytes(200)).status == 200)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_an_ended_stream_takes_nothing():
    streams = Streams(Separators.of(Separator([Halves()])))
    stream = streams.new(RATE, 1.0)
    streams.push(stream, bytes(2000))
    streams.finish(stream)
    for late in (lambda: streams.push(stream, bytes(2000)), lambda: streams.finish(stream)):
        with pytest.raises(Refused, match="this stream has ended"):
            late()
