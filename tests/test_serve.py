"""The page to try sepml on: uploads and refusals over plain HTTP, and the whole way in a real browser."""

import http.client
import io
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from browser import Watched, chromium
from speech_signals import speech_like

from sepml import cli
from sepml.errors import SepmlError
from sepml.speech.audio import quantise
from sepml.speech.pages.serve import PageServer
from sepml.speech.pages.workshop import KEPT, Limits
from sepml.speech.separation.separator import Separator

RATE = 8000


class Halves(torch.nn.Module):
    """Two sources that differ: the mixture's slow part and the rest. Waits when it is told to."""

    config = SimpleNamespace(n_src=2, sample_rate=RATE)

    def __init__(self):
        super().__init__()
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.started = threading.Event()

    def forward(self, mixture):
        self.started.set()
        assert self.may_go_on.wait(20)
        slow = torch.nn.functional.avg_pool1d(mixture[:, None], 9, 1, 4, count_include_pad=True)[:, 0]
        return torch.stack([slow, mixture - slow], 1)


@pytest.fixture(scope="module")
def model():
    return Halves()


@pytest.fixture(scope="module")
def server(model):
    server = PageServer(Separator([model]), port=0, limits=Limits(seconds=5, size=400_000))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def wav(x: np.ndarray, rate: int = RATE, **form) -> bytes:
    content = io.BytesIO()
    soundfile.write(content, x, rate, **{"format": "WAV", "subtype": "PCM_16", **form})
    return content.getvalue()


