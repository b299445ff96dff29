"""A causal network that takes its mixture in blocks: what it has heard is in its states."""

import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from sepml.errors import SepmlError
from sepml.speech.models.convtasnet_state import ConvTasNetState
from sepml.speech.models.model import SeparationModel
from sepml.speech.models.skim_state import SkiMState

_MEMORY_SECONDS = 3.0
"""Time constant of the level: the networks were trained on mixtures of some seconds at unit power."""
ABOVE = 10.0
"""A frame's power is at most this much above the level, so that speech after silence is not far too loud."""
LEAST = 1e-16


class FrameState(Protocol):
    """A network with what it has heard, see `SkiMState`."""

    window: int
    stride: int
    n_src: int
    covers_end: bool
    lead: int

    def encoded(self, samples: Tensor) -> Tensor:
        """Samples `(t,)` to frames `(1, channels, F)`."""
        ...

    def masks(self, features: Tensor) -> Tensor:
        """Masks `(1, n_src, channels, F)` of the next frames `(1, channels, F)`."""
        ...

    def decoded(self, frames: Tensor) -> Tensor:
        """Frames `(n_src, channels, F)` to samples `(n_src, t)`."""
        ...


class CausalStream:
    """Separates a mixture that comes in blocks, as one pass over the whole mixture would.

    A sample is known when the window that it ends in is complete: the delay is one window of the encoder.

    Args:
        model: causal, of kind `skim` or `convtasnet`.
        levels: bring frames to unit power, by the power heard so far; without, they stay as they are.

    Raises:
        SepmlError: another network.
    """

    def __init__(self, model: SeparationModel, levels: bool = True) -> None:
        self.state, self.levels = frame_state_of(model), levels
        self.window, self.stride, self.n_src = self.state.window, self.state.stride, self.state.n_src
        self.device = next(model.parameters()).device
        self.delay = self.window
        self.held = np.zeros(self.state.lead, np.float32)
        self.tail = torch.zeros(self.n_src, self.window - self.stride, device=self.device)
        self.received, self.given = 0, -self.state.lead
        self.kept = kept_of(model.config.sample_rate, self.stride)
        self.power, self.weight = 0.0, 0.0

    def push(self, block: np.ndarray) -> np.ndarray:
        """The next samples `(n_src, t')` of the estimates after `(t,)` more of the mixture."""
        self.received += block.size
        return self._push(block)

    def finish(self) -> np.ndarray:
        """The rest of the estimates, up to the length of the mixture."""
        missing = self.received - max(self.given, 0)
        # Whole windows, as in one pass over all of it; a mixture shorter than one is padded by every network.
        heard = 2 * self.state.lead + max(self.received, self.window)
        windows = -(-(heard - self.window) // self.stride)
        padding = np.zeros(windows * self.stride + self.window - self.state.lead - self.received, np.float32)
        is_padded = missing and (self.state.covers_end or self.received < self.window)
        est = self._push(padding) if is_padded else np.zeros((self.n_src, 0), np.float32)
        tail = self.tail.cpu().numpy()[:, max(-self.given, 0) :]
        rest = np.concatenate([est, tail], axis=1)[:, :missing]
        return np.pad(rest, ((0, 0), (0, missing - rest.shape[1])))

    def _push(self, block: np.ndarray) -> np.ndarray:
        self.held = np.concatenate([self.held, block.astype(np.float32)])
        frames = max((len(self.held) - self.window) // self.stride + 1, 0)
        if not frames:
            return np.zeros((self.n_src, 0), np.float32)
        used = self.held[: (frames - 1) * self.stride + self.window]
        self.held = self.held[frames * self.stride :].copy()
        with torch.inference_mode():
            est = self._separated(used, frames).cpu().numpy()
        before, self.given = self.given, self.given + est.shape[1]
        # Not what belongs to the zeros before the mixture.
        return est[:, max(-before, 0) :]

    def _separated(self, samples: np.ndarray, frames: int) -> Tensor:
        encoded = self.state.encoded(torch.from_numpy(samples).to(self.device))
        features = encoded / torch.from_numpy(self._levels(samples, frames)).to(self.device) if self.levels else encoded
        signals = self.state.decoded((self.state.masks(features) * encoded[:, None])[0])
        signals[:, : self.tail.shape[1]] += self.tail
        done = frames * self.stride
        self.tail = signals[:, done:].clone()
        return signals[:, :done]

    def _levels(self, samples: np.ndarray, frames: int) -> np.ndarray:
        """The level `(frames,)` to which each frame is related: the root of the mean power up to it, decayed."""
        cut = np.lib.stride_tricks.sliding_window_view(samples, self.window)[:: self.stride][:frames]
        levels = np.empty(frames, np.float32)
        for n, power in enumerate(np.square(cut, dtype=np.float64).mean(1)):
            self.power = self.kept * self.power + power
            self.weight = self.kept * self.weight + 1
            levels[n] = max(self.power / self.weight, power / ABOVE, LEAST) ** 0.5
        return levels


_STATES: dict[str, Callable[[Any], FrameState]] = {"skim": SkiMState, "convtasnet": ConvTasNetState}


def frame_state_of(model: SeparationModel) -> FrameState:
    """A causal network that has heard nothing yet.

    Raises:
        SepmlError: the network is not causal.
    """
    if not is_causal(model):
        raise SepmlError(f"a network of kind '{model.config.kind}' is not causal, expected a causal skim or convtasnet")
    return _STATES[model.config.kind](model.network)


def is_causal(model: SeparationModel) -> bool:
    """Whether a model can be used with `CausalStream`."""
    return model.config.kind in _STATES and bool(getattr(model.config, "causal", False))


def kept_of(rate: int, stride: int) -> float:
    """What a frame keeps of the power heard before."""
    return math.exp(-stride / (_MEMORY_SECONDS * rate))
