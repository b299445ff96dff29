"""The states of a causal SkiM: what its LSTMs have heard."""

from dataclasses import dataclass

import torch
from torch import Tensor

from sepml.speech.models.skim import SkiM, States


@dataclass
class _Layer:
    """The states of a layer: of its LSTM within this segment, and of the LSTMs of the memory behind it."""

    now: States | None = None
    hidden: States | None = None
    cell: States | None = None


class SkiMState:
    """Masks of frames that come in blocks, as those of all frames at once.

    Attributes:
        covers_end: the network pads a mixture to whole windows, so that its last samples are separated, too.
        lead: zeros that it puts before a mixture and behind it, samples.
    """

    covers_end = True

    def __init__(self, network: SkiM) -> None:
        self.network = network
        self.window, self.stride, self.n_src, self.lead = network.window, network.stride, network.n_src, network.lead
        self.layers = [_Layer() for _ in network.segments]
        self.frame = 0

    def encoded(self, samples: Tensor) -> Tensor:
        """Samples `(t,)` to frames `(1, channels, F)`."""
        return self.network.encode(samples[None, None])

    def masks(self, features: Tensor) -> Tensor:
        """Masks `(1, n_src, channels, F)` of the next frames `(1, channels, F)`."""
        hidden = self._through_layers(self.network.features(features).mT)
        return self.network.masks(hidden.mT)

    def decoded(self, frames: Tensor) -> Tensor:
        """Frames `(n_src, channels, F)` to samples `(n_src, t)`."""
        return self.network.decode(frames)[:, 0]

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
