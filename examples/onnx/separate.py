"""Separates a recording by an exported model, without PyTorch and without sepml.

    pip install onnxruntime soundfile
    python separate.py model.onnx mixture.wav OUT

writes OUT/s1.wav, ...: 16 bits, at the levels of `sepml separate`. The recording has one channel and the rate of the model.
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime
import soundfile


def separate(model: str, waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """Estimates (n_src, T) of a mixture (T,)."""
    session = onnxruntime.InferenceSession(model)
    facts = session.get_modelmeta().custom_metadata_map
    if sample_rate != int(facts["sample_rate"]):
        sys.exit(f"the recording has {sample_rate} Hz, the model {facts['sample_rate']} Hz")
    level = np.abs(waveform).max() or 1.0
    mixture = (waveform / level).astype(np.float32)
    mixture -= mixture.mean()
    est = session.run(["est_sources"], {"mixture": mixture[None]})[0][0].astype(np.float64)
    # Training determines neither level nor sign of an estimate: least squares fits their sum to the mixture.
    gains = np.linalg.lstsq(est.T, mixture, rcond=1e-4)[0]
    est *= level * gains[:, None]
    # One factor for all, if a peak would be clipped.
    return est / max(np.abs(est).max(), 1.0)


def main() -> None:
    """Separate the file that the arguments name."""
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    model, recording, out = sys.argv[1:]
    waveform, sample_rate = soundfile.read(recording, dtype="float32", always_2d=True)
    if waveform.shape[1] != 1:
        sys.exit(f"{recording} has {waveform.shape[1]} channels, expected one")
    Path(out).mkdir(parents=True, exist_ok=True)
    for n, est in enumerate(separate(model, waveform[:, 0], sample_rate), 1):
        soundfile.write(Path(out) / f"s{n}.wav", est, sample_rate, subtype="PCM_16")


if __name__ == "__main__":
    main()
