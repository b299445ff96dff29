"""Examples: decided by (seed, epoch, id) alone, cut and padded where they should be; every index used; validation whole."""

import logging
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from loading_data import RATE, epoch_of, settings

from sepml.errors import SepmlError
from sepml.speech.audio.files import write_wav
from sepml.speech.data.loaders import Batch, train_loader, valid_loader
from sepml.speech.data.manifest import read_manifest, write_manifest
from sepml.speech.data.mixtures import Mixture
from sepml.speech.data.segments import Segments

STEP = 1 / 32768


def ramps(folder: Path, lengths: list[int], n_src: int = 2, name: str = "all.csv") -> Path:
    """Mixtures whose source k holds k x (1, 2, 3 ...) steps of 16 bits, so that a sample tells its place."""
    mixtures = []
    for number, length in enumerate(lengths):
        count = np.arange(1, length + 1, dtype=np.int16)
        sources = [k * count for k in range(1, n_src + 1)]
        paths = [folder / part / f"m{number}.wav" for part in ("mix", *(f"s{k}" for k in range(1, n_src + 1)))]
        for path, x in zip(paths, [sum(sources), *sources], strict=True):
            write_wav(path, x, RATE)
        mixtures.append(Mixture(f"m{number}", paths[0], tuple(paths[1:]), length))
    write_manifest(folder / name, mixtures)
    return folder / name


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    """Seven mixtures of 1000 to 4000 samples."""
    return ramps(tmp_path_factory.mktemp("ramps"), [4000, 3000, 2500, 1000, 3500, 1200, 2000])


def starts(examples: dict[str, Batch]) -> dict[str, int]:
    return {name: round(float(batch.sources[0, 0]) / STEP) - 1 for name, batch in examples.items()}


# Segments


@pytest.mark.parametrize("workers", [1, 2])
def test_the_examples_are_the_same_with_any_number_of_workers(manifest, workers):
    for epoch in (0, 1):
        alone, many = epoch_of(manifest, epoch), epoch_of(manifest, epoch, workers=workers)
        assert list(alone) == list(many)
        assert all(torch.equal(alone[name].sources, many[name].sources) for name in alone)


def test_a_segment_depends_on_seed_epoch_and_id_only(manifest, tmp_path):
    first = starts(epoch_of(manifest))
    assert starts(epoch_of(manifest)) == first
    assert starts(epoch_of(manifest, batch_size=7)) == first
    for other in (epoch_of(manifest, epoch=1), epoch_of(manifest, seed=1)):
        assert sum(starts(other)[name] != start for name, start in first.items()) >= 5
    # A manifest of fewer mixtures in another order.
    write_manifest(manifest.parent / "few.csv", read_manifest(manifest)[:3][::-1])
    few = starts(epoch_of(manifest, train=Path("few.csv")))
    assert few == {name: first[name] for name in ("m0", "m1", "m2")}


def test_mixtures_of_the_same_length_are_cut_at_different_places(tmp_path):
    found = starts(epoch_of(ramps(tmp_path, [5000] * 8)))
    assert len(set(found.values())) >= 6


def test_mixture_and_sources_are_cut_at_the_same_place(manifest):
    count = torch.arange(1, 1001)
    for epoch in range(3):
        examples = epoch_of(manifest, epoch)
        assert len(examples) == 7
        for name, start in starts(examples).items():
            assert examples[name].mixture.shape == (1000,) and examples[name].sources.shape == (2, 1000)
            expected = torch.stack([count + start, 2 * (count + start)]) * STEP
            assert torch.equal(examples[name].sources, expected)
            assert torch.equal(examples[name].mixture, expected.sum(0))


def test_every_place_is_used_from_the_first_to_the_last(tmp_path):
    manifest = ramps(tmp_path, [1003])
    seen = Counter(starts(epoch_of(manifest, epoch))["m0"] for epoch in range(60))
    assert set(seen) == {0, 1, 2, 3} and min(seen.values()) > 5


