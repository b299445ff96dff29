"""Shards are kept only where the files in them have not been written since, whatever their sizes."""

import os
from pathlib import Path

import numpy as np
import pytest

from sepml.speech.audio.files import write_wav
from sepml.speech.data.manifest import write_manifest
from sepml.speech.data.mixtures import Mixture
from sepml.speech.data.shards import open_shards, read_sharded
from sepml.speech.data.write_shards import write_shards


def written(root: Path, seed: int) -> Path:
    """Four mixtures of one length."""
    rng = np.random.default_rng(seed)
    mixtures = []
    for name in "abcd":
        files = [root / part / f"{name}.wav" for part in ("mix", "s1", "s2")]
        for file in files:
            write_wav(file, 0.1 * rng.standard_normal(800), 8000)
        mixtures.append(Mixture(name, files[0], tuple(files[1:]), 800))
    write_manifest(root / "tr.csv", mixtures)
    return root / "tr.csv"


def samples(out: Path) -> list[float]:
    return [float(read_sharded(mixture, 8000)[0][0]) for mixture in open_shards(out)]


def test_mixtures_that_were_made_anew_are_sharded_anew(tmp_path):
    manifest = written(tmp_path, 0)
    write_shards(manifest, tmp_path / "out", 2, jobs=1)
    before = samples(tmp_path / "out")
    kept = (tmp_path / "out" / "shard-000001.tar").stat().st_ino
    changed = tmp_path / "mix" / "a.wav"
    times = changed.stat()
    write_wav(changed, 0.1 * np.random.default_rng(9).standard_normal(800), 8000)
    os.utime(changed, ns=(times.st_atime_ns, times.st_mtime_ns))
    write_shards(manifest, tmp_path / "out", 2, jobs=1)
    after = samples(tmp_path / "out")
    assert after[0] != before[0] and after[1:] == before[1:]
    assert (tmp_path / "out" / "shard-000001.tar").stat().st_ino == kept


@pytest.mark.parametrize("noted", [True, False])
def test_shards_are_kept_where_nothing_changed_and_where_an_earlier_version_made_them(tmp_path, noted):
    manifest = written(tmp_path, 0)
    write_shards(manifest, tmp_path / "out", 2, jobs=1)
    if not noted:
        for note in (tmp_path / "out").glob(".made.*"):
            note.unlink()
    before = {file.name: file.stat().st_ino for file in (tmp_path / "out").glob("*.tar")}
    write_shards(manifest, tmp_path / "out", 2, jobs=1)
    assert {file.name: file.stat().st_ino for file in (tmp_path / "out").glob("*.tar")} == before
