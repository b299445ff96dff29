"""Augmented mixtures: each setting does its own thing, all of it is decided by (seed, epoch, index), off is as before."""

import csv
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from speech_signals import speech_like

from sepml.config import parse
from sepml.errors import SepmlError
from sepml.speech.audio.files import write_wav
from sepml.speech.data.augment import Augment
from sepml.speech.data.channels import Band, Mp3
from sepml.speech.data.dynamic_mixing import DynamicMixing, DynamicSegments
from sepml.speech.data.loaders import Batch, DataSettings, train_loader, valid_loader
from sepml.speech.data.manifest import Mixture, write_manifest
from sepml.speech.data.rooms_and_noise import Coloured
from sepml.speech.data.turn_taking import Alone, Conversation, Silence, Turns
from sepml.speech.task import SeparationTask

RATE = 8000
SEGMENT = 8000
ALWAYS = {
    field.name: field.type.__args__[0]
    for field in fields(Augment)
    if field.name not in ("alone", "silence", "turns", "conversation", "recorded")
}


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    """Five speakers with two utterances each, one of them shorter than a segment."""
    root = tmp_path_factory.mktemp("voices")
    rows = []
    for k in range(5):
        for take, seconds in enumerate((2.5, 0.6)):
            write_wav(root / f"spk{k}" / f"{take}.wav", speech_like(10 * k + take, seconds), RATE)
            rows.append([f"spk{k}/{take}.wav", f"spk{k}", "train"])
    with (root / "utterances.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file", "speaker", "split"], *rows])
    return root / "utterances.csv"


def drawn(table: Path, augment: Augment | None, n: int = 12, epoch: int = 0, seed: int = 0, n_src: int = 2) -> list[Batch]:
    dataset = DynamicSegments(DynamicMixing(table, size=n, augment=augment), n_src, SEGMENT, RATE, seed)
    examples = [dataset[epoch, index] for index in range(n)]
    return [Batch(torch.from_numpy(mixture), torch.from_numpy(sources), (id,)) for mixture, sources, id in examples]


# Off, and reproducible


def test_without_effects_the_mixtures_are_those_of_before(table):
    plain = drawn(table, None)
    for augment in (Augment(), Augment(**{name: kind(probability=0.0) for name, kind in ALWAYS.items()})):
        found = drawn(table, augment)
        assert all(torch.equal(a.sources, b.sources) for a, b in zip(plain, found, strict=True))
        assert all((a.mixture - b.mixture).abs().max() < 1e-7 for a, b in zip(plain, found, strict=True))


def test_effects_leave_the_choice_of_utterances_alone(table):
    """With a band the same utterances meet at the same places as without."""
    for a, b in zip(drawn(table, None), drawn(table, Augment(band=Band(1.0, (1.0, 1.0), (3900.0, 3900.0)))), strict=True):
        assert (a.sources - b.sources).square().sum() < 0.01 * a.sources.square().sum()


def test_an_augmented_mixture_depends_on_seed_epoch_and_index_only(table):
    who_talks = {"turns": Turns(), "conversation": Conversation(), "alone": Alone(), "silence": Silence()}
    augment = Augment(**{name: kind() for name, kind in ALWAYS.items()}, **who_talks)
    first, again = drawn(table, augment), drawn(table, augment)
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a.mixture, b.mixture) and torch.equal(a.sources, b.sources)
    for other in (drawn(table, augment, epoch=1), drawn(table, augment, seed=1), first[1:] + first[:1]):
        assert not any(torch.equal(a.mixture, b.mixture) for a, b in zip(first, other, strict=True))
    settings = DataSettings(
        valid=Path("none.csv"), root=table.parent, segment=1.0, batch_size=3, workers=0,
        dynamic=DynamicMixing(Path(table.name), size=12, augment=augment),
    )  # fmt: skip
    alone, shared = (
        {name: mixture for batch in train_loader(replace(settings, workers=workers), 2, 0)
         for name, mixture in zip(batch.ids, batch.mixture, strict=True)}
        for workers in (0, 2)
    )  # fmt: skip
    assert list(alone) == list(shared) and all(torch.equal(alone[name], shared[name]) for name in alone)
    assert all(torch.equal(alone[example.ids[0]], example.mixture) for example in first)


@pytest.mark.parametrize("name", sorted(ALWAYS))
@pytest.mark.parametrize("n_src", [2, 3])
def test_each_effect_alone_gives_whole_finite_float32_examples(table, name, n_src):
    changed = 0
    for example, plain in zip(
        drawn(table, Augment(**{name: ALWAYS[name](probability=1.0)}), 4, n_src=n_src), drawn(table, None, 4, n_src=n_src),
        strict=True,
    ):  # fmt: skip
        assert example.mixture.shape == (SEGMENT,) and example.sources.shape == (n_src, SEGMENT)
        assert example.mixture.dtype == example.sources.dtype == torch.float32
        assert example.mixture.isfinite().all() and example.sources.isfinite().all()
        changed += not (example.mixture - plain.mixture).abs().max() < 1e-4
    assert changed >= 2


