"""LibriMix: what is made equals a plain program's files bit for bit; trees that others made are read as they are."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from librimix_corpora import RATE, roots, small_corpora  # noqa: F401
from scipy.signal import resample_poly

from sepml.errors import SepmlError
from sepml.speech.corpora import librimix
from sepml.speech.corpora.librimix import Roots, as_16_bit, prepare_librimix
from sepml.speech.data.manifest import read_manifest
from sepml.speech.data.mixtures import TYPES


def serial(corpora: Path, n_src: int, rate: int, mode: str, out: Path) -> None:
    """The data set by a plain program that does what LibriMix's documentation and scripts say, through soundfile."""
    table = corpora / "metadata" / f"Libri{n_src}Mix" / f"libri{n_src}mix_dev-clean.csv"
    for row in csv.DictReader(table.open()):
        signals = [
            soundfile.read(corpora / "LibriSpeech" / row[f"source_{i}_path"], dtype="float32")[0] for i in range(1, n_src + 1)
        ]
        longest = max(len(x) for x in signals)
        noise = soundfile.read(corpora / "wham" / row["noise_path"], dtype="float32")[0][:longest, 0]
        if len(noise) < longest:
            ramp = np.hanning(16001)[:8001]
            whole = noise
            while len(whole) < longest:
                cross = np.multiply(whole[len(whole) - 8001 :], ramp[::-1]) + np.multiply(noise[:8001], ramp)
                whole = np.hstack([whole[: len(whole) - 8001], cross, noise[8001:]])
            noise = whole[:longest]
        gains = [float(row[f"source_{i}_gain"]) for i in range(1, n_src + 1)] + [float(row["noise_gain"])]
        parts = [resample_poly(x * g, rate, 16000) for x, g in zip([*signals, noise], gains, strict=True)]
        if mode == "min":
            parts = [x[: min(map(len, parts))] for x in parts]
        else:
            parts = [np.concatenate([x, np.zeros(max(map(len, parts)) - len(x), x.dtype)]) for x in parts]
        files = {f"s{i + 1}": x for i, x in enumerate(parts[:-1])} | {"noise": parts[-1]}
        for kind, what in [("mix_clean", parts[:-1]), ("mix_both", parts), ("mix_single", [parts[0], parts[-1]])]:
            total = np.zeros(len(what[0]), dtype=what[0].dtype)
            for x in what:
                total += x
            files[kind] = total
        for part, x in files.items():
            (out / part).mkdir(parents=True, exist_ok=True)
            soundfile.write(out / part / f"{row['mixture_ID']}.wav", x, rate)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): soundfile.read(file, dtype="int16")[0].tobytes() for file in folder.glob("*/*.wav")}


@pytest.mark.parametrize("n_src", [2, 3])
@pytest.mark.parametrize("rate", [8000, 16000])
@pytest.mark.parametrize("mode", ["min", "max"])
def test_every_file_equals_that_of_a_plain_program(corpora, tmp_path, n_src, rate, mode):
    manifests = prepare_librimix(
        [corpora / "metadata" / f"Libri{n_src}Mix"], roots(corpora), tmp_path, TYPES, rate, mode, jobs=1
    )
    base = tmp_path / f"wav{rate // 1000}k" / mode
    assert manifests == [base / "metadata" / f"mixture_dev_{kind}.csv" for kind in TYPES]
    serial(corpora, n_src, rate, mode, tmp_path / "plain")
    made = contents(base / "dev")
    assert len(made) == 6 * (n_src + 4)
    assert made == contents(tmp_path / "plain")
    assert all(soundfile.info(file).samplerate == rate for file in (base / "dev").glob("*/*.wav"))