def ask(server, method: str, path: str, body: bytes | None = None, **headers: str):
    """Status, headers and body of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=30)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, answer.headers, content


def refused(server, status: int, *request, **headers: str) -> str:
    found, _, content = ask(server, *request, **headers)
    assert found == status, content
    error = json.loads(content)["error"]
    assert "\n" not in error and "Traceback" not in error and "upload-" not in error
    return error


def test_downloads_are_what_the_separator_gives(server):
    x = speech_like(0, 1.5)
    status, _, content = ask(server, "POST", "/separate?name=a%20b.wav", wav(quantise(x)))
    found = json.loads(content)
    assert (status, found["name"], found["rate"], found["seconds"]) == (200, "a b.wav", RATE, 1.5)
    mixture = quantise(x) / np.float32(32768)
    est = server.workshop.separator.separate(mixture, RATE).numpy()
    for number, expected in enumerate((mixture, *est)):
        status, headers, content = ask(server, "GET", f"/result/{found['token']}/{number}.wav")
        assert status == 200 and headers["Content-Type"] == "audio/wav"
        got, rate = soundfile.read(io.BytesIO(content), dtype="int16")
        assert rate == RATE
        np.testing.assert_array_equal(got, quantise(expected))
    assert len(found["players"]) == 3 and "speaker 2" in found["players"][2]


def test_speakers_louder_than_full_scale_are_turned_down_together(server):
    x = 40 * speech_like(0, 1.0).astype(np.float32)
    found = json.loads(ask(server, "POST", "/separate", wav(x, subtype="FLOAT"))[2])
    est = server.workshop.separator.separate(x, RATE).numpy()
    assert np.abs(est).max() > 1.5 and "turned down by" in found["note"]
    for number, expected in enumerate(est / np.abs(est).max(), start=1):
        got, _ = soundfile.read(io.BytesIO(ask(server, "GET", f"/result/{found['token']}/{number}.wav")[2]))
        np.testing.assert_allclose(got, expected, atol=1 / 32768)


@pytest.mark.parametrize("form, subtype", [("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III")])
def test_other_formats_rates_and_channels(server, form, subtype):
    x = np.stack([speech_like(1, 1.0, 16000), speech_like(2, 1.0, 16000)], 1)
    status, _, content = ask(server, "POST", "/separate?name=x", wav(x, 16000, format=form, subtype=subtype))
    found = json.loads(content)
    assert status == 200 and found["rate"] == 16000 and "mean of its 2 channels" in found["note"]
    assert found["seconds"] == pytest.approx(1.0, abs=0.1)


def test_parts_of_a_file(server):
    token = json.loads(ask(server, "POST", "/separate", wav(speech_like(0, 0.5)))[2])["token"]
    whole = ask(server, "GET", f"/result/{token}/1.wav")[2]
    status, headers, part = ask(server, "GET", f"/result/{token}/1.wav", Range="bytes=100-199")
    assert (status, part, headers["Content-Range"]) == (206, whole[100:200], f"bytes 100-199/{len(whole)}")
    assert ask(server, "GET", f"/result/{token}/1.wav", Range="bytes=-10")[2] == whole[-10:]
    assert ask(server, "GET", f"/result/{token}/1.wav", Range="bytes=99999999-")[0] == 416


@pytest.mark.parametrize(
    "body, complaint",
    [
        (b"", "is empty"),
        (b"not audio at all " * 50, "not an audio file"),
        (wav(speech_like(0, 1.0))[:4000], "breaks off"),
        (wav(np.zeros(0)), "holds no samples"),
        (wav(np.array([0.1, np.nan, 0.2] * 500), subtype="FLOAT"), "nan or infinite"),
    ],
    ids=["empty", "text", "broken off", "no samples", "nan"],
)
def test_uploads_that_are_no_recording(server, body, complaint):
    error = refused(server, 422, "POST", "/separate?name=mine.wav", body)
    assert error.startswith("mine.wav: ") and complaint in error


def test_limits(server):
    assert refused(server, 413, "POST", "/separate", bytes(400_001)) == "the upload is larger than 0.4 MB"
    # FLAC of silence is small and long; its header says so. Of Ogg only decoding tells.
    for form in ({"format": "FLAC"}, {"format": "OGG", "subtype": "VORBIS"}):
        error = refused(server, 413, "POST", "/separate?name=long", wav(np.zeros(6 * RATE), **form))
        assert error == "long: is longer than 5 s, the longest that is separated here"
    assert ask(server, "POST", "/separate", wav(np.zeros(5 * RATE)))[0] == 200


def test_lengths_that_lie(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=30)
    connection.putrequest("POST", "/separate")
    connection.endheaders()
    assert connection.getresponse().status == 411
    connection.close()
    assert refused(server, 411, "POST", "/separate", b"x", Content_Length="-5").startswith("the upload does not say")


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/result",
        "/result/x/1.wav",
        "/result/../1.wav",
        "/result/../../etc/passwd",
        "/result/%2e%2e/1.wav",
        "/result/{token}/3.wav",
        "/result/{token}/../1.wav",
        "/result/{token}/..%2f0.wav",
        "//etc/passwd",
        "/separate",
    ],
)
def test_only_results_can_be_fetched(server, path):
    token = next(reversed(server.workshop._results), "none")
    assert refused(server, 404, "GET", path.format(token=token)) == "there is nothing here"


def test_other_sites_are_not_served(server):
    port = server.server_address[1]
    assert "not one of this machine" in refused(server, 421, "GET", "/", Host=f"evil.example:{port}")
    assert ask(server, "GET", "/", Host=f"localhost:{port}")[0] == 200
    own = f"127.0.0.1:{port}"
    body = wav(speech_like(0, 0.5))
    assert "other pages" in refused(server, 403, "POST", "/separate", body, Host=own, Origin="http://evil.example")
    assert "other pages" in refused(server, 403, "POST", "/separate", body, Host=own, Origin="null")
    assert ask(server, "POST", "/separate", body, Host=own, Origin=f"http://{own}")[0] == 200
    assert ask(server, "PUT", "/separate", body)[0] == 501


def test_the_page_loads_nothing_from_elsewhere(server):
    status, headers, content = ask(server, "GET", "/")
    assert status == 200 and b"http://" not in content and b"https://" not in content and b"{{" not in content
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")


def test_one_at_a_time_the_others_wait_and_too_many_are_sent_away(server, model):
    body = wav(speech_like(0, 0.5))
    model.may_go_on.clear()
    model.started.clear()
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(ask(server, "POST", "/separate", body)[0])) for _ in range(4)]
    try:
        for thread in threads:
            thread.start()
        assert model.started.wait(10)
        for _ in range(100):
            if server.workshop._places._value == 0:
                break
            threading.Event().wait(0.05)
        assert "waiting already" in refused(server, 503, "POST", "/separate", body) and found == []
    finally:
        model.may_go_on.set()
    for thread in threads:
        thread.join(20)
    assert found == [200] * 4
    assert ask(server, "POST", "/separate", body)[0] == 200


def test_temporary_files_go(model, tmp_path):
    server = PageServer(Separator([model]), port=0)
    folder = Path(server.workshop._temporary.name)
    upload = tmp_path / "u"
    upload.write_bytes(wav(speech_like(0, 0.3)))
    tokens = [server.workshop.separate(upload, "u")["token"] for _ in range(KEPT + 2)]
    assert server.workshop.result(tokens[0], "1") is None and server.workshop.result(tokens[-1], "1").is_file()
    assert len(list(folder.iterdir())) == KEPT
    with server.workshop.place() as path:
        path.write_bytes(b"x")
    assert not path.exists()
    server.server_close()
    assert not folder.exists()


def test_addresses_that_cannot_be_listened_on(server, model):
    separator = Separator([model])
    with pytest.raises(SepmlError, match=r"127.0.0.1, port \d+: cannot be listened on: Address already in use"):
        PageServer(separator, port=server.server_address[1])
    for host, port in (("127.0.0.1", 70000), ("no.such.host.invalid", 0)):
        with pytest.raises(SepmlError, match=f"{host}, port {port}: cannot be listened on"):
            PageServer(separator, host, port)


def test_a_model_that_is_absent(tmp_path, capsys):
    assert cli.main(["serve", "--model", str(tmp_path / "none"), "--port", "0"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_the_command_ends_cleanly(tmp_path):
    """A process of its own, as Ctrl-C and a termination end it."""
    weights = "import sys, torch; from pathlib import Path; sys.path.insert(0, sys.argv[1]); import test_serve as t\n"
    script = (
        weights
        + "from sepml import cli; from sepml.speech.separation.separator import Separator\n"
        + "Separator.load = classmethod(lambda cls, *_: cls([t.Halves()]))\n"
        + "sys.exit(cli.main(['serve', '--port', '0', '--max-mb', '1']))"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", script, str(Path(__file__).parent)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        port = int(process.stdout.readline().strip().rstrip("/").rpartition(":")[2])
        server = SimpleNamespace(server_address=("127.0.0.1", port))
        assert ask(server, "POST", "/separate", wav(speech_like(0, 0.5)))[0] == 200
        assert refused(server, 413, "POST", "/separate", bytes(1_000_001)) == "the upload is larger than 1 MB"
        assert [path.name[:12] for path in tmp_path.iterdir()] == ["sepml-serve-"]
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 0 and errors.splitlines()[0] == "Ctrl-C ends" and errors.splitlines()[-1] == "ended"
    assert list(tmp_path.iterdir()) == []


def test_the_whole_way_in_a_browser(server, tmp_path):
    x = speech_like(0, 1.5)
    (tmp_path / "two voices.wav").write_bytes(wav(quantise(x)))
    (tmp_path / "no.wav").write_bytes(b"no audio")
    (tmp_path / "large.wav").write_bytes(bytes(400_001))
    with chromium() as browser:
        page = browser.new_page(accept_downloads=True, permissions=["microphone"])
        watched = Watched(page)
        page.goto(server.url)
        page.set_input_files("#file", tmp_path / "two voices.wav")
        page.wait_for_selector(".result .signal:nth-child(3)")
        assert page.inner_text("#status").startswith("two voices.wav: 1.5 s of sound")
        assert page.locator(".result figcaption").all_inner_texts() == ["mixture", "speaker 1", "speaker 2"]
        for number in (2, 3):
            heard = watched.play(f".signal:nth-child({number}) audio")
            assert heard["ready"] >= 2 and heard["duration"] == pytest.approx(1.5, abs=0.01) and heard["time"] >= 0.1
        est = server.workshop.separator.separate(quantise(x) / np.float32(32768), RATE).numpy()
        for number in (1, 2):
            with page.expect_download() as download:
                page.click(f"text=Download two voices_s{number}.wav")
            assert download.value.suggested_filename == f"two voices_s{number}.wav"
            got, _ = soundfile.read(download.value.path(), dtype="int16")
            np.testing.assert_array_equal(got, quantise(est[number - 1]))
        page.set_input_files("#file", tmp_path / "large.wav")
        watched.until("document.getElementById('status').textContent === 'large.wav: is larger than 0.4 MB'")
        # The microphone is Chromium's own fake one, which beeps.
        page.click("#record")
        page.wait_for_timeout(1500)
        page.click("#record")
        watched.until("document.querySelectorAll('.result').length === 2")
        assert page.inner_text(".result h2 >> nth=0").startswith("recording.")
        assert watched.complaints == [] and all(url.startswith((server.url, "data:", "blob:")) for url in watched.requests)
        page.set_input_files("#file", tmp_path / "no.wav")
        watched.until("document.getElementById('status').className === 'absent'")
        watched.until("document.getElementById('status').textContent.startsWith('no.wav: ')")
        page.set_viewport_size({"width": 360, "height": 740})
        assert not watched.too_wide
        page.close()
