"""A small corpus with mix lists, and a plain serial program that makes its mixtures."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy.signal import resample_poly

from sepml.errors import SepmlError
from sepml.speech.audio.files import write_wav
from sepml.speech.audio.signals import active_level
from sepml.speech.mixing.mix import mix_lists

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


@pytest.fixture(scope="module", name="corpus")
def small_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
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


def refused(tmp_path: Path, *args, **options) -> str:
    """The message of a call that must write nothing."""
    out = tmp_path / "out"
    with pytest.raises(SepmlError) as caught:
        mix_lists(*args, out, jobs=1, **options)
    assert not out.exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)
