"""`sepml adapt` end to end with small models on recordings that are made here."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from speech_signals import speech_like
from tiny_models import TINY, built

from sepml.cli import main
from sepml.errors import SepmlError
from sepml.mutual import TeachingRules
from sepml.speech.adaptation import adapt as module
from sepml.speech.adaptation.adapt import AdaptSettings, adapt, load_start
from sepml.speech.adaptation.blind import BlindScores, blind_scores, decision, mean_and_error
from sepml.speech.adaptation.learn import Learner, LearningSettings, between
from sepml.speech.data.material import read_material
from sepml.speech.models.model import load_model, save_model
from sepml.speech.separation.adapting import adapted
from sepml.speech.separation.separator import Separator
from sepml.speech.separation.talkers import TalkerCount

EVERYWHERE = LearningSettings(batch_size=4, teaching=TeachingRules(threshold=-100.0))


def conversation(path: Path, seconds: float = 12.0, rate: int = 8000, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    x = speech_like(seed, seconds, rate) + speech_like(seed + 50, seconds, rate)
    soundfile.write(path, 0.3 * x / np.abs(x).max(), rate)
    return path


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Path:
    """Two networks, averaged."""
    folder = tmp_path_factory.mktemp("pair")
    for k in (1, 2):
        save_model(folder / f"peer{k}", built(TINY["stft"], seed=k))
    (folder / "config.json").write_text('{"format": "sepml-ensemble-1", "peers": 2}')
    (folder / "best.json").write_text('{"peer": 2}')
    return folder


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("recordings")
    return [conversation(folder / f"call{n}.wav", seed=n) for n in range(2)]


def weights(folder: Path) -> list[torch.Tensor]:
    return [w for k in (1, 2) for w in load_model(folder / f"peer{k}").state_dict().values()]


def same(one: list[torch.Tensor], two: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_material_is_spoken_segments_of_equal_power(recordings, tmp_path):
    rest = soundfile.read(recordings[0])[0]
    soundfile.write(tmp_path / "pause.wav", np.concatenate([rest, np.zeros(40_000)]), 8000)
    material = read_material([tmp_path / "pause.wav"], 8000)
    assert material.segments.shape == (6, 16_000), "the pause is left out"
    torch.testing.assert_close(material.segments.square().mean(1).sqrt(), torch.full((6,), 0.1))
    assert material.segments.mean(1).abs().max() < 1e-6


def test_recordings_of_which_nothing_can_be_learnt_are_named_and_left_out(recordings, tmp_path):
    soundfile.write(tmp_path / "silent.wav", np.zeros(40_000), 8000)
    soundfile.write(tmp_path / "short.wav", np.ones(800) * 0.1, 8000)
    (tmp_path / "broken.wav").write_bytes(b"RIFF no sound")
    files = [tmp_path / "silent.wav", *recordings, tmp_path / "short.wav", tmp_path / "broken.wav"]
    material = read_material(files, 8000)
    assert len(material.segments) == 12 and len(material.digests) == 2
    said = "\n".join(material.left_out)
    assert len(material.left_out) == 3 and "silent.wav: is silence" in said and "short.wav: is shorter than 2 s" in said
    with pytest.raises(SepmlError, match=r"nothing to learn from: .*silent\.wav"):
        read_material(files[:1], 8000)


def test_another_rate_is_resampled(tmp_path):
    assert read_material([conversation(tmp_path / "x.flac", rate=22_050)], 8000).segments.shape == (6, 16_000)


def test_more_than_fits_is_drawn_from_all_of_it(recordings):
    few = read_material(recordings, 8000, most=5)
    whole = read_material(recordings, 8000).segments
    places = [int((whole - segment).abs().sum(1).argmin()) for segment in few.segments]
    assert len(set(places)) == 5 and max(places) >= 5


@pytest.fixture
def everywhere(monkeypatch):
    """Untrained networks agree about nothing and give copies of the mixture."""
    for user in ("task", "adaptation.adapt", "adaptation.blind"):
        monkeypatch.setattr(f"sepml.speech.{user}.is_separated", lambda _, mixture: torch.ones(len(mixture), dtype=bool))
    monkeypatch.setattr(module, "_AGREED_DB", -100.0)
    return AdaptSettings(steps=30, learning=EVERYWHERE)


def test_steps_learn_and_teachers_follow_slowly(pair, recordings, everywhere):
    models = [load_model(pair / f"peer{k}") for k in (1, 2)]
    before = [w.clone() for model in models for w in model.parameters()]
    learner = Learner(models, read_material(recordings, 8000).segments, 10, EVERYWHERE)
    figures = [learner.step() for _ in range(10)]
    now = [w for model in models for w in model.parameters()]
    means = [w for model in learner.teachers.averages for w in model.parameters()]
    assert all(np.isfinite(each.agreement) and each.gate_open == 1 for each in figures)
    moved = [sum(float((a - b).norm()) for a, b in zip(of, before, strict=True)) for of in (now, means)]
    assert 0 < moved[1] < 0.1 * moved[0]
    assert not any(w.requires_grad for w in means)


def test_a_gate_that_nothing_passes_leaves_the_models_as_they_are(pair, recordings):
    models = [load_model(pair / f"peer{k}") for k in (1, 2)]
    settings = LearningSettings(batch_size=4, teaching=TeachingRules(threshold=39.9))
    learner = Learner(models, read_material(recordings, 8000).segments, 3, settings)
    assert [learner.step().gate_open for _ in range(3)] == [0, 0, 0]
    assert same([w for model in models for w in model.state_dict().values()], weights(pair))


def test_killed_and_called_again_it_goes_on_bit_for_bit(pair, recordings, tmp_path, everywhere, monkeypatch):
    monkeypatch.setattr(module, "decision", lambda scores: (True, "because"))
    adapt(load_start(pair), recordings, tmp_path / "whole", everywhere)
    monkeypatch.setattr(module, "_SAVE_EVERY", 10)
    step, stop_at = Learner.step, 17

    def interrupted(self):
        if self.done == stop_at:
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(Learner, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        adapt(load_start(pair), recordings, tmp_path / "parts", everywhere)
    monkeypatch.setattr(Learner, "step", step)
    done = adapt(load_start(pair), recordings, tmp_path / "parts", everywhere)
    assert done.steps == 30 and same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    assert not same(weights(tmp_path / "whole"), weights(pair))
    assert {path.name for path in (tmp_path / "parts").iterdir()} == {
        "adapt.json", "best.json", "config.json", "peer1", "peer2",
    }  # fmt: skip


def test_a_model_that_is_not_better_stays_and_the_folder_says_why(pair, recordings, tmp_path, everywhere, monkeypatch):
    monkeypatch.setattr(module, "blind_scores", lambda *_: scores(start=(0.5, 0.1), adapted=(0.05, 0.1)))
    done = adapt(load_start(pair), recordings, tmp_path / "out", everywhere)
    assert not done.kept and "+0.50 dB (+- 0.10) on remixes of start" in done.reason
    assert same(weights(tmp_path / "out"), weights(pair))
    assert json.loads((tmp_path / "out/best.json").read_text()) == {"peer": 2}
    note = (tmp_path / "out/adapt.json").read_text()
    assert json.loads(note)["result"]["kept"] is False
    assert "call0" not in note and str(recordings[0].parent) not in note, "no names of recordings"


def scores(**gains: tuple[float, float]) -> dict[str, BlindScores]:
    return {name: BlindScores(*gain, 0.5, 0.2) for name, gain in gains.items()}


@pytest.mark.parametrize(("gains", "kept"), [
    ({"start": (0.3, 0.1), "adapted": (0.2, 0.1)}, True),
    ({"start": (-0.3, 0.1), "adapted": (0.9, 0.1)}, False),
    ({"start": (0.05, 0.1), "adapted": (0.9, 0.1)}, False),
    ({"start": (0.3, 0.1)}, False),
])  # fmt: skip
def test_both_gains_have_to_be_above_their_errors(gains, kept):
    assert decision(scores(**gains))[0] is kept


def test_blind_scores_of_a_model_over_itself_are_zero(pair, recordings, everywhere):
    models = [load_model(pair / f"peer{k}") for k in (1, 2)]
    found = blind_scores(models, models, read_material(recordings, 8000).segments, 5.0)
    assert [(of.gain, of.error) for of in found.values()] == [(0.0, 0.0)] * 2
    assert all(-1 <= of.correlation <= 1 and np.isfinite(of.averaging) for of in found.values())


def test_untrained_networks_give_copies_of_the_mixture_by_which_nothing_can_be_judged(pair, recordings):
    models = [load_model(pair / f"peer{k}") for k in (1, 2)]
    assert blind_scores(models, models, read_material(recordings, 8000).segments, 5.0) == {}


def test_the_standard_error_counts_parents_not_new_mixtures():
    """Values that are the sum of their parents' have the spread of sums of a few parents, however many pairs there are."""
    generator = torch.Generator().manual_seed(0)
    means, errors = [], []
    for _ in range(400):
        own = torch.randn(16, generator=generator)
        parents = torch.cat([torch.stack([torch.arange(16), torch.arange(16).roll(shift)], 1) for shift in range(1, 9)])
        mean, error = mean_and_error(own[parents].sum(1), parents)
        means.append(mean)
        errors.append(error)
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.1)


