"""Manifests, mix lists, tables of utterances and shards that are changed while they are read, or hold what nobody writes."""

import io
import json
import os
import struct
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sepml.cli import main
from sepml.errors import SepmlError
from sepml.speech.corpora.corpus_folder import read_utterances
from sepml.speech.data.dynamic_mixing import DynamicMixing, DynamicSegments
from sepml.speech.data.manifest import read_manifest, write_manifest
from sepml.speech.data.mixtures import Mixture, manifest_of_tree
from sepml.speech.data.segments import Segments, read_example
from sepml.speech.data.shards import HEADER, open_shards
from sepml.speech.mixing.mixlist import read_levels, read_mix_list
from sepml.system.files import LONGEST_ID

RATE, LENGTH = 8000, 800
WAVES = ("mix", "s1", "s2")


def wave(length: int = LENGTH, form: str = "WAV", rate: int = RATE) -> bytes:
    box = io.BytesIO()
    soundfile.write(box, np.linspace(-0.5, 0.5, length), rate, format=form, subtype="PCM_16")
    return box.getvalue()


def manifest_of(folder: Path, ids: list[str]) -> Path:
    for name in WAVES:
        (folder / f"{name}.wav").write_bytes(wave())
    mixtures = [Mixture(id, folder / "mix.wav", (folder / "s1.wav", folder / "s2.wav"), LENGTH) for id in ids]
    write_manifest(folder / "tr.csv", mixtures)
    return folder / "tr.csv"


# Changed while it is read


@pytest.mark.parametrize("change", ["emptied", "cut short", "rewritten", "longer"])
def test_a_manifest_that_is_changed_in_place_is_one_line(tmp_path, change):
    path = manifest_of(tmp_path, [f"mixture{n}" for n in range(200)])
    examples = Segments(read_manifest(path), 100, RATE, 0)
    assert examples[0, 150].id == "mixture150"
    content = path.read_bytes()
    stamp = path.stat().st_mtime_ns
    changes = {
        "emptied": b"",
        "cut short": content[:-200],
        "rewritten": content.replace(b"mixture1", b"mixture2"),
        "longer": content + b"x",
    }
    with path.open("r+b") as file:
        file.truncate(0)
        file.write(changes[change])
    # However coarse the clock of the file system is.
    os.utime(path, ns=(stamp + 10**9, stamp + 10**9))
    for index in (150, 3):
        with pytest.raises(SepmlError, match=r"tr\.csv: has changed since it was opened; run the same command again"):
            examples[0, index]


