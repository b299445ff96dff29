"""The batches of an epoch, whose order depends on (seed, epoch) alone; loaders that use pipes if shared memory is too small."""

import logging
import math
import multiprocessing
import pickle
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.reduction import ForkingPickler
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, get_worker_info

from sepml.errors import SepmlError
from sepml.system.pool import ended_by

log = logging.getLogger(__name__)
Batch = TypeVar("Batch", bound=tuple[Any, ...])
# Samples in a training batch, the mixtures' and the sources', 1 GB in 32-bit floats.
MOST_BATCH_VALUES = 1 << 28
_SHARED = "/dev/shm"
_ENDED = re.compile(
    r"DataLoader worker \(pid(?:\(s\))? (?P<pid>[\d, ]+)\) "
    r"(?:is killed by signal: (?P<signal>[^.]+)|exited unexpectedly(?: with exit code (?P<code>\d+))?)"
)


@dataclass(frozen=True)
class _Packed:
    """A pickled batch.

    Attributes:
        content: the bytes; they refer to shared memory unless `refusal` says why they cannot.
        refusal: the system's reason for not giving shared memory.
    """

    content: bytes
    refusal: str = ""


class _Packing:
    """The collate function of a worker: it pickles batches itself.

    A worker's queue would pickle in a thread, which on an error prints it, drops the batch and lets the main process wait
    for ever.
    """

    def __init__(self, collate: Callable[[Sequence[Any]], Any]) -> None:
        self.collate, self.refusal = collate, ""

    def __call__(self, examples: Sequence[Any]) -> Any:
        batch = self.collate(examples)
        if get_worker_info() is None:
            return batch
        if not self.refusal:
            try:
                return _Packed(bytes(ForkingPickler.dumps(batch)))
            except (RuntimeError, OSError) as error:
                # Not tried again: the first tensors of a batch that does not fit stay in shared memory until the worker ends.
                self.refusal = str(error) or type(error).__name__
        arrays = [field.numpy() if isinstance(field, Tensor) else field for field in batch]
        return _Packed(pickle.dumps(batch._make(arrays), pickle.HIGHEST_PROTOCOL), self.refusal)


class Loader(DataLoader[Batch]):
    """A `DataLoader` of named tuples of tensors that does not depend on the size of `/dev/shm`.

    Args:
        collate: from a list of examples to a batch, a named tuple of tensors.
        options: of `torch.utils.data.DataLoader`.
    """

    def __init__(self, dataset: Any, collate: Callable[[Sequence[Any]], Batch], **options: Any) -> None:
        if options.get("num_workers") and sys.platform == "linux":
            # Python 3.14 starts another way by default, in which every worker imports PyTorch anew and data must be picklable.
            options.setdefault("multiprocessing_context", "fork")
        super().__init__(dataset, collate_fn=_Packing(collate), **options)
        self._warned = False

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        """The batches of one pass.

        Raises:
            SepmlError: the system refuses what worker processes need, or one of them ended.
        """
        with worker_faults():
            try:
                # Tries what the workers will need: PyTorch would print a traceback where the system refuses it.
                needed: list[Any] = [multiprocessing.Queue() for _ in range(self.num_workers and self.num_workers + 2)]
                del needed
                batches = super().__iter__()
            except OSError as error:
                raise SepmlError(f"worker processes cannot be started: {error.strerror or error}; {_WAY_OUT}") from error
        while True:
            with worker_faults():
                try:
                    batch = next(batches)
                except StopIteration:
                    return
                batch = self._unpacked(batch, batches) if isinstance(batch, _Packed) else batch
            yield batch

    def _unpacked(self, packed: _Packed, batches: Any) -> Any:
        try:
            batch = ForkingPickler.loads(packed.content)
        # The connection ends with its worker.
        except (OSError, EOFError) as error:
            said = _first_that_ended(getattr(batches, "_workers", ()))
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            said = said or f"a worker's batch cannot be taken over: {reason}"
            raise SepmlError(f"{said}; {_WAY_OUT}") from error
        if not packed.refusal:
            return batch
        if not self._warned:
            self._warned = True
            log.warning("%s; batches take the slower way through pipes", _shared_memory(packed.refusal, packed.content))
        return batch._make(torch.from_numpy(field) if isinstance(field, np.ndarray) else field for field in batch)


@contextmanager
def worker_faults() -> Iterator[None]:
    """Report in one line that a data loader's worker ended; PyTorch raises that at any point of the main thread.

    Raises:
        SepmlError: a worker process ended; the message has its exit code or signal.
    """
    try:
        yield
    except RuntimeError as error:
        said = _worker_that_ended(error)
        if said is None:
            raise
        raise SepmlError(f"{said}; {_WAY_OUT}") from error


_WAY_OUT = "the setting data.workers: 0 reads without worker processes"


def _worker_that_ended(error: BaseException | None) -> str | None:
    """The most specific message of PyTorch about a worker, in the exception or its causes."""
    said = None
    while error is not None:
        found = _ENDED.match(str(error)) if isinstance(error, RuntimeError) else None
        if found:
            name = f"a worker process of the data loader (pid {found['pid']})"
            if found["signal"]:
                numbers = {signal.strsignal(number): number for number in signal.valid_signals()}
                return f"{name} {ended_by(-numbers[found['signal'].strip()])}"
            if found["code"]:
                return f"{name} {ended_by(int(found['code']))}"
            said = f"{name} ended unexpectedly"
        error = error.__cause__ or error.__context__
    return said


def _first_that_ended(workers: Sequence[Any]) -> str | None:
    """What is said about the first of some worker processes that ended, or does within a second."""
    until = time.monotonic() + 1
    for worker in workers:
        worker.join(max(0.0, until - time.monotonic()))
        if worker.exitcode:
            return f"a worker process of the data loader (pid {worker.pid}) {ended_by(worker.exitcode)}"
    return None


def _shared_memory(refusal: str, content: bytes) -> str:
    try:
        room = shutil.disk_usage(_SHARED)
    except OSError:
        return f"workers get no shared memory ({refusal})"
    free, size, batch = (round(number / 2**20) for number in (room.free, room.total, len(content)))
    found = f"{_SHARED} has {size} MB ({free} MB free), too little for batches of {batch} MB"
    return f"{found}; a container needs a larger one, such as 1 GB"


# The order of an epoch: from (length, seed, epoch) to a permutation `(length,)` of the indices.
Order = Callable[[int, int, int], np.ndarray]
_TOGETHER = 8


def shuffled(length: int, seed: int, epoch: int) -> np.ndarray:
    """A random order of all indices."""
    return np.random.default_rng([seed, epoch]).permutation(length)


def shuffled_by_shard(bounds: np.ndarray) -> Order:
    """A random order of the shards, shuffled in groups of eight shards, so that few files are read at a time.

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

    Every example is used exactly once in an epoch, and every process makes the same number of steps: the order is split into
    batches whose sizes differ by one at most, and each process takes consecutive ones. Only if there are fewer examples than
    batches, some are used again, so that no batch is empty.

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
