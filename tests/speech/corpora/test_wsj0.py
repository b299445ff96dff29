"""`sepml prepare wsj0`: made-up discs in several layouts give the samples they hold, and every kind of bad file is named."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sphere_files import CODINGS, speech_like, sphere

from sepml.errors import SepmlError
from sepml.speech.corpora import wsj0

# A few utterances of each split: name -> split.
NAMES = {"011c0201": "si_tr_s", "011c0202": "si_tr_s", "40na010x": "si_tr_s", "050c0101": "si_dt_05", "440c0201": "si_et_05"}


LAYOUTS = {
    "plain": lambda name, split: f"wsj0/{split}/{name[:3]}/{name}.wv1",
    "discs": lambda name, split: f"11-{1 + sum(name.encode()) % 3}.1/wsj0/{split}/{name[:3]}/{name}.wv1",
    "package": lambda name, split: f"csr_1_senn/csr_1_senn_d1/11-4.1/wsj0/{split}/{name[:3]}/{name}.wv1",
    "upper case": lambda name, split: f"CSR_1/WSJ0/{split.upper()}/{name[:3].upper()}/{name.upper()}.WV1",
    "iso": lambda name, split: f"{split.upper()}/{name[:3].upper()}/{name.upper()}.WV1;1",
}


def discs(folder: Path, layout: str = "plain", codings=CODINGS[:3]) -> dict[str, np.ndarray]:
    """Discs with a few utterances, and files beside them that are not wanted; gives the samples by name."""
    held = {}
    for number, (name, split) in enumerate(NAMES.items()):
        path = folder / LAYOUTS[layout](name, split)
        path.parent.mkdir(parents=True, exist_ok=True)
        coding, order = codings[number % len(codings)]
        held[name] = sphere(path, speech_like(number, 1600 + number), coding, order, utterance_id=name)
        second = path.with_name(path.name.replace("wv1", "wv2").replace("WV1", "WV2"))
        sphere(second, speech_like(90 + number, 1600 + number))
        (path.parent / f"{name}.ptx").write_text("The words.")
    unwanted = folder / "wsj0" / "si_tr_l" / "01a"
    unwanted.mkdir(parents=True)
    sphere(unwanted / "01aa0101.wv1", speech_like(99, 100))
    return held


@pytest.fixture
def few(monkeypatch) -> None:
    """The corpus is as small as the made-up discs."""
    monkeypatch.setattr(wsj0, "UTTERANCES", {"si_tr_s": 3, "si_dt_05": 1, "si_et_05": 1})
    monkeypatch.setattr(wsj0, "SPEAKERS", {"si_tr_s": 2, "si_dt_05": 1, "si_et_05": 1})


def written(out: Path) -> dict[str, np.ndarray]:
    files = {}
    for file in sorted((out / "wsj0").rglob("*.wav")):
        x, rate = soundfile.read(file, dtype="int16")
        assert rate == 16000
        assert file == out / "wsj0" / NAMES[file.stem] / file.stem[:3] / file.name
        files[file.stem] = x
    return files


def same(files: dict[str, np.ndarray], held: dict[str, np.ndarray]) -> bool:
    return files.keys() == held.keys() and all(np.array_equal(files[name], held[name]) for name in held)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_discs_in_several_layouts(few, tmp_path, layout):
    held = discs(tmp_path / "ldc", layout)
    wsj0.prepare_wsj0([tmp_path / "ldc"], tmp_path / "out", jobs=1)
    assert same(written(tmp_path / "out"), held)
    assert "LDC93S6A" in (tmp_path / "out" / "wsj0" / "LICENSE.txt").read_text()


def test_compressed_discs_in_several_folders_by_processes(few, tmp_path):
    pytest.importorskip("av")
    held = discs(tmp_path / "ldc", "discs", [("shorten", "01"), ("shorten", "10")])
    folders = sorted((tmp_path / "ldc").glob("11-*"))
    assert len(folders) > 1
    # The last one is given twice: through its parent and by a symbolic link that also makes a ring.
    (folders[-1] / "ring").symlink_to(tmp_path / "ldc")
    wsj0.prepare_wsj0([*folders, tmp_path / "ldc"], tmp_path / "out", jobs=2)
    assert same(written(tmp_path / "out"), held)


def test_a_second_run_writes_only_what_is_missing_or_broken_off(few, tmp_path):
    held = discs(tmp_path / "ldc")
    wsj0.prepare_wsj0([tmp_path / "ldc"], tmp_path / "out", jobs=1)
    files = sorted((tmp_path / "out" / "wsj0").rglob("*.wav"))
    files[0].unlink()
    files[1].write_bytes(files[1].read_bytes()[:-2])
    for file in files[1:]:
        os.utime(file, (1, 1))
    wsj0.prepare_wsj0([tmp_path / "ldc"], tmp_path / "out", jobs=1)
    assert same(written(tmp_path / "out"), held)
    assert [file.stat().st_mtime == 1 for file in files] == [False, False, True, True, True]


def refused(folders: list[Path], out: Path, **options) -> str:
    with pytest.raises(SepmlError) as caught:
        wsj0.prepare_wsj0(folders, out, jobs=1, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def damage(folder: Path, kind: str) -> str:
    """Spoil 011c0202; gives what has to be said of it."""
    path = folder / "wsj0" / "si_tr_s" / "011" / "011c0202.wv1"
    x = speech_like(1, 1601)
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
        return "breaks off, it holds 1551 samples, its header says 1601"
    if kind == "header":
        path.write_bytes(b"NIST_1B" + path.read_bytes()[7:])
        return "is no NIST SPHERE file"
    if kind == "twin":
        path.write_bytes(path.with_suffix(".wv2").read_bytes())
        return "is the same as 011c0202.wv2; one channel was copied over the other"
    fields, expected = {
        "claim": ({"sample_count": 999999}, "breaks off, it holds 1601 samples, its header says 999999"),
        "stereo": ({"channel_count": 2}, "has 2 channels, expected 1"),
        "rate": ({"sample_rate": 8000}, "its rate is 8000 Hz, expected 16000 Hz"),
        "other": ({"utterance_id": "011C0203"}, "its header says that it is the utterance 011c0203"),
        "wv2": ({"utterance_id": "011c0202.wv2"}, "its header says 'utterance_id 011c0202.wv2', the second channel"),
        "microphone": ({"microphone": "Crown PCC-160"}, "its header says 'microphone crown pcc-160', the second channel"),
    }[kind]
    sphere(path, x, **fields)
    return expected


@pytest.mark.parametrize("kind", ["truncated", "header", "twin", "claim", "stereo", "rate", "other", "wv2", "microphone"])
def test_a_bad_file_is_named_and_the_rest_is_made(few, tmp_path, caplog, kind):
    held = discs(tmp_path / "ldc")
    expected = damage(tmp_path / "ldc", kind)
    message = refused([tmp_path / "ldc"], tmp_path / "out")
    assert message.startswith(f"{tmp_path / 'out' / 'wsj0'}: is not complete: 1 files cannot be used, the first: ")
    assert f"011c0202.wv1: {expected}" in message
    assert message.endswith("si_tr_s has 2 of 3 utterances, 2 of 2 speakers")
    (line,) = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert f"011c0202.wv1: {expected}" in line
    del held["011c0202"]
    assert same(written(tmp_path / "out"), held)


def test_a_microphone_that_is_the_first_ones(few, tmp_path):
    discs(tmp_path / "ldc")
    sphere(tmp_path / "ldc/wsj0/si_tr_s/011/011c0202.wv1", speech_like(1, 1601), microphone="Sennheiser HMD414")
    wsj0.prepare_wsj0([tmp_path / "ldc"], tmp_path / "out", jobs=1)


def test_a_checksum_that_does_not_fit_is_a_warning(few, tmp_path, caplog):
    discs(tmp_path / "ldc")
    sphere(tmp_path / "ldc/wsj0/si_tr_s/011/011c0202.wv1", speech_like(1, 1601), sample_checksum=1)
    wsj0.prepare_wsj0([tmp_path / "ldc"], tmp_path / "out", jobs=1)
    assert "011c0202.wv1: its samples do not add up to the sample_checksum of its header" in caplog.text


def test_a_full_disk_is_not_told_of_every_file(few, tmp_path, caplog, monkeypatch):
    def full(*_):
        raise SepmlError("no space left")

    monkeypatch.setattr(wsj0, "write_wav", full)
    monkeypatch.setattr(wsj0, "_LINES", 2)
    discs(tmp_path / "ldc")
    assert "5 files cannot be used, the first: no space left" in refused([tmp_path / "ldc"], tmp_path / "out")
    lines = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert lines == ["no space left", "no space left", "... and 3 more files"]


def test_two_different_files_of_one_name(few, tmp_path):
    discs(tmp_path / "ldc")
    other = tmp_path / "ldc" / "z" / "si_tr_s" / "011c0202.wv1"
    sphere(other, speech_like(50, 1601))
    message = refused([tmp_path / "ldc"], tmp_path / "out")
    assert f"{other}: differs from {tmp_path}/ldc/wsj0/si_tr_s/011/011c0202.wv1" in message


def test_missing_utterances_are_counted_and_with_lists_named(few, tmp_path):
    discs(tmp_path / "ldc")
    for name in ("011c0201", "440c0201"):
        next((tmp_path / "ldc").rglob(f"{name}.wv1")).unlink()
    message = refused([tmp_path / "ldc"], tmp_path / "out")
    assert message.endswith(
        "is not complete: si_tr_s has 2 of 3 utterances, 2 of 2 speakers; si_et_05 has 0 of 1 utterances, 0 of 1 speakers"
    )
    lists = tmp_path / "lists"
    (lists / "activlev").mkdir(parents=True)
    (lists / "mix_2_spk_tr.txt").write_text("wsj0/si_tr_s/011/011c0201.wav 1 wsj0/si_tr_s/40n/40na010x.wav -1 \n")
    (lists / "activlev" / "activlev_si_et_05.txt").write_text("440c0201 1e-3\n")
    message = refused([tmp_path / "ldc"], tmp_path / "out", names=[lists])
    assert message.endswith(
        "si_tr_s has 2 of 3 utterances, 2 of 2 speakers, without 011c0201; "
        "si_et_05 has 0 of 1 utterances, 0 of 1 speakers, without 440c0201"
    )
    (lists / "mix_2_spk_tr.txt").unlink()
    (lists / "activlev" / "activlev_si_et_05.txt").unlink()
    assert "holds neither mix lists" in refused([tmp_path / "ldc"], tmp_path / "out", names=[lists])


def test_folders_without_the_discs(tmp_path):
    assert "none: no such folder; expected one with the discs of LDC93S6A" in refused([tmp_path / "none"], tmp_path / "out")
    message = refused([tmp_path], tmp_path / "out")
    assert "no .wv1 files below folders si_tr_s, si_dt_05, si_et_05; expected LDC93S6A's discs" in message
    sphere(tmp_path / "wsj0" / "si_tr_s" / "011" / "011c0201.wv2", speech_like(1, 100))
    assert "(1 .wv2 files are there: the second microphone, LDC93S6B)" in refused([tmp_path], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_compressed_files_without_pyav(few, tmp_path, monkeypatch):
    discs(tmp_path / "ldc", "plain", [("shorten", "01")])
    monkeypatch.setitem(sys.modules, "av", None)
    assert "which needs PyAV; pip install av" in refused([tmp_path / "ldc"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_numbers_of_utterances_are_those_of_the_published_tables(shared_dir):
    names = wsj0.expected_names([shared_dir / "wsj0-mix-lists"])
    assert {split: len(each) for split, each in names.items()} == wsj0.UTTERANCES
    assert {split: len({name[:3] for name in each}) for split, each in names.items()} == wsj0.SPEAKERS


def test_the_command(tmp_path):
    discs(tmp_path / "ldc")
    command = [sys.executable, "-m", "sepml", "prepare", "wsj0", "--ldc", str(tmp_path / "ldc"), "-j", "1"]
    done = subprocess.run([*command, "--out", str(tmp_path / "out")], capture_output=True, text=True)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert f"sepml: error: {tmp_path}/out/wsj0: is not complete: si_tr_s has 3 of 12776 utterances" in done.stderr
    assert len(list((tmp_path / "out").rglob("*.wav"))) == len(NAMES)