def bands(ests: list[torch.Tensor], mixture: torch.Tensor) -> torch.Tensor:
    """What lies below 500 Hz, and above."""
    spectrum = torch.fft.rfft(mixture)
    low = torch.arange(spectrum.shape[-1]) < 500 / 4000 * spectrum.shape[-1]
    return torch.stack([torch.fft.irfft(spectrum * part, mixture.shape[-1]) for part in (low, ~low)], 1)


def test_students_learn_what_the_teachers_separate(pair, recordings, everywhere, monkeypatch):
    monkeypatch.setattr("sepml.speech.task.pseudo_references", bands)
    models = [load_model(pair / f"peer{k}") for k in (1, 2)]
    settings = replace(EVERYWHERE, learning_rate=1e-2)
    learner = Learner(models, read_material(recordings, 8000).segments, 100, settings)
    step, values = learner.cohort.step, []
    monkeypatch.setattr(
        learner.cohort, "step", lambda *args, **more: values.append(-float(step(*args, **more).supervised.mean()))
    )
    for _ in range(100):
        learner.step()
    assert np.mean(values[-10:]) > np.mean(values[:10]) + 3


@pytest.mark.parametrize(("name", "content", "said"), [
    ("adapt.json", b"{", "adapt.json"),
    ("adapt.json", b'{"format": "other"}', "is no note of an adaptation of this version"),
    ("adapt.ckpt", b"PK broken", "adapt.ckpt: is damaged"),
])  # fmt: skip
def test_a_damaged_folder_is_one_line(pair, recordings, tmp_path, everywhere, capsys, name, content, said):
    assert command(pair, tmp_path / "out", *recordings, "--steps", 2) == 0
    note = json.loads((tmp_path / "out/adapt.json").read_text())
    del note["result"]
    (tmp_path / "out/adapt.json").write_text(json.dumps(note))
    (tmp_path / "out" / name).write_bytes(content)
    capsys.readouterr()
    assert command(pair, tmp_path / "out", *recordings, "--steps", 2) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert said in error and "Traceback" not in error


