"""The page without a browser: what an upload gives, what is refused, what waits and what is deleted."""

import io
import zipfile

import numpy as np
import pytest
import soundfile
from page_server import RATE, Halves, Visitor, serving, wav
from speech_signals import speech_like

from sepml import cli
from sepml.errors import SepmlError
from sepml.speech.audio.files import quantise
from sepml.speech.demo.serve import PageServer
from sepml.speech.demo.uploads import Limits
from sepml.speech.separation.separator import Separator

WAYS_OUT = {"seconds": "the way out", "size": "another way out"}


@pytest.fixture(scope="module")
def model():
    return Halves()


@pytest.fixture(scope="module")
def server(model):
    with serving(model, Limits(seconds=5, size=400_000, ways_out=WAYS_OUT)) as server:
        yield server


@pytest.fixture
def visitor(server):
    return Visitor(server.port)


def test_downloads_are_what_the_separator_gives(server, visitor):
    x = speech_like(0, 1.5)
    answer = visitor.upload(wav(quantise(x)), "a b.wav")
    assert answer.status == 202 and answer.json["name"] == "a b.wav"
    token = answer.json["job"]
    found = visitor.ended(token)
    assert (found["state"], found["rate"], found["seconds"]) == ("done", RATE, 1.5)
    [line] = found["lines"]
    assert line.startswith("a b.wav: talkers are active ") and " % at once; " in line
    mixture = quantise(x) / np.float32(32768)
    est = server.jobs.separators.by_talkers[2].separate(mixture, RATE).numpy()
    for number, expected in enumerate((mixture, *est)):
        np.testing.assert_array_equal(visitor.samples(token, number), quantise(expected))
    assert found["html"].count("<figure") == 3 and "Download a b_s2.wav" in found["html"]
    named = visitor.get(f"/jobs/{token}/2.wav").headers["Content-Disposition"]
    assert named == "inline; filename*=utf-8''a%20b_s2.wav"


def test_speakers_louder_than_full_scale_are_turned_down_together(server, visitor):
    x = 40 * speech_like(0, 1.0).astype(np.float32)
    token, found = visitor.separated(wav(x, subtype="FLOAT"))
    est = server.jobs.separators.by_talkers[2].separate(x, RATE).numpy()
    peak = np.abs(est).max()
    assert peak > 1.5
    assert found["lines"][0] == f"mine.wav: sources turned down by {20 * np.log10(peak):.1f} dB to stay below full scale"
    assert len(found["lines"]) == 2
    for number, expected in enumerate(est / peak, start=1):
        np.testing.assert_allclose(visitor.samples(token, number, "float32"), expected, atol=1 / 32768)


@pytest.mark.parametrize("form, subtype", [("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III")])
def test_other_formats_rates_and_channels(visitor, form, subtype):
    x = np.stack([speech_like(1, 1.0, 16000), speech_like(2, 1.0, 16000)], 1)
    _, found = visitor.separated(wav(x, 16000, format=form, subtype=subtype), "x")
    assert found["state"] == "done" and found["rate"] == 16000 and found["seconds"] == pytest.approx(1.0, abs=0.1)
    mean, heard = found["lines"]
    assert mean == "x: the mean of its 2 channels is separated (the setting `channel` selects one)"
    assert heard.startswith("x: talkers are active ")


def test_the_page_says_what_the_command_says(visitor, tmp_path, caplog):
    """Whatever is said while a recording is separated, word for word; at any level of the log."""
    from sepml.speech.separation.separate_files import separate_files

    x = speech_like(0, 1.0)
    content = {
        "silent.wav": wav(np.zeros(RATE)),
        "cancels.wav": wav(np.stack([x, -x], 1)),
        "nan.wav": wav(np.array([0.1, np.nan, 0.2] * 500), subtype="FLOAT"),
        "broken.wav": wav(x)[:4000],
        "text.wav": b"not audio at all " * 50,
    }
    for name, recording in content.items():
        (tmp_path / name).write_bytes(recording)
        caplog.clear()
        with caplog.at_level("INFO", "sepml.speech"):
            failures = separate_files([tmp_path / name], Separator([Halves()]), tmp_path / "out")
        said = [r.getMessage() for r in caplog.records if r.name.startswith("sepml.speech") and "written: " not in r.msg]
        command = [line.replace(f"{tmp_path}/", "") for line in (*said, *failures)]
        assert command
        answer = visitor.upload(recording, name)
        state = visitor.ended(answer.json["job"]) if answer.status == 202 else {"state": "failed", "error": answer.error}
        assert sorted(state["lines"] if state["state"] == "done" else [state["error"]]) == sorted(command)


