"""Each setting of augmentation does its own thing, to the mixture or to mixture and references."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from speech_signals import speech_like

from sepml.errors import SepmlError
from sepml.speech.audio.files import write_wav
from sepml.speech.data.augment import Augment, draw_voice
from sepml.speech.data.channels import Band, Clipping, Equaliser, Gsm, Level, Mp3, MuLaw
from sepml.speech.data.dynamic_mixing import DynamicMixing, DynamicSegments
from sepml.speech.data.effects import Formants, Pitch, Place, Scene, Speed
from sepml.speech.data.loaders import Batch, DataSettings, train_loader
from sepml.speech.data.rooms_and_noise import Babble, Coloured, Hum, Recorded, Room
from sepml.speech.data.turn_taking import Alone, Silence, Turns

RATE = 8000
SEGMENT = 8000


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


def residual(example: Batch) -> torch.Tensor:
    return example.mixture - example.sources.sum(0)


def snr_db(example: Batch) -> float:
    total = example.sources.sum(0)
    return float(10 * torch.log10(total.square().mean() / residual(example).square().mean()))


def no_babble(rng: np.random.Generator, count: int) -> np.ndarray:
    raise NotImplementedError


# Voices


def test_voices_have_the_speed_pitch_and_formants_that_are_drawn():
    rng = np.random.default_rng(0)
    fast = draw_voice(rng, Augment(speed=Speed(1.0, (1.2, 1.2))))
    assert fast == (120, 1.0, 1.0)
    high = draw_voice(rng, Augment(pitch=Pitch(1.0, (12.0, 12.0))))
    assert high == (200, 0.5, 0.5)
    small = draw_voice(rng, Augment(formants=Formants(1.0, (1.1, 1.1))))
    assert small == (100, 1.0, 1.1)
    both = draw_voice(rng, Augment(speed=Speed(1.0, (0.9, 0.9)), pitch=Pitch(1.0, (-3.0, -3.0))))
    assert both.percent / 100 * both.tempo == pytest.approx(0.9) and both.percent == round(90 * 2**-0.25)
    drawn_speeds = [draw_voice(rng, Augment(speed=Speed(0.5))).percent for _ in range(400)]
    assert 80 <= min(drawn_speeds) < 84 and 121 < max(drawn_speeds) <= 125
    assert 0.4 < np.mean([percent == 100 for percent in drawn_speeds]) < 0.6


def test_short_utterances_lie_anywhere(table):
    def first_sample(examples: list[Batch]) -> list[int]:
        short = [s for example in examples for s in example.sources if s.count_nonzero() < 5000]
        assert len(short) > 10
        return [int(source.nonzero()[0]) for source in short]

    assert max(first_sample(drawn(table, None, 30))) < 80
    places = first_sample(drawn(table, Augment(place=Place()), 30))
    assert min(places) < 800 and max(places) > 2400 and len(set(places)) > 8


# Who talks when


def test_one_alone_and_silence(table):
    for example in drawn(table, Augment(alone=Alone(1.0))):
        talking = example.sources.abs().amax(-1) > 0
        assert talking.sum() == 1 and torch.equal(example.mixture, example.sources[talking.int().argmax()])
    who = [int(example.sources.abs().amax(-1).argmax()) for example in drawn(table, Augment(alone=Alone(1.0)), 30)]
    assert 5 < sum(who) < 25
    for example in drawn(table, Augment(silence=Silence(1.0))):
        assert not example.sources.any() and not example.mixture.any()
    for example in drawn(table, Augment(silence=Silence(1.0), coloured=Coloured(1.0, snr_db=(10.0, 10.0)))):
        # As loud as under a talker.
        assert not example.sources.any() and example.mixture.std() == pytest.approx(0.05 * 10**-0.5, rel=0.02)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_turns_in_any_order(share):
    firsts = set()
    for seed in range(12):
        scene = Scene(np.ones((2, SEGMENT), np.float32), RATE, np.random.default_rng(seed), no_babble, [])
        _, sources = Augment(turns=Turns(1.0, (share, share)))(scene)
        assert (sources > 0.5).all(0).mean() == pytest.approx(share, abs=0.01)
        firsts.add(int(sources[:, 0].argmax()))
    assert firsts == {0, 1}


# Rooms and channels: in the references too


def test_the_references_are_reverberant_equalised_and_band_limited(table):
    for augment in (Augment(room=Room(1.0)), Augment(equaliser=Equaliser(1.0)), Augment(band=Band(1.0))):
        for example in drawn(table, augment, 6):
            assert residual(example).abs().max() < 1e-5


def test_a_band_takes_what_lies_outside_from_talkers_and_noise(table):
    effects = Augment(band=Band(1.0, (500.0, 500.0), (2000.0, 2000.0)), coloured=Coloured(1.0, (0.0, 0.0), (0.0, 0.0)))
    outside = torch.fft.rfftfreq(SEGMENT, 1 / RATE)
    outside = (outside < 200) | (outside > 3500)
    for example in drawn(table, effects, 6):
        for signal in (example.mixture, residual(example), *example.sources):
            power = torch.fft.rfft(signal).abs().square()
            assert power[outside].sum() < 0.005 * power.sum()


def test_talkers_in_a_room_have_responses_of_their_own():
    click = np.zeros((2, SEGMENT), np.float32)
    click[:, 0] = 1
    scene = Scene(click, RATE, np.random.default_rng(0), no_babble, [])
    mixture, sources = Augment(room=Room(1.0, (0.3, 0.3)))(scene)
    assert np.corrcoef(sources[0, 20:2000], sources[1, 20:2000])[0, 1] < 0.5
    assert sources[:, 0] == pytest.approx([1, 1], abs=0.1) and not np.abs(sources[:, 2600:]).max() > 1e-3
    assert np.array_equal(mixture, sources.sum(0))


# Noise and codecs: in the mixture alone


@pytest.mark.parametrize(
    "effects",
    [
        {"coloured": Coloured(1.0, snr_db=(10.0, 20.0))},
        {"babble": Babble(1.0, snr_db=(10.0, 20.0))},
        {"hum": Hum(1.0, snr_db=(10.0, 20.0))},
    ],
)
def test_noise_is_so_far_below_the_talkers(table, effects):
    found = [snr_db(example) for example in drawn(table, Augment(**effects), 30)]
    assert 9.9 < min(found) < 13 and 17 < max(found) < 20.1


def test_babble_is_of_other_speakers(table):
    dataset = DynamicSegments(DynamicMixing(table, augment=Augment(babble=Babble(1.0, (1, 1)))), 2, SEGMENT, RATE, 0)
    asked = []
    dataset._piece = lambda rng, effects, speaker, gain: (np.ones(10, np.float32), asked.append(speaker) or [])
    for index in range(20):
        dataset[0, index]
    assert len(asked) == 60 and all(len(set(asked[k : k + 3])) == 3 for k in range(0, 60, 3))


def test_a_users_noise_is_relative_to_the_root_of_the_data(table):
    tone = np.sin(2 * np.pi * 440 * np.arange(30_000) / RATE)
    write_wav(table.parent / "noise" / "tone.wav", 0.3 * tone, RATE)
    effects = Augment(recorded=Recorded(1.0, (3.0, 3.0), folder=Path("noise")))
    settings = DataSettings(
        valid=Path("none.csv"), root=table.parent, segment=1.0, workers=0,
        dynamic=DynamicMixing(Path(table.name), size=4, augment=effects),
    )  # fmt: skip
    (batch,) = train_loader(settings, 2, 0)
    for mixture, sources in zip(batch.mixture, batch.sources, strict=True):
        assert snr_db(Batch(mixture, sources, ("",))) == pytest.approx(3, abs=0.1)
        noise = mixture - sources.sum(0)
        assert int(torch.fft.rfft(noise).abs().argmax()) == 440
    (table.parent / "notes").mkdir()
    (table.parent / "notes" / "notes.txt").write_text("not a recording")
    for folder, message in (
        ("nowhere", "no such folder of noise recordings"),
        ("notes", r"holds no recordings of noise \(\.wav, "),
    ):
        with pytest.raises(SepmlError, match=f"{folder}: {message}"):
            drawn(table, replace(effects, recorded=Recorded(folder=table.parent / folder)))


@pytest.mark.parametrize(
    ("effects", "lowest", "highest"),
    [
        ({"mu_law": MuLaw(1.0, (-3.0, 0.0))}, 33, 42),
        ({"mp3": Mp3(1.0, (16.0, 64.0))}, 3, 40),
        ({"gsm": Gsm(1.0)}, 3, 20),
        ({"clipping": Clipping(1.0, (6.0, 6.0))}, 5, 40),
    ],
)
def test_codecs_and_clipping_are_in_the_mixture_alone(table, effects, lowest, highest):
    plain = drawn(table, None, 6)
    for example, before in zip(drawn(table, Augment(**effects), 6), plain, strict=True):
        assert torch.equal(example.sources, before.sources)
        assert lowest < snr_db(example) < highest
        # At the level at which it came.
        assert example.mixture.std() == pytest.approx(float(before.mixture.std()), rel=0.3)


def test_level_is_of_mixture_and_references_together(table):
    for example, before in zip(drawn(table, Augment(level=Level(1.0, (-20.0, -20.0)))), drawn(table, None), strict=True):
        assert torch.allclose(example.mixture, 0.1 * before.mixture) and torch.allclose(example.sources, 0.1 * before.sources)
