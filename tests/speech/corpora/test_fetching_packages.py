"""Debian packages are fetched by apt-get, tried again, and refused by name."""

import logging
import os
import shutil
from pathlib import Path

import pytest
from small_packages import LIST_SIZES, build_deb, six_speakers, small_debs  # noqa: F401

from sepml.errors import SepmlError
from sepml.speech.corpora import debian
from sepml.speech.corpora.prompts import prepare_prompts

pytestmark = pytest.mark.usefixtures("few_speakers")


FAKE_APT = """#!/bin/sh
echo "$@" >> {log}
if [ "$2" = update ]; then touch {lists}; exit 0; fi
if [ -n "{need_lists}" ] && [ ! -e {lists} ]; then echo "E: Unable to locate package $3" >&2; exit 100; fi
if [ ! -e {log}.$3 ]; then touch {log}.$3; {first_time} ; fi
cp {debs}/"$3"_*.deb .
"""


def fake_apt(tmp_path: Path, debs: Path, monkeypatch: pytest.MonkeyPatch, first_time: str = ":", need_lists: str = "") -> Path:
    tools = tmp_path / "tools"
    tools.mkdir()
    log = tmp_path / "apt.log"
    text = FAKE_APT.format(log=log, lists=tmp_path / "lists-are-here", debs=debs, first_time=first_time, need_lists=need_lists)
    (tools / "apt-get").write_text(text)
    (tools / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(debian, "_PAUSE_S", 0.0)
    return log


def test_packages_are_fetched_once_and_lists_updated_once(debs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = fake_apt(tmp_path, debs, monkeypatch, need_lists="yes")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    out = tmp_path / "out"
    prepare_prompts(out, jobs=1, lists=LIST_SIZES)
    calls = log.read_text().splitlines()
    assert calls.count("-q update") == 1
    assert len(calls) == 5 + 2, "five packages, of which the first is asked for twice"
    assert sorted(path.name for path in (out / "debs").iterdir()) == sorted(path.name for path in debs.iterdir())
    shutil.rmtree(out / "lists")
    (out / "f-june" / "f-june-0000.wav").unlink()
    prepare_prompts(out, jobs=1, lists=LIST_SIZES)
    assert len(log.read_text().splitlines()) == 7, "the fetched packages are kept"


def test_absent_lists_without_root(debs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_apt(tmp_path, debs, monkeypatch, need_lists="yes")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(SepmlError, match="run `sudo apt-get update` first"):
        prepare_prompts(tmp_path / "out", jobs=1)


def test_a_transient_failure_is_tried_again_and_a_lasting_one_is_told(
    debs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_apt(tmp_path, debs, monkeypatch, first_time="echo 'E: Connection timed out' >&2; echo cut > x_1_all.deb; exit 100")
    few = ["asterisk-prompt-es-co"]
    debian.download(few, tmp_path / "fetched")
    assert [path.name for path in (tmp_path / "fetched").iterdir()] == ["asterisk-prompt-es-co_0.20070403-2.1_all.deb"]
    (tmp_path / "tools" / "apt-get").write_text("#!/bin/sh\necho 'E: Connection timed out' >&2\nexit 100\n")
    with pytest.raises(SepmlError, match="failed 4 times: Connection timed out"):
        debian.download(few, tmp_path / "fetched")


def test_another_version_is_a_warning(debs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    build_deb(tmp_path, "asterisk-prompt-es-co", "9.9-1", {})
    package = ("asterisk-prompt-es-co", "0.20070403-2.1")
    deb = debian.find_deb(*package, [tmp_path])
    assert deb is not None
    with caplog.at_level(logging.WARNING):
        assert debian.deb_version(*package, deb) == "9.9-1"
    assert "tables of speakers were made with 0.20070403-2.1" in caplog.text
    shutil.copy(next(debs.glob("asterisk-prompt-es-co_*.deb")), tmp_path)
    expected = debian.find_deb(*package, [tmp_path])
    assert expected is not None and "0.20070403-2.1" in expected.name, "the version of the tables goes before a later one"
