"""Fetching CIFAR from a server that breaks off."""

import hashlib
import io
import tarfile
from pathlib import Path

import pytest
from download_server import breaking_server, impatient  # noqa: F401
from image_files import datasets, write_cifar

from sepml.cli import main
from sepml.vision.datasets import ImageDataSettings, read_sets


@pytest.fixture
def archive(server, tmp_path, monkeypatch) -> bytes:
    """An archive of CIFAR-100's files, which the server has as /file."""
    write_cifar(tmp_path / "made", "cifar100", monkeypatch)
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as file:
        file.add(tmp_path / "made" / "cifar-100-python", "cifar-100-python")
    server.files["/file"] = content.getvalue()
    return content.getvalue()


def prepare(server, out: Path, *words: str) -> int:
    return main(["prepare", "cifar100", "-qq", "--out", str(out), "--url", f"{server.url}/file", *words])


def test_cifar_is_fetched_checked_unpacked_and_kept(server, archive, tmp_path, capsys):
    out = tmp_path / "out"
    sound = ["--md5", hashlib.md5(archive).hexdigest()]
    server.acts = [f"cut {len(archive) // 2}", 503]
    assert prepare(server, out, *sound) == 0
    assert capsys.readouterr().out.split() == [str(out / "cifar-100-python")]
    assert server.asked[-1] == f"bytes={len(archive) // 2}-", "it went on where it broke off"
    assert [path.name for path in out.iterdir()] == ["cifar-100-python"]
    assert len(read_sets(ImageDataSettings("cifar100", out), 0).train.labels) == 60
    asked = len(server.asked)
    assert prepare(server, out, *sound) == 0 and len(server.asked) == asked, "it is there"
    # What has been damaged since is fetched anew.
    (out / "cifar-100-python" / "train").write_bytes(b"")
    assert prepare(server, out, *sound) == 0 and len(server.asked) == asked + 1
    assert len(read_sets(ImageDataSettings("cifar100", out), 0).train.labels) == 60


def test_cifar_comes_from_where_torchvision_says(server, archive, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(datasets.CIFAR100, "url", f"{server.url}/file")
    words = ["prepare", "cifar100", "-qq", "--out", str(tmp_path / "out")]
    assert main(words) == 1
    assert (
        f"its MD5 checksum is {hashlib.md5(archive).hexdigest()}, expected {datasets.CIFAR100.tgz_md5}"
        in capsys.readouterr().err
    )
    monkeypatch.setattr(datasets.CIFAR100, "tgz_md5", hashlib.md5(archive).hexdigest())
    assert main(words) == 0


def test_another_archive_is_refused(server, archive, tmp_path, capsys):
    assert prepare(server, tmp_path / "out", "--md5", "0" * 32) == 1
    error = capsys.readouterr().err
    assert "MD5 checksum" in error and "expected 0000" in error and error.count("\n") == 1
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_what_is_no_whole_archive_is_refused_and_not_kept(server, archive, tmp_path, capsys, share):
    # Without a checksum on the command line, only unpacking can tell.
    server.files["/file"] = archive[: int(share * len(archive))] or b"<html>not found</html>"
    assert prepare(server, tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert error.startswith("sepml: error: ") and error.count("\n") == 1, error
    server.files["/file"] = archive
    assert prepare(server, tmp_path / "out") == 0
    assert len(read_sets(ImageDataSettings("cifar100", tmp_path / "out"), 0).train.labels) == 60
