"""Trained classifiers: their weights as a start for others, their outputs, and tables of results."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from sepml.errors import SepmlError
from sepml.system.readers import read_object
from sepml.system.tables import markdown
from sepml.training.model_folder import fill, read_weights
from sepml.training.model_size import count_flops
from sepml.vision.datasets import ImageSet
from sepml.vision.networks import Classifier, load_network
from sepml.vision.task import ImageBatch, resize

Table = list[dict[str, Any]]
"""Rows with the same columns: column name -> value."""


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
    own, head = network.state_dict(), _classifier_name(network)
    kept = {f"{head}.{name}": own[f"{head}.{name}"] for name in ("weight", "bias")}
    fill(network, {**state, **kept}, source, "the network has")


def embedder(model: Classifier) -> nn.Module:
    """A copy of the network without its classifier: images `(B, channels, H, W)` to the classifier's input, `(B, D)`."""
    network = copy.deepcopy(model.network).eval()
    *parents, last = _classifier_name(network).split(".")
    setattr(network.get_submodule(".".join(parents)), last, nn.Identity())
    return network


def _classifier_name(network: nn.Module) -> str:
    return [name for name, module in network.named_modules() if isinstance(module, nn.Linear)][-1]


def describe_classifier(folder: Path) -> str:
    """One line about a model folder: network, classes, image size, parameters and multiply-adds.

    Raises:
        SepmlError: see `load_network`.
    """
    model = load_network(folder)
    config, size = model.config, "x".join(map(str, model.config.size))
    # On the meta device, where only shapes are computed.
    macs = count_flops(copy.deepcopy(model).to("meta"), torch.zeros(1, config.channels, *config.size, device="meta")) / 2e6
    form = f"{config.network} at width {config.width:g}, {config.classes} classes, {config.channels} x {size} pixels"
    return f"{folder}: {form}: {count_parameters(model):,} parameters, {macs:.2f} million multiply-adds an image"


def count_parameters(network: nn.Module) -> int:
    """Number of weights and biases of a network."""
    return sum(weight.numel() for weight in network.parameters())


@torch.no_grad()
def network_outputs(network: nn.Module, loader: DataLoader[ImageBatch], device: str, resolution: int | None = None) -> Tensor:
    """What a network computes for all images of a loader, `(N, ...)`, on the CPU.

    Args:
        resolution: height in pixels to which images are resized; None leaves them unchanged.
    """
    images = (batch.images.to(device) for batch in loader)
    return torch.cat([network(resize(each, resolution or each.shape[2])).float().cpu() for each in images])


def percent_right(logits: Tensor, test: ImageSet) -> float:
    """Accuracy of logits `(N, classes)`, %."""
    return 100 * float(np.mean(logits.argmax(1).numpy() == test.labels))


def format_rows(table: Table) -> str:
    """A table as text; fractions with two decimals."""
    rows = [[f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in row.values()] for row in table]
    return markdown([list(table[0]), *rows])