def test_a_warning_is_shown_as_one(visitor):
    x = speech_like(0, 1.0)
    html = visitor.separated(wav(np.stack([x, -x], 1)), "<b>.wav")[1]["html"]
    assert '<p class="said absent">its channels cancel each other in their mean' in html and "&lt;b&gt;_s1.wav" in html
    assert '<p class="said soft">the mean of its 2 channels' in html


def test_parts_of_a_file(visitor):
    token, _ = visitor.separated(wav(speech_like(0, 0.5)))
    whole = visitor.get(f"/jobs/{token}/1.wav").content
    part = visitor.get(f"/jobs/{token}/1.wav", Range="bytes=100-199")
    assert (part.status, part.content) == (206, whole[100:200])
    assert part.headers["Content-Range"] == f"bytes 100-199/{len(whole)}"
    assert visitor.get(f"/jobs/{token}/1.wav", Range="bytes=-10").content == whole[-10:]
    assert visitor.get(f"/jobs/{token}/1.wav", Range="bytes=99999999-").status == 416


@pytest.mark.parametrize(
    "body, complaint",
    [
        (b"", "is empty"),
        (b"not audio at all " * 50, "not an audio file"),
        (wav(speech_like(0, 1.0))[:4000], "breaks off"),
        (wav(np.zeros(0)), "holds no samples"),
    ],
    ids=["empty", "text", "broken off", "no samples"],
)
def test_uploads_that_are_no_recording(visitor, body, complaint):
    answer = visitor.upload(body)
    assert answer.status == 422 and answer.error.startswith("mine.wav: ") and complaint in answer.error


def test_damage_that_only_decoding_finds(visitor):
    _, state = visitor.separated(wav(np.array([0.1, np.nan, 0.2] * 500), subtype="FLOAT"))
    assert state["state"] == "failed" and state["error"].startswith("mine.wav: 500 samples") and "html" not in state


def test_limits_name_the_way_out(visitor):
    for size in (400_001, 2_000_000):
        answer = visitor.upload(bytes(size))
        assert answer.status == 413 and answer.error.endswith(": is larger than 0.4 MB; another way out")
    said = "long: is longer than 5 s, the longest that is separated here; the way out"
    # FLAC of silence is small and long; its header says so.
    answer = visitor.upload(wav(np.zeros(6 * RATE), format="FLAC"), "long")
    assert answer.status == 413 and answer.error == said
    # Written to a pipe it does not say so, and only decoding tells.
    unsaid = bytearray(wav(np.zeros(6 * RATE), format="FLAC"))
    unsaid[21] &= 0xF0
    unsaid[22:26] = bytes(4)
    _, state = visitor.separated(bytes(unsaid), "long")
    assert state["error"] == said
    assert visitor.separated(wav(np.zeros(5 * RATE)))[1]["state"] == "done"


def test_the_command_tells_the_way_out():
    from sepml.commands.serve import _WAYS_OUT

    limits = Limits(ways_out=_WAYS_OUT)
    assert "`sepml separate`" in str(limits.refusal("seconds", "x")) and "--max-seconds" in str(limits.refusal("seconds", "x"))
    assert "`sepml separate`" in str(limits.refusal("samples", "x")) and "--max-mb" in str(limits.refusal("size", "x"))


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/jobs",
        "/jobs/",
        "/jobs/x",
        "/jobs/x/1.wav",
        "/jobs/../1.wav",
        "/jobs/../../etc/passwd",
        "/jobs/%2e%2e/1.wav",
        "/jobs/{token}/3.wav",
        "/jobs/{token}/upload",
        "/jobs/{token}/../1.wav",
        "/jobs/{token}/..%2f0.wav",
        "/jobs/{token}/%00",
        "/results.zip?job=x",
        "//etc/passwd",
    ],
)
def test_only_results_can_be_fetched(visitor, path):
    token, _ = visitor.separated(wav(speech_like(0, 0.3)))
    answer = visitor.get(path.format(token=token))
    assert (answer.status, answer.error) in ((404, "there is nothing here"), (405, "this is not done here"))


