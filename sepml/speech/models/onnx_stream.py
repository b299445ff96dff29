"""Causal networks as one step, for ONNX: a block of samples and a state in, a block of each source and the next state out.

A step has one frame of the encoder; all that a network has heard is in the state. The arithmetic is that of `CausalStream`.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, linear

from sepml.speech.models.causal_stream import ABOVE, LEAST, frame_state_of, kept_of
from sepml.speech.models.model import SeparationModel

Shape = tuple[int, ...]
Parts = list[Tensor]
"""Of a state, in the shapes of the module that they belong to."""


class Step(nn.Module):
    """One step of a causal network.

    Attributes:
        block: samples of a step. behind: how many samples the estimates are behind the mixture.
        size: of the state `(size,)`, which is zeros at the beginning.

    Raises:
        SepmlError: a network that is not causal.
    """

    def __init__(self, model: SeparationModel) -> None:
        super().__init__()
        # Of it only what has no state: from samples to frames, and back.
        self.frames = frame_state_of(model)
        self.masks: Any = _SkiMStep(model.network) if model.config.kind == "skim" else _ConvTasNetStep(model.network)
        self.block, self.behind = self.frames.stride, self.frames.window - self.frames.stride
        self.kept = kept_of(model.config.sample_rate, self.block)
        heard, tail = (self.behind,), (self.frames.n_src, self.behind)
        self.shapes: list[Shape] = [heard, tail, (1,), (1,), *self.masks.shapes]
        self.size = sum(torch.Size(shape).numel() for shape in self.shapes)

    def forward(self, samples: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """The next samples `(block,)` of a mixture and a state to estimates `(n_src, block)` and the next state."""
        sizes = [torch.Size(shape).numel() for shape in self.shapes]
        parts = [part.view(shape) for part, shape in zip(state.split(sizes), self.shapes, strict=True)]
        before, tail, power, weight = parts[:4]
        heard = torch.cat([before, samples])
        now = heard.square().mean()
        power, weight = self.kept * power + now, self.kept * weight + 1
        level = torch.maximum(power / weight, now / ABOVE).clamp_min(LEAST).sqrt()
        encoded = self.frames.encoded(heard)
        masks, rest = self.masks(encoded / level, parts[4:])
        signals = self.frames.decoded((masks * encoded[:, None])[0])
        signals = torch.cat([signals[:, : self.behind] + tail, signals[:, self.behind :]], 1)
        later = [heard[self.block :], signals[:, self.block :], power, weight, *rest]
        return signals[:, : self.block], torch.cat([part.flatten() for part in later])


class _SkiMStep(nn.Module):
    """Masks `(1, n_src, bins, 1)` of a frame `(1, bins, 1)`, by a causal SkiM."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        hidden = network.segments[0].lstm.hidden_size
        layers, memories = len(network.segments), len(network.memories)
        # The frame within the segment, from 0; hidden and cell states of the layers, and of the memories' two LSTMs.
        self.shapes: list[Shape] = [(1,), *[(1, hidden)] * (2 * layers + 4 * memories)]

    def forward(self, frame: Tensor, parts: Parts) -> tuple[Tensor, Parts]:
        """Masks and the next parts."""
        network, x = self.network, self.network.features(frame)[..., 0]
        count, layers = parts[0], len(network.segments)
        now = _pairs(parts[1 : 1 + 2 * layers])
        memories = _pairs(parts[1 + 2 * layers :])
        for n, layer in enumerate(network.segments):
            x, now[n] = _residual(layer, x, now[n])
        ends = count + 1 >= network.chunk
        first = [torch.zeros_like(part) for part in now[0]]
        after: list[Parts] = []
        for n in range(layers):
            after.append([torch.where(ends, begun, going) for begun, going in zip(first, now[n], strict=True)])
            if n < len(network.memories):
                memory, kept = network.memories[n], memories[2 * n : 2 * n + 2]
                found = [_residual(part, now[n][k], kept[k]) for k, part in enumerate((memory.hidden, memory.cell))]
                first = [value for value, _ in found]
                for k, (_, later) in enumerate(found):
                    memories[2 * n + k] = [torch.where(ends, b, a) for a, b in zip(kept[k], later, strict=True)]
        next_count = torch.where(ends, torch.zeros_like(count), count + 1)
        masks = network.masks(x[..., None])
        return masks, [next_count, *_flat(after), *_flat(memories)]


def _residual(layer: Any, x: Tensor, states: Parts) -> tuple[Tensor, Parts]:
    """A layer of SkiM on one step `(1, channels)`."""
    lstm, (hidden, cell) = layer.lstm, states
    gates = linear(x, lstm.weight_ih_l0, lstm.bias_ih_l0) + linear(hidden, lstm.weight_hh_l0, lstm.bias_hh_l0)
    entry, forget, new, out = gates.chunk(4, 1)
    cell = forget.sigmoid() * cell + entry.sigmoid() * new.tanh()
    hidden = out.sigmoid() * cell.tanh()
    return x + layer.norm(layer.projection(hidden)), [hidden, cell]


def _pairs(parts: Parts) -> list[Parts]:
    return [parts[n : n + 2] for n in range(0, len(parts), 2)]


def _flat(pairs: Iterable[Parts]) -> Parts:
    return [part for pair in pairs for part in pair]


class _ConvTasNetStep(nn.Module):
    """Masks `(1, n_src, channels, 1)` of a frame `(1, channels, 1)`, by a causal Conv-TasNet."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.masker = network.masker
        # Frames so far; the means of each norm, of values and of squares; the frames that each convolution still needs.
        pasts = [self._past(block) for block in self.masker.TCN]
        self.shapes: list[Shape] = [(1,), *[(2,)] * (1 + 2 * len(pasts)), *pasts]

    @staticmethod
    def _past(block: Any) -> Shape:
        depth = block.shared_block[3][0]
        return 1, depth.in_channels, depth.padding[0]

    def forward(self, frame: Tensor, parts: Parts) -> tuple[Tensor, Parts]:
        """Masks and the next parts."""
        masker, count = self.masker, parts[0] + 1
        blocks = len(masker.TCN)
        means, pasts = parts[1 : 2 + 2 * blocks], parts[2 + 2 * blocks :]
        later_means: Parts = []

        def normed(norm: Any, x: Tensor) -> Tensor:
            old = means[len(later_means)]
            new = old + (torch.stack([x.mean(), x.square().mean()]) - old) / count
            later_means.append(new)
            deviation = ((new[1] - new[0].square()).clamp_min(0) * 1e8 + 1).sqrt() * 1e-4
            value: Tensor = norm.apply_gain_and_bias((x - new[0]) / deviation)
            return value

        norm, bottleneck = masker.bottleneck
        x, skipped, later_pasts = bottleneck(normed(norm, frame)), torch.zeros(()), []
        for block, past in zip(masker.TCN, pasts, strict=True):
            into, bend, norm, depth, bend_again, norm_again = block.shared_block
            hidden = torch.cat([past, normed(norm, bend(into(x)))], -1)
            later_pasts.append(hidden[..., 1:])
            hidden = conv1d(hidden, depth[0].weight, depth[0].bias, dilation=depth[0].dilation, groups=depth[0].groups)
            hidden = normed(norm_again, bend_again(hidden))
            x, skipped = x + block.res_conv(hidden), skipped + block.skip_conv(hidden)
        masks = masker.output_act(masker.mask_net(skipped).unflatten(1, (masker.n_src, -1)))
        return masks, [count, *later_means, *later_pasts]
