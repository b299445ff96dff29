"""SI-SNRi after some minutes of training: the demo's recipe, a peer of the paper's shape, Asteroid's own training.

Data are a prepared corpus (`recipes/prompts-2mix/run.sh --stop_stage 1`). `demo` is conf/demo.yaml; `paper` is one DPRNN of
the paper's size with window 16 on the same dynamic mixtures, 4 x 4 s a batch. `asteroid` is Asteroid's DPRNNTasNet of the same
size with its System on the training mixtures: 4 x 4 s a batch, Adam at 0.001, halved on a plateau, clip 5, PIT of pairwise
SI-SDR; `asteroid-default` is its DPRNNTasNet of the default size (6 blocks of 128 units). All are validated on the first
mixtures of cv_seen; the best epoch by that is scored on tt_seen and tt_unseen.

The first part times a training step of each on all cores; nothing else should run on the machine. It turns minutes into a
number of steps, so that the runs of the second part give the same result however long they take, beside other work too.
Validation and what comes before the first step are not counted. There is a run for each time, as schedules end with it. Started
again, what is finished is kept.

    python tools/bench/time_to_quality.py --data recipes/prompts-2mix/data/prompts --out DIR [--minutes 3 10 30] [--only-timing]
"""

import argparse
import csv
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import yaml

RECIPE = Path(__file__).parents[2] / "recipes/prompts-2mix/conf/demo.yaml"
PAPER = {
    "data": {"segment": 4.0, "batch_size": 4},
    "peers": [{"kind": "dprnn", "window": 16, "chunk": 100, "hidden": 100, "blocks": 3}],
    "cohort": {"mechanism": "solo"},
    "fit": {"learning_rate": {"peak": 0.001}},
}
NETWORKS = {"asteroid": {"bn_chan": 64, "hid_size": 100, "n_repeats": 3}, "asteroid-default": {}}
BATCH = {"demo": 16, "paper": 4, "asteroid": 4, "asteroid-default": 4}
# Steps of the timing: 25 s or more, and twice as many.
TIMED = {"demo": 400, "paper": 40, "asteroid": 10, "asteroid-default": 10}
VALIDATION = 50
TESTS = ("tt_seen", "tt_unseen")


