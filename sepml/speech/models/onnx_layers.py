"""Separators rewritten for ONNX: the same weights and the same numbers, in operations that take any length.

Parts of the networks that cannot be exported unchanged: recurrent layers, which the exporter unrolls for one length; unfold
and fold; the STFT; norms that compute their axes from the input; branches on the length.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, conv_transpose1d, pad

from sepml.errors import SepmlError
from sepml.speech.models.dprnn import StftDPRNN
from sepml.speech.models.model import AsteroidModel, SeparationModel
from sepml.speech.models.onnx_files import OPSET

_AXES = {"GlobLN": slice(1, None), "FusedGlobLN": slice(1, None), "FeatsGlobLN": slice(2, None), "ChanLN": slice(1, 2)}


class Exportable(nn.Module):
    """A separator with the same outputs as `model`, for mixtures (B, T) of at least one sample.

    Raises:
        SepmlError: a part of the model cannot be exported.
    """

    def __init__(self, model: SeparationModel) -> None:
        super().__init__()
        self.window = model.config.window
        self.levels = not isinstance(model, AsteroidModel)
        network: Any = _rewritten(copy.deepcopy(model.network).cpu())
        self.network: nn.Module = Stft(network) if isinstance(model.network, StftDPRNN) else LearnedFilters(network)

    def forward(self, mixture: Tensor) -> Tensor:
        """Separate: `(B, T)` to `(B, n_src, T)`."""
        length = mixture.shape[-1]
        x, level = mixture, None
        if self.levels:
            level = mixture.square().mean(-1, keepdim=True).sqrt().clamp_min(1e-8)
            x = mixture / level
        est = self.network(pad(x, (0, torch.sym_max(self.window - length, 0))))[..., :length]
        return est if level is None else est * level[:, None]


class LearnedFilters(nn.Module):
    """Asteroid's encoder, masks and decoder."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        padder = type(network.encoder).__name__ == "_Padder"
        self.multiple: int = network.encoder.lcm if padder else 1
        self.encoder = network.encoder.encoder if padder else network.encoder
        self.activation, self.masker, self.decoder = network.enc_activation, _masker(network.masker), network.decoder

    def forward(self, mixture: Tensor) -> Tensor:
        """Separate: `(B, T)` to `(B, n_src, T)`."""
        length = mixture.shape[-1]
        x = pad(mixture[:, None], (0, -length % self.multiple)) if self.multiple > 1 else mixture[:, None]
        encoded = self.activation(self.encoder(x))
        est = self.decoder(self.masker(encoded) * encoded[:, None])
        return pad(est, (0, torch.sym_max(length - est.shape[-1], 0)))[..., :length]


