"""Trains the network that tells voices apart (`sepml.speech.separation.voice_embedding`) on the speakers of an utterance table.

    python tools/train_voice_embedding.py UTTERANCES OUT [--steps 6000] [--seed 0]

Every speaker of the split `train` becomes several voices, by changes of speed and formants; what they say is put into rooms,
noise and telephones. The network learns to tell these voices apart from 0.8 to 2 s (additive margin softmax, Wang et al.,
2018). It takes about 11 minutes of one core. OUT is a file of float16 weights (.safetensors).
"""

import argparse
import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
import soundfile
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from sepml.speech.audio.signals import active_level
from sepml.speech.data.augment import Augment, VirtualVoice
from sepml.speech.data.channels import Band, Equaliser, MuLaw
from sepml.speech.data.effects import Scene
from sepml.speech.data.rooms_and_noise import Coloured, Room
from sepml.speech.separation.voice_embedding import EMBEDDING_RATE, VoiceEmbedding
from sepml.speech.separation.voice_statistics import CEPSTRA, cepstra_of, dominance, frame_bands

VOICES = [
    VirtualVoice(percent, 1.0, formants) for percent, formants in
    ((100, 1.0), (85, 1.0), (92, 1.0), (109, 1.0), (118, 1.0), (100, 0.9), (100, 1.12), (92, 1.1), (109, 0.92))
]  # fmt: skip
SURROUNDINGS = Augment(
    room=Room(0.4), coloured=Coloured(0.6, snr_db=(8, 35)), equaliser=Equaliser(0.4), band=Band(0.2), mu_law=MuLaw(0.1)
)
SECONDS, FEWEST_FRAMES = 360.0, 1500
BATCH, FRAMES, SCALE, MARGIN, OFFSET = 96, (50, 130), 20.0, 0.2, 0.25
PEAK_RATE, DECAY = 3e-3, 1e-2


def main() -> None:
    """Make the features, train, and write the weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("utterances", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(options.seed)
    voices = [(who, cepstra) for who, files in sorted(speakers(options.utterances).items()) for cepstra in features(files, rng)]
    voices = [(who, cepstra) for who, cepstra in voices if len(cepstra) >= FEWEST_FRAMES]
    print(f"{len({who for who, _ in voices})} speakers, {len(voices)} voices", flush=True)
    torch.manual_seed(options.seed)
    network = train(
        [cepstra for _, cepstra in voices], np.unique([who for who, _ in voices], return_inverse=True)[1], rng, options.steps
    )
    weights = {name: value.half() if value.is_floating_point() else value for name, value in network.state_dict().items()}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in weights.items()}, options.out)


def speakers(table: Path) -> dict[str, list[Path]]:
    """The training utterances of each speaker."""
    found = defaultdict(list)
    with table.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["split"] == "train":
                found[row["speaker"]].append(table.parent / row["file"])
    return found


def features(files: list[Path], rng: np.random.Generator) -> list[np.ndarray]:
    """The cepstra (F, CEPSTRA) of a speaker in each voice, of frames with speech."""
    spoken, seconds = [], 0.0
    for file in (files[i] for i in rng.permutation(len(files))):
        signal, rate = soundfile.read(file, dtype="float32")
        level = active_level(signal, rate)
        if rate == EMBEDDING_RATE and level > 0 and seconds < SECONDS:
            spoken.append((0.05 / np.sqrt(level) * signal).astype(np.float32))
            seconds += len(signal) / rate
    return [np.concatenate([_cepstra(voice(signal, EMBEDDING_RATE), rng) for signal in spoken]) for voice in VOICES]


def _cepstra(signal: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    scene = Scene(signal[None].astype(np.float32), EMBEDDING_RATE, rng, lambda *_: np.zeros((0, len(signal)), np.float32), [])
    mixture, _ = SURROUNDINGS(scene)
    energy, bands = frame_bands(mixture[None].astype(np.float32), EMBEDDING_RATE)
    loud = float(np.quantile(energy, 0.9))
    return cepstra_of(bands[0], loud)[dominance(energy, loud)[0] > 0].astype(np.float32)


def train(voices: list[np.ndarray], speaker: np.ndarray, rng: np.random.Generator, steps: int) -> VoiceEmbedding:
    """The trained network; speakers are drawn equally often, and then one of their voices."""
    network = VoiceEmbedding()
    sample = np.concatenate([cepstra[::50] for cepstra in voices])
    network.mean.copy_(torch.from_numpy(sample.mean(0)))
    network.deviation.copy_(torch.from_numpy(sample.std(0)))
    classes = nn.Parameter(0.1 * torch.randn(len(voices), network.out.out_features))
    optimizer = torch.optim.AdamW([*network.parameters(), classes], weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, steps)
    of_speaker = [np.flatnonzero(speaker == who) for who in range(speaker.max() + 1)]
    spread = sample.std(0)
    right = 0.0
    for step in range(1, steps + 1):
        length = int(rng.integers(*FRAMES))
        drawn = np.array([rng.choice(of_speaker[rng.integers(len(of_speaker))]) for _ in range(BATCH)])
        begins = [int(rng.integers(len(voices[k]) - length)) for k in drawn]
        batch = np.stack([voices[k][begin : begin + length] for k, begin in zip(drawn, begins, strict=True)])
        # Microphones differ by a constant in each cepstrum.
        batch += (OFFSET * rng.standard_normal((BATCH, 1, CEPSTRA)) * spread).astype(np.float32)
        cosines = network(torch.from_numpy(batch)) @ functional.normalize(classes, dim=1).T
        wanted = torch.from_numpy(drawn)
        margin = MARGIN * min(1.0, 3 * step / steps) * functional.one_hot(wanted, len(voices))
        loss = functional.cross_entropy(SCALE * (cosines - margin), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        right += float((cosines.argmax(1) == wanted).float().mean())
        if step % 500 == 0:
            print(f"{step}: loss {loss.item():.2f}, {100 * right / 500:.0f} % right", flush=True)
            right = 0.0
    return network.eval()


if __name__ == "__main__":
    main()
