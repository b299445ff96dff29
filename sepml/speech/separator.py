"""From a mixture of any rate, length and level to its sources, by one model or several together."""

import json
import logging
from collections.abc import Sequence
from math import gcd, inf
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from sepml.errors import SepmlError
from sepml.speech.align import align_to, join, level_gains

log = logging.getLogger(__name__)
WHOLE_SECONDS = 30.0
"""Mixtures up to this length are separated in one piece unless a segment is asked for."""
SEGMENT_SECONDS = 10.0
_SHORTEST_SECONDS = 0.1


class Separator:
    """Separates waveforms with one model, or with the aligned average of several.

    Args:
        models: modules from mixture (B, T) to est_sources (B, n_src, T) with a `config` that has `n_src` and
            `sample_rate`; they are put into evaluation mode.
        mixture_consistency: share what is left of the mixture out among the sources, so that they add up to it.

    Raises:
        SepmlError: the models differ in rate or number of sources.
    """

    def __init__(self, models: Sequence[nn.Module], mixture_consistency: bool = False) -> None:
        if not models:
            raise SepmlError("a separator needs a model; none was given")
        kinds = {(model.config.n_src, model.config.sample_rate) for model in models}
        if len(kinds) > 1:
            found = " and ".join(f"{n_src} sources at {rate} Hz" for n_src, rate in sorted(kinds))
            raise SepmlError(f"the models cannot be averaged, they give {found}; use one of them alone")
        self.n_src, self.sample_rate = kinds.pop()
        self.models = [model.eval() for model in models]
        self.mixture_consistency = mixture_consistency

    @classmethod
    def load(cls, path: Path, ensemble: bool = False, device: str | torch.device = "cpu") -> "Separator":
        """The separator in a model folder, or in an experiment folder with peer1/, peer2/ and so on.

        Args:
            path: of an experiment folder, the peer that its best.json names (`{"peer": 2}`) is taken.
            ensemble: average all peers of an experiment folder.

        Raises:
            SepmlError: there is no model, it cannot be read, or a peer has to be named.
        """
        from sepml.speech.model import load_model

        return cls([load_model(folder, device) for folder in _model_folders(Path(path), ensemble)])

    def separate(
        self, waveform: Tensor | np.ndarray, sample_rate: int, segment: float | None = None, overlap: float = 0.5
    ) -> Tensor:
        """Separate a mixture; the estimates have its rate, length and level, and add up to it as well as they can.

        Args:
            waveform: (T,) samples of any level; an offset (DC) is dropped, digital silence gives silence.
            sample_rate: of the waveform, Hz.
            segment: seconds that the models see at a time; None is everything up to 30 s and 10 s above.
            overlap: the part of a segment that it shares with the one before, in which speakers are matched.

        Returns:
            (n_src, T) float32 on the CPU.

        Raises:
            SepmlError: samples that are nan or infinite, or a segment or overlap that makes no sense.
        """
        mixture = np.asarray(waveform.detach().cpu() if isinstance(waveform, Tensor) else waveform)
        if mixture.ndim != 1:
            raise SepmlError(f"the waveform has shape {mixture.shape}, expected (T,): one channel; mix it down first")
        bad = mixture.size - np.count_nonzero(np.isfinite(mixture))
        if bad:
            raise SepmlError(f"{bad} of {mixture.size} samples are nan or infinite, expected numbers")
        length, hop = self._windows(mixture.size / sample_rate, segment, overlap)
        level = float(np.abs(mixture).max(initial=0))
        if mixture.size == 0 or np.ptp(mixture) == 0:
            return torch.zeros(self.n_src, mixture.size)
        # The peak first: squares of extreme levels leave the range of float32.
        unit = mixture / np.float64(level)
        unit = (unit - unit.mean()).astype(np.float32)
        low = torch.from_numpy(_resample(unit, sample_rate, self.sample_rate))
        with torch.inference_mode():
            est = self._in_windows(low, length, hop)
            est = (est * level_gains(est, low)[:, None]).float()
            if self.mixture_consistency:
                est += (low - est.sum(0)) / self.n_src
        high = _resample(est.numpy(), self.sample_rate, sample_rate)[:, : mixture.size]
        return torch.from_numpy((high * np.float64(level)).astype(np.float32))

    def _windows(self, seconds: float, segment: float | None, overlap: float) -> tuple[int, int]:
        """The length of a window and the step from one to the next, in samples of the models."""
        if segment is not None and not 0 < segment < inf:
            raise SepmlError(f"segment is {segment} s, expected more than 0")
        if not 0 < overlap < 1:
            raise SepmlError(f"overlap is {overlap}, expected a fraction of the segment between 0 and 1")
        if segment is None:
            segment = seconds + 1 if seconds <= WHOLE_SECONDS else SEGMENT_SECONDS
        length = max(round(segment * self.sample_rate), 2)
        return length, min(max(round(length * (1 - overlap)), 1), length - 1)

    def _in_windows(self, mixture: Tensor, length: int, hop: int) -> Tensor:
        """Estimates (n_src, T) of a mixture (T,) of the models' rate, in windows that all have the full length."""
        end = min(length, len(mixture))
        parts: list[Tensor] = []
        tail = self._estimate(mixture[:end])
        while end < len(mixture):
            start = min(end - length + hop, len(mixture) - length)
            shared = end - start
            joined = join(tail, self._estimate(mixture[start : start + length]), shared)
            # Only what the next window can still touch is kept in hand.
            done = joined.shape[-1] - length
            parts.append(joined[:, :done])
            tail, end = joined[:, done:], start + length
        return torch.cat([*parts, tail], dim=-1)

    def _estimate(self, mixture: Tensor) -> Tensor:
        """Estimates (n_src, T) of a mixture (T,): one model's as they are, several models' brought together."""
        if not mixture.any():
            return torch.zeros(self.n_src, len(mixture))
        ests = [self._run(model, mixture) for model in self.models]
        if len(ests) == 1:
            return ests[0]
        ests = [(est * level_gains(est, mixture)[:, None]).float() for est in ests]
        total = ests[0]
        for est in ests[1:]:
            total = total + est[align_to(total, est)]
        return total / len(ests)

    def _run(self, model: nn.Module, mixture: Tensor) -> Tensor:
        shortest = round(_SHORTEST_SECONDS * self.sample_rate)
        padded = nn.functional.pad(mixture, (0, max(0, shortest - len(mixture))))
        device = next((weight.device for weight in model.parameters()), torch.device("cpu"))
        try:
            est = model(padded[None].to(device))[0, :, : len(mixture)].float().cpu()
        except torch.OutOfMemoryError as error:
            seconds = len(mixture) / self.sample_rate
            raise SepmlError(f"{device} has too little memory for {seconds:.0f} s at a time; use a shorter segment") from error
        if not est.isfinite().all():
            raise SepmlError("the model gives nan or infinity; its training has diverged or its weights are damaged")
        return est


