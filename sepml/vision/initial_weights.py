"""The weights that a classifier begins with: those of another classifier, or a backbone's trained on ImageNet."""

from pathlib import Path

from torch import Tensor, nn

from sepml.errors import SepmlError
from sepml.system.readers import read_object
from sepml.training.model_folder import fill, read_weights
from sepml.vision.networks import classifier_name, load_network


def trained_weights(source: Path, setting: str) -> tuple[Path, dict[str, Tensor]]:
    """The weights of a classifier, and the folder or file that holds them.

    Args:
        source: a model folder, an experiment's folder (its best peer), or a file, see `read_weights`.
        setting: the setting that names the source, for messages.

    Raises:
        SepmlError: the source does not exist or cannot be read.
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


def take_backbone(network: nn.Module, source: Path) -> None:
    """Give all layers except the classifier the weights in a file; the classes of the classifier may differ.

    Args:
        source: ImageNet weights under the names of the network's library: .safetensors, or a state dictionary of torch's.

    Raises:
        SepmlError: the file cannot be read, or its weights do not fit.
    """
    # GoogLeNet's published weights have auxiliary classifiers.
    state = {name: value for name, value in read_weights(source).items() if not name.startswith(("aux1.", "aux2."))}
    own, head = network.state_dict(), classifier_name(network)
    kept = {f"{head}.{name}": own[f"{head}.{name}"] for name in ("weight", "bias")}
    fill(network, {**state, **kept}, source, "the network has")
