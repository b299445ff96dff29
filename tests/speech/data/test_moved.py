"""A data set that was moved: relative paths move with their table, absolute ones are found in the place that is named."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tiny_models import TINY, built

from sepml.cli import main
from sepml.errors import SepmlError
from sepml.speech.data import manifest
from sepml.speech.data.dynamic_mixing import DynamicMixing
from sepml.speech.data.loaders import DataSettings, train_loader, valid_loader
from sepml.speech.data.manifest import read_manifest, write_manifest
from sepml.speech.data.mixtures import Mixture, find_moved
from sepml.speech.models.model import save_model

IDS = ("a", "b", "c")
RATE = 8000


def write(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.random.default_rng(seed).standard_normal(4000), RATE, subtype="FLOAT")
    return path


@pytest.fixture
def old(tmp_path) -> Path:
    """A data set; its manifest and its table of utterances lie elsewhere, so that they name its files by absolute paths."""
    mixtures = []
    for k, name in enumerate(IDS):
        sources = [write(tmp_path / f"old/audio/s{s}/{name}.wav", 10 * k + s) for s in (1, 2)]
        x = sum(soundfile.read(source)[0] for source in sources)
        (tmp_path / "old/audio/mix").mkdir(exist_ok=True)
        soundfile.write(tmp_path / f"old/audio/mix/{name}.wav", x, RATE, subtype="FLOAT")
        noise = write(tmp_path / f"old/audio/noise/{name}.wav", 99)
        mixtures.append(Mixture(name, tmp_path / f"old/audio/mix/{name}.wav", tuple(sources), 4000, noise))
    write_manifest(tmp_path / "lists/tt.csv", mixtures)
    rows = [f"{tmp_path}/old/audio/s{s}/{name}.wav,spk{s},train" for s in (1, 2) for name in IDS]
    (tmp_path / "lists/utterances.csv").write_text("\n".join(["file,speaker,split", *rows]) + "\n")
    return tmp_path / "old"


def test_absolute_paths_are_found_where_they_were_moved_to(old, tmp_path, monkeypatch):
    table = tmp_path / "lists/tt.csv"
    before = read_manifest(table)[1]
    assert read_manifest(table, tmp_path / "nowhere")[1] == before, "what is there is not looked for"
    old.rename(tmp_path / "new")
    with pytest.raises(SepmlError, match=r"tt\.csv:2: id 'a': there is no file .*old/audio/mix/a\.wav \(paths are absolute"):
        read_manifest(table)
    for place in ("new", "new/audio"):
        found = read_manifest(table, tmp_path / place)
        assert found[1].mixture == tmp_path / "new/audio/mix/b.wav" and found[1].noise == tmp_path / "new/audio/noise/b.wav"
        assert found[1].sources == tuple(tmp_path / f"new/audio/s{s}/b.wav" for s in (1, 2))
        assert [m.id for m in found[1:]] == ["b", "c"] and found[1:][0].sources == found[1].sources
    (tmp_path / "new/audio/s2/c.wav").unlink()
    expected = rf"tt\.csv:4: id 'c': there is no file {old}/audio/s2/c\.wav, nor where it would be in {tmp_path}/new \("
    with pytest.raises(SepmlError, match=expected):
        read_manifest(table, tmp_path / "new")
    # Of a long manifest most files are looked for only when they are asked for.
    monkeypatch.setattr(manifest, "LOOKED_FOR", 2)
    (tmp_path / "new/audio/s2/c.wav").symlink_to("a.wav")
    (tmp_path / "new/audio/s2/b.wav").rename(tmp_path / "new/audio/s2/x.wav")
    with pytest.raises(SepmlError, match=r"id 'b': there is no file"):
        read_manifest(table, tmp_path / "new")[1]


def test_the_training_data_may_be_elsewhere(old, tmp_path):
    settings = DataSettings(Path("tt.csv"), root=tmp_path / "lists", train=Path("tt.csv"), segment=0.1, workers=0)
    dynamic = DynamicMixing(Path("utterances.csv"), size=4)
    anew = DataSettings(Path("tt.csv"), root=tmp_path / "lists", dynamic=dynamic, segment=0.1, workers=0)
    before = [[*train_loader(one, 2, 0), *valid_loader(one, 2)] for one in (settings, anew)]
    old.rename(tmp_path / "new")
    for one, batches in zip((settings, anew), before, strict=True):
        with pytest.raises(SepmlError):
            [*train_loader(one, 2, 0)]
        moved = DataSettings(**{**vars(one), "moved_to": tmp_path / "new"})
        again = [*train_loader(moved, 2, 0), *valid_loader(moved, 2)]
        assert all((a.mixture == b.mixture).all() for a, b in zip(batches, again, strict=True))


def test_the_commands_find_it(old, tmp_path, capsys):
    for k, name in enumerate(IDS):
        for s in (1, 2):
            write(tmp_path / f"est/{name}_s{s}.wav", 10 * k + s)
    table, here = f"{tmp_path}/lists/tt.csv", ["--moved-to", f"{tmp_path}/new"]
    old.rename(tmp_path / "new")
    score = ["score", "--manifest", table, "--est", f"{tmp_path}/est", "--metrics", "si_snr", "-j1"]
    save_model(tmp_path / "model", built(TINY["stft"]))
    evaluate = ["evaluate", "--manifest", table, "--model", f"{tmp_path}/model", "--metrics", "si_snr", "-j1", "-d", "cpu"]
    tried = ([*score, "-o", f"{tmp_path}/o"], ["shard", table, f"{tmp_path}/shards"], [*evaluate, "-o", f"{tmp_path}/e"])
    for words in (*tried, ["check", table]):
        assert main(words) == 1
        assert "no file" in (said := capsys.readouterr()).err or "no such file" in said.out
        # Noise is no sum of the mixture here.
        assert main([*words, *here]) == (1 if words[0] == "check" else 0)
        assert "no such file" not in (said := capsys.readouterr()).out + said.err


def test_what_is_relative_moves_with_its_table(old, tmp_path):
    rows = [["mixture_ID", "mixture_path", "source_1_path", "source_2_path", "length"]]
    rows += [[name, f"audio/mix/{name}.wav", f"../old/audio/s1/{name}.wav", f"audio/s2/{name}.wav", "4000"] for name in IDS]
    (old / "tt.csv").write_text("".join(",".join(row) + "\n" for row in rows))
    assert read_manifest(old / "tt.csv")[0].mixture == old / "audio/mix/a.wav"
    (tmp_path / "deep").mkdir()
    new = old.rename(tmp_path / "deep/old")
    assert read_manifest(new / "tt.csv")[0].mixture == new / "audio/mix/a.wav"


@pytest.mark.parametrize(
    ("files", "there", "found"),
    [
        # The longest part counts.
        (["/o/c/mix/a.wav"], ["mix/a.wav", "c/mix/a.wav"], ["c/mix/a.wav"]),
        # What tells the files apart is kept: a.wav alone would be all three of them.
        (["/o/mix/a.wav", "/o/s1/a.wav", "/o/s2/a.wav"], ["a.wav"], None),
        (
            ["/o/mix/a.wav", "/o/s1/a.wav", "/o/s2/a.wav"],
            ["mix/a.wav", "s1/a.wav", "s2/a.wav"],
            ["mix/a.wav", "s1/a.wav", "s2/a.wav"],
        ),
        # Of a flat folder the names are enough.
        (["/o/c/a_mix.wav", "/o/c/a_s1.wav"], ["a_mix.wav", "a_s1.wav"], ["a_mix.wav", "a_s1.wav"]),
        # From two places: the last folder is kept.
        (["/o/mix/a.wav", "/p/s1/a.wav"], ["mix/a.wav", "s1/a.wav"], ["mix/a.wav", "s1/a.wav"]),
        (["/o/x/a.wav", "/p/x/a.wav"], ["x/a.wav"], None),
        # One that is not there stays as it was.
        (["/o/mix/a.wav", "/o/s1/a.wav"], ["mix/a.wav"], ["mix/a.wav", "/o/s1/a.wav"]),
    ],
)
def test_which_file_stands_for_which(tmp_path, files, there, found):
    for name in there:
        write(tmp_path / name, 0)
    named = [Path(f"/nowhere-{tmp_path.name}-{file[1:]}") for file in files]
    expected = named if found is None else [named[k] if one[0] == "/" else tmp_path / one for k, one in enumerate(found)]
    assert find_moved(named, tmp_path) == expected
    assert find_moved(named, None) == named


def test_training_goes_on_where_the_data_was_moved(old, tmp_path):
    network = {"kind": "dprnn", "filterbank": "stft", "window": 128, "stride": 64, "bottleneck": 8, "hidden": 8, "blocks": 1}
    network |= {"chunk": 8, "chunk_stride": 8}
    settings = {
        "data": {"root": str(tmp_path / "lists"), "valid": "tt.csv", "train": "tt.csv", "segment": 0.1, "workers": 0},
        "peers": [network],
        "cohort": {"mechanism": "solo"},
        "fit": {"epochs": 1, "tensorboard": False},
    }
    (tmp_path / "c.yaml").write_text(json.dumps(settings))
    words = ["train", "-q", "-d", "cpu", "--config", f"{tmp_path}/c.yaml", "--exp", f"{tmp_path}/exp"]
    assert main(words) == 0
    old.rename(tmp_path / "new")
    assert main([*words, "--fit.epochs", "2"]) == 1
    assert main([*words, "--fit.epochs", "2", "--data.moved_to", f"{tmp_path}/new"]) == 0
    assert (tmp_path / "exp" / "history.csv").read_text().count("\n") == 3