def _resample(x: np.ndarray, rate: int, to: int) -> np.ndarray:
    """Samples (..., T) at another rate, float32; never fewer than the duration asks for."""
    from scipy.signal import resample_poly

    if rate == to:
        return x
    common = gcd(rate, to)
    return resample_poly(x, to // common, rate // common, axis=-1).astype(np.float32)


def _model_folders(path: Path, ensemble: bool) -> list[Path]:
    if (path / "config.json").is_file():
        if ensemble:
            raise SepmlError(f"{path}: holds one model; an ensemble needs the experiment folder with its peers")
        return [path]
    if not path.is_dir():
        raise SepmlError(f"{path}: no such folder; expected a model folder or an experiment folder")
    numbers = sorted(int(f.name[4:]) for f in path.iterdir() if f.name[:4] == "peer" and f.name[4:].isdecimal())
    peers = [path / f"peer{number}" for number in numbers]
    if not peers:
        raise SepmlError(f"{path}: holds neither a config.json (a model) nor peer1/, peer2/ (an experiment)")
    if ensemble or len(peers) == 1:
        return peers
    best = _best_peer(path / "best.json")
    if best not in numbers:
        named = f"best.json names peer {best}, which is absent" if best is not None else "no best.json names one"
        raise SepmlError(f"{path}: holds {len(peers)} peers and {named}; name one, such as {peers[0]}, or ask for all")
    log.info("%s: peer %d, as best.json says", path, best)
    return [path / f"peer{best}"]


def _best_peer(file: Path) -> int | None:
    try:
        peer = json.loads(file.read_text(encoding="utf-8"))["peer"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SepmlError(f'{file}: cannot be read; expected {{"peer": 1}} or the like') from error
    if type(peer) is not int:
        raise SepmlError(f"{file}: peer is {peer!r}, expected its number")
    return peer