class Stft(nn.Module):
    """`StftDPRNN` with both transforms as convolutions with fixed kernels."""

    def __init__(self, network: StftDPRNN) -> None:
        super().__init__()
        self.analysis: Tensor
        self.synthesis: Tensor
        self.weight: Tensor
        self.masker, self.size, self.stride = _masker(network.masker), network.window_length, network.stride
        window = network.window.double()
        # Row k of the first computes bin k of a frame; row k of the second is the signal of bin k.
        identity = torch.eye(self.size, dtype=torch.float64)
        analysis = torch.fft.rfft(identity).T * window
        bins = torch.eye(self.size // 2 + 1, dtype=torch.complex128)
        synthesis = torch.cat([torch.fft.irfft(bins, self.size), torch.fft.irfft(1j * bins, self.size)]) * window
        self.register_buffer("analysis", torch.cat([analysis.real, analysis.imag])[:, None].float())
        self.register_buffer("synthesis", synthesis[:, None].float())
        self.register_buffer("weight", window.square()[None, None].float())

    def forward(self, mixture: Tensor) -> Tensor:
        """Separate: `(B, T)` to `(B, n_src, T)`."""
        length, half = mixture.shape[-1], self.size // 2
        whole = pad(mixture, (0, -length % self.stride))
        spectrum = conv1d(pad(whole[:, None], (half, half), mode="reflect"), self.analysis, stride=self.stride)
        real, imaginary = spectrum.chunk(2, dim=1)
        magnitude = (real.square() + imaginary.square()).sqrt()
        masks = self.masker(magnitude.clamp_min(1e-5).pow(0.3))
        # One signal a source: both parts of the spectrum under its mask.
        masked = torch.cat([masks * real[:, None], masks * imaginary[:, None]], dim=2)
        signals = conv_transpose1d(masked.flatten(0, 1), self.synthesis, stride=self.stride)
        overlaps = conv_transpose1d(torch.ones_like(spectrum[:1, :1]), self.weight, stride=self.stride)
        signals = (signals / overlaps.clamp_min(1e-11))[:, 0, half : half + length]
        return signals.reshape(masks.shape[0], masks.shape[1], length)


class Chunks(nn.Module):
    """Frames to overlapping chunks and back, as `unfold` and `fold` do with a chunk of zeros at each end."""

    def __init__(self, size: int, stride: int) -> None:
        super().__init__()
        self.identity: Tensor
        self.within: Tensor
        if stride > size:
            raise SepmlError(f"chunks of {size} frames that are {stride} apart cannot be exported, as they leave frames out")
        self.size, self.stride = size, stride
        self.register_buffer("identity", torch.eye(size)[:, None])
        self.register_buffer("within", torch.arange(size)[:, None])

    def split(self, x: Tensor) -> Tensor:
        """(B, N, frames) to (B, N, size, n_chunks)."""
        starts = torch.arange((x.shape[-1] + self.size) // self.stride + 1, device=x.device) * self.stride
        return pad(x, (self.size, self.size))[:, :, self.within + starts]

    def join(self, x: Tensor, frames: int) -> Tensor:
        """(B, N, size, n_chunks) to (B, N, frames): where chunks overlap they are added."""
        joined = conv_transpose1d(x.flatten(0, 1), self.identity, stride=self.stride)
        return joined[:, 0, self.size : self.size + frames].reshape(x.shape[0], x.shape[1], frames)


class DualPath(nn.Module):
    """One of Asteroid's maskers that compute in chunks."""

    def __init__(self, masker: Any) -> None:
        super().__init__()
        self.masker: Any = masker
        self.chunks = Chunks(masker.chunk_size, masker.hop_size)


class DualPathRNN(DualPath):
    """The masks of Asteroid's `DPRNN`."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, frames) to (B, n_src, out_chan, frames)."""
        its, (batch, _, frames) = self.masker, x.shape
        chunks = its.first_out(its.net(self.chunks.split(its.bottleneck(x))))
        joined = self.chunks.join(chunks.reshape(batch * its.n_src, its.bn_chan, its.chunk_size, -1), frames)
        masks = its.output_act(its.mask_net(its.net_out(joined) * its.net_gate(joined)))
        return masks.reshape(batch, its.n_src, its.out_chan, frames)


class DualPathTransformer(DualPath):
    """The masks of Asteroid's `DPTransformer`."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, frames) to (B, n_src, N, frames)."""
        its, (batch, _, frames) = self.masker, x.shape
        if its.input_layer is not None:
            x = its.input_layer(x.transpose(1, 2)).transpose(1, 2)
        x = self.chunks.split(its.in_norm(x))
        for intra, inter in its.layers:
            x = its.ola.inter_process(its.ola.intra_process(x, intra), inter)
        x = its.first_out(x).reshape(batch * its.n_src, its.in_chan, its.chunk_size, -1)
        joined = self.chunks.join(x, frames) / (its.chunk_size / self.chunks.stride)
        joined = its.net_out(joined) * its.net_gate(joined)
        return its.output_act(joined.reshape(batch, its.n_src, its.in_chan, frames))


class OnnxLSTM(nn.Module):
    """An LSTM (batch first) as the operator of ONNX; outside an export, PyTorch's layer computes."""

    def __init__(self, layer: nn.LSTM) -> None:
        super().__init__()
        self.layer, self.ways = layer, 2 if layer.bidirectional else 1
        for index in range(layer.num_layers):
            names = [f"l{index}{way}" for way in ("", "_reverse")[: self.ways]]
            biases = [torch.cat([self._gates("bias_ih_", name), self._gates("bias_hh_", name)]) for name in names]
            self.register_buffer(f"w{index}", torch.stack([self._gates("weight_ih_", name) for name in names]))
            self.register_buffer(f"r{index}", torch.stack([self._gates("weight_hh_", name) for name in names]))
            self.register_buffer(f"b{index}", torch.stack(biases))

    def _gates(self, of: str, name: str) -> Tensor:
        """Weights in ONNX's order of the gates."""
        entry, forget, cell, output = getattr(self.layer, of + name).detach().chunk(4)
        return torch.cat([entry, output, forget, cell])

    def flatten_parameters(self) -> None:
        """Called by Asteroid; there is nothing to do."""

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        """(B, T, features) to (B, T, units)."""
        if not torch.compiler.is_exporting():
            return self.layer(x)[0], None
        units, way = self.layer.hidden_size, "bidirectional" if self.ways == 2 else "forward"
        x = x.transpose(0, 1)
        for index in range(self.layer.num_layers):
            weights = [getattr(self, f"{name}{index}") for name in "wrb"]
            shape = (x.shape[0], self.ways, x.shape[1], units)
            attributes: dict[str, Any] = {"hidden_size": units, "direction": way}
            y = torch.onnx.ops.symbolic("LSTM", (x, *weights), attributes, dtype=x.dtype, shape=shape, version=OPSET)
            x = y.transpose(1, 2).reshape(shape[0], shape[2], self.ways * units)
        return x.transpose(0, 1), None


class Norm(nn.Module):
    """Asteroid's `GlobLN`, `FeatsGlobLN` and `ChanLN`: mean 0 and variance 1 over an example, a feature of it, a frame."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm: Any = norm
        self.axes = _AXES[type(norm).__name__]

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, ...) to the same shape."""
        axes = list(range(x.ndim))[self.axes]
        centred = x - x.mean(axes, keepdim=True)
        return self.norm.apply_gain_and_bias(centred / _deviation(centred.square().mean(axes, keepdim=True)))


class CumulativeNorm(nn.Module):
    """Asteroid's `CumLN`: mean 0 and variance 1 over all frames up to this one; sums of minutes need 64 bits."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm: Any = norm

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, frames) to the same shape."""
        counts = torch.arange(1, x.shape[-1] + 1, device=x.device) * x.shape[1]
        mean = x.sum(1, keepdim=True).double().cumsum(-1) / counts
        variance = x.square().sum(1, keepdim=True).double().cumsum(-1) / counts - mean.square()
        return self.norm.apply_gain_and_bias((x - mean.to(x)) / _deviation(variance.clamp_min(0)).to(x))


def _deviation(variance: Tensor) -> Tensor:
    """sqrt(variance + 1e-8), scaled: else the exporter's optimiser drops the small term, and silence gives nan."""
    return (variance * 1e8 + 1).sqrt() * 1e-4


def _masker(masker: nn.Module) -> nn.Module:
    kinds: dict[str, Any] = {"DPRNN": DualPathRNN, "FusedDPRNN": DualPathRNN, "DPTransformer": DualPathTransformer}
    return kinds.get(type(masker).__name__, lambda same: same)(masker)


def _rewritten(module: nn.Module) -> nn.Module:
    """The module with its recurrent layers and norms replaced at every depth."""
    for name, child in module.named_children():
        if (kind := type(child).__name__) in (*_AXES, "CumLN", "WideCumLN"):
            setattr(module, name, Norm(child) if kind in _AXES else CumulativeNorm(child))
        elif isinstance(child, nn.LSTM):
            setattr(module, name, OnnxLSTM(child))
        elif isinstance(child, nn.RNNBase):
            raise SepmlError(f"recurrent layers of kind {kind} cannot be exported, only LSTM")
        else:
            _rewritten(child)
    return module
