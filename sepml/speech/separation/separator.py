"""Separates a mixture of any rate, length and level, with one model or the average of several."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from sepml.errors import SepmlError
from sepml.speech.audio.signals import checked_channel, require_rate, split_at, windows
from sepml.speech.averaging import averaged, level_gains
from sepml.speech.models.backbones import BACKBONES
from sepml.speech.models.inference import estimates
from sepml.speech.models.model import SeparationModel
from sepml.speech.publish.hub import HubMixin
from sepml.speech.separation.description import Listener
from sepml.speech.separation.full_band import separated_at
from sepml.speech.separation.live import Live
from sepml.speech.separation.stitch import Stitcher
from sepml.speech.separation.turns import TurnOrder
from sepml.speech.separation.window_lengths import window_lengths

if TYPE_CHECKING:
    from sepml.speech.adaptation.adapt import Adaptation

WHOLE_SECONDS = 30.0
"""Mixtures up to this length are separated in one piece unless a segment is given."""
_SHORTEST_SECONDS = 0.1
_LAG_SECONDS, _LAG_WINDOWS = 600.0, 120
"""The longest time until the order of a window is final. It covers most recordings; windows of 10 s take 120 MB at 8 kHz."""
_FRAMES, _VALUES, _MOST_WINDOWS = 20_000, 20_000_000, 8
"""The most that a network gets at a time: frames, values of its largest layer, and windows; but one window in any case."""
_BLOCK = 1 << 18


class Separator(HubMixin):
    """Separates waveforms with one model, or with the aligned average of several.

    Args:
        models: modules from mixture (B, T) to est_sources (B, n_src, T) with a `config` that has `n_src` and
            `sample_rate`; they are put into evaluation mode.
        mixture_consistency: distribute the remainder of the mixture equally among the sources, so that they add up to it.
        full_band: for recordings whose rate is above that of the models, give each estimate its share of the frequencies
            above the models' band (`sepml.speech.separation.full_band`); without, the estimates end where the band does.

    Raises:
        SepmlError: the models differ in rate or number of sources.
    """

    def __init__(self, models: Sequence[SeparationModel], mixture_consistency: bool = False, full_band: bool = True) -> None:
        super().__init__(models)
        if not models:
            raise SepmlError("a separator needs a model; none was given")
        kinds = {(model.config.n_src, model.config.sample_rate) for model in models}
        if len(kinds) > 1:
            found = " and ".join(f"{n_src} sources at {rate} Hz" for n_src, rate in sorted(kinds))
            raise SepmlError(f"the models cannot be averaged, they give {found}; use one of them alone")
        self.n_src, self.sample_rate = kinds.pop()
        self.mixture_consistency, self.full_band = mixture_consistency, full_band

    def separate(
        self, waveform: Tensor | np.ndarray, sample_rate: int, segment: float | None = None, overlap: float | None = None
    ) -> Tensor:
        """Separate a mixture; the estimates have its rate and length, and levels at which their sum is close to it.

        Args:
            waveform: (T,) samples of any level; an offset (DC) is dropped, digital silence gives silence.
            sample_rate: of the waveform, Hz.
            segment: seconds that the models get at a time; None is the whole mixture up to 30 s, and for longer ones 10 s,
                or 20 s for networks with a short stride.
            overlap: the fraction of a segment that it shares with the one before, in which speakers are matched; None is
                0.5, or 0.1 for networks with a short stride, such as those with a learned encoder.

        Returns:
            (n_src, T) float32 on the CPU.

        Raises:
            SepmlError: samples that are nan or infinite, or an invalid rate, segment or overlap.
        """
        mixture = checked_channel(waveform.detach().cpu().numpy() if isinstance(waveform, Tensor) else waveform)
        est = np.empty((self.n_src, mixture.size), np.float32)
        done = 0
        blocks = (mixture[begin : begin + _BLOCK] for begin in range(0, mixture.size, _BLOCK))
        for block in self.stream(blocks, sample_rate, segment, overlap):
            est[:, done : done + block.shape[1]] = block
            done += block.shape[1]
        return torch.from_numpy(est)

    def stream(
        self,
        blocks: Iterable[np.ndarray],
        sample_rate: int,
        segment: float | None = None,
        overlap: float | None = None,
        listener: Listener | None = None,
    ) -> Iterator[np.ndarray]:
        """Separate a mixture that comes in blocks, in memory that does not grow with its length.

        The estimates are those of `separate`, to the last bit, whatever the sizes of the blocks. The output lags some
        windows behind the input, as later windows help to order the speakers of earlier ones.

        Args:
            blocks: (t,) samples each, of any t.
            sample_rate, segment, overlap: see `separate`.
            listener: from `listener()`; it measures all signals at the models' rate, for a description.

        Yields:
            (n_src, t') float32; the t' add up to the t.

        Raises:
            SepmlError: see `separate`.
        """
        require_rate(sample_rate)
        length, hop = window_lengths(self.sample_rate, self._stride(), segment, overlap)
        longest = max(int((WHOLE_SECONDS if segment is None else segment) * sample_rate), 1)
        head, rest = split_at(map(checked_channel, blocks), longest)
        # Scaled by the peak: squares of extreme levels are outside the range of float32.
        level = float(np.abs(head.astype(np.float64)).max(initial=0)) or 1.0
        offset = float((head / np.float64(level)).mean()) if head.size else 0.0
        later = next((block for block in rest if block.size), None)
        samples = 0

        def units() -> Iterator[np.ndarray]:
            nonlocal samples
            for block in [head] if later is None else chain([head, later], rest):
                samples += block.size
                yield (block / np.float64(level) - offset).astype(np.float32)

        silent = later is None and (not head.size or np.ptp(head) == 0)

        def separated(low: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
            low = listener.mixture(low) if listener else low
            ests = self._whole(low, silent, listener) if later is None else self._in_windows(low, length, hop, listener)
            return listener.estimates(ests) if listener else ests

        highs = self.adds_highs(sample_rate) and not silent
        done = 0
        for est in separated_at(units(), sample_rate, separated, self.sample_rate, highs):
            # Resampling to the models' rate and back adds some samples.
            est = est[:, : samples - done]
            done += est.shape[1]
            yield (est * np.float64(level)).astype(np.float32)

    def adapt(
        self, recordings: Sequence[str | Path], out: str | Path | None = None, counter: Any = None, **settings: Any
    ) -> "tuple[Separator, Adaptation]":
        """Learn from recordings without references, as `sepml adapt`; this separator stays as it is.

        Args:
            recordings: as of `sepml separate`. settings: minutes, steps and seed, see `AdaptSettings`.
            counter: `Separators.load().counter` leaves recordings out that surely have another number of talkers than two.
            out: folder for the model, in which an interrupted adaptation goes on; None is a temporary one.

        Returns:
            the separator that the blind decision chose, and what was decided.
        """
        from sepml.speech.separation.adapting import adapted_separator

        return adapted_separator(self, recordings, out, counter=counter, **settings)

    def live(self, sample_rate: int, delay: float = 1.0) -> Live:
        """Separate a mixture while it is still coming: `push` of what this returns takes blocks and gives blocks.

        Args:
            sample_rate: of the mixture, Hz.
            delay: seconds, see `Live`.
        """
        return Live(self, sample_rate, delay)

    def listener(self) -> Listener:
        """A new listener for one recording, for `stream`; see `Listener.description`."""
        return Listener(self.n_src, self.sample_rate)

    def adds_highs(self, sample_rate: int) -> bool:
        """Whether estimates of a recording, by its rate in Hz, have frequencies above the models' band."""
        return self.full_band and sample_rate > self.sample_rate

    def _whole(self, low: Iterable[np.ndarray], silent: bool, listener: Listener | None) -> Iterator[np.ndarray]:
        """Estimates (n_src, T) of a whole mixture, separated in one piece; `low` is the mixture at the models' rate."""
        mixture = np.concatenate(list(low))
        # A constant signal is silence, but subtracting its mean leaves rounding errors.
        if silent:
            mixture = np.zeros_like(mixture)
        [est] = self.estimate([mixture], listener)
        est = est * level_gains(est, mixture).astype(np.float32)[:, None]
        if self.mixture_consistency:
            est += (mixture - est.sum(0)) / self.n_src
        yield est

    def _in_windows(
        self, mixture: Iterable[np.ndarray], length: int, hop: int, listener: Listener | None
    ) -> Iterator[np.ndarray]:
        """Estimates (n_src, t) of a mixture of the models' rate, in windows that all have the full length."""
        lag = min(max(round(_LAG_SECONDS * self.sample_rate / hop), 2), _LAG_WINDOWS)
        stitcher = Stitcher(self.n_src, self.sample_rate, lag, self.mixture_consistency)
        turns = TurnOrder(self.n_src, self.sample_rate)
        cut = windows(map(turns.hear, mixture), length, hop)
        at_a_time = self._windows_at_a_time(length)

        def joined() -> Iterator[np.ndarray]:
            while batch := list(islice(cut, at_a_time)):
                signals = [signal - signal.mean() for _, signal in batch]
                for (begin, _), signal, est in zip(batch, signals, self.estimate(signals, listener, fast=True), strict=True):
                    yield from stitcher.push(begin, signal, est)
            yield from stitcher.finish()

        yield from turns.ordered(joined())

    def _windows_at_a_time(self, length: int) -> int:
        """Networks with a long stride are faster with several windows of `length` samples; others would need much memory."""
        most = min(_MOST_WINDOWS, _FRAMES * self._stride() / length)
        for config in (model.config for model in self.models):
            if backbone := BACKBONES.get(getattr(config, "kind", "")):
                most = min(most, _VALUES / (backbone.largest_layer(config) * length / self.sample_rate))
        return max(int(most), 1)

    def _stride(self) -> int:
        """Stride of the networks, samples."""
        config = self.models[0].config
        return getattr(config, "stride", None) or max(getattr(config, "window", 2) // 2, 1)

    def estimate(
        self, mixtures: Sequence[np.ndarray], listener: Listener | None = None, fast: bool = False
    ) -> list[np.ndarray]:
        """Estimates (n_src, T) of mixtures (T,) of one length: unchanged from one model, aligned and averaged from several.

        Args:
            fast: compute in bfloat16 where the device does, about twice as fast with learned encoders.
        """
        ests = [np.zeros((self.n_src, mixture.size), np.float32) for mixture in mixtures]
        sounding = [n for n, mixture in enumerate(mixtures) if mixture.any()]
        if not sounding:
            return ests
        batch = torch.from_numpy(np.stack([mixtures[n] for n in sounding]))
        with torch.inference_mode():
            shortest = round(_SHORTEST_SECONDS * self.sample_rate)
            of_models = [estimates(model, batch, shortest, fast).numpy() for model in self.models]
        for row, n in enumerate(sounding):
            ests[n], aligned = averaged([of_model[row] for of_model in of_models], mixtures[n])
            if listener and len(aligned) > 1:
                listener.networks(ests[n], aligned)
        return ests
