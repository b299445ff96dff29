"""Examples: decided by (seed, epoch, id) alone, cut and padded where they should be; every index used; validation whole."""

import csv
import logging
import tracemalloc
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sepml.errors import SepmlError
from sepml.speech.audio.files import write_wav
from sepml.speech.data.dynamic_mixing import DynamicMixing, DynamicSegments
from sepml.speech.data.examples import Batch, Segments, fit_length
from sepml.speech.data.loaders import DataSettings, train_loader, valid_loader
from sepml.speech.data.manifest import Mixture, read_manifest, write_manifest
from sepml.training.loading import EpochBatches, shuffled_by_shard

RATE = 8000
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


def settings(manifest: Path, **changes: object) -> DataSettings:
    base = DataSettings(
        valid=Path(manifest.name), train=Path(manifest.name), root=manifest.parent, segment=0.125, batch_size=2, workers=0
    )
    return replace(base, **changes)


def epoch_of(
    manifest: Path, epoch: int = 0, seed: int = 0, where: tuple[int, int] = (0, 1), **changes: object
) -> dict[str, Batch]:
    """The examples of an epoch by id, in the order in which they came."""
    loader = train_loader(settings(manifest, **changes), 2, seed, *where)
    loader.batch_sampler.epoch = epoch
    return {
        name: Batch(mixture, sources, (name,))
        for batch in loader
        for mixture, sources, name in zip(batch.mixture, batch.sources, batch.ids, strict=True)
    }


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


def test_fit_length():
    x = torch.arange(6).reshape(2, 3)
    assert fit_length(x, 1, 2).tolist() == [[1, 2], [4, 5]]
    assert fit_length(x, 1, 4).tolist() == [[1, 2, 0, 0], [4, 5, 0, 0]]


# Dynamic mixing


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    """Tones: speaker k has 500 + 250 k Hz; two takes of different length and level each, and one speaker a tier C."""
    root = tmp_path_factory.mktemp("tones")
    rows = []
    for k in range(6):
        for take, (length, level) in enumerate([(4000, 0.5), (2400, 0.01)]):
            tone = level * np.sin(2 * np.pi * (500 + 250 * k) * np.arange(length) / RATE)
            write_wav(root / f"spk{k}" / f"{take}.wav", tone, RATE, subtype="FLOAT")
            split = "unseen_test" if k == 5 else "train"
            rows.append([f"spk{k}/{take}.wav", f"spk{k}", "C" if k == 4 else "AB"[k % 2], split])
    with (root / "utterances.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file", "speaker", "tier", "split"], *rows])
    return root / "utterances.csv"


def drawn(table: Path, n: int = 40, seed: int = 0, epoch: int = 0, n_src: int = 2, **changes: object) -> list[Batch]:
    mixing = replace(DynamicMixing(table, size=n), **changes)
    dataset = DynamicSegments(mixing, n_src, 1600, RATE, seed)
    assert len(dataset) == n
    return [dataset[epoch, index] for index in range(n)]


def speakers(example: Batch) -> list[int]:
    peaks = torch.fft.rfft(example.sources).abs().argmax(-1) * RATE / example.sources.shape[-1]
    return [round((float(peak) - 500) / 250) for peak in peaks]


def levels_db(example: Batch) -> list[float]:
    """dB on top of the common power."""
    return (20 * torch.log10(example.sources.square().mean(-1).sqrt() / 0.05)).tolist()


@pytest.mark.parametrize("n_src", [2, 3])
def test_speakers_of_a_mixture_always_differ(table, n_src):
    examples = drawn(table, n_src=n_src)
    assert all(len(set(speakers(example))) == n_src for example in examples)
    assert set().union(*(speakers(example) for example in examples)) == {0, 1, 2, 3, 4}
    assert all(torch.equal(example.mixture, example.sources.sum(0)) for example in examples)
    assert len({example.ids for example in examples}) == len(examples)


