"""`sepml separate` on a terminal: a live line for each recording, and the levels of the outputs at the end."""

import signal
from itertools import pairwise

import numpy as np
import pytest
import soundfile
from separating import lines, separate, write
from speech_signals import speech_like
from terminal import terminal

from sepml.speech.separation.level_picture import ASCII, BLOCKS, levels_of, rows_of
from sepml.speech.separation.separator import Separator


@pytest.fixture
def recordings(place):
    write(place / "in/one.wav", speech_like(0, 2.0))
    write(place / "in/a [bold]name[x] longer than the others.wav", speech_like(3, 1.0))
    return place


def without_pictures(screen: list[str]) -> list[str]:
    return [line for line in screen if "  talks " not in line]


def test_what_is_left_is_the_log_and_a_row_for_each_output(recordings, model, monkeypatch, capsys):
    monkeypatch.setattr("sepml.system.live_lines._REDRAWN_SECONDS", 0.0)
    assert separate(model, "in", "-o", "plain") == 0
    said = lines(capsys)
    # Elsewhere the picture is absent.
    assert not any(set(line) & set(BLOCKS[1:]) for line in said)
    with terminal(monkeypatch, 240) as seen:
        assert separate(model, "in", "-o", "out") == 0
    screen = seen.screen()
    assert without_pictures(screen) == [line.replace("plain", "out") for line in said]
    rows = [line for line in screen if "  talks " in line]
    names = [row.split("  talks ")[0].strip() for row in rows]
    assert names == [f"{stem}_s{n}.wav" for stem in ("a [bold]name[x] longer than the others", "one") for n in (1, 2)]
    assert all(set(row.split("talks 0:0")[1][1:]) <= set(BLOCKS) for row in rows)
    overall = [moment for moment in seen.moments() if any(" 1 of 2 " in line and line.endswith(" left") for line in moment)]
    assert overall and any(moment[-1].startswith("separating one.wav") for moment in overall)


def test_a_long_recording_has_its_time_left(place, model, monkeypatch):
    monkeypatch.setattr("sepml.system.live_lines._REDRAWN_SECONDS", 0.0)
    write(place / "in/long.wav", np.tile(speech_like(0, 8.0), 5))
    with terminal(monkeypatch, 120) as seen:
        assert separate(model, "in/long.wav", "-o", "out") == 0
    at = [moment[-1] for moment in seen.moments() if moment and moment[-1].startswith("separating long.wav")]
    assert any("0:20 of 0:40" in line and line.endswith(" left") for line in at)


@pytest.mark.parametrize("columns", [30, 60])
def test_a_narrow_terminal(columns, recordings, model, monkeypatch):
    with terminal(monkeypatch, columns) as seen:
        assert separate(model, "in", "-o", "out") == 0
    rows = [line for line in seen.screen() if "  talks " in line]
    # Of a long name the end is kept, which tells the outputs apart.
    assert [row.split("  talks ")[0].rstrip()[-6:] for row in rows] == ["s1.wav", "s2.wav"] * 2
    assert seen.screen()[-1] == "4 files in out/"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_terminal_without_block_characters(encoding, place, model, monkeypatch):
    write(place / "in/m\u00fc\u4e2d.wav", speech_like(0, 2.0))
    with terminal(monkeypatch, 100, encoding) as seen:
        assert separate(model, "in", "-o", "out") == 0
    rows = [line for line in seen.screen() if "  talks " in line]
    assert len(rows) == 2 and all("\\u4e2d_s" in row and set(row.split("talks 0:0")[1][1:]) <= set(ASCII) for row in rows)


@pytest.mark.parametrize(("words", "env"), [(("-q",), {}), ((), {"TERM": "dumb"}), ((), {"CI": "1"})])
def test_no_picture_and_no_redrawing(words, env, recordings, model, monkeypatch):
    with terminal(monkeypatch) as seen:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        assert separate(model, *words, "in", "-o", "out") == 0
    assert "\x1b" not in seen.text and not set(seen.text) & set(BLOCKS[1:])
    assert bool(seen.text) == bool(env)


def test_of_many_recordings_there_are_no_pictures(place, model, monkeypatch):
    for number in range(11):
        write(place / f"in/{number}.wav", speech_like(number, 0.3))
    with terminal(monkeypatch) as seen:
        assert separate(model, "in", "-o", "out") == 0
    assert seen.screen()[-1] == "22 files in out/" and "  talks " not in seen.text


def test_one_recording_on_standard_output(recordings, model, monkeypatch, capfdbinary):
    with terminal(monkeypatch) as seen:
        assert separate(model, "in/one.wav", "-o", "-") == 0
    assert capfdbinary.readouterr().out.startswith(b"RIFF")
    assert "  talks " not in seen.text


@pytest.fixture
def own_handler():
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("own_handler")
def test_interrupted(recordings, model, monkeypatch):
    def interrupted(*_, **__):
        # Where the tests run in the background, the signal is ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Separator, "estimate", interrupted)
    with terminal(monkeypatch) as seen:
        assert separate(model, "in", "-o", "out") == 130
    assert "separating" in seen.text
    assert seen.screen() == ["sepml: interrupted; the same command goes on from here"]


def test_levels_of_known_sound(tmp_path):
    """A tone of amplitude A has the power A squared over 2; 8 characters for 32 dB are 4 dB each."""
    time = np.arange(8000) / 8000
    amplitudes = np.repeat([1.0, 0.5, 0.0, 0.11], 2000)
    soundfile.write(tmp_path / "tone.wav", amplitudes * np.sin(2 * np.pi * 500 * time) * 0.999, 8000, subtype="FLOAT")
    levels = levels_of(tmp_path / "tone.wav", 4)
    np.testing.assert_allclose(levels, np.array([1.0, 0.5, 0.0, 0.11]) ** 2 / 2 * 0.999**2, rtol=1e-5)
    # 0, 6.0 dB below, silence, 19.2 dB below: the eighth step from below, the seventh, none, the fourth.
    assert rows_of(levels[None], BLOCKS) == ["\u2588\u2587 \u2584"]
    assert rows_of(np.zeros((2, 3)), BLOCKS) == ["   ", "   "]
    falling = rows_of(10 ** (np.arange(0.0, -44.0, -4.0) / 10)[None] * 1.0001, ASCII)[0]
    assert (
        all(ASCII.index(one) >= ASCII.index(next_) for one, next_ in pairwise(falling))
        and falling[0] == "@"
        and falling[-1] == " "
    )
