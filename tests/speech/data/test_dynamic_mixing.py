"""Dynamic mixing: new mixtures of single utterances, drawn by seed, epoch and index."""

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from loading_data import RATE, epoch_of

from sepml.errors import SepmlError
from sepml.speech.audio.files import write_wav
from sepml.speech.data.augment import Augment
from sepml.speech.data.dynamic_mixing import DynamicMixing, DynamicSegments
from sepml.speech.data.effects import Speed
from sepml.speech.data.loaders import Batch


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
    examples = [dataset[epoch, index] for index in range(n)]
    return [Batch(torch.from_numpy(mixture), torch.from_numpy(sources), (id,)) for mixture, sources, id in examples]


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
    lengths = {int(np.flatnonzero(source).max()) + 1 for i in range(20) for source in dataset[0, i].sources}
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


def test_utterances_of_a_talker_follow_one_another_until_the_segment_is_full(table):
    def of(join: bool) -> list:
        dataset = DynamicSegments(DynamicMixing(table, size=20, join=join), 2, 9000, RATE, 0)
        return [dataset[0, index] for index in range(20)]

    for joined, single in zip(of(True), of(False), strict=True):
        last = int(np.flatnonzero(single.sources[0])[-1])
        assert last in (3998, 3999, 2398, 2399), "a segment holds one utterance"
        assert np.array_equal(joined.sources[0][: last + 1], single.sources[0][: last + 1]), "the first is the same"
        for source in joined.sources:
            # The same tone in each part of the segment, at the same level.
            parts = source[:8800].reshape(4, -1)
            assert len(set(np.abs(np.fft.rfft(parts)).argmax(-1))) == 1
            assert parts.std(-1) == pytest.approx([parts.std()] * 4, rel=0.02)
        # A file for each utterance stands in the name.
        assert 2 * 3 <= joined.id.count(".wav") <= 2 * 4 and single.id.count(".wav") == 2


def test_joined_utterances_have_one_voice(table):
    mixing = DynamicMixing(table, size=20, join=True, augment=Augment(speed=Speed(1.0, (0.8, 1.25))))
    found = set()
    for index in range(20):
        source = DynamicSegments(mixing, 2, 9000, RATE, 0)[0, index].sources[0]
        peaks = np.abs(np.fft.rfft(source[:8800].reshape(4, -1), 22000)).argmax(-1)
        assert np.ptp(peaks) <= 6, "one percent of speed is 14 bins"
        found.add(int(peaks[0]))
    assert len(found) > 12
