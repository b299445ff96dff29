"""Copies of mixtures and their sources at a lower rate."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from math import gcd
from pathlib import Path

import numpy as np

from sepml.errors import SepmlError
from sepml.speech.audio.files import read_wav, write_wav
from sepml.speech.data.mixtures import Mixture
from sepml.system.parallel import all_of, map_unordered

_PEAK = 0.9


def at_rate(mixtures: Sequence[Mixture], folder: Path, sample_rate: int, jobs: int = 0) -> list[Mixture]:
    """Copies of mixtures in `folder`, mix/ s1/ s2/ (noise/), 16-bit WAV; those that are there are written again.

    Resampling is linear, so that a mixture stays the sum of its sources and noise, but for the rounding to 16 bits. If a peak
    is over 1 afterwards, all files of the mixture are scaled by one factor, to a peak of 0.9.

    Args:
        sample_rate: Hz, at most that of the files.
        jobs: processes; 0 = all cores.

    Returns:
        the copies, in the order of the mixtures.

    Raises:
        SepmlError: a file cannot be read, has several channels, a lower rate, or another rate or length than its mixture; or
            `folder` holds the files themselves.
    """
    copies = all_of(map_unordered(partial(_copy, folder, sample_rate), mixtures, jobs, "resampling mixtures"))
    order = {mixture.id: place for place, mixture in enumerate(mixtures)}
    return sorted(copies, key=lambda copy: order[copy.id])


def _copy(folder: Path, sample_rate: int, mixture: Mixture) -> Mixture:
    from scipy.signal import resample_poly

    parts = {"mix": mixture.mixture} | {f"s{n}": source for n, source in enumerate(mixture.sources, 1)}
    if mixture.noise:
        parts["noise"] = mixture.noise
    targets = {part: folder / part / f"{mixture.id}.wav" for part in parts}
    for part, file in parts.items():
        if targets[part].resolve() == file.resolve():
            raise SepmlError(f"{file}: would be overwritten by its copy at {sample_rate} Hz; give a folder outside the tree")
    first, rate = read_wav(mixture.mixture)
    if rate < sample_rate:
        raise SepmlError(f"{mixture.mixture}: its rate is {rate} Hz, below the {sample_rate} Hz asked for")
    up, down = sample_rate // gcd(sample_rate, rate), rate // gcd(sample_rate, rate)
    signals = {}
    for part, file in parts.items():
        x = read_wav(file, rate)[0]
        if len(x) != len(first):
            raise SepmlError(f"{file}: has {len(x)} samples, its mixture {len(first)}")
        signals[part] = resample_poly(x.astype(np.float64), up, down)
    peak = max(float(np.abs(x).max()) for x in signals.values())
    for part, x in signals.items():
        write_wav(targets[part], x * _PEAK / peak if peak > 1 else x, sample_rate)
    sources = tuple(targets[f"s{n}"] for n in range(1, len(mixture.sources) + 1))
    return replace(mixture, mixture=targets["mix"], sources=sources, length=len(signals["mix"]), noise=targets.get("noise"))
