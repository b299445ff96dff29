"""Mixtures of two and of three talkers in one manifest: absent sources are silent in training, shards and scores."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from loading_data import settings
from noise_corpus import refusal
from score_corpus import RATE, Corpus, write
from speech_signals import speech_like
from test_dynamic_mixing import drawn, speakers, table  # noqa: F401  # the fixture

from sepml.cli import main
from sepml.speech.data.loaders import train_loader, valid_loader
from sepml.speech.data.manifest import read_manifest, write_manifest
from sepml.speech.data.write_shards import write_shards
from sepml.speech.models.backbones import ConvTasNetConfig, DPRNNConfig
from sepml.speech.models.model import build_model, weights_for
from sepml.speech.scoring.utterance import score
from sepml.speech.task import SeparationTask


@pytest.fixture(scope="module")
def three(tmp_path_factory) -> Corpus:
    """Four mixtures of three talkers, of which the second and the last lack the third."""
    made = Corpus(tmp_path_factory.mktemp("three"), ["a", "b", "c", "d"], n_src=3, seconds=1.0)
    mixtures = list(read_manifest(made.manifest))
    for k in (1, 3):
        name = mixtures[k].id
        write(mixtures[k].mixture, made.refs[name][:2].sum(0))
        mixtures[k] = replace(mixtures[k], sources=mixtures[k].sources[:2])
    write_manifest(made.manifest, mixtures)
    return made


def test_the_manifest_names_what_sounds(three):
    with three.manifest.open() as file:
        fields = [row["source_3_path"] for row in csv.DictReader(file)]
    assert fields == ["s3/a.wav", "", "s3/c.wav", ""]
    manifest = read_manifest(three.manifest)
    assert manifest.n_src == 3
    assert [len(mixture.sources) for mixture in manifest] == [3, 2, 3, 2]


@pytest.mark.parametrize("sharded", [False, True])
def test_absent_sources_are_silent_in_training_and_validation(three, tmp_path, sharded):
    path = write_shards(three.manifest, tmp_path, 2, jobs=1) if sharded else three.manifest
    loaders = train_loader(settings(path, segment=0.5), 3, 0), valid_loader(settings(path), 3)
    for loader in loaders:
        silent = {
            id: (sources == 0).all(-1).tolist()
            for batch in loader
            for id, sources in zip(batch.ids, batch.sources, strict=True)
        }
        assert silent == {id: [False, False, id in "bd"] for id in "abcd"}
        for batch in loader:
            torch.testing.assert_close(batch.sources.sum(1), batch.mixture, rtol=0, atol=1e-6)
    task = SeparationTask()
    [batch] = [batch for batch in loaders[1] if batch.ids == ("b",)]
    exact = task.supervised_loss(batch.sources, batch)
    noisy = task.supervised_loss(batch.sources + 0.1 * batch.mixture[:, None], batch)
    assert exact < noisy - 10, "an output that stays silent for the absent source is the better one"


def test_scores_are_those_of_the_talkers_that_there_are(three):
    summary, rows = three.score(metrics=("si_snr",))
    assert not summary.faults and not summary.unscored
    for name in "abcd":
        count = 2 if name in "bd" else 3
        refs = three.refs[name][:count]
        expected = score(three.ests[name], refs, refs.sum(0), RATE, ("si_snr",))
        assert float(rows[name]["si_snr"]) == pytest.approx(expected["si_snr"], abs=1e-4)
        assert rows[name]["surplus"] == ("3" if count == 2 else "")
        assert bool(rows[name]["si_snr_3"]) == (count == 3)


def test_a_manifest_of_two_and_three_is_checked_and_scored_by_command(three, tmp_path, capsys):
    assert main(["check", str(three.manifest), "--jobs", "1"]) == 0
    assert "mixtures of 2/3 sources" in capsys.readouterr().out
    words = ["score", "--manifest", str(three.manifest), "--est", str(three.root / "est"), "-o", str(tmp_path), "--jobs", "1"]
    assert main([*words, "--metrics", "si_snr"]) == 0


def test_only_the_last_sources_may_be_absent(tmp_path):
    write(tmp_path / "m.wav", speech_like(0, 0.1))
    header = "mixture_ID,mixture_path,source_1_path,source_2_path,source_3_path,length"
    for row, message in (
        ("x,m.wav,m.wav,,m.wav,800", "an empty field between source paths; empty ones come last, their sources are silent"),
        ("x,m.wav,,m.wav,m.wav,800", "an empty field among mixture_ID, mixture_path and source_1_path"),
    ):
        (tmp_path / "m.csv").write_text(f"{header}\n{row}\n")
        assert refusal(read_manifest, tmp_path / "m.csv") == f"{tmp_path / 'm.csv'}:2: id 'x': {message}"


# Dynamic mixtures


def test_the_number_of_talkers_is_drawn_as_asked(table: Path):  # noqa: F811
    examples = drawn(table, n=200, n_src=3, talkers=(1, 0, 3))
    counts = [int((example.sources.abs().amax(-1) > 0).sum()) for example in examples]
    assert set(counts) == {1, 3} and 30 < counts.count(1) < 70
    for example, count in zip(examples, counts, strict=True):
        assert not example.sources[count:].any()
        assert torch.equal(example.mixture, example.sources.sum(0))
        assert len(set(speakers(example)[:count])) == count


def test_shares_of_talkers_without_meaning_are_refused(table: Path):  # noqa: F811
    expected = "expected shares of 1 to 2 talkers, one of them above 0"
    assert refusal(lambda: drawn(table, talkers=(1, 1, 1))) == f"data.dynamic.talkers: 3 shares, {expected}"
    assert refusal(lambda: drawn(table, talkers=(0.0, 0.0))) == f"data.dynamic.talkers: 0 for every number, {expected}"


# Weights of networks with another number of sources


@pytest.mark.parametrize(
    "make",
    [
        lambda n: DPRNNConfig(n_src=n, n_filters=8, bottleneck=8, hidden=8, blocks=1),
        lambda n: DPRNNConfig(n_src=n, filterbank="stft", window=32, stride=16, bottleneck=8, hidden=8, blocks=1),
        lambda n: ConvTasNetConfig(n_src=n, n_filters=8, bottleneck=8, hidden=8, skip=8, blocks=2, repeats=1),
    ],
)
def test_networks_begin_with_the_outputs_that_a_model_has(make):
    torch.manual_seed(0)
    two, three = build_model(make(2)).eval(), build_model(make(3)).eval()
    signal = torch.from_numpy(np.stack([speech_like(k, 0.5) for k in range(2)]).sum(0)).float()[None]
    three.load_state_dict(weights_for(three, two))
    torch.testing.assert_close(three(signal)[:, :2], two(signal))
    fewer = build_model(make(2)).eval()
    fewer.load_state_dict(weights_for(fewer, three))
    torch.testing.assert_close(fewer(signal), two(signal))