def command(pair: Path, out: Path, *words: object) -> int:
    return main(["adapt", *map(str, words), "-o", str(out), "--model", str(pair), "-d", "cpu"])


def test_the_command_says_what_came_out_and_its_folder_separates(pair, recordings, tmp_path, everywhere, capsys):
    summary = tmp_path / "summary.json"
    assert command(pair, tmp_path / "out", recordings[0].parent, "--steps", 3, "--summary", summary) == 0
    said = capsys.readouterr()
    assert "3 steps on 24 s of several talkers" in said.out and json.loads(summary.read_text())["steps"] == 3
    assert main(["separate", "-q", str(recordings[0]), "--model", str(tmp_path / "out"), "-o", str(tmp_path / "sep")]) == 0
    assert {path.name for path in (tmp_path / "sep").iterdir()} == {"call0_s1.wav", "call0_s2.wav"}
    # The same command finds it done; another one is refused.
    assert command(pair, tmp_path / "out", recordings[0].parent, "--steps", 3) == 0
    assert "was done before" in capsys.readouterr().err
    assert command(pair, tmp_path / "out", recordings[0].parent, "--steps", 4) == 1
    assert "holds an adaptation with steps = 3, now 4" in capsys.readouterr().err
    other = conversation(tmp_path / "other.wav", 20.0, seed=9)
    assert command(pair, tmp_path / "out", other, "--steps", 3) == 1
    assert "holds an adaptation with recordings.0 = " in capsys.readouterr().err


