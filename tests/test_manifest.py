"""Manifests: what is written is read, joined by id, and every fault has its file and line."""

from pathlib import Path

import numpy as np
import pytest

from sepml.errors import SepmlError
from sepml.speech.audio import write_wav
from sepml.speech.manifest import Mixture, manifest_of_tree, read_manifest, write_manifest

HEADER = "mixture_ID,mixture_path,source_1_path,source_2_path,length"


def make_split(folder: Path, ids: list[str], n_src: int = 2) -> list[Mixture]:
    """A split with files of 100, 101, ... samples."""
    parts = ["mix", *(f"s{i + 1}" for i in range(n_src))]
    mixtures = []
    for number, id in enumerate(ids):
        files = [folder / part / f"{id}.wav" for part in parts]
        for file in files:
            write_wav(file, np.full(100 + number, 0.25), 8000)
        mixtures.append(Mixture(id, files[0], tuple(files[1:]), 100 + number))
    return mixtures


@pytest.fixture
def split(tmp_path: Path) -> Path:
    make_split(tmp_path / "tr", ["b_-1.5_a_1.5", "a_0.25_c_-0.25"])
    return tmp_path / "tr"


def fault_of(path: Path) -> str:
    with pytest.raises(SepmlError) as caught:
        read_manifest(path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    return message


def test_a_tree_is_joined_by_file_stem(split):
    mixtures = manifest_of_tree(split)
    assert [m.id for m in mixtures] == ["a_0.25_c_-0.25", "b_-1.5_a_1.5"]
    assert [m.length for m in mixtures] == [101, 100]
    assert mixtures[0].sources[1] == split / "s2" / "a_0.25_c_-0.25.wav"


@pytest.mark.parametrize("n_src", [2, 3, 11])
def test_what_is_written_is_read(tmp_path, n_src):
    mixtures = make_split(tmp_path / "tr", ["x", "y"], n_src)
    assert manifest_of_tree(tmp_path / "tr") == mixtures
    write_manifest(tmp_path / "tr.csv", mixtures)
    assert read_manifest(tmp_path / "tr.csv") == mixtures


def test_a_manifest_moves_with_its_files_or_names_them_absolutely(tmp_path, monkeypatch):
    mixtures = make_split(tmp_path / "one" / "tr", ["x"])
    write_manifest(tmp_path / "one" / "tr.csv", mixtures)
    write_manifest(tmp_path / "elsewhere" / "tr.csv", mixtures)
    assert str(tmp_path) not in (tmp_path / "one" / "tr.csv").read_text()
    assert read_manifest(tmp_path / "elsewhere" / "tr.csv") == mixtures
    (tmp_path / "one").rename(tmp_path / "two")
    assert read_manifest(tmp_path / "two" / "tr.csv")[0].mixture.is_file()
    monkeypatch.chdir(tmp_path / "two")
    write_manifest(Path("again.csv"), manifest_of_tree(Path("tr")))
    assert Path("again.csv").read_text() == Path("tr.csv").read_text()


def test_librimix_columns_in_any_order_with_others_between(split):
    name = "a_0.25_c_-0.25.wav"
    path = split.parent / "mixture_train_mix_clean.csv"
    path.write_text(
        "\ufefflength,source_2_path,noise_path,mixture_ID,source_1_path,mixture_path\r\n"
        f"101,tr/s2/{name},gone.wav,a,tr/s1/{name},{split}/mix/{name}\r\n",
        encoding="utf-8",
    )
    (mixture,) = read_manifest(path)
    assert mixture == Mixture("a", split / "mix" / name, (split / "s1" / name, split / "s2" / name), 101)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("x,m.wav,m.wav,m.wav", "4 fields, expected 5"),
        ("x,m.wav,m.wav,m.wav,100,7", "6 fields, expected 5"),
        (",m.wav,m.wav,m.wav,100", "an empty field"),
        ("x,m.wav,,m.wav,100", "an empty field"),
        ("x,m.wav,m.wav,m.wav,0", "length is '0'"),
        ("x,m.wav,m.wav,m.wav,-5", "length is '-5'"),
        ("x,m.wav,m.wav,m.wav,1e3", "length is '1e3'"),
        ("../x,m.wav,m.wav,m.wav,100", "cannot be part of a file name"),
        ("good,m.wav,m.wav,m.wav,100", "duplicate id 'good', it stands in line 2 already"),
        ("x,m.wav,m.wav,gone.wav,100", "id 'x': there is no file "),
    ],
)
def test_faulty_rows_are_named_by_line(tmp_path, row, expected):
    write_wav(tmp_path / "m.wav", np.full(100, 0.25), 8000)
    path = tmp_path / "tr.csv"
    path.write_text(f"{HEADER}\ngood,m.wav,m.wav,m.wav,100\n\n{row}\n")
    assert fault_of(path).startswith(f"{path}:4: ")
    assert expected in fault_of(path)


