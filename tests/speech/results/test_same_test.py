"""Scores are compared only where they are of the same mixtures and references: by content, not by name."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from speech_signals import speech_like

from sepml.cli import main
from sepml.errors import SepmlError
from sepml.speech.audio.files import quantise
from sepml.speech.data.manifest import Mixture, write_manifest
from sepml.speech.report.contents import find_contents
from sepml.speech.results.compare import compare_scores, pairs_to_compare
from sepml.speech.scoring.score import ScoreSettings, score_manifest

IDS = ("a", "b", "c")


def test_set(root: Path, n_src: int = 2, noise: float = 0.0, suffix: str = ".wav", swapped: bool = False) -> Path:
    """Three mixtures called alike whatever they hold, with estimates; their manifest."""
    mixtures = []
    for k, name in enumerate(IDS):
        sources = np.stack([speech_like(10 * k + s, 0.4) for s in range(n_src)])
        mix = sources.sum(0) + noise * np.random.default_rng(k).standard_normal(sources.shape[1])
        files = []
        for part, x in {"mix": mix, **{f"s{s + 1}": x for s, x in enumerate(sources)}}.items():
            files.append(root / part / f"{name}{suffix}")
            files[-1].parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(files[-1], quantise(x / 4), 8000, subtype="PCM_16")
        for s, x in enumerate(sources):
            (root / "est").mkdir(exist_ok=True)
            soundfile.write(root / "est" / f"{name}_s{s + 1}.wav", (x + 0.1 * mix) / 4, 8000, subtype="PCM_16")
        refs = files[1:][::-1] if swapped else files[1:]
        mixtures.append(Mixture(name, files[0], tuple(refs), sources.shape[1]))
    write_manifest(root / "tt.csv", mixtures)
    return root / "tt.csv"


test_set.__test__ = False  # type: ignore[attr-defined]


def scored(root: Path, out: Path, **options) -> Path:
    manifest = test_set(root, **options)
    score_manifest(manifest, root / "est", out, ScoreSettings(("si_snr",), jobs=1))
    return out


def without_fingerprints(folder: Path) -> Path:
    """The folder as a version before fingerprints would have left it."""
    with (folder / "scores.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    place = rows[0].index("fingerprint")
    with (folder / "scores.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([*row[:place], *row[place + 1 :]] for row in rows)
    return folder


def run(capsys, *words: object) -> tuple[int, str, str]:
    code = main([str(word) for word in words])
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.mark.parametrize(("of_other", "n"), [({"n_src": 3}, 3), ({"noise": 0.05}, 3)])
def test_other_references_under_the_same_ids_are_refused(tmp_path, capsys, of_other, n):
    one, two = scored(tmp_path / "1", tmp_path / "one"), scored(tmp_path / "2", tmp_path / "two", **of_other)
    why = f"{two}: {n} of 3 mixtures are other ones, or have other references, than those of {one}, such as a"
    for words in (("score", "--compare", one, two), ("table", one, two)):
        assert run(capsys, *words) == (1, "", f"sepml: error: {why}\n")
    code, out, _ = run(capsys, "score", "--compare", one, two, "--force", "-o", tmp_path / "d.json")
    assert code == 0 and "Not the same test: 3 of the mixtures" in out
    assert {row["n_other_references"] for row in json.loads((tmp_path / "d.json").read_text())} == {3}
    code, out, _ = run(capsys, "table", one, two, "--force")
    assert code == 0 and "two: not the same test as one, other mixtures or references." in out


def test_the_same_samples_elsewhere_in_another_format_and_order_are_the_same_test(tmp_path, capsys):
    one = scored(tmp_path / "1", tmp_path / "one")
    two = scored(tmp_path / "2", tmp_path / "two", suffix=".flac", swapped=True)
    code, out, err = run(capsys, "score", "--compare", one, two)
    assert (code, err) == (0, "") and "Not " not in out
    assert [item.n_other_references for item in compare_scores([(one, two)])] == [0, 0]
    code, out, err = run(capsys, "table", one, two)
    assert (code, err) == (0, "") and len(out.splitlines()) == 4


def test_scores_of_before_are_compared_with_one_line_that_this_cannot_be_checked(tmp_path, capsys):
    one = scored(tmp_path / "1", tmp_path / "one")
    two = without_fingerprints(scored(tmp_path / "2", tmp_path / "two", noise=0.05))
    for words in (("score", "--compare", one, two), ("table", one, two)):
        code, out, err = run(capsys, *words)
        assert (code, err) == (0, "") and out.count("Not checked: whether ") == 1
    assert {item.n_unchecked for item in compare_scores([(one, two)])} == {3}
    # The number of sources is known without a fingerprint.
    three = without_fingerprints(scored(tmp_path / "3", tmp_path / "three", n_src=3))
    with pytest.raises(SepmlError, match=r"three: 3 of 3 mixtures are other ones"):
        compare_scores([(two, three)])


def test_a_table_of_other_mixtures_is_refused(tmp_path, capsys):
    one = scored(tmp_path / "1", tmp_path / "one")
    other = scored(tmp_path / "2", tmp_path / "other")
    (other / "scores.csv").write_text((other / "scores.csv").read_text().replace("\n", "\nx").removesuffix("x"))
    code, out, err = run(capsys, "table", one, other)
    assert (code, out) == (1, "") and err.startswith(f"sepml: error: {other}: shares no mixture with {one}")


def test_a_report_has_clean_and_noisy_mixtures_of_the_same_names_apart(tmp_path):
    clean, noisy = scored(tmp_path / "1", tmp_path / "clean"), scored(tmp_path / "2", tmp_path / "noisy", noise=0.05)
    again = tmp_path / "again"
    shutil.copytree(clean, again)
    tests, _ = find_contents([clean, noisy, again])
    assert [[run.folder.name for run in test.runs] for test in tests] == [["clean", "again"], ["noisy"]]


def test_scoring_that_was_broken_off_keeps_the_fingerprint(tmp_path, monkeypatch):
    straight = scored(tmp_path / "1", tmp_path / "straight")
    from sepml.speech.scoring import score

    real = score.map_unordered

    def dies(*words):
        for result in real(*words):
            yield result
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(score, "map_unordered", dies)
        score_manifest(tmp_path / "1" / "tt.csv", tmp_path / "1" / "est", tmp_path / "out", ScoreSettings(("si_snr",), jobs=1))
    score_manifest(tmp_path / "1" / "tt.csv", tmp_path / "1" / "est", tmp_path / "out", ScoreSettings(("si_snr",), jobs=1))
    assert (tmp_path / "out" / "scores.csv").read_bytes() == (straight / "scores.csv").read_bytes()


# Experiments


@pytest.fixture
def experiments(tmp_path) -> tuple[Path, Path]:
    """Two experiments as the recipes leave them: scores/<test>/<peer>; the second lacks a peer."""
    seen = scored(tmp_path / "1", tmp_path / "seen")
    unseen = scored(tmp_path / "2", tmp_path / "unseen", noise=0.05)
    for name, peers in (("kd", ["peer1"]), ("sml", ["peer1", "peer2", "ensemble"])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text("{}\n")
        for test, folder in (("tt_seen", seen), ("tt_unseen", unseen)):
            for peer in peers:
                shutil.copytree(folder, tmp_path / name / "scores" / test / peer)
    return tmp_path / "sml", tmp_path / "kd"


def test_the_table_of_an_experiment_has_a_part_for_each_test(experiments, capsys):
    code, out, _ = run(capsys, "table", experiments[0])
    assert code == 0 and [line for line in out.splitlines() if line.endswith(":")] == ["tt_seen:", "tt_unseen:"]
    rows = [line.split("|")[1].strip() for line in out.splitlines() if line.startswith("|")]
    assert rows == ["", rows[1], "peer1", "peer2", "ensemble"] * 2
    code, out, _ = run(capsys, "table", *experiments)
    rows = [line.split("|")[1].strip() for line in out.splitlines() if line.startswith("|")]
    assert str(experiments[1] / "scores/tt_unseen/peer1") in rows and len(rows) == 12


def test_experiments_are_compared_test_by_test_and_peer_by_peer(experiments, capsys):
    sml, kd = experiments
    found = pairs_to_compare([sml, kd])
    assert found == [(sml / "scores" / test / "peer1", kd / "scores" / test / "peer1") for test in ("tt_seen", "tt_unseen")]
    code, out, err = run(capsys, "score", "--compare", sml, kd)
    assert code == 0 and out.count(" against ") == 2 and "not compared" in err and "tt_seen/ensemble" in err
    # Of one experiment its peers are compared.
    code, out, err = run(capsys, "score", "--compare", sml)
    assert (code, err) == (0, "") and out.count(" against ") == 4
    assert f"{sml}/scores/tt_seen/ensemble against {sml}/scores/tt_seen/peer1:" in out
    # A folder of scores is compared with all of the experiment that are of the same mixtures.
    code, out, err = run(capsys, "score", "--compare", kd / "scores/tt_seen/peer1", sml / "scores/tt_seen")
    assert code == 0 and out.count(" against ") == 3


def test_an_experiment_without_scores(tmp_path, capsys):
    (tmp_path / "exp").mkdir()
    (tmp_path / "exp" / "config.yaml").write_text("{}\n")
    code, out, err = run(capsys, "table", tmp_path / "exp")
    assert (code, out) == (1, "")
    where = f"{tmp_path}/exp/scores/<test>/<peer>"
    assert err == f"sepml: error: {tmp_path}/exp: is an experiment without scores; expected them in {where}\n"


# Numbers that are no scores


@pytest.mark.parametrize("cell", ["1e308", "-1e308", "nan", "inf", "1e10", "x"])
def test_a_number_that_is_no_score_is_named(tmp_path, capsys, cell):
    one = scored(tmp_path / "1", tmp_path / "one")
    shutil.copytree(one, tmp_path / "two")
    table = tmp_path / "two" / "scores.csv"
    lines = table.read_text().splitlines()
    fields = lines[1].split(",")
    lines[1] = ",".join([fields[0], cell, *fields[2:]])
    table.write_text("\n".join(lines) + "\n")
    code, out, err = run(capsys, "score", "--compare", one, tmp_path / "two", "-o", tmp_path / "d.json")
    assert (code, out) == (1, "") and err.startswith(f"sepml: error: {table}: not a table of `sepml score`") and cell in err
    code, _, err = run(capsys, "report", tmp_path / "two", "-o", tmp_path / "r.html")
    assert "Traceback" not in err and (code, str(table) in err) == ((1, True) if cell[-1] in "80" else (0, False))


@pytest.mark.parametrize(
    ("key", "value"), [("mean", 1e308), ("mean", "loud"), ("std", 1e400), ("interval_95", [0, 1e99]), ("n", [])]
)
def test_a_summary_with_such_numbers_is_refused(tmp_path, capsys, key, value):
    one = scored(tmp_path / "1", tmp_path / "one")
    content = json.loads((one / "summary.json").read_text())
    content["columns"]["si_snr"][key] = value
    (one / "summary.json").write_text(json.dumps(content))
    code, out, err = run(capsys, "table", one)
    assert (code, out) == (1, "") and err.startswith(f"sepml: error: {one}/summary.json: not a summary of `sepml score`")