def test_minutes_become_steps_that_are_noted(pair, recordings, tmp_path, everywhere, capsys):
    assert command(pair, tmp_path / "out", *recordings, "--minutes", 0.002) == 0
    steps = json.loads((tmp_path / "out/adapt.json").read_text())["steps"]
    assert steps >= 10 and f"{steps} steps on" in capsys.readouterr().out


@pytest.mark.parametrize(("words", "said", "code"), [
    (["absent.wav"], "absent.wav", 1),
    (["--steps", "0"], "not a whole number of 1 or more", 2),
    (["--minutes", "0"], "not a number of minutes above 0", 2),
])  # fmt: skip
def test_bad_input_is_one_line(pair, recordings, tmp_path, everywhere, capsys, words, said, code):
    words = words if code == 1 else [recordings[0], *words]
    try:
        found = command(pair, tmp_path / "out", *words)
    except SystemExit as error:
        found = error.code
    assert found == code
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert said in last and "Traceback" not in last


def test_too_little_speech_and_foreign_folders_are_refused(pair, recordings, tmp_path, everywhere, capsys):
    few = conversation(tmp_path / "few.wav", 6.0)
    assert command(pair, tmp_path / "out", few, "--steps", 2) == 1
    assert "3 segments of 2 s in which the model hears several talkers are too few" in capsys.readouterr().err
    shutil.copytree(pair, tmp_path / "mine")
    assert command(pair, tmp_path / "mine", *recordings, "--steps", 2) == 1
    assert "but not the adapt.json of an adaptation" in capsys.readouterr().err


def test_recordings_of_another_number_of_talkers_are_named_and_left_out(pair, recordings, tmp_path, everywhere, caplog):
    class Counter:
        """Counts two talkers in conversations of 12 s, one in others."""

        def count(self, blocks, rate):
            return TalkerCount(2 if sum(map(len, blocks)) == 12 * rate else 1, 0.99)

    alone = conversation(tmp_path / "alone.wav", 10.0, seed=7)
    start = load_start(pair)
    settings = AdaptSettings(steps=2, learning=EVERYWHERE)
    done = adapted(start.models, [*recordings, alone], tmp_path / "out", settings, counter=Counter())
    line = f"{alone}: 1 talker (99 % sure), expected 2"
    assert done.left_out == (line,) and f"left out: {line}" in caplog.text


def test_a_single_network_adapts_as_well(pair, recordings, tmp_path, everywhere):
    assert command(pair / "peer1", tmp_path / "out", *recordings, "--steps", 2) == 0
    assert load_model(tmp_path / "out").config == load_model(pair / "peer1").config


def test_recordings_in_which_the_model_hears_one_talker_are_named_and_left_out(pair, recordings, tmp_path, monkeypatch, caplog):
    alone = conversation(tmp_path / "alone.wav", 12.0, seed=7)
    held = read_material([alone], 8000).segments
    known = {tuple(segment[:8].tolist()) for segment in held}

    def several(_, mixture):
        return torch.tensor([tuple(x[:8].tolist()) not in known for x in mixture])

    for user in ("task", "adaptation.adapt", "adaptation.blind"):
        monkeypatch.setattr(f"sepml.speech.{user}.is_separated", several)
    monkeypatch.setattr(module, "_AGREED_DB", -100.0)
    done = adapt(load_start(pair), [alone, *recordings], tmp_path / "out", AdaptSettings(steps=2, learning=EVERYWHERE))
    assert done.left_out == (f"{alone}: the model does not hear two talkers at once in it",) and done.seconds == 24
    with pytest.raises(SepmlError, match="0 segments of 2 s in which the model hears several talkers are too few"):
        adapt(load_start(pair), [alone], tmp_path / "none", AdaptSettings(steps=2))


def test_a_separator_adapts_in_python_and_stays_as_it_is(pair, recordings, tmp_path, everywhere, monkeypatch):
    monkeypatch.setattr(module, "decision", lambda scores: (True, "because"))
    start = Separator.load(pair, ensemble=True)
    before = [w.clone() for model in start.models for w in model.state_dict().values()]
    start.full_band = False
    adapted, done = start.adapt([str(recordings[0].parent)], steps=3)
    assert done.kept and len(adapted.models) == 2 and not adapted.full_band
    assert same(before, [w for model in start.models for w in model.state_dict().values()])
    assert not same(before, [w for model in adapted.models for w in model.state_dict().values()])
    again, _ = start.adapt(recordings, out=tmp_path / "kept", steps=3)
    assert same(*([w for model in each.models for w in model.state_dict().values()] for each in (adapted, again)))
    assert (tmp_path / "kept/adapt.json").exists()