def test_floats_become_integers_as_libsndfile_does_it(tmp_path):
    rng = np.random.default_rng(1)
    edges = np.array([0, -0.0, 1e-12, -1e-12, 1, -1, 2, -2, 32767 / 32768, 32767.9999 / 32768, -32768.5 / 32768, 0.5 / 65536])
    for dtype in (np.float32, np.float64):
        x = np.concatenate([edges, rng.uniform(-1.1, 1.1, 20000), 1e-4 * rng.standard_normal(20000)]).astype(dtype)
        soundfile.write(tmp_path / "a.wav", x, RATE)
        assert np.array_equal(as_16_bit(x), soundfile.read(tmp_path / "a.wav", dtype="int16")[0])


def test_clean_mixtures_need_no_noise_and_processes_change_nothing(corpora, tmp_path):
    table = corpora / "metadata" / "Libri2Mix" / "libri2mix_dev-clean.csv"
    (one,) = prepare_librimix([table], Roots(corpora / "LibriSpeech", None), tmp_path / "1", jobs=1)
    prepare_librimix([table], roots(corpora), tmp_path / "2", TYPES, jobs=2)
    alone, both = (contents(tmp_path / n / "wav8k" / "min" / "dev") for n in "12")
    assert {Path(name).parts[0] for name in alone} == {"s1", "s2", "mix_clean"}
    assert alone.items() <= both.items()
    assert [len(m.sources) for m in read_manifest(one)] == [2] * 6


def test_a_stopped_run_is_finished_and_what_is_there_is_kept(corpora, tmp_path, monkeypatch):
    table = corpora / "metadata" / "Libri2Mix" / "libri2mix_dev-clean.csv"
    whole = librimix._make
    made = []

    def stops(job, **options):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(job.recipe.id)
        whole(job, **options)

    monkeypatch.setattr(librimix, "_make", stops)
    with pytest.raises(KeyboardInterrupt):
        prepare_librimix([table], roots(corpora), tmp_path, TYPES, jobs=1)
    base = tmp_path / "wav8k" / "min"
    assert not (base / "metadata").exists()
    files = {file: file.stat().st_mtime_ns for file in (base / "dev").glob("*/*.wav")}
    monkeypatch.setattr(librimix, "_make", whole)
    prepare_librimix([table], roots(corpora), tmp_path, TYPES, jobs=1)
    assert {file: file.stat().st_mtime_ns for file in files} == files
    serial(corpora, 2, 8000, "min", tmp_path / "plain")
    assert contents(base / "dev") == contents(tmp_path / "plain")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("dev-clean/0/9/0-9-0000.flac", "../0-9-0000.flac", "leads out of the corpus"),
        ("dev-clean/0/9/0-9-0000.flac", "/etc/passwd", "leads out of the corpus"),
        ("dev-clean/0/9/0-9-0000.flac", "dev-clean/gone.flac", "gone.flac: no such file (1 of 9 files are at fault)"),
        ("dev-clean/1/9/1-9-0000.flac", "dev-clean/gone.flac", "libri2mix_dev-clean.csv:2: "),
        ("0-9-0000_", "0\0", "csv:2: is not a CSV text file: it holds a NUL byte"),
        ("0-9-0000_", "0" * 300, "is too long for a file"),
        ("cv/n1.wav,", "cv/n1.wav,7,", "csv:3: 8 fields, expected 7 as in the header"),
        (",cv/n1.wav,", ",", "csv:3: 6 fields, expected 7 as in the header"),
        ("cv/n0.wav", "cv/n0sp08.wav", "augment_train_noise.py"),
        ("source_2_gain", "source_2_gian", "no column 'source_2_gain'"),
        ("cv/n1.wav,", "cv/n1.wav,loud", "csv:3: mixture"),
    ],
)
def test_bad_metadata_is_named_before_anything_is_written(corpora, tmp_path, old, new, expected):
    text = (corpora / "metadata" / "Libri2Mix" / "libri2mix_dev-clean.csv").read_text()
    table = tmp_path / "libri2mix_dev-clean.csv"
    table.write_text(text.replace(old, new))
    with pytest.raises(SepmlError) as caught:
        prepare_librimix([table], roots(corpora), tmp_path / "out", TYPES, jobs=1)
    assert expected in str(caught.value) and not (tmp_path / "out").exists()


