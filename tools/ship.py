"""Makes the folder of a model that comes with sepml: weights of an experiment's peers, rounded to float16.

    python tools/ship.py EXP/peer1 sepml/pretrained/NAME                # one network
    python tools/ship.py EXP/peer1 EXP/peer2 sepml/pretrained/NAME      # networks that are averaged

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
    options = parser.parse_args()
    several = len(options.peers) > 1
    for number, peer in enumerate(options.peers, 1):
        folder = options.out / f"peer{number}" if several else options.out
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(peer / "config.json", folder / "config.json")
        weights = {name: w.half() if w.is_floating_point() else w for name, w in load_file(peer / "model.safetensors").items()}
        save_file(weights, folder / "model.safetensors")
        size = sum(w.numel() for w in weights.values() if w.dtype == torch.float16)
        print(f"{folder}: {size:,} weights, {(folder / 'model.safetensors').stat().st_size / 1e6:.2f} MB")
    if several:
        config = {"format": ENSEMBLE_FORMAT, "peers": len(options.peers)}
        (options.out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        best = best_peer(options.peers[0].parent / "best.json")
        (options.out / "best.json").write_text(json.dumps({"peer": best}) + "\n")


if __name__ == "__main__":
    main()