def test_short_mixtures_are_padded_at_their_end_and_counted(tmp_path, caplog):
    manifest = ramps(tmp_path, [300, 1000, 999, 1500])
    with caplog.at_level(logging.INFO, logger="sepml"):
        examples = epoch_of(manifest)
    assert "2 of 4 mixtures are shorter than a segment and are padded" in caplog.text
    for name, length in (("m0", 300), ("m2", 999)):
        for x in (examples[name].mixture, *examples[name].sources):
            assert len(x) == 1000 and not x[length:].any() and (x[:length] > 0).all()
        assert torch.equal(examples[name].sources[0, :length], torch.arange(1, length + 1) * STEP)
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="sepml"):
        Segments(read_manifest(manifest)[1:2], 1000, RATE, 0)
    assert "shorter" not in caplog.text


def test_processes_share_the_training_mixtures_out(manifest):
    alone = epoch_of(manifest)
    shares = [epoch_of(manifest, where=(rank, 2)) for rank in (0, 1)]
    assert sorted([*shares[0], *shares[1]]) == sorted(alone)
    assert sorted(map(len, shares)) == [3, 4]
    for share in shares:
        assert all(torch.equal(batch.sources, alone[name].sources) for name, batch in share.items())


# Validation


def test_validation_is_every_utterance_whole_and_in_order(manifest):
    batches = list(valid_loader(settings(manifest, batch_size=4), 2))
    assert [batch.ids for batch in batches] == [(f"m{n}",) for n in range(7)]
    assert [batch.mixture.shape[1] for batch in batches] == [4000, 3000, 2500, 1000, 3500, 1200, 2000]
    for batch in batches:
        count = torch.arange(1, batch.mixture.shape[1] + 1)
        assert torch.equal(batch.sources, torch.stack([count, 2 * count])[None] * STEP)
        assert torch.equal(batch.mixture, batch.sources.sum(1))


@pytest.mark.parametrize("world", [2, 3, 9])
def test_processes_share_validation_out_without_losing_or_doubling_any(manifest, world):
    found = [batch.ids[0] for rank in range(world) for batch in valid_loader(settings(manifest), 2, rank, world)]
    assert sorted(found) == [f"m{n}" for n in range(7)]


# Faults


def test_a_file_of_another_length_than_the_manifest_says(tmp_path):
    manifest = ramps(tmp_path, [2000, 2000])
    write_wav(tmp_path / "s2" / "m1.wav", np.ones(1999, np.int16), RATE)
    message = r"s2/m1\.wav: 1999 samples, the manifest says 2000"
    for read in (lambda: list(valid_loader(settings(manifest), 2)), lambda: epoch_of(manifest)):
        with pytest.raises(SepmlError, match=message):
            read()


def test_a_wrong_rate(manifest):
    for read in (
        lambda: list(valid_loader(settings(manifest, sample_rate=16000), 2)),
        lambda: epoch_of(manifest, sample_rate=16000),
    ):
        with pytest.raises(SepmlError, match=r"mix/m\d\.wav: its rate is 8000 Hz, expected 16000 Hz"):
            read()


@pytest.mark.parametrize(("there", "wanted"), [(2, 3), (3, 2)])
def test_another_number_of_sources_than_the_model_separates(tmp_path, there, wanted):
    manifest = ramps(tmp_path, [500], n_src=there)
    message = rf"all\.csv: mixtures of {there} sources, the model separates {wanted}"
    for loader in (valid_loader, lambda *words: train_loader(*words, seed=0)):
        with pytest.raises(SepmlError, match=message):
            loader(settings(manifest), wanted)


def test_nothing_to_train_on_and_a_segment_of_nothing(manifest):
    with pytest.raises(SepmlError, match=r"'train' \(a manifest or shards\) or 'dynamic' \(dynamic mixing\) is needed"):
        train_loader(settings(manifest, train=None), 2, 0)
    with pytest.raises(SepmlError, match=r"data\.segment is 1e-05 s, expected a sample or more at 8000 Hz"):
        train_loader(settings(manifest, segment=1e-5), 2, 0)
