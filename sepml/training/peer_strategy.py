"""Peer-parallel training: a process for each peer, which exchange predictions and losses, but never gradients."""

import io
import math
import pickle
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.optim import Optimizer

from sepml.mutual.task import Engine
from sepml.training.lightning import DDPStrategy, Fabric

# Of the places of tensors in the bytes that are sent: any type may begin there.
_ALIGNED = 16


class PeerStrategy(DDPStrategy):
    """N consecutive processes are a cohort: each trains one of N networks, all on the same batches.

    With several cohorts, each has its share of the data, and the gradients of a network are averaged over its replicas, of
    which every cohort has one.

    Args:
        networks: N, at least 1.
    """

    def __init__(self, networks: int) -> None:
        super().__init__()
        self.networks = networks
        self.replicas: Any = None
        self._cohort: Any = None
        self._cohort_by_cpu: Any = None

    @property
    def cohorts(self) -> int:
        """The number of cohorts."""
        return self.world_size // self.networks

    def setup_environment(self) -> None:
        """Connect the processes, and form their cohorts and replicas."""
        super().setup_environment()
        cohorts = [range(first, first + self.networks) for first in range(0, self.world_size, self.networks)]
        replicas = [range(k, self.world_size, self.networks) for k in range(self.networks)]
        cohort, place = divmod(self.global_rank, self.networks)
        # Every process takes part in making every group.
        self._cohort = [distributed.new_group([*ranks]) for ranks in cohorts][cohort]
        self._cohort_by_cpu = [distributed.new_group([*ranks], backend="gloo") for ranks in cohorts][cohort]
        self.replicas = [distributed.new_group([*ranks]) for ranks in replicas][place]

    def setup_module(self, module: nn.Module) -> Any:
        """The network; where it has replicas, one that averages gradients over them."""
        if self.cohorts == 1:
            return module
        self._ddp_kwargs = {"process_group": self.replicas, "gradient_as_bucket_view": True}
        return super().setup_module(module)

    def exchange(self, value: Any) -> tuple[list[Any], int]:
        """The values of all processes of the cohort, in their order, and the number of bytes that each of them sent.

        Args:
            value: anything that can be pickled, with tensors in it. Where some are on a GPU, all are sent from there; each
                arrives on the kind of device that it came from.
        """
        content, tensors = _taken_apart(value)
        device = next((tensor.device for tensor in tensors if tensor.device.type != "cpu"), torch.device("cpu"))
        heads: list[Any] = [None] * self.networks
        size = sum(map(_room, tensors))
        distributed.all_gather_object(heads, (content, size), group=self._cohort_by_cpu)
        most = max(there for _, there in heads)
        parts = [*map(_bytes_of, tensors), torch.zeros(most - size, dtype=torch.uint8)]
        sent = torch.cat([part.to(device) for part in parts])
        received = [torch.empty_like(sent) for _ in heads]
        if most:
            distributed.all_gather(received, sent, self._cohort_by_cpu if device.type == "cpu" else self._cohort)
        values = [_put_together(content, part) for (content, _), part in zip(heads, received, strict=True)]
        return values, most + max(len(content) for content, _ in heads)


def peer_strategy_of(fabric: Fabric) -> PeerStrategy | None:
    """The strategy of a run if it is peer-parallel and its cohorts have several processes."""
    strategy = fabric.strategy
    return strategy if isinstance(strategy, PeerStrategy) and strategy.networks > 1 else None


def share_of_data(fabric: Fabric) -> tuple[int, int]:
    """Which share of the data this process learns from, counted from 0, and the number of shares."""
    strategy = peer_strategy_of(fabric)
    if strategy is None:
        return fabric.global_rank, fabric.world_size
    return fabric.global_rank // strategy.networks, strategy.cohorts


class _Pickler(pickle.Pickler):
    """Leaves tensors out of what it writes, and keeps them."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self.tensors: list[Tensor] = []
        self._place = 0

    def persistent_id(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return None
        place, self._place = self._place, self._place + _room(value)
        self.tensors.append(value)
        return place, tuple(value.shape), value.dtype, value.device.type == "cpu"


class _Unpickler(pickle.Unpickler):
    """Takes tensors from bytes `(N,)`."""

    def __init__(self, file: io.BytesIO, content: Tensor) -> None:
        super().__init__(file)
        self._content = content

    def persistent_load(self, place: Any) -> Tensor:
        first, shape, dtype, on_cpu = place
        tensor = self._content[first : first + math.prod(shape) * dtype.itemsize].view(dtype).view(shape).clone()
        return tensor.cpu() if on_cpu else tensor


def _taken_apart(value: Any) -> tuple[bytes, list[Tensor]]:
    file = io.BytesIO()
    pickler = _Pickler(file)
    pickler.dump(value)
    return file.getvalue(), pickler.tensors


def _put_together(content: bytes, part: Tensor) -> Any:
    return _Unpickler(io.BytesIO(content), part).load()


def _room(tensor: Tensor) -> int:
    return -(-tensor.numel() * tensor.element_size() // _ALIGNED) * _ALIGNED


def _bytes_of(tensor: Tensor) -> Tensor:
    flat = tensor.detach().contiguous().flatten().view(torch.uint8)
    return nn.functional.pad(flat, (0, _room(tensor) - len(flat)))


def networks_of(fabric: Fabric, count: int) -> list[int]:
    """Which of the networks of a run this process computes, counted from 0."""
    strategy = peer_strategy_of(fabric)
    return [*range(count)] if strategy is None else [fabric.global_rank % strategy.networks]


def bring_together(networks: Sequence[nn.Module], optimizers: Sequence[Optimizer | None], engine: Engine) -> None:
    """Take over the state of the networks that other processes compute, and of their optimisers."""
    mine = engine.mine(len(networks))
    if len(mine) == len(networks):
        return
    moments = {k: optimizer.state_dict() if (optimizer := optimizers[k]) else None for k in mine}
    states = engine.exchange({k: (networks[k].state_dict(), moments[k]) for k in mine})
    for k, (weights, state) in enumerate(states):
        if k not in mine:
            networks[k].load_state_dict(weights)
            if (optimizer := optimizers[k]) is not None and state is not None:
                optimizer.load_state_dict(state)


def draws_numbers(network: nn.Module) -> bool:
    """Whether a network draws random numbers when it trains: it has dropout, or a part whose attribute `is_random` is true."""
    rates = (getattr(part, name, 0) for part in network.modules() for name in ("p", "dropout", "is_random"))
    return any(rate is True or (isinstance(rate, float) and rate > 0) for rate in rates)