def test_separating_learns_from_the_very_recordings_first(pair, recordings, tmp_path, everywhere, capsys):
    words = ["separate", "-q", "--model", str(pair), "--ensemble", "-o", str(tmp_path / "out"), str(recordings[0].parent)]
    assert main([*words, "--adapt", "0.002"]) == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"adapted", "call0_s1.wav", "call0_s2.wav", "call1_s1.wav", "call1_s2.wav"}
    assert json.loads((tmp_path / "out/adapted/adapt.json").read_text())["result"]["steps"] >= 10
    assert json.loads((tmp_path / "out/adapted/best.json").read_text()) == {"peer": 2}, "as in the folder of the start"
    # Again: nothing is learnt anew, and outputs are kept.
    assert main([*words, "--adapt", "0.002"]) == 0
    with pytest.raises(SystemExit):
        main(["separate", str(recordings[0]), "--adapt", "1", "-o", "-"])
    assert "--adapt: needs a folder" in capsys.readouterr().err


def test_recordings_about_which_networks_do_not_agree_are_left_out(pair, recordings, tmp_path, everywhere, monkeypatch):
    other = conversation(tmp_path / "music.wav", 16.0, seed=7)
    known = {tuple(segment[:8].tolist()) for segment in read_material([other], 8000).segments}

    separated: list[torch.Tensor] = []
    monkeypatch.setattr(module, "estimates", lambda model, part: separated.append(part) or model(part).detach())

    def by_recording(ests):
        return torch.stack([torch.tensor(3.0 if tuple(x[:8].tolist()) in known else 20.0) for x in separated[-1]]).expand(
            2, 2, -1
        )

    monkeypatch.setattr(module, "agreement_of", by_recording)
    monkeypatch.setattr(module, "_AGREED_DB", 9.0)
    done = adapt(load_start(pair), [other, *recordings], tmp_path / "out", AdaptSettings(steps=2, learning=EVERYWHERE))
    assert len(done.left_out) == 1 and done.left_out[0].startswith(f"{other}: the networks of the model do not agree")
    short = conversation(tmp_path / "short.wav", 14.0, seed=7)
    known |= {tuple(segment[:8].tolist()) for segment in read_material([short], 8000).segments}
    kept = adapt(load_start(pair), [short, *recordings], tmp_path / "kept", AdaptSettings(steps=2, learning=EVERYWHERE))
    assert kept.left_out == (), "a few segments say little about a recording"


def test_what_is_kept_lies_on_the_way_to_what_was_learnt(pair, recordings, tmp_path, everywhere, monkeypatch):
    monkeypatch.setattr(module, "decision", lambda scores: (True, "because"))
    learnt: list[torch.Tensor] = []

    def watched(start, models, share):
        learnt.extend(w.clone() for model in models for w in model.state_dict().values())
        return between(start, models, share)

    monkeypatch.setattr(module, "between", watched)
    adapt(load_start(pair), recordings, tmp_path / "out", AdaptSettings(steps=3, learning=EVERYWHERE))
    expected = [torch.lerp(one, other, 1 / 3) for one, other in zip(weights(pair), learnt, strict=True)]
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(weights(tmp_path / "out"), expected, strict=True))
    assert not same(weights(tmp_path / "out"), weights(pair))


def test_outputs_beside_the_recordings_are_not_learnt_from(pair, recordings, tmp_path, everywhere):
    for file in recordings:
        shutil.copy(file, tmp_path)
    words = ["separate", "-q", "--model", str(pair), "--ensemble", "-o", str(tmp_path), str(tmp_path), "--adapt", "0.002"]
    words += ["--filename", "{name}-talker{n}.{ext}"]
    assert main(words) == 0
    asked = json.loads((tmp_path / "adapted/adapt.json").read_text())["asked"]
    assert len(asked["recordings"]) == 2
    # The same command finds what it has learnt from, and its outputs, and does nothing anew.
    assert main(words) == 0
