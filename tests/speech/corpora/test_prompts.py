"""Recorded speech out of Debian packages: small packages made here, and the real ones where they are at hand."""

import csv
import errno
import hashlib
import io
import json
import logging
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sepml.errors import SepmlError
from sepml.speech.audio.files import read_wav
from sepml.speech.corpora import debian, prompts
from sepml.speech.corpora.draw_mix_lists import LISTS, ListSizes
from sepml.speech.corpora.packages import CORE, PACKAGES, SIZES
from sepml.speech.corpora.prompts import prepare_prompts
from sepml.speech.mixing.mixlist import read_mix_list

SPEAKERS = ("f-june", "f-jimenez", "f-dalzot", "m-tuxda", "f-astru", "f-tuxel")
LIST_SIZES = ListSizes(tr=8, cv=2, tt=2)
STAMPS = "usr/share/tuxpaint/stamps"
SOUNDS = "usr/share/asterisk/sounds"


def speech(name: str, seconds: float, rate: int) -> np.ndarray:
    """Syllables of noise at -25 dBFS, different for every name."""
    rng = np.random.default_rng(list(name.encode()))
    n = int(seconds * rate)
    syllables = 0.55 + 0.45 * np.sin(2 * np.pi * 4 * np.arange(n) / rate)
    return (0.08 * rng.standard_normal(n) * syllables).clip(-1, 1)


def encoded(name: str, seconds: float = 3.5, kind: str = "wav", rate: int = 8000, channels: int = 1) -> bytes:
    x = np.repeat(speech(name, seconds, rate)[:, None], channels, axis=1)
    file = io.BytesIO()
    form, subtype = {"wav": ("WAV", "PCM_16"), "gsm": ("RAW", "GSM610"), "ogg": ("OGG", "VORBIS")}[kind]
    soundfile.write(file, x, rate, format=form, subtype=subtype)
    return file.getvalue()


def build_deb(folder: Path, name: str, version: str, files: dict[str, bytes]) -> None:
    tree = folder / f"tree-{name}"
    files = {**files, f"usr/share/doc/{name}/copyright": f"licence of {name}\n".encode()}
    control = f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: A <a@b.c>\nDescription: test\n"
    for path, data in {**files, "DEBIAN/control": control.encode()}.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_bytes(data)
    target = folder / f"{name}_{version.replace(':', '%3a')}_all.deb"
    command = ["dpkg-deb", "--root-owner-group", "-Znone", "-b", str(tree), str(target)]
    subprocess.run(command, check=True, capture_output=True)
    shutil.rmtree(tree)


def package_files() -> dict[str, dict[str, bytes]]:
    """Clips where the real packages have them, with what the rules leave out or join."""
    june = {f"{SOUNDS}/fr_CA_f_June/p-{i:02d}.wav": encoded(f"june{i}") for i in range(40)}
    june |= {
        f"{SOUNDS}/fr_CA_f_June/beep.wav": encoded("beep"),
        f"{SOUNDS}/fr_CA_f_June/silence/1.wav": encoded("silence"),
        f"{SOUNDS}/fr_CA_f_June/letters/i.wav": encoded("excluded"),
        f"{SOUNDS}/fr_CA_f_June/quiet.wav": encoded("quiet", 0.1),
        f"{SOUNDS}/fr_CA_f_June/zz-copy.wav": encoded("june3"),
        f"{SOUNDS}/fr_CA_f_June/readme.txt": b"no sound",
    }
    june |= {f"{SOUNDS}/fr_CA_f_June/z-short-{i}.wav": encoded(f"short{i}", 1.5) for i in range(4)}
    gsm = {f"{SOUNDS}/es/g-{i:02d}.gsm": encoded(f"gsm{i}", kind="gsm") for i in range(20)}
    stamps = {
        f"usr/share/tuxpaint/stamps/animals/{name}{i}_desc_{name}.ogg": encoded(
            f"{name}{i}", kind="ogg", rate=22050, channels=2
        )
        for name in ("da", "el", "fi", "be")
        for i in range(2)
    }
    return {
        "asterisk-core-sounds-fr-wav": june,
        "asterisk-prompt-es-co": gsm,
        "asterisk-prompt-it-menardi-wav": {f"{SOUNDS}/it/i-{i}.wav": encoded(f"it{i}") for i in range(2)},
        "asterisk-core-sounds-ru-wav": {f"{SOUNDS}/ru_RU_f_IvrvoiceRU/r-{i}.wav": encoded(f"ru{i}") for i in range(2)},
        "tuxpaint-stamps-default": stamps,
    }


