"""Downloads from a server that breaks off, refuses, lies and comes back; archives that are damaged or want to climb out."""

import hashlib
import io
import json
import logging
import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest
from download_server import CONTENT, Server, breaking_server, impatient  # noqa: F401

from sepml.cli import main
from sepml.errors import SepmlError
from sepml.speech.audio.files import write_wav
from sepml.speech.data.manifest import read_manifest
from sepml.speech.mixing.check import check
from sepml.system.archives import unpack_zip
from sepml.system.download import Expected, fetch, zenodo_file

MD5 = hashlib.md5(CONTENT).hexdigest()


def get(server: Server, target: Path, expected: Expected | None = None) -> None:
    fetch(f"{server.url}/file", target, expected)


def test_a_file_comes_whole_and_is_not_fetched_twice(server, tmp_path):
    for _ in range(2):
        get(server, tmp_path / "new" / "file", Expected(len(CONTENT), MD5))
    assert (tmp_path / "new" / "file").read_bytes() == CONTENT
    assert server.asked == [""] and not list(tmp_path.glob("*/*.part"))


@pytest.mark.parametrize("expected", [Expected(len(CONTENT), MD5), Expected(), Expected(md5=MD5)])
def test_what_broke_off_is_gone_on_with(server, tmp_path, expected):
    server.acts = ["cut 100000", 503, "cut 50000", 429]
    get(server, tmp_path / "file", expected)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.asked == ["", "bytes=100000-", "bytes=100000-", "bytes=150000-", "bytes=150000-"]


def test_a_later_run_goes_on_too(server, tmp_path):
    server.acts = ["cut 100000", 404]
    with pytest.raises(SepmlError, match=r"/file: the server says 404 Not Found"):
        get(server, tmp_path / "file")
    assert not (tmp_path / "file").exists()
    get(server, tmp_path / "file", Expected(md5=MD5))
    assert server.asked[-1] == "bytes=100000-"
    # Everything had come, only the name was not yet given.
    (tmp_path / "file").rename(tmp_path / "file.part")
    get(server, tmp_path / "file", Expected(md5=MD5))
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_server_without_ranges(server, tmp_path):
    server.ranges = False
    server.acts = ["cut 200000"]
    get(server, tmp_path / "file", Expected(len(CONTENT), MD5))
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_beginning_of_another_version_is_thrown_away(server, tmp_path, caplog):
    for begun in (b"x" * 100, b"x" * 300_000, b"x" * 400_000):
        (tmp_path / "file").unlink(missing_ok=True)
        (tmp_path / "file.part").write_bytes(begun)
        get(server, tmp_path / "file", Expected(md5=MD5))
        assert (tmp_path / "file").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        (Expected(md5="0" * 32), f"its MD5 checksum is {MD5}, expected 00000000"),
        (Expected(size=299_999), "has 300000 bytes, expected 299999"),
    ],
)
def test_wrong_content_is_refused(server, tmp_path, expected, message):
    with pytest.raises(SepmlError, match=message):
        get(server, tmp_path / "file", expected)
    assert list(tmp_path.iterdir()) == [] and len(server.asked) == 2


def test_a_server_that_does_not_come_back(server, tmp_path):
    server.acts = [503] * 20
    with pytest.raises(SepmlError, match="503 Service Unavailable; 6 attempts; run again to go on"):
        get(server, tmp_path / "file")
    with pytest.raises(SepmlError, match=r"cannot be fetched: .*refused"):
        fetch("http://127.0.0.1:9/file", tmp_path / "file")
    with pytest.raises(SepmlError, match="is not an address"):
        fetch("no address", tmp_path / "file")


def test_a_full_disk(server, tmp_path, monkeypatch):
    (tmp_path / "folder.part").mkdir()
    with pytest.raises(SepmlError, match=r"folder\.part: cannot be written"):
        get(server, tmp_path / "folder")
    (tmp_path / "a").write_text("")
    with pytest.raises(SepmlError, match="a: cannot be made"):
        get(server, tmp_path / "a" / "file")


def test_what_zenodo_says_of_a_file(server):
    link = f"{server.url}/file"
    record = {"files": [{"key": "a.zip", "size": 5, "checksum": f"md5:{MD5}", "links": {"self": link}}]}
    server.files["/api/7"] = json.dumps(record).encode()
    assert zenodo_file("7", "a.zip", f"{server.url}/api/") == (link, Expected(5, MD5))
    with pytest.raises(SepmlError, match=r"api/7: the record has no file 'b\.zip'"):
        zenodo_file("7", "b.zip", f"{server.url}/api/")
    for record in ("8", "../file"):
        with pytest.raises(SepmlError, match=r"cannot be read .*; give the address of the file itself"):
            zenodo_file(record, "a.zip", f"{server.url}/api/")


# Archives


def archive(path: Path, members: dict[str, bytes], **changes: int) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            member = zipfile.ZipInfo(name)
            member.external_attr = changes.get("mode", stat.S_IFREG | 0o644) << 16
            file.writestr(member, content, zipfile.ZIP_DEFLATED)
    return path


