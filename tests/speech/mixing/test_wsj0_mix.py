"""wsj0-2mix and wsj0-3mix from a made-up WSJ0 with the official names: bit for bit the plain program's, and verified."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
from mixing_corpus import made, serial_mixtures, speech_like
from wsj0_recipe import recipe

from sepml.errors import SepmlError
from sepml.speech.audio.files import write_wav
from sepml.speech.corpora import wsj0
from sepml.speech.mixing.check_lists import Sums, check_wsj0
from sepml.speech.mixing.mix import mix_lists
from sepml.speech.mixing.mixlist import read_levels

SPLITS = ("tr", "cv", "tt")
LINES = 50
FEW = 25


@pytest.fixture(scope="module")
def lists(shared_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first lines of the published lists, and the published levels of their utterances."""
    folder = tmp_path_factory.mktemp("lists")
    named = set()
    for n_src in (2, 3):
        for split in SPLITS:
            with (shared_dir / "wsj0-mix-lists" / f"mix_{n_src}_spk_{split}.txt").open() as file:
                lines = [next(file) for _ in range(LINES)]
            (folder / f"mix_{n_src}_spk_{split}.txt").write_text("".join(lines))
            named |= {Path(path).stem for line in lines for path in line.split()[::2]}
    (folder / "activlev").mkdir()
    levels = read_levels(shared_dir / "wsj0-mix-lists" / "activlev")
    table = "".join(f"{name} {levels[name]!r}\n" for name in sorted(named))
    (folder / "activlev" / "activlev_some.txt").write_text(table)
    return folder


