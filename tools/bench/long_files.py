"""Long conversations separated by `Separator.stream`, beside the best possible order of windows and beside Asteroid.

The mixtures are made by seed from the recorded voices of an utterance table (see conversations.py): half of seen, half of
unseen speakers. One network separates all of them, in the same windows, as
  ours        `Separator.stream`
  oracle      the same windows, levels and joints, the order of each window taken from the references
  asteroid    `LambdaOverlapAdd` with its own defaults and the same window

SI-SNRi is over the whole file with one permutation. Speakers count as swapped in a file if they are so for 20 s of speech on
end: the file is cut into stretches of 10 s in which somebody speaks, a stretch's own permutation is the one of the smaller
squared error, and it is clear if the two errors differ by more than 1 dB (where both outputs hold the same, or one speaks whom
both outputs share, neither order is right). A swap is lasting if at least two clear stretches on end (unclear ones between
them do not count) are against the file's permutation.

    python tools/bench/long_files.py --utterances DIR/utterances.csv --model DIR [--files 20] [--seconds 320] [--seed 0]
        [--segment S] [--overlap F] [--hour]

`--hour` also measures a fresh process on a file of one hour: peak memory (RSS) and time. `--keep DIR` writes the mixtures.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import torch
from conversations import Conversation, cast, conversation
from improvement import in_best_order

from sepml.speech.scoring.ratios import pairwise_si_snr_scores
from sepml.speech.separation import separator as separator_module
from sepml.speech.separation.separator import Separator
from sepml.speech.separation.speaker_order import Evidence, SpeakerOrder
from sepml.speech.separation.stitch import Stitcher
from sepml.speech.separation.window_lengths import OVERLAP, SEGMENT_SECONDS

STRETCH_SECONDS, CLEAR_DB, LASTING = 10.0, 1.0, 2


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--utterances", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--files", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=320.0)
    parser.add_argument("--segment", type=float, default=SEGMENT_SECONDS)
    parser.add_argument("--overlap", type=float, default=OVERLAP)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder to write mixtures and references to")
    parser.add_argument("--hour", action="store_true")
    parser.add_argument("--stream", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stream:
        _stream_file(options.model, options.stream)
        return
    torch.set_num_threads(1)
    voices = cast(options.utterances)
    model = Separator.load(options.model)
    rows = []
    print("| file | voices | ours, dB | oracle, dB | gap, dB | asteroid, dB | swapped stretches: ours | asteroid |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    for number in range(options.files):
        talk = conversation(voices, number, options.seconds, options.seed)
        if options.keep:
            _keep(options.keep, talk)
        rows.append(_row(model, talk, (options.segment, options.overlap)))
        print(rows[-1]["line"], flush=True)
    _summary(rows)
    if options.hour:
        _hour(voices, options)


def _row(model: Separator, talk: Conversation, window: tuple[float, float]) -> dict:
    ests = {
        "ours": model.separate(talk.mixture, talk.rate, *window).numpy(),
        "oracle": _oracle(model, talk, window),
        "asteroid": _asteroid(model, talk, window[0]),
    }
    gained = {name: in_best_order(est, talk.sources, talk.mixture)[1] for name, est in ests.items()}
    swaps = {name: _swaps(est, talk) for name, est in ests.items()}
    gap = gained["oracle"] - gained["ours"]
    cells = [talk.name, talk.split, *(f"{x:.2f}" for x in (gained["ours"], gained["oracle"], gap, gained["asteroid"]))]
    for name in ("ours", "asteroid"):
        wrong, clear, lasting = swaps[name]
        cells.append(f"{wrong} of {clear}{', lasting' if lasting else ''}")
    return {"gained": gained, "swaps": swaps, "split": talk.split, "line": f"| {' | '.join(cells)} |"}


def _summary(rows: list[dict]) -> None:
    for split in ("all", "seen_test", "unseen_test"):
        some = [row for row in rows if split in ("all", row["split"])]
        if not some:
            continue
        mean = {name: np.mean([row["gained"][name] for row in some]) for name in some[0]["gained"]}
        lasting = {name: sum(row["swaps"][name][2] for row in some) for name in some[0]["swaps"]}
        cells = [mean["ours"], mean["oracle"], mean["oracle"] - mean["ours"], mean["asteroid"]]
        counts = [f"{lasting[name]} of {len(some)} files" for name in ("ours", "asteroid")]
        print(f"| mean | {split} | {' | '.join(f'{x:.2f}' for x in cells)} | {' | '.join(counts)} |")


def _swaps(est: np.ndarray, talk: Conversation) -> tuple[int, int, bool]:
    """Stretches against the file's permutation, clear stretches, and whether a swap lasts."""
    block = talk.rate // 10
    blocks = est.shape[1] // block
    active = np.abs(talk.sources[:, : blocks * block]).max(0).reshape(blocks, block).max(1) > 1e-3
    pairs = pairwise_si_snr_scores(est, talk.sources)
    straight = pairs[0, 0] + pairs[1, 1] >= pairs[1, 0] + pairs[0, 1]
    # A stretch ends where ten seconds with speech are full.
    number = np.cumsum(active) // round(STRETCH_SECONDS * 10)
    against: list[bool] = []
    for stretch in range(int(number[-1])):
        where = np.flatnonzero(number == stretch)
        part = slice(where[0] * block, (where[-1] + 1) * block)
        errors = [float(np.sum((est[order, part] - talk.sources[:, part]) ** 2)) for order in ([0, 1], [1, 0])]
        if abs(10 * np.log10(errors[0] / errors[1])) > CLEAR_DB:
            against.append((errors[0] < errors[1]) != straight)
    run = longest = 0
    for wrong in against:
        run = run + 1 if wrong else 0
        longest = max(longest, run)
    return sum(against), len(against), longest >= LASTING


