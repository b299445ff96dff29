"""The number of talkers on the page: found for each recording, or as the visitor says."""

import threading

import pytest
from page_server import Halves, Visitor, serving, wav
from speech_signals import speech_like
from talkers import separators_of_bands, table_of_tones, tones

from sepml.speech.audio.files import quantise
from sepml.speech.demo.serve import PageServer


@pytest.fixture(scope="module")
def visitor():
    with PageServer(separators_of_bands(table_of_tones()), port=0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Visitor(server.port)
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_as_many_players_as_talkers(visitor, count):
    token, found = visitor.separated(wav(quantise(tones(count))))
    assert found["talkers"] == count and found["html"].count("<figure") == count + 1
    assert any(line.startswith(f"mine.wav: {count} talker") and "% sure)" in line for line in found["lines"])
    assert visitor.get(f"/jobs/{token}/{count}.wav").status == 200
    assert visitor.get(f"/jobs/{token}/{count + 1}.wav").status == 404


@pytest.mark.parametrize("said", [1, 2, 3])
def test_the_visitor_may_say_how_many_there_are(visitor, said):
    answer = visitor.upload(wav(quantise(tones(2))), path=f"/jobs?speakers={said}")
    found = visitor.ended(answer.json["job"])
    assert found["talkers"] == said and found["html"].count("<figure") == said + 1
    assert not any("sure" in line for line in found["lines"])


@pytest.mark.parametrize("said", ["4", "0", "two", "-1", "1" * 50])
def test_other_numbers_are_refused_before_anything_is_kept(visitor, said):
    answer = visitor.upload(wav(quantise(tones(1))), path=f"/jobs?speakers={said}")
    assert answer.status == 400
    assert answer.error == f"speakers is '{said[:20]}', expected one of auto, 1, 2, 3"


def test_the_choice_is_on_the_page_where_there_is_one(visitor):
    html = visitor.get("/").content.decode()
    assert '<select id="speakers"><option value="auto">find out</option>' in html and html.count("<option") == 4
    with serving(Halves()) as server:
        other = Visitor(server.port)
        assert 'id="speakers"' not in other.get("/").content.decode()
        _, found = other.separated(wav(speech_like(0, 0.5)))
        assert found["talkers"] == 2 and not any("sure" in line for line in found["lines"])