def test_a_manifest_that_is_emptied_does_not_kill_the_process(tmp_path):
    path = manifest_of(tmp_path, [f"mixture{n}" for n in range(200)])
    program = """
import sys
from pathlib import Path
from sepml.errors import SepmlError
from sepml.speech.data.manifest import read_manifest
mixtures = read_manifest(Path(sys.argv[1]))
mixtures[150]
open(sys.argv[1], "wb").close()
try:
    mixtures[150]
except SepmlError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True)
    assert done.returncode == 0, f"killed by signal {-done.returncode}"
    assert done.stdout == f"{path}: has changed since it was opened; run the same command again\n"


def test_a_manifest_that_is_deleted_before_a_worker_opens_it(tmp_path):
    mixtures = read_manifest(manifest_of(tmp_path, ["a", "b"]))
    mixtures.__dict__.update(mixtures.__getstate__())  # as in another process
    (tmp_path / "tr.csv").unlink()
    with pytest.raises(SepmlError, match=r"tr\.csv: cannot be read any more: No such file or directory"):
        mixtures[0]


# Names


def test_ids_are_as_long_as_the_names_of_estimates_allow(tmp_path):
    longest = "é" * (LONGEST_ID // 2) + "x"
    assert len(longest.encode()) == LONGEST_ID and read_manifest(manifest_of(tmp_path, [longest]))[0].id == longest
    (tmp_path / "x_s10.wav").with_name(f"{longest}_s10.wav").touch()
    for id in (longest + "x", "é" * 200, "x" * 300):
        manifest_of(tmp_path, ["a", id])
        with pytest.raises(SepmlError, match=r"tr\.csv:3: id '.*' is too long for the names of files: \d+ bytes, at most 247"):
            read_manifest(tmp_path / "tr.csv")


def test_a_score_of_ids_that_no_file_can_have_is_one_line(tmp_path, capsys):
    path = manifest_of(tmp_path, ["x" * 300])
    assert main(["score", "--manifest", str(path), "--est", str(tmp_path), "-o", str(tmp_path / "out")]) == 1
    assert "is too long for the names of files" in capsys.readouterr().err


def test_a_tree_with_a_name_that_is_too_long(tmp_path):
    for name in WAVES:
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{'x' * 250}.wav").write_bytes(wave())
    with pytest.raises(SepmlError, match="too long a name to make those of estimates from"):
        manifest_of_tree(tmp_path)


# Marks at the start of a file, and rows of other lengths


def test_a_byte_order_mark_is_passed_over_everywhere(tmp_path):
    mark = b"\xef\xbb\xbf"
    path = manifest_of(tmp_path, ["a"])
    path.write_bytes(mark + path.read_bytes())
    assert read_manifest(path)[0].id == "a"
    (tmp_path / "mix_2_spk_tr.txt").write_bytes(mark + b"a/x.wav 1.0 b/y.wav -1.0\n")
    assert read_mix_list(tmp_path / "mix_2_spk_tr.txt")[0].paths == ("a/x.wav", "b/y.wav")
    (tmp_path / "levels.txt").write_bytes(mark + b"x 0.5\n")
    assert read_levels(tmp_path / "levels.txt") == {"x": 0.5}
    header = "file,speaker,sex,tier,split,seconds,clips"
    (tmp_path / "utterances.csv").write_bytes(mark + f"{header}\ns1.wav,1,f,A,train,1,\ns2.wav,2,f,A,train,1,\n".encode())
    assert [row.file for row in read_utterances(tmp_path / "utterances.csv")] == ["s1.wav", "s2.wav"]
    assert len(DynamicSegments(DynamicMixing(tmp_path / "utterances.csv"), 2, 10, RATE, 0).by_speaker) == 2


@pytest.mark.parametrize("row", ["s2.wav,2", "s2.wav", "s2.wav,2,train,A,more"])
def test_a_row_of_another_length_is_named(tmp_path, row):
    table = tmp_path / "utterances.csv"
    table.write_text(f"file,speaker,split,tier\ns1.wav,1,train,A\n{row}\n")
    with pytest.raises(SepmlError, match=r"utterances\.csv:3: \d fields, expected 4 as in the header"):
        DynamicSegments(DynamicMixing(table, tiers="A"), 1, 10, RATE, 0)


@pytest.mark.parametrize("content", [b"\0", b"a/x.wav 1 b/y\0.wav 2\n", b"\xff\xfea", b"RIFF\x24\x80\0\0WAVE"])
def test_mix_lists_that_are_no_text(tmp_path, content):
    (tmp_path / "mix_2_spk_tr.txt").write_bytes(content)
    with pytest.raises(SepmlError, match=r"mix_2_spk_tr\.txt(: is not a text file|:1: )"):
        read_mix_list(tmp_path / "mix_2_spk_tr.txt")


# Shards


def member(name: str, content: bytes) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    return info.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512)


def sparse_member(name: str, size: int) -> bytes:
    """A GNU sparse member that claims `size` bytes and has none."""
    header = bytearray(tarfile.TarInfo(name).tobuf(tarfile.GNU_FORMAT))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[386:410] = b"00000000000\0" * 2
    header[483:495] = b"\x80" + bytes(3) + struct.pack(">Q", size)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def shard_of(folder: Path, facts: str | None = None, waves: dict[str, bytes] | None = None, length: int = LENGTH) -> Path:
    """A folder of one shard with one mixture."""
    facts = facts or json.dumps({"id": "a", "length": length, "sample_rate": RATE, "n_src": 2})
    content = member("0.json", facts.encode())
    for name, part in ({name: wave() for name in WAVES} | (waves or {})).items():
        content += part if name == "raw" else member(f"0.{name}.wav", part)
    (folder / "shard-000000.tar").write_bytes(content)
    (folder / "shards.csv").write_text(f"{','.join(HEADER)}\na,shard-000000.tar,0,{len(content)},{length}\n")
    return folder


def test_a_sound_shard(tmp_path):
    assert read_example(open_shards(shard_of(tmp_path))[0], RATE).sources.shape == (2, LENGTH)


@pytest.mark.parametrize("n_src", ["1000000000", "2.5", "Infinity", "NaN", "1e999", "true", "0", "-1", "null", "[2]", "5"])
def test_numbers_of_sources_that_no_mixture_has(tmp_path, n_src):
    shard_of(tmp_path, f'{{"id": "a", "length": {LENGTH}, "sample_rate": {RATE}, "n_src": {n_src}}}')
    with pytest.raises(SepmlError, match=r"shard-000000\.tar: holds no mixture 'a' at byte 0"):
        open_shards(tmp_path)


@pytest.mark.parametrize("facts", ["[" * 100_000, "{}", "[]", "3", '{"id": "a", "id": "a", "n_src": 2}', "9" * 5000])
def test_descriptions_that_are_none(tmp_path, facts):
    with pytest.raises(SepmlError, match=r"shard-000000\.tar: holds no mixture 'a' at byte 0"):
        open_shards(shard_of(tmp_path, facts))


def test_a_sparse_member_is_not_filled_with_zeros(tmp_path):
    shard_of(tmp_path, waves={"raw": sparse_member("0.noise.wav", 1 << 40)})
    with pytest.raises(SepmlError, match=r"shard-000000\.tar: holds no mixture 'a' at byte 0"):
        open_shards(tmp_path)


def test_audio_of_another_length_is_not_decoded_first(tmp_path, monkeypatch):
    flac = wave(50_000, "FLAC")
    mixtures = open_shards(shard_of(tmp_path, waves={"s1": flac}))
    read = soundfile.SoundFile.read

    def reading(file: soundfile.SoundFile, *words: object, **options: object) -> np.ndarray:
        assert file.frames == LENGTH, "decoded before its length was compared"
        return read(file, *words, **options)

    monkeypatch.setattr(soundfile.SoundFile, "read", reading)
    with pytest.raises(SepmlError, match="s1 of 'a' has 50000 samples, the index says 800") as caught:
        read_example(mixtures[0], RATE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("column", [3, 4])
def test_an_index_with_numbers_beyond_all_measure(tmp_path, column):
    index = shard_of(tmp_path) / "shards.csv"
    header, row = index.read_text().splitlines()
    fields = row.split(",")
    fields[column] = "9" * 15
    index.write_text(f"{header}\n{','.join(fields)}\n")
    with pytest.raises(SepmlError, match=r"shards\.csv:2: 'a,shard-000000\.tar,"):
        open_shards(tmp_path)


def test_a_shard_of_a_name_that_no_file_has(tmp_path):
    index = shard_of(tmp_path) / "shards.csv"
    index.write_text(index.read_text().replace("shard-000000.tar", "x" * 300))
    with pytest.raises(SepmlError, match="no such shard"):
        open_shards(tmp_path)