class _Told(SpeakerOrder):
    """Knows the order of every window from the references."""

    def __init__(self, n_src: int, orders: Iterator[tuple[int, ...]]) -> None:
        super().__init__(n_src, 1)
        self.orders = orders

    def push(self, evidence: Evidence) -> list[tuple[int, ...]]:
        return [next(self.orders)]

    def finish(self) -> list[tuple[int, ...]]:
        return []


def _oracle(model: Separator, talk: Conversation, window: tuple[float, float]) -> np.ndarray:
    """The windows of `Separator.stream` with the order in which each correlates best with the references."""

    class Oracle(Stitcher):
        def push(self, begin: int, mixture: np.ndarray, est: np.ndarray) -> Iterator[np.ndarray]:
            like = est @ talk.sources[:, begin : begin + est.shape[1]].T
            order = (0, 1) if like[0, 0] + like[1, 1] >= like[0, 1] + like[1, 0] else (1, 0)
            self.speaker_order = _Told(2, iter([order]))
            yield from super().push(begin, mixture, est)

    separator_module.Stitcher = Oracle
    try:
        return model.separate(talk.mixture, talk.rate, *window).numpy()
    finally:
        separator_module.Stitcher = Stitcher


def _asteroid(model: Separator, talk: Conversation, segment: float) -> np.ndarray:
    from asteroid.dsp.overlap_add import LambdaOverlapAdd

    overlap_add = LambdaOverlapAdd(model.models[0], n_src=2, window_size=round(segment * talk.rate))
    return overlap_add(torch.from_numpy(talk.mixture)[None, None])[0].numpy()


def _keep(folder: Path, talk: Conversation) -> None:
    for part, x in zip(("mix", "s1", "s2"), (talk.mixture, *talk.sources), strict=True):
        (folder / part).mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / part / f"{talk.name}.wav", x, talk.rate, subtype="FLOAT")


def _hour(voices: dict, options: argparse.Namespace) -> None:
    """A fresh process on a file of an hour, which is read and written in blocks."""
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "hour.wav"
        talk = conversation(voices, 0, 3600.0, options.seed)
        soundfile.write(file, talk.mixture, talk.rate, subtype="FLOAT")
        command = [sys.executable, __file__, "--utterances", options.utterances, "--model", options.model, "--stream", file]
        started = time.perf_counter()
        ran = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True)
        seconds = time.perf_counter() - started
    print(f"\nOne hour at {talk.rate} Hz in a fresh process: {ran.stdout.strip()} MB at most, {seconds:.0f} s with start-up")


def _stream_file(folder: Path, file: Path) -> None:
    """Separate a file in blocks next to itself and print the most memory this process has had, MB."""
    model = Separator.load(folder)
    with (
        soundfile.SoundFile(file) as mixture,
        soundfile.SoundFile(file.with_name("est.wav"), "w", mixture.samplerate, 2) as est,
    ):
        for block in model.stream(mixture.blocks(1 << 16, dtype="float32"), mixture.samplerate):
            est.write(block.T)
        assert est.tell() == mixture.frames
    # Not getrusage: its figure includes that of the process which started this one.
    lines = Path("/proc/self/status").read_text().splitlines()
    print(next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM")))


if __name__ == "__main__":
    main()