def test_the_number_of_faults_is_told(tmp_path):
    path = tmp_path / "tr.csv"
    path.write_text(f"{HEADER}\nx,a.wav,b.wav,c.wav,100\ny,d.wav\n")
    assert "(and 3 more faults; `sepml check` lists them all)" in fault_of(path)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", "no column 'mixture_ID'; the header is: nothing"),
        ("mixture_id,mixture_path,source_1_path,source_2_path,length", "'mixture_ID'; did you mean 'mixture_id'?"),
        ("mixture_ID,mixture_path,source_1_path,length", "no column 'source_2_path'"),
        ("mixture_ID,mixture_path,source_1_path,source_2_path,source_4_path,length", "no column 'source_3_path'"),
        ("mixture_ID,source_999999999_path", "not all of those before it"),
        (f"{HEADER},length", "the column length stands twice"),
    ],
)
def test_faulty_headers(tmp_path, header, expected):
    path = tmp_path / "tr.csv"
    path.write_text(f"{header}\n1,2,3,4,5\n")
    assert fault_of(path).startswith(f"{path}:1: ")
    assert expected in fault_of(path)


def test_no_table_at_all(tmp_path):
    assert "no such manifest" in fault_of(tmp_path / "none.csv")
    assert "cannot be read: Is a directory" in fault_of(tmp_path)
    (tmp_path / "a.csv").write_bytes(b"RIFF\xff\xfe\x00\x81")
    assert "is not a CSV text file" in fault_of(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text(HEADER + "\n")
    assert "has no mixtures" in fault_of(tmp_path / "b.csv")


def test_files_without_their_like(split):
    (split / "s2" / "b_-1.5_a_1.5.wav").unlink()
    with pytest.raises(SepmlError, match=r"mix/b_-1\.5_a_1\.5\.wav: has no file of the same name in s2/"):
        manifest_of_tree(split)


def test_folders_that_are_no_split(tmp_path, split):
    with pytest.raises(SepmlError, match="no such folder"):
        manifest_of_tree(tmp_path / "none")
    with pytest.raises(SepmlError, match=r"has no mix/; expected the folders mix/ s1/ s2/"):
        manifest_of_tree(tmp_path)
    (split / "s4").mkdir()
    with pytest.raises(SepmlError, match="has no s3/"):
        manifest_of_tree(split)
    for part in ("mix", "s1", "s2"):
        (tmp_path / "empty" / part).mkdir(parents=True)
    with pytest.raises(SepmlError, match=r"hold no \.wav or \.flac files"):
        manifest_of_tree(tmp_path / "empty")


def test_faulty_mixtures_are_not_written(tmp_path):
    x, y = make_split(tmp_path / "tr", ["x", "y"])
    path = tmp_path / "tr.csv"
    with pytest.raises(SepmlError, match="id 'x' stands twice"):
        write_manifest(path, [x, y, x])
    with pytest.raises(SepmlError, match="'y' has 1 sources, 'x' 2"):
        write_manifest(path, [x, Mixture("y", y.mixture, y.sources[:1], 101)])
    with pytest.raises(SepmlError, match="there are no mixtures"):
        write_manifest(path, [])
    assert not path.exists()