@pytest.fixture(scope="module")
def debs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is not installed")
    folder = tmp_path_factory.mktemp("debs")
    versions = {package.name: package.version for package in PACKAGES}
    for name, files in package_files().items():
        build_deb(folder, name, versions[name], files)
    return folder


@pytest.fixture(autouse=True)
def few_speakers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The core corpus of these tests has six speakers of five packages, the full one a seventh."""
    few = tuple(speaker for speaker in CORE if speaker.name in SPEAKERS)
    more = tuple(speaker for speaker in CORE if speaker.name == "f-tuxbe")
    monkeypatch.setattr(prompts, "SIZES", {"core": few, "full": few + more})


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha1(path.read_bytes()).hexdigest() for path in files}


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_corpus_follows_the_rules(debs: Path, tmp_path: Path) -> None:
    out = tmp_path / "corpus"
    prepare_prompts(out, debs=debs, jobs=1, lists=LIST_SIZES)
    rows = rows_of(out / "utterances.csv")
    assert {row["speaker"] for row in rows} == set(SPEAKERS)
    june = [row for row in rows if row["speaker"] == "f-june"]
    clips = " ".join(row["clips"] for row in june).split()
    # Beeps, silence, excluded and too short clips are left out, and of two equal clips the first in file order stays.
    short = [f"ast-fr:fr_CA_f_June_z-short-{i}" for i in range(4)]
    assert clips == [f"ast-fr:fr_CA_f_June_p-{i:02d}" for i in range(40)] + short
    joined = [row for row in june if " " in row["clips"] or "short" in row["clips"]]
    assert 1 <= len(joined) <= 2 and all(1.0 <= float(row["seconds"]) <= 7.5 for row in joined)
    assert [row["split"] for row in june[:20]] == ["train"] * 18 + ["seen_valid", "seen_test"]
    assert [row["file"] for row in june[:2]] == ["f-june/f-june-0000.wav", "f-june/f-june-0001.wav"]
    for row in rows:
        x, _ = read_wav(out / row["file"], sample_rate=8000)
        assert row["seconds"] == f"{len(x) / 8000:.2f}"
        active = 10 * np.log10(np.mean(x.astype(float) ** 2))
        assert -29 < active < -23 and np.abs(x).max() <= 0.9001
        assert abs(x[0]) < 1e-4 and abs(x[-1]) < 1e-4
    unseen = {split: {row["speaker"] for row in rows if row["split"] == split} for split in ("unseen_valid", "unseen_test")}
    assert unseen == {"unseen_valid": {"f-dalzot", "m-tuxda"}, "unseen_test": {"f-astru", "f-tuxel"}}


def test_the_folder_is_whole_and_nothing_else_is_in_it(debs: Path, tmp_path: Path) -> None:
    out = tmp_path / "corpus"
    prepare_prompts(out, debs=debs, jobs=1, lists=LIST_SIZES)
    assert {path.name for path in out.iterdir()} == {
        *SPEAKERS,
        "utterances.csv",
        "speakers.csv",
        "LICENSES",
        "lists",
        "corpus.json",
    }
    licences = out / "LICENSES"
    assert (licences / "asterisk-prompt-es-co.copyright").read_text() == "licence of asterisk-prompt-es-co\n"
    assert "tuxpaint-stamps-default  2022.06.04-1  GPL-2\n    m-tuxda, f-tuxel" in (licences / "README.txt").read_text()
    stamp = json.loads((out / "corpus.json").read_text())
    assert stamp["corpus"] == {"kind": "prompts", "size": "core", "rules": prompts.RULES}
    assert stamp["packages"]["asterisk-prompt-it-menardi-wav"] == "1:1.4.22+mm20110907-3.1"
    assert sorted(path.name for path in (out / "lists").iterdir()) == sorted(f"mix_2_spk_{name}.txt" for name in LISTS)
    for line in read_mix_list(out / "lists" / "mix_2_spk_tr.txt"):
        assert all((out / path).is_file() for path in line.paths)


def test_a_complete_corpus_is_left_alone_and_only_its_lists_follow_the_seed(
    debs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "corpus"
    prepare_prompts(out, debs=debs, jobs=1, lists=LIST_SIZES)
    before = digests(out)
    monkeypatch.setattr(prompts, "_make", lambda *_: pytest.fail("made again"))
    prepare_prompts(out, jobs=1, lists=LIST_SIZES)
    assert digests(out) == before
    prepare_prompts(out, seed=1, jobs=1, lists=LIST_SIZES)
    changed = {name for name, digest in digests(out).items() if before[name] != digest}
    assert "corpus.json" in changed and all(name == "corpus.json" or name.startswith("lists/") for name in changed)


def test_a_stopped_run_is_finished_and_grows(debs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    prepare_prompts(whole, debs=debs, jobs=1, lists=LIST_SIZES)
    build = prompts._build_speaker
    with monkeypatch.context() as patched:

        def stop(*arguments: object) -> object:
            if arguments[-1].name == "f-dalzot":
                raise KeyboardInterrupt
            return build(*arguments)

        patched.setattr(prompts, "_build_speaker", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare_prompts(stopped, debs=debs, jobs=1, lists=LIST_SIZES)
    assert not (stopped / "corpus.json").exists()
    prepare_prompts(stopped, debs=debs, jobs=1, lists=LIST_SIZES)
    assert digests(stopped) == digests(whole)
    prepare_prompts(stopped, size="full", debs=debs, jobs=1, lists=LIST_SIZES)
    assert json.loads((stopped / "corpus.json").read_text())["corpus"]["size"] == "full"
    with pytest.raises(SepmlError, match=r"holds a corpus with .*size = full, now core"):
        prepare_prompts(stopped, size="core", debs=debs, jobs=1)


def test_jobs_do_not_change_the_result(debs: Path, tmp_path: Path) -> None:
    prepare_prompts(tmp_path / "one", debs=debs, jobs=1, lists=LIST_SIZES)
    prepare_prompts(tmp_path / "two", debs=debs, jobs=2, lists=LIST_SIZES)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def test_a_folder_with_other_content_is_not_touched(debs: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(SepmlError, match=r"holds 'thesis.tex' but not the corpus.json of a corpus"):
        prepare_prompts(tmp_path, debs=debs)
    assert digests(tmp_path) == {"thesis.tex": hashlib.sha1(b"mine").hexdigest()}
    with pytest.raises(SepmlError, match="is a file"):
        prepare_prompts(tmp_path / "thesis.tex", debs=debs)


def test_wrong_arguments(tmp_path: Path) -> None:
    with pytest.raises(SepmlError, match=r"'cor' is unknown; known: core, full; did you mean 'core'\?"):
        prepare_prompts(tmp_path / "new", size="cor")
    with pytest.raises(SepmlError, match="no such folder"):
        prepare_prompts(tmp_path / "new", debs=tmp_path / "absent")


def test_no_debian_names_the_way_out_and_leaves_the_folder_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SepmlError, match=r"dpkg-deb and apt-get not found: .*`sepml prepare synthetic`"):
        prepare_prompts(tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("keep", [0.1, 0.97])
def test_a_broken_package_is_named(debs: Path, tmp_path: Path, keep: float) -> None:
    """Cut in its header, or near the end where only unpacking can tell."""
    broken = tmp_path / "debs"
    shutil.copytree(debs, broken)
    deb = next(broken.glob("asterisk-prompt-es-co_*.deb"))
    whole = deb.read_bytes()
    deb.write_bytes(whole[: 100 if keep < 0.5 else int(len(whole) * keep)])
    with pytest.raises(
        SepmlError, match=f"{deb.name}: (not a whole Debian package|cannot be unpacked).*delete it and run again"
    ):
        prepare_prompts(tmp_path / "out", debs=broken, jobs=1, lists=LIST_SIZES)
    shutil.copy(debs / deb.name, deb)
    prepare_prompts(tmp_path / "out", debs=broken, jobs=1, lists=LIST_SIZES)


def test_a_package_under_another_name_is_refused(debs: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "debs"
    shutil.copytree(debs, wrong)
    gsm = next(wrong.glob("asterisk-prompt-es-co_*.deb"))
    shutil.copy(gsm, next(wrong.glob("asterisk-core-sounds-ru-wav_*.deb")))
    with pytest.raises(SepmlError, match="holds the package asterisk-prompt-es-co, asterisk-core-sounds-ru-wav was expected"):
        prepare_prompts(tmp_path / "out", debs=wrong, jobs=1)


def test_a_full_disk_is_one_line_and_the_run_can_go_on(debs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    replace, written = os.replace, []

    def full_after_ten(source: Path, target: Path) -> None:
        written.extend([target] if target.suffix == ".wav" else [])
        if len(written) > 10:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", full_after_ten)
        with pytest.raises(SepmlError, match="no space left on the disk"):
            prepare_prompts(out, debs=debs, jobs=1, lists=LIST_SIZES)
    assert len(list(out.glob("*/*.wav"))) == 10
    assert not list(out.glob("*/.*.wav"))
    prepare_prompts(out, debs=debs, jobs=1, lists=LIST_SIZES)
    assert (out / "corpus.json").is_file()


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
    few = [package for package in PACKAGES if package.name == "asterisk-prompt-es-co"]
    debian.download(few, tmp_path / "fetched")
    assert [path.name for path in (tmp_path / "fetched").iterdir()] == ["asterisk-prompt-es-co_0.20070403-2.1_all.deb"]
    (tmp_path / "tools" / "apt-get").write_text("#!/bin/sh\necho 'E: Connection timed out' >&2\nexit 100\n")
    with pytest.raises(SepmlError, match="failed 4 times: Connection timed out"):
        debian.download(few, tmp_path / "fetched")


def test_another_version_is_a_warning(debs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    build_deb(tmp_path, "asterisk-prompt-es-co", "9.9-1", {})
    package = next(package for package in PACKAGES if package.name == "asterisk-prompt-es-co")
    deb = debian.find_deb(package, [tmp_path])
    assert deb is not None
    with caplog.at_level(logging.WARNING):
        assert debian.deb_version(package, deb) == "9.9-1"
    assert "tables of speakers were made with 0.20070403-2.1" in caplog.text
    shutil.copy(next(debs.glob("asterisk-prompt-es-co_*.deb")), tmp_path)
    expected = debian.find_deb(package, [tmp_path])
    assert expected is not None and "0.20070403-2.1" in expected.name, "the version of the tables goes before a later one"


def test_a_package_laid_out_otherwise_is_told(debs: Path, tmp_path: Path) -> None:
    other = tmp_path / "debs"
    shutil.copytree(debs, other)
    next(other.glob("asterisk-prompt-es-co_*.deb")).unlink()
    build_deb(other, "asterisk-prompt-es-co", "0.20070403-2.1", {"usr/share/elsewhere/a.gsm": encoded("a", kind="gsm")})
    with pytest.raises(SepmlError, match="no clips of f-jimenez in usr/share/asterisk/sounds"):
        prepare_prompts(tmp_path / "out", debs=other, jobs=1)


def test_real_tables_equal_the_reference(shared_dir: Path) -> None:
    reference = {row["speaker"]: row for row in rows_of(shared_dir / "corpus" / "speakers.csv")}
    assert [speaker.name for speaker in SIZES["full"]] == list(reference)
    for speaker in SIZES["full"]:
        row = reference[speaker.name]
        ours = (speaker.sex, speaker.tier, speaker.language, speaker.who, speaker.use, " ".join(speaker.groups), speaker.note)
        assert ours == tuple(row[key] for key in ("sex", "tier", "language", "who", "set", "groups", "note"))
        assert speaker.packages()


def test_real_core_needs_its_packages_only() -> None:
    packages = {package.name for speaker in CORE for package in speaker.packages()}
    assert len(CORE) == 18 and len(SIZES["full"]) == 54
    assert packages == {package.name for package in PACKAGES if package.reader in ("asterisk", "tuxpaint")}


@pytest.mark.slow
@pytest.mark.parametrize("size", ["core", "full"])
def test_real_packages_give_the_reference_corpus(
    size: str, shared_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Needs the real .deb files (0.5 GB): SEPML_DEBS names their folder."""
    if "SEPML_DEBS" not in os.environ:
        pytest.skip("SEPML_DEBS, a folder with the real .deb files, is not set")
    monkeypatch.setattr(prompts, "SIZES", SIZES)
    prepare_prompts(tmp_path / size, size=size, debs=Path(os.environ["SEPML_DEBS"]), jobs=2)
    ours = rows_of(tmp_path / size / "utterances.csv")
    speakers = {row["speaker"] for row in ours}
    reference = rows_of(shared_dir / "corpus" / "utterances.csv")
    expected = [{**row, "file": row["file"].replace(".flac", ".wav")} for row in reference if row["speaker"] in speakers]
    assert len(speakers) == {"core": 18, "full": 54}[size]
    assert ours == expected