def test_an_archive_is_unpacked_with_or_without_its_top_folder(tmp_path):
    with_top = {"Set/a/b.txt": b"1", "Set/c.txt": b"2", "__MACOSX/._a": b"3"}
    for number, members in enumerate([with_top, {"a/b.txt": b"1", "c.txt": b"2"}]):
        target = tmp_path / str(number) / "Set"
        unpack_zip(archive(tmp_path / f"{number}.zip", members), target)
        assert {str(f.relative_to(target)): f.read_bytes() for f in target.rglob("*") if f.is_file()} == {
            "a/b.txt": b"1",
            "c.txt": b"2",
        }
        assert [f.name for f in target.parent.iterdir()] == ["Set"]


@pytest.mark.parametrize("name", ["../out.txt", "a/../../out.txt", "/tmp/out.txt", "..\\out.txt", "C:\\out.txt"])
def test_no_member_climbs_out(tmp_path, name):
    with pytest.raises(SepmlError, match="would lie outside the folder; nothing was unpacked"):
        unpack_zip(archive(tmp_path / "x.zip", {"a.txt": b"1", name: b"2"}), tmp_path / "in" / "Set")
    assert list((tmp_path / "in").iterdir()) == [] and not (tmp_path / "out.txt").exists()


def test_links_and_damage(tmp_path):
    with pytest.raises(SepmlError, match="is a link"):
        unpack_zip(archive(tmp_path / "l.zip", {"a": b"/etc/passwd"}, mode=stat.S_IFLNK | 0o777), tmp_path / "Set")
    path = archive(tmp_path / "x.zip", {"a": CONTENT, "b": CONTENT})
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:1000] + bytes(100) + whole[1100:], b"text"):
        path.write_bytes(damaged)
        with pytest.raises(SepmlError, match=r"x\.zip: is not a whole zip archive"):
            unpack_zip(path, tmp_path / "Set")
    assert not (tmp_path / "Set").exists() and not list(tmp_path.glob(".*"))


# MiniLibriMix


def mini_archive() -> bytes:
    """A small archive in the layout of MiniLibriMix; its table of clean mixtures names the noise as well."""
    content = io.BytesIO()
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(content, "w") as file:
        for split, count in (("train", 3), ("val", 2)):
            tables = {kind: ["mixture_ID,mixture_path,source_1_path,source_2_path,noise_path,length"] for kind in KINDS}
            for k in range(count):
                s1, s2, noise = rng.integers(-3000, 3000, (3, 1000 + k)).astype(np.int16)
                parts = {"s1": s1, "s2": s2, "noise": noise, "mix_clean": s1 + s2, "mix_both": s1 + s2 + noise}
                for part, x in parts.items():
                    wav = Path("x.wav")
                    write_wav(wav, x, 8000)
                    file.writestr(f"MiniLibriMix/{split}/{part}/{split}{k}.wav", wav.read_bytes())
                for kind, lines in tables.items():
                    paths = (f"MiniLibriMix/{split}/{part}/{split}{k}.wav" for part in (kind, "s1", "s2", "noise"))
                    lines.append(",".join([f"{split}{k}", *paths, str(1000 + k)]))
            for kind, lines in tables.items():
                file.writestr(f"MiniLibriMix/metadata/mixture_{split}_{kind}.csv", "\n".join(lines) + "\n")
    return content.getvalue()


KINDS = ("mix_clean", "mix_both")


def test_minilibrimix_is_fetched_unpacked_and_listed(server, tmp_path, monkeypatch, capsys, caplog):
    monkeypatch.chdir(tmp_path)
    data = mini_archive()
    server.files["/mini.zip"] = data
    server.acts = [f"cut {len(data) // 2}", 500]
    words = ["prepare", "librimix", "--corpus", "mini", "--out", "data", "--url", f"{server.url}/mini.zip"]
    with pytest.raises(SystemExit):
        main([*words[:2], *words[4:]])
    capsys.readouterr()
    assert main([*words, "--md5", hashlib.md5(data).hexdigest()]) == 0
    made = capsys.readouterr().out.split()
    assert made == [f"data/mixture_{split}_{kind}.csv" for kind in KINDS for split in ("train", "val")]
    assert [len(read_manifest(Path(name))) for name in made] == [3, 2, 3, 2]
    assert "NonCommercial" in Path("data/LICENSES/README.txt").read_text()
    result = check(Path("data"), jobs=1)
    assert result.faults == [] and len(result.facts) == 4
    # Again: nothing is fetched. The folder moves, and the manifests with it.
    asked = len(server.asked)
    assert main(words) == 0 and len(server.asked) == asked
    assert sorted(p.name for p in Path("data").iterdir() if "zip" in p.name) == []
    Path("data").rename("moved")
    assert len(read_manifest(Path("moved/mixture_train_mix_both.csv"))) == 3
    with caplog.at_level(logging.WARNING, logger="sepml"):
        assert main([*words[:-1], f"{server.url}/file"]) == 1
    assert "is not a whole zip archive" in capsys.readouterr().err and "no checksum is given" in caplog.text