@pytest.fixture(scope="module")
def corpus(lists: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made-up WSJ0: short noises under the official names, at the levels of the published tables."""
    folder = tmp_path_factory.mktemp("corpus")
    paths = {path for file in lists.glob("mix_*.txt") for line in file.open() for path in line.split()[::2]}
    levels = read_levels(lists / "activlev")
    for number, path in enumerate(sorted(paths)):
        x = speech_like(number)[: 4000 + number % 2000]
        x *= np.sqrt(levels[Path(path).stem] / np.mean(x**2))
        write_wav(folder / path, np.clip(x, -1, 1), 16000)
    return folder


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("rate", [8000, 16000])
@pytest.mark.parametrize("n_src", [2, 3])
def test_every_mixture_of_the_published_lists_is_the_plain_programs(lists, corpus, tmp_path, n_src, rate, mode):
    names = [lists / f"mix_{n_src}_spk_{split}.txt" for split in SPLITS]
    mix_lists(names, corpus, tmp_path / "out", rate, mode, lists / "activlev", jobs=1)
    for split, name in zip(SPLITS, names, strict=True):
        plain = tmp_path / split
        plain.mkdir()
        (plain / "wsj0").symlink_to(corpus / "wsj0")
        (plain / "levels").symlink_to(lists / "activlev")
        shutil.copy(name, plain / f"mix_{n_src}_spk_tr.txt")
        expected = serial_mixtures(plain, n_src, rate, mode, table=True)
        assert len(expected) == LINES * (n_src + 1)
        assert made(tmp_path / "out" / f"wav{rate // 1000}k" / mode / split, rate) == expected


@pytest.fixture(scope="module")
def few(lists: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lists, shorter still."""
    folder = tmp_path_factory.mktemp("few")
    (folder / "activlev").symlink_to(lists / "activlev")
    for file in lists.glob("mix_2_*.txt"):
        (folder / file.name).write_text("".join(file.open().readlines()[:FEW]))
    return folder


@pytest.fixture(scope="module")
def sound(few: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mixed(few, corpus, tmp_path_factory.mktemp("sound"))


@pytest.fixture
def tree(sound: Path, tmp_path: Path) -> Path:
    """wav8k/min of two sources, from the corpus, to be spoilt."""
    return Path(shutil.copytree(sound, tmp_path / "wav8k" / "min"))


def mixed(lists: Path, corpus: Path, out: Path, splits: tuple[str, ...] = SPLITS) -> Path:
    mix_lists([lists / f"mix_2_spk_{split}.txt" for split in splits], corpus, out, levels=lists / "activlev", jobs=1)
    return out / "wav8k" / "min"


def verdict(
    tree: Path, lists: Path, utterances: Path | None = None, sums: Sums | None = None, splits: tuple[str, ...] = SPLITS
) -> list[str]:
    names = [lists / f"mix_2_spk_{split}.txt" for split in splits]
    return check_wsj0(tree, names, utterances, lists / "activlev", sums, jobs=1).faults


def test_a_sound_tree_has_no_faults(tree, few, corpus, tmp_path):
    sums = tmp_path / "sums.txt"
    assert verdict(tree, few, corpus, Sums(write=sums)) == []
    assert verdict(tree, few, sums=Sums(verify=sums)) == []
    assert len(sums.read_text().splitlines()) == 3 * 3 * FEW
    done = subprocess.run(["sha256sum", "--check", "--quiet", sums], cwd=tree, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_files_that_are_missing_or_in_no_list(tree, few):
    one, two, *_ = sorted((tree / "cv" / "s1").iterdir())
    one.unlink()
    two.rename(two.with_name("other.wav"))
    faults = verdict(tree, few)
    missing = ", ".join((one.stem, two.stem))
    assert f"{tree}/cv/s1: 2 mixtures ({missing}) of {FEW} of {few}/mix_2_spk_cv.txt are missing" in faults
    assert f"{tree}/cv/s1: 1 files (other) are not in {few}/mix_2_spk_cv.txt" in faults
    shutil.rmtree(tree / "cv")
    (tree / "cv.csv").unlink()
    assert f"{tree}/cv: no such folder; {few}/mix_2_spk_cv.txt has {FEW} mixtures for it" in verdict(tree, few)


def test_other_peaks(tree, few):
    id = next((tree / "tt" / "mix").iterdir()).name
    for part in ("mix", "s1", "s2"):
        x, rate = soundfile.read(tree / "tt" / part / id, dtype="int16")
        soundfile.write(tree / "tt" / part / id, x // 2, rate)
    (fault,) = verdict(tree, few)
    assert fault.startswith(f"tt: 1 mixtures ({id.removesuffix('.wav')}) have another highest peak than 0.9 (they are 0.4")


def test_exchanged_sources(tree, few):
    (tree / "tr" / "s1").rename(tree / "tr" / "s")
    (tree / "tr" / "s2").rename(tree / "tr" / "s1")
    (tree / "tr" / "s").rename(tree / "tr" / "s2")
    faults = verdict(tree, few)
    assert len(faults) == 2
    assert all("dB (median) from the gains" in fault and "sources exchanged, or other levels" in fault for fault in faults)


def test_test_speakers_in_training(tree, few, tmp_path):
    shutil.copytree(few, tmp_path / "lists")
    text = (few / "mix_2_spk_tt.txt").read_text()
    first, _ = (few / "mix_2_spk_tr.txt").read_text().split(" ", 1)
    (tmp_path / "lists" / "mix_2_spk_tt.txt").write_text(text + f"{first} 1 {text.split()[0]} -1\n")
    assert f"tr and tt: 1 speakers ({Path(first).parent.name}) are in both" in verdict(tree, tmp_path / "lists")


def test_two_lists_of_one_split(tree, few, lists):
    with pytest.raises(SepmlError, match=r"mix_3_spk_tr\.txt: makes the split 'tr', as "):
        check_wsj0(tree, [few / "mix_2_spk_tr.txt", lists / "mix_3_spk_tr.txt"], jobs=1)


def test_sums_that_differ(tree, few, tmp_path):
    verdict(tree, few, sums=Sums(write=tmp_path / "sums.txt"))
    one, two, *_ = sorted((tree / "tt" / "s1").iterdir())
    x, rate = soundfile.read(one, dtype="int16")
    x[7] += 1
    soundfile.write(one, x, rate)
    two.unlink()
    faults = verdict(tree, few, sums=Sums(verify=tmp_path / "sums.txt", write=tmp_path / "again.txt"))
    assert f"{tree}: 1 files (tt/s1/{one.name}) have other sums, by {tmp_path}/sums.txt" in faults
    assert f"{tree}: 1 files (tt/s1/{two.name}) are missing, by {tmp_path}/sums.txt" in faults
    assert not (tmp_path / "again.txt").exists()
    (tmp_path / "sums.txt").write_text("no sum\n")
    with pytest.raises(SepmlError, match=r"sums.txt:1: found 'no sum', expected a SHA-256 sum"):
        verdict(tree, few, sums=Sums(verify=tmp_path / "sums.txt"))


def spoilt(x: np.ndarray, kind: str) -> np.ndarray:
    """An utterance as other data preparations have been seen to leave it."""
    rng = np.random.default_rng(0)
    if kind == "wv2":  # the same voice from further away, and a room
        far = np.convolve(x, np.concatenate([[0.2], np.zeros(40), [0.5], np.zeros(90), [0.3]]))[: len(x)]
        return far + 0.02 * x.std() * rng.standard_normal(len(x))
    if kind == "other":
        return np.concatenate([speech_like(900), speech_like(901)])[: len(x)] * 0.1
    half = len(x) // 2
    if kind == "zeros":
        return np.concatenate([x[:half], np.zeros(len(x) - half)])
    if kind == "noise":
        return np.concatenate([x[:half], x.std() * rng.standard_normal(len(x) - half)])
    return x[:half]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("wv2", "hold another recording of the same words, such as that of the second microphone (.wv2)"),
        ("other", "hold another recording"),
        ("zeros", "hold silence in "),
        ("noise", "hold noise, or something else in "),
    ],
)
def test_a_spoilt_utterance_is_found_by_making_its_mixtures_again(few, corpus, tmp_path, kind, expected):
    path = (few / "mix_2_spk_tt.txt").read_text().split()[0]
    shutil.copytree(corpus, tmp_path / "corpus")
    x, _ = soundfile.read(corpus / path)
    write_wav(tmp_path / "corpus" / path, np.clip(spoilt(x, kind), -1, 1), 16000)
    tree = mixed(few, tmp_path / "corpus", tmp_path / "out", ("tt",))
    faults = verdict(tree, few, corpus, splits=("tt",))
    assert kind != "wv2" or len(faults) == 1
    of_it = [fault for fault in faults if str(corpus) in fault]
    assert len(of_it) == 1
    assert of_it[0].startswith(f"{corpus / path}: ")
    assert expected in of_it[0]
    if kind == "other":
        assert of_it[0].endswith(expected)


def test_an_utterance_cut_short_and_levels_of_ones_own(few, corpus, sound, tmp_path):
    path = (few / "mix_2_spk_tt.txt").read_text().split()[0]
    shutil.copytree(corpus, tmp_path / "corpus")
    x, _ = soundfile.read(corpus / path)
    write_wav(tmp_path / "corpus" / path, spoilt(x, "cut"), 16000)
    tree = mixed(few, tmp_path / "corpus", tmp_path / "out", ("tt",))
    faults = verdict(tree, few, corpus, splits=("tt",))
    assert len(faults) == 1
    assert "have other lengths" in faults[0]
    assert "an utterance was cut short?" in faults[0]
    (fault,) = check_wsj0(sound, [few / "mix_2_spk_tt.txt"], corpus, None, jobs=1).faults
    assert "differ by gains or rounding: other active levels?" in fault


def test_utterances_that_are_missing_and_folders_of_no_mode(tree, few, corpus, tmp_path):
    faults = verdict(tree, few, tmp_path)
    assert len(faults) == 1
    assert "no such file" in faults[0]
    tree.rename(tree.with_name("mine"))
    with pytest.raises(SepmlError, match="is named neither min nor max"):
        verdict(tree.with_name("mine"), few, corpus)
    with pytest.raises(SepmlError, match="the mix lists are needed as well"):
        check_wsj0(tree, [], corpus)


def test_the_stages_of_the_recipe_that_make_the_data(lists, corpus, tmp_path):
    (tmp_path / "data").symlink_to(corpus)
    words = ["--lists", os.path.relpath(lists, tmp_path), "--data", tmp_path / "data", "--jobs", 1]
    done = recipe(tmp_path, "--stage", 1, "--stop_stage", 1, *words, "--n_src", 3, "--sample_rate", 16000, "--mode", "max")
    assert done.returncode == 0, done.stderr
    assert "tt: 50 of 50 mixtures of mix_3_spk_tt.txt" in done.stdout
    assert done.stdout.endswith("no faults\n")
    assert len(list((corpus / "3speakers" / "wav16k" / "max" / "cv" / "s3").iterdir())) == LINES
    done = recipe(tmp_path, "--stage", 0, "--ldc", tmp_path, "--stop_stage", 0, *words)
    assert done.returncode == 1
    assert "no .wv1 files below folders si_tr_s, si_dt_05, si_et_05" in done.stderr


@pytest.mark.slow
def test_the_whole_recipe_with_small_networks(lists, corpus, tmp_path, monkeypatch):
    assert wsj0.UTTERANCES["si_tr_s"] == 12776
    shutil.copytree(lists, tmp_path / "lists")
    for file in (tmp_path / "lists").glob("mix_2_spk_*.txt"):
        file.write_text("".join(file.open().readlines()[:6]))
    (tmp_path / "data").symlink_to(corpus)
    words = ["--lists", "lists", "--data", tmp_path / "data", "--exp", tmp_path / "exp", "--jobs", 1, "--stage", 1]
    small = [f"--peers.{k}.{key}={value}" for k in (0, 1) for key, value in (("hidden", 4), ("blocks", 1), ("bottleneck", 8))]
    config = ["--config", "conf/sml-win16.yaml"]
    done = recipe(tmp_path, *config, *words, "--", "--fit.epochs", "1", "--data.segment", "0.1", "--data.workers", "0", *small)
    assert done.returncode == 0, done.stderr
    assert "sml-win16, tt:" in done.stdout
    assert (tmp_path / "exp" / "scores" / "tt" / "ensemble" / "scores.csv").is_file()
