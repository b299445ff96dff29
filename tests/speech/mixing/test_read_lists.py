"""Mix lists and tables of active levels: read, and refused by file and line."""

import re
from pathlib import Path

import pytest
from mixing_corpus import refused

from sepml.errors import SepmlError
from sepml.speech.mixing.mixlist import read_levels, read_mix_list


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a.wav 1.0", "2 fields ('a.wav 1.0'), expected 'path gain path gain'"),
        ("a.wav 1.0 b.wav", "3 fields ('a.wav 1.0 b.wav')"),
        ("a.wav 1.0 b.wav x", "the gain is 'x', expected a number of dB"),
        ("a.wav nan b.wav 1", "the gain is 'nan'"),
        ("a.wav inf b.wav 1", "the gain is 'inf'"),
        ("a.wav 1_0 b.wav 1", "the gain is '1_0'"),
        ("a.wav 1 b.wav 101", "the gain is '101', expected a number of dB within +-100"),
        ("/etc/a.wav 1 b.wav -1", "the path '/etc/a.wav' leads out of the corpus"),
        ("a.wav 1 c/../../b.wav -1", "the path 'c/../../b.wav' leads out of the corpus"),
        ("a\0.wav 1 b.wav -1", "the path 'a\\x00.wav' cannot be that of a file"),
        (f"{'d' * 256}/a.wav 1 b.wav -1", "is too long for a file: 256 bytes, at most 255"),
        ("c/a.wav 1 c/a.wav -1", "an utterance is mixed with itself: c/a.wav 1 c/a.wav -1"),
        ("d/first.wav 1 e/other.wav -1", "the mixture first_1_other_-1 is already in line 1"),
        ("a.wav 1 b.wav -1 c.wav 0", "3 sources, but 2 in the lines before"),
        (f"{'a' * 250}.wav 1 b.wav -1", "is too long for a file: 261 bytes, at most 255"),
    ],
)
def test_faulty_lines_are_named_by_file_and_line(tmp_path, line, expected):
    path = tmp_path / "mix_2_spk_tr.txt"
    path.write_text(f"first.wav 1 other.wav -1\n\n{line}\n")
    message = refused(tmp_path, [path], tmp_path)
    assert message.startswith(f"{path}:3: ")
    assert expected in message


def test_lists_that_are_none(tmp_path):
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    for name, expected in [
        ("empty.txt", "is empty, expected lines such as"),
        ("binary.txt", "is not a text file"),
        ("none.txt", "no such file"),
        (".", "is a folder; give the lists in it"),
    ]:
        with pytest.raises(SepmlError, match=expected):
            read_mix_list(tmp_path / name)


@pytest.mark.parametrize("row", ["a", "a b", "a 0", "a -1", "a inf", "a nan", "a 1 2", "b 2.5"])
def test_faulty_levels_are_named_by_file_and_line(tmp_path, row):
    path = tmp_path / "levels.txt"
    path.write_text(f"b 1.5\nb 1.5\n{row}\n")
    with pytest.raises(SepmlError, match=re.escape(f"{path}:3: ")):
        read_levels(path)


def test_a_folder_without_levels(tmp_path):
    with pytest.raises(SepmlError, match="holds no levels"):
        read_levels(tmp_path)


def test_the_published_lists_and_tables_are_read(shared_dir):
    folder = shared_dir / "wsj0-mix-lists"
    levels = read_levels(folder / "activlev")
    assert len(levels) == 12776 + 1206 + 651
    for name, count in [("2_spk_tr", 20000), ("2_spk_cv", 5000), ("2_spk_tt", 3000), ("3_spk_tt", 3000)]:
        lines = read_mix_list(folder / f"mix_{name}.txt")
        assert len(lines) == count
        assert all(Path(path).stem in levels for line in lines for path in line.paths)
    first = read_mix_list(folder / "mix_2_spk_tr.txt")[0]
    assert first.id == "40na010x_1.9857_01xo031a_-1.9857"
    assert first.gains == (1.9857, -1.9857)