def test_clean_mixtures_for_which_noise_is_given_have_it_beside_them(corpora, tmp_path):
    """LibriMix's scripts write noise/ whatever the types are."""
    base = tmp_path / "out" / "wav8k" / "min"
    for folder in (tmp_path / "all", tmp_path / "out"):
        types = TYPES if folder.name == "all" else ("mix_clean",)
        prepare_librimix([corpora / "metadata" / "Libri2Mix"], roots(corpora), folder, types, jobs=1)
    assert {f.name for f in (base / "dev").iterdir() if f.is_dir()} == {"s1", "s2", "mix_clean", "noise"}
    whole = contents(tmp_path / "all" / "wav8k" / "min" / "dev")
    expected = {name: x for name, x in whole.items() if not name.startswith(("mix_both", "mix_single"))}
    assert contents(base / "dev") == expected and len(expected) == 4 * 6
    assert all(m.noise is None for m in read_manifest(base / "metadata" / "mixture_dev_mix_clean.csv"))


def test_a_run_that_was_killed_at_its_first_step_goes_on(corpora, tmp_path):
    begun = tmp_path / "out" / "wav8k" / "min" / "dev"
    begun.mkdir(parents=True)
    (begun / "..settings.1234.json").touch()
    prepare_librimix([corpora / "metadata" / "Libri2Mix"], roots(corpora), tmp_path / "out", jobs=1)
    (begun / ".settings.json").unlink()
    with pytest.raises(SepmlError, match=r"but not the .settings.json of mixtures"):
        prepare_librimix([corpora / "metadata" / "Libri2Mix"], roots(corpora), tmp_path / "out", jobs=1)


def test_other_gains_are_not_mixed_into_a_split(corpora, tmp_path):
    table = tmp_path / "libri2mix_dev-clean.csv"
    shutil.copy(corpora / "metadata" / "Libri2Mix" / "libri2mix_dev-clean.csv", table)
    prepare_librimix([table], roots(corpora), tmp_path / "out", jobs=1)
    table.write_text(table.read_text().replace("cv/n0.wav,", "cv/n0.wav,1"))
    with pytest.raises(SepmlError, match="holds mixtures with metadata = "):
        prepare_librimix([table], roots(corpora), tmp_path / "out", jobs=1)
    with pytest.raises(SepmlError, match="need the WHAM! noise"):
        prepare_librimix([table], Roots(corpora / "LibriSpeech", None), tmp_path / "out", ["mix_both"], jobs=1)


def test_other_recordings_of_equal_lengths_keep_no_mixture(corpora, tmp_path, caplog):
    metadata = [corpora / "metadata" / "Libri2Mix"]
    prepare_librimix(metadata, roots(corpora), tmp_path / "out", ["mix_both"], jobs=1)
    other = tmp_path / "other"
    shutil.copytree(corpora, other)
    for file in (other / "LibriSpeech").rglob("0-9-0000.flac"):
        x, rate = soundfile.read(file, dtype="int16")
        soundfile.write(file, x[::-1], rate, subtype="PCM_16")
    prepare_librimix(metadata, roots(other), tmp_path / "out", ["mix_both"], jobs=1)
    assert "6 mixtures are of other recordings or levels, and are made again" in caplog.text
    prepare_librimix(metadata, roots(other), tmp_path / "straight", ["mix_both"], jobs=1)
    made = contents(tmp_path / "out/wav8k/min/dev")
    assert len(made) == 24 and made == contents(tmp_path / "straight/wav8k/min/dev")
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("out/**/*.wav")}
    (tmp_path / "out/wav8k/min/dev/.made.json").unlink()
    prepare_librimix(metadata, roots(corpora), tmp_path / "out", ["mix_both"], jobs=1)
    assert before == {file: file.stat().st_mtime_ns for file in before}, "trees of earlier versions are kept"
