"""Mixtures by `sepml.speech.mixing.mix.mix_lists` beside a plain serial loop that does the same for each mixture, in one run.

The loop reads, resamples, scales and writes every mixture by itself, as the published scripts do; it writes files
directly, where `mix_lists` writes to a temporary name and renames. Both take the active levels from one table and must
write the same bytes. The two take turns, so that a change of the machine's speed meets both.

    python tools/bench/mixing.py [--mixtures 1000] [--rounds 3] [--jobs 0] [--utterances DIR] [--sample-rate 8000]
"""

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import resample_poly

from sepml.speech.audio.signals import active_level
from sepml.speech.mixing.mix import MODES, mix_lists
from sepml.speech.mixing.mixlist import read_levels, read_mix_list
from sepml.system.parallel import cores

SPEAKERS, EACH, SOURCE_RATE = 20, 15, 16000


def main() -> None:
    """Time both in both modes and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mixtures", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3, help="the median counts")
    parser.add_argument("--jobs", type=int, default=0, help="of mix_lists; 0: all cores")
    parser.add_argument("--sample-rate", type=int, default=8000, choices=(8000, 16000))
    parser.add_argument("--utterances", type=Path, help="folder of <speaker>/*.wav (default: made from noise)")
    parser.add_argument("--work", type=Path, help="folder for temporary files, on the disk to be measured")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.work) as name:
        folder = Path(name)
        root = options.utterances or _made_up(folder / "utterances")
        mix_list, levels = _lists(root, folder, options.mixtures)
        used = len(read_levels(levels))
        print(f"{options.mixtures} mixtures of {used} utterances, {options.sample_rate} Hz, {cores()} cores\n")
        print("| mode | plain loop, s | mix_lists, s | ratio |\n|---|---:|---:|---:|")
        for mode in MODES:
            times: dict[str, list[float]] = {"plain": [], "ours": []}
            for _ in range(options.rounds):
                started = time.perf_counter()
                _plain(mix_list, root, folder / "plain", options.sample_rate, mode, levels)
                times["plain"].append(time.perf_counter() - started)
                started = time.perf_counter()
                mix_lists([mix_list], root, folder / "ours", options.sample_rate, mode, levels, options.jobs)
                times["ours"].append(time.perf_counter() - started)
                _compare(folder / "plain", folder / "ours" / f"wav{options.sample_rate // 1000}k" / mode / "tr")
                shutil.rmtree(folder / "plain")
                shutil.rmtree(folder / "ours")
            plain, ours = (statistics.median(times[name]) for name in ("plain", "ours"))
            print(f"| {mode} | {plain:.1f} | {ours:.1f} | {plain / ours:.2f} |", flush=True)


def _made_up(root: Path) -> Path:
    """Noises of 3 to 9 s whose loudness wanders as that of syllables and pauses does."""
    rng = np.random.default_rng(0)
    for speaker in range(SPEAKERS):
        (root / f"sp{speaker:02}").mkdir(parents=True)
        for number in range(EACH):
            length = int(rng.uniform(3, 9) * SOURCE_RATE)
            loudness = np.interp(np.arange(length), np.arange(0, length + 4000, 4000), rng.random(length // 4000 + 2) ** 3)
            x = np.cumsum(rng.standard_normal(length))
            x = np.diff(x - np.convolve(x, np.ones(64) / 64, "same"), prepend=0.0)
            soundfile.write(root / f"sp{speaker:02}" / f"sp{speaker:02}u{number:02}.wav", 0.05 * loudness * x, SOURCE_RATE)
    return root


def _lists(root: Path, folder: Path, count: int) -> tuple[Path, Path]:
    """A mix list of different speakers, and the table of active levels."""
    speakers = [files for d in sorted(root.iterdir()) if d.is_dir() and (files := sorted(d.glob("*.wav")))]
    rng = np.random.default_rng(1)
    lines: dict[str, None] = {}
    while len(lines) < count:
        one, other = rng.choice(len(speakers), 2, replace=False)
        gain = rng.uniform(0, 2.5)
        a, b = (speakers[i][rng.integers(len(speakers[i]))].relative_to(root) for i in (one, other))
        lines[f"{a} {gain:.5g} {b} {-gain:.5g}\n"] = None
    (folder / "mix_2_spk_tr.txt").write_text("".join(lines))
    used = {path for line in read_mix_list(folder / "mix_2_spk_tr.txt") for path in line.paths}
    rows = [f"{Path(path).stem} {active_level(*soundfile.read(root / path)):.16e}\n" for path in sorted(used)]
    (folder / "levels.txt").write_text("".join(rows))
    return folder / "mix_2_spk_tr.txt", folder / "levels.txt"


def _plain(mix_list: Path, root: Path, out: Path, rate: int, mode: str, levels: Path) -> None:
    powers = read_levels(levels)
    for part in ("mix", "s1", "s2"):
        (out / part).mkdir(parents=True)
    for line in read_mix_list(mix_list):
        scaled = []
        for path, gain in zip(line.paths, line.gains, strict=True):
            x, source_rate = soundfile.read(root / path, dtype="float32")
            x = x if source_rate == rate else resample_poly(x, rate, source_rate)
            scaled.append(x.astype(np.float64) / np.sqrt(powers[Path(path).stem]) * 10 ** (gain / 20))
        length = (min if mode == "min" else max)(map(len, scaled))
        sources = np.stack([np.pad(x[:length], (0, max(0, length - len(x)))) for x in scaled])
        mixture = sources.sum(axis=0)
        scale = 0.9 / max(1.0, np.abs(mixture).max(), np.abs(sources).max())
        for part, x in zip(("mix", "s1", "s2"), (mixture, *sources), strict=True):
            samples = np.int16(np.round(32768 * (x * scale)))
            soundfile.write(out / part / f"{line.id}.wav", samples, rate, subtype="PCM_16")


def _compare(plain: Path, ours: Path) -> None:
    """Both must have made the same; a factor and its inverse may part by one step where a sample lies between two."""
    for file in plain.glob("*/*.wav"):
        x, y = (soundfile.read(f, dtype="int16")[0].astype(int) for f in (file, ours / file.relative_to(plain)))
        if len(x) != len(y) or np.abs(x - y).max() > 1:
            raise SystemExit(f"{file.name}: mix_lists made another signal than the plain loop")


if __name__ == "__main__":
    main()
