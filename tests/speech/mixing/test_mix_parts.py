"""Mixtures made in parts are those of one run, to the byte; what is not whole is not joined."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from mixing_corpus import mix, small_corpus, times  # noqa: F401
from test_drawn import corpus as drawn_corpus  # noqa: F401
from test_drawn import settings

from sepml.cli import main
from sepml.errors import SepmlError
from sepml.speech.audio.files import write_wav
from sepml.speech.mixing import mix as mixing
from sepml.speech.mixing import mix_parts, utterances
from sepml.speech.mixing.check import check
from sepml.speech.mixing.mix import mix_lists
from sepml.speech.mixing.mix_parts import merge_mixtures
from sepml.system.temporaries import temporary_name

SPLIT = Path("wav8k/min/tr")


def part(corpus: Path, out: Path, word: str, name: str = "mix_2_spk_tr.txt", *words: object) -> int:
    of_all = ["--root", corpus, "--out", out, "-j", 1, "--part", word, *words]
    return main(["-q", "mix", "--list", str(corpus / name), *map(str, of_all)])


def tree(out: Path) -> dict[str, bytes]:
    """All files, with the hidden ones."""
    return {str(file.relative_to(out)): file.read_bytes() for file in sorted(out.rglob("*")) if file.is_file()}


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("whole")
    mix(corpus, out)
    return tree(out)


@pytest.fixture
def parts(corpus, tmp_path) -> Path:
    """Three parts of twelve mixtures, not yet put together."""
    assert [part(corpus, tmp_path / "out", f"{n}/3") for n in (3, 1, 2)] == [0, 0, 0]
    return tmp_path / "out"


def test_parts_make_the_tree_of_one_run(corpus, parts, whole, capsys):
    assert part(corpus, parts, "2/3") == 0, "the same part again"
    assert capsys.readouterr().out.split() == [str(parts / SPLIT / ".parts/2-of-3.json")]
    assert not (parts / "wav8k/min/tr.csv").exists(), "it stands for a complete split"
    assert main(["merge", str(parts)]) == 0
    assert capsys.readouterr().out.split() == [str(parts / "wav8k/min/tr.csv")]
    assert tree(parts) == whole
    assert check(parts / "wav8k/min", jobs=1).faults == []


@pytest.mark.parametrize("below", ["", "wav16k", "wav16k/max"])
def test_several_lists_with_levels_in_more_parts_than_mixtures(corpus, tmp_path, below):
    lists = [corpus / "mix_3_spk_tr.txt", corpus / "mix_2_spk_cv.txt"]
    how = {"sample_rate": 16000, "mode": "max", "levels": corpus / "levels", "jobs": 1}
    for n in range(5):
        mix_lists(lists, corpus, tmp_path / "parts", part=(n + 1, 5), **how)
    assert [file.name for file in merge_mixtures(tmp_path / "parts" / below)] == ["cv.csv", "tr.csv"]
    mix_lists(lists, corpus, tmp_path / "whole", **how)
    assert tree(tmp_path / "parts") == tree(tmp_path / "whole")


def test_parts_at_the_same_time(corpus, tmp_path, whole):
    words = [sys.executable, "-m", "sepml", "mix", "--list", corpus / "mix_2_spk_tr.txt", "--root", corpus, "--out", tmp_path]
    running = [subprocess.Popen([*words, "-j", "1", "--part", f"{n}/3"]) for n in (1, 2, 3)]
    assert [process.wait(timeout=120) for process in running] == [0, 0, 0]
    merge_mixtures(tmp_path)
    assert tree(tmp_path) == whole


def test_a_part_that_was_broken_off_goes_on(corpus, tmp_path, whole, monkeypatch):
    written: list[Path] = []

    def failing(path: Path, *rest: object) -> None:
        if len(written) == 7:
            raise KeyboardInterrupt
        written.append(path)
        write_wav(path, *rest)

    for n in (1, 3):
        part(corpus, tmp_path, f"{n}/3")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(mixing, "write_wav", failing)
        mix_lists([corpus / "mix_2_spk_tr.txt"], corpus, tmp_path, jobs=1, part=(2, 3))
    with pytest.raises(SepmlError, match=r"2-of-3.json: this part is not complete; run that part again, then merge"):
        merge_mixtures(tmp_path)
    before = times(tmp_path / SPLIT)
    assert part(corpus, tmp_path, "2/3") == 0
    after = times(tmp_path / SPLIT)
    assert len(written) == 7 and all(after[str(file)] == before[str(file)] for file in written[:6])
    merge_mixtures(tmp_path)
    assert tree(tmp_path) == whole


@pytest.mark.parametrize("step", ["write_record", "write_manifest", "discard_parts"])
def test_a_merging_that_was_broken_off_goes_on(parts, whole, monkeypatch, step):
    def killed(*words: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(mix_parts, step, killed)
        merge_mixtures(parts)
    merge_mixtures(parts)
    assert tree(parts) == whole


def test_what_a_part_is_writing_or_left_when_it_was_killed_counts_for_nothing(parts, whole):
    (parts / SPLIT / ".parts" / temporary_name("2-of-3.json")).write_text("{")
    merge_mixtures(parts)
    assert tree(parts) == whole


def test_the_same_command_without_parts_does_what_is_left(corpus, parts, whole):
    (parts / SPLIT / ".parts/2-of-3.json").unlink()
    for file in parts.rglob("*/mix/*.wav"):
        if file.stem in [line[0] for line in made_in(parts / SPLIT / ".parts/1-of-3.json")][:2]:
            file.unlink()
    before = times(parts / SPLIT)
    mix(corpus, parts)
    again = {name for name, time in times(parts / SPLIT).items() if before.get(name) != time}
    assert len({Path(name).name for name in again}) == 2
    # Of what part 2 had made there is no record now: it is kept, as that of earlier versions is.
    mine, its = tree(parts), whole
    record = str(SPLIT / ".made.json")
    assert {name: text for name, text in mine.items() if name != record} == {n: t for n, t in its.items() if n != record}
    assert len(json.loads(mine[record])["recipes"]) == 8


def made_in(file: Path) -> list[list]:
    return json.loads(file.read_text())["mixtures"]


def test_a_whole_run_after_all_parts_reads_and_makes_nothing(corpus, parts, whole, monkeypatch):
    monkeypatch.setattr(utterances, "read_wav", None)
    monkeypatch.setattr(mixing, "write_wav", None)
    mix(corpus, parts)
    assert tree(parts) == whole


def test_another_list_in_the_tree_of_an_earlier_one(corpus, tmp_path):
    root = shutil.copytree(corpus, tmp_path / "root")
    mix(root, tmp_path / "out")
    lines = (root / "mix_2_spk_tr.txt").read_text().splitlines(keepends=True)
    (root / "mix_2_spk_tr.txt").write_text("".join(lines[:2:-1]))
    write_wav(root / "wsj0/si_tr_s/sp0/sp0u0.wav", 0.1 * utterances.read_wav(root / "wsj0/si_tr_s/sp1/sp1u0.wav")[0], 16000)
    assert [part(root, tmp_path / "out", f"{n}/2") for n in (1, 2)] == [0, 0]
    assert not (tmp_path / "out/wav8k/min/tr.csv").exists(), "the earlier manifest is withdrawn"
    merge_mixtures(tmp_path / "out")
    mix(root, tmp_path / "straight")
    assert tree(tmp_path / "out") == tree(tmp_path / "straight")


def change(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def other_recording(at: Path) -> None:
    known = json.loads((at / "2-of-3.json").read_text())["utterances"]
    change(at / "2-of-3.json", utterances={path: [stamp, "0" * 16, level] for path, (stamp, _, level) in known.items()})


DAMAGES: list[tuple[Callable[[Path], object], str]] = [
    (lambda at: (at / "2-of-3.json").unlink(), ".parts: part 2 of 3 is absent; run it, then merge again"),
    (lambda at: (shutil.rmtree(at), at.mkdir()), ".parts: holds no part, expected 1-of-N.json"),
    (lambda at: change(at / "3-of-3.json", part=[3, 4]), "3-of-3.json: one of 4 parts, 1-of-3.json is one of 3"),
    (lambda at: change(at / "3-of-3.json", mixtures=made_in(at / "1-of-3.json")), "_1-of-3.json does; expected it once"),
    (lambda at: change(at / "3-of-3.json", mixtures=[]), "3-of-3.json: holds 0 mixtures, expected 4; run that part again"),
    (lambda at: change(at / "3-of-3.json", request="x"), "3-of-3.json: a part of another list or of other levels than 1-of"),
    (lambda at: next((at.parent / "s2").iterdir()).unlink(), "are absent or of another length; run that part again"),
    (other_recording, "2-of-3.json: utterance wsj0/si_tr_s/"),
    (lambda at: change(at / "3-of-3.json", mixtures=[["a"]]), "3-of-3.json: damaged: no part of mixtures; delete it"),
    (lambda at: change(at / "3-of-3.json", part="x"), "3-of-3.json: damaged: no part of mixtures; delete it"),
    (lambda at: change(at / "3-of-3.json", recipes=1), "3-of-3.json: not the record of a split"),
    (lambda at: (at / "3-of-3.json").write_text("{"), "3-of-3.json"),
]


@pytest.mark.parametrize(("damage", "said"), DAMAGES)
def test_what_is_not_whole_is_one_line_and_nothing_is_written(parts, capsys, damage, said):
    damage(parts / SPLIT / ".parts")
    before = tree(parts)
    assert main(["merge", str(parts)]) == 1
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and all(each in error[0] for each in said.split("_"))
    assert tree(parts) == before


@pytest.mark.parametrize("word", ["0/3", "4/3", "1", "1/0", "-1/3", "a/b", "1.0/3"])
def test_a_wrong_part_is_one_line(corpus, tmp_path, capsys, word):
    with pytest.raises(SystemExit) as ended:
        part(corpus, tmp_path / "out", word)
    assert ended.value.code == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.endswith(f"'{word}' is not I/N, such as 1/3 for the first of three parts") or "expected one argument" in last
    assert not (tmp_path / "out").exists()


def test_parts_beside_those_of_another_request_are_refused_before_the_work(corpus, parts, tmp_path, capsys):
    before = tree(parts)
    assert part(corpus, parts, "1/2") == 1
    assert "one of 3 parts, now 2" in capsys.readouterr().err
    shutil.copytree(corpus, root := tmp_path / "root")
    (root / "mix_2_spk_tr.txt").write_text((corpus / "mix_2_spk_tr.txt").read_text().partition("\n")[2])
    assert part(root, parts, "1/3") == 1
    assert "1-of-3.json: a part of another list or of other levels; mix without parts" in capsys.readouterr().err
    assert part(corpus, parts, "1/3", "mix_2_spk_tr.txt", "--levels", corpus / "levels") == 1
    assert "holds mixtures with levels = measured, now table" in capsys.readouterr().err
    assert tree(parts) == before


def test_a_folder_without_parts_is_one_line(corpus, tmp_path, capsys):
    mix(corpus, tmp_path)
    assert main(["merge", str(tmp_path)]) == 1
    assert "holds no parts, expected mixtures or scores that were made in parts" in capsys.readouterr().err


def test_drawn_mixtures_in_parts(drawn_corpus, tmp_path, capsys):  # noqa: F811
    file = settings(tmp_path / "noisy.yaml", size=7)
    words = ["-q", "mix", "--dynamic", str(file), "--root", str(drawn_corpus), "-j", "1", "--out"]
    assert [main([*words, str(tmp_path / "parts"), "--part", f"{n}/3"]) for n in (2, 1)] == [0, 0]
    assert main(["merge", str(tmp_path / "parts")]) == 1
    assert "part 3 of 3 is absent" in capsys.readouterr().err
    assert main([*words, str(tmp_path / "parts"), "--part", "1/2"]) == 1
    assert "one of 3 parts, now 2" in capsys.readouterr().err
    assert main([*words, str(tmp_path / "parts"), "--part", "3/3"]) == 0
    assert main(["merge", str(tmp_path / "parts")]) == 0
    assert main([*words, str(tmp_path / "whole")]) == 0
    assert tree(tmp_path / "parts") == tree(tmp_path / "whole")
