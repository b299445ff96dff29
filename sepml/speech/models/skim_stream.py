"""A causal SkiM that takes its mixture in blocks: what it has heard is in the states of its LSTMs."""

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor

from sepml.errors import SepmlError
from sepml.speech.models.model import SeparationModel
from sepml.speech.models.skim import SkiM, States

_MEMORY_SECONDS = 3.0
"""Time constant of the level: the networks were trained on mixtures of some seconds at unit power."""
_ABOVE = 10.0
"""A frame's power is at most this much above the level, so that speech after silence is not far too loud."""
_LEAST = 1e-16


@dataclass
class _Layer:
    """The states of a layer: of its LSTM within this segment, and of the LSTMs of the memory behind it."""

    now: States | None = None
    hidden: States | None = None
    cell: States | None = None


class SkiMStream:
    """Separates a mixture that comes in blocks, as one pass over the whole mixture would.

    A sample is known when the window that it ends in is complete: the delay is one window of the encoder.

    Args:
        model: causal, of kind `skim`.
        levels: bring frames to unit power, by the power heard so far; without, they stay as they are.

    Raises:
        SepmlError: another network.
    """

    def __init__(self, model: SeparationModel, levels: bool = True) -> None:
        if not is_causal(model):
            raise SepmlError(f"a network of kind '{model.config.kind}' is not causal, expected a causal skim")
        self.network, self.levels = cast(SkiM, model.network), levels
        self.device = next(model.parameters()).device
        self.delay = self.network.window
        self.held = np.zeros(0, np.float32)
        self.layers = [_Layer() for _ in self.network.segments]
        self.frame = 0
        self.tail = torch.zeros(self.network.n_src, self.network.window - self.network.stride, device=self.device)
        self.received = self.given = 0
        self.kept = float(np.exp(-self.network.stride / (_MEMORY_SECONDS * model.config.sample_rate)))
        self.power, self.weight = 0.0, 0.0

    def push(self, block: np.ndarray) -> np.ndarray:
        """The next samples `(n_src, t')` of the estimates after `(t,)` more of the mixture."""
        self.received += block.size
        return self._push(block)

    def finish(self) -> np.ndarray:
        """The rest of the estimates, up to the length of the mixture."""
        network, missing = self.network, self.received - self.given
        # Whole windows, as in one pass over all of it.
        windows = max(-(-(self.received - network.window) // network.stride), 0)
        padding = np.zeros(windows * network.stride + network.window - self.received, np.float32)
        est = self._push(padding) if missing else np.zeros((network.n_src, 0), np.float32)
        return np.concatenate([est, self.tail.cpu().numpy()], axis=1)[:, :missing]

    def _push(self, block: np.ndarray) -> np.ndarray:
        window, stride = self.network.window, self.network.stride
        self.held = np.concatenate([self.held, block.astype(np.float32)])
        frames = max((len(self.held) - window) // stride + 1, 0)
        if not frames:
            return np.zeros((self.network.n_src, 0), np.float32)
        used = self.held[: (frames - 1) * stride + window]
        self.held = self.held[frames * stride :].copy()
        with torch.inference_mode():
            est = self._separated(used, frames).cpu().numpy()
        self.given += est.shape[1]
        return est

    def _separated(self, samples: np.ndarray, frames: int) -> Tensor:
        network = self.network
        encoded = network.encoder(torch.from_numpy(samples).to(self.device)[None, None]).relu()
        features = encoded / torch.from_numpy(self._levels(samples, frames)).to(self.device) if self.levels else encoded
        hidden = self._through_layers(features.mT)
        masks = network.limit(network.to_sources(hidden.mT)).unflatten(1, (network.n_src, -1))
        signals = network.decoder((masks * encoded[:, None]).flatten(0, 1))[:, 0]
        signals[:, : self.tail.shape[1]] += self.tail
        done = frames * network.stride
        self.tail = signals[:, done:].clone()
        return signals[:, :done]

    def _through_layers(self, x: Tensor) -> Tensor:
        """All layers on frames `(1, F, channels)`, segment by segment."""
        parts = []
        while x.shape[1]:
            count = min(self.network.chunk - self.frame, x.shape[1])
            part, x = x[:, :count], x[:, count:]
            for layer, state in zip(self.network.segments, self.layers, strict=True):
                part, state.now = layer(part, state.now)
            parts.append(part)
            self.frame += count
            if self.frame == self.network.chunk:
                self._next_segment()
        return torch.cat(parts, 1)

    def _next_segment(self) -> None:
        """The memories take the last states of the layers, and give those that the next layers begin with."""
        self.frame = 0
        first: States | None = None
        for memory, state in zip([*self.network.memories, None], self.layers, strict=True):
            last, state.now = state.now, first
            if memory is None or last is None:
                continue
            hidden, state.hidden = memory.hidden(last[0], state.hidden)
            cell, state.cell = memory.cell(last[1], state.cell)
            first = hidden.contiguous(), cell.contiguous()

    def _levels(self, samples: np.ndarray, frames: int) -> np.ndarray:
        """The level `(frames,)` to which each frame is related: the root of the mean power up to it, decayed."""
        window, stride = self.network.window, self.network.stride
        cut = np.lib.stride_tricks.sliding_window_view(samples, window)[::stride][:frames]
        levels = np.empty(frames, np.float32)
        for n, power in enumerate(np.square(cut, dtype=np.float64).mean(1)):
            self.power = self.kept * self.power + power
            self.weight = self.kept * self.weight + 1
            levels[n] = max(self.power / self.weight, power / _ABOVE, _LEAST) ** 0.5
        return levels


def is_causal(model: SeparationModel) -> bool:
    """Whether a model can be used with `SkiMStream`."""
    return isinstance(model.network, SkiM) and bool(getattr(model.config, "causal", False))
