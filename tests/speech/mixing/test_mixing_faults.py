"""Utterances, lists and folders that cannot be mixed are refused by name."""

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from mixing_corpus import made, mix, refused, small_corpus, speech_like  # noqa: F401
from scipy.signal import resample_poly

from sepml.errors import SepmlError
from sepml.speech.audio.files import write_wav
from sepml.speech.audio.signals import active_level
from sepml.speech.mixing.check import check
from sepml.speech.mixing.mix import mix_lists
from sepml.speech.mixing.mixlist import read_mix_list


def broken_corpus(corpus: Path, folder: Path, **replaced: np.ndarray) -> Path:
    """The corpus with other samples in some utterances."""
    for file in (corpus / "wsj0").rglob("*.wav"):
        path = folder / file.relative_to(corpus).with_suffix(".flac")
        x, rate = soundfile.read(file, dtype="int16")
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, replaced.get(file.stem, x), rate)
    for name in ("mix_2_spk_tr.txt", "mix_2_spk_cv.txt"):
        (folder / name).write_text((corpus / name).read_text().replace(".wav", ".flac"))
    return folder


def test_one_bad_utterance_stops_only_its_own_mixtures(corpus, tmp_path):
    root = broken_corpus(corpus, tmp_path / "root", sp0u0=np.zeros(16000, dtype=np.int16))
    damaged = root / "wsj0" / "si_tr_s" / "sp1" / "sp1u0.flac"
    damaged.write_bytes(damaged.read_bytes()[:-4000])
    lines = read_mix_list(root / "mix_2_spk_tr.txt")
    bad = [line for line in lines if re.search("sp0u0|sp1u0", line.id)]
    with pytest.raises(SepmlError) as caught:
        mix_lists([root / "mix_2_spk_tr.txt"], root, tmp_path / "out", jobs=1)
    assert str(caught.value).startswith(f"{len(bad)} of 12 mixtures could not be made; the first: ")
    assert re.search("sp0u0.flac: is silent|sp1u0.flac: breaks off", str(caught.value))
    split = tmp_path / "out" / "wav8k" / "min" / "tr"
    assert {file.stem for file in (split / "mix").iterdir()} == {line.id for line in lines} - {line.id for line in bad}
    assert not (split.parent / "tr.csv").exists()


def test_other_source_rates_are_resampled_and_lower_ones_refused(corpus, tmp_path):
    root = tmp_path / "root"
    write_wav(root / "a.wav", speech_like(1, 44100), 44100)
    write_wav(root / "b.wav", speech_like(2, 44100), 44100)
    (root / "tt.txt").write_text("a.wav 1 b.wav -1\n")
    split = mix(root, tmp_path, "tt.txt", mode="max")
    a, b = (soundfile.read(root / name, dtype="float32")[0] for name in ("a.wav", "b.wav"))
    sources = [resample_poly(a, 80, 441).astype(float) / np.sqrt(active_level(a, 44100)) * 10 ** (1 / 20)]
    sources.append(resample_poly(b, 80, 441).astype(float) / np.sqrt(active_level(b, 44100)) * 10 ** (-1 / 20))
    sources = [np.pad(x, (0, max(map(len, sources)) - len(x))) for x in sources]
    peak = max(1, *(np.abs(x).max() for x in [*sources, sources[0] + sources[1]]))
    expected = np.int16(np.round(32768 * (sources[1] / (peak / 0.9))))
    assert made(split)["s2/a_1_b_-1.wav"] == expected.tobytes()
    assert check(split, jobs=1).faults == []
    write_wav(root / "b.wav", speech_like(2, 8000), 8000)
    with pytest.raises(SepmlError, match=r"tt\.txt:1: .*b\.wav: its rate is 8000 Hz, below the 16000 Hz asked for"):
        mix(root, tmp_path, "tt.txt", sample_rate=16000)
    write_wav(root / "c.wav", speech_like(3, 44100), 44100)
    (root / "cv.txt").write_text("a.wav 1 c.wav -1\nc.wav 2 b.wav -2\n")
    with pytest.raises(SepmlError, match=r"cv\.txt:2: .*b\.wav: its rate is 8000 Hz, expected 44100 Hz as of most utterances"):
        mix(root, tmp_path, "cv.txt")


def test_missing_utterances_are_refused_before_anything_is_written(corpus, tmp_path):
    root = broken_corpus(corpus, tmp_path / "root")
    (root / "wsj0" / "si_tr_s" / "sp0" / "sp0u0.flac").unlink()
    (root / "wsj0" / "si_tr_s" / "sp2" / "sp2u1.flac").unlink()
    lists = [root / "mix_2_spk_tr.txt", root / "mix_2_spk_cv.txt"]
    message = refused(tmp_path, lists, root)
    number, path = re.search(r"mix_2_spk_tr\.txt:(\d+): \S*/(sp\du\d\.flac): no such file", message).groups()
    assert path in lists[0].read_text().splitlines()[int(number) - 1]
    assert re.search(r"sp\du\d\.flac: no such file \(2 of 10 utterances are at fault\)$", message)


def test_the_right_root_is_suggested(corpus, tmp_path):
    message = refused(tmp_path, [corpus / "mix_2_spk_tr.txt"], corpus / "wsj0")
    assert message.endswith(f"; the root that fits the list is {corpus}")


def test_levels_must_cover_the_list(corpus, tmp_path):
    table = corpus / "levels" / "activlev_a.txt"
    message = refused(tmp_path, [corpus / "mix_2_spk_tr.txt"], corpus, levels=table)
    assert re.search(r"mix_2_spk_tr\.txt:\d+: \S*: the active levels given have no 'sp[234]u[01]'", message)


def test_wrong_choices_and_splits(corpus, tmp_path):
    lists = [corpus / "mix_2_spk_tr.txt"]
    assert "sample rate 44100" in refused(tmp_path, lists, corpus, sample_rate=44100)
    assert "mode 'mean'" in refused(tmp_path, lists, corpus, mode="mean")
    message = refused(tmp_path, [*lists, corpus / "mix_3_spk_tr.txt"], corpus)
    assert "mix_3_spk_tr.txt: makes the split 'tr', as " in message


def test_an_output_folder_that_is_a_file(corpus, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(SepmlError, match="out: cannot be written"):
        mix(corpus, tmp_path / "out")
