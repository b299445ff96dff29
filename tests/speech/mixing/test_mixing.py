"""Mixtures from mix lists: equal, bit for bit, to a plain serial program, however often the work is interrupted."""

import logging
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy.signal import resample_poly

from sepml.errors import SepmlError
from sepml.speech.audio.active_level import active_level
from sepml.speech.audio.files import write_wav
from sepml.speech.data.manifest import read_manifest
from sepml.speech.mixing import mix as mixing
from sepml.speech.mixing import utterances
from sepml.speech.mixing.check import check
from sepml.speech.mixing.mix import mix_lists
from sepml.speech.mixing.mixlist import read_levels, read_mix_list
from sepml.system.temporaries import this_process

GAINS = ["1.9857", "-1.9857", "0.44692", "-0.44692", "0", "2.5", "-0.059714", "+1", "1e-1", ".5"]


def speech_like(seed: int, rate: int = 16000) -> np.ndarray:
    """Noise of 0.7 to 1.3 s whose loudness wanders as that of syllables and pauses does."""
    generator = np.random.default_rng(seed)
    length = int(generator.integers(int(0.7 * rate), int(1.3 * rate)))
    loudness = np.interp(np.linspace(0, 11, length), np.arange(12), generator.random(12) ** 3)
    return np.clip(0.2 * loudness * generator.standard_normal(length), -1, 1)


