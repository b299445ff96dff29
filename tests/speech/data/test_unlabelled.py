"""Batches with examples that have no references."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from loading_data import settings
from tiny_training import write_data

from sepml.speech.data.loaders import held_out_loader, train_loader, without_references
from sepml.speech.data.unlabelled import BatchesBeside, UnlabelledData
from sepml.training.loading import EpochBatches


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"), training=10) / "tr.csv"


def test_every_batch_has_its_share_and_all_are_used_before_any_comes_again():
    sampler = BatchesBeside(EpochBatches(10, 2, seed=1), EpochBatches(6, 2, seed=1))
    found = []
    for epoch in range(3):
        sampler.epoch = epoch
        batches = list(sampler)
        assert [len(batch) for batch in batches] == [4] * 5
        assert sorted(index for batch in batches for _, index in batch[:2]) == list(range(10))
        found += [index - 10 for batch in batches for _, index in batch[2:]]
    assert len(found) == 30
    assert all(sorted(found[start : start + 6]) == list(range(6)) for start in range(0, 30, 6))
    sampler.epoch = 1
    assert [batch[2:] for batch in sampler] != [], "an epoch alone"
    alone = [index - 10 for batch in sampler for _, index in batch[2:]]
    assert alone == found[10:20], "the same as after the epochs before it"


@pytest.mark.parametrize("where", ["manifest", "folder"])
def test_batches_say_which_examples_have_references(manifest, where):
    given = UnlabelledData(**{where: Path("tr.csv" if where == "manifest" else "mix")}, share=0.25, held_out=0.2)
    made = replace(settings(manifest), unlabelled=given, batch_size=4)
    parts = without_references(made, 2, 0)
    loader = train_loader(made, 2, 0, unlabelled=parts.learnt)
    for batch in loader:
        assert batch.trust.tolist() == [1, 1, 1, 0] or batch.trust.tolist() == [1, 1, 0]
        assert (batch.sources[batch.trust == 0].abs().sum() > 0) == (where == "manifest")
        torch.testing.assert_close(batch.mixture[batch.trust > 0], batch.sources[batch.trust > 0].sum(1), atol=1e-4, rtol=0)
    held = [batch for batch in held_out_loader(made, parts.held_out)]
    assert all((batch.trust == 0).all() for batch in held)
    learnt, held_out = (set(part.indices) for part in parts)
    assert not learnt & held_out and len(learnt | held_out) == len(parts.learnt.dataset)


def test_without_the_setting_batches_have_no_trust(manifest):
    assert without_references(settings(manifest), 2, 0) is None
    assert next(iter(train_loader(settings(manifest), 2, 0))).trust is None


def test_segments_of_a_manifest_are_new_in_every_turn(manifest):
    made = replace(settings(manifest), unlabelled=UnlabelledData(manifest=Path("tr.csv"), held_out=0))
    part = without_references(made, 2, 0).learnt
    assert len(part) == 10 and not np.array_equal(part[0, 3].mixture, part[1, 3].mixture)
