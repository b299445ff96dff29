"""The picture of the README: spectrograms of a mixture of two voices and of both outputs of the pair that comes with sepml.

    python tools/draw_separation.py recipes/prompts-2mix/data/prompts/wav8k/min/tt_unseen.csv -o docs/separation.png

Of the first mixtures of the manifest (`--mixtures`), the one is drawn whose SI-SNRi is the median.
"""

import argparse
import io
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from scipy.signal import ShortTimeFFT
from scipy.signal.windows import hann

from sepml import Separator, score
from sepml.speech.audio.files import read_wav
from sepml.speech.data.manifest import read_manifest

WINDOW, HOP, RANGE_DB = 256, 64, 65.0


def main() -> None:
    """Separate, choose and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--mixtures", type=int, default=51)
    options = parser.parse_args()
    separator = Separator.from_pretrained()
    manifest = read_manifest(options.manifest)
    found = []
    for index in range(min(options.mixtures, len(manifest))):
        mixture = manifest[index]
        signal, rate = read_wav(mixture.mixture)
        refs = np.stack([read_wav(source)[0] for source in mixture.sources])
        est = separator.separate(signal, rate).numpy()
        before = score(np.stack([signal, signal]), refs, signal, rate, metrics=("si_snr",))
        after = score(est, refs, signal, rate, metrics=("si_snr",))
        gain = np.mean(np.subtract(after.values["si_snr"], before.values["si_snr"], dtype=float))
        found.append((float(gain), mixture.id, signal, est, rate))
    gain, name, signal, est, rate = sorted(found, key=lambda one: one[0])[len(found) // 2]
    draw(options.out, {"one microphone, two people": signal, "output 1": est[0], "output 2": est[1]}, rate)
    print(f"{options.out}: {name}, SI-SNRi {gain:.2f} dB, the median of {len(found)}")


def draw(out: Path, signals: dict[str, np.ndarray], rate: int) -> None:
    """Draw spectrograms side by side, with one scale."""
    figure = Figure(figsize=(8.4, 2.3), layout="constrained", dpi=110)
    every: list[Axes] = list(figure.subplots(1, len(signals), sharey=True))
    transform = ShortTimeFFT(hann(WINDOW), HOP, rate)
    spectra = [20 * np.log10(np.abs(transform.stft(signal)) + 1e-9) for signal in signals.values()]
    top = max(spectrum.max() for spectrum in spectra)
    for axes, title, spectrum, signal in zip(every, signals, spectra, signals.values(), strict=True):
        extent = (0, len(signal) / rate, 0, rate / 2000)
        axes.imshow(spectrum, origin="lower", aspect="auto", extent=extent, vmin=top - RANGE_DB, vmax=top, cmap="magma")
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("s", fontsize=8)
        axes.tick_params(labelsize=7)
    every[0].set_ylabel("kHz", fontsize=8)
    content = io.BytesIO()
    figure.savefig(content, metadata={"Software": None})
    # 64 colours: a quarter of the size, and no difference to be seen.
    Image.open(content).convert("RGB").quantize(64, dither=Image.Dither.NONE).save(out, optimize=True)


if __name__ == "__main__":
    main()
