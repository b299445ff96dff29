"""An experiment in separation."""

from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from sepml.config import override, parse, read_yaml
from sepml.errors import SepmlError, about
from sepml.speech.data.loaders import DataSettings, train_loader, valid_loader
from sepml.speech.models.model import build_model, save_model, separator_shape
from sepml.speech.peers import Peer, begin_with_given_weights, network_of
from sepml.speech.task import SeparationTask
from sepml.training.experiment import MOST_PEERS, Machines, Parts, Seed, fresh_networks, train_experiment
from sepml.training.fit import CohortSettings, FitSettings
from sepml.training.model_size import require_memory


@dataclass(frozen=True)
class SeparationSettings:
    """How estimates are compared; see `SeparationTask`.

    Attributes:
        align: how a peer's sources are matched with one's own: `peers` takes the best order between the two, `reference` puts
            both in the order of the references first.
        mimic_ceiling: soft ceiling of the SI-SNR between peers, dB; None is none, as in the SML paper. A large `cohort.weight`
            needs one.
    """

    align: Literal["peers", "reference"] = "peers"
    mimic_ceiling: Annotated[float, Field(gt=0, le=1000)] | None = None
    ceiling: Annotated[float, Field(gt=0, le=1000)] | None = None


@dataclass(frozen=True)
class Experiment:
    """Everything that decides a run's outcome.

    Attributes:
        data: that are trained and validated with.
        peers: the networks, one entry a peer; `init` names a model whose weights it begins with.
        task: of the networks.
        seed: of the data's order and segments; other weights of peer k are drawn from (seed, k).
    """

    data: DataSettings
    peers: Annotated[list[Peer], Field(min_length=1, max_length=MOST_PEERS)]
    task: Literal["separation"] = "separation"
    cohort: CohortSettings = field(default_factory=CohortSettings)
    separation: SeparationSettings = field(default_factory=SeparationSettings)
    fit: FitSettings = field(default_factory=FitSettings)
    seed: Seed = 0


def read_experiment(config: Path, words: list[str]) -> Experiment:
    """An experiment from its YAML file and `--key value` words, see `parse_experiment`."""
    return parse_experiment(override(read_yaml(config), words), str(config))


def parse_experiment(settings: dict[str, Any], source: str) -> Experiment:
    """An experiment from its settings.

    Args:
        source: the file they come from, for messages.

    Raises:
        SepmlError: see `sepml.config.parse`; also peers that cannot learn together.
    """
    experiment = parse(Experiment, settings, source)
    for name in ("n_src", "sample_rate"):
        values = sorted({getattr(peer, name) for peer in experiment.peers})
        if len(values) > 1:
            raise SepmlError(f"{source}: peers differ in '{name}': {values}; it must be one value for all")
    if experiment.peers[0].sample_rate != experiment.data.sample_rate:
        raise SepmlError(
            f"{source}: 'data.sample_rate' is {experiment.data.sample_rate} Hz, the peers' {experiment.peers[0].sample_rate} Hz"
        )
    return experiment


def train(settings: dict[str, Any], source: str, exp: Path, machines: Machines) -> None:
    """Train an experiment in a folder, see `parse_experiment` and `train_experiment`."""
    experiment = parse_experiment(settings, source)
    # Before the folder is made and the data are read.
    with about(f"{source}: peers"):
        require_memory([separator_shape(network_of(peer)) for peer in experiment.peers])
    train_experiment(experiment, exp, _parts, machines)


def _parts(experiment: Experiment, rank: int, world_size: int) -> Parts:
    n_src = experiment.peers[0].n_src
    loaders = (
        train_loader(experiment.data, n_src, experiment.seed, rank, world_size),
        valid_loader(experiment.data, n_src, rank, world_size),
    )
    task = SeparationTask(**asdict(experiment.separation))
    networks = fresh_networks([network_of(peer) for peer in experiment.peers], build_model, experiment.seed)
    return Parts(task, networks, loaders, save_model, partial(begin_with_given_weights, experiment.peers, networks))