def lines_of(n_src: int, count: int) -> list[str]:
    generator = np.random.default_rng(n_src)
    lines = []
    for _ in range(count):
        speakers = generator.choice(5, n_src, replace=False)
        lines.append(
            " ".join(
                f"wsj0/si_tr_s/sp{speaker}/sp{speaker}u{generator.integers(2)}.wav {generator.choice(GAINS)}"
                for speaker in speakers
            )
        )
    # Published lists end their lines with a space.
    return [f"{line} " for line in dict.fromkeys(lines)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten utterances of five speakers at 16 kHz, lists of two and three sources, tables of levels."""
    folder = tmp_path_factory.mktemp("corpus")
    table = []
    for speaker in range(5):
        for number in range(2):
            stem = f"sp{speaker}u{number}"
            x = speech_like(10 * speaker + number)
            write_wav(folder / "wsj0" / "si_tr_s" / f"sp{speaker}" / f"{stem}.wav", x, 16000)
            # Levels of their own, so that a test notices whether the table is used.
            table.append(f"{stem} {(1e-3 if stem != 'sp4u1' else 1e-5) * (1 + speaker / 7):.16e}\n")
    (folder / "levels").mkdir()
    (folder / "levels" / "activlev_a.txt").write_text("".join(table[:5]))
    (folder / "levels" / "activlev_b.txt").write_text("".join(table[4:]))
    for n_src in (2, 3):
        (folder / f"mix_{n_src}_spk_tr.txt").write_text("\n".join(lines_of(n_src, 12)) + "\n")
    (folder / "mix_2_spk_cv.txt").write_text("\n".join(lines_of(2, 15)[12:]) + "\n")
    return folder


def serial_mixtures(corpus: Path, n_src: int, rate: int, mode: str, table: bool) -> dict[str, bytes]:
    """The data set by a plain program: relative path of each file -> its samples as bytes."""
    levels = {}
    for file in (corpus / "levels").iterdir():
        levels |= {line.split()[0]: float(line.split()[1]) for line in file.read_text().splitlines()}
    files = {}
    for line in (corpus / f"mix_{n_src}_spk_tr.txt").read_text().splitlines():
        fields = line.split()
        paths, gains = fields[0::2], fields[1::2]
        scaled, name = [], []
        for path, gain in zip(paths, gains, strict=True):
            x16, _ = soundfile.read(corpus / path, dtype="float32")
            stem = path.split("/")[-1].replace(".wav", "")
            level = levels[stem] if table else active_level(x16, 16000)
            x = resample_poly(x16, rate, 16000)
            scaled.append(np.float64(x) / np.sqrt(level) * 10 ** (float(gain) / 20))
            name += [stem, gain]
        if mode == "min":
            length = min(len(x) for x in scaled)
            sources = np.stack([x[:length] for x in scaled])
        else:
            length = max(len(x) for x in scaled)
            sources = np.stack([np.hstack((x, np.zeros(length - len(x)))) for x in scaled])
        mix = sources[0]
        for source in sources[1:]:
            mix = mix + source
        divisor = np.max([1.0, np.max(np.abs(mix)), np.max(np.abs(sources))]) / 0.9
        for folder, x in zip(["mix", "s1", "s2", "s3"], [mix, *sources], strict=False):
            files[f"{folder}/{'_'.join(name)}.wav"] = np.int16(np.round(2**15 * (x / divisor))).tobytes()
    return files


def made(split: Path, rate: int = 8000) -> dict[str, bytes]:
    """Relative path of each file of a split -> its samples as bytes."""
    files = {}
    for file in split.glob("*/*"):
        x, its_rate = soundfile.read(file, dtype="int16")
        assert its_rate == rate
        assert soundfile.info(file).subtype == "PCM_16"
        files[str(file.relative_to(split))] = x.tobytes()
    return files


def mix(corpus: Path, out: Path, name: str = "mix_2_spk_tr.txt", jobs: int = 1, **options) -> Path:
    """Mix one list; the folder of the split."""
    (manifest,) = mix_lists([corpus / name], corpus, out, jobs=jobs, **options)
    return manifest.parent / manifest.stem


def times(split: Path) -> dict[str, int]:
    return {str(file): file.stat().st_mtime_ns for file in split.glob("*/*")}


@pytest.mark.parametrize("table", [True, False])
@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("rate", [8000, 16000])
@pytest.mark.parametrize("n_src", [2, 3])
def test_every_file_equals_that_of_a_plain_program(corpus, tmp_path, n_src, rate, mode, table):
    levels = corpus / "levels" if table else None
    split = mix(corpus, tmp_path, f"mix_{n_src}_spk_tr.txt", sample_rate=rate, mode=mode, levels=levels)
    assert split == tmp_path / f"wav{rate // 1000}k" / mode / "tr"
    files = made(split, rate)
    assert files == serial_mixtures(corpus, n_src, rate, mode, table)
    assert len(files) == 12 * (n_src + 1)
    assert check(tmp_path / f"wav{rate // 1000}k" / mode, jobs=1).faults == []


def test_the_manifest_names_the_mixtures_in_the_order_of_the_list(corpus, tmp_path):
    split = mix(corpus, tmp_path)
    mixtures = read_manifest(split.parent / "tr.csv")
    assert [m.id for m in mixtures] == [line.id for line in read_mix_list(corpus / "mix_2_spk_tr.txt")]
    assert [m.length for m in mixtures] == [soundfile.info(m.mixture).frames for m in mixtures]
    assert mixtures[0].sources == tuple(split / part / f"{mixtures[0].id}.wav" for part in ("s1", "s2"))


def test_processes_change_nothing(corpus, tmp_path):
    lists = [corpus / "mix_2_spk_tr.txt", corpus / "mix_2_spk_cv.txt"]
    for jobs in (1, 2):
        manifests = mix_lists(lists, corpus, tmp_path / str(jobs), jobs=jobs)
        assert [m.name for m in manifests] == ["tr.csv", "cv.csv"]
    one, two = (sorted(f for f in (tmp_path / jobs).rglob("*") if f.is_file()) for jobs in "12")
    assert [f.relative_to(tmp_path / "1") for f in one] == [f.relative_to(tmp_path / "2") for f in two]
    assert all(f.read_bytes() == g.read_bytes() for f, g in zip(one, two, strict=True))


def test_each_utterance_is_read_once(corpus, tmp_path, monkeypatch):
    reads: Counter[Path] = Counter()

    def counting(path: Path):
        reads[path] += 1
        return read_wav(path)

    read_wav = utterances.read_wav
    monkeypatch.setattr(utterances, "read_wav", counting)
    mix_lists([corpus / "mix_2_spk_tr.txt", corpus / "mix_2_spk_cv.txt"], corpus, tmp_path, jobs=1)
    assert len(reads) == 10
    assert set(reads.values()) == {1}


def test_a_second_run_reads_and_writes_nothing(corpus, tmp_path, monkeypatch):
    split = mix(corpus, tmp_path)
    before = times(split)
    monkeypatch.setattr(utterances, "read_wav", None)
    monkeypatch.setattr(mixing, "write_wav", None)
    mix(corpus, tmp_path)
    assert times(split) == before


def test_only_what_is_missing_or_broken_off_is_made_again(corpus, tmp_path):
    split = mix(corpus, tmp_path)
    expected, before = made(split), times(split)
    files = sorted((split / "mix").iterdir())
    files[0].unlink()
    files[1].write_bytes(files[1].read_bytes()[:-2])
    (split / "s2" / files[2].name).write_bytes(b"")
    mix(corpus, tmp_path)
    assert made(split) == expected
    changed = {Path(name).name for name, time in times(split).items() if before[name] != time}
    assert changed == {file.name for file in files[:3]}


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SepmlError])
def test_an_interrupted_run_goes_on_where_it_was(corpus, tmp_path, monkeypatch, interruption):
    written = []

    def failing(path: Path, x: np.ndarray, rate: int) -> None:
        if len(written) == 17:
            raise interruption("no space left on the disk")
        written.append(path)
        write_wav(path, x, rate)

    monkeypatch.setattr(mixing, "write_wav", failing)
    with pytest.raises(interruption):
        mix(corpus, tmp_path)
    split = tmp_path / "wav8k" / "min" / "tr"
    # Five mixtures and two files of the sixth; no manifest yet, and nothing left over.
    assert len(made(split)) == 17
    assert not (split.parent / "tr.csv").exists()
    assert [file.name for file in tmp_path.iterdir()] == ["wav8k"]
    before = times(split)
    monkeypatch.undo()
    mix(corpus, tmp_path)
    assert made(split) == serial_mixtures(corpus, 2, 8000, "min", table=False)
    kept = [name for name, time in times(split).items() if before.get(name) == time]
    assert len(kept) == 15
    assert check(split, jobs=1).faults == []


def test_a_manifest_is_withdrawn_while_its_split_is_incomplete(corpus, tmp_path, monkeypatch):
    split = mix(corpus, tmp_path)
    next((split / "s1").iterdir()).unlink()

    def failing(path: Path, x: np.ndarray, rate: int) -> None:
        raise SepmlError(f"{path}: no space left on the disk")

    monkeypatch.setattr(mixing, "write_wav", failing)
    with pytest.raises(SepmlError, match=r"1 of 12 mixtures could not be made; the first: .*: no space left"):
        mix(corpus, tmp_path)
    assert not (split.parent / "tr.csv").exists()


def test_the_cache_of_a_killed_run_is_removed_and_that_of_a_running_one_kept(corpus, tmp_path):
    with utterances.cache_folder(tmp_path) as mine:
        own = str(this_process())
    killed = tmp_path / mine.name.replace(own, str(replace(this_process(), start="1")))
    running = tmp_path / mine.name
    elsewhere = tmp_path / mine.name.replace(own, str(replace(this_process(), host="another")))
    for folder in (killed, running, elsewhere):
        folder.mkdir()
        (folder / "0.f32").touch()
    mix(corpus, tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {running.name, elsewhere.name, "wav8k"}


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


def test_quiet_mixtures_are_scaled_by_the_same_factor_as_a_peak_of_one():
    x = np.float32([0.5, -0.25, 0.5])
    mixture, sources = mixing.mix_utterances([x, x / 4], [1.0, 1.0], [0.0, 0.0])
    assert sources[0] == pytest.approx(0.9 * x)
    assert mixture == pytest.approx(0.9 * 1.25 * x)
    assert mixing.mix_utterances([x, x], [0.01, 1.0], [0.0, 0.0])[0] == pytest.approx(0.9 * x / 0.5)


def test_measuring_is_logged_once_and_not_with_a_table(corpus, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    mix(corpus, tmp_path / "a", levels=corpus / "levels")
    assert "measured" not in caplog.text
    mix(corpus, tmp_path / "b")
    assert caplog.text.count("measured") == 1


def test_a_split_is_of_one_kind(corpus, tmp_path):
    mix(corpus, tmp_path)
    with pytest.raises(SepmlError, match="tr: holds mixtures with levels = measured, now table; choose"):
        mix(corpus, tmp_path, levels=corpus / "levels")
    with pytest.raises(SepmlError, match="tr: holds mixtures with sources = 2, now 3"):
        mix(corpus, tmp_path, "mix_3_spk_tr.txt")


def test_files_of_an_older_list_are_pointed_out(corpus, tmp_path, caplog):
    split = mix(corpus, tmp_path)
    write_wav(split / "mix" / "old.wav", np.ones(3) / 2, 8000)
    mix(corpus, tmp_path)
    assert "holds 1 files that are not in the list, such as old.wav" in caplog.text


def refused(tmp_path: Path, *args, **options) -> str:
    """The message of a call that must write nothing."""
    out = tmp_path / "out"
    with pytest.raises(SepmlError) as caught:
        mix_lists(*args, out, jobs=1, **options)
    assert not out.exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


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
    assert "mix_3_spk_tr.txt: a list before it makes the split 'tr' as well" in message


def test_an_output_folder_that_is_a_file(corpus, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(SepmlError, match="out: cannot be written"):
        mix(corpus, tmp_path / "out")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a.wav 1.0", "2 fields ('a.wav 1.0'), expected 'path gain path gain'"),
        ("a.wav 1.0 b.wav", "3 fields ('a.wav 1.0 b.wav')"),
        ("a.wav 1.0 b.wav x", "the gain is 'x', expected a number of dB"),
        ("a.wav nan b.wav 1", "the gain is 'nan'"),
        ("a.wav inf b.wav 1", "the gain is 'inf'"),
        ("a.wav 1_0 b.wav 1", "the gain is '1_0'"),
        ("a.wav 1 b.wav 101", "the gain is '101', expected a number of dB within +-100"),
        ("/etc/a.wav 1 b.wav -1", "the path '/etc/a.wav' leads out of the corpus"),
        ("a.wav 1 c/../../b.wav -1", "the path 'c/../../b.wav' leads out of the corpus"),
        ("a\0.wav 1 b.wav -1", "the path 'a\\x00.wav' cannot be that of a file"),
        (f"{'d' * 256}/a.wav 1 b.wav -1", "is too long for a file: 256 bytes, at most 255"),
        ("c/a.wav 1 c/a.wav -1", "an utterance is mixed with itself: c/a.wav 1 c/a.wav -1"),
        ("d/first.wav 1 e/other.wav -1", "the mixture first_1_other_-1 stands in line 1 already"),
        ("a.wav 1 b.wav -1 c.wav 0", "3 sources, but 2 in the lines before"),
        (f"{'a' * 250}.wav 1 b.wav -1", "is too long for a file: 261 bytes, at most 255"),
    ],
)
def test_faulty_lines_are_named_by_file_and_line(tmp_path, line, expected):
    path = tmp_path / "mix_2_spk_tr.txt"
    path.write_text(f"first.wav 1 other.wav -1\n\n{line}\n")
    message = refused(tmp_path, [path], tmp_path)
    assert message.startswith(f"{path}:3: ")
    assert expected in message


def test_lists_that_are_none(tmp_path):
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    for name, expected in [
        ("empty.txt", "is empty, expected lines such as"),
        ("binary.txt", "is not a text file"),
        ("none.txt", "no such file"),
        (".", "is a folder; give the lists in it"),
    ]:
        with pytest.raises(SepmlError, match=expected):
            read_mix_list(tmp_path / name)


@pytest.mark.parametrize("row", ["a", "a b", "a 0", "a -1", "a inf", "a nan", "a 1 2", "b 2.5"])
def test_faulty_levels_are_named_by_file_and_line(tmp_path, row):
    path = tmp_path / "levels.txt"
    path.write_text(f"b 1.5\nb 1.5\n{row}\n")
    with pytest.raises(SepmlError, match=re.escape(f"{path}:3: ")):
        read_levels(path)


def test_a_folder_without_levels(tmp_path):
    with pytest.raises(SepmlError, match="holds no levels"):
        read_levels(tmp_path)


def test_the_published_lists_and_tables_are_read(shared_dir):
    folder = shared_dir / "wsj0-mix-lists"
    levels = read_levels(folder / "activlev")
    assert len(levels) == 12776 + 1206 + 651
    for name, count in [("2_spk_tr", 20000), ("2_spk_cv", 5000), ("2_spk_tt", 3000), ("3_spk_tt", 3000)]:
        lines = read_mix_list(folder / f"mix_{name}.txt")
        assert len(lines) == count
        assert all(Path(path).stem in levels for line in lines for path in line.paths)
    first = read_mix_list(folder / "mix_2_spk_tr.txt")[0]
    assert first.id == "40na010x_1.9857_01xo031a_-1.9857"
    assert first.gains == (1.9857, -1.9857)
