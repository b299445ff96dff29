"""The order of an epoch, which depends on nothing but (seed, epoch), in batches for each process."""

import math
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from torch.utils.data import Sampler

# The order of an epoch: of (length, seed, epoch), a permutation `(length,)` of the indices.
Order = Callable[[int, int, int], np.ndarray]
_TOGETHER = 8


def shuffled(length: int, seed: int, epoch: int) -> np.ndarray:
    """A random order of all."""
    return np.random.default_rng([seed, epoch]).permutation(length)


def shuffled_by_shard(bounds: np.ndarray) -> Order:
    """A random order of the shards, eight of which at a time are shuffled together: storage is read in few places.

    Args:
        bounds: `(n_shards + 1,)`; shard k holds the indices from `bounds[k]` to below `bounds[k + 1]`.
    """
    return partial(_by_shard, bounds)


def _by_shard(bounds: np.ndarray, length: int, seed: int, epoch: int) -> np.ndarray:
    rng = np.random.default_rng([seed, epoch])
    shards = rng.permutation(len(bounds) - 1)
    groups = [shards[start : start + _TOGETHER] for start in range(0, len(shards), _TOGETHER)]
    inside = (np.concatenate([np.arange(bounds[k], bounds[k + 1]) for k in group]) for group in groups)
    return np.concatenate([rng.permutation(indices) for indices in inside])


class EpochBatches(Sampler[list[tuple[int, int]]]):
    """The batches of an epoch for one of the processes of a run, each a list of `(epoch, index)`.

    Every example is used exactly once an epoch, and every process makes the same number of steps: the order is cut into
    that many batches, whose sizes differ by one at most, and each process takes a stretch of them. Only where there
    are fewer examples than batches are some used again, so that none is empty.

    Attributes:
        epoch: to be set before each epoch.
    """

    def __init__(
        self, length: int, batch_size: int, seed: int, rank: int = 0, world_size: int = 1, order: Order = shuffled
    ) -> None:
        self.length, self.seed, self.rank, self.world_size, self.order = length, seed, rank, world_size, order
        self.steps = math.ceil(length / (batch_size * world_size))
        self.epoch = 0

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, batches = self.epoch, self.steps * self.world_size
        order = self.order(self.length, self.seed, epoch)
        used = max(self.length, batches)
        for batch in range(self.rank * self.steps, (self.rank + 1) * self.steps):
            places = np.arange(batch * used // batches, (batch + 1) * used // batches) % self.length
            yield [(epoch, index) for index in order[places].tolist()]
