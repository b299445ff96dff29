"""Recorded speech out of Debian packages: small packages made here, and the real ones where they are at hand."""

import errno
import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from small_packages import LIST_SIZES, SPEAKERS, build_deb, digests, encoded, rows_of, six_speakers, small_debs  # noqa: F401

from sepml.errors import SepmlError
from sepml.speech.audio.files import read_wav
from sepml.speech.corpora import prompts
from sepml.speech.corpora.clips import all_packages, all_speakers
from sepml.speech.corpora.draw_mix_lists import LISTS
from sepml.speech.corpora.prompts import prepare_prompts
from sepml.speech.mixing.mixlist import read_mix_list

pytestmark = pytest.mark.usefixtures("few_speakers")


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


def test_a_package_laid_out_otherwise_is_told(debs: Path, tmp_path: Path) -> None:
    other = tmp_path / "debs"
    shutil.copytree(debs, other)
    next(other.glob("asterisk-prompt-es-co_*.deb")).unlink()
    build_deb(other, "asterisk-prompt-es-co", "0.20070403-2.1", {"usr/share/elsewhere/a.gsm": encoded("a", kind="gsm")})
    with pytest.raises(SepmlError, match="no clips of f-jimenez in usr/share/asterisk/sounds"):
        prepare_prompts(tmp_path / "out", debs=other, jobs=1)


def test_real_tables_equal_the_reference(shared_dir: Path) -> None:
    reference = {row["speaker"]: row for row in rows_of(shared_dir / "corpus" / "speakers.csv")}
    assert [speaker.name for speaker in all_speakers()] == list(reference)
    for speaker in all_speakers():
        row = reference[speaker.name]
        ours = (speaker.sex, speaker.tier, speaker.language, speaker.who, speaker.use, speaker.groups, speaker.note)
        assert ours == tuple(row[key] for key in ("sex", "tier", "language", "who", "set", "groups", "note"))
        assert speaker.packages()


def test_real_core_needs_its_packages_only() -> None:
    core = [speaker for speaker in all_speakers() if speaker.size == "core"]
    packages = {package.name for speaker in core for package in speaker.packages()}
    assert len(core) == 18 and len(all_speakers()) == 54
    assert packages == {package.name for package in all_packages() if package.reader in ("asterisk", "tuxpaint")}


@pytest.mark.slow
@pytest.mark.parametrize("size", ["core", "full"])
def test_real_packages_give_the_reference_corpus(
    size: str, shared_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Needs the real .deb files (0.5 GB): SEPML_DEBS names their folder."""
    if "SEPML_DEBS" not in os.environ:
        pytest.skip("SEPML_DEBS, a folder with the real .deb files, is not set")
    monkeypatch.setattr(prompts, "all_speakers", all_speakers)
    prepare_prompts(tmp_path / size, size=size, debs=Path(os.environ["SEPML_DEBS"]), jobs=2)
    ours = rows_of(tmp_path / size / "utterances.csv")
    speakers = {row["speaker"] for row in ours}
    reference = rows_of(shared_dir / "corpus" / "utterances.csv")
    expected = [{**row, "file": row["file"].replace(".flac", ".wav")} for row in reference if row["speaker"] in speakers]
    assert len(speakers) == {"core": 18, "full": 54}[size]
    assert ours == expected
