"""Manifests of trees that others have made: LibriMix and WHAM!, where they are now."""

import shutil
from pathlib import Path

import pytest
from librimix_corpora import roots, small_corpora  # noqa: F401

from sepml.cli import main
from sepml.errors import SepmlError
from sepml.speech.corpora.librimix import prepare_librimix
from sepml.speech.corpora.trees import prepare_librimix_tree, prepare_wham
from sepml.speech.data.manifest import read_manifest
from sepml.speech.data.mixtures import TYPES
from sepml.speech.mixing.check import check


@pytest.fixture(scope="module")
def tree(corpora, tmp_path_factory) -> Path:
    """A LibriMix tree that was moved after it was made, without the clipping mixture."""
    made = tmp_path_factory.mktemp("made")
    table = made / "libri2mix_dev-clean.csv"
    lines = (corpora / "metadata" / "Libri2Mix" / table.name).read_text().splitlines()
    table.write_text("\n".join(lines[:-1]) + "\n")
    prepare_librimix([table], roots(corpora), made / "Libri2Mix", TYPES, jobs=1)
    return (made / "Libri2Mix").rename(made / "moved")


@pytest.mark.parametrize("metadata", [True, False])
def test_a_tree_is_read_where_it_is_now(tree, tmp_path, metadata):
    shutil.copytree(tree, tmp_path / "tree")
    if not metadata:
        shutil.rmtree(tmp_path / "tree" / "wav8k" / "min" / "metadata")
    manifests = prepare_librimix_tree(tmp_path / "tree", tmp_path)
    assert [m.name for m in manifests] == [f"mixture_dev_{kind}.csv" for kind in TYPES]
    clean, both, single = map(read_manifest, manifests)
    assert [(len(m.sources), m.noise is None) for m in (clean[0], both[0], single[0])] == [(2, True), (2, False), (1, False)]
    base = tmp_path / "tree" / "wav8k" / "min" / "dev"
    assert both[0].mixture == base / "mix_both" / f"{both[0].id}.wav" and both[0].noise == base / "noise" / f"{both[0].id}.wav"
    assert str(tmp_path) not in manifests[1].read_text()
    for target in (*manifests, tmp_path / "tree" / "wav8k" / "min"):
        assert check(target, jobs=1).faults == []
    # With the noise of another mixture, or none, the sum is wrong and the check says so.
    shutil.copy(base / "noise" / f"{both[1].id}.wav", base / "noise" / f"{both[0].id}.wav")
    assert len(check(manifests[1], jobs=1).faults) == 1
    (base / "noise" / f"{both[0].id}.wav").unlink()
    assert "no such file" in check(manifests[1], jobs=1).faults[0]
    with pytest.raises(SepmlError, match="there is no file" if metadata else "has no file of the same name in noise/"):
        prepare_librimix_tree(tmp_path / "tree", tmp_path)


def test_another_rate_than_the_tree_has(tree, tmp_path):
    with pytest.raises(SepmlError, match=r"wav16k/min: no such folder; .* holds wav8k/min"):
        prepare_librimix_tree(tree, tmp_path, sample_rate=16000)


@pytest.mark.parametrize(("task", "n_src", "noisy"), [("sep_clean", 2, False), ("sep_noisy", 2, True), ("enh_single", 1, True)])
def test_wham_trees(tree, tmp_path, task, n_src, noisy):
    for split in ("tr", "cv", "tt"):
        shutil.copytree(tree / "wav8k" / "min" / "dev", tmp_path / "wham" / "wav8k" / "min" / split)
    for number, given in enumerate([tmp_path / "wham", tmp_path / "wham" / "wav8k" / "min"]):
        manifests = prepare_wham(given, task, tmp_path / str(number))
        assert [m.name for m in manifests] == ["cv.csv", "tr.csv", "tt.csv"]
        for manifest in manifests:
            mixtures = read_manifest(manifest)
            assert {(len(m.sources), m.noise is not None) for m in mixtures} == {(n_src, noisy)}
            assert check(manifest, jobs=1).faults == []
    with pytest.raises(SepmlError, match="known: sep_clean"):
        prepare_wham(tmp_path / "wham", "sep_cleen", tmp_path)
    shutil.rmtree(tmp_path / "wham" / "wav8k" / "min" / "tt" / "s2")
    if task != "enh_single":
        with pytest.raises(SepmlError, match=r"tt: has no s2/; expected the folders mix_\w+/ s1/ s2/"):
            prepare_wham(tmp_path / "wham", task, tmp_path)


def test_the_command(corpora, tree, tmp_path, capsys):
    speech = ["prepare", "librimix", "--librispeech", str(corpora / "LibriSpeech"), "--out", str(tmp_path), "-j1"]
    with pytest.raises(SystemExit) as caught:
        main(speech)
    assert caught.value.code == 2 and "--metadata" in capsys.readouterr().err
    assert main([*speech, "--metadata", str(corpora / "metadata" / "Libri2Mix")]) == 0
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / "wav8k/min/metadata/mixture_dev_mix_clean.csv")]
    assert main([*speech, "--metadata", str(corpora / "metadata" / "Libri2Mix"), "--types", "mix_both"]) == 1
    assert "noisy mixtures need the WHAM! noise (--wham DIR)" in capsys.readouterr().err
    assert main(["prepare", "librimix", "--tree", str(tree), "--out", str(tmp_path), "--types", "mix_both"]) == 0
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / "mixture_dev_mix_both.csv")]
    assert main(["prepare", "librimix", "--tree", str(tmp_path / "none"), "--out", str(tmp_path)]) == 1
    assert "none: no such folder" in capsys.readouterr().err