def main() -> None:
    """Time and train what is missing, score it, and print the table; with matplotlib also draw quality.svg."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the prepared corpus")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, nargs="+", default=[3, 10, 30])
    parser.add_argument("--contenders", nargs="+", choices=BATCH, default=["demo", "paper", "asteroid"])
    parser.add_argument("--only-timing", action="store_true", help="time what is not timed yet, and stop")
    parser.add_argument("--asteroid-network", choices=NETWORKS, help=argparse.SUPPRESS)
    parser.add_argument("--asteroid-steps", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--asteroid-epochs", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if network := options.asteroid_network:
        _train_asteroid(NETWORKS[network], options.data, options.out, options.asteroid_steps, options.asteroid_epochs)
        return
    timings = {name: _kept(options.out / f"{name}-timing.json", _time, name, options.data) for name in options.contenders}
    for name, timing in timings.items():
        print(f"{name}: {timing['step_s']:.3f} s a step of {BATCH[name]}")
    if options.only_timing:
        return
    rows = []
    for minutes in options.minutes:
        for name in options.contenders:
            result = _kept(options.out / f"{name}-{minutes:g}min.json", _run, name, options.data, minutes, timings[name])
            rows.append((name, minutes, result))
    print("| | minutes | examples | tt_seen, SI-SNRi dB | tt_unseen, SI-SNRi dB |\n|---|---:|---:|---:|---:|")
    for name, minutes, result in sorted(rows, key=lambda row: (list(BATCH).index(row[0]), row[1])):
        print(f"| {name} | {minutes:g} | {result['examples']} | {result['tt_seen']:.2f} | {result['tt_unseen']:.2f} |")
    _plot(rows, options.out / "quality.svg")


def _kept(file: Path, make, *words) -> dict:
    """What a JSON file holds, made and written first where it does not exist."""
    if not file.exists():
        found = make(file.with_suffix(""), *words)
        file.write_text(json.dumps(found))
    return json.loads(file.read_text())


def _time(folder: Path, name: str, data: Path) -> dict[str, float]:
    """Seconds of a step: the difference between two trainings."""
    # A training that goes on, or is complete, would look fast.
    shutil.rmtree(folder, ignore_errors=True)
    seconds = []
    for steps in (TIMED[name], 2 * TIMED[name]):
        started = time.perf_counter()
        _train(folder / str(steps), name, data, steps, 1, 2)
        seconds.append(time.perf_counter() - started)
    return {"step_s": (seconds[1] - seconds[0]) / TIMED[name]}


def _run(folder: Path, name: str, data: Path, minutes: float, timing: dict[str, float]) -> dict[str, float]:
    """Train for what fits into some minutes, and score it."""
    epochs = min(10, max(3, round(minutes / 2)))
    steps = int(60 * minutes / timing["step_s"] / epochs)
    model = _train(folder, name, data, steps, epochs, VALIDATION)
    return {"examples": steps * epochs * BATCH[name], **_scores(model, data, folder)}


def _validation(folder: Path, data: Path, count: int) -> Path:
    """A manifest of the first mixtures of cv_seen."""
    source = data / "wav8k/min/cv_seen.csv"
    with source.open(newline="") as file:
        rows = [row for row, _ in zip(csv.DictReader(file), range(count), strict=False)]
    for row in rows:
        row |= {name: str((source.parent / path).resolve()) for name, path in row.items() if name.endswith("_path")}
    with (folder / "valid.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder / "valid.csv"


def _train(folder: Path, name: str, data: Path, steps: int, epochs: int, validation: int) -> Path:
    """Train some epochs of so many steps, validated on so many mixtures; the model to score."""
    folder.mkdir(parents=True, exist_ok=True)
    valid = _validation(folder, data, validation)
    if name in NETWORKS:
        words = ["--data", data, "--out", folder, "--asteroid-network", name]
        words += ["--asteroid-steps", steps, "--asteroid-epochs", epochs]
        subprocess.run([sys.executable, __file__, *map(str, words)], check=True)
        return folder / "model.pth"
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump({"extends": str(RECIPE.resolve()), **(PAPER if name == "paper" else {})}))
    settings = ["--config", str(config), "--data.root", str(data.resolve()), "--data.valid", str(valid.resolve())]
    settings += ["--data.dynamic.size", str(steps * BATCH[name])]
    _sepml("train", "--exp", str(folder / "exp"), *settings, "--fit.epochs", str(epochs))
    return folder / "exp"


def _scores(model: Path, data: Path, folder: Path) -> dict[str, float]:
    """Mean SI-SNRi of a model on the tests, dB."""
    found = {}
    for test in TESTS:
        out = folder / test
        words = ["--model", str(model), "--manifest", str(data / f"wav8k/min/{test}.csv"), "--metrics", "si_snr", "-f"]
        _sepml("evaluate", *words, "--no-save-estimates", "-o", str(out))
        found[test] = json.loads((out / "summary.json").read_text())["columns"]["si_snri"]["mean"]
    return found


def _sepml(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "sepml", words[0], "-q", *words[1:]], check=True)


def _train_asteroid(network: dict[str, int], data: Path, folder: Path, steps: int, epochs: int) -> None:
    import pytorch_lightning as pl
    import torch
    from asteroid.engine.system import System
    from asteroid.losses import PITLossWrapper, pairwise_neg_sisdr
    from asteroid.models import DPRNNTasNet
    from torch.utils.data import DataLoader

    torch.manual_seed(0)
    train = DataLoader(_Pairs(data / "wav8k/min/tr.csv", 4.0), batch_size=4, shuffle=True, drop_last=True)
    valid = DataLoader(_Pairs(folder / "valid.csv", None), batch_size=1)
    model = DPRNNTasNet(n_src=2, **network)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=5)
    system = System(model, optimizer, PITLossWrapper(pairwise_neg_sisdr, pit_from="pw_mtx"), train, valid, schedule)
    best = pl.callbacks.ModelCheckpoint(folder, "best", monitor="val_loss", enable_version_counter=False)
    limits = {"max_epochs": epochs, "limit_train_batches": steps, "num_sanity_val_steps": 0}
    # Its System needs a logger.
    quiet = {"logger": pl.loggers.CSVLogger(folder), "enable_progress_bar": False, "enable_model_summary": False}
    pl.Trainer(accelerator="cpu", gradient_clip_val=5, callbacks=[best], default_root_dir=folder, **limits, **quiet).fit(system)
    system.load_state_dict(torch.load(best.best_model_path, weights_only=False)["state_dict"])
    torch.save(system.model.serialize(), folder / "model.pth")


class _Pairs:
    """Mixtures `(T,)` and sources `(2, T)` of a manifest; random segments of some seconds, or whole."""

    def __init__(self, manifest: Path, segment: float | None) -> None:
        from sepml.speech.data.manifest import read_manifest
        from sepml.speech.data.segments import Segments, Whole

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
