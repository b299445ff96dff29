"""The page in a real browser: files and microphone in, progress, refusals, players in sync, downloads, a phone."""

import zipfile

import numpy as np
import pytest
import soundfile
from browser import Watched, chromium
from page_server import RATE, Halves, serving, until, wav
from speech_signals import speech_like

from sepml.speech.audio.files import quantise
from sepml.speech.demo.uploads import Limits

CARDS = "[...document.querySelectorAll('.result')]"
STATUS = "document.getElementById('status').textContent"
ENDED = f"{STATUS} && !document.querySelector('.progress')"
ERRORS = f"{CARDS}.map((card) => (card.querySelector(':scope > .absent') || {{}}).textContent || '')"
AUDIO = "[...document.querySelectorAll('.result audio')]"


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def model():
    return Halves()


@pytest.fixture(scope="module")
def server(model):
    limits = Limits(seconds=100, size=2_000_000, ways_out={"size": "`sepml separate` takes it"})
    with serving(model, limits) as server:
        yield server


@pytest.fixture
def opened(browser, server):
    page = browser.new_page(accept_downloads=True, permissions=["microphone"])
    watched = Watched(page)
    page.goto(server.url)
    yield watched
    # A refused upload is reported by the browser itself.
    assert [line for line in watched.complaints if "status of 4" not in line] == []
    assert all(url.startswith((server.url, "data:", "blob:")) for url in watched.requests)
    page.close()


def choose(opened: Watched, *files) -> None:
    opened.page.set_input_files("#file", list(files))