def test_other_sites_are_not_served(server, visitor):
    assert "not one of this machine" in visitor.get("/", Host=f"evil.example:{server.port}").error
    assert visitor.get("/", Host=f"evil.example:{server.port}").status == 421
    assert visitor.get("/", Host=f"localhost:{server.port}").status == 200
    own, body = f"127.0.0.1:{server.port}", wav(speech_like(0, 0.5))
    for origin in ("http://evil.example", "null", f"http://{own}.evil.example", f"http://{own}/", "http://["):
        answer = visitor.upload(body, Host=own, Origin=origin)
        assert answer.status == 403 and "other pages" in answer.error
    assert visitor.upload(body, Host=own, Origin=f"http://{own}").status == 202
    assert visitor.ask("PUT", "/jobs", body).status == 405


def test_the_page_loads_nothing_from_elsewhere(visitor):
    answer = visitor.get("/")
    assert answer.status == 200 and b"http://" not in answer.content and b"https://" not in answer.content
    assert b"{{" not in answer.content and b"{%" not in answer.content
    for found in (answer, visitor.get("/nothing"), visitor.get("/", Host="evil.example")):
        assert found.headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert found.headers["X-Content-Type-Options"] == "nosniff" and found.headers["Cache-Control"] == "no-store"


def test_everything_in_one_archive(visitor):
    first, second = (visitor.separated(wav(speech_like(n, 0.5)), "same.wav")[0] for n in (0, 1))
    answer = visitor.get(f"/results.zip?job={first}&job={second}")
    assert answer.status == 200 and answer.headers["Content-Disposition"] == 'attachment; filename="separated.zip"'
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        stems = ["same_mixture", "same_s1", "same_s2"]
        assert archive.namelist() == [*(f"{stem}.wav" for stem in stems), *(f"{stem} (2).wav" for stem in stems)]
        assert archive.read("same_s2 (2).wav") == visitor.get(f"/jobs/{second}/2.wav").content
    assert visitor.get("/results.zip").status == 400
    with zipfile.ZipFile(io.BytesIO(visitor.get(f"/results.zip?job={first}&job=gone").content)) as archive:
        assert archive.namelist() == ["missing.txt", *(f"{stem}.wav" for stem in stems)]
        assert archive.read("missing.txt").startswith(b"1 recordings were deleted")


def test_addresses_that_cannot_be_listened_on(server, model):
    separator = Separator([model])
    with pytest.raises(SepmlError, match=r"127.0.0.1, port \d+: cannot be listened on: Address already in use"):
        PageServer(separator, port=server.port)
    for host, port in (("127.0.0.1", 70000), ("no.such.host.invalid", 0)):
        with pytest.raises(SepmlError, match=f"{host}, port {port}: cannot be listened on"):
            PageServer(separator, host, port)


def test_a_model_that_is_absent(tmp_path, capsys):
    assert cli.main(["serve", "--model", str(tmp_path / "none"), "--port", "0"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_without_its_packages_the_command_says_so(monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "starlette", None)
    assert cli.main(["serve", "--port", "0"]) == 1
    assert "pip install 'sepml[page]'" in capsys.readouterr().err


def test_long_quiet_recordings_keep_their_resolution(visitor):
    """The player's mixture has 24 bits: 80 dB below full scale 16 bits would leave three."""
    x = (1e-4 * np.sin(np.arange(RATE) / 5)).astype(np.float32)
    token, _ = visitor.separated(wav(x, subtype="FLOAT"))
    found = visitor.samples(token, 0, "float32")
    assert np.abs(found - x).max() < 2 / 2**24
    assert soundfile.info(io.BytesIO(visitor.get(f"/jobs/{token}/0.wav").content)).subtype == "PCM_24"
