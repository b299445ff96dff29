"""The engine of a training run: Fabric's backward, and the networks at the same time on the cores of one machine."""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.nn import functional

from sepml.training.lightning import Fabric, wrappers
from sepml.training.peer_strategy import networks_of, peer_strategy_of, share_of_data

Item = TypeVar("Item")
Result = TypeVar("Result")


class FabricEngine:
    """Fabric's backward and reductions; on a CPU, each network computes in a thread of its own.

    Networks of this size do not fill several cores: an operation is split into parts that wait for each other thousands of
    times in a step. A thread for each network, with its share of the cores, waits twice in a step. PyTorch holds Python's
    lock only between operations. The results do not depend on whether threads run at the same time, as every network
    always computes with the same number of cores.

    Networks compute one after the other if they draw random numbers in a step (dropout), as the generator is shared; and on
    other devices, in runs of several processes, where a network stands for several peers, and where peers take turns.

    In a peer-parallel run this process computes one network, see `PeerStrategy`.

    Use it as a context manager: inside, PyTorch computes with a network's share of the cores.

    Args:
        networks: their number.
        independent: whether they share nothing, and every call of `each` is for all of them in the same order.

    Attributes:
        shares: of the data, each of which other processes learn from.
        sent: bytes that this process has sent to the others that train its peers.
    """

    def __init__(self, fabric: Fabric, networks: int, independent: bool) -> None:
        self.fabric, self.sent = fabric, 0
        self._peers = peer_strategy_of(fabric)
        # Of the processes that learn from other shares of the data; None is all processes.
        self._group = self._peers.replicas if self._peers else None
        _, self.shares = share_of_data(fabric)
        self.cores = torch.get_num_threads()
        at_once = independent and fabric.world_size == 1 and fabric.device.type == "cpu"
        self.threads = min(networks, self.cores) if at_once else 1
        # Pools of one thread, so that a network always has the same one: the order in which autograd adds up the gradients
        # of a tensor depends on counters of the threads that used it.
        self._pools = [ThreadPoolExecutor(1) for _ in range(self.threads)]
        # Known after the first call with gradients.
        self._draws_random_numbers: bool | None = None

    def __enter__(self) -> "FabricEngine":
        """Let operations use a network's share of the cores, also in threads that start later."""
        torch.set_num_threads(self.cores // self.threads)
        wrappers._in_fabric_backward = self.threads > 1
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """End the threads, and let operations use all cores again."""
        for pool in self._pools:
            pool.shutdown()
        wrappers._in_fabric_backward = False
        torch.set_num_threads(self.cores)

    def backward(self, tensor: Tensor, *args: Any, **kwargs: Any) -> None:
        """Accumulate gradients."""
        if self.threads == 1:
            self.fabric.backward(tensor, *args, **kwargs)
        else:
            # The same as Fabric's backward on a CPU in one process. That sets a flag for all threads, which the first one
            # to end would clear for the others: here it is set while the engine is open.
            tensor.backward()

    def all_reduce(self, data: Any, group: Any | None = None, reduce_op: Any = "mean") -> Any:
        """Combine a value over the processes that learn from other shares of the data."""
        if self.shares == 1:
            return data
        return self.fabric.all_reduce(data, group or self._group, reduce_op)

    def gather(self, values: Tensor) -> Tensor:
        """The columns `(K, N)` of all shares of the data, one after the other; shares with fewer have nan instead."""
        if self.shares == 1:
            return values
        most = int(cast(Tensor, self.all_reduce(torch.tensor(values.shape[1], device=values.device), reduce_op="max")))
        padded = functional.pad(values, (0, most - values.shape[1]), value=math.nan)
        return cast(Tensor, self.fabric.all_gather(padded, self._group)).movedim(0, 1).flatten(1)

    def sum_over_shares(self, values: Tensor) -> Tensor:
        """The sum of each of the values over the shares of the data, in 64-bit floats on the CPU, as they are."""
        return values if self.shares == 1 else self.all_reduce(values, reduce_op="sum").cpu()

    def mine(self, count: int) -> list[int]:
        """Which of so many peers, counted from 0, this process computes."""
        return networks_of(self.fabric, count)

    def exchange(self, values: dict[int, Item]) -> list[Item]:
        """The values of all peers, from those of the peers that this process computes."""
        if not self._peers:
            return [values[k] for k in sorted(values)]
        [own] = values
        received, sent = self._peers.exchange(values[own])
        self.sent += sent
        return [*received[:own], values[own], *received[own + 1 :]]

    def each(self, function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """The results for all items, one for each network, in their order."""
        if self.threads == 1:
            return [function(item) for item in items]
        if self._draws_random_numbers is not False:
            before = torch.get_rng_state()
            # One after the other, but each network in its thread: graphs of two threads add up gradients in another order.
            results = [self._pools[k % self.threads].submit(function, item).result() for k, item in enumerate(items)]
            # Moving averages are evaluated without a gradient, which draws nothing: that says nothing of the networks.
            if self._draws_random_numbers is None and torch.is_grad_enabled():
                self._draws_random_numbers = not torch.equal(before, torch.get_rng_state())
            return results
        futures = [self._pools[k % self.threads].submit(function, item) for k, item in enumerate(items)]
        wait(futures)
        return [future.result() for future in futures]
