"""Uploads that wait, results that are kept, and files that go."""

import numpy as np
import pytest
from page_server import Halves, Visitor, serving, until, wav
from speech_signals import speech_like

from sepml.speech.demo import jobs as page_jobs
from sepml.speech.demo.jobs import Capacity, Jobs
from sepml.speech.demo.uploads import Limits
from sepml.speech.separation.separator import Separator
from sepml.speech.separation.separators import Separators


@pytest.fixture(scope="module")
def model():
    return Halves()


def test_one_at_a_time_the_others_wait_and_too_many_are_sent_away(model):
    body = wav(speech_like(0, 0.5))
    with serving(model, capacity=Capacity(waiting=3)) as server:
        visitor = Visitor(server.port)
        model.started.clear()
        model.may_go_on.clear()
        try:
            working = visitor.upload(body).json["job"]
            assert model.started.wait(60)
            waiting = [visitor.upload(body).json["job"] for _ in range(3)]
            assert [visitor.get(f"/jobs/{token}").json["ahead"] for token in waiting] == [1, 2, 3]
            assert visitor.get(f"/jobs/{working}").json["state"] == "working"
            answer = visitor.upload(body)
            assert answer.status == 503 and "waiting already" in answer.error and answer.headers["Retry-After"]
            # Who gives up makes room.
            assert visitor.ask("DELETE", f"/jobs/{waiting.pop(0)}").status == 204
            waiting.append(visitor.upload(body).json["job"])
        finally:
            model.may_go_on.set()
        assert [visitor.ended(token)["state"] for token in (working, *waiting)] == ["done"] * 4


def test_a_separation_that_nobody_waits_for_stops(model):
    x = np.tile(speech_like(0, 10.0), 12)
    with serving(model) as server:
        visitor = Visitor(server.port)
        model.started.clear()
        model.may_go_on.clear()
        try:
            token = visitor.upload(wav(x)).json["job"]
            assert model.started.wait(60)
            assert visitor.ask("DELETE", f"/jobs/{token}").status == 204
        finally:
            model.may_go_on.set()
        assert visitor.get(f"/jobs/{token}").status == 404
        visitor.separated(wav(speech_like(0, 0.3)))
        assert [path.name for path in server.folder.iterdir() if token in path.name] == []


def test_old_results_make_room_and_temporary_files_go(model):
    with serving(model, capacity=Capacity(results=3)) as server:
        visitor, folder = Visitor(server.port), server.folder
        tokens = [visitor.separated(wav(speech_like(0, 0.3)), f"{n}.wav")[0] for n in range(5)]
        # The oldest go right after the last one is said to be done.
        until(lambda: visitor.get(f"/jobs/{tokens[1]}").status == 404)
        assert [visitor.get(f"/jobs/{token}/1.wav").status for token in tokens] == [404, 404, 200, 200, 200]
        assert len([path for path in folder.iterdir() if path.is_dir()]) == 3
        assert visitor.ask("DELETE", f"/jobs/{tokens[-1]}").status == 204
        assert visitor.get(f"/jobs/{tokens[-1]}/1.wav").status == 404
        assert len([path for path in folder.iterdir() if path.is_dir()]) == 2
        visitor.upload(b"no audio")
        assert len([path for path in folder.iterdir() if path.is_dir()]) == 2
    assert not folder.exists()


def test_files_stay_while_they_are_read(model):
    with serving(model) as server:
        token, _ = Visitor(server.port).separated(wav(speech_like(0, 0.3)))
        job = server.jobs.find(token)
        with server.jobs.reading([job]):
            server.jobs.drop(job)
            assert server.jobs.find(token) is None and job.result.files[1].is_file()
        assert not job.folder.exists()


def test_a_job_that_nobody_asks_about_is_given_up(model, tmp_path, monkeypatch):
    monkeypatch.setattr(page_jobs, "_ABANDONED_SECONDS", -1.0)
    jobs = Jobs(Separators.of(Separator([model])), tmp_path, Limits())
    job = jobs.new()
    upload = job.uploads / "x.wav"
    upload.write_bytes(wav(speech_like(0, 0.3)))
    jobs.submit(job, upload)
    until(lambda: jobs.find(job.token) is None and not job.folder.exists())
    jobs.close()


def test_a_bug_does_not_stop_the_others(model, tmp_path, monkeypatch, caplog):
    jobs = Jobs(Separators.of(Separator([model])), tmp_path, Limits())

    def one() -> page_jobs.UploadJob:
        job = jobs.new()
        upload = job.uploads / "x.wav"
        upload.write_bytes(wav(speech_like(0, 0.3)))
        jobs.submit(job, upload)
        until(lambda: job.state in ("done", "failed"))
        return job

    with monkeypatch.context() as patch:
        patch.setattr(page_jobs, "separate_upload", lambda *_: 1 / 0)
        failed = one()
    assert failed.state == "failed" and "is a bug" in failed.error and "ZeroDivisionError" in caplog.text
    assert one().state == "done"
    jobs.close()


def test_a_folder_that_was_cleaned_away_comes_back_private(model, tmp_path):
    folder = tmp_path / "page"
    jobs = Jobs(model, folder, Limits())
    job = jobs.new()
    jobs.close()
    assert job.uploads.is_dir() and folder.stat().st_mode & 0o077 == 0


def test_the_time_left_follows_the_fraction(model, tmp_path, monkeypatch):
    job = page_jobs.UploadJob("t", tmp_path, state="working", fraction=0.25, since=100.0)
    monkeypatch.setattr(page_jobs.time, "monotonic", lambda: 110.0)
    assert job.left == pytest.approx(30.0)
    for state, fraction in (("working", None), ("working", 0.001), ("waiting", None), ("done", 0.8)):
        job.state, job.fraction = state, fraction
        assert job.left is None
