"""Recognises the voices of a recording by a small network that is trained on this recording alone."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sepml.speech.separation.voice_statistics import CEPSTRA, cepstra_of, dominance, frame_bands, frame_step

_CONTEXT = 5
"""Frames before and after a frame from which its voice is recognised."""
_FOLD_FRAMES, _FOLDS = 600, 4
_STEPS, _BATCH, _HIDDEN = 200, 256, 64
_DROPPED_INPUTS, _DROPPED_HIDDEN, _SMOOTHING = 0.1, 0.3, 0.1
_LEARNING_RATE, _DECAY = 3e-3, 0.05
_FRAME_WEIGHT, _SUREST = 0.15, 0.75
"""Weight of a frame's log-likelihood, because neighbouring frames are not independent, and its limit."""


@dataclass(frozen=True)
class VoiceFrames:
    """What is known of the frames of a mixture and its estimates.

    Attributes:
        loudest: (F,) the estimate with the most energy.
        weight: (F,) how much it dominates, from 0 to 1.
        energy: (F,) of all estimates together, relative to loud frames.
        cepstra: (n_src + 1, F, CEPSTRA) float32 of the estimates and, last, of the mixture.
    """

    loudest: np.ndarray
    weight: np.ndarray
    energy: np.ndarray
    cepstra: np.ndarray

    @classmethod
    def of(cls, mixture: np.ndarray, ests: np.ndarray, sample_rate: int) -> "VoiceFrames":
        """The frames of a mixture (T,) and its estimates (n_src, T); frame n begins at n times `frame_step`."""
        step = frame_step(sample_rate)
        energies, cepstra = [], []
        loud = 0.0
        # One signal at a time, as the bands take much memory; the mixture first.
        for signal in (mixture, *ests):
            # As many frames as begin within the signal.
            energy, bands = frame_bands(np.pad(signal, (0, 2 * step))[None], sample_rate)
            loud = loud or float(np.quantile(energy, 0.9))
            energies.append(energy[0])
            cepstra.append(cepstra_of(bands[0], loud).astype(np.float32))
        of_ests = np.stack(energies[1:])
        weight, total = dominance(of_ests, loud), of_ests.sum(0) / max(loud, np.finfo(float).tiny)
        frames = cls(weight.argmax(0), weight.max(0), total, np.stack([*cepstra[1:], cepstra[0]]))
        return frames.part(slice(0, -(-mixture.size // step)))

    @classmethod
    def none(cls, n_src: int) -> "VoiceFrames":
        """No frames."""
        return cls(np.zeros(0, int), np.zeros(0), np.zeros(0), np.zeros((n_src + 1, 0, CEPSTRA), np.float32))

    def __len__(self) -> int:
        return len(self.loudest)

    def part(self, part: slice) -> "VoiceFrames":
        """Some of the frames."""
        return VoiceFrames(self.loudest[part], self.weight[part], self.energy[part], self.cepstra[:, part])

    def then(self, later: "VoiceFrames") -> "VoiceFrames":
        """These frames, and those that follow them."""
        return VoiceFrames(
            np.concatenate([self.loudest, later.loudest]),
            np.concatenate([self.weight, later.weight]),
            np.concatenate([self.energy, later.energy]),
            np.concatenate([self.cepstra, later.cepstra], axis=1),
        )


def recognise_voices(frames: VoiceFrames, voices: np.ndarray) -> np.ndarray:
    """Log-likelihoods (F, n_src) of the voices in each frame, after training on these frames and the voices (F,) they may have.

    A frame is recognised by a network that was not trained on the segment in which it lies (cross-fitting), so that wrong
    labels are not learnt by heart; from the estimate that dominates it, and from the mixture. Voices are drawn equally often.
    """
    n_src = len(frames.cepstra) - 1
    folds = np.arange(len(frames)) // _FOLD_FRAMES % _FOLDS
    signals = _standardised(frames)
    with torch.inference_mode(False), torch.enable_grad():
        networks = _trained(frames, signals, torch.from_numpy(voices), torch.from_numpy(folds), n_src)
    found = np.zeros((len(frames), n_src), np.float32)
    for fold in range(_FOLDS):
        where = torch.from_numpy(np.flatnonzero(folds == fold))
        network = [weights[fold].detach() for weights in networks]
        for signal in (torch.from_numpy(frames.loudest)[where], torch.full_like(where, n_src)):
            likelihoods = torch.log_softmax(_logits(network, _in_context(signals, signal, where)), -1)
            centred = likelihoods - likelihoods.mean(-1, keepdim=True)
            found[where] += centred.clamp(-_SUREST, _SUREST).numpy()
    return _FRAME_WEIGHT * found


def _standardised(frames: VoiceFrames) -> Tensor:
    """The cepstra, with mean 0 and deviation 1 over the frames of the estimates that dominate."""
    spoken = np.take_along_axis(frames.cepstra, frames.loudest[None, :, None], axis=0)[0]
    mean = np.average(spoken, axis=0, weights=frames.weight)
    deviation = np.sqrt(np.average(np.square(spoken - mean), axis=0, weights=frames.weight)) + 1e-3
    return torch.from_numpy(((frames.cepstra - mean) / deviation).astype(np.float32))


def _in_context(signals: Tensor, signal: Tensor, frame: Tensor) -> Tensor:
    """The features (..., D) of frames of signals, with those of their neighbours."""
    offsets = torch.arange(-_CONTEXT, _CONTEXT + 1)
    around = (frame[..., None] + offsets).clamp(0, signals.shape[1] - 1)
    return signals[signal[..., None], around].flatten(-2)


def _logits(network: list[Tensor], features: Tensor, kept: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """One hidden layer; `kept` are factors of its inputs and its units in training (dropout)."""
    first, bias, second, shift = network
    hidden = torch.relu((features if kept is None else features * kept[0]) @ first + bias)
    return (hidden if kept is None else hidden * kept[1]) @ second + shift


def _trained(frames: VoiceFrames, signals: Tensor, voices: Tensor, folds: Tensor, n_src: int) -> list[Tensor]:
    """The weights of a network for each fold, trained on the frames of the others."""
    random = torch.Generator().manual_seed(0)
    inputs = (2 * _CONTEXT + 1) * CEPSTRA
    shapes = ((inputs, _HIDDEN), (1, _HIDDEN), (_HIDDEN, n_src), (1, n_src))
    # Uniform weights as those of `nn.Linear`.
    bounds = (inputs**-0.5, inputs**-0.5, _HIDDEN**-0.5, _HIDDEN**-0.5)
    networks = [
        ((2 * torch.rand(_FOLDS, *shape, generator=random) - 1) * bound).requires_grad_()
        for shape, bound in zip(shapes, bounds, strict=True)
    ]
    optimizer = torch.optim.AdamW(networks, lr=_LEARNING_RATE, weight_decay=_DECAY)
    weight = torch.from_numpy(frames.weight).float()
    weight = weight / torch.bincount(voices, weight, n_src).clamp(min=1e-6)[voices]
    chances = weight * (folds != torch.arange(_FOLDS)[:, None])
    loudest = torch.from_numpy(frames.loudest)
    for _ in range(_STEPS):
        frame = torch.multinomial(chances, _BATCH, replacement=True, generator=random)
        of_mixture = torch.rand(frame.shape, generator=random) < 0.5
        features = _in_context(signals, torch.where(of_mixture, n_src, loudest[frame]), frame)
        kept = _kept((_FOLDS, 1, inputs), _DROPPED_INPUTS, random), _kept((_FOLDS, _BATCH, _HIDDEN), _DROPPED_HIDDEN, random)
        logits = _logits(networks, features, kept).flatten(0, 1)
        # The networks share nothing: the sum of their losses trains each as its own would.
        loss = _FOLDS * functional.cross_entropy(logits, voices[frame].flatten(), label_smoothing=_SMOOTHING)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return networks


def _kept(shape: tuple[int, ...], dropped: float, random: torch.Generator) -> Tensor:
    return (torch.rand(shape, generator=random) >= dropped).float() / (1 - dropped)
