"""SI-SNRi after some minutes of training on all cores: the demo's recipe, peers of the paper's shape, Asteroid's own training.

Data are a prepared corpus (`recipes/prompts-2mix/run.sh --stop_stage 1`). `demo` is conf/demo.yaml; `paper` has peers with a
learned encoder of window 16 instead, and 4 x 4 s a batch. `asteroid` is Asteroid's DPRNNTasNet with its System on the training
mixtures: 4 x 4 s a batch, Adam at 0.001, halved on a plateau, clip 5, PIT of pairwise SI-SDR. All are validated on cv_seen.
There is a run for each time, as schedules end with it; the epochs that fit are counted from a short timing. The best epoch by
validation is scored on tt_seen and tt_unseen. Killed and started again, finished runs are kept. Nothing else should run on
the machine.

    python tools/bench/time_to_quality.py --data recipes/prompts-2mix/data/prompts --out DIR [--minutes 3 10 30]
"""

import argparse
import csv
import json
import math
import subprocess
import sys
import time
from pathlib import Path

import yaml

RECIPE = Path(__file__).parents[2] / "recipes/prompts-2mix/conf/demo.yaml"
_PEER = {"kind": "dprnn", "window": 16, "chunk": 100, "hidden": 100, "blocks": 3}
PAPER = {"data": {"segment": 4.0, "batch_size": 4}, "peers": [_PEER, _PEER], "fit": {"learning_rate": {"peak": 0.001}}}
CONTENDERS = ("demo", "paper", "asteroid")
TESTS = ("tt_seen", "tt_unseen")
# Training mixtures of an epoch in the runs of sepml: short epochs, so that several fit into the shortest time.
EPOCH = {"demo": 1600, "paper": 200}


def main() -> None:
    """Train what is missing, score it, and print the table; with matplotlib also draw quality.svg."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the prepared corpus")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, nargs="+", default=[3, 10, 30])
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--asteroid-here", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.asteroid_here:
        _train_asteroid(options.data, options.out, options.asteroid_here)
        return
    rows = []
    for name in options.contenders:
        for minutes in options.minutes:
            folder = options.out / f"{name}-{minutes:g}min"
            if not (folder / "result.json").exists():
                started = time.perf_counter()
                model = _train(name, options.data, folder, minutes)
                result = {"trained_min": (time.perf_counter() - started) / 60, **_scores(model, options.data, folder)}
                (folder / "result.json").write_text(json.dumps(result))
            rows.append((name, minutes, json.loads((folder / "result.json").read_text())))
    print("| | minutes | tt_seen, SI-SNRi dB | tt_unseen, SI-SNRi dB |\n|---|---:|---:|---:|")
    for name, minutes, result in rows:
        print(f"| {name} | {minutes:g} | {result['tt_seen']:.2f} | {result['tt_unseen']:.2f} |")
    _plot(rows, options.out / "quality.svg")


def _train(name: str, data: Path, folder: Path, minutes: float) -> Path:
    """Train for so many minutes; the model to score."""
    folder.mkdir(parents=True, exist_ok=True)
    if name == "asteroid":
        words = ["--data", str(data), "--out", str(folder), "--asteroid-here", str(minutes)]
        subprocess.run([sys.executable, __file__, *words], check=True)
        return folder / "model.pth"
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump({"extends": str(RECIPE.resolve()), **(PAPER if name == "paper" else {})}))
    settings = ["--config", str(config), "--data.root", str(data), "--data.dynamic.size", str(EPOCH[name])]
    timing, exp = folder / "timing", folder / "exp"
    _sepml("train", "--exp", str(timing), *settings, "--fit.epochs", "1")
    with (timing / "history.csv").open() as lines:
        step_seconds = EPOCH[name] / float(next(csv.DictReader(lines))["examples_per_s"])
    # The timing's epoch is counted; validation takes at most a tenth of an epoch.
    epochs = max(1, math.floor((minutes * 60 - step_seconds) / (1.1 * step_seconds)))
    _sepml("train", "--exp", str(exp), *settings, "--fit.epochs", str(epochs))
    return exp


def _scores(model: Path, data: Path, folder: Path) -> dict[str, float]:
    """Mean SI-SNRi of a model on the tests, dB."""
    found = {}
    for test in TESTS:
        out = folder / test
        words = ["--model", str(model), "--manifest", str(data / f"wav8k/min/{test}.csv"), "--metrics", "si_snr", "-f"]
        _sepml("evaluate", *words, "--no-save-estimates", "-o", str(out))
        found[test] = json.loads((out / "summary.json").read_text())["mean"]["si_snri"]
    return found


def _sepml(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "sepml", words[0], "-q", *words[1:]], check=True)


def _train_asteroid(data: Path, folder: Path, minutes: float) -> None:
    import pytorch_lightning as pl
    import torch
    from asteroid.engine.system import System
    from asteroid.losses import PITLossWrapper, pairwise_neg_sisdr
    from asteroid.models import DPRNNTasNet
    from torch.utils.data import DataLoader

    torch.manual_seed(0)
    train = DataLoader(_Pairs(data / "wav8k/min/tr.csv", 4.0), batch_size=4, shuffle=True, drop_last=True)
    valid = DataLoader(_Pairs(data / "wav8k/min/cv_seen.csv", None), batch_size=1)
    model = DPRNNTasNet(n_src=2)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=5)
    system = System(model, optimizer, PITLossWrapper(pairwise_neg_sisdr, pit_from="pw_mtx"), train, valid, schedule)
    best = pl.callbacks.ModelCheckpoint(folder, "best", monitor="val_loss", enable_version_counter=False)
    # Validation twice an epoch, of which few fit into the time.
    limits = {"max_time": {"seconds": round(minutes * 60)}, "val_check_interval": 0.5, "num_sanity_val_steps": 0}
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    pl.Trainer(accelerator="cpu", gradient_clip_val=5, callbacks=[best], default_root_dir=folder, **limits, **quiet).fit(system)
    if best.best_model_path:
        system.load_state_dict(torch.load(best.best_model_path, weights_only=False)["state_dict"])
    torch.save(system.model.serialize(), folder / "model.pth")


class _Pairs:
    """Mixtures `(T,)` and sources `(2, T)` of a manifest; random segments of some seconds, or whole."""

    def __init__(self, manifest: Path, segment: float | None) -> None:
        from sepml.speech.data.loaders import Segments, Whole
        from sepml.speech.data.manifest import read_manifest

        mixtures = read_manifest(manifest)
        self.cut = segment is not None
        self.dataset = Segments(mixtures, round(segment * 8000), 8000, 0) if segment else Whole(mixtures, 8000)
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int):
        # An index that is drawn again gives another segment.
        self.epoch += 1
        example = self.dataset[self.epoch, index] if self.cut else self.dataset[index]
        return example[0], example[1]


def _plot(rows: list[tuple[str, float, dict]], file: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name in dict.fromkeys(row[0] for row in rows):
        points = [(minutes, result["tt_unseen"]) for each, minutes, result in rows if each == name]
        axes.plot(*zip(*points, strict=True), "o-", label=name)
    axes.set(xscale="log", xlabel="minutes of training", ylabel="SI-SNRi on unseen speakers, dB")
    axes.legend()
    figure.savefig(file)


if __name__ == "__main__":
    main()