@pytest.mark.parametrize("gain_db", [2.5, 0.0])
def test_levels_are_opposite_and_within_the_range(table, gain_db):
    levels = np.array([levels_db(example) for example in drawn(table, gain_db=gain_db)])
    assert np.abs(levels).max() <= gain_db + 0.01
    assert np.abs(levels.sum(1)).max() < 0.01
    if gain_db:
        assert levels[:, 0].min() < -1.5 and levels[:, 0].max() > 1.5


def test_a_dynamic_mixture_depends_on_seed_epoch_and_index_only(table):
    first, again = drawn(table, 8), drawn(table, 8)
    assert all(torch.equal(a.sources, b.sources) for a, b in zip(first, again, strict=True))
    for other in (drawn(table, 8, seed=1), drawn(table, 8, epoch=1), first[1:] + first[:1]):
        assert not any(torch.equal(a.sources, b.sources) for a, b in zip(first, other, strict=True))
    words = {"train": None, "dynamic": DynamicMixing(Path(table.name), size=6), "root": table.parent}
    alone, two = (epoch_of(table, workers=workers, **words) for workers in (0, 2))
    assert list(alone) == list(two) and all(torch.equal(alone[name].sources, two[name].sources) for name in alone)


def test_utterances_shorter_than_the_segment_are_padded(table):
    dataset = DynamicSegments(DynamicMixing(table), 2, 5000, RATE, 0)
    lengths = {int(torch.nonzero(source).max()) + 1 for i in range(20) for source in dataset[0, i].sources}
    # The last sample of both tones is not zero.
    assert lengths == {4000, 2400}


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, {0, 1, 2, 3, 4}),
        ({"tiers": "A"}, {0, 2}),
        ({"tiers": "AB"}, {0, 1, 2, 3}),
        ({"tiers": "BC"}, {1, 3, 4}),
    ],
)
def test_tier_filter(table, filters, expected):
    assert set().union(*(speakers(example) for example in drawn(table, **filters))) == expected


def test_a_row_without_a_tier_is_in_none(table):
    rows = table.read_text().replace("0.wav,spk0,A", "0.wav,spk0,").replace("1.wav,spk0,A", "1.wav,spk0,AB")
    (table.parent / "gaps.csv").write_text(rows)
    assert set().union(*(speakers(example) for example in drawn(table.parent / "gaps.csv", tiers="AB"))) == {1, 2, 3}


@pytest.mark.parametrize(
    ("change", "filters", "message"),
    [
        (str, {"tiers": "C"}, r"1 speakers in split 'train', mixtures of 2 need as many"),
        (str, {"split": "unseen_test"}, r"1 speakers in split 'unseen_test'"),
        (str, {"split": "nowhere"}, r"0 speakers in split 'nowhere'"),
        (lambda text: text.replace("speaker", "talker", 1), {}, r"changed\.csv: column 'speaker' is missing"),
        (lambda text: text.replace("tier", "quality", 1), {"tiers": "A"}, r"changed\.csv: column 'tier' is missing"),
        (lambda text: "", {}, r"changed\.csv: column 'file' is missing"),
        (lambda text: text.splitlines()[0], {}, r"changed\.csv: 0 speakers in split 'train'"),
    ],
)
def test_tables_that_do_not_do(table, change: Callable[[str], str], filters, message):
    changed = table.parent / "changed.csv"
    changed.write_text(change(table.read_text()))
    with pytest.raises(SepmlError, match=message):
        drawn(changed, **filters)


def test_a_missing_table_and_a_table_that_is_none(table):
    with pytest.raises(SepmlError, match=r"nothing\.csv: no such utterance table; `sepml prepare` writes one"):
        drawn(table.parent / "nothing.csv")
    with pytest.raises(SepmlError, match=r"0\.wav:1: is not a CSV text file"):
        drawn(table.parent / "spk0" / "0.wav")
    with pytest.raises(SepmlError, match="cannot be read"):
        drawn(table.parent)


# The order of an epoch


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
