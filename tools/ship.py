"""Makes the folder of a model that comes with sepml: weights of an experiment's peers, rounded to float16.

    python tools/ship.py EXP/peer1 sepml/pretrained/NAME                # one network
    python tools/ship.py EXP/peer1 EXP/peer2 sepml/pretrained/NAME      # networks that are averaged

With `--before MODEL [--share 0.5]`, where MODEL has the networks from which these were fine-tuned, weights are means of both:
what was learnt last, without the loss of what was known before (WiSE-FT, Wortsman et al., CVPR 2022).
The model card (README.md) and tables that are fitted afterwards stay.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from sepml.speech.models.load import ENSEMBLE_FORMAT, best_peer


def main() -> None:
    """Write the folder, and print the size of its weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peers", type=Path, nargs="+")
    parser.add_argument("out", type=Path)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--share", type=float, default=0.5, help="of the fine-tuned weights in the mean")
    options = parser.parse_args()
    several = len(options.peers) > 1
    for number, peer in enumerate(options.peers, 1):
        part = f"peer{number}" if several else ""
        weights = load_file(peer / "model.safetensors")
        if options.before:
            weights = _mean(load_file(options.before / part / "model.safetensors"), weights, options.share)
        _write(peer, {name: w.half() if w.is_floating_point() else w for name, w in weights.items()}, options.out / part)
    if several:
        config = {"format": ENSEMBLE_FORMAT, "peers": len(options.peers)}
        (options.out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        best = best_peer(options.peers[0].parent / "best.json")
        (options.out / "best.json").write_text(json.dumps({"peer": best}) + "\n")


def _mean(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor], share: float) -> dict[str, torch.Tensor]:
    if before.keys() != after.keys():
        raise SystemExit("the networks before and after have different weights")
    return {
        name: torch.lerp(before[name].float(), w.float(), share) if w.is_floating_point() else w for name, w in after.items()
    }


def _write(peer: Path, weights: dict[str, torch.Tensor], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(peer / "config.json", folder / "config.json")
    save_file(weights, folder / "model.safetensors")
    size = sum(w.numel() for w in weights.values() if w.dtype == torch.float16)
    print(f"{folder}: {size:,} weights, {(folder / 'model.safetensors').stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
