"""Training of linear networks by the loop of `sepml.training.fit`, on a few rows."""

from pathlib import Path

import torch
from lightning_fabric import Fabric
from linear_task import Sure
from torch import Tensor, nn
from torch.utils.data import DataLoader

from sepml.training.fit import fit
from sepml.training.history import EpochRow, Run
from sepml.training.loading import EpochBatches
from sepml.training.optimizers import OptimizerSettings
from sepml.training.settings import CohortSettings, FitSettings, LearningRate


class Rows(torch.utils.data.Dataset):
    """x and y, found by (epoch, index) or by index."""

    def __init__(self, n: int) -> None:
        generator = torch.Generator().manual_seed(n)
        self.x, self.y = torch.randn(n, 4, generator=generator), torch.randn(n, 1, generator=generator)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, place: tuple[int, int] | int) -> dict[str, Tensor]:
        index = place[1] if isinstance(place, tuple) else place
        return {"x": self.x[index], "y": self.y[index]}


def trained(
    folder: Path,
    task: Sure,
    networks: list[nn.Module],
    settings: FitSettings,
    sharing: CohortSettings,
    fabric: Fabric | None = None,
) -> list[EpochRow]:
    def save_network(path: Path, network: nn.Module) -> None:
        path.mkdir(parents=True, exist_ok=True)
        torch.save(network.state_dict(), path / "weights.pt")

    rows = Rows(16)
    loaders = DataLoader(rows, batch_sampler=EpochBatches(16, 4, seed=0)), DataLoader(Rows(5), batch_size=5)
    folder.mkdir(exist_ok=True)
    run = Run(folder, save_network, seed=3)
    return fit(task, networks, loaders, (settings, sharing), run, fabric or Fabric(accelerator="cpu", devices=1))


SGD = FitSettings(
    precision="32-true",
    optimizer=OptimizerSettings("sgd", momentum=0.9),
    learning_rate=LearningRate(0.01, "constant"),
    clip_norm=None,
    early_stop=0,
    tensorboard=False,
)
