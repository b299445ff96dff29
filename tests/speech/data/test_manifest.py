"""Manifests: what is written is read, joined by id, and every fault has its file and line."""

import multiprocessing
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sepml.errors import SepmlError
from sepml.speech.audio.files import write_wav
from sepml.speech.data import manifest as module
from sepml.speech.data.manifest import Manifest, read_manifest, scan_manifest, write_manifest
from sepml.speech.data.mixtures import Mixture, manifest_of_tree

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
        ("good,m.wav,m.wav,m.wav,100", "duplicate id 'good', which is already in line 2"),
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
        (f"{HEADER},length", "the column length occurs twice"),
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
    with pytest.raises(SepmlError, match="id 'x' occurs twice"):
        write_manifest(path, [x, y, x])
    with pytest.raises(SepmlError, match="there are no mixtures"):
        write_manifest(path, [])
    assert not path.exists()


# Long manifests: rows are read when they are asked for


def written(folder: Path, count: int, end: str = "\n") -> Path:
    """A manifest of `count` mixtures that all name the one file m.wav, with ids that are not all as long."""
    write_wav(folder / "m.wav", np.full(100, 0.25), 8000)
    rows = (f"id-{n}\u00e9,m.wav,m.wav,m.wav,{n + 1}" for n in range(count))
    (folder / "long.csv").write_text(end.join([HEADER, *rows]) + end, encoding="utf-8", newline="")
    return folder / "long.csv"


def ids_of(mixtures: Manifest) -> list[str]:
    return [mixture.id for mixture in mixtures]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n"])
def test_rows_over_many_blocks_are_those_of_a_csv_reader(tmp_path, end):
    # 40,000 rows are over a MB: some rows lie on the border of two blocks.
    mixtures = read_manifest(written(tmp_path, 40_000, end))
    assert len(mixtures) == 40_000 and mixtures.n_src == 2
    assert np.array_equal(mixtures.lengths, np.arange(1, 40_001))
    for index in (0, 1, 17, 25_000, 39_999, -1):
        n = range(40_000)[index]
        assert mixtures[index] == Mixture(f"id-{n}\u00e9", tmp_path / "m.wav", (tmp_path / "m.wav",) * 2, n + 1)
    assert ids_of(mixtures[5:30_000:9_999]) == [f"id-{n}\u00e9" for n in (5, 10_004, 20_003)]
    assert mixtures[:3] == list(mixtures[:3]) and mixtures[:3] != mixtures[1:4]
    with pytest.raises(IndexError):
        mixtures[40_000]


def test_quotes_and_a_last_line_without_an_end(tmp_path):
    write_wav(tmp_path / 'a,"b.wav', np.full(100, 0.25), 8000)
    path = tmp_path / "tr.csv"
    name = '"a,""b.wav"'
    path.write_text(f"{HEADER}\n\nx,{name},{name},{name},100\n\ny,{name},{name},{name},0200")
    mixtures = read_manifest(path)
    assert ids_of(mixtures) == ["x", "y"] and mixtures[1].length == 200 and mixtures.lines.tolist() == [3, 5]
    assert mixtures[0].sources[0] == tmp_path / 'a,"b.wav'


@pytest.mark.parametrize("after", ["\ny,m.wav,m.wav,m.wav,100\n", '\n"y,m.wav,m.wav,m.wav,100\n', ""])
def test_a_field_over_several_lines_is_refused(tmp_path, after):
    path = tmp_path / "tr.csv"
    path.write_text(f'{HEADER}\n\nx,m.wav,m.wav,"m.wav,100{after}')
    assert fault_of(path) == f"{path}:3: a quoted field goes on in the next line, expected one line a row"


def test_doubles_far_apart_and_hashes_that_are_alike_by_chance(tmp_path):
    path = written(tmp_path, 20_000)
    with path.open("a", encoding="utf-8") as file:
        file.write("id-19999\u00e9,m.wav,m.wav,m.wav,7\nid-3\u00e9,m.wav,m.wav,m.wav,7\nid-3\u00e9,m.wav,m.wav,m.wav,8\n")
    expected = f"{path}:20002: duplicate id 'id-19999\u00e9', which is already in line 20001 (and 2 more faults"
    assert fault_of(path).startswith(expected)
    rows, faults = scan_manifest(path)
    assert len(rows) == 20_000 and "already in line 5" in faults[1] and "already in line 5" in faults[2]
    few = written(tmp_path, 300)
    mixtures = read_manifest(few)
    assert mixtures.repeated(np.zeros(300, np.int64), 0) == []


def test_of_a_long_manifest_some_files_are_looked_for_at_once_and_the_others_when_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LOOKED_FOR", 10)
    path = written(tmp_path, 101)
    path.write_text(path.read_text("utf-8").replace("id-7\u00e9,m.wav,m.wav", "id-7\u00e9,m.wav,gone.wav"), "utf-8")
    mixtures = read_manifest(path)
    assert mixtures[6].id == "id-6\u00e9"
    with pytest.raises(SepmlError, match=r"long\.csv:9: id 'id-7\u00e9': there is no file \S+gone\.wav \(paths"):
        mixtures[7]
    # The first and the last row are among those that are looked for.
    path.write_text(path.read_text("utf-8").replace("id-100\u00e9,m.wav", "id-100\u00e9,away.wav"), "utf-8")
    assert fault_of(path).startswith(f"{path}:102: id 'id-100\u00e9': there is no file ")


def test_a_length_beyond_all_measure(tmp_path):
    path = tmp_path / "tr.csv"
    path.write_text(f"{HEADER}\nx,m.wav,m.wav,m.wav,{'1' + '0' * 5000}\n")
    assert fault_of(path).startswith(f"{path}:2: id 'x': length is '1000")


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes_read_the_same_rows(tmp_path, method):
    mixtures = read_manifest(written(tmp_path, 5_000))
    assert len(pickle.dumps(mixtures[:100])) < 10_000
    expected = ids_of(mixtures[::1000])
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.apply(ids_of, (mixtures[::1000],)) == expected


def test_a_manifest_that_changes_afterwards_is_noticed_by_another_process(tmp_path):
    path = written(tmp_path, 50)
    mixtures = read_manifest(path)
    first = mixtures[0]
    replaced = path.with_suffix(".old")
    path.rename(replaced)
    written(tmp_path, 49)
    assert mixtures[0] == first  # this process goes on with the file that it opened
    with pytest.raises(SepmlError, match=r"long\.csv: has changed since it was opened"):
        pickle.loads(pickle.dumps(mixtures))[0]


def test_a_long_manifest_takes_little_memory_and_time(tmp_path):
    path = written(tmp_path, 200_000)
    program = """
import resource, sys, time
from pathlib import Path
from sepml.speech.data.manifest import read_manifest
before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
mixtures = read_manifest(Path(sys.argv[1]))
seconds = time.process_time() - started
print(len(mixtures), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, seconds)
"""
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    length, kilobytes, seconds = map(float, done.stdout.split())
    # As a list of mixtures they take some 300 MB.
    assert length == 200_000 and kilobytes < 120_000 and seconds < 10