# Settings, and validation


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"noise": {}}, r"unknown key 'augment.noise'"),
        ({"mu_lav": {}}, r"unknown key 'augment.mu_lav'; did you mean 'augment.mu_law'"),
        ({"room": {"probability": 2}}, r"'augment.room.probability': input should be less than or equal to 1, got 2"),
        ({"room": {"t60": [0.5, 0.2]}}, r"'augment.room.t60': .*expected the lower bound first, such as \[0.2, 0.5\]"),
        ({"speed": {"factor": [0.1, 1]}}, r"'augment.speed.factor.0': input should be greater than or equal to 0.5"),
        ({"recorded": {}}, r"'augment.recorded.folder' is missing"),
    ],
)
def test_settings_that_make_no_sense(words, message):
    with pytest.raises(SepmlError, match=message):
        parse(DynamicMixing, {"utterances": "u.csv", "augment": words}, "conf.yaml")


def test_settings_as_yaml_has_them():
    mixing = parse(DynamicMixing, {"utterances": "u.csv", "augment": {"mp3": {}, "turns": {"share": [0, 0.5]}}}, "conf.yaml")
    assert mixing.augment == Augment(mp3=Mp3(), turns=Turns(share=(0.0, 0.5)))
    assert parse(DynamicMixing, {"utterances": "u.csv"}, "conf.yaml").augment is None


@pytest.mark.parametrize("world", [1, 2])
def test_validation_on_augmented_mixtures_beside_the_manifest(table, world):
    x = speech_like(0, 1.5)
    for part, signal in (("mix", x + x[::-1]), ("s1", x), ("s2", x[::-1])):
        write_wav(table.parent / part / "one.wav", signal, RATE)
    paths = [table.parent / part / "one.wav" for part in ("mix", "s1", "s2")]
    write_manifest(table.parent / "valid.csv", [Mixture("one", paths[0], tuple(paths[1:]), len(x))] * 1)
    settings = DataSettings(
        valid=Path("valid.csv"), root=table.parent, segment=1.0,
        valid_dynamic=DynamicMixing(Path(table.name), size=5, augment=Augment(coloured=Coloured(1.0))),
    )  # fmt: skip
    loaders = [valid_loader(settings, 2, rank, world) for rank in range(world)]
    ids = [batch.ids[0] for loader in loaders for batch in loader]
    assert sorted(name.split()[0] for name in ids) == [*(f"epoch0-{k}" for k in range(5)), "one"]
    first, again = ([batch.mixture for batch in loaders[0]] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert len(list(valid_loader(replace(settings, valid_dynamic=None), 2))) == 1


def test_validation_on_drawn_mixtures_alone_comes_in_batches(table):
    settings = DataSettings(root=table.parent, segment=1.0, batch_size=4, valid_dynamic=DynamicMixing(Path(table.name), size=6))
    assert [batch.mixture.shape for batch in valid_loader(settings, 2)] == [(4, 8000), (2, 8000)]
    with pytest.raises(SepmlError, match=r"data: 'valid' \(.*\) or 'valid_dynamic' \(.*\) is needed"):
        valid_loader(replace(settings, valid_dynamic=None), 2)


def test_a_ceiling_takes_the_gradient_from_what_is_good_enough():
    """Of one talker alone, whose estimate is the mixture but for a little; two talkers are far from the ceiling."""
    rng = np.random.default_rng(0)
    one, other = torch.from_numpy(rng.standard_normal((2, SEGMENT)).astype(np.float32))
    noise = torch.from_numpy(rng.standard_normal((2, SEGMENT)).astype(np.float32))

    def gradient(ceiling: float | None, sources: torch.Tensor, error: float) -> float:
        est_sources = (sources + error * noise).requires_grad_()
        batch = Batch(sources.sum(0)[None], sources[None], ("x",))
        SeparationTask(ceiling=ceiling).supervised_loss(est_sources[None], batch).sum().backward()
        return float(est_sources.grad[0].norm())

    alone, both = torch.stack([one, torch.zeros_like(one)]), torch.stack([one, other])
    assert gradient(30, alone, 0.001) < 0.02 * gradient(None, alone, 0.001)
    assert gradient(30, both, 0.4) == pytest.approx(gradient(None, both, 0.4), rel=0.02)
