"""The order of an epoch: every index once, by seed and epoch, shared among processes."""

import tracemalloc
from collections import Counter

import numpy as np
import pytest

from sepml.training.loading import EpochBatches, shuffled_by_shard

RATE = 8000
STEP = 1 / 32768


def batches_of(length: int, size: int, where: tuple[int, int] = (0, 1), epoch: int = 0, seed: int = 0, **order) -> list:
    sampler = EpochBatches(length, size, seed, *where, **order)
    sampler.epoch = epoch
    found = list(sampler)
    assert len(found) == len(sampler) and {e for batch in found for e, _ in batch} == {epoch}
    return [[index for _, index in batch] for batch in found]


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("length", [1, 2, 7, 12, 101])
def test_every_index_exactly_once_an_epoch_and_as_many_steps_on_every_process(length, size, world):
    for epoch in (0, 5):
        shares = [batches_of(length, size, (rank, world), epoch) for rank in range(world)]
        assert {len(share) for share in shares} == {-(-length // (size * world))}
        sizes = [len(batch) for share in shares for batch in share]
        assert max(sizes) - min(sizes) <= 1 and min(sizes) >= 1 and max(sizes) <= size
        used = Counter(index for share in shares for batch in share for index in batch)
        assert set(used) == set(range(length))
        # Only so that no batch is empty is an example used again.
        assert max(used.values()) == 1 or (length < len(sizes) and set(sizes) == {1})


def test_alone_with_whole_batches_the_order_is_the_permutation_of_seed_and_epoch():
    for seed, epoch in ((0, 0), (3, 7)):
        expected = np.random.default_rng([seed, epoch]).permutation(24).reshape(6, 4).tolist()
        assert batches_of(24, 4, epoch=epoch, seed=seed) == expected


def test_the_order_differs_by_epoch_and_seed_and_is_the_same_again():
    def order(seed: int, epoch: int) -> list[list[int]]:
        return batches_of(50, 5, epoch=epoch, seed=seed)

    assert order(0, 0) == order(0, 0)
    assert len({str(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


def test_of_shards_eight_at_a_time_are_shuffled_together():
    bounds = np.array([0, *np.cumsum([7, 5, 9, 6] * 5)])
    shard_of = np.searchsorted(bounds, np.arange(bounds[-1]), side="right") - 1
    seen = set()
    for epoch in range(3):
        order = shuffled_by_shard(bounds)(int(bounds[-1]), 0, epoch)
        assert sorted(order) == list(range(bounds[-1]))
        shards = shard_of[order]
        places = [(int(np.flatnonzero(shards == k)[0]), int(np.flatnonzero(shards == k)[-1])) for k in range(20)]
        # Three groups of 8, 8 and 4 shards that do not reach into each other, and each is mixed inside.
        cuts = [n for n in range(1, len(order)) if not any(first < n <= last for first, last in places)]
        assert len(cuts) == 2 and [len(set(part)) for part in np.split(shards, cuts)] == [8, 8, 4]
        seen.add(tuple(order))
    assert len(seen) == 3


def test_an_order_takes_eight_bytes_an_example():
    sampler = EpochBatches(1_000_000, 4, 0)
    tracemalloc.start()
    first = next(iter(sampler))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(first) == 4 and peak < 20e6
