"""Weights of a trained classifier, wherever they lie."""

from pathlib import Path

from torch import Tensor

from sepml.errors import SepmlError
from sepml.system.json_files import read_object
from sepml.training.model_folder import read_weights
from sepml.vision.networks import load_network


def trained_weights(source: Path, setting: str) -> tuple[Path, dict[str, Tensor]]:
    """The weights of a classifier and the folder or file that they are in.

    Args:
        source: a model folder, an experiment's folder (its best peer), or a file, see `read_weights`.
        setting: that names it, for messages.

    Raises:
        SepmlError: there is none, or it cannot be read.
    """
    try:
        if source.is_file():
            return source, read_weights(source)
        if not source.is_dir():
            raise SepmlError(f"{source}: no such folder or file; expected a classifier, an experiment or a file of weights")
        part = source if (source / "config.json").is_file() else source / f"peer{_best_peer(source)}"
        return part, load_network(part).network.state_dict()
    except SepmlError as error:
        raise SepmlError(f"{setting}: {error}") from error


def _best_peer(exp: Path) -> int:
    file = exp / "best.json"
    try:
        return int(read_object(file)["peer"])
    except FileNotFoundError as error:
        raise SepmlError(f"{exp}: holds neither a config.json (a model) nor a best.json (an experiment)") from error
    except (SepmlError, ValueError, KeyError, TypeError) as error:
        raise SepmlError(f'{file}: cannot be read; expected {{"peer": 1}} or the like') from error