@pytest.fixture
def recordings(tmp_path):
    contents = {
        "two voices.wav": wav(quantise(speech_like(0, 1.5))),
        "other.wav": wav(quantise(speech_like(3, 2.0))),
        "silent.wav": wav(np.zeros(RATE)),
        "long.wav": wav(np.tile(speech_like(0, 10.0), 8)),
        "no.wav": b"no audio",
        "large.wav": bytes(2_000_001),
        "<i>&.wav": wav(speech_like(0, 0.5)),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_the_whole_way(server, opened, recordings):
    page = opened.page
    choose(opened, recordings / "two voices.wav")
    opened.until(ENDED)
    assert page.inner_text("#status") == "two voices.wav: separated."
    assert page.locator(".result figcaption").all_inner_texts() == ["mixture", "speaker 1", "speaker 2"]
    for number in (2, 3):
        heard = opened.play(f".signal:nth-child({number}) audio")
        assert heard["ready"] >= 2 and heard["duration"] == pytest.approx(1.5, abs=0.01) and heard["time"] >= 0.1
    x = soundfile.read(recordings / "two voices.wav", dtype="float32")[0]
    est = server.jobs.separators.by_talkers[2].separate(x, RATE).numpy()
    for number in (1, 2):
        with page.expect_download() as download:
            page.click(f"text=Download two voices_s{number}.wav")
        assert download.value.suggested_filename == f"two voices_s{number}.wav"
        got, _ = soundfile.read(download.value.path(), dtype="int16")
        np.testing.assert_array_equal(got, quantise(est[number - 1]))


def test_several_files_and_everything_at_once(opened, recordings):
    page = opened.page
    choose(opened, *(recordings / name for name in ("two voices.wav", "no.wav", "<i>&.wav", "large.wav", "other.wav")))
    opened.until(ENDED)
    assert page.locator(".result h2").all_inner_texts() == ["two voices.wav", "no.wav", "<i>&.wav", "large.wav", "other.wav"]
    assert page.inner_text("#status") == "3 of 5 recordings separated, 2 not."
    errors = page.evaluate(ERRORS)
    assert [bool(error) for error in errors] == [False, True, False, True, False]
    assert errors[1].startswith("no.wav: is not an audio file")
    assert errors[3] == "large.wav: is larger than 2 MB; `sepml separate` takes it"
    with page.expect_download() as download:
        page.click("text=Download everything")
    with zipfile.ZipFile(download.value.path()) as archive:
        assert len(archive.namelist()) == 9 and "<i>&_s2.wav" in archive.namelist()


def test_nothing_of_earlier_recordings_stays(server, opened, recordings):
    page = opened.page
    choose(opened, recordings / "two voices.wav")
    opened.until(ENDED)
    before = page.get_attribute(".result audio", "src")
    for refused in ("no.wav", "large.wav"):
        choose(opened, recordings / refused)
        opened.until(f"{ENDED} && {STATUS}.startsWith('{refused}: is ')")
        assert page.locator("#status.absent").count() == 1 and page.locator(".result, audio, .signal").count() == 0
        assert page.locator("#everything").is_hidden()
    # The server has forgotten them, too.
    opened.until(f"fetch('{before}').then((answer) => answer.status === 404)")


def test_progress_and_giving_up(server, model, opened, recordings):
    page = opened.page
    model.started.clear()
    model.may_go_on.clear()
    try:
        choose(opened, recordings / "long.wav", recordings / "two voices.wav", recordings / "other.wav")
        bar = "document.querySelectorAll('.progress progress')"
        said = "[...document.querySelectorAll('.progress span')].map((span) => span.textContent)"
        opened.until(f"{said}[0].startsWith('Separating') && {said}[1] === 'Waiting: 1 before it'")
        assert page.evaluate(f"{said}[2]") == "Waiting to be sent"
        opened.until(f"{bar}[0].hasAttribute('value') && {bar}[0].value < 0.9")
        opened.until(f"/^Separating: about [0-9]+ (s|min) left$/.test({said}[0])")
        page.locator(".progress button").first.focus()
        page.keyboard.press("Enter")
        opened.until(f"{ERRORS}[0] === 'long.wav: cancelled'")
    finally:
        model.may_go_on.set()
    opened.until(ENDED)
    assert page.inner_text("#status") == "2 of 3 recordings separated, 1 not."


def test_players_in_sync(opened, recordings):
    page = opened.page
    choose(opened, recordings / "long.wav")
    opened.until(ENDED)
    page.focus(".compare .play")
    page.keyboard.press("Enter")
    opened.until(f"{AUDIO}.every((audio) => !audio.paused && audio.currentTime > 0.3)")
    muted = f"{AUDIO}.map((audio) => audio.muted)"
    assert page.evaluate(muted) == [False, True, True]
    for number, heard in ((1, [True, False, True]), (2, [True, True, False])):
        page.click(f".solo >> nth={number}")
        assert page.evaluate(muted) == heard
        assert page.get_attribute(f".solo >> nth={number}", "aria-pressed") == "true"
    # Without solo the speakers together are the mixture; muted ones are not heard.
    page.click(".solo >> nth=2")
    assert page.evaluate(muted) == [True, False, False]
    page.click(".mute >> nth=1")
    assert page.evaluate(muted) == [True, True, False]
    # A click into a picture moves all of them.
    box = page.locator(".picture").nth(1).bounding_box()
    page.locator(".picture").nth(1).click(position={"x": box["width"] / 2, "y": 20})
    times = f"{AUDIO}.map((audio) => audio.currentTime)"
    opened.until(f"{times}.every((time) => time > 39 && time < 75)")
    opened.until(f"Math.max(...{times}) - Math.min(...{times}) < 0.1")
    # Cursors follow a moment later.
    opened.until("[...document.querySelectorAll('.cursor')].every((c) => parseFloat(c.style.left) > 45)")
    page.click(".compare .play")
    opened.until(f"{AUDIO}.every((audio) => audio.paused)")
    assert page.inner_text(".compare .time").endswith("/ 1:20")
    # One player's own button: it is heard, alone.
    opened.play(".signal:nth-child(1) audio")
    assert page.evaluate(f"{AUDIO}.map((audio) => audio.paused || audio.muted)") == [False, True, True]


def test_the_microphone(opened):
    """Chromium's own fake one, which beeps."""
    page = opened.page
    page.click("#record")
    opened.until(f"/^Recording \u2026 [1-9]/.test({STATUS})")
    page.click("#record")
    opened.until(f"{CARDS}.length && {ENDED}")
    assert page.inner_text(".result h2").startswith("recording.") and page.locator(".result figure").count() == 3


def test_separation_while_one_speaks(opened):
    """Chromium's fake microphone beeps once a second."""
    page = opened.page
    page.click("#live")
    opened.until("[...document.querySelectorAll('meter')].length === 2")
    opened.until("[...document.querySelectorAll('meter')].some((meter) => meter.value > 0.2)")
    opened.until(f"/^Listening \u2026 [2-9] s, 1.[0-9] s behind/.test({STATUS})")
    assert page.locator("#live-panel option").all_inner_texts() == [
        "everybody, side by side",
        "speaker 1",
        "speaker 2",
        "nobody",
    ]
    page.select_option("#live-panel select", "speaker 2")
    page.click("#live")
    opened.until(f"/^Listened for [2-9]/.test({STATUS})")
    assert page.inner_text("#live") == "Listen live" and page.locator("meter").count() == 0
    for number in (1, 2):
        heard = opened.play(f".levels p:nth-child({number}) audio")
        assert 1.5 <= heard["duration"] < 60 and heard["time"] >= 0.1
    with page.expect_download() as download:
        page.click(".levels p:nth-child(1) a")
    assert download.value.suggested_filename == "live_s1.wav"
    sound, rate = soundfile.read(download.value.path())
    assert sound.ndim == 1 and sound.size / rate == pytest.approx(heard["duration"], abs=0.1) and sound.std() > 1e-3


def test_a_second_click_begins_no_second_stream(server, opened):
    page = opened.page
    page.dblclick("#live")
    opened.until(f"/^Listening \u2026 [1-9]/.test({STATUS})")
    assert len([url for url in opened.requests if "/live?" in url]) == 1
    page.click("#live")
    opened.until(f"/^Listened for/.test({STATUS})")
    count = len(opened.requests)
    page.wait_for_timeout(1000)
    assert [url for url in opened.requests[count:] if not url.startswith("blob:")] == []


def test_what_was_heard_before_a_failure_is_kept(opened):
    page = opened.page
    page.click("#live")
    opened.until(f"/^Listening \u2026 [3-9]/.test({STATUS})")
    page.route("**/live/*", lambda route: route.abort())
    opened.until(f"/^sepml does not answer/.test({STATUS})")
    assert page.inner_text("#live") == "Listen live" and page.locator(".levels audio").count() == 2
    assert opened.play(".levels p:nth-child(1) audio")["duration"] > 0.5
    opened.complaints.clear()


def test_a_server_that_is_gone(browser, recordings):
    page = browser.new_page()
    watched = Watched(page)
    with serving(Halves()) as server:
        page.goto(server.url)
    choose(watched, recordings / "two voices.wav")
    watched.until(f"{ENDED} && {STATUS} === 'two voices.wav: sepml does not answer; is it still running?'")
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone(browser, server, recordings, scheme):
    page = browser.new_page(viewport={"width": 375, "height": 740}, color_scheme=scheme)
    watched = Watched(page)
    page.goto(server.url)
    choose(watched, recordings / "two voices.wav", recordings / "silent.wav")
    watched.until(ENDED)
    assert not watched.too_wide and watched.complaints == []
    page.close()


def test_leaving_the_page_deletes_what_was_uploaded(browser, server, model, recordings):
    page = browser.new_page()
    watched = Watched(page)
    page.goto(server.url)
    choose(watched, recordings / "two voices.wav")
    watched.until(ENDED)
    token = page.get_attribute(".result audio", "src").split("/")[1]
    assert server.jobs.find(token) is not None
    page.goto("about:blank")
    until(lambda: server.jobs.find(token) is None)
    page.close()
